"""Portable operations, against those of TensorFlow that they replace."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from sample_data import picture

from keras_agegender.faces import geometry
from keras_agegender.faces.decoding import decode_jpeg
from keras_agegender.faces.portable_ops import compress_jpeg, portable_graph
from keras_agegender.synthetic.drawing import draw_face

IMAGE = picture(size=(60, 80))


def both(function):
    """Returns the results of TensorFlow's operations and of the portable ones."""
    expected = function().numpy()
    with portable_graph():
        return expected, function().numpy()


@pytest.mark.parametrize("size", [(60, 80), (31, 47), (13, 80), (1, 1)])
def test_resize_area(size):
    expected, found = both(lambda: geometry.resize_area(IMAGE[np.newaxis], size))
    np.testing.assert_allclose(found, expected, atol=1e-3)


@pytest.mark.parametrize("size", [(60, 80), (17, 23), (90, 97), (30, 200), (1, 1)])
def test_resize(size):
    expected, found = both(lambda: geometry.resize(IMAGE, size))
    np.testing.assert_allclose(found, expected, atol=0.01)


@pytest.mark.parametrize(
    "box", [[20, 10, 40, 30], [3.3, 2.1, 41.7, 43], [-30, -9, 20, 30], [70, 50, 99, 79],
            [200, 200, 300, 300]],
)  # fmt: skip
@pytest.mark.parametrize("size", [(9, 11), (50, 64)])
def test_resample(box, size):
    expected, found = both(lambda: geometry.resample(IMAGE, box, size))
    np.testing.assert_allclose(found, expected, atol=0.01)


@pytest.mark.parametrize("box", [[3, 2, 41, 43], [60, 30, 90, 70], [-30, -9, 20, 30.0]])
@pytest.mark.parametrize("degrees", [0.0, 12.0, -90.0])
def test_turn(box, degrees):
    expected, found = both(lambda: geometry.turn(IMAGE, box, degrees))
    np.testing.assert_allclose(found, expected, atol=0.01)


@pytest.mark.parametrize("quality", [30, 95])
@pytest.mark.parametrize("size", [(32, 48), (37, 53)])
def test_compress_jpeg(size, quality):
    image = geometry.to_bytes(geometry.resize(draw_face(3, 4, 1).image, size))
    file = tf.io.encode_jpeg(image, format="rgb", quality=quality)
    expected = decode_jpeg(file).numpy().astype(int)
    difference = np.abs(compress_jpeg(image, quality).numpy() - expected)
    if size == (32, 48):
        np.testing.assert_array_equal(difference, 0)
    # Encoders repeat the border of chroma in their own way.
    assert difference.mean() < 0.05
    assert np.abs(image.numpy() - expected).mean() > 0.5


def test_only_functions_traced_inside_are_portable():
    def trace():
        shape = tf.TensorSpec((1, None, None, 3), tf.uint8)
        function = tf.function(lambda x: geometry.resize_area(x, (5, 5)))
        graph = function.get_concrete_function(shape).graph
        return {operation.type for operation in graph.get_operations()}

    with portable_graph():
        assert "ResizeArea" not in trace()
    assert "ResizeArea" in trace()
