"""Preparing, reading and evaluating N small faces: seconds and memory, by N.

python benchmarks/scaling.py 1000 10000 100000

Every N has a process of its own, so that its peak of memory is its own. A line for each
is printed; all of them go into benchmarks/results/scaling.json.
"""

from __future__ import annotations

import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
RESULTS = Path(__file__).parent / "results" / "scaling.json"
SIZE, DRAWN = 32, 64  # pixels; faces that are drawn, all others are theirs with a mark
SETTINGS = (
    "model.backbone=caffe_1conv",
    "model.encoding=categorical",
    "model.image_size=[32, 32]",
    "data.faces=any",
    "training.epochs=1",
    "loss_weight_changes=[]",
)


def write_faces(folder, count):
    """Writes pictures, no two alike, and their CSV file; eight of ten are for training.

    A number is written into the first rows in squares, which JPEG keeps.
    """
    import cv2
    import numpy as np

    from keras_agegender.faces.images import encode_jpeg
    from keras_agegender.synthetic.drawing import draw_face

    drawn = []
    for number in range(DRAWN):
        face = draw_face(number, number % 8, number // 8 % 2, image_size=(128, 128))
        drawn.append(cv2.resize(face.image, (SIZE, SIZE), interpolation=cv2.INTER_AREA))
    ages = (1, 5, 10, 17, 28, 40, 50, 70)
    lines = ["image,age,gender,split"]
    for number in range(count):
        image = drawn[number % DRAWN].copy()
        for bit in range(24):
            row, column = divmod(bit, 8)
            value = 255 * (number >> bit & 1)
            image[4 * row : 4 * row + 4, 4 * column : 4 * column + 4] = value
        name = f"{number // 1000:03d}/{number:06d}.jpg"
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(encode_jpeg(np.ascontiguousarray(image)))
        split = ("test", "validation")[number % 10] if number % 10 < 2 else "train"
        gender = "fm"[number // 8 % 2]
        lines.append(f"{name},{ages[number % 8]},{gender},{split}")
    (folder / "labels.csv").write_text("\n".join(lines), "utf-8")


def measure(count):
    """Returns seconds of each step, and the peak of memory behind it in MB."""
    import keras_agegender as kag

    found = {"faces": count}

    def timed(name, work):
        begin = time.perf_counter()
        result = work()
        found[f"{name} s"] = round(time.perf_counter() - begin, 2)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        found[f"{name} peak MB"] = peak
        return result

    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        timed("draw", lambda: write_faces(root / "faces", count))
        manifest, _ = timed(
            "read labels", lambda: kag.read_csv(root / "faces" / "labels.csv")
        )
        timed(
            "prepare",
            lambda: kag.prepare(
                manifest, root / "data", output_size=(SIZE, SIZE), progress=False
            ),
        )
        run = kag.train(
            "quickstart",
            prepare_few(root),
            root / "run",
            overrides=SETTINGS,
            verbose=0,
        )
        batches = kag.make_eval_dataset(
            root / "data", "categorical", split="train", image_size=(SIZE, SIZE)
        )
        timed("read pictures", lambda: sum(1 for _ in batches))
        timed("evaluate", lambda: kag.evaluate(run, root / "data", split="train"))
    return found


def prepare_few(root):
    """Prepares the 500 faces that the model is trained on."""
    import keras_agegender as kag

    write_faces(root / "few", 500)
    manifest, _ = kag.read_csv(root / "few" / "labels.csv")
    kag.prepare(manifest, root / "small", output_size=(SIZE, SIZE), progress=False)
    return root / "small"


def main(counts):
    """Measures each count in a process of its own."""
    rows = []
    for count in counts:
        command = [sys.executable, __file__, "--one", str(count)]
        output = subprocess.run(command, check=True, capture_output=True, text=True)
        rows.append(json.loads(output.stdout.splitlines()[-1]))
        print(json.dumps(rows[-1]), flush=True)
    machine = f"{platform.machine()}, {os.cpu_count()} cores"
    content = {"machine": machine, "python": platform.python_version(), "rows": rows}
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(content, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        print(json.dumps(measure(int(sys.argv[2]))))
    else:
        main([int(text) for text in sys.argv[1:]] or [1000, 10000])
