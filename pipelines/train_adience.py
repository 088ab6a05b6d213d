"""
Title: Train a model of the report on Adience
Description: From five fold files and a folder of images to scores and a SavedModel.

    python pipelines/train_adience.py data/adience [--recipe resnet_se_ordinal]

`data/README.md` explains how to get Adience. With --test-fold, the split is one round
of five-fold cross-validation instead of the report's folds 0-2 / 3 / 4.
"""

import argparse
from pathlib import Path

import keras_agegender as kag
from keras_agegender.cli.console import add_set_option

parser = argparse.ArgumentParser(description=__doc__.splitlines()[2].partition(": ")[2])
parser.add_argument("adience", type=Path, help="folder of fold files and images")
parser.add_argument("--recipe", default="resnet_se_ordinal")
parser.add_argument("--test-fold", type=int)
parser.add_argument("--prepared", type=Path, default=Path("data/adience_prepared"))
parser.add_argument("--runs", type=Path, default=Path("runs"))
parser.add_argument("--seed", type=int, default=0)
add_set_option(parser)
args = parser.parse_args()

recipe = kag.load_recipe(args.recipe, args.set)

"""
## Labels and crops

The report's Caffe models see whole images, its ResNets MTCNN's crops. Faces with one
usable label stay: the missing one is masked in loss and metrics.
"""

manifest, cleaning = kag.read_adience(args.adience, args.adience, require_labels="any")
print(cleaning)
crop = recipe.data.faces == "cropped"
prepared = kag.prepare(
    manifest,
    args.prepared.with_name(f"{args.prepared.name}_{recipe.data.faces}"),
    crop_options=kag.faces.CropOptions() if crop else None,
    splits=kag.datasets.report_splits(),
    name="adience",
)
print(prepared)

"""
## Training, scores, SavedModel

The prepared folds serve every protocol: a split is an expression over them.
"""

splits, name = kag.datasets.report_splits(), recipe.name
if args.test_fold is not None:
    splits = kag.datasets.cross_validation_splits(args.test_fold)
    name = f"{name}_fold{args.test_fold}"
run = kag.train(
    recipe, prepared.directory, args.runs / name, splits=splits, seed=args.seed
)
print(kag.evaluation.format_metrics(kag.evaluate(run)))
print("SavedModel:", kag.export(run, args.runs / f"{name}_saved_model", overwrite=True))
