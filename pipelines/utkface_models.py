"""Models of real faces: UTKFace's two folders to trained runs, scored on the second.

The first folder trains, but for a twentieth of it that chooses the epoch; the second is
the test split. Ages between two groups stay, for the years and the gender.

    python pipelines/utkface_models.py data/UTKFace_train data/UTKFace_val \
        --imagenet efficientnet_lite0.safetensors --out runs/utkface
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd

import keras_agegender as kag
from keras_agegender.datasets.hash_cache import default_cache_file
from keras_agegender.datasets.manifest import make_manifest
from keras_agegender.datasets.utkface import RACES


def utkface_manifest(train: Path, test: Path) -> pd.DataFrame:
    """Returns both folders as one manifest; race is an output beside age and gender.

    No picture is in two splits, nor one that looks the same: the twentieth that chooses
    keeps its copies, and what the test folder has is left out of both others.
    """
    cache = default_cache_file()
    train_rows, report = kag.read_utkface(
        train, gaps="mask", validation=0.05, test=0, duplicates="near", cache=cache
    )
    test_rows, test_report = kag.read_utkface(test, gaps="mask", validation=0, test=0)
    print(test_report)
    rows = pd.concat([train_rows, test_rows.assign(split="test")])
    race = {"kind": "categorical", "classes": list(RACES)}
    manifest = make_manifest(rows.to_dict("records"), extra_heads={"race": race})
    manifest = kag.leave_out_duplicates(
        manifest, report, splits=("train", "validation"), cache=cache
    )
    print(report)
    return manifest


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("train", type=Path, help="folder of pictures to learn from")
    parser.add_argument("test", type=Path, help="folder of pictures to be scored on")
    parser.add_argument(
        "--imagenet", help="weights that EfficientNet-Lite0 begins with"
    )
    parser.add_argument("--recipe", default="utkface_compact")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    arguments = parser.parse_args()

    crops = kag.CropOptions(margin=0.25, align=True)
    manifest = utkface_manifest(arguments.train, arguments.test)
    data = arguments.out / "data"
    print(kag.prepare(manifest, data, crop_options=crops, output_size=(160, 160)))
    overrides = arguments.overrides
    if arguments.imagenet:
        overrides.append(f"model.backbone_weights={arguments.imagenet}")
    run = kag.train(
        arguments.recipe, data, arguments.out / arguments.recipe, overrides=overrides
    )
    print(run.path)


if __name__ == "__main__":
    main()
