"""Blocks: what preparation does to some pictures at a time, wherever it runs.

In: a slice of a manifest. Out: one record per picture, its status and, unless it has
none, its JPEG. A finished block is a file, written whole or not at all, so that work
that was interrupted goes on behind it. Local and Beam preparation share all of this.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from keras_agegender.faces.cropping import (
    CropOptions,
    FaceCrop,
    crop_faces,
    whole_picture,
)
from keras_agegender.faces.detector import Detections, FaceDetector
from keras_agegender.faces.images import UnreadableImageError, encode_jpeg, read_image
from keras_agegender.files import write_bytes


@dataclass(frozen=True)
class BlockCropper:
    """Turns the pictures of a block into records.

    Args:
        detector: Finds faces; `None` keeps whole pictures.
        options: How to cut them out; `None` keeps whole pictures.
        output_size: (height, width) of the stored pictures.
        jpeg_quality: Quality they are stored with, 1 to 100.
    """

    detector: FaceDetector | None
    options: CropOptions | None
    output_size: tuple[int, int]
    jpeg_quality: int

    def detect(self, pictures: Sequence[np.ndarray | str]) -> list[Detections] | None:
        """Returns the faces of those pictures that could be read."""
        if self.options is None or self.detector is None:
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
        readable = [p for p in pictures if not isinstance(p, str)]
        if self.options is None or found is None:
            crops = [whole_picture(image, self.output_size) for image in readable]
        else:
            crops = crop_faces(readable, found, self.options, self.output_size)
        crop_of = iter(crops)
        return [
            {
                "key": key,
                "split": split,
                **(
                    _unreadable(picture)
                    if isinstance(picture, str)
                    else self._record(next(crop_of))
                ),
            }
            for key, split, picture in zip(
                block["key"], block["split"], pictures, strict=True
            )
        ]

    def _record(self, crop: FaceCrop) -> dict[str, Any]:
        return {
            "status": crop.status,
            "reason": "skipped: no face" if crop.image is None else "",
            "num_faces": crop.num_faces,
            "score": round(crop.score, 4),
            "box": [round(float(x), 1) for x in crop.box],
            "jpeg": None
            if crop.image is None
            else encode_jpeg(crop.image, self.jpeg_quality),
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


# -- files -----------------------------------------------------------------------------


def block_file(partial: Path, number: int) -> Path:
    """Returns where block `number` of an unfinished preparation lies."""
    return partial / f"block-{number:06d}.pickle"


def write_block(partial: Path, number: int, records: list[dict[str, Any]]) -> None:
    """Writes a finished block."""
    # Two workers of a cluster may have been given the same block.
    write_bytes(block_file(partial, number), pickle.dumps(records))


def read_block(partial: Path, number: int) -> list[dict[str, Any]]:
    """Returns the records of a finished block."""
    return pickle.loads(block_file(partial, number).read_bytes())


def read_blocks(partial: Path, num_blocks: int) -> Iterator[dict[str, Any]]:
    """Yields the records of all blocks, in the order of the manifest."""
    for number in range(num_blocks):
        yield from read_block(partial, number)


def make_example(
    record: Mapping[str, Any], labels: Mapping[str, Any], extra: Mapping[str, str]
) -> dict[str, Any]:
    """Returns the example of a prepared dataset.

    Its picture is a file object, which TensorFlow Datasets does not encode again.

    Args:
        record: A record with a picture.
        labels: The manifest's row of the same key.
        extra: Extra column -> `"int64"` or `"float32"`.
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
