"""Preparation: a manifest of pictures becomes a prepared dataset of face crops.

Work goes block by block. A finished block is a file in `<directory>.partial`, written
whole or not at all, so a preparation that was interrupted goes on where it stopped; the
dataset itself appears under its name only when it is complete.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from keras_agegender.datasets.manifest import extra_columns, validate_manifest
from keras_agegender.datasets.prepared import (
    PREPARATION_FILE,
    STATUS_FILE,
    load_prepared,
    write_tfds,
)
from keras_agegender.datasets.splits import check_subject_exclusive
from keras_agegender.faces.cropping import (
    CropOptions,
    FaceCrop,
    crop_faces,
    whole_picture,
)
from keras_agegender.faces.detector import FaceDetector
from keras_agegender.faces.images import UnreadableImageError, encode_jpeg, read_image
from keras_agegender.progress import progress_bar
from keras_agegender.run_directory import versions, write_json

BLOCK_SIZE = 128


@dataclass(frozen=True)
class PreparationReport:
    """What became of every picture.

    Attributes:
        directory: The prepared dataset.
        counts: Status -> pictures.
        written: Pictures in the dataset.
    """

    directory: Path
    counts: dict[str, int]
    written: int

    @property
    def status(self) -> pd.DataFrame:
        """One row per picture: key, split, status, reason, faces, score, box."""
        return pd.read_csv(self.directory / STATUS_FILE, keep_default_na=False)

    def __str__(self) -> str:
        total = sum(self.counts.values())
        counts = ", ".join(f"{n} {name}" for name, n in sorted(self.counts.items()))
        return (
            f"{total} pictures: {counts}; {self.written} written to {self.directory} "
            f"(per picture: {self.directory / STATUS_FILE})"
        )


def prepare(
    manifest: pd.DataFrame,
    directory: str | Path,
    *,
    detector: FaceDetector | None = None,
    crop_options: CropOptions | None = None,
    output_size: tuple[int, int] = (256, 256),
    jpeg_quality: int = 95,
    splits: Mapping[str, str] | None = None,
    name: str = "faces",
    description: str = "",
    block_size: int = BLOCK_SIZE,
    progress: bool = True,
    overwrite: bool = False,
) -> PreparationReport:
    """Crops the face out of every picture and writes a prepared dataset.

    The same call again resumes an interrupted preparation; after it is complete, it
    returns its report at once. Beside the dataset lie `status.csv`, with a row per
    picture, and `preparation.json`, with everything that determined the result.

    Args:
        manifest: What a reader returned.
        directory: Folder to make.
        detector: Finds faces; `None` with crop options is `MtcnnDetector()`.
        crop_options: How to cut the face out; `None` keeps whole pictures.
        output_size: (height, width) of the stored pictures. Defaults to 256 × 256.
        jpeg_quality: Quality they are stored with, 1 to 100. Defaults to 95.
        splits: `train`, `validation`, `test` -> split expression over the manifest's
            splits; `None` takes the manifest's own.
        name: Name of the dataset, letters, digits and underscores.
        description: What it is.
        block_size: Pictures per resumable block. Defaults to 128.
        progress: Whether a progress bar is shown on stderr.
        overwrite: Whether another dataset in that folder may be replaced.

    Returns:
        Counts by status. Pictures that cannot be read are counted, not written.

    Raises:
        ValueError: If the manifest is invalid, a subject is in two splits, a split
            would be empty, or the folder holds something else.

    Example:
    >>> prepare(manifest, "data/mine", crop_options=CropOptions())  # doctest: +SKIP
    """
    directory = Path(directory)
    if min(output_size) < 1 or not 1 <= jpeg_quality <= 100 or block_size < 1:
        raise ValueError(
            "Invalid arguments. Expected a positive output_size and block_size and a "
            f"jpeg_quality in [1, 100]. Received: output_size={output_size}, "
            f"jpeg_quality={jpeg_quality}, block_size={block_size}."
        )
    validate_manifest(manifest)
    check_subject_exclusive(manifest, splits)
    if crop_options is not None and detector is None:
        from keras_agegender.faces.detector import MtcnnDetector

        detector = MtcnnDetector()
    request = {
        "name": name,
        "manifest_sha256": _manifest_hash(manifest),
        "splits": dict(splits or {s: s for s in sorted(manifest["split"].unique())}),
        "crop": crop_options.to_dict() if crop_options else None,
        "detector": detector.settings() if detector and crop_options else None,
        "output_size": list(output_size),
        "jpeg_quality": jpeg_quality,
        "block_size": block_size,
    }
    done = _already_done(directory, request, overwrite)
    if done is not None:
        return done
    partial = _open_partial(directory, request, overwrite)
    blocks = [
        manifest.iloc[start : start + block_size]
        for start in range(0, len(manifest), block_size)
    ]
    _crop_blocks(blocks, partial, detector, crop_options, request, progress)
    return _assemble(manifest, directory, partial, len(blocks), request, description)


# -- blocks ----------------------------------------------------------------------------


def _crop_blocks(
    blocks: Sequence[pd.DataFrame],
    partial: Path,
    detector: FaceDetector | None,
    options: CropOptions | None,
    request: Mapping[str, Any],
    progress: bool,
) -> None:
    total = sum(map(len, blocks))
    bar = progress_bar(total, "faces", "image", shown=progress)
    with bar, ThreadPoolExecutor(1) as ahead:
        missing = [
            k for k in range(len(blocks)) if not _block_file(partial, k).is_file()
        ]
        bar.update(total - sum(len(blocks[k]) for k in missing))
        # The next block's pictures are read while this one's faces are searched.
        reading = {k: ahead.submit(_read_block, blocks[k]) for k in missing[:1]}
        for place, k in enumerate(missing):
            for following in missing[place + 1 : place + 2]:
                reading[following] = ahead.submit(_read_block, blocks[following])
            pictures = reading.pop(k).result()
            rows = _crop_block(blocks[k], pictures, detector, options, request)
            file = _block_file(partial, k)
            unfinished = file.with_suffix(".unfinished")
            unfinished.write_bytes(pickle.dumps(rows))
            os.replace(unfinished, file)
            bar.update(len(blocks[k]))


def _read_block(block: pd.DataFrame) -> list[np.ndarray | str]:
    """Reads pictures; one that cannot be read is represented by the reason."""
    pictures: list[np.ndarray | str] = []
    for path in block["path"]:
        try:
            pictures.append(read_image(path))
        except UnreadableImageError as error:
            pictures.append(str(error))
    return pictures


def _crop_block(
    block: pd.DataFrame,
    pictures: Sequence[np.ndarray | str],
    detector: FaceDetector | None,
    options: CropOptions | None,
    request: Mapping[str, Any],
) -> list[dict[str, Any]]:
    """Returns for each picture its status row and, unless it has none, its JPEG."""
    readable = [p for p in pictures if not isinstance(p, str)]
    size = tuple(request["output_size"])
    if options is None or detector is None:
        crops = [whole_picture(image, size) for image in readable]
    else:
        crops = crop_faces(readable, detector.detect(readable), options, size)
    crop_of = iter(crops)
    rows = []
    for (_, labels), picture in zip(block.iterrows(), pictures, strict=True):
        crop = None if isinstance(picture, str) else next(crop_of)
        rows.append(_row(labels, picture, crop, request["jpeg_quality"]))
    return rows


def _row(
    labels: pd.Series, picture: np.ndarray | str, crop: FaceCrop | None, quality: int
) -> dict[str, Any]:
    status: dict[str, Any] = {"key": labels["key"], "split": labels["split"]}
    if crop is None:
        return {
            **status,
            "status": "unreadable",
            "reason": picture,
            "num_faces": 0,
            "score": 0.0,
            "box": [0.0] * 4,
            "jpeg": None,
        }
    skipped = "skipped: no face" if crop.image is None else ""
    return {
        **status,
        "status": crop.status,
        "reason": skipped,
        "num_faces": crop.num_faces,
        "score": round(crop.score, 4),
        "box": [round(float(x), 1) for x in crop.box],
        "jpeg": None if crop.image is None else encode_jpeg(crop.image, quality),
    }


def _block_file(partial: Path, number: int) -> Path:
    return partial / f"block-{number:06d}.pickle"


# -- the dataset -----------------------------------------------------------------------


def _assemble(
    manifest: pd.DataFrame,
    directory: Path,
    partial: Path,
    num_blocks: int,
    request: Mapping[str, Any],
    description: str,
) -> PreparationReport:
    rows = _rows(partial, num_blocks)
    table = pd.DataFrame([{k: v for k, v in r.items() if k != "jpeg"} for r in rows])
    has_picture = pd.Series([bool(r) for r in _has_picture(partial, num_blocks)])
    counts = {k: int(v) for k, v in Counter(table["status"]).items()}
    for split in sorted(manifest["split"].unique()):
        if not has_picture[(table["split"] == split).to_numpy()].any():
            raise ValueError(
                f"Split {split!r} would be empty: none of its pictures is usable. "
                f"Counts: {counts}. First reason: {table['reason'].iloc[0]!r}."
            )
    extra = {
        name: "int64" if pd.api.types.is_integer_dtype(manifest[name]) else "float32"
        for name in extra_columns(manifest)
    }
    indexed = manifest.set_index("key")
    built = partial / "dataset"
    shutil.rmtree(built, ignore_errors=True)
    built.mkdir()
    write_tfds(
        built,
        request["name"],
        description or f"Face crops made by keras_agegender from {request['name']}.",
        {
            split: _examples(partial, num_blocks, split, indexed, extra)
            for split in sorted(manifest["split"].unique())
        },
        extra,
    )
    table["box"] = [" ".join(map(str, box)) for box in table["box"]]
    table.to_csv(built / STATUS_FILE, index=False)
    written = int(has_picture.sum())
    write_json(
        built / PREPARATION_FILE,
        {
            **request,
            "counts": counts,
            "written": written,
            "extra_heads": manifest.attrs.get("extra_heads", {}),
            "versions": versions(),
        },
    )
    if directory.exists():
        shutil.rmtree(directory)
    os.replace(built, directory)
    shutil.rmtree(partial)
    return PreparationReport(directory, counts, written)


def _rows(partial: Path, num_blocks: int) -> Iterator[dict[str, Any]]:
    for number in range(num_blocks):
        yield from pickle.loads(_block_file(partial, number).read_bytes())


def _has_picture(partial: Path, num_blocks: int) -> Iterator[bool]:
    for row in _rows(partial, num_blocks):
        yield row["jpeg"] is not None


def _examples(
    partial: Path,
    num_blocks: int,
    split: str,
    manifest: pd.DataFrame,
    extra: Mapping[str, str],
) -> Iterator[tuple[str, dict[str, Any]]]:
    for row in _rows(partial, num_blocks):
        if row["split"] != split or row["jpeg"] is None:
            continue
        labels = manifest.loc[row["key"]]
        yield (
            row["key"],
            {
                "image": row["jpeg"],
                "key": row["key"],
                "age_group": int(labels["age_group"]),
                "gender": int(labels["gender"]),
                "subject": labels["subject"],
                "source": labels["source"],
                "fold": int(labels["fold"]),
                "face_box": np.array(row["box"], "float32"),
                "face_score": np.float32(row["score"]),
                "face_status": row["status"],
                "num_faces": row["num_faces"],
                **{
                    column: np.dtype(kind).type(labels[column])
                    for column, kind in extra.items()
                },
            },
        )


# -- requests --------------------------------------------------------------------------


def _already_done(
    directory: Path, request: Mapping[str, Any], overwrite: bool
) -> PreparationReport | None:
    if not directory.exists() or overwrite:
        return None
    if not directory.is_dir():
        raise ValueError(f"Invalid directory. {directory} is a file.")
    file = directory / PREPARATION_FILE
    if not file.is_file():
        if not any(directory.iterdir()):
            return None
        raise ValueError(f"{directory} is not empty and holds no prepared dataset.")
    found = json.loads(file.read_text("utf-8"))
    differing = sorted(k for k, v in request.items() if found.get(k) != v)
    if differing:
        raise ValueError(
            f"{directory} holds a dataset prepared otherwise ({', '.join(differing)}). "
            "Choose another directory, or overwrite it."
        )
    load_prepared(directory)
    return PreparationReport(directory, found["counts"], found["written"])


def _open_partial(directory: Path, request: Mapping[str, Any], overwrite: bool) -> Path:
    partial = directory.with_name(directory.name + ".partial")
    file = partial / "request.json"
    if partial.exists():
        same = file.is_file() and json.loads(file.read_text("utf-8")) == request
        if not same and not overwrite and file.is_file():
            raise ValueError(
                f"{partial} holds an unfinished preparation with other settings. "
                "Remove it, or overwrite it."
            )
        if not same:
            shutil.rmtree(partial)
    partial.mkdir(parents=True, exist_ok=True)
    write_json(file, request)
    return partial


def _manifest_hash(manifest: pd.DataFrame) -> str:
    # Without paths: pictures may be moved between two calls.
    text = manifest.drop(columns="path").to_csv(index=False) + json.dumps(
        manifest.attrs.get("extra_heads", {}), sort_keys=True
    )
    return hashlib.sha256(text.encode()).hexdigest()
