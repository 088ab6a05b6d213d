"""Face detection: boxes, scores and five landmarks of each image.

`FaceDetector` is what the library asks for; `MtcnnDetector` answers with the cascade of
`faces.mtcnn`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

SMALLEST_FACE = 12  # what the first network sees
# Pixels searched together at most, whatever the batch size: it bounds the memory.
MAX_PIXELS = 4_000_000


@dataclass(frozen=True)
class Detections:
    """The faces of one image, best score first.

    Attributes:
        boxes: `bbox_xyxy` in pixels of the image. Shape (num_faces, 4), float32.
            If a face is cut off, its box may extend beyond the edge of the image.
        scores: Confidence in [0, 1]. Shape (num_faces,), float32.
        landmarks: (x, y) of eyes, nose and mouth corners in pixels, left and right as
            the viewer sees them. Shape (num_faces, 5, 2), float32.
    """

    boxes: np.ndarray
    scores: np.ndarray
    landmarks: np.ndarray

    def __len__(self) -> int:
        return len(self.boxes)

    @classmethod
    def none(cls) -> Detections:
        """Returns the detections of an image without faces."""
        return cls(
            np.zeros((0, 4), "float32"),
            np.zeros((0,), "float32"),
            np.zeros((0, 5, 2), "float32"),
        )


class FaceDetector(Protocol):
    """A face detector for `prepare` and `Predictor`."""

    def detect(self, images: Sequence[np.ndarray]) -> list[Detections]:
        """Returns the faces of each RGB uint8 image (height, width, 3)."""

    def settings(self) -> dict[str, Any]:
        """Returns the settings that determine the result, as plain values."""


class MtcnnDetector:
    """MTCNN over batches of images of one size.

    Args:
        min_face_size: Smallest face found: a share of the shorter side of the image
            below 1 (default 0.1), or pixels, not below 12. An image is searched on a
            reduced copy, in which this face has 20 pixels; boxes are in pixels of the
            image given all the same. Small faces cost the most time.
        max_side: Longest side of the searched copy, in pixels; it wins over the
            smallest face. Defaults to 1024.
        score_threshold: Least confidence of the last network, in [0, 1]. Defaults to
            the package's 0.8.
        batch_size: Images searched together. Defaults to 32.

    Raises:
        ValueError: If an argument is out of range.

    Example:
    >>> MtcnnDetector().detect([image])[0].boxes  # doctest: +SKIP
    """

    def __init__(
        self,
        min_face_size: float = 0.1,
        max_side: int = 1024,
        score_threshold: float = 0.8,
        batch_size: int = 32,
    ) -> None:
        if not (0 < min_face_size < 1 or min_face_size >= 12):
            raise ValueError(
                "Invalid `min_face_size`. Expected a share in (0, 1) or at least 12 "
                f"pixels. Received: min_face_size={min_face_size}."
            )
        if max_side < 24 or batch_size < 1 or not 0 <= score_threshold <= 1:
            raise ValueError(
                "Invalid arguments. Expected max_side of at least 24, a positive "
                "batch_size and a score_threshold in [0, 1]. Received: "
                f"max_side={max_side}, batch_size={batch_size}, "
                f"score_threshold={score_threshold}."
            )
        self.min_face_size = min_face_size
        self.max_side = max_side
        self.score_threshold = score_threshold
        self.batch_size = batch_size
        self._search: Any = None
        self._reduce: Any = None

    def __getstate__(self) -> dict[str, Any]:
        """Drops the compiled graphs: a worker process makes its own."""
        return {**self.__dict__, "_search": None, "_reduce": None}

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> MtcnnDetector:
        """Creates a detector from its `settings()`.

        Raises:
            ValueError: If they are those of another kind of detector.
        """
        names = ("min_face_size", "max_side", "score_threshold")
        if settings.get("detector") != "mtcnn" or set(names) - set(settings):
            raise ValueError(
                "Invalid `settings`. Expected those of an MtcnnDetector. "
                f"Received: settings={dict(settings)}."
            )
        return cls(**{name: settings[name] for name in names})

    def settings(self) -> dict[str, Any]:
        """Returns the settings that determine the result, as plain values."""
        return {
            "detector": "mtcnn",
            "min_face_size": self.min_face_size,
            "max_side": self.max_side,
            "score_threshold": self.score_threshold,
        }

    def detect(self, images: Sequence[np.ndarray]) -> list[Detections]:
        """Finds the faces of each image.

        Args:
            images: RGB images of any sizes. Shape (height, width, 3) each, uint8.

        Returns:
            `Detections` of each, in the order given.
        """
        found = [Detections.none()] * len(images)
        # Images of one size are searched together: a padded image is another one.
        groups: dict[tuple[Any, ...], list[int]] = defaultdict(list)
        copies = [self._copy(image) for image in images]
        for index, (copy, least, _) in enumerate(copies):
            if min(copy.shape[:2]) >= SMALLEST_FACE:
                groups[(*copy.shape[:2], float(least))].append(index)
        for (height, width, least), members in groups.items():
            together = max(1, min(self.batch_size, MAX_PIXELS // (height * width)))
            for start in range(0, len(members), together):
                batch = members[start : start + together]
                faces = self._find([copies[i][0] for i in batch], least)
                for index, one in zip(batch, faces, strict=True):
                    found[index] = _scaled(one, copies[index][2])
        return found

    @property
    def score_thresholds(self) -> tuple[float, float, float]:
        """Least confidence after each network; the package's for the first two."""
        return 0.6, 0.7, self.score_threshold

    def _copy(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns the searched copy, its smallest face, and the factor back."""
        if self._reduce is None:
            self._reduce = _make_reduction(self.min_face_size, self.max_side)
        copy, least, factor = self._reduce(image)
        return copy.numpy(), least.numpy(), factor.numpy()

    def _find(self, images: list[np.ndarray], least: float) -> list[Detections]:
        """Returns the faces of images of one size, in their pixels."""
        if self._search is None:
            self._search = _make_search(self.score_thresholds)
        faces = self._search(np.stack(images), least)
        image_index, *values = (value.numpy() for value in faces)
        return [
            Detections(*(value[image_index == place] for value in values))
            for place in range(len(images))
        ]


def _make_reduction(min_face_size: float, max_side: int) -> Any:
    """Returns a compiled function that makes searched copies of any image."""
    import tensorflow as tf

    from keras_agegender.faces.mtcnn import search_copy

    reduce = tf.function(
        lambda image: search_copy(image, min_face_size, max_side),
        input_signature=(tf.TensorSpec((None, None, 3), tf.uint8),),
        autograph=False,
    ).get_concrete_function()  # called without a look at its arguments' types
    return lambda image: reduce(tf.constant(image))


def _make_search(score_thresholds: tuple[float, float, float]) -> Any:
    """Returns the cascade as a compiled function of images and the smallest face."""
    import tensorflow as tf

    from keras_agegender.faces.mtcnn import Mtcnn

    cascade = Mtcnn(score_thresholds=score_thresholds)
    search = tf.function(
        cascade,
        input_signature=(
            tf.TensorSpec((None, None, None, 3), tf.uint8),
            tf.TensorSpec((), tf.float32),
        ),
        autograph=False,  # nothing to convert, and looking for it takes seconds
    ).get_concrete_function()
    return lambda images, least: search(
        tf.constant(images), tf.constant(least, tf.float32)
    )


def _scaled(faces: Detections, factor: np.ndarray) -> Detections:
    """Converts pixels of the searched copy into pixels of the image."""
    return Detections(
        faces.boxes * np.tile(factor, 2), faces.scores, faces.landmarks * factor
    )
