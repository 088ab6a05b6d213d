"""Blocks: what preparation does to some pictures at a time, wherever it runs.

In: a slice of a manifest. Out: one record per picture, its status and, unless it has
none, its JPEG, which `BlockFiles` keep, so that work that was interrupted goes on
behind it. Local and Beam preparation share all of this.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from keras_agegender.faces.detector import Detections, FaceDetector
from keras_agegender.faces.images import UnreadableImageError, read_image
from keras_agegender.faces.pixel_path import PixelPath


@dataclass(frozen=True)
class BlockCropper:
    """Turns the pictures of a block into records.

    Args:
        detector: Finds faces; `None` keeps whole pictures.
        path: What becomes of the pixels, as far as the stored picture.
    """

    detector: FaceDetector | None
    path: PixelPath

    def __getstate__(self) -> dict[str, Any]:
        """Leaves the compiled graph behind: a worker makes its own."""
        return {"detector": self.detector, "path": self.path}

    @functools.cached_property
    def _store(self) -> Any:
        import tensorflow as tf

        from keras_agegender.faces.pixel_graph import PICTURE, PhotoFaces, PixelGraph

        graph = PixelGraph(self.path)

        @tf.function(
            input_signature=[
                PICTURE,
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
