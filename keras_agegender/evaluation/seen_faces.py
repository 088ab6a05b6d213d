"""Faces seen before: which faces of a split a run was trained or selected on.

A run keeps an index of its faces (faces.csv.gz), by which they are counted on any
dataset. A folder that was passed on has none: what is left then are names.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from keras_agegender.datasets.face_index import FaceIndex, index_faces, seen_before
from keras_agegender.datasets.prepared import PreparedDataset
from keras_agegender.files import directory_hash
from keras_agegender.run_directory import RunDirectory

USES = {"train": "training", "validation": "validation"}


def count_seen(run: RunDirectory, data: PreparedDataset, split: str) -> dict[str, Any]:
    """Returns how many faces of a split a run was trained or selected on before.

    Args:
        run: A run; the one that it begins with counts too where it is known.
        data: A prepared dataset.
        split: A split expression.

    Returns:
        `num_seen_in_training` and `num_seen_in_validation` of an `Evaluation`; `None`
        where the run does not know its faces: it has no record of them, and `data` is
        not the very dataset that it was trained on.
    """
    seen: dict[str, Any] = dict.fromkeys(USES)
    faces = own = None
    for one in (run, *_beginnings(run)):
        info = one.info()
        same = info.get("data_sha256") == directory_hash(data.directory)
        if one.faces_file.is_file():
            known = FaceIndex.read(one.faces_file)
        elif same:
            known = own = own or index_faces(data)
        else:
            continue
        if faces is None:
            faces = (known if same else index_faces(data)).faces(split)
        same |= _same_manifest(info, data)
        for name in USES:
            before = known.faces(info["splits"][name])
            found = seen_before(faces, before, same_dataset=same)
            seen[name] = found if seen[name] is None else seen[name] | found
    return {
        f"num_seen_in_{USES[name]}": None if found is None else int(found.sum())
        for name, found in seen.items()
    }


def possibly_seen(run: RunDirectory, data: PreparedDataset, split: str) -> list[str]:
    """Returns what a run without a record of its faces may have used a split for.

    Args:
        run: A run.
        data: A prepared dataset.
        split: A split expression.

    Returns:
        `"training"`, `"validation"` or both, where the run's split and this one have
        rows in common, by their names, and the datasets have one name or manifest.
        Empty where `count_seen` counts.
    """
    info = run.info()
    if run.faces_file.is_file() or not info.get("splits"):
        return []
    if info.get("data_sha256") == directory_hash(data.directory):
        return []
    if info.get("data_name") != data_name(data) and not _same_manifest(info, data):
        return []
    asked = _parts(data, split)
    return [
        what
        for name, what in USES.items()
        if any(
            theirs[0] == ours[0] and max(theirs[1], ours[1]) < min(theirs[2], ours[2])
            for theirs in _parts(data, info["splits"][name])
            for ours in asked
        )
    ]


def data_name(data: PreparedDataset) -> str:
    """Returns what a dataset is called."""
    return data.info.get("name", data.builder.name)


def _same_manifest(info: dict[str, Any], data: PreparedDataset) -> bool:
    """Whether run and dataset were prepared from one list of faces."""
    manifest = (info.get("preparation") or {}).get("manifest_sha256")
    return manifest is not None and manifest == data.info.get("manifest_sha256")


def _parts(data: PreparedDataset, expression: str) -> list[tuple[str, int, int]]:
    """Returns name, first row and end of each part; none if a name is not there."""
    import tensorflow_datasets as tfds

    splits = data.builder.info.splits
    names = {part.split("[")[0].strip() for part in expression.split("+")}
    if not names <= set(splits):
        return []
    found = []
    for part in tfds.core.ReadInstruction.from_spec(expression).to_absolute(splits):
        end = splits[part.splitname].num_examples if part.to is None else part.to
        found.append((part.splitname, part.from_ or 0, end))
    return found


def _beginnings(run: RunDirectory) -> list[RunDirectory]:
    """Returns the run whose weights came first, and the one before it, and so on."""
    path = Path(run.info().get("begins_with") or run.path / "pretraining")
    first = RunDirectory(path)
    return [first, *_beginnings(first)] if first.info() else []
