"""Pixels of a training or evaluation batch: decoding, cropping, the model's input.

The report has two ways to prepare the input, `PREPROCESSINGS`. What evaluation does to
a picture is the last part of the pixel path, `PixelGraph.to_input`: exported models and
`Predictor` call the same function. Training differs from it by chance alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from keras_agegender.faces.cropping import CropOptions
from keras_agegender.faces.decoding import decode_jpeg, decode_picture
from keras_agegender.faces.network_input import enlarged_size, unit_pixels
from keras_agegender.faces.pixel_graph import PixelGraph
from keras_agegender.faces.pixel_path import PixelPath


@dataclass(frozen=True)
class Preprocessing:
    """How a stored picture becomes the model's input.

    Attributes:
        image_size: Default (height, width) of the model's input, in pixels.
        enlarge: Side of the resized picture over side of the model's input. Above 1
            the input is cut out of it: at random in training, from its center else.
        random_flip: Whether training mirrors half of the pictures here; the ResNets
            have a layer for it instead.
    """

    image_size: tuple[int, int]
    enlarge: float = 1.0
    random_flip: bool = False


# The report, 1.3: Caffe resizes to 256, cuts 227 and flips; ResNet resizes to 224.
# They are chosen by the public argument `pipeline` and the recipe key `data.pipeline`.
PREPROCESSINGS = {
    "caffe": Preprocessing(image_size=(227, 227), enlarge=256 / 227, random_flip=True),
    "resnet": Preprocessing(image_size=(224, 224)),
}


def get_preprocessing(name: str) -> Preprocessing:
    """Returns the preprocessing of that name, `"caffe"` or `"resnet"`.

    Raises:
        ValueError: If there is none.
    """
    if name not in PREPROCESSINGS:
        raise ValueError(
            f"Invalid `pipeline`. Expected one of {sorted(PREPROCESSINGS)}. "
            f"Received: pipeline={name!r}."
        )
    return PREPROCESSINGS[name]


def input_path(
    stored: PixelPath, image_size: tuple[int, int] | None, pipeline: str
) -> PixelPath:
    """Returns the path that goes on from stored pictures to a model's input.

    Args:
        stored: How the stored pictures came about.
        image_size: (height, width) of the input; `None` is the pipeline's own.
        pipeline: `"resnet"` or `"caffe"`.
    """
    size = checked_image_size(image_size, pipeline)
    return stored.with_input(size, get_preprocessing(pipeline).enlarge)


def preprocess_for_evaluation(
    image: tf.Tensor, image_size: tuple[int, int], pipeline: str = "resnet"
) -> tf.Tensor:
    """Turns one picture into the model's input, the same way every time.

    Args:
        image: RGB picture, values in [0, 255]. Shape (height, width, 3), uint8.
        image_size: (height, width) of the model's input, in pixels.
        pipeline: `"resnet"` (resize; the default) or `"caffe"` (resize larger, center
            crop).

    Returns:
        float32 in [0, 1]. Shape (*image_size, 3).
    """
    path = input_path(PixelPath(), image_size, pipeline)
    return PixelGraph(path).to_input(image)


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
        pipeline: `"resnet"` (nothing random here) or `"caffe"` (random crop, random
            horizontal flip).
        seed: Two integers; the same seed gives the same result. Shape (2,).

    Returns:
        float32 in [0, 1]. Shape (*image_size, 3).
    """
    preprocessing = get_preprocessing(pipeline)
    size = enlarged_size(image_size, preprocessing.enlarge)
    image = unit_pixels(image, size)
    # Seeds of their own: from one, place and mirroring would go together.
    of_crop, of_flip = tf.unstack(tf.random.split(seed, 2))
    if size != tuple(image_size):
        image = tf.image.stateless_random_crop(image, (*image_size, 3), of_crop)
    if preprocessing.random_flip:
        image = tf.image.stateless_random_flip_left_right(image, of_flip)
    return tf.ensure_shape(image, (*image_size, 3))


def picture_reader(
    data: Any, face_crop: CropOptions | PixelPath | None
) -> Callable[[tf.Tensor], tf.Tensor]:
    """Returns what turns a file's bytes into the picture that is preprocessed.

    Args:
        data: A manifest or a prepared dataset.
        face_crop: How to find and cut out the face; `None` takes pictures as they are.
    """
    decode: Callable[[tf.Tensor], tf.Tensor] = decode_picture
    if getattr(data, "pixels", None) is not None:
        decode = decode_jpeg  # `prepare` wrote it
    if face_crop is None:
        return decode
    if isinstance(face_crop, CropOptions):
        face_crop = PixelPath(crop=face_crop)
    _check_on_the_fly(face_crop)
    graph = PixelGraph(face_crop)
    return lambda data: graph.subject(decode(data))


def _check_on_the_fly(path: PixelPath) -> None:
    if path.crop is not None and path.crop.fallback == "skip":
        raise ValueError(
            "Invalid `face_crop`. Expected a fallback of 'center' or 'full': no "
            "picture is skipped inside tf.data. Received: fallback='skip'."
        )
    if path.crop is not None and not path.uses_mtcnn:
        raise ValueError(
            "Invalid `face_crop`. Expected the detector 'mtcnn': no other works inside "
            f"tf.data. Received: {path.detector}."
        )


def checked_image_size(
    image_size: tuple[int, int] | None, pipeline: str
) -> tuple[int, int]:
    """Returns (height, width); raises ValueError unless both are positive ints."""
    size = tuple(image_size or get_preprocessing(pipeline).image_size)
    if len(size) != 2 or not all(isinstance(x, int) and x > 0 for x in size):
        raise ValueError(
            "Invalid `image_size`. Expected (height, width) in pixels. "
            f"Received: image_size={image_size!r}."
        )
    return size
