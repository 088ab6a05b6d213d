"""Face detection: this library's cascade against the `mtcnn` package, in one run.

python benchmarks/face_detection.py [--images FOLDER] [--repeats 5]

Medians over repeats, for the package one picture at a time, the package in batches,
this library with the package's settings (smallest face 20 pixels) and with those that
`prepare` uses. Without a folder, synthetic faces are searched. It also prints how far
the results agree, the share of time of each network, and peak memory.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import mtcnn
import numpy as np
import tensorflow as tf

from keras_agegender.faces.detector import Detections, MtcnnDetector
from keras_agegender.faces.geometry import resize, select_face, to_bytes
from keras_agegender.faces.images import read_image
from keras_agegender.faces.mtcnn import Mtcnn
from keras_agegender.faces.video import box_overlaps
from keras_agegender.synthetic.drawing import draw_face

SIDES = {200: 64, 816: 12}  # side of the pictures -> how many
BATCH = 32


def load_images(folder: Path | None, count: int, side: int) -> list[np.ndarray]:
    """Returns pictures of one size, from a folder or drawn."""
    if folder is None:
        faces = [draw_face(n, n % 8, n // 8 % 2).image for n in range(count)]
    else:
        files = sorted(folder.glob("*.jpg"))
        faces = [read_image(f) for f in files[:: max(1, len(files) // count)][:count]]
    return [to_bytes(resize(face, (side, side))).numpy() for face in faces]


def median_seconds(function: Callable[[], Any], repeats: int) -> float:
    """Returns the median duration of a call, after one that does not count."""
    function()
    durations = []
    for _ in range(repeats):
        begin = time.perf_counter()
        function()
        durations.append(time.perf_counter() - begin)
    return statistics.median(durations)


def agreement(a: Sequence[Detections], b: Sequence[Detections], side: int) -> float:
    """Returns the share of pictures whose chosen face is the same (IoU >= 0.9)."""
    same = []
    for first, second in zip(a, b, strict=True):
        if not len(first) or not len(second):
            same.append(len(first) == len(second))
            continue
        chosen = [d.boxes[select_face(d.boxes, (side, side))] for d in (first, second)]
        same.append(bool(box_overlaps(chosen[:1], chosen[1:]).item() >= 0.9))
    return float(np.mean(same))


def stages(images: np.ndarray, repeats: int) -> dict[str, float]:
    """Returns seconds of each network with what belongs to it."""
    cascade = Mtcnn()
    pixels = tf.constant(images)
    propose = tf.function(cascade._propose)
    refine = tf.function(cascade._refine)
    output = tf.function(cascade._output)
    proposed = propose(pixels, tf.constant(20.0))
    refined = refine(pixels, proposed)
    return {
        "P-Net": median_seconds(lambda: propose(pixels, tf.constant(20.0)), repeats),
        "R-Net": median_seconds(lambda: refine(pixels, proposed), repeats),
        "O-Net": median_seconds(lambda: output(pixels, refined), repeats),
    }


def compare(package: Any, images: Sequence[np.ndarray], repeats: int) -> None:
    """Prints the rows of pictures of one size."""
    count, side = len(images), images[0].shape[0]
    same_settings = MtcnnDetector(20, max_side=10_000)
    own_settings = MtcnnDetector()
    batches = [list(images[i : i + BATCH]) for i in range(0, count, BATCH)]
    ways: dict[str, Callable[[], Any]] = {
        "package, one by one": lambda: [package.detect_faces(x) for x in images],
        "package, batches": lambda: [package.detect_faces(b) for b in batches],
        "this library, the package's settings": lambda: same_settings.detect(images),
        "this library, prepare's settings": lambda: own_settings.detect(images),
    }
    print(f"\n{count} pictures of {side} x {side}")
    base = 0.0
    for name, way in ways.items():
        seconds = median_seconds(way, repeats)
        base = base or seconds
        print(
            f"  {name:<38}{1000 * seconds / count:8.1f} ms a picture"
            f"{count / seconds:8.1f} pictures/s{base / seconds:7.1f} x"
        )
    found = [d.detect(images) for d in (same_settings, own_settings)]
    print(f"  chosen face the same with both settings: {agreement(*found, side):.1%}")
    shares = stages(np.stack(images[:BATCH]), repeats)
    total = sum(shares.values())
    texts = (f"{name} {seconds / total:.0%}" for name, seconds in shares.items())
    print(f"  share of time, the package's settings: {', '.join(texts)}")


def main() -> None:
    """Runs the benchmark and prints its table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=Path)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    print(f"{platform.machine()}, {os.cpu_count()} cores, TensorFlow {tf.__version__}")
    package = mtcnn.MTCNN()
    for side, count in SIDES.items():
        compare(package, load_images(arguments.images, count, side), arguments.repeats)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"\npeak memory of the process: {peak:.0f} MiB")


if __name__ == "__main__":
    main()
