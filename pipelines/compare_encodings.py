"""
Title: Do age encodings differ?
Description: Trains one network with several encodings and seeds.

    python pipelines/compare_encodings.py data/adience_prepared --out runs/encodings

Gender and age have equal weight in every loss, whatever the number of heads. (The joint
encoding has a single softmax, so there is nothing to weigh.) The table contains means
and standard deviations over seeds, and over folds with `--folds`. To compare two runs
on the same faces, use `agegender compare RUN RUN`.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import keras_agegender as kag
from keras_agegender.cli.console import add_set_option

parser = argparse.ArgumentParser(description=__doc__.splitlines()[2].partition(": ")[2])
parser.add_argument("data", type=Path, help="prepared dataset")
parser.add_argument("--out", type=Path, required=True)
parser.add_argument("--recipe", default="7", help="whose trunk and training to take")
parser.add_argument(
    "--encodings",
    nargs="+",
    default=["categorical", "joint", "ordinal", "coral", "corn"],
)
parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
parser.add_argument("--folds", type=int, nargs="+")
add_set_option(parser)
args = parser.parse_args()

base = kag.load_recipe(args.recipe, args.set)
recipes = []
for name in args.encodings:
    heads = kag.get_encoding(name).output_names
    ages = [head for head in heads if head.startswith("age")]
    weights = {"gender": float(len(ages)), **dict.fromkeys(ages, 1.0)} if ages else {}
    recipes.append(
        replace(
            base,
            name=f"{name}_encoding",
            title=f"{base.title}: {name} encoding",
            model=replace(base.model, encoding=name, question=None),
            training=replace(base.training, normalize_loss=True, extra_checkpoints={}),
            loss_weights=weights,
            published=(),
        )
    )
found = kag.reproduce(recipes, args.data, args.out, seeds=args.seeds, folds=args.folds)
print(found)
