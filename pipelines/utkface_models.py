"""
Title: Train the released models on UTKFace
Description: Labels, crops, two teachers, two students, calibration, release.

    pip install -e '.[jax,audit,export]'
    python pipelines/utkface_models.py train.tar val.tar --out runs/utkface \\
        --weights mobilenet_vggface2.weights.h5

The first part is the training split, except for a twentieth that is the validation
split; the second part is the test split. Both are tar files or folders. Faces with ages
between two groups are included, for their years and gender.
convert_mobilenet_vggface2.py creates the weights; without them, training starts from
random weights.

Run the same command again to resume. Teachers take 1.5 hours each on two CPU cores.
Students need a GPU to train in reasonable time; `KERAS_BACKEND=jax` is the faster
backend for them.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pandas as pd

import keras_agegender as kag
from keras_agegender.cli.console import add_set_option, exit_code
from keras_agegender.datasets.duplicates import default_cache_file
from keras_agegender.datasets.manifest import make_manifest
from keras_agegender.datasets.readers.file_names import RACES
from keras_agegender.files import write_checksums
from keras_agegender.run_directory import RunDirectory

HERE = Path(__file__).resolve().parent
# UTKFace's images end where MTCNN's boxes do: a face of any margin is the whole
# image there. In a photo a margin would make faces smaller than those learned from.
CROPS = kag.faces.CropOptions(margin=0.0, align=True)
PACKED_SIZE = (160, 160)
TEACHER = "utkface_teacher"
# Run -> what differs from the recipe.
TEACHERS = {
    "teacher_144": (),
    "teacher_112": ("model.image_size=[112, 112]",),
}
# Model -> recipe and seed.
STUDENTS = {
    "utkface-compact": ("utkface_compact", 3),
    "utkface-tiny": ("utkface_tiny", 0),
}
TAUGHT = ("distillation.weight=0.7", "distillation.flip=true")
LICENSE = "Weights for non-commercial research only, as UTKFace and VGGFace2 are."
LIMITS = (
    "Guesses from appearance, wrong by 4.4 years on average. The gender of children "
    "under 7 is wrong for one in four, most women of 48 to 53 are taken for younger or "
    "older, and the five classes of race are crude. Not for decisions about anybody."
)


def unpacked(images: Path, out: Path) -> Path:
    """Returns the folder of images, unpacked from a tar file if necessary."""
    if images.is_dir():
        return images
    folder = out / "images" / images.name.partition(".")[0]
    if not folder.is_dir():
        partial = folder.with_name(f"{folder.name}.partial")
        with tarfile.open(images) as file:
            file.extractall(partial, filter="data")
        partial.rename(folder)
    return folder


def utkface_manifest(train: Path, test: Path) -> pd.DataFrame:
    """Returns both folders as one manifest; race is an output beside age and gender.

    No image is in two splits, nor one that looks the same: the twentieth that chooses
    keeps its copies, and what the test folder has is left out of both others.
    """
    cache = default_cache_file()
    train_rows, report = kag.read_utkface(
        train,
        unmapped_ages="mask",
        validation=0.05,
        test=0,
        duplicates="near",
        cache=cache,
    )
    test_rows, test_report = kag.read_utkface(
        test, unmapped_ages="mask", validation=0, test=0
    )
    print(test_report)
    rows = pd.concat([train_rows, test_rows.assign(split="test")])
    race = {"kind": "categorical", "classes": list(RACES)}
    manifest = make_manifest(rows.to_dict("records"), extra_heads={"race": race})
    manifest = kag.datasets.drop_duplicates(
        manifest, report, splits=("train", "validation"), cache=cache
    )
    print(report)
    return manifest


def once(product: Path, *command: str | Path) -> None:
    """Runs another script of this folder, or `-m` a module, if it has not run yet."""
    if product.exists():
        print(f"{product}: already exists")
        return
    print(*command, flush=True)
    # Exports are made by TensorFlow, whatever trained.
    environment = {**os.environ, "KERAS_BACKEND": "tensorflow"}
    subprocess.run([sys.executable, *command], check=True, env=environment)


def train_once(recipe: str, data: Path, path: Path, **options) -> RunDirectory:
    """Returns a finished run, trained if it has not been."""
    run = RunDirectory(path)
    if run.info().get("status") == "finished":
        print(f"{path}: already exists")
        return run
    run = kag.train(recipe, data, path, **options)
    print(kag.evaluation.format_metrics(kag.evaluate(run)))
    return run


def release(name: str, run: Path, folder: Path) -> None:
    """Writes a folder as in saved_models/, with a file for phones of the small one."""
    once(
        folder / "best.keras",
        *(HERE / "release_run.py", run, folder, "--by", "race"),
        *("--license", LICENSE, "--limits", LIMITS),
    )
    if name == "utkface-tiny":
        once(
            folder / "face.tflite",
            *("-m", "keras_agegender.cli.main", "export", folder),
            *("--format", "litert-int8", "--out", folder / "face.tflite"),
            *("--crops", run.parent / "data"),
        )
        kept = {file.name for file in folder.iterdir()} - {"README.md"}
        write_checksums(folder, kept)


def main(arguments: argparse.Namespace) -> None:
    out = arguments.out
    train, test = (unpacked(part, out) for part in (arguments.train, arguments.test))
    print(
        kag.prepare(
            utkface_manifest(train, test),
            out / "data",
            crop_options=CROPS,
            output_size=PACKED_SIZE,
        )
    )
    overrides = list(arguments.set)
    if arguments.weights:
        overrides.append(f"model.backbone_weights={arguments.weights.resolve()}")
    data = out / "data"
    teachers = [
        str(
            train_once(TEACHER, data, out / name, overrides=[*overrides, *changes]).path
        )
        for name, changes in TEACHERS.items()
    ]
    overrides += [*TAUGHT, f"distillation.teachers={json.dumps(teachers)}"]
    for name, (recipe, seed) in STUDENTS.items():
        run = train_once(recipe, data, out / name, seed=seed, overrides=overrides)
        if not run.calibration_file.exists():
            print(kag.calibrate(run))
        release(name, run.path, out / "released" / name)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[2].partition(": ")[2]
    )
    parser.add_argument("train", type=Path, help="training images")
    parser.add_argument("test", type=Path, help="test images")
    parser.add_argument("--weights", type=Path, help="initial weights of the backbone")
    parser.add_argument("--out", type=Path, required=True, help="where everything goes")
    add_set_option(parser)
    parsed = parser.parse_args()
    sys.exit(exit_code(lambda: main(parsed), parser.prog))
