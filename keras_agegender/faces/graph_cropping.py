"""Cropping inside a TensorFlow graph: a picture in, its face crops out.

The same choices as `faces.cropping`, for `tf.data` and for exported models; tests hold
the two equal. One picture is searched at a time here, so they may be of any sizes.
"""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from keras_agegender.faces.cropping import ROUNDING, CropOptions
from keras_agegender.faces.detector import (
    SEARCHED_FACE,
    SMALLEST_FACE,
    MtcnnDetector,
)
from keras_agegender.faces.mtcnn import Mtcnn


class PhotoFaces(NamedTuple):
    """Faces of one picture, from left to right.

    Attributes:
        boxes: `bbox_xyxy` in pixels. Shape (num_faces, 4), float32.
        scores: Confidence in [0, 1]. Shape (num_faces,), float32.
        landmarks: (x, y) of eyes, nose and mouth corners. Shape (num_faces, 5, 2).
    """

    boxes: tf.Tensor
    scores: tf.Tensor
    landmarks: tf.Tensor


class GraphCropper(tf.Module):
    """Finds and cuts out faces inside a graph.

    Args:
        options: How to cut a face out.
        detector: Whose settings to find faces by; `None` is `MtcnnDetector()`.

    Raises:
        ValueError: If `options.fallback` is `"skip"`: a graph cannot leave a picture
            out of a batch without losing it.

    Example:
    >>> crop = GraphCropper(CropOptions())  # doctest: +SKIP
    >>> dataset.map(crop.subject)  # doctest: +SKIP
    """

    def __init__(
        self, options: CropOptions, detector: MtcnnDetector | None = None
    ) -> None:
        super().__init__()
        if options.fallback == "skip":
            raise ValueError(
                "Invalid `options`. Expected a fallback of 'center' or 'full': nothing "
                "is skipped inside a graph. Received: fallback='skip'."
            )
        self.options = options
        self.detector = detector or MtcnnDetector()
        self._cascade = Mtcnn(score_thresholds=self.detector.score_thresholds)

    def find(self, image: tf.Tensor) -> PhotoFaces:
        """Finds all faces of a picture.

        Args:
            image: RGB. Shape (height, width, 3), uint8.
        """
        least, scale = self._scale(image)
        size = _size(image)
        reduced = tf.maximum(tf.cast(tf.round(size * scale), tf.int32), 1)
        copy = tf.image.resize(image[tf.newaxis], reduced, method="area")
        least = tf.maximum(least * scale, float(SMALLEST_FACE))
        found = self._cascade(tf.round(copy), least)
        factor = (size / tf.cast(reduced, tf.float32))[::-1]
        order = tf.argsort(found.boxes[:, 0], stable=True)
        return PhotoFaces(
            tf.gather(found.boxes, order) * tf.tile(factor, [2]),
            tf.gather(found.scores, order),
            tf.gather(found.landmarks, order) * factor,
        )

    def subject(self, image: tf.Tensor) -> tf.Tensor:
        """Cuts out the picture's one face, or the fallback.

        Args:
            image: RGB. Shape (height, width, 3), uint8.

        Returns:
            RGB. Shape (height, width, 3) of any size, uint8.
        """
        faces = self.find(image)

        def cut_face() -> tf.Tensor:
            index = self._select(faces.boxes, image)
            return self.cut(image, faces.boxes[index], faces.landmarks[index])

        def cut_fallback() -> tf.Tensor:
            if self.options.fallback == "full":
                return image
            size = _size(image)
            side = tf.reduce_min(size)
            start = (size[::-1] - side) / 2
            return _cut_box(image, tf.concat([start, start + side], 0))

        crop = tf.cond(tf.shape(faces.boxes)[0] > 0, cut_face, cut_fallback)
        return tf.ensure_shape(crop, (None, None, 3))

    def cut(self, image: tf.Tensor, box: tf.Tensor, landmarks: tf.Tensor) -> tf.Tensor:
        """Cuts one face out of a picture.

        Args:
            image: RGB. Shape (height, width, 3), uint8.
            box: Its `bbox_xyxy`. Shape (4,).
            landmarks: Its landmarks, the eyes first. Shape (5, 2).
        """
        options = self.options
        sides = box[2:] - box[:2]
        grown = sides * options.margin
        box = tf.concat([box[:2] - grown, box[2:] + grown], 0)
        if options.square:
            center, half = (box[:2] + box[2:]) / 2, tf.reduce_max(box[2:] - box[:2]) / 2
            box = tf.concat([center - half, center + half], 0)
        if not options.pad:
            limits = _size(image)[::-1]
            sides = tf.minimum(box[2:] - box[:2], limits)
            start = tf.clip_by_value(box[:2], 0.0, limits - sides)
            box = tf.concat([start, start + sides], 0)
        if not options.align:
            return _cut_box(image, box)
        across, down = tf.unstack(landmarks[1] - landmarks[0])
        return _cut_box(image, box, tf.atan2(down, across))

    def _scale(self, image: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Does in the graph what `MtcnnDetector` does to find its searched copy."""
        size, detector = _size(image), self.detector
        least = tf.constant(detector.min_face_size, tf.float32)
        if detector.min_face_size < 1:
            least *= tf.reduce_min(size)
        scale = SEARCHED_FACE / tf.maximum(least, float(SMALLEST_FACE))
        longest = detector.max_side / tf.reduce_max(size)
        return least, tf.minimum(tf.minimum(scale, longest), 1.0)

    def _select(self, boxes: tf.Tensor, image: tf.Tensor) -> tf.Tensor:
        if self.options.keep == "largest":
            sides = boxes[:, 2:] - boxes[:, :2]
            return tf.argmax(sides[:, 0] * sides[:, 1])
        centers = (boxes[:, :2] + boxes[:, 2:]) / 2
        distances = tf.square(centers - _size(image)[::-1] / 2)
        return tf.argmin(tf.reduce_sum(distances, axis=1))


def _size(image: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.shape(image)[:2], tf.float32)


def _cut_box(
    image: tf.Tensor, box: tf.Tensor, angle: tf.Tensor | None = None
) -> tf.Tensor:
    """Returns the pixels of a box, black beyond the picture, turned if asked."""
    start = tf.cast(tf.floor(box[:2] + ROUNDING), tf.int32)
    end = tf.cast(tf.math.ceil(box[2:] - ROUNDING), tf.int32)
    end = tf.maximum(end, start + 1)
    if angle is not None:
        return _cut_turned(image, start, end, angle)
    limits = tf.shape(image)[1::-1]
    inside_start = tf.clip_by_value(start, 0, limits)
    inside_end = tf.clip_by_value(end, inside_start, limits)
    inside = image[inside_start[1] : inside_end[1], inside_start[0] : inside_end[0]]
    before = tf.clip_by_value(inside_start - start, 0, end - start)
    after = (end - start) - before - (inside_end - inside_start)
    paddings = [[before[1], after[1]], [before[0], after[0]], [0, 0]]
    return tf.pad(inside, paddings)


def _cut_turned(
    image: tf.Tensor, start: tf.Tensor, end: tf.Tensor, angle: tf.Tensor
) -> tf.Tensor:
    """Turns about the middle of the box, counter-clockwise by an angle in radians."""
    middle = tf.cast(start + end - 1, tf.float32) / 2
    left, top = tf.unstack(tf.cast(start, tf.float32) - middle)
    cos, sin = tf.cos(angle), tf.sin(angle)
    transform = tf.stack(  # pixel of the crop -> pixel of the picture
        [
            *(cos, -sin, middle[0] + cos * left - sin * top),
            *(sin, cos, middle[1] + sin * left + cos * top),
            *(0.0, 0.0),
        ]
    )
    turned = tf.raw_ops.ImageProjectiveTransformV3(
        images=tf.cast(image[tf.newaxis], tf.float32),
        transforms=transform[tf.newaxis],
        output_shape=(end - start)[::-1],
        interpolation="BILINEAR",
        fill_mode="NEAREST",
        fill_value=0.0,
    )
    return tf.cast(tf.round(turned[0]), tf.uint8)
