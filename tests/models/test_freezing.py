"""Freezing: which layers train, and that the others do not move."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from keras_agegender.encodings.registry import get_encoding
from keras_agegender.models.builder import build_model, freeze_all_but_last

SIZE = {"image_size": (32, 32), "augment": False}


@pytest.mark.parametrize("encoding", ["categorical", "ordinal", "coral", "corn"])
def test_the_last_ten_layers_and_the_heads_train(encoding):
    """global_pool, relu2, add, conv2_bn, conv2, relu1, conv1_bn, conv1, relu2, add."""
    encoding = get_encoding(encoding)
    model = build_model("resnet34", encoding, **SIZE)
    trained = freeze_all_but_last(model, 10, encoding.output_names)
    trunk = [n for n in trained if n.startswith(("stack", "conv"))]
    assert trunk == [
        "stack4_block3_conv1",
        "stack4_block3_conv1_bn",
        "stack4_block3_conv2",
        "stack4_block3_conv2_bn",
    ]
    heads = {n for n in trained if n not in trunk}
    assert {n.partition("_rank_")[0] for n in heads} == set(encoding.output_names)


def test_frozen_layers_stay_as_they_are():
    encoding = get_encoding("gender")
    model = build_model("resnet34", encoding, **SIZE)
    freeze_all_but_last(model, 0, encoding.output_names)
    model.compile("adam", **encoding.compile_arguments())
    before = [
        keras.ops.convert_to_numpy(w.value) for w in model.get_layer("conv1_bn").weights
    ]
    x = np.random.default_rng(0).random((4, 32, 32, 3)).astype("float32")
    model.fit(x, encoding.encode(gender=[0, 1, 1, 0]), verbose=0)
    after = model.get_layer("conv1_bn").get_weights()
    for a, b in zip(before, after, strict=True):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(ValueError, match="num_layers"):
        freeze_all_but_last(model, -1, ())
