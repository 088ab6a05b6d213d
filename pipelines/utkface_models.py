"""Models of real faces: UTKFace's two folders to trained runs, scored on the second.

The first folder trains, but for a twentieth of it that chooses the epoch; the second is
the test split. Ages between two groups stay, for the years and the gender.

    python pipelines/utkface_models.py data/UTKFace_train data/UTKFace_val \
        --weights mobilenet_vggface2.weights.h5 --out runs/utkface

convert_mobilenet_vggface2.py makes the weights, and release_run.py the folders of
saved_models/.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd

import keras_agegender as kag
from keras_agegender.datasets.hash_cache import default_cache_file
from keras_agegender.datasets.manifest import make_manifest
from keras_agegender.datasets.utkface import RACES

# UTKFace's pictures end where MTCNN's boxes do: a face of any margin is the whole
# picture there. In a photo a margin would make faces smaller than those learned from.
CROPS = kag.CropOptions(margin=0.0, align=True)


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
        "--weights", help="backbone weights of convert_mobilenet_vggface2.py"
    )
    parser.add_argument(
        "--recipes", nargs="+", default=["utkface_compact", "utkface_tiny"]
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    arguments = parser.parse_args()

    data = arguments.out / "data"
    manifest = utkface_manifest(arguments.train, arguments.test)
    print(kag.prepare(manifest, data, crop_options=CROPS, output_size=(160, 160)))
    overrides = arguments.overrides
    if arguments.weights:
        overrides.append(f"model.backbone_weights={arguments.weights}")
    teacher = arguments.out / "utkface_compact"
    for recipe in arguments.recipes:
        run = kag.train(
            recipe,
            data,
            arguments.out / recipe,
            overrides=[
                *overrides,
                *([f"distillation.teacher={teacher}"] * (recipe == "utkface_tiny")),
            ],
        )
        print(kag.calibrate(run))
        print(kag.format_metrics(kag.evaluate(run)))
        print(run.path)


if __name__ == "__main__":
    main()
