"""Prepares datasets: detects and crops faces, and writes them to disk.

Finished blocks of images lie in a folder beside the dataset until all are done, so that
an interrupted preparation is resumed. TensorFlow is imported when cropping starts.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import json
import math
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
from PIL import Image, ImageDraw, ImageFont

from keras_agegender.console import progress_bar
from keras_agegender.datasets import prepared, splits as split_tools
from keras_agegender.datasets.manifest import (
    Manifest,
    check_one_face_per_image,
    extra_columns,
    given_faces,
    outside_reason,
    text_columns,
    validate_manifest,
)
from keras_agegender.faces.detector import Detections, FaceDetector
from keras_agegender.faces.images import UnreadableImageError, encode_jpeg, read_image
from keras_agegender.faces.preprocessing import (
    CropOptions,
    Preprocessing,
    region_text,
)
from keras_agegender.files import (
    RESERVED_NAMES_PATTERN,
    RESERVED_NAMES_TEXT,
    check_output_dir,
    exclusive_lock,
    lock_beside,
    replace_directory,
    versions,
    write_bytes,
    write_checksums,
    write_json,
)

# Part of a request -> how to describe a difference in it; other parts, and those inside
# of a part, are described by their dotted name.
DIFFERENCES = {
    "name": "its source is {there}, not {here}",
    "manifest_sha256": "faces, labels, splits or age groups differ",
    "splits": "which faces train, validate and test differs",
    "block_size": "its blocks have {there} images, not {here} (block_size)",
    "pixels": "images were made by another version of this library",
    "pixels.version": "images were made by another version of this library",
    "pixels.crop": "one has face crops, the other whole images (--no-crop)",
    "pixels.crop.margin": "the margin of its crops is {there}, not {here} (--margin)",
    "pixels.detector": "another detector found the faces",
    "pixels.stored_size": "its images have {there} pixels, not {here} (--size)",
    "pixels.jpeg_quality": "its JPEG quality is {there}, not {here}",
}
OWN_FILES = re.compile(r"\.?(block-\d{6}|request)\..*|dataset")
NESTED = ("pixels", "pixels.crop")  # compared part by part

# What happens to images without a face, by `CropOptions.fallback`.
WITHOUT_FACE = {
    "center": "cropped at the center",
    "full": "stored whole",
    "skip": "skipped",
}
BLOCK_SIZE = 128
DATASET_NAME = re.compile(
    RESERVED_NAMES_PATTERN + r"[A-Za-z0-9_]{1,100}"
)  # TFDS makes a folder of it
JPEG_QUALITY = 95


@dataclass(frozen=True)
class PreparationReport:
    """Counts of a preparation.

    Attributes:
        directory: The prepared dataset.
        counts: Status -> images.
        written: Images in the dataset.
        already_there: Whether the dataset was complete before; nothing was done.
        fallback: As `CropOptions.fallback`; `None` if whole images were stored.
        shared: For each pair of `splits` the number of `people`, `albums` and identical
            `images` that are in both; `None` where the manifest has no such labels.
        faces_in_images: Of whole images: how many were `searched` and in how many a
            face was `found`, and `region`, where faces lie in them, if in one place.
    """

    directory: Path
    counts: dict[str, int]
    written: int
    already_there: bool = False
    fallback: str | None = None
    shared: tuple[Mapping[str, Any], ...] = ()
    faces_in_images: Mapping[str, Any] | None = None

    @property
    def status(self) -> pd.DataFrame:
        """One row per image: key, split, status, reason, faces, score, box."""
        return pd.read_csv(self.directory / prepared.STATUS_FILE, keep_default_na=False)

    def __str__(self) -> str:
        total = sum(self.counts.values())
        counts = ", ".join(
            f"{n} {name}{self._fallback_text(name)}"
            for name, n in sorted(self.counts.items())
        )
        files = f"per image: {self.directory / prepared.STATUS_FILE}"
        for text, name in (
            ("doubtful images", prepared.CONTACT_SHEET_FILE),
            ("dropped or repeated rows", prepared.CLEANING_FILE),
        ):
            if (self.directory / name).is_file():
                files += f"; {text}: {self.directory / name}"
        shared = f"\n{split_tools.shared_text(self.shared)}" if self.shared else ""
        if self.faces_in_images and self.faces_in_images["searched"]:
            shared += f"\n{faces_text(self.faces_in_images)}"
        if self.already_there:
            return (
                f"Already there: {self.directory} holds {self.written} of {total} "
                f"images ({counts}); {files}{shared}"
            )
        return (
            f"{total} images: {counts}; {self.written} written to {self.directory} "
            f"({files}){shared}"
        )

    def _fallback_text(self, status: str) -> str:
        if status != "no_face" or self.fallback is None:
            return ""
        return f" ({WITHOUT_FACE[self.fallback]}: --fallback {self.fallback})"


def prepare(
    manifest: Manifest,
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
    """Crops the face out of every image and writes a prepared dataset.

    The dataset stores how its pixels were made as a `Preprocessing`, which `train`
    copies to the run and `export` to the model.

    Rows with a face box (`face_left`, `face_top`, `face_right`, `face_bottom`, in
    pixels of the upright image) are cropped by it, with the same margin, and are not
    searched: several rows of one image are several faces. Such a row has the status
    `given_box`; if its box lies outside of the image, it is counted as `box_outside`
    and not written.

    The same call again resumes an interrupted preparation, and returns the report of a
    complete one at once. Beside the shards lie `status.csv` with a row per image,
    `doubtful.jpg` with images to review, `cleaning.csv` with the rows that the reader
    dropped or found repeated with other labels, and `preparation.json` with everything
    that determined the result.

    Args:
        manifest: The manifest of a reader.
        directory: Folder to make.
        detector: Finds faces; `None` with crop options is `MtcnnDetector()`. With any
            other class, exports cannot find faces in a photo by themselves.
        crop_options: How to crop the face; `None` stores whole images, as the report's
            Caffe recipes need them.
        output_size: (height, width) of the stored images. Defaults to 256 × 256.
        jpeg_quality: JPEG quality of the stored images, 1 to 100. Defaults to 95.
        splits: `train`, `validation`, `test` -> split expression over the manifest's
            splits; `None` uses the manifest's own.
        name: Name of the dataset: letters, digits and underscores.
        description: Text about the dataset.
        block_size: Images per resumable block. Defaults to 128.
        progress: Whether a progress bar is shown on stderr.
        overwrite: Whether another dataset in that folder may be replaced.

    Returns:
        Counts by status. Unreadable images are counted, not written.

    Raises:
        ValueError: If the manifest is invalid, a subject is in two splits, a split
            would be empty, or the folder holds something else.

    Example:
    >>> prepare(manifest, "data/mine", crop_options=CropOptions())  # doctest: +SKIP
    """
    job = open_job(
        manifest,
        directory,
        detector=detector,
        crop_options=crop_options,
        output_size=output_size,
        jpeg_quality=jpeg_quality,
        splits=splits,
        name=name,
        description=description,
        block_size=block_size,
        overwrite=overwrite,
    )
    if isinstance(job, PreparationReport):
        return job
    return job.run(progress)


def open_job(
    manifest: Manifest,
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
    overwrite: bool = False,
) -> PreparationJob | PreparationReport:
    """Starts or resumes a job, or returns the report of a complete dataset.

    Takes the arguments of `prepare`, checks all of them and imports no framework.
    """
    directory = Path(directory)
    if min(output_size) < 1 or not 1 <= jpeg_quality <= 100:
        raise ValueError(
            "Invalid arguments. Expected a positive output_size and a jpeg_quality in "
            f"[1, 100]. Received: output_size={output_size}, "
            f"jpeg_quality={jpeg_quality}."
        )
    if block_size < 1:
        raise ValueError(
            "Invalid `block_size`. Expected a positive integer. "
            f"Received: block_size={block_size}."
        )
    if not DATASET_NAME.fullmatch(name):
        raise ValueError(
            "Invalid `name`. Expected at most 100 letters, digits and '_', and "
            f"{RESERVED_NAMES_TEXT}. Received: name={name!r}."
        )
    validate_manifest(manifest)
    split_tools.check_subject_exclusive(manifest, splits)
    if crop_options is None:
        check_one_face_per_image(manifest)
        detector = None
    elif detector is None:
        from keras_agegender.faces.detector import MtcnnDetector

        detector = MtcnnDetector()
    height, width = output_size
    preprocessing = Preprocessing(
        crop=crop_options,
        detector=detector.settings() if detector else None,
        stored_size=(height, width),
        jpeg_quality=jpeg_quality,
    )
    request = {
        "name": name,
        "manifest_sha256": manifest_hash(manifest),
        "splits": dict(splits or {s: s for s in sorted(manifest["split"].unique())}),
        "pixels": preprocessing.to_dict(),
        "block_size": block_size,
    }
    if is_complete(directory, request, overwrite):
        prepared.check_prepared(directory)
        found = prepared.read_preparation(directory)
        return PreparationReport(
            directory,
            found["counts"],
            found["written"],
            True,
            _fallback(request),
            tuple(found.get("shared", ())),
            found.get("faces_in_images"),
        )
    made = "Face crops" if crop_options else "Whole images"
    job = PreparationJob(
        manifest,
        directory,
        BlockCropper(detector, preprocessing),
        request,
        description or f"{made} made by keras_agegender from {name}.",
    )
    with job.lock():
        open_partial(job.partial, request, overwrite)
    return job


def _fallback(request: Mapping[str, Any]) -> str | None:
    crop = request["pixels"]["crop"]
    return crop["fallback"] if crop else None


@dataclass(frozen=True)
class PreparationJob:
    """A preparation that was started: what `prepare` and `prepare_with_beam` share.

    Attributes:
        manifest: Its images.
        directory: Where the dataset will lie.
        cropper: Turns images into records.
        request: Everything that determines the dataset; a resumed job has an equal one.
        description: Text about the dataset.
    """

    manifest: Manifest
    directory: Path
    cropper: BlockCropper
    request: dict[str, Any]
    description: str

    @property
    def partial(self) -> Path:
        """Folder of finished blocks."""
        return self.directory.with_name(self.directory.name + ".partial")

    @property
    def block_files(self) -> BlockFiles:
        """Its finished blocks."""
        return BlockFiles(self.partial, request_hash(self.request))

    def blocks(self) -> list[Manifest]:
        """Returns the manifest cut into blocks."""
        size = self.request["block_size"]
        return [
            self.manifest.iloc[start : start + size]
            for start in range(0, len(self.manifest), size)
        ]

    def missing_blocks(self) -> list[int]:
        """Returns the numbers of unfinished, damaged and outdated blocks."""
        files = self.block_files
        return [k for k, b in enumerate(self.blocks()) if not files.is_finished(k, b)]

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Locks the folder against other processes."""
        refusal = (
            f"Another process prepares {self.directory}. Wait for it, or choose "
            "another directory."
        )
        with exclusive_lock(lock_beside(self.directory), refusal):
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

    def run(self, progress: bool = True) -> PreparationReport:
        """Crops the missing blocks and writes the dataset."""
        with self.lock():
            if not self.partial.is_dir():
                raise ValueError(
                    f"Another process has prepared {self.directory} in the meantime. "
                    "Run the same command again."
                )
            _crop_blocks(self, progress)
            return self.finish(_write_splits)

    def finish(
        self, write_splits: Callable[[PreparationJob, Path], None]
    ) -> PreparationReport:
        """Writes the dataset: `write_splits` writes the shards into a folder."""
        rows, stored = [], []
        for record in self.block_files.read_all(len(self.blocks())):
            stored.append(record.pop("jpeg") is not None)
            rows.append(record)
        table, has_image = pd.DataFrame(rows), np.array(stored)
        counts = {k: int(v) for k, v in Counter(table["status"]).items()}
        for split in self.splits():
            if not has_image[table["split"] == split].any():
                raise ValueError(
                    f"Split {split!r} would be empty: none of its images is usable. "
                    f"Counts: {counts}. First reason: {table['reason'].iloc[0]!r}."
                )
        built = self.partial / "dataset"
        shutil.rmtree(built, ignore_errors=True)
        built.mkdir()
        write_splits(self, built)
        sheet = contact_sheet(table, dict(self.manifest[["key", "path"]].to_numpy()))
        if sheet is not None:
            (built / prepared.CONTACT_SHEET_FILE).write_bytes(encode_jpeg(sheet, 90))
        table["box"] = [" ".join(map(str, box)) for box in table["box"]]
        table.to_csv(built / prepared.STATUS_FILE, index=False)
        if self.manifest.cleaning_items:
            (built / prepared.CLEANING_FILE).write_text(
                self.manifest.cleaning_items, "utf-8"
            )
        written = int(has_image.sum())
        shared = split_tools.count_shared(self.manifest, self.request["splits"])
        pixels, measured = self.request["pixels"], None
        if pixels["crop"] is None:
            paths = self.manifest["path"].to_numpy()[has_image]
            measured = measure_faces(paths)
            pixels = {**pixels, **{k: v for k, v in measured.items() if k == "region"}}
        write_json(
            built / prepared.PREPARATION_FILE,
            {
                **self.request,
                "pixels": pixels,
                "faces_in_images": measured,
                "counts": counts,
                "written": written,
                "shared": shared,
                "extra_heads": self.manifest.extra_heads,
                "age_groups": self.manifest.age_groups.to_list(),
                "cleaning": self.manifest.cleaning,
                "versions": versions(),
            },
        )
        write_checksums(built)  # last: a folder without checksums is not complete
        replace_directory(built, self.directory)
        shutil.rmtree(self.partial)
        return PreparationReport(
            self.directory,
            counts,
            written,
            fallback=_fallback(self.request),
            shared=tuple(shared),
            faces_in_images=measured,
        )


def _crop_blocks(job: PreparationJob, progress: bool) -> None:
    """Reads the next block and stores the last one while faces are detected in this."""
    blocks, missing, files = job.blocks(), job.missing_blocks(), job.block_files

    def store(k: int, images: list, found: Any) -> int:
        files.write(k, job.cropper.records(blocks[k], images, found))
        return len(images)

    bar = progress_bar(len(job.manifest), "faces", "image", shown=progress)
    with bar, ThreadPoolExecutor(os.cpu_count()) as others:
        bar.update(len(job.manifest) - sum(len(blocks[k]) for k in missing))
        stored: Future | None = None
        for k, images in _read_ahead(blocks, missing, others):
            found = job.cropper.detect(blocks[k], images)
            if stored is not None:
                bar.update(stored.result())
            stored = others.submit(store, k, images, found)
        if stored is not None:
            bar.update(stored.result())


def _read_ahead(
    blocks: Sequence[pd.DataFrame], numbers: Sequence[int], readers: ThreadPoolExecutor
) -> Iterator[tuple[int, list[np.ndarray | str]]]:
    """Yields blocks' numbers and images while the following block is read."""
    waiting: list[tuple[int, list[Future]]] = []
    for k in numbers:
        paths = blocks[k]["path"]
        waiting.append((k, [readers.submit(read_or_reason, path) for path in paths]))
        if len(waiting) == 2:
            number, futures = waiting.pop(0)
            yield number, [future.result() for future in futures]
    for number, futures in waiting:
        yield number, [future.result() for future in futures]


def _write_splits(job: PreparationJob, built: Path) -> None:
    extra = job.extra_columns()
    rows, files = job.manifest.set_index("key"), job.block_files
    num_blocks = len(job.blocks())

    def examples(split: str) -> Iterator[tuple[str, dict[str, Any]]]:
        for record in files.read_all(num_blocks):
            if record["split"] == split and record["jpeg"] is not None:
                labels = rows.loc[record["key"]]
                yield record["key"], make_example(record, labels, extra)

    prepared.write_tfds(
        built,
        job.request["name"],
        job.description,
        {split: examples(split) for split in job.splits()},
        extra,
        job.manifest.age_groups,
    )


# -- requests --------------------------------------------------------------------------


def manifest_hash(manifest: Manifest) -> str:
    """Returns the SHA-256 of a manifest's rows, heads and age groups, without paths."""
    text = manifest.drop(columns="path").to_csv(index=False) + json.dumps(
        [
            manifest.extra_heads,
            manifest.age_groups.to_list(),
        ],
        sort_keys=True,
    )
    return hashlib.sha256(text.encode()).hexdigest()


def request_hash(request: Mapping[str, Any]) -> str:
    """Returns the SHA-256 of a request, which its block files carry."""
    return hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()


def differences(made: Mapping[str, Any], asked: Mapping[str, Any]) -> list[str]:
    """Describes each part in which a request differs from an earlier one."""
    lines = [
        DIFFERENCES.get(key, f"{key} is {{there}}, not {{here}}").format(
            there=_text(first), here=_text(second)
        )
        for key, first, second in _differing(made, asked)
    ]
    return list(dict.fromkeys(lines))


def is_complete(directory: Path, request: Mapping[str, Any], overwrite: bool) -> bool:
    """Returns whether a folder holds the requested dataset.

    Raises ValueError if it is a file or holds anything else, unless that is a dataset
    which may be overwritten.
    """
    if not check_output_dir(directory, prepared.PREPARATION_FILE, "prepared dataset"):
        return False
    if overwrite:
        return False
    if found := differences(prepared.read_preparation(directory), request):
        raise ValueError(
            f"{directory} already contains a dataset prepared with different settings: "
            f"{'; '.join(found)}. Choose another directory, or overwrite it "
            "(--overwrite)."
        )
    return True


def open_partial(partial: Path, request: Mapping[str, Any], overwrite: bool) -> None:
    """Makes the folder of finished blocks, or checks that it belongs to a request.

    Raises ValueError if it belongs to another one, unless that may be overwritten, or
    holds other files, which are never removed. A damaged request.json is written again:
    each block names its request.
    """
    file = partial / "request.json"
    if partial.is_symlink() or (partial.exists() and not partial.is_dir()):
        raise ValueError(
            f"{partial} is a link or a file. Expected a folder of finished blocks. "
            "Remove it, or choose another directory."
        )
    if partial.exists():
        foreign = sorted(
            e.name for e in partial.iterdir() if not OWN_FILES.fullmatch(e.name)
        )
        if foreign:
            raise ValueError(
                f"{partial} holds other files than finished blocks: {foreign[0]!r}. "
                "Move them, or choose another directory."
            )
        try:
            made = json.loads(file.read_text("utf-8"))
        except (FileNotFoundError, ValueError):
            made = None
        if isinstance(made, dict) and made != request:
            if not overwrite:
                raise ValueError(
                    f"{partial} holds an unfinished preparation with different "
                    f"settings: {'; '.join(differences(made, request))}. Choose "
                    "another directory, or overwrite it (--overwrite)."
                )
            shutil.rmtree(partial)
    partial.mkdir(parents=True, exist_ok=True)
    write_json(file, request)


def _differing(
    made: Mapping[str, Any], asked: Mapping[str, Any], within: str = ""
) -> Iterator[tuple[str, Any, Any]]:
    """Yields dotted name, earlier value and requested value."""
    for name, second in asked.items():
        key, first = f"{within}{name}", made.get(name)
        if first == second:
            continue
        if key == "pixels.region":
            continue  # measured, not requested
        if key == "pixels.detector" and None in (first, second):
            continue  # whole images have none, see "pixels.crop"
        if key in NESTED and isinstance(first, Mapping) and isinstance(second, Mapping):
            yield from _differing(first, second, f"{key}.")
        else:
            yield key, first, second


def _text(value: Any) -> str:
    if isinstance(value, list):
        return " x ".join(map(str, value))
    return "not set" if value is None else str(value)


# -- blocks ----------------------------------------------------------------------------


@dataclass(frozen=True)
class BlockCropper:
    """Turns the images of a block into records.

    Args:
        detector: Finds faces; `None` stores whole images.
        preprocessing: The steps up to the stored image.
    """

    detector: FaceDetector | None
    preprocessing: Preprocessing

    def __getstate__(self) -> dict[str, Any]:
        """Pickles without the compiled graph, which each worker makes."""
        return {"detector": self.detector, "preprocessing": self.preprocessing}

    @functools.cached_property
    def _store(self) -> Any:
        import tensorflow as tf

        from keras_agegender.faces.preprocessing_graph import (
            IMAGE,
            PhotoFaces,
            PreprocessingGraph,
        )

        graph = PreprocessingGraph(self.preprocessing)

        @tf.function(
            input_signature=[
                IMAGE,
                tf.TensorSpec((None, 4), tf.float32),
                tf.TensorSpec((None,), tf.float32),
                tf.TensorSpec((None, 5, 2), tf.float32),
                tf.TensorSpec((14,), tf.float32),
            ],
            autograph=False,
        )
        def store(
            image: Any, boxes: Any, scores: Any, landmarks: Any, given: Any
        ) -> Any:
            return graph.store(image, PhotoFaces(boxes, scores, landmarks), given)

        return store

    def detect(
        self, block: pd.DataFrame, images: Sequence[np.ndarray | str]
    ) -> list[Detections] | None:
        """Returns the faces found in the image of each row, `None` for whole images.

        Images that cannot be read and those whose face is given are not searched.
        """
        if self.detector is None or self.preprocessing.crop is None:
            return None
        unknown = np.isnan(given_faces(block))
        searched = unknown[:, 0] | (
            unknown[:, 4:].any(axis=1) & self.preprocessing.crop.align
        )
        chosen = [
            k for k, x in enumerate(images) if searched[k] and not isinstance(x, str)
        ]
        found = self.detector.detect([np.asarray(images[k]) for k in chosen])
        faces = dict(zip(chosen, found, strict=True))
        return [faces.get(k, Detections.none()) for k in range(len(images))]

    def records(
        self,
        block: pd.DataFrame,
        images: Sequence[np.ndarray | str],
        found: Sequence[Detections] | None,
    ) -> list[dict[str, Any]]:
        """Returns a record per row of a manifest."""
        faces: Sequence[Detections | None] = found or [None] * len(images)
        given = given_faces(block).astype("float32")
        records = []
        for k, (key, split) in enumerate(
            zip(block["key"], block["split"], strict=True)
        ):
            record = self._record(images[k], faces[k], given[k])
            records.append({"key": key, "split": split, **record})
        return records

    def _record(
        self, image: np.ndarray | str, faces: Detections | None, given: np.ndarray
    ) -> dict[str, Any]:
        not_stored = {"num_faces": 0, "score": 0.0, "box": [0.0] * 4, "jpeg": None}
        if isinstance(image, str):
            return {"status": "unreadable", "reason": image, **not_stored}
        count = 0 if faces is None else len(faces)
        status = "not_cropped"
        if faces is not None:
            status = ("no_face", "ok", "several_faces")[min(count, 2)]
        if faces is not None and not np.isnan(given[0]):
            if reason := outside_reason(given, image.shape):
                return {"status": "box_outside", "reason": reason, **not_stored}
            status, count = "given_box", 1
        faces = faces or Detections.none()
        jpeg, box, score = self._store(
            image, faces.boxes, faces.scores, faces.landmarks, given
        )
        skipped = (
            status == "no_face"
            and self.preprocessing.crop is not None
            and self.preprocessing.crop.fallback == "skip"
        )
        return {
            "status": status,
            "reason": "skipped: no face" if skipped else "",
            "num_faces": count,
            "score": round(float(score), 4),
            "box": [round(float(x), 1) for x in box.numpy()],
            "jpeg": None if skipped else jpeg.numpy(),
        }


def read_or_reason(path: str) -> np.ndarray | str:
    """Returns an image, or the reason why it cannot be read."""
    try:
        return read_image(path)
    except UnreadableImageError as error:
        return str(error)


def make_example(
    record: Mapping[str, Any], labels: Mapping[str, Any], extra: Mapping[str, str]
) -> dict[str, Any]:
    """Returns the example of a prepared dataset."""
    return {
        "image": io.BytesIO(record["jpeg"]),
        "key": record["key"],
        "age_group": int(labels["age_group"]),
        "gender": int(labels["gender"]),
        "subject": labels["subject"],
        "source": labels["source"],
        "fold": int(labels["fold"]),
        "face_box": np.array(record["box"], "float32"),
        "face_score": np.float32(record["score"]),
        "face_status": record["status"],
        "num_faces": record["num_faces"],
        **{name: np.dtype(dtype).type(labels[name]) for name, dtype in extra.items()},
    }


# Field of a record -> its type; "jpeg" is bytes or None, and its length in a file.
FIELDS: dict[str, type | tuple[type, ...]] = {
    "key": str,
    "split": str,
    "status": str,
    "reason": str,
    "num_faces": int,
    "score": (int, float),
    "box": list,
}


class DamagedBlockError(ValueError):
    """A block file that is damaged or belongs to another request."""


@dataclass(frozen=True)
class BlockFiles:
    """The block files of an unfinished preparation.

    Args:
        folder: The folder that holds them.
        request: SHA-256 of the request, which every file carries.
    """

    folder: Path
    request: str

    def file(self, number: int) -> Path:
        """Returns the file of block `number`."""
        return self.folder / f"block-{number:06d}.block"

    def write(self, number: int, records: Sequence[Mapping[str, Any]]) -> None:
        """Writes a finished block atomically."""
        jpegs = [record["jpeg"] for record in records]
        lines = [
            {**record, "jpeg": None if jpeg is None else len(jpeg)}
            for record, jpeg in zip(records, jpegs, strict=True)
        ]
        header = {"request": self.request, "records": lines}
        content = b"".join([_line(json.dumps(header)), *(j for j in jpegs if j)])
        # Two workers of a cluster may write the same block.
        write_bytes(self.file(number), _line(_digest(content)) + content)

    def read(self, number: int) -> list[dict[str, Any]]:
        """Returns the records of a finished block; raises DamagedBlockError."""
        file = self.file(number)
        no_file = DamagedBlockError(self._message(file, "no such file"))
        if not file.is_file():  # reading a pipe would block
            raise no_file
        try:
            digest, _, content = file.read_bytes().partition(b"\n")
        except FileNotFoundError:  # deleted in the meantime
            raise no_file from None
        if digest.decode("ascii", "replace") != _digest(content):
            reason = "its checksum does not fit its content"
            raise DamagedBlockError(self._message(file, reason))
        header, _, jpegs = content.partition(b"\n")
        try:
            return _records(json.loads(header), jpegs, self.request)
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            reason = f"{type(error).__name__}: {error}"
            raise DamagedBlockError(self._message(file, reason)) from None

    def read_all(self, num_blocks: int) -> Iterator[dict[str, Any]]:
        """Yields the records of all blocks, in the order of the manifest."""
        for number in range(num_blocks):
            yield from self.read(number)

    def is_finished(self, number: int, rows: pd.DataFrame) -> bool:
        """Returns whether a block is undamaged and newer than the images of its rows.

        Resuming with older blocks would mix two versions of the images.
        """
        try:
            records = self.read(number)
        except DamagedBlockError:
            return False
        found = [(record["key"], record["split"]) for record in records]
        if found != list(zip(rows["key"], rows["split"], strict=True)):
            return False
        made = self.file(number).stat().st_mtime_ns
        return all(_last_change(path) <= made for path in rows["path"])

    def _message(self, file: Path, reason: str) -> str:
        return (
            f"{file} is damaged ({reason}). Run the same preparation again to repair "
            "it."
        )


def _records(header: Any, jpegs: bytes, request: str) -> list[dict[str, Any]]:
    """Joins records and images; raises for anything unexpected."""
    if header["request"] != request:
        raise ValueError("it was made by a preparation with other settings")
    records, start = [], 0
    for record in header["records"]:
        record = dict(record)
        length = record.pop("jpeg")
        wrong = [n for n, cls in FIELDS.items() if not isinstance(record[n], cls)]
        if wrong or set(record) != set(FIELDS):
            raise ValueError(f"expected the fields {[*FIELDS]}, received {[*record]}")
        if length is not None and not 0 < length <= len(jpegs) - start:
            raise ValueError(f"an image of {length} bytes is truncated")
        jpeg = None if length is None else jpegs[start : start + length]
        start += length or 0
        records.append({**record, "jpeg": jpeg})
    if start != len(jpegs):
        raise ValueError(f"{len(jpegs) - start} bytes belong to no image")
    return records


def _last_change(path: str) -> int:
    """Returns a file's time of modification in ns; 0 if it does not exist."""
    try:
        return os.stat(path).st_mtime_ns
    except (OSError, ValueError):
        return 0


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _line(text: str) -> bytes:
    return text.encode("ascii") + b"\n"


# -- ready-made crops ------------------------------------------------------------------

# Images that are searched, at least and at most. Fewer say too little.
FEWEST_SEARCHED, MOST_SEARCHED = 40, 120
# Faces lie in one place if a face is found in so many images, several in so few, it is
# so high, and the quartiles of its center and of its height are so near.
LEAST_FOUND, MOST_SEVERAL, LEAST_HEIGHT = 0.5, 0.25, 0.25
CENTER_SPREAD, HEIGHT_SPREAD = 0.12, 0.35


def measure_faces(paths: Sequence[str]) -> dict[str, Any]:
    """Finds out where faces lie in whole images, on a sample.

    Returns the numbers `searched` and `found` and, if they are ready-made crops,
    `region`: the median face box, as `Preprocessing.region` has it. A model that
    learned from such crops needs faces cut out of photos in the same way.
    """
    if len(paths) < FEWEST_SEARCHED:
        return {"searched": 0, "found": 0}
    from keras_agegender.faces.detector import MtcnnDetector

    chosen = np.linspace(0, len(paths) - 1, min(len(paths), MOST_SEARCHED)).astype(int)
    detector, places, several = MtcnnDetector(), [], 0
    searched = 0
    for start in range(0, len(chosen), FEWEST_SEARCHED):
        read = [read_or_reason(paths[k]) for k in chosen[start:][:FEWEST_SEARCHED]]
        images = [image for image in read if not isinstance(image, str)]
        searched += len(images)
        for image, faces in zip(images, detector.detect(images), strict=True):
            if len(faces):
                size = np.array(image.shape[1::-1], float)
                low, high = faces.boxes[0].reshape(2, 2) / size
                places.append([*(low + high) / 2, *(high - low), size[0] / size[1]])
                several += len(faces) > 1
        if len(places) < LEAST_FOUND * searched:
            break  # photos without faces, or tight crops: no need to search on
    counts = {"searched": searched, "found": len(places)}
    if len(places) < max(LEAST_FOUND * searched, 1):
        return counts
    quartiles = np.percentile(places, [25, 50, 75], axis=0)
    spread, median = quartiles[2] - quartiles[0], quartiles[1]
    scattered = (
        several > MOST_SEVERAL * searched
        or median[3] < LEAST_HEIGHT
        or spread[:2].max() > CENTER_SPREAD
        or spread[3] > HEIGHT_SPREAD * median[3]
    )
    if scattered:
        return counts
    return {**counts, "region": [round(float(x), 3) for x in median]}


def faces_text(measured: Mapping[str, Any]) -> str:
    """Returns where faces were found to lie in whole images, as text."""
    counts = f"a face in {measured['found']} of {measured['searched']} images"
    if "region" not in measured:
        return (
            f"Searched a sample: {counts}, in no common place: a model of these images "
            "takes photos whole"
        )
    return (
        f"The images are ready-made crops ({counts}, "
        f"{region_text(measured['region'])}): a model of them cuts faces out of photos "
        "in the same way"
    )


# -- the contact sheet -----------------------------------------------------------------

TILE, CAPTION, GAP, COLUMNS = 160, 30, 8, 8
MAX_TILES = 48
DOUBTFUL_SCORE = 0.95  # among UTKFace's chips, one in fifty is below
PAPER, INK, MUTED, BOX = "#ffffff", "#222222", "#6b6b6b", "#D55E00"


def contact_sheet(
    status: pd.DataFrame, paths: Mapping[str, str], max_tiles: int = MAX_TILES
) -> np.ndarray | None:
    """Draws the doubtful images of a preparation.

    Those without a face come first, then those with several faces and those with a low
    score.
    """
    chosen = doubtful(status, max_tiles)
    if chosen.empty:
        return None
    rows = math.ceil(len(chosen) / COLUMNS)
    columns = min(COLUMNS, len(chosen))
    sheet = Image.new(
        "RGB",
        (columns * (TILE + GAP) + GAP, rows * (TILE + CAPTION + GAP) + GAP),
        PAPER,
    )
    for place, row in enumerate(chosen.itertuples()):
        left = GAP + place % COLUMNS * (TILE + GAP)
        top = GAP + place // COLUMNS * (TILE + CAPTION + GAP)
        sheet.paste(_tile(paths[row.key], row.status, row.box), (left, top))
        _caption(sheet, left, top + TILE, row)
    return np.array(sheet)


def doubtful(status: pd.DataFrame, max_rows: int = MAX_TILES) -> pd.DataFrame:
    """Returns the rows to review, the most doubtful first."""
    no_face = status[status["status"].isin(("no_face", "unreadable", "box_outside"))]
    several = status[status["status"] == "several_faces"]
    several = several.sort_values("num_faces", ascending=False, kind="stable")
    low = status[(status["status"] == "ok") & (status["score"] < DOUBTFUL_SCORE)]
    low = low.sort_values("score", kind="stable")
    groups = [no_face, several, low]
    shares = [min(len(group), max_rows // 3) for group in groups]
    for place, group in enumerate(groups):  # distribute the rows that are left
        shares[place] += min(len(group) - shares[place], max_rows - sum(shares))
    return pd.concat([g.head(n) for g, n in zip(groups, shares, strict=True)])


def _tile(path: str, status: str, box: list[float]) -> Image.Image:
    tile = Image.new("RGB", (TILE, TILE), "#e4e4e4")
    try:
        image = Image.fromarray(read_image(path))
    except UnreadableImageError:
        ImageDraw.Draw(tile).text(
            (TILE / 2, TILE / 2), "unreadable", fill=MUTED, anchor="mm", font=_font(14)
        )
        return tile
    scale = TILE / max(image.size)
    small = image.resize(
        (max(1, round(image.width * scale)), max(1, round(image.height * scale))),
        Image.Resampling.LANCZOS,
    )
    if status != "not_cropped":
        corners = [x * scale for x in box]
        ImageDraw.Draw(small).rectangle(corners, outline=BOX, width=2)
    tile.paste(small, ((TILE - small.width) // 2, (TILE - small.height) // 2))
    return tile


def _caption(sheet: Image.Image, left: int, top: int, row: Any) -> None:
    draw = ImageDraw.Draw(sheet)
    texts = {
        "ok": f"score {row.score:.2f}",
        "several_faces": f"{row.num_faces} faces",
        "no_face": "no face",
        "box_outside": "box outside",
    }
    text = texts.get(row.status, str(row.status))
    draw.text((left, top + 2), text, fill=INK, font=_font(12))
    key = _shortened(str(row.key), _font(10))
    draw.text((left, top + 16), key, fill=MUTED, font=_font(10))


def _shortened(text: str, font: ImageFont.FreeTypeFont) -> str:
    """Cuts a text in its middle until it fits a tile: keys differ at both ends."""
    short = text
    length = len(text)
    while font.getlength(short) > TILE and length > 4:
        length -= 1
        short = f"{text[: length // 2]}…{text[-(length - length // 2) :]}"
    return short


def _font(size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size)
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise ImportError("Pillow was built without FreeType, which draws text.")
    return font
