"""ResNet34: shapes and parameters worked by hand, and PyTorch's numbers."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from keras_agegender.encodings.head import Head
from keras_agegender.models.backbones import (
    RESNET34_STACKWISE_BLOCKS,
    STACKWISE_FILTERS,
)
from keras_agegender.models.builder import build_model

# Output shapes at 224 × 224.
SHAPES = {
    "conv1": (112, 112, 64),
    "pool1": (56, 56, 64),
    **{f"stack1_block{block}_relu2": (56, 56, 64) for block in (1, 2, 3)},
    **{f"stack2_block{block}_relu2": (28, 28, 128) for block in (1, 2, 3, 4)},
    **{f"stack3_block{block}_relu2": (14, 14, 256) for block in (1, 2, 3, 4, 5, 6)},
    **{f"stack4_block{block}_relu2": (7, 7, 512) for block in (1, 2, 3)},
    "stack2_block1_shortcut": (28, 28, 128),
    "stack2_block1_conv1": (28, 28, 128),
    "global_pool": (512,),
    "gender": (1,),
    "age": (8,),
}
SQUEEZE_EXCITE_SHAPES = {
    "se_squeeze": (1, 1, 512),
    "se_reduce": (1, 1, 32),
    "se_expand": (1, 1, 512),
    "se_scale": (7, 7, 512),
}
# Trainable parameters by prefix of the layers' names: kernels and, with each
# convolution, 2 per channel of its batch normalisation.
PARAMETERS = {
    "conv1": 7 * 7 * 3 * 64 + 2 * 64,  # 9,536
    "stack1": 3 * 2 * (9 * 64 * 64 + 2 * 64),  # 221,952
    # First block: 64 -> 128, 128 -> 128, 1 × 1 shortcut. Then three of 128 -> 128.
    "stack2": (9 * 64 * 128 + 9 * 128 * 128 + 64 * 128 + 3 * 2 * 128)
    + 3 * 2 * (9 * 128 * 128 + 2 * 128),  # 230,144 + 886,272
    "stack3": (9 * 128 * 256 + 9 * 256 * 256 + 128 * 256 + 3 * 2 * 256)
    + 5 * 2 * (9 * 256 * 256 + 2 * 256),  # 919,040 + 5,903,360
    "stack4": (9 * 256 * 512 + 9 * 512 * 512 + 256 * 512 + 3 * 2 * 512)
    + 2 * 2 * (9 * 512 * 512 + 2 * 512),  # 3,673,088 + 9,441,280
    "se": (512 * 32 + 32) + (32 * 512 + 512),  # 33,312
    "gender": 512 * 1 + 1,
    "age": 512 * 8 + 8,
}


def count(variables):
    return sum(int(np.prod(v.shape)) for v in variables)


@pytest.mark.parametrize("name", ["resnet34", "resnet_se"])
def test_shapes_and_parameters(name):
    model = build_model(name)
    parameters, shapes = dict(PARAMETERS), dict(SHAPES)
    if name == "resnet_se":
        shapes |= SQUEEZE_EXCITE_SHAPES
    else:
        del parameters["se"]
    assert {k: model.get_layer(k).output.shape[1:] for k in shapes} == shapes
    found = dict.fromkeys(parameters, 0)
    for layer in model.layers:
        trainable = count(layer.trainable_weights)
        if trainable:
            found[layer.name.split("_")[0]] += trainable
    assert found == parameters
    # Moving means and variances, 2 per channel:
    # 64 + 6 * 64 + (8 * 128 + 128) + (12 * 256 + 256) + (6 * 512 + 512) = 8,512.
    moving = [w for layer in model.layers for w in layer.non_trainable_weights]
    assert count(moving) == 17_024


def test_trunk_has_torchvision_s_parameters():
    # torchvision's resnet34 has 21,797,672, of them 512 * 1000 + 1000 in its fc.
    trunk = [v for k, v in PARAMETERS.items() if k.startswith(("conv", "stack"))]
    assert sum(trunk) == 21_284_672 == 21_797_672 - 513_000


def test_where_the_block_sits():
    names = [layer.name for layer in build_model("resnet_se").layers]
    start = names.index("stack4_block3_relu2")
    assert names[start:-2] == [
        "stack4_block3_relu2",
        "se_squeeze",
        "se_reduce",
        "se_expand",
        "se_scale",
        "global_pool",
        "encoding",
    ]
    assert set(names[-2:]) == {"gender", "age"}


def test_weights_start_by_the_backward_he_rule():
    kernel = build_model("resnet34", image_size=(32, 32)).get_layer("conv1").kernel
    # 64 filters of 7 × 7: standard deviation sqrt(2 / (7 * 7 * 64)) = 0.02525, within
    # 1 / sqrt(2 * 9,408) = 0.7 % of it per standard error.
    assert float(keras.ops.std(kernel)) == pytest.approx(0.02525, rel=0.03)


def test_blocks_start_from_different_weights():
    model = build_model("resnet34", image_size=(32, 32))
    first, second = (
        keras.ops.convert_to_numpy(model.get_layer(f"stack1_block{n}_conv1").kernel)
        for n in (1, 2)
    )
    assert not np.allclose(first, second)


def reference_resnet34(torch):
    """Returns PyTorch's architecture with random weights and statistics, one output."""
    nn = torch.nn

    def convolution(inputs, filters, kernel, stride):
        conv = nn.Conv2d(inputs, filters, kernel, stride, kernel // 2, bias=False)
        norm = nn.BatchNorm2d(filters)
        for values in (norm.weight.data, norm.running_var):
            values.uniform_(0.5, 1.5)
        for values in (norm.bias.data, norm.running_mean):
            values.normal_(0, 0.1)
        return nn.Sequential(conv, norm)

    class BasicBlock(nn.Module):
        def __init__(self, inputs, filters, stride):
            super().__init__()
            self.conv1 = convolution(inputs, filters, 3, stride)
            self.conv2 = convolution(filters, filters, 3, 1)
            self.shortcut = nn.Identity()
            if stride != 1 or inputs != filters:
                self.shortcut = convolution(inputs, filters, 1, stride)

        def forward(self, x):
            return torch.relu(self.conv2(torch.relu(self.conv1(x))) + self.shortcut(x))

    class ResNet34(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1 = convolution(3, 64, 7, 2)
            self.pool = nn.MaxPool2d(3, 2, padding=1)
            self.blocks = nn.ModuleDict()
            inputs = 64
            stacks = zip(STACKWISE_FILTERS, RESNET34_STACKWISE_BLOCKS, strict=True)
            for stack, (filters, blocks) in enumerate(stacks, start=1):
                for block in range(1, blocks + 1):
                    stride = 2 if stack > 1 and block == 1 else 1
                    name = f"stack{stack}_block{block}"
                    self.blocks[name] = BasicBlock(inputs, filters, stride)
                    inputs = filters
            self.fc = nn.Linear(512, 1)

        def forward(self, x):
            x = self.pool(torch.relu(self.conv1(x)))
            for block in self.blocks.values():
                x = block(x)
            return x, self.fc(x.mean(dim=(2, 3)))

    torch.manual_seed(0)
    return ResNet34().eval()


def copy_weights(reference, model):
    def as_numpy(tensor):
        return tensor.detach().numpy()

    def copy(name, pair):
        conv, norm = pair
        kernel = as_numpy(conv.weight).transpose(2, 3, 1, 0)
        model.get_layer(name).set_weights([kernel])
        norms = norm.weight, norm.bias, norm.running_mean, norm.running_var
        model.get_layer(f"{name}_bn").set_weights([as_numpy(x) for x in norms])

    copy("conv1", reference.conv1)
    for name, block in reference.blocks.items():
        copy(f"{name}_conv1", block.conv1)
        copy(f"{name}_conv2", block.conv2)
        if len(list(block.shortcut.children())):
            copy(f"{name}_shortcut", block.shortcut)
    fc = reference.fc
    model.get_layer("fc").set_weights([as_numpy(fc.weight).T, as_numpy(fc.bias)])


@pytest.mark.parametrize("size", [(96, 96), (75, 110)])
def test_equals_torch(size):
    torch = pytest.importorskip("torch")
    reference = reference_resnet34(torch)
    head = Head("fc", "regression")
    model = build_model("resnet34", None, heads=[head], image_size=size)
    copy_weights(reference, model)
    images = np.random.default_rng(0).random((2, *size, 3)).astype("float32")
    with torch.no_grad():
        features, output = reference(torch.from_numpy(images.transpose(0, 3, 1, 2)))
    last = model.get_layer("stack4_block3_relu2").output
    both = keras.Model(model.input, {"features": last, **model.output})
    found = both.predict(images, verbose=0)
    # Without normalisation of batches to hold them, activations reach some tens.
    scale = float(features.abs().max())
    np.testing.assert_allclose(
        found["features"] / scale,
        features.numpy().transpose(0, 2, 3, 1) / scale,
        atol=1e-5,
    )
    np.testing.assert_allclose(found["fc"], output.numpy(), atol=1e-4)
