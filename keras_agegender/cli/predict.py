"""The `agegender` command: parse, call one library function, print."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from keras_agegender.cli.checks import check_photos, check_saved_model
from keras_agegender.cli.console import add_verb, load_frameworks, say

PICTURE_ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp")


def _predict(arguments: argparse.Namespace) -> int:
    check_saved_model(arguments.model)
    check_photos(arguments.photos)
    if arguments.annotate:
        _check_annotate(arguments)
    load_frameworks()
    from keras_agegender.serving.predictor import Predictor

    predictor = Predictor(arguments.model)
    predictions = predictor.predict_many(
        arguments.photos, whole_image=arguments.whole_image
    )
    if arguments.annotate:
        _annotate(arguments, predictions)
    if arguments.json:
        print(json.dumps([p.to_dict() for p in predictions], indent=2))
    else:
        for prediction in predictions:
            say(str(prediction))
    return 1 if any(p.status == "unreadable" for p in predictions) else 0


def _check_annotate(arguments: argparse.Namespace) -> None:
    """Raises a `ValueError` if a single photo's answer has no picture file to go to."""
    target = Path(arguments.annotate)
    if not _several(arguments) and target.suffix.lower() not in PICTURE_ENDINGS:
        raise ValueError(
            f"Invalid --annotate. Expected a file that ends in {PICTURE_ENDINGS}, or a "
            f"folder. Received: {target}."
        )


def _several(arguments: argparse.Namespace) -> bool:
    return len(arguments.photos) > 1 or Path(arguments.annotate).is_dir()


def _annotate(arguments: argparse.Namespace, predictions: Sequence[Any]) -> None:
    from PIL import Image

    from keras_agegender.faces.images import read_image
    from keras_agegender.files import replacing
    from keras_agegender.serving.annotation import annotate_photo

    target = Path(arguments.annotate)
    several = _several(arguments)
    if several:
        target.mkdir(parents=True, exist_ok=True)
    for photo, prediction in zip(arguments.photos, predictions, strict=True):
        if prediction.status == "unreadable":
            continue
        picture = annotate_photo(read_image(photo), prediction)
        file = target / f"{Path(photo).stem}.png" if several else target
        with replacing(file) as partial:
            Image.fromarray(picture).save(partial)
        print(f"Annotated: {file}", file=sys.stderr)


def add_predict(verbs: Any) -> None:
    """Adds `agegender predict`."""
    verb = add_verb(
        verbs, "predict", _predict, "age group and gender of the faces in photos"
    )
    verb.add_argument("model", help="exported SavedModel")
    verb.add_argument("photos", nargs="+")
    verb.add_argument("--json", action="store_true")
    verb.add_argument(
        "--annotate",
        metavar="FILE",
        help="draw the answers; a folder for several photos",
    )
    verb.add_argument(
        "--whole-image",
        action="store_true",
        help="where no face is found, take the whole picture for one",
    )
