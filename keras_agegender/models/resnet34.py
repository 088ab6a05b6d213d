"""ResNet34, laid out so that PyTorch's weights fit it and give the same numbers."""

from __future__ import annotations

from typing import Any

from keras import initializers, layers

STACKWISE_FILTERS = (64, 128, 256, 512)
RESNET34_STACKWISE_BLOCKS = (3, 4, 6, 3)
RESNET34_IMAGE_SIZE = (224, 224)


def resnet34_backbone(image: Any, width: float = 1.0) -> Any:
    """Puts ResNet34 up to its last activation behind an image tensor.

    Convolutions pad on both sides (PyTorch's way), have no bias, start by He's rule for
    the backward pass (torchvision's `kaiming_normal_`, fan_out), and are followed by
    batch normalisation with momentum 0.9 and epsilon 1e-5.

    Args:
        image: Image tensor in [0, 1]. Shape (batch, height, width, 3), at least
            32 × 32.
        width: Multiplies the channels of every convolution, rounded to eights; the
            weights grow with its square. Defaults to the paper's 1.0.

    Returns:
        Feature map. Shape (batch, height / 32, width / 32, 512 * width), rounded up.

    Source: He et al., "Deep Residual Learning for Image Recognition", CVPR 2016
    (arXiv 1512.03385), table 1.
    """
    widths = [_scaled(filters, width) for filters in STACKWISE_FILTERS]
    x = _convolution(image, widths[0], kernel=7, stride=2, name="conv1")
    x = layers.ReLU(name="conv1_relu")(x)
    # Padding with zeros equals padding with -inf here: a ReLU precedes.
    x = layers.ZeroPadding2D(1, name="pool1_pad")(x)
    x = layers.MaxPooling2D(3, strides=2, name="pool1")(x)
    stacks = zip(widths, RESNET34_STACKWISE_BLOCKS, strict=True)
    for stack, (filters, blocks) in enumerate(stacks, start=1):
        for block in range(1, blocks + 1):
            stride = 2 if stack > 1 and block == 1 else 1
            x = _basic_block(x, filters, stride, name=f"stack{stack}_block{block}")
    return x


def _scaled(filters: int, width: float) -> int:
    """Rounded to eights, which vector units take whole; and never to none."""
    return max(8, 8 * round(filters * width / 8))


def _basic_block(x: Any, filters: int, stride: int, name: str) -> Any:
    shortcut = x
    if stride != 1 or x.shape[-1] != filters:
        shortcut = _convolution(x, filters, 1, stride, name=f"{name}_shortcut")
    x = _convolution(x, filters, 3, stride, name=f"{name}_conv1")
    x = layers.ReLU(name=f"{name}_relu1")(x)
    x = _convolution(x, filters, 3, 1, name=f"{name}_conv2")
    x = layers.Add(name=f"{name}_add")([x, shortcut])
    return layers.ReLU(name=f"{name}_relu2")(x)


def _convolution(x: Any, filters: int, kernel: int, stride: int, name: str) -> Any:
    """Convolution with symmetric padding, then batch normalisation."""
    padding = "same"  # equals symmetric padding where the stride is 1
    if stride > 1:
        padding = "valid"
        if kernel > 1:
            x = layers.ZeroPadding2D(kernel // 2, name=f"{name}_pad")(x)
    x = layers.Conv2D(
        filters,
        kernel,
        strides=stride,
        padding=padding,
        use_bias=False,
        kernel_initializer=initializers.VarianceScaling(
            2.0, mode="fan_out", distribution="untruncated_normal"
        ),
        name=name,
    )(x)
    return layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=f"{name}_bn")(x)
