"""Boxes and resampling."""

from __future__ import annotations

import math
from typing import Any

import tensorflow as tf

from keras_agegender.faces import portable_ops


def add_margin(boxes: Any, margin: float) -> tf.Tensor:
    """Widens boxes of shape (..., 4) on each side by a share of their width and height.

    Example:
    >>> add_margin([10, 10, 20, 30], 0.5).numpy().tolist()
    [5.0, 0.0, 25.0, 40.0]
    """
    boxes = tf.cast(boxes, tf.float32)
    grown = (boxes[..., 2:] - boxes[..., :2]) * margin
    return tf.concat([boxes[..., :2] - grown, boxes[..., 2:] + grown], axis=-1)


def make_square(boxes: Any) -> tf.Tensor:
    """Lengthens the shorter side of boxes about their center.

    Example:
    >>> make_square([0, 0, 10, 20]).numpy().tolist()
    [-5.0, 0.0, 15.0, 20.0]
    """
    boxes = tf.cast(boxes, tf.float32)
    centers = (boxes[..., :2] + boxes[..., 2:]) / 2
    sides = boxes[..., 2:] - boxes[..., :2]
    half = tf.reduce_max(sides, axis=-1, keepdims=True) / 2
    return tf.concat([centers - half, centers + half], axis=-1)


def place_face(box: Any, region: Any) -> tf.Tensor:
    """Returns the crop in which a face box lies as `CropOptions.region` says.

    Example:
    >>> place_face([10, 10, 20, 30], (0.5, 0.25, 0.5, 0.5, 0.5)).numpy().tolist()
    [5.0, 10.0, 25.0, 50.0]
    """
    box = tf.cast(box, tf.float32)
    place, share, aspect = tf.split(tf.constant(region, tf.float32), [2, 2, 1])
    height = tf.sqrt(tf.reduce_prod((box[2:] - box[:2]) / share) / aspect)
    sides = tf.concat([height * aspect, height], axis=0)
    start = (box[:2] + box[2:]) / 2 - sides * place
    return tf.concat([start, start + sides], axis=0)


def fit_inside(boxes: Any, image_size: Any) -> tf.Tensor:
    """Shifts boxes into an image of (height, width), then cuts what is larger than it.

    A square that fits stays a square.

    Example:
    >>> fit_inside([-5, 10, 15, 30], (100, 100)).numpy().tolist()
    [0.0, 10.0, 20.0, 30.0]
    """
    boxes = tf.cast(boxes, tf.float32)
    limits = tf.cast(image_size, tf.float32)[::-1]
    sides = tf.minimum(boxes[..., 2:] - boxes[..., :2], limits)
    start = tf.clip_by_value(boxes[..., :2], 0.0, limits - sides)
    return tf.concat([start, start + sides], axis=-1)


def full_box(image_size: Any) -> tf.Tensor:
    """Returns the box of a whole image of (height, width). Shape (4,)."""
    sides = tf.cast(image_size, tf.float32)[::-1]
    return tf.concat([tf.zeros_like(sides), sides], axis=0)


def center_square(image_size: Any) -> tf.Tensor:
    """Returns the largest square in the middle of an image. Shape (4,).

    Example:
    >>> center_square((60, 80)).numpy().tolist()
    [10.0, 0.0, 70.0, 60.0]
    """
    sides = tf.cast(image_size, tf.float32)[::-1]
    side = tf.reduce_min(sides)
    start = (sides - side) / 2
    return tf.concat([start, start + side], axis=0)


def select_face(boxes: Any, image_size: Any, selection: str = "largest") -> tf.Tensor:
    """Returns the index of the subject among boxes of shape (num_faces, 4), int64.

    `"largest"` selects by area, `"center"` the face nearest the middle of the image of
    (height, width); the first of equals.
    """
    boxes = tf.cast(boxes, tf.float32)
    if selection == "largest":
        sides = tf.nn.relu(boxes[:, 2:] - boxes[:, :2])
        return tf.argmax(sides[:, 0] * sides[:, 1])
    middle = tf.cast(image_size, tf.float32)[::-1] / 2
    centers = (boxes[:, :2] + boxes[:, 2:]) / 2
    return tf.argmin(tf.reduce_sum(tf.square(centers - middle), axis=1))


def overlap(box: Any, boxes: Any) -> tf.Tensor:
    """Returns intersection over union of a box with each of (num_boxes, 4), float32.

    Example:
    >>> overlap([0, 0, 2, 2], [[0, 0, 2, 2], [1, 0, 3, 2], [5, 5, 6, 6]]).numpy()
    array([1.        , 0.33333334, 0.        ], dtype=float32)
    """
    box, boxes = tf.cast(box, tf.float32), tf.cast(boxes, tf.float32)
    low = tf.maximum(box[:2], boxes[:, :2])
    high = tf.minimum(box[2:], boxes[:, 2:])
    shared = tf.reduce_prod(tf.nn.relu(high - low), axis=1)
    areas = tf.reduce_prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    return shared / (tf.reduce_prod(box[2:] - box[:2]) + areas - shared)


def eye_angle(landmarks: Any) -> tf.Tensor:
    """Returns the slope of the line from the left to the right eye, in degrees.

    Positive if the right eye is lower: turning the image counter-clockwise by it levels
    the eyes. Left and right are the viewer's. Landmarks have shape (5, 2), eyes first.

    Example:
    >>> round(float(eye_angle([[0, 0], [10, 10], [5, 6], [1, 9], [9, 9]])), 4)
    45.0
    """
    landmarks = tf.cast(landmarks, tf.float32)
    across, down = tf.unstack(landmarks[1] - landmarks[0])
    return tf.atan2(down, across) * (180 / math.pi)


def resample(image: Any, box: Any, size: Any) -> tf.Tensor:
    """Crops a box and resizes it to (height, width): bilinear, antialiased.

    Black beyond the image. Returns float32 in the image's range.

    Example:
    >>> image = tf.reshape(tf.range(4.0), (1, 4, 1))
    >>> resample(image, [1, 0, 3, 1], (1, 2)).numpy().ravel().tolist()
    [1.0, 2.0]
    """
    box, size = tf.cast(box, tf.float32), tf.cast(size, tf.int32)
    scale = tf.cast(size, tf.float32) / tf.maximum(box[2:] - box[:2], 1e-3)[::-1]
    reach = tf.maximum(1.0, 1.0 / scale[::-1]) + 1.0  # of the kernel
    image, start = _part(image, box[:2] - reach, box[2:] + reach)
    return _scale_and_translate(
        image[tf.newaxis], size, scale, (start - box[:2])[::-1] * scale
    )[0]


def _scale_and_translate(
    images: tf.Tensor, size: tf.Tensor, scale: tf.Tensor, translation: tf.Tensor
) -> tf.Tensor:
    if portable_ops.is_portable():
        return portable_ops.scale_and_translate(images, size, scale, translation)
    return tf.raw_ops.ScaleAndTranslate(
        images=images,
        size=size,
        scale=scale,
        translation=translation,
        kernel_type="triangle",
        antialias=True,
    )


def resize_area(images: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """Reduces images to (height, width): each pixel is the mean of its area. float32.

    Example:
    >>> images = tf.reshape(tf.range(3.0), (1, 1, 3, 1))
    >>> resize_area(images, (1, 2)).numpy().ravel().round(2)
    array([0.33, 1.67], dtype=float32)
    """
    if portable_ops.is_portable():
        return portable_ops.resize_area(images, size)
    return tf.image.resize(images, size, method="area")


def resize(image: Any, size: Any) -> tf.Tensor:
    """Resizes a whole image; see `resample`."""
    image, size = tf.convert_to_tensor(image), tf.cast(size, tf.int32)

    def enlarge() -> tf.Tensor:
        """Enlarges an image, without antialiasing, which is five times faster."""
        return tf.raw_ops.ResizeBilinear(
            images=image[tf.newaxis], size=size, half_pixel_centers=True
        )[0]

    if portable_ops.is_portable():
        return resample(image, full_box(tf.shape(image)[:2]), size)
    return tf.cond(
        tf.reduce_all(size >= tf.shape(image)[:2]),
        enlarge,
        lambda: resample(image, full_box(tf.shape(image)[:2]), size),
    )


def resize_matrix(source: Any, target: int, enlarge: float = 1.0) -> tf.Tensor:
    """Returns the matrix that resizes `source` to `target` pixels, antialiased.

    With `enlarge`, the target is the center of that many times as many pixels. Each
    row sums to 1. Shape (target, source), float32.

    Example:
    >>> (7 * resize_matrix(4, 2).numpy()).round().astype(int).tolist()
    [[3, 3, 1, 0], [0, 1, 3, 3]]
    """
    large = round(target * enlarge)
    first = (large - target) // 2
    count = tf.cast(source, tf.float32)
    step = count / large
    centers = (tf.range(target, dtype=tf.float32) + (first + 0.5)) * step - 0.5
    distance = tf.abs(centers[:, tf.newaxis] - tf.range(count)[tf.newaxis, :])
    weights = tf.maximum(1.0 - distance / tf.maximum(step, 1.0), 0.0)
    return weights / tf.reduce_sum(weights, axis=1, keepdims=True)


def multiply(image: tf.Tensor, rows: Any, columns: Any) -> tf.Tensor:
    """Resizes an image by two matrices from `resize_matrix`; faster than `resize`.

    Returns float32. Shape (len(rows), len(columns), channels).
    """
    depth = tf.shape(image)[2]
    image = tf.cast(image, tf.float32)
    for matrix in (rows, columns):
        target, source = tf.unstack(tf.shape(matrix))
        image = tf.matmul(matrix, tf.reshape(image, (source, -1)))
        image = tf.transpose(tf.reshape(image, (target, -1, depth)), (1, 0, 2))
    return image


def own_size(box: Any) -> tf.Tensor:
    """Returns (height, width) of a box in whole pixels, at least 1. Shape (2,)."""
    box = tf.cast(box, tf.float32)
    return tf.maximum(tf.cast(tf.round(box[2:] - box[:2]), tf.int32), 1)[::-1]


def turn(image: Any, box: Any, degrees: Any) -> tf.Tensor:
    """Cuts a box out of an image that is turned counter-clockwise about its middle.

    Bilinear, at the box's own size; the border is repeated beyond the image. float32.
    """
    box = tf.cast(box, tf.float32)
    reach = tf.norm(box[2:] - box[:2]) / 2 + 1.0  # of the corners, all around
    center = (box[:2] + box[2:]) / 2
    image, start = _part(image, center - reach, center + reach)
    angle = tf.cast(degrees, tf.float32) * (math.pi / 180)
    size = own_size(box)
    middle = center - start - 0.5
    stretch = (box[2:] - box[:2]) / tf.cast(size[::-1], tf.float32)
    left, top = tf.unstack((tf.cast(1 - size[::-1], tf.float32) / 2) * stretch)
    cos, sin = tf.cos(angle), tf.sin(angle)
    if portable_ops.is_portable():
        down, across = (
            tf.range(tf.cast(count, tf.float32)) * side
            for count, side in zip(
                tf.unstack(size), (stretch[1], stretch[0]), strict=True
            )
        )
        down, across = (down + top)[:, tf.newaxis], across + left
        rows = middle[1] + sin * across + cos * down
        columns = middle[0] + cos * across - sin * down
        return portable_ops.sample(image, rows, columns)
    transform = tf.stack(  # pixel of the result -> pixel of the image
        [
            *(cos * stretch[0], -sin * stretch[1], middle[0] + cos * left - sin * top),
            *(sin * stretch[0], cos * stretch[1], middle[1] + sin * left + cos * top),
            *(0.0, 0.0),
        ]
    )
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=tf.cast(image[tf.newaxis], tf.float32),
        transforms=transform[tf.newaxis],
        output_shape=size,
        interpolation="BILINEAR",
        fill_mode="NEAREST",
        fill_value=0.0,
    )[0]


def _part(image: Any, low: tf.Tensor, high: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the pixels between two corners (x, y), and (x, y) of the first.

    So a face of a large photo takes no longer than one of a small photo.
    """
    image = tf.convert_to_tensor(image)
    size = tf.cast(tf.reverse(tf.shape(image)[:2], [0]), tf.float32)
    first = tf.clip_by_value(tf.floor(low), 0.0, size - 1.0)
    last = tf.clip_by_value(tf.math.ceil(high), first + 1.0, size)
    (left, top), (right, bottom) = (
        tf.unstack(tf.cast(corner, tf.int32)) for corner in (first, last)
    )
    return image[top:bottom, left:right], first


def to_bytes(image: tf.Tensor) -> tf.Tensor:
    """Rounds pixels in [0, 255] to uint8."""
    return tf.saturate_cast(tf.round(image), tf.uint8)
