"""Requests: what a preparation is asked for, compared with what lies in its folder."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from keras_agegender.datasets.manifest import manifest_age_groups
from keras_agegender.datasets.prepared import PREPARATION_FILE, read_preparation
from keras_agegender.files import holds, write_json

# Part of a request -> what it means that two differ in it. A part that is not here, or
# one inside of it, is said by its dotted name.
DIFFERENCES = {
    "name": "its source is {there}, not {here}",
    "manifest_sha256": "faces, labels, splits or age groups differ",
    "splits": "which faces train, validate and test differs",
    "block_size": "its blocks have {there} pictures, not {here} (block_size)",
    "pixels": "pictures were made by another version of this library",
    "pixels.version": "pictures were made by another version of this library",
    "pixels.crop": "one has face crops, the other whole pictures (--no-crop)",
    "pixels.crop.margin": "the margin of its crops is {there}, not {here} (--margin)",
    "pixels.detector": "another detector found the faces",
    "pixels.stored_size": "its pictures have {there} pixels, not {here} (--size)",
    "pixels.jpeg_quality": "its JPEG quality is {there}, not {here}",
}
# What lies in the folder of an unfinished preparation; `.block` was `.pickle` once.
OWN = re.compile(r"\.?(block-\d{6}|request)\..*|dataset")
# Compared part by part, where both sides have them.
NESTED = ("pixels", "pixels.crop")


def manifest_hash(manifest: pd.DataFrame) -> str:
    """Returns the SHA-256 of a manifest's rows, outputs and age groups.

    Without paths: pictures may be moved between two calls.
    """
    text = manifest.drop(columns="path").to_csv(index=False) + json.dumps(
        [
            manifest.attrs.get("extra_heads", {}),
            manifest_age_groups(manifest).to_list(),
        ],
        sort_keys=True,
    )
    return hashlib.sha256(text.encode()).hexdigest()


def request_hash(request: Mapping[str, Any]) -> str:
    """Returns the SHA-256 of a request, by which its blocks are known."""
    return hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()


def differences(made: Mapping[str, Any], asked: Mapping[str, Any]) -> list[str]:
    """Returns in words each part in which a request differs from an earlier one."""
    lines = [
        DIFFERENCES.get(key, f"{key} is {{there}}, not {{here}}").format(
            there=_text(first), here=_text(second)
        )
        for key, first, second in _differing(made, asked)
    ]
    return list(dict.fromkeys(lines))


def finished_before(
    directory: Path, request: Mapping[str, Any], overwrite: bool
) -> bool:
    """Returns whether a folder holds the very dataset that is asked for.

    Raises:
        ValueError: If it is a file, holds other things than a dataset, or another
            dataset, unless that may be overwritten.
    """
    if not holds(directory, PREPARATION_FILE, "prepared dataset") or overwrite:
        return False
    made = read_preparation(directory)
    if found := differences(made, request):
        raise ValueError(
            f"{directory} holds a dataset prepared otherwise: {'; '.join(found)}. "
            "Choose another directory, or overwrite it (--overwrite)."
        )
    return True


def open_partial(partial: Path, request: Mapping[str, Any], overwrite: bool) -> None:
    """Makes the folder of finished blocks, or finds those of the same request in it.

    A damaged request.json is written anew: the blocks say of which request they are.

    Raises:
        ValueError: If it holds those of another one, unless they may be overwritten; or
            other things, which are never removed.
    """
    file = partial / "request.json"
    if partial.is_symlink() or (partial.exists() and not partial.is_dir()):
        raise ValueError(
            f"{partial} is a link or a file. Expected a folder of finished blocks, or "
            "nothing. Remove it, or choose another directory."
        )
    if partial.exists():
        foreign = sorted(e.name for e in partial.iterdir() if not OWN.fullmatch(e.name))
        if foreign:
            raise ValueError(
                f"{partial} holds other things than finished blocks: {foreign[0]!r}. "
                "Move them away, or choose another directory."
            )
        made = _made_before(file)
        if made is not None and made != request:
            if not overwrite:
                raise ValueError(
                    f"{partial} holds an unfinished preparation with other settings: "
                    f"{'; '.join(differences(made, request))}. Choose another "
                    "directory, or overwrite it (--overwrite)."
                )
            shutil.rmtree(partial)
    partial.mkdir(parents=True, exist_ok=True)
    write_json(file, request)


def _made_before(file: Path) -> dict[str, Any] | None:
    """Returns an earlier request; `None` where there is none, or a damaged one."""
    try:
        made = json.loads(file.read_text("utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return made if isinstance(made, dict) else None


def _differing(
    made: Mapping[str, Any], asked: Mapping[str, Any], within: str = ""
) -> Iterator[tuple[str, Any, Any]]:
    """Yields dotted name, value there and value asked for."""
    for name, second in asked.items():
        key, first = f"{within}{name}", made.get(name)
        if first == second:
            continue
        if key == "pixels.detector" and None in (first, second):
            continue  # whole pictures have none; "pixels.crop" says so
        if key in NESTED and isinstance(first, Mapping) and isinstance(second, Mapping):
            yield from _differing(first, second, f"{key}.")
        else:
            yield key, first, second


def _text(value: Any) -> str:
    """Returns a value as it is read best: sizes as 256 x 256."""
    if isinstance(value, list):
        return " x ".join(map(str, value))
    return "not set" if value is None else str(value)
