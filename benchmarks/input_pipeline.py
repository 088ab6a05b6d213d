"""Prepared crops against cropping on the fly: images/s that tf.data delivers.

    python benchmarks/input_pipeline.py [--faces 256]

Both deliver batches of the ResNet pipeline at 224 × 224, without a model behind them.
Pictures are drawn faces of 256 × 256 pixels. Repeats alternate; figures are medians.
"""

import argparse
import os
import platform
import statistics
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras_agegender as kag

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--faces", type=int, default=256)
parser.add_argument("--repeats", type=int, default=5)
args = parser.parse_args()


def seconds(dataset):
    """Returns how long one pass takes."""
    started = time.perf_counter()
    for _ in dataset:
        pass
    return time.perf_counter() - started


with tempfile.TemporaryDirectory() as folder:
    kag.synthetic.write_synthetic_faces(Path(folder) / "faces", args.faces)
    manifest, _ = kag.synthetic.read_synthetic(Path(folder) / "faces")
    manifest["split"], manifest["subject"] = "train", ""
    started = time.perf_counter()
    options = kag.faces.CropOptions()
    prepared = kag.prepare(
        manifest, Path(folder) / "prepared", crop_options=options, progress=False
    )
    preparing = time.perf_counter() - started
    ways = {
        "prepared": kag.make_eval_dataset(prepared.directory, "ordinal", split="train"),
        "face_crop": kag.make_eval_dataset(
            manifest, "ordinal", split="train", face_crop=options
        ),
        "no crop": kag.make_eval_dataset(manifest, "ordinal", split="train"),
    }
    times = {name: [seconds(way)] * 0 for name, way in ways.items()}  # and warm up
    for _ in range(args.repeats):
        for name, way in ways.items():
            times[name].append(seconds(way))

rates = {name: args.faces / statistics.median(t) for name, t in times.items()}
print(
    f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
)
print(f"preparing {args.faces} faces once, start-up included: {preparing:.1f} s")
for name, rate in rates.items():
    ratio = rates["prepared"] / rate
    print(f"{name:<10}{rate:8.0f} images/s   {ratio:5.2f} x the time of prepared crops")
