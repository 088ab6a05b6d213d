"""The same weights give the same numbers as PyTorch's layers and architecture."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from keras_agegender.encodings import Head
from keras_agegender.models.builder import build_model
from keras_agegender.models.local_response_normalization import (
    local_response_normalization,
)
from keras_agegender.models.resnet34 import STACKWISE_BLOCKS, STACKWISE_FILTERS

torch = pytest.importorskip("torch")
nn = torch.nn


class BasicBlock(nn.Module):
    """The block of He et al. as PyTorch users write it."""

    def __init__(self, inputs, filters, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, filters, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(filters)
        self.conv2 = nn.Conv2d(filters, filters, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(filters)
        self.shortcut = None
        if stride != 1 or inputs != filters:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, filters, 1, stride, bias=False),
                nn.BatchNorm2d(filters),
            )

    def forward(self, x):
        y = torch.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return torch.relu(y + (x if self.shortcut is None else self.shortcut(x)))


class ResNet34(nn.Module):
    """ResNet34 with one sigmoid output."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.blocks = nn.ModuleDict()
        inputs = 64
        stacks = zip(STACKWISE_FILTERS, STACKWISE_BLOCKS, strict=True)
        for stack, (filters, blocks) in enumerate(stacks, start=1):
            for block in range(1, blocks + 1):
                stride = 2 if stack > 1 and block == 1 else 1
                name = f"stack{stack}_block{block}"
                self.blocks[name] = BasicBlock(inputs, filters, stride)
                inputs = filters
        self.fc = nn.Linear(512, 1)

    def forward(self, x):
        x = self.pool(torch.relu(self.bn1(self.conv1(x))))
        for block in self.blocks.values():
            x = block(x)
        return torch.sigmoid(self.fc(x.mean(dim=(2, 3))))


def randomise(reference):
    generator = torch.Generator().manual_seed(0)
    for module in reference.modules():
        if isinstance(module, nn.BatchNorm2d):
            for values in (module.weight.data, module.running_var):
                values.uniform_(0.5, 1.5, generator=generator)
            for values in (module.bias.data, module.running_mean):
                values.normal_(0, 0.1, generator=generator)


def copy_convolution(model, name, conv, norm):
    kernel = conv.weight.detach().numpy().transpose(2, 3, 1, 0)
    model.get_layer(name).set_weights([kernel])
    model.get_layer(f"{name}_bn").set_weights(
        [
            tensor.detach().numpy()
            for tensor in (norm.weight, norm.bias, norm.running_mean, norm.running_var)
        ]
    )


@pytest.mark.parametrize("size", [(96, 96), (75, 110)])
def test_resnet34_equals_torch(size):
    torch.manual_seed(0)
    reference = ResNet34().eval()
    randomise(reference)
    model = build_model("resnet34", None, heads=[Head("fc")], image_size=size)
    copy_convolution(model, "conv1", reference.conv1, reference.bn1)
    for name, block in reference.blocks.items():
        copy_convolution(model, f"{name}_conv1", block.conv1, block.bn1)
        copy_convolution(model, f"{name}_conv2", block.conv2, block.bn2)
        if block.shortcut is not None:
            copy_convolution(model, f"{name}_shortcut", *block.shortcut)
    model.get_layer("fc").set_weights(
        [reference.fc.weight.detach().numpy().T, reference.fc.bias.detach().numpy()]
    )
    images = np.random.default_rng(0).random((2, *size, 3)).astype("float32")
    with torch.no_grad():
        expected = reference(torch.from_numpy(images.transpose(0, 3, 1, 2))).numpy()
        trunk = torch.relu(reference.bn1(reference.conv1(
            torch.from_numpy(images.transpose(0, 3, 1, 2))))).numpy()
    early = keras.Model(model.input, model.get_layer("conv1_relu").output)
    np.testing.assert_allclose(
        early.predict(images, verbose=0), trunk.transpose(0, 2, 3, 1), atol=1e-4
    )
    found = model.predict(images, verbose=0)["fc"]
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_local_response_normalization_equals_torch():
    features = np.random.default_rng(0).normal(0, 30, (2, 5, 4, 11)).astype("float32")
    inputs = keras.Input(features.shape[1:])
    model = keras.Model(inputs, local_response_normalization(inputs, "lrn"))
    reference = nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=1.0)
    expected = reference(torch.from_numpy(features.transpose(0, 3, 1, 2))).numpy()
    found = model.predict(features, verbose=0)
    np.testing.assert_allclose(found, expected.transpose(0, 2, 3, 1), rtol=1e-5)
    assert not np.allclose(found, features, rtol=1e-3)  # it does something


@pytest.mark.parametrize("rows", [56, 57, 9, 4])
def test_pooling_rounds_up_like_caffe(rows):
    from keras_agegender.models.caffe import _pool

    features = np.random.default_rng(0).random((1, rows, rows, 2)).astype("float32")
    inputs = keras.Input(features.shape[1:])
    found = keras.Model(inputs, _pool(inputs, 1)).predict(features, verbose=0)
    expected = nn.MaxPool2d(3, 2, ceil_mode=True)(
        torch.from_numpy(features.transpose(0, 3, 1, 2))
    ).numpy()
    np.testing.assert_allclose(found, expected.transpose(0, 2, 3, 1))
