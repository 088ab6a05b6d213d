"""Cutting out: a picture and a face in it become the model's input."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from keras_agegender.faces.pixel_path import PixelPath


class FoundFace(NamedTuple):
    """A face of a picture, or without landmarks a whole one."""

    box: np.ndarray
    score: float
    landmarks: np.ndarray | None


Prepare: TypeAlias = "Callable[[np.ndarray, FoundFace], tuple[np.ndarray, np.ndarray]]"


def make_preparation(pixels: PixelPath, takes_crops: bool = False) -> Prepare:
    """Returns what turns a picture and a face into pixels and the box cut out.

    Args:
        pixels: What is done to them.
        takes_crops: Whether the model takes crops, uint8 of one size. Defaults to
            false: it takes the input, float32 in [0, 1].
    """
    import tensorflow as tf

    from keras_agegender.faces.boxes import full_box
    from keras_agegender.faces.pixel_graph import PICTURE, PixelGraph

    graph = PixelGraph(pixels)
    finish = graph.to_crop if takes_crops else graph.to_input

    @tf.function(input_signature=[PICTURE], autograph=False)
    def whole(image: Any) -> Any:
        return finish(graph.whole(image)), full_box(tf.shape(image)[:2])

    @tf.function(
        input_signature=[
            PICTURE,
            tf.TensorSpec((4,), tf.float32),
            tf.TensorSpec((5, 2), tf.float32),
        ],
        autograph=False,
    )
    def face(image: Any, box: Any, landmarks: Any) -> Any:
        picture = graph.face(image, box, landmarks)
        return finish(picture), graph.crop_box(image, box)

    @functools.cache
    def traced(function: Any) -> Any:
        """Is called without a look at the types of its arguments: that takes 0.1 ms."""
        return function.get_concrete_function()

    def prepare(image: np.ndarray, found: FoundFace) -> tuple[np.ndarray, np.ndarray]:
        if found.landmarks is None:
            values = traced(whole)(tf.constant(image))
        else:
            place = (found.box, found.landmarks)
            values = traced(face)(tf.constant(image), *map(tf.constant, place))
        return values[0].numpy(), values[1].numpy()

    return prepare
