"""Prepares datasets: detects and crops faces and writes them to disk."""

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
from keras_agegender.datasets.manifest import (
    Manifest,
    extra_columns,
    text_columns,
    validate_manifest,
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
from keras_agegender.faces.detector import Detections, FaceDetector
from keras_agegender.faces.images import UnreadableImageError, encode_jpeg, read_image
from keras_agegender.faces.preprocessing import CropOptions, Preprocessing
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


def manifest_hash(manifest: Manifest) -> str:
    """Returns the SHA-256 of a manifest's rows, outputs and age groups.

    Without paths: pictures may be moved between two calls.
    """
    text = manifest.drop(columns="path").to_csv(index=False) + json.dumps(
        [
            manifest.extra_heads,
            manifest.age_groups.to_list(),
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
    if (
        not check_output_dir(directory, PREPARATION_FILE, "prepared dataset")
        or overwrite
    ):
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


@dataclass(frozen=True)
class BlockCropper:
    """Turns the pictures of a block into records.

    Args:
        detector: Finds faces; `None` keeps whole pictures.
        path: What becomes of the pixels, as far as the stored picture.
    """

    detector: FaceDetector | None
    path: Preprocessing

    def __getstate__(self) -> dict[str, Any]:
        """Leaves the compiled graph behind: a worker makes its own."""
        return {"detector": self.detector, "path": self.path}

    @functools.cached_property
    def _store(self) -> Any:
        import tensorflow as tf

        from keras_agegender.faces.preprocessing_graph import (
            IMAGE,
            PhotoFaces,
            PreprocessingGraph,
        )

        graph = PreprocessingGraph(self.path)

        @tf.function(
            input_signature=[
                IMAGE,
                tf.TensorSpec((None, 4), tf.float32),
                tf.TensorSpec((None,), tf.float32),
                tf.TensorSpec((None, 5, 2), tf.float32),
            ],
            autograph=False,
        )
        def store(image: Any, boxes: Any, scores: Any, landmarks: Any) -> Any:
            return graph.store(image, PhotoFaces(boxes, scores, landmarks))

        return store

    def detect(self, pictures: Sequence[np.ndarray | str]) -> list[Detections] | None:
        """Returns the faces of those pictures that could be read."""
        if self.path.crop is None or self.detector is None:
            return None
        return self.detector.detect([p for p in pictures if not isinstance(p, str)])

    def records(
        self,
        block: pd.DataFrame,
        pictures: Sequence[np.ndarray | str],
        found: Sequence[Detections] | None,
    ) -> list[dict[str, Any]]:
        """Returns a record per row of a manifest.

        Args:
            block: Rows of a manifest.
            pictures: What `read_picture` returned for each.
            found: What `detect` returned for them.

        Returns:
            Dicts of `key`, `split`, `status`, `reason`, `num_faces`, `score`, `box` and
            `jpeg`, which is `None` where there is no picture to keep.
        """
        faces = iter(found or ())
        records = []
        for key, split, picture in zip(
            block["key"], block["split"], pictures, strict=True
        ):
            if isinstance(picture, str):
                record = _unreadable(picture)
            else:
                record = self._record(picture, None if found is None else next(faces))
            records.append({"key": key, "split": split, **record})
        return records

    def _record(self, picture: np.ndarray, faces: Detections | None) -> dict[str, Any]:
        count = 0 if faces is None else len(faces)
        status = "not_cropped"
        if faces is not None:
            status = ("no_face", "ok", "several_faces")[min(count, 2)]
        faces = faces or Detections.none()
        jpeg, box, score = self._store(
            picture, faces.boxes, faces.scores, faces.landmarks
        )
        skipped = (
            status == "no_face"
            and self.path.crop is not None
            and self.path.crop.fallback == "skip"
        )
        return {
            "status": status,
            "reason": "skipped: no face" if skipped else "",
            "num_faces": count,
            "score": round(float(score), 4),
            "box": [round(float(x), 1) for x in box.numpy()],
            "jpeg": None if skipped else jpeg.numpy(),
        }


def read_picture(path: str) -> np.ndarray | str:
    """Reads a picture; one that cannot be read is represented by the reason."""
    try:
        return read_image(path)
    except UnreadableImageError as error:
        return str(error)


def _unreadable(reason: str) -> dict[str, Any]:
    return {
        "status": "unreadable",
        "reason": reason,
        "num_faces": 0,
        "score": 0.0,
        "box": [0.0] * 4,
        "jpeg": None,
    }


def make_example(
    record: Mapping[str, Any], labels: Mapping[str, Any], extra: Mapping[str, str]
) -> dict[str, Any]:
    """Returns the example of a prepared dataset.

    Its picture is a file object, which TensorFlow Datasets does not encode again.

    Args:
        record: A record with a picture.
        labels: The manifest's row of the same key.
        extra: Extra column -> `"int64"`, `"float32"` or `"str"`.
    """
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
        **{name: np.dtype(kind).type(labels[name]) for name, kind in extra.items()},
    }


# Field of a record -> what it holds; "jpeg" is bytes or None, and its length in a file.
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
    """A block file that is not what was written, or is of another request."""


@dataclass(frozen=True)
class BlockFiles:
    """The block files of an unfinished preparation.

    Args:
        folder: Where they lie.
        request: SHA-256 of what is asked for, which every file holds too.
    """

    folder: Path
    request: str

    def file(self, number: int) -> Path:
        """Returns where block `number` lies."""
        return self.folder / f"block-{number:06d}.block"

    def write(self, number: int, records: Sequence[Mapping[str, Any]]) -> None:
        """Writes a finished block, whole or not at all."""
        jpegs = [record["jpeg"] for record in records]
        lines = [
            {**record, "jpeg": None if jpeg is None else len(jpeg)}
            for record, jpeg in zip(records, jpegs, strict=True)
        ]
        header = {"request": self.request, "records": lines}
        content = b"".join([_line(json.dumps(header)), *(j for j in jpegs if j)])
        # Two workers of a cluster may have been given the same block.
        write_bytes(self.file(number), _line(_digest(content)) + content)

    def read(self, number: int) -> list[dict[str, Any]]:
        """Returns the records of a finished block.

        Raises:
            DamagedBlockError: If it is not what was written.
        """
        file = self.file(number)
        no_file = DamagedBlockError(self._message(file, "no such file"))
        if not file.is_file():  # a pipe would be waited for
            raise no_file
        try:
            digest, _, content = file.read_bytes().partition(b"\n")
        except FileNotFoundError:  # gone since it was looked for
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
        """Returns whether a block is there, undamaged and of these rows.

        One that is older than one of its pictures is not: another call would mix what
        the pictures were with what they are.

        Args:
            number: Its number.
            rows: Its rows of the manifest.
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
            f"{file} is damaged ({reason}). The same preparation again makes it anew."
        )


def _records(header: Any, jpegs: bytes, request: str) -> list[dict[str, Any]]:
    """Puts records and pictures together; whatever is odd raises."""
    if header["request"] != request:
        raise ValueError("it was made by a preparation with other settings")
    records, start = [], 0
    for record in header["records"]:
        record = dict(record)
        length = record.pop("jpeg")
        wrong = [n for n, kind in FIELDS.items() if not isinstance(record[n], kind)]
        if wrong or set(record) != set(FIELDS):
            raise ValueError(f"expected the fields {[*FIELDS]}, received {[*record]}")
        if length is not None and not 0 < length <= len(jpegs) - start:
            raise ValueError(f"a picture of {length} bytes is not all there")
        jpeg = None if length is None else jpegs[start : start + length]
        start += length or 0
        records.append({**record, "jpeg": jpeg})
    if start != len(jpegs):
        raise ValueError(f"{len(jpegs) - start} bytes belong to no picture")
    return records


def _last_change(path: str) -> int:
    """Returns when a file's content last changed, in ns; 0 of one that is gone."""
    try:
        return os.stat(path).st_mtime_ns
    except (OSError, ValueError):
        return 0


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _line(text: str) -> bytes:
    return text.encode("ascii") + b"\n"


TILE, CAPTION, GAP, COLUMNS = 160, 30, 8, 8
MAX_TILES = 48
DOUBTFUL_SCORE = 0.95  # among UTKFace's chips, one in fifty is below
PAPER, INK, MUTED, BOX = "#ffffff", "#222222", "#6b6b6b", "#D55E00"


def contact_sheet(
    status: pd.DataFrame, paths: Mapping[str, str], max_tiles: int = MAX_TILES
) -> np.ndarray | None:
    """Draws the doubtful pictures of a preparation.

    Those without a face come first, then those with several faces and those with a low
    score; of more than `max_tiles`, each kind gives its most doubtful ones.

    Args:
        status: Columns `key`, `status`, `score`, `num_faces` and `box` (`bbox_xyxy`).
        paths: Key -> picture file; those that are gone are shown as gray tiles.
        max_tiles: Pictures shown at most. Defaults to 48.

    Returns:
        RGB picture. Shape (height, width, 3), uint8. `None` where nothing is doubtful.
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
    """Returns the rows that somebody should look at, the most doubtful first.

    Args:
        status: Columns `status`, `score` and `num_faces`.
        max_rows: Rows at most; a third of them for each kind, if it has as many.
    """
    no_face = status[status["status"].isin(("no_face", "unreadable"))]
    several = status[status["status"] == "several_faces"]
    several = several.sort_values("num_faces", ascending=False, kind="stable")
    low = status[(status["status"] == "ok") & (status["score"] < DOUBTFUL_SCORE)]
    low = low.sort_values("score", kind="stable")
    kinds = [no_face, several, low]
    shares = [min(len(kind), max_rows // 3) for kind in kinds]
    for place, kind in enumerate(kinds):  # what one kind does not need, others get
        shares[place] += min(len(kind) - shares[place], max_rows - sum(shares))
    return pd.concat([k.head(n) for k, n in zip(kinds, shares, strict=True)])


def _tile(path: str, status: str, box: list[float]) -> Image.Image:
    tile = Image.new("RGB", (TILE, TILE), "#e4e4e4")
    try:
        picture = Image.fromarray(read_image(path))
    except UnreadableImageError:
        ImageDraw.Draw(tile).text(
            (TILE / 2, TILE / 2), "unreadable", fill=MUTED, anchor="mm", font=_font(14)
        )
        return tile
    scale = TILE / max(picture.size)
    small = picture.resize(
        (max(1, round(picture.width * scale)), max(1, round(picture.height * scale))),
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
    }
    text = texts.get(row.status, str(row.status))
    draw.text((left, top + 2), text, fill=INK, font=_font(12))
    key = _shortened(str(row.key), _font(10))
    draw.text((left, top + 16), key, fill=MUTED, font=_font(10))


def _shortened(text: str, font: ImageFont.FreeTypeFont) -> str:
    """Cuts a text in its middle until it fits a tile: both ends tell keys apart."""
    kept = text
    length = len(text)
    while font.getlength(kept) > TILE and length > 4:
        length -= 1
        kept = f"{text[: length // 2]}…{text[-(length - length // 2) :]}"
    return kept


def _font(size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size)
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise ImportError("Pillow was built without FreeType, which draws text.")
    return font


# What became of pictures without a face, by `CropOptions.fallback`.
WITHOUT_FACE = {
    "center": "cropped at the center",
    "full": "kept whole",
    "skip": "left out",
}
BLOCK_SIZE = 128
DATASET_NAME = re.compile(
    RESERVED_NAMES_PATTERN + r"[A-Za-z0-9_]{1,100}"
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

    manifest: Manifest
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
        if items := self.manifest.cleaning_items:
            (built / CLEANING_FILE).write_text(items, "utf-8")
        written = int(has_picture.sum())
        write_json(
            built / PREPARATION_FILE,
            {
                **self.request,
                "counts": counts,
                "written": written,
                "extra_heads": self.manifest.extra_heads,
                "age_groups": self.manifest.age_groups.to_list(),
                "cleaning": self.manifest.cleaning,
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
    """Crops the face out of every picture and writes a prepared dataset.

    What was done to the pixels is in it, as a `Preprocessing`; `train` keeps it in the run,
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
    path = Preprocessing(
        crop=crop_options,
        detector=detector.settings() if detector else None,
        stored_size=(height, width),
        jpeg_quality=jpeg_quality,
    )
    return BlockCropper(detector, path)


def begin(
    manifest: Manifest,
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
            f"{RESERVED_NAMES_TEXT}. Received: name={name!r}."
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
        task.manifest.age_groups,
    )
