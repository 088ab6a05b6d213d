"""The `agegender` command: parse, call one library function, print."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from keras_agegender.cli.checks import check_photos, check_predictor
from keras_agegender.cli.console import add_verb, load_frameworks, say

PICTURE_ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp")


def _predict(arguments: argparse.Namespace) -> int:
    check_predictor(arguments.model)
    check_photos(arguments.photos)
    files = []
    if arguments.annotate:
        files = _annotation_files(arguments.photos, Path(arguments.annotate))
    load_frameworks()
    from keras_agegender.serving.predictor import Predictor

    predictor = Predictor(arguments.model)
    predictions = predictor.predict_many(
        arguments.photos, whole_image=arguments.whole_image
    )
    if arguments.annotate:
        _annotate(arguments.photos, files, predictions)
    if arguments.json:
        print(json.dumps([p.to_dict() for p in predictions], indent=2))
    else:
        for prediction in predictions:
            say(str(prediction))
    return 1 if any(p.status == "unreadable" for p in predictions) else 0


def _annotation_files(photos: Sequence[str], target: Path) -> list[Path]:
    """Returns where each photo's picture with its answers goes.

    Raises:
        ValueError: If that is no picture file or folder, or the photo itself.
    """
    several = len(photos) > 1
    is_picture = target.suffix.lower() in PICTURE_ENDINGS and not target.is_dir()
    if several and (is_picture or target.is_file()):
        raise ValueError(
            "Invalid --annotate. Expected a folder for several photos. Received: "
            f"{target}, the name of one file, for {len(photos)} photos."
        )
    is_folder = target.is_dir() or several or not (target.suffix or target.is_file())
    if not (is_picture or is_folder):
        raise ValueError(
            "Invalid --annotate. Expected a folder, or a file that ends in "
            f"{', '.join(PICTURE_ENDINGS)}. Received: {target}."
        )
    files = [target] if is_picture else _named_after(photos, target)
    same = {Path(photo).resolve() for photo in photos} & {f.resolve() for f in files}
    if same:
        raise ValueError(
            "Invalid --annotate. Expected another file or folder than the photo's. "
            f"Received: {target}; {same.pop()} would be overwritten."
        )
    return files


def _named_after(photos: Sequence[str], folder: Path) -> list[Path]:
    """Returns a file for each photo; a name that comes again gets a number."""
    files: dict[Path, None] = {}
    for photo in photos:
        file = folder / f"{Path(photo).stem}.png"
        number = 1
        while file in files:
            number += 1
            file = folder / f"{Path(photo).stem}_{number}.png"
        files[file] = None
    return list(files)


def _annotate(
    photos: Sequence[str], files: Sequence[Path], predictions: Sequence[Any]
) -> None:
    from PIL import Image

    from keras_agegender.faces.images import read_image
    from keras_agegender.files import replacing
    from keras_agegender.serving.annotation import annotate_photo

    for photo, file, prediction in zip(photos, files, predictions, strict=True):
        if prediction.status == "unreadable":
            continue
        file.parent.mkdir(parents=True, exist_ok=True)
        picture = annotate_photo(read_image(photo), prediction)
        with replacing(file) as partial:
            Image.fromarray(picture).save(partial)
        print(f"Annotated: {file}", file=sys.stderr)


def add_predict(verbs: Any) -> None:
    """Adds `agegender predict`."""
    verb = add_verb(
        verbs, "predict", _predict, "age group and gender of the faces in photos"
    )
    verb.add_argument("model", help="exported SavedModel, or a run")
    verb.add_argument("photos", nargs="+")
    verb.add_argument("--json", action="store_true")
    verb.add_argument(
        "--annotate",
        metavar="PATH",
        help="draw the answers: into a picture file or a folder for one photo, into a "
        "folder for several",
    )
    verb.add_argument(
        "--whole-image",
        action="store_true",
        help="where no face is found, take the whole picture for one",
    )
