"""Preparation: a manifest of pictures becomes a prepared dataset of face crops.

Work goes block by block. A finished block is a file in `<directory>.partial`, written
whole or not at all, so a preparation that was interrupted goes on where it stopped; the
dataset itself appears under its name only when it is complete.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from keras_agegender.checksums import write_checksums
from keras_agegender.datasets.block_files import BlockFiles
from keras_agegender.datasets.blocks import BlockCropper, make_example, read_picture
from keras_agegender.datasets.contact_sheet import contact_sheet
from keras_agegender.datasets.manifest import (
    extra_columns,
    manifest_age_groups,
    text_columns,
    validate_manifest,
)
from keras_agegender.datasets.preparation_request import (
    finished_before,
    manifest_hash,
    open_partial,
    request_hash,
)
from keras_agegender.datasets.prepared import (
    CLEANING_FILE,
    CONTACT_SHEET_FILE,
    PREPARATION_FILE,
    STATUS_FILE,
    check_prepared,
    read_preparation,
    write_tfds,
)
from keras_agegender.datasets.splits import check_subject_exclusive
from keras_agegender.faces.cropping import CropOptions
from keras_agegender.faces.detector import FaceDetector
from keras_agegender.faces.images import encode_jpeg
from keras_agegender.faces.pixel_path import PixelPath
from keras_agegender.files import (
    DEVICES,
    NO_DEVICE,
    lock_beside,
    only_writer,
    replace_directory,
    versions,
    write_json,
)
from keras_agegender.progress import progress_bar

# What became of pictures without a face, by `CropOptions.fallback`.
WITHOUT_FACE = {
    "center": "cropped at the center",
    "full": "kept whole",
    "skip": "left out",
}
BLOCK_SIZE = 128
DATASET_NAME = re.compile(
    NO_DEVICE + r"[A-Za-z0-9_]{1,100}"
)  # TFDS makes a folder of it
JPEG_QUALITY = 95


@dataclass(frozen=True)
class PreparationReport:
    """What became of every picture.

    Attributes:
        directory: The prepared dataset.
        counts: Status -> pictures.
        written: Pictures in the dataset.
        already_there: Whether an earlier call had made it; nothing was done now.
        fallback: As `CropOptions.fallback`; `None` where whole pictures were kept.
    """

    directory: Path
    counts: dict[str, int]
    written: int
    already_there: bool = False
    fallback: str | None = None

    @property
    def status(self) -> pd.DataFrame:
        """One row per picture: key, split, status, reason, faces, score, box."""
        return pd.read_csv(self.directory / STATUS_FILE, keep_default_na=False)

    def __str__(self) -> str:
        total = sum(self.counts.values())
        counts = ", ".join(
            f"{n} {name}{self._done_with(name)}"
            for name, n in sorted(self.counts.items())
        )
        files = f"per picture: {self.directory / STATUS_FILE}{self._other_files()}"
        if self.already_there:
            return (
                f"Already there: {self.directory} holds {self.written} of {total} "
                f"pictures ({counts}); {files}"
            )
        return (
            f"{total} pictures: {counts}; {self.written} written to {self.directory} "
            f"({files})"
        )

    def _done_with(self, status: str) -> str:
        if status != "no_face" or self.fallback is None:
            return ""
        return f" ({WITHOUT_FACE[self.fallback]}: --fallback {self.fallback})"

    def _other_files(self) -> str:
        names = {
            "the doubtful ones": CONTACT_SHEET_FILE,
            "left out before, or repeated": CLEANING_FILE,
        }
        files = {text: self.directory / name for text, name in names.items()}
        return "".join(f"; {t}: {file}" for t, file in files.items() if file.is_file())


@dataclass(frozen=True)
class Preparation:
    """A preparation that has begun: what `prepare` and `prepare_with_beam` share.

    Attributes:
        manifest: Its pictures.
        directory: Where the dataset will lie.
        request: Everything that determines it; a resumed one must ask for the same.
        description: What the dataset is.
    """

    manifest: pd.DataFrame
    directory: Path
    request: dict[str, Any]
    description: str

    @property
    def partial(self) -> Path:
        """Folder of finished blocks."""
        return self.directory.with_name(self.directory.name + ".partial")

    @property
    def num_blocks(self) -> int:
        """How many blocks there are."""
        return -(-len(self.manifest) // self.request["block_size"])

    @property
    def block_files(self) -> BlockFiles:
        """Its finished blocks."""
        return BlockFiles(self.partial, request_hash(self.request))

    def blocks(self) -> list[pd.DataFrame]:
        """Returns the manifest cut into blocks."""
        size = self.request["block_size"]
        return [
            self.manifest.iloc[start : start + size]
            for start in range(0, len(self.manifest), size)
        ]

    def missing_blocks(self) -> list[int]:
        """Returns the numbers of the blocks to make.

        Those not finished yet, damaged, or older than one of their pictures.
        """
        files = self.block_files
        return [k for k, b in enumerate(self.blocks()) if not files.is_finished(k, b)]

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Keeps other processes from preparing into the same folder.

        Raises:
            ValueError: If another process does so already.
        """
        refusal = (
            f"Another process prepares {self.directory}. Wait for it, or choose "
            "another directory."
        )
        with only_writer(lock_beside(self.directory), refusal):
            yield

    def splits(self) -> list[str]:
        """Returns the names of the manifest's splits."""
        return sorted(self.manifest["split"].unique())

    def extra_columns(self) -> dict[str, str]:
        """Returns extra column -> `"int64"`, `"float32"` or `"str"`."""
        integer = pd.api.types.is_integer_dtype
        return {
            name: "str"
            if name in text_columns(self.manifest)
            else "int64"
            if integer(self.manifest[name])
            else "float32"
            for name in extra_columns(self.manifest)
        }

    def finish(
        self, write_splits: Callable[[Preparation, Path], None]
    ) -> PreparationReport:
        """Writes the dataset of finished blocks and puts it under its name.

        Args:
            write_splits: Writes the shards into a folder.
        """
        table, has_picture = self._status()
        counts = {k: int(v) for k, v in Counter(table["status"]).items()}
        for split in self.splits():
            if not has_picture[table["split"] == split].any():
                raise ValueError(
                    f"Split {split!r} would be empty: none of its pictures is usable. "
                    f"Counts: {counts}. First reason: {table['reason'].iloc[0]!r}."
                )
        built = self.partial / "dataset"
        shutil.rmtree(built, ignore_errors=True)
        built.mkdir()
        write_splits(self, built)
        sheet = contact_sheet(table, dict(self.manifest[["key", "path"]].to_numpy()))
        if sheet is not None:
            (built / CONTACT_SHEET_FILE).write_bytes(encode_jpeg(sheet, 90))
        table["box"] = [" ".join(map(str, box)) for box in table["box"]]
        table.to_csv(built / STATUS_FILE, index=False)
        if items := self.manifest.attrs.get("cleaning_items"):
            (built / CLEANING_FILE).write_text(items, "utf-8")
        written = int(has_picture.sum())
        write_json(
            built / PREPARATION_FILE,
            {
                **self.request,
                "counts": counts,
                "written": written,
                "extra_heads": self.manifest.attrs.get("extra_heads", {}),
                "age_groups": manifest_age_groups(self.manifest).to_list(),
                "cleaning": self.manifest.attrs.get("cleaning"),
                "versions": versions(),
            },
        )
        write_checksums(built)  # last: whatever is not in it is not finished
        replace_directory(built, self.directory)
        shutil.rmtree(self.partial)
        return PreparationReport(
            self.directory, counts, written, fallback=_fallback(self.request)
        )

    def _status(self) -> tuple[pd.DataFrame, np.ndarray]:
        """Returns a row per picture, and which of them are kept."""
        rows, kept = [], []
        for record in self.block_files.read_all(self.num_blocks):
            kept.append(record.pop("jpeg") is not None)
            rows.append(record)
        return pd.DataFrame(rows), np.array(kept)


def prepare(
    manifest: pd.DataFrame,
    directory: str | Path,
    *,
    detector: FaceDetector | None = None,
    crop_options: CropOptions | None = None,
    output_size: tuple[int, int] = (256, 256),
    jpeg_quality: int = JPEG_QUALITY,
    splits: Mapping[str, str] | None = None,
    name: str = "faces",
    description: str = "",
    block_size: int = BLOCK_SIZE,
    progress: bool = True,
    overwrite: bool = False,
) -> PreparationReport:
    """Crops the face out of every picture and writes a prepared dataset.

    What was done to the pixels is in it, as a `PixelPath`; `train` keeps it in the run,
    `export` in the model.

    The same call again resumes an interrupted preparation; after it is complete, it
    returns its report at once. Beside the dataset lie `status.csv`, with a row per
    picture, `doubtful.jpg`, which shows those to look at, `cleaning.csv`, with what the
    reader left out or found repeated with other labels, and `preparation.json`, with
    everything that determined the result.

    Args:
        manifest: What a reader returned.
        directory: Folder to make.
        detector: Finds faces; `None` with crop options is `MtcnnDetector()`. With any
            other class, exports cannot find faces in a photo by themselves.
        crop_options: How to cut the face out; `None` keeps whole pictures, as the
            report's Caffe recipes need them.
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
    cropper = make_cropper(detector, crop_options, output_size, jpeg_quality)
    task = begin(
        manifest,
        directory,
        cropper,
        splits=splits,
        name=name,
        description=description,
        block_size=block_size,
        overwrite=overwrite,
    )
    if isinstance(task, PreparationReport):
        return task
    return carry_out(task, cropper, progress)


def carry_out(
    task: Preparation, cropper: BlockCropper, progress: bool = True
) -> PreparationReport:
    """Does what `begin` began; this, and nothing before it, needs TensorFlow."""
    with task.writing():
        if not task.partial.is_dir():
            raise ValueError(
                f"Another process has prepared {task.directory} since this one looked. "
                "The same command says what is there now."
            )
        _crop_blocks(task, cropper, progress)
        return task.finish(_write_splits)


def make_cropper(
    detector: FaceDetector | None,
    crop_options: CropOptions | None,
    output_size: tuple[int, int],
    jpeg_quality: int,
) -> BlockCropper:
    """Returns what does the work on each block; takes the arguments of `prepare`."""
    if min(output_size) < 1 or not 1 <= jpeg_quality <= 100:
        raise ValueError(
            "Invalid arguments. Expected a positive output_size and a jpeg_quality in "
            f"[1, 100]. Received: output_size={output_size}, "
            f"jpeg_quality={jpeg_quality}."
        )
    if crop_options is not None and detector is None:
        from keras_agegender.faces.detector import MtcnnDetector

        detector = MtcnnDetector()
    if crop_options is None:
        detector = None
    height, width = output_size
    path = PixelPath(
        crop=crop_options,
        detector=detector.settings() if detector else None,
        stored_size=(height, width),
        jpeg_quality=jpeg_quality,
    )
    return BlockCropper(detector, path)


def begin(
    manifest: pd.DataFrame,
    directory: str | Path,
    cropper: BlockCropper,
    *,
    splits: Mapping[str, str] | None,
    name: str,
    description: str,
    block_size: int,
    overwrite: bool,
) -> Preparation | PreparationReport:
    """Returns a preparation, begun or resumed, or the report of a finished one.

    Takes the arguments of `prepare`, and needs no framework.
    """
    directory = Path(directory)
    if block_size < 1:
        raise ValueError(
            "Invalid `block_size`. Expected a positive integer. "
            f"Received: block_size={block_size}."
        )
    if not DATASET_NAME.fullmatch(name):
        raise ValueError(
            "Invalid `name`. Expected at most 100 letters, digits and '_', and "
            f"{DEVICES}. Received: name={name!r}."
        )
    validate_manifest(manifest)
    check_subject_exclusive(manifest, splits)
    request = {
        "name": name,
        "manifest_sha256": manifest_hash(manifest),
        "splits": dict(splits or {s: s for s in sorted(manifest["split"].unique())}),
        "pixels": cropper.path.to_dict(),
        "block_size": block_size,
    }
    if finished_before(directory, request, overwrite):
        check_prepared(directory)
        found = read_preparation(directory)
        return PreparationReport(
            directory, found["counts"], found["written"], True, _fallback(request)
        )
    made = "Face crops" if cropper.path.crop else "Whole pictures"
    text = description or f"{made} made by keras_agegender from {name}."
    task = Preparation(manifest, directory, request, text)
    with task.writing():
        open_partial(task.partial, request, overwrite)
    return task


def _fallback(request: Mapping[str, Any]) -> str | None:
    crop = request["pixels"]["crop"]
    return crop["fallback"] if crop else None


# -- blocks ----------------------------------------------------------------------------


def _crop_blocks(task: Preparation, cropper: BlockCropper, progress: bool) -> None:
    """Reads the next block and stores the last one while this one's faces are found."""
    blocks, missing, files = task.blocks(), task.missing_blocks(), task.block_files

    def store(k: int, pictures: list, found: Any) -> int:
        files.write(k, cropper.records(blocks[k], pictures, found))
        return len(pictures)

    bar = progress_bar(len(task.manifest), "faces", "image", shown=progress)
    with bar, ThreadPoolExecutor(os.cpu_count()) as others:
        bar.update(len(task.manifest) - sum(len(blocks[k]) for k in missing))
        stored: Future | None = None
        for k, pictures in _read_ahead(blocks, missing, others):
            found = cropper.detect(pictures)
            if stored is not None:
                bar.update(stored.result())
            stored = others.submit(store, k, pictures, found)
        if stored is not None:
            bar.update(stored.result())


def _read_ahead(
    blocks: Sequence[pd.DataFrame], numbers: Sequence[int], readers: ThreadPoolExecutor
) -> Iterator[tuple[int, list[np.ndarray | str]]]:
    """Yields blocks' numbers and pictures; meanwhile the following one is read."""
    waiting: list[tuple[int, list[Future]]] = []
    for k in numbers:
        paths = blocks[k]["path"]
        waiting.append((k, [readers.submit(read_picture, path) for path in paths]))
        if len(waiting) == 2:
            number, futures = waiting.pop(0)
            yield number, [future.result() for future in futures]
    for number, futures in waiting:
        yield number, [future.result() for future in futures]


# -- the dataset -----------------------------------------------------------------------


def _write_splits(task: Preparation, built: Path) -> None:
    extra = task.extra_columns()
    rows, files = task.manifest.set_index("key"), task.block_files

    def examples(split: str) -> Iterator[tuple[str, dict[str, Any]]]:
        for record in files.read_all(task.num_blocks):
            if record["split"] == split and record["jpeg"] is not None:
                labels = rows.loc[record["key"]]
                yield record["key"], make_example(record, labels, extra)

    write_tfds(
        built,
        task.request["name"],
        task.description,
        {split: examples(split) for split in task.splits()},
        extra,
        manifest_age_groups(task.manifest),
    )
