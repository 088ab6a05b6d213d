"""tf.data pipelines from a prepared dataset to batches that `model.fit` takes.

In: a prepared dataset (a TensorFlow Datasets directory) or, to crop faces on the fly, a
manifest; and an encoding. Out: batches
`(image, targets, sample_weights)`: float32 images in [0, 1], and two dicts keyed by
output name. A sample weight is 0 where a face has no label for that output.

The report has two recipes for the pixels, `PIPELINES`. The evaluation half of each is
one function, `preprocess_for_evaluation`; exported models call the same one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd
import tensorflow as tf

from keras_agegender.faces.images import read_image

if TYPE_CHECKING:
    pass


@dataclass(frozen=True)
class Pipeline:
    """How a stored picture becomes the model's input.

    Attributes:
        image_size: Default (height, width) of the model's input, in pixels.
        enlarge: Side of the resized picture over side of the model's input. Above 1
            the input is cut out of it: at random in training, from its centre else.
        random_flip: Whether training mirrors half of the pictures here; the ResNets
            have a layer for it instead.
    """

    image_size: tuple[int, int]
    enlarge: float = 1.0
    random_flip: bool = False


# The report, 1.3: Caffe resizes to 256, cuts 227 and flips; ResNet resizes to 224.
PIPELINES = {
    "caffe": Pipeline(image_size=(227, 227), enlarge=256 / 227, random_flip=True),
    "resnet": Pipeline(image_size=(224, 224)),
}


def get_pipeline(name: str) -> Pipeline:
    """Returns the pipeline of that name, `"caffe"` or `"resnet"`.

    Raises:
        ValueError: If there is none.
    """
    if name not in PIPELINES:
        raise ValueError(
            f"Invalid `pipeline`. Expected one of {sorted(PIPELINES)}. "
            f"Received: pipeline={name!r}."
        )
    return PIPELINES[name]


def _resized_size(pipeline: Pipeline, image_size: tuple[int, int]) -> tuple[int, int]:
    height, width = image_size
    return round(height * pipeline.enlarge), round(width * pipeline.enlarge)


def _resize(image: tf.Tensor, size: tuple[int, int]) -> tf.Tensor:
    """Resizes with antialiasing and scales to [0, 1]."""
    image = tf.cast(image, tf.float32) / 255.0
    image = tf.image.resize(image, size, method="bilinear", antialias=True)
    return tf.clip_by_value(image, 0.0, 1.0)  # the kernel's weights sum to 1.0000002


def preprocess_for_evaluation(
    image: tf.Tensor, image_size: tuple[int, int], pipeline: str = "resnet"
) -> tf.Tensor:
    """Turns one picture into the model's input, the same way every time.

    Args:
        image: RGB picture, values in [0, 255]. Shape (height, width, 3), uint8.
        image_size: (height, width) of the model's input, in pixels.
        pipeline: `"resnet"` (resize; the default) or `"caffe"` (resize larger, centre
            crop).

    Returns:
        float32 in [0, 1]. Shape (*image_size, 3).
    """
    height, width = image_size
    large_height, large_width = _resized_size(get_pipeline(pipeline), image_size)
    image = _resize(image, (large_height, large_width))
    top, left = (large_height - height) // 2, (large_width - width) // 2
    image = image[top : top + height, left : left + width]
    return tf.ensure_shape(image, (height, width, 3))


def preprocess_for_training(
    image: tf.Tensor,
    image_size: tuple[int, int],
    pipeline: str = "resnet",
    seed: tf.Tensor | tuple[int, int] = (0, 0),
) -> tf.Tensor:
    """Turns one picture into the model's input, at random where the recipe says so.

    Args:
        image: RGB picture, values in [0, 255]. Shape (height, width, 3), uint8.
        image_size: (height, width) of the model's input, in pixels.
        pipeline: `"resnet"` (nothing random here: its augmentation is in the model) or
            `"caffe"` (random crop, random horizontal flip).
        seed: Two integers; the same seed gives the same result. Shape (2,).

    Returns:
        float32 in [0, 1]. Shape (*image_size, 3).
    """
    recipe = get_pipeline(pipeline)
    size = _resized_size(recipe, image_size)
    image = _resize(image, size)
    if size != tuple(image_size):
        image = tf.image.stateless_random_crop(image, (*image_size, 3), seed)
    if recipe.random_flip:
        image = tf.image.stateless_random_flip_left_right(image, seed)
    return tf.ensure_shape(image, (*image_size, 3))


def decode_picture(data: tf.Tensor) -> tf.Tensor:
    """Decodes the bytes of a JPEG or PNG to RGB. Returns uint8 (height, width, 3)."""
    return tf.io.decode_image(data, channels=3, expand_animations=False)


def picture_reader(data: Any, face_crop: Any) -> Callable[[tf.Tensor], tf.Tensor]:
    """Returns what turns a file's bytes into the picture that is prepared."""
    # Pictures of a manifest may be of any kind; a prepared dataset has JPEGs.
    decode = _decode_any if isinstance(data, pd.DataFrame) else decode_picture
    if face_crop is None:
        return decode
    from keras_agegender.faces.graph_cropping import GraphCropper

    if not isinstance(face_crop, GraphCropper):
        face_crop = GraphCropper(face_crop)
    return lambda data: face_crop.subject(decode(data))


def _decode_any(data: tf.Tensor) -> tf.Tensor:
    """Decodes a picture of any kind, upright; see `read_image`."""
    image = tf.numpy_function(read_image, [data], tf.uint8)
    return tf.ensure_shape(image, (None, None, 3))


def checked_image_size(
    image_size: tuple[int, int] | None, pipeline: str
) -> tuple[int, int]:
    """Returns (height, width); raises ValueError unless both are positive ints."""
    size = tuple(image_size or get_pipeline(pipeline).image_size)
    if len(size) != 2 or not all(isinstance(x, int) and x > 0 for x in size):
        raise ValueError(
            "Invalid `image_size`. Expected (height, width) in pixels. "
            f"Received: image_size={image_size!r}."
        )
    return size
