"""Crops: a picture and its detected faces become the one picture a model sees."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import cv2
import numpy as np

from keras_agegender.faces import boxes as geometry
from keras_agegender.faces.detector import Detections
from keras_agegender.faces.images import resize_image

FALLBACKS = ("center", "full", "skip")
STATUSES = ("ok", "no_face", "several_faces", "not_cropped", "unreadable")


# A box that ends at 80.0001 has no 81st column.
ROUNDING = 1e-2


@dataclass(frozen=True)
class CropOptions:
    """How a face box becomes a crop; stored with datasets and exported models.

    Args:
        margin: Share of the box added on each side, in [0, 4]. MTCNN's boxes end at
            forehead and chin; 0.25 (default) takes in hair and ears.
        square: Whether the shorter side is lengthened, so that a face is not squeezed.
            Defaults to true. The crop is shifted into the picture before it is cut.
        keep: Which face, where several are found: `"largest"` (default) or `"center"`.
        fallback: Where none is found: `"center"` (default), the central square,
            `"full"`, the whole picture, or `"skip"`, no crop.
        align: Whether the picture is turned about the middle of the crop until the eyes
            are level; what it lacks at the corners is filled with its border. Defaults
            to false.
        pad: Whether a crop may leave the picture, where black fills it up, so that the
            face stays in its middle. Defaults to false.

    Raises:
        ValueError: If an option is out of range.
    """

    margin: float = 0.25
    square: bool = True
    keep: str = "largest"
    fallback: str = "center"
    align: bool = False
    pad: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.margin <= 4:
            raise ValueError(
                "Invalid `margin`. Expected a float in [0, 4]. "
                f"Received: margin={self.margin}."
            )
        for name, allowed in (("keep", geometry.KEEP), ("fallback", FALLBACKS)):
            if getattr(self, name) not in allowed:
                raise ValueError(
                    f"Invalid `{name}`. Expected one of {allowed}. "
                    f"Received: {name}={getattr(self, name)!r}."
                )

    def to_dict(self) -> dict[str, Any]:
        """Returns the options as plain values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, options: Mapping[str, Any]) -> CropOptions:
        """Returns the options that `to_dict` wrote, of this version or an older one."""
        return cls(
            **{f.name: options[f.name] for f in fields(cls) if f.name in options}
        )


@dataclass(frozen=True)
class FaceCrop:
    """One picture's crop, and how it came about.

    Attributes:
        image: RGB crop; `None` where the fallback is `"skip"` and no face was found.
        box: What was cut out, `bbox_xyxy` in pixels of the picture. Shape (4,).
        score: The detector's confidence in [0, 1]; 0 without a face.
        status: `"ok"`, `"no_face"`, `"several_faces"` or `"not_cropped"`.
        num_faces: Faces found.
    """

    image: np.ndarray | None
    box: np.ndarray
    score: float
    status: str
    num_faces: int


def crop_faces(
    images: Sequence[np.ndarray],
    detections: Sequence[Detections],
    options: CropOptions | None = None,
    output_size: tuple[int, int] | None = None,
) -> list[FaceCrop]:
    """Cuts the subject's face out of each picture.

    Args:
        images: RGB pictures. Shape (height, width, 3) each, uint8.
        detections: The faces of each.
        options: How to cut; `None` takes the defaults.
        output_size: (height, width) that crops are resized to; `None` leaves them.

    Returns:
        A `FaceCrop` for each picture, in the order given.
    """
    options = options or CropOptions()
    pairs = zip(images, detections, strict=True)
    return [_crop_subject(i, d, options, output_size) for i, d in pairs]


def crop_box(
    box: np.ndarray, image_size: tuple[int, int], options: CropOptions
) -> np.ndarray:
    """Returns the box to cut out around a face box. Shape (4,).

    It lies inside the picture, unless `options.pad` says that it need not.
    """
    box = geometry.add_margin(box, options.margin)
    if options.square:
        box = geometry.make_square(box)
    return box if options.pad else geometry.fit_inside(box, image_size)


def crop_angle(landmarks: np.ndarray, options: CropOptions) -> float:
    """Returns by how many degrees to turn the picture, clockwise counting negative.

    Args:
        landmarks: Landmarks of the face, the eyes first. Shape (5, 2).
        options: 0 is returned unless `options.align`.
    """
    if not options.align:
        return 0.0
    return geometry.eye_angle(landmarks)


def cut(
    image: np.ndarray,
    box: np.ndarray,
    output_size: tuple[int, int] | None = None,
    angle: float = 0.0,
) -> np.ndarray:
    """Returns the pixels of a box, at least one.

    Args:
        image: RGB. Shape (height, width, 3), uint8.
        box: `bbox_xyxy`; what lies beyond the picture is black.
        output_size: (height, width) to resize to; `None` leaves the box's own.
        angle: Degrees that the picture is turned by about the middle of the box first,
            counter-clockwise. Defaults to 0.
    """
    height, width = image.shape[:2]
    left, top = np.floor(box[:2] + ROUNDING).astype(int)
    right, bottom = np.ceil(box[2:] - ROUNDING).astype(int)
    right, bottom = max(right, left + 1), max(bottom, top + 1)
    if angle:
        crop = _cut_turned(image, (left, top, right, bottom), angle)
    elif left < 0 or top < 0 or right > width or bottom > height:
        crop = _cut_padded(image, (left, top, right, bottom))
    else:
        crop = image[top:bottom, left:right]
    return resize_image(crop, output_size) if output_size else crop


def _cut_padded(image: np.ndarray, box: tuple[int, int, int, int]) -> np.ndarray:
    left, top, right, bottom = box
    crop = np.zeros((bottom - top, right - left, 3), image.dtype)
    height, width = image.shape[:2]
    rows = slice(max(top, 0), max(min(bottom, height), 0))
    columns = slice(max(left, 0), max(min(right, width), 0))
    inside = image[rows, columns]
    down, along = max(-top, 0), max(-left, 0)
    crop[down : down + inside.shape[0], along : along + inside.shape[1]] = inside
    return crop


def _cut_turned(
    image: np.ndarray, box: tuple[int, int, int, int], angle: float
) -> np.ndarray:
    left, top, right, bottom = box
    middle = ((left + right - 1) / 2, (top + bottom - 1) / 2)
    turn = cv2.getRotationMatrix2D(middle, angle, 1.0)
    turn[:, 2] -= [left, top]
    return cv2.warpAffine(
        image,
        turn,
        (right - left, bottom - top),
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )


def _crop_subject(
    image: np.ndarray,
    detections: Detections,
    options: CropOptions,
    output_size: tuple[int, int] | None,
) -> FaceCrop:
    size = image.shape[:2]
    count = len(detections)
    if count:
        subject = geometry.select_face(detections.boxes, size, options.keep)
        box = crop_box(detections.boxes[subject], size, options)
        angle = crop_angle(detections.landmarks[subject], options)
        score = float(detections.scores[subject])
        status = "ok" if count == 1 else "several_faces"
        crop = cut(image, box, output_size, angle)
        return FaceCrop(crop, box, score, status, count)
    if options.fallback == "center":
        box = geometry.center_square(size)
    else:
        box = np.array([0, 0, size[1], size[0]], "float32")
    picture = None if options.fallback == "skip" else cut(image, box, output_size)
    return FaceCrop(picture, box, 0.0, "no_face", 0)


def whole_picture(
    image: np.ndarray, output_size: tuple[int, int] | None = None
) -> FaceCrop:
    """Returns a picture as its own crop, for recipes without face detection."""
    box = np.array([0, 0, image.shape[1], image.shape[0]], "float32")
    return FaceCrop(cut(image, box, output_size), box, 0.0, "not_cropped", 0)
