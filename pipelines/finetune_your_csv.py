"""
Title: Fine-tune a trained model on your own CSV file
Description: Trains new heads on a frozen network, then the whole network.

    python pipelines/finetune_your_csv.py labels.csv \\
        --pretrained saved_models/utkface-compact

The CSV file has a column of image files and any of: age, gender, subject, album, split.
Every other column with a recognizable type becomes an output. The options for reading
the file are those of `agegender prepare csv`, such as `--female 0 --male 1`.

Run the same command again to resume an interrupted run. If `--pretrained` is a run, its
network, image size and face crops are used. Outputs without a label are dropped.
Without `--pretrained`, there is only the second stage, from random weights.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import keras_agegender as kag
from keras_agegender.cli.console import (
    add_set_option,
    exit_code,
    pixels,
)
from keras_agegender.cli.data import add_reader_options, read_source
from keras_agegender.datasets.readers import READERS
from keras_agegender.run_directory import find_checkpoint
from keras_agegender.training.resume import check_unfinished

parser = argparse.ArgumentParser(description=__doc__.splitlines()[2].partition(": ")[2])
add_reader_options(parser, READERS["csv"])
parser.add_argument(
    "--pretrained", help="finished run or .keras file of the same trunk [none]"
)
parser.add_argument(
    "--model", help="as `build_model` takes it [the pretrained run's, or resnet34]"
)
parser.add_argument(
    "--encoding",
    default="categorical",
    help="of age group and gender, as `get_encoding` takes it [%(default)s]",
)
parser.add_argument(
    "--directory",
    type=Path,
    default=Path("runs/finetuned"),
    help="where everything goes [%(default)s]",
)
parser.add_argument(
    "--size", type=pixels, help="side of the input [the run's or network's]"
)
parser.add_argument(
    "--epochs",
    type=int,
    nargs=2,
    default=(3, 10),
    metavar="N",
    help="of the new heads, and of everything [3 10]",
)
parser.set_defaults(seed=0)
add_set_option(parser)
parser.add_argument("--overwrite", action="store_true", help="replace what is there")

"""
## Two recipes

The second differs from the first in what trains, how fast and how long.
"""


def make_recipes(
    args: argparse.Namespace, pretrained: kag.recipes.ModelSettings | None
) -> tuple[kag.Recipe, kag.Recipe]:
    backbone = args.model or (pretrained.backbone if pretrained else "resnet34")
    pipeline, size = ("caffe" if backbone.startswith("caffe") else "resnet"), None
    if args.size:
        size = (args.size, args.size)
    elif pretrained:
        size = pretrained.image_size
    else:
        size = (227, 227) if pipeline == "caffe" else (224, 224)
    heads = kag.Recipe(
        name="heads",
        title="new heads on a frozen trunk",
        model=kag.recipes.ModelSettings(
            backbone=backbone,
            encoding=args.encoding,
            image_size=size,
            trainable_layers=0,
        ),
        data=kag.recipes.DataSettings(
            pipeline=pipeline, faces="cropped", batch_size=32
        ),
        training=kag.recipes.TrainingSettings(
            epochs=args.epochs[0], learning_rate=1e-3, checkpoint_monitor="val_loss"
        ),
    )
    everything = replace(
        heads,
        name="everything",
        title="all layers",
        model=replace(heads.model, trainable_layers=None),
        training=replace(
            heads.training, epochs=args.epochs[1], learning_rate=1e-4, patience=3
        ),
    )
    return heads, everything


"""
## Do the weights fit?

That is asked before the faces are cropped, which takes longest.
"""


def check_trunk(recipe: kag.Recipe, pretrained: str | None) -> None:
    from keras_agegender.training.fit import load_pretrained

    settings, encoding = recipe.model, kag.get_encoding(recipe.model.encoding)
    model = kag.build_model(settings.backbone, encoding, image_size=settings.image_size)
    if pretrained:
        kag.models.freeze_all_but_last(model, 0, encoding.output_names)
        kag.models.transfer_weights(load_pretrained(pretrained), model)


"""
## Data, training, scores, SavedModel

An experiment that begins with another one has one identity with it: the folder of
another model, CSV or beginning is not gone on with, but refused.
"""


def main(args: argparse.Namespace) -> None:
    target = kag.RunDirectory(args.directory / "run")
    target.check_folder()
    if not args.overwrite:
        check_unfinished(target)
    if args.pretrained:
        find_checkpoint(args.pretrained)
    manifest, report = read_source(READERS["csv"], args)
    print(report)
    from keras_agegender.recipes.loading import override_recipe

    run = None
    if args.pretrained and Path(args.pretrained).is_dir():
        run = kag.RunDirectory.open(args.pretrained)
    recipes = make_recipes(args, run.recipe().model if run else None)
    heads, everything = (override_recipe(recipe, args.set) for recipe in recipes)
    check_trunk(heads, args.pretrained)

    pixels = run.pixels() if run else None
    prepared = kag.prepare(
        manifest,
        args.directory / "prepared",
        crop_options=(pixels and pixels.crop) or kag.faces.CropOptions(),
        overwrite=args.overwrite,
    )
    print(prepared)
    data = kag.load_prepared(prepared.directory)
    options = {"extra_heads": data.extra_heads(), "seed": args.seed}

    first = None
    if args.pretrained:
        first = kag.training.make_experiment(
            heads, data, pretrained=args.pretrained, **options
        )
    run = kag.train(
        everything,
        data,
        args.directory / "run",
        pretrained=first,
        overwrite=args.overwrite,
        **options,
    )
    if "test" in data.splits:
        print(kag.evaluation.format_metrics(kag.evaluate(run)))
    saved_model = kag.export(run, args.directory / "saved_model", overwrite=True)
    print(f"SavedModel: {saved_model}")
    print(f"Try it: agegender predict {saved_model} photo.jpg")


if __name__ == "__main__":
    arguments = parser.parse_args()
    sys.exit(exit_code(lambda: main(arguments), parser.prog))
