"""Face detection: pictures in, boxes, scores and five landmarks out.

`FaceDetector` is what the library asks for; `MtcnnDetector` answers with the three
networks of the `mtcnn` package. Zhang et al., "Joint Face Detection and Alignment Using
Multitask Cascaded Convolutional Networks", IEEE SPL 2016.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from keras_agegender.faces.images import resize_image

# The number of levels of the package's pyramid does not depend on the smallest face
# asked for. With more than 20 pixels its last levels are smaller than the 12 pixels
# that the first network sees, which fails and is reported as "no faces"; with less, it
# ends before large faces. With 20 its last level has 12 * 12 / 20 * 0.709 ** -(1.5 to
# 2.5), 12.1 to 17.0 rows. So it is always asked for 20, on a copy scaled accordingly.
SEARCHED_FACE = 20
SMALLEST_FACE = 12

LANDMARKS = ("left_eye", "right_eye", "nose", "mouth_left", "mouth_right")


@dataclass(frozen=True)
class Detections:
    """The faces of one picture, best score first.

    Attributes:
        boxes: `bbox_xyxy` in pixels of the picture. Shape (num_faces, 4), float32.
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
        """Returns the detections of a picture without faces."""
        return cls(
            np.zeros((0, 4), "float32"),
            np.zeros((0,), "float32"),
            np.zeros((0, 5, 2), "float32"),
        )


class FaceDetector(Protocol):
    """What finds faces for `crop_faces`, `prepare` and `Predictor`."""

    def detect(self, images: Sequence[np.ndarray]) -> list[Detections]:
        """Returns the faces of each RGB uint8 picture (height, width, 3)."""

    def settings(self) -> dict[str, Any]:
        """Returns what determines the result, as plain values."""


class MtcnnDetector:
    """MTCNN over batches of pictures of one size.

    Args:
        min_face_size: Smallest face found: a share of the shorter side of the picture
            below 1 (default 0.1), or pixels, not below 12. A picture is searched on a
            copy so large that this face has 20 pixels; boxes are in pixels of the
            picture given all the same. Small faces cost the most time.
        max_side: Longest side of the searched copy, in pixels; it wins over the
            smallest face. Defaults to 1024.
        score_threshold: Least confidence of the last network, in [0, 1]. Defaults to
            the package's 0.8.
        batch_size: Pictures searched together. Defaults to 32.

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
        self._networks: Any = None

    def settings(self) -> dict[str, Any]:
        """Returns what determines the result, as plain values."""
        return {
            "detector": "mtcnn",
            "min_face_size": self.min_face_size,
            "max_side": self.max_side,
            "score_threshold": self.score_threshold,
        }

    def detect(self, images: Sequence[np.ndarray]) -> list[Detections]:
        """Finds the faces of each picture.

        Args:
            images: RGB pictures of any sizes. Shape (height, width, 3) each, uint8.

        Returns:
            `Detections` of each, in the order given.
        """
        found = [Detections.none()] * len(images)
        # Pictures of one size are searched together; the package would pad others, and
        # a padded picture is another picture.
        groups: dict[tuple[int, ...], list[int]] = defaultdict(list)
        copies, scales = [], []
        for index, image in enumerate(images):
            copy = self._search_copy(image)
            copies.append(copy)
            scales.append(np.divide(image.shape[1::-1], copy.shape[1::-1]))
            groups[copy.shape].append(index)
        for members in groups.values():
            for start in range(0, len(members), self.batch_size):
                batch = members[start : start + self.batch_size]
                rows = self._search([copies[i] for i in batch])
                for place, index in enumerate(batch):
                    found[index] = _detections(rows[rows[:, 0] == place], scales[index])
        return found

    def _least(self, shape: tuple[int, ...]) -> float:
        """Returns the smallest face of a picture in its pixels."""
        if self.min_face_size < 1:
            return self.min_face_size * min(shape[:2])
        return self.min_face_size

    def _search_copy(self, image: np.ndarray) -> np.ndarray:
        least = max(self._least(image.shape), SMALLEST_FACE)
        scale = min(SEARCHED_FACE / least, self.max_side / max(image.shape[:2]))
        height, width = (max(1, round(side * scale)) for side in image.shape[:2])
        return resize_image(image, (height, width))

    def _search(self, images: list[np.ndarray]) -> np.ndarray:
        """Returns rows (picture, box, score, landmarks) of a batch of one size."""
        if min(images[0].shape[:2]) < 2 * SMALLEST_FACE:
            return np.zeros((0, 16))
        if self._networks is None:
            from mtcnn import MTCNN

            self._networks = MTCNN()
        rows = self._networks.detect_faces(
            list(images),
            box_format="xyxy",
            output_type="numpy",
            fit_to_image=False,
            min_face_size=SEARCHED_FACE,
            threshold_onet=self.score_threshold,
        )
        return np.asarray(rows, "float64").reshape(-1, 16)


def _detections(rows: np.ndarray, scale: np.ndarray) -> Detections:
    """Turns the package's rows of one picture into pixels of the picture given."""
    if not len(rows):
        return Detections.none()
    # picture, x1, y1, x2, y2, score, then x of five landmarks and y of five
    rows = rows[np.argsort(-rows[:, 5], kind="stable")]
    boxes = rows[:, 1:5] * np.tile(scale, 2)
    landmarks = np.stack([rows[:, 6:11], rows[:, 11:16]], axis=-1) * scale
    return Detections(
        boxes.astype("float32"),
        rows[:, 5].astype("float32"),
        landmarks.astype("float32"),
    )
