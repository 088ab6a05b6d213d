"""Commands that use a model: `predict`, `export`, `verify`, `serve` and `demo`."""

from __future__ import annotations

import argparse
import contextlib
import csv
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from keras_agegender.cli.checks import check_model, choose_model
from keras_agegender.cli.console import (
    add_verb,
    load_frameworks,
    number,
    positive_number,
    say,
    share_cores,
    whole_number,
)
from keras_agegender.console import progress_bar, quiet_pictures
from keras_agegender.files import exclusive_lock, lock_beside, verify
from keras_agegender.run_directory import RunDirectory
from keras_agegender.serving.formats import (
    FORMATS,
    check_answering_model,
    check_new_model,
    default_model,
    model_identity,
)
from keras_agegender.serving.pipeline import Source, find_sources

PICTURE_ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp")


def annotation_files(sources: Sequence[Source], target: Path) -> list[Path]:
    """Returns where each source's picture with its answers goes.

    Raises:
        ValueError: If that is no picture file or folder, or a source itself.
    """
    several = len(sources) > 1
    is_picture = target.suffix.lower() in PICTURE_ENDINGS and not target.is_dir()
    if several and (is_picture or target.is_file()):
        raise ValueError(
            "Invalid --annotate. Expected a folder for several photos. Received: "
            f"{target}, the name of one file, for {len(sources)} photos."
        )
    is_folder = target.is_dir() or several or not (target.suffix or target.is_file())
    if not (is_picture or is_folder):
        raise ValueError(
            "Invalid --annotate. Expected a folder, or a file that ends in "
            f"{', '.join(PICTURE_ENDINGS)}. Received: {target}."
        )
    files = [target] if is_picture else _named_after(sources, target)
    photos = {Path(source.name).resolve() for source in sources}
    same = photos & {file.resolve() for file in files}
    if same:
        raise ValueError(
            "Invalid --annotate. Expected another file or folder than the photo's. "
            f"Received: {target}; {same.pop()} would be overwritten."
        )
    return files


def _named_after(sources: Sequence[Source], folder: Path) -> list[Path]:
    """Returns a file for each source; a name that comes again gets an index."""
    files: dict[Path, None] = {}
    for source in sources:
        stem = Path(source.name).stem
        file = folder / f"{stem}.png"
        index = 1
        while file in files:
            index += 1
            file = folder / f"{stem}_{index}.png"
        files[file] = None
    return list(files)


def annotate(source: Source, file: Path, prediction: Any) -> None:
    """Writes a photo's picture with its answers; of a video one for each person.

    One that has vanished since it was answered is said, and stops no others.
    """
    if prediction.status == "unreadable":
        return
    from keras_agegender.faces.images import UnreadableImageError, read_image

    try:
        if source.is_video:
            _annotate_people(source, file, prediction)
        else:
            _write(file, read_image(source.content), prediction)
    except UnreadableImageError as error:
        print(f"agegender: not annotated: {error}", file=sys.stderr)


def _annotate_people(source: Source, file: Path, video: Any) -> None:
    """Writes everybody's surest frame: NAME_1.png, NAME_2.png and so on."""
    from keras_agegender.faces.video import VideoReader
    from keras_agegender.serving.predictions import PhotoPrediction

    wanted = dict(enumerate(video.faces, 1))
    reader = VideoReader(source.content, video.frames_per_second)
    for second, image in reader:
        for index, person in list(wanted.items()):
            if second >= person.best_second - 5e-4:  # written to a thousandth
                photo = PhotoPrediction(video.source, "ok", (person,), image.shape[:2])
                name = f"{file.stem}_{index}{file.suffix}"
                _write(file.with_name(name), image, photo)
                del wanted[index]
        if not wanted:
            return


def _write(file: Path, image: Any, prediction: Any) -> None:
    from PIL import Image

    from keras_agegender.files import atomic_write
    from keras_agegender.serving.annotate import annotate_photo

    file.parent.mkdir(parents=True, exist_ok=True)
    picture = annotate_photo(image, prediction)
    with atomic_write(file) as partial:
        Image.fromarray(picture).save(partial)
    print(f"Annotated: {file}", file=sys.stderr)


Show = Callable[[Any], None]


def _predict(arguments: argparse.Namespace) -> int:
    model, photos = choose_model(arguments.model, arguments.inputs)
    left_out: list[Path] = []
    sources = list(find_sources(photos, left_out))
    _check_sources(sources, photos)
    out = _out_file(arguments, sources)
    form = _form(arguments)
    files: Sequence[Path | None] = [None] * len(sources)
    if arguments.annotate:
        files = annotation_files(sources, Path(arguments.annotate))
    if left_out:
        _note(f"{len(left_out)} files that are no photos by their names are left out")
    load_frameworks()
    share_cores()
    from keras_agegender.serving.predictor import Predictor

    predictor = Predictor(model)
    if str(model) not in arguments.inputs and str(model) != arguments.model:
        _note(f"model: {model}")
    if limits := predictor.metadata.get("limits"):
        _note(f"limits: {limits.partition('. ')[0].removesuffix('.')}")
    if _pixels_are_unknown(model):
        _note(f"{model} does not say what its pixels were: whole pictures are taken")
    if out is None:
        show = _printer(form, len(sources), predictor.metadata)
        return _run(arguments, predictor, sources, files, show)
    return _run_into(out, form or "json", model, arguments, predictor, sources, files)


def _run_into(
    out: Path,
    form: str,
    model: Path,
    arguments: argparse.Namespace,
    predictor: Any,
    sources: Sequence[Source],
    files: Sequence[Path | None],
) -> int:
    """Predicts into a file; goes on with an interrupted one."""
    from keras_agegender.serving.predictions import AnswerFile

    request = {
        "model": model_identity(model),
        "whole_image": arguments.whole_image,
        "frames_per_second": arguments.fps,
    }
    refusal = f"Another process predicts into {out}. Choose another file."
    with (
        exclusive_lock(lock_beside(out), refusal),
        AnswerFile(out, sources, request, _note) as answers,
    ):
        done = answers.num_done
        if done:
            _note(f"{done} of {len(sources)} were answered before; going on")
        _run(
            arguments, predictor, sources[done:], files[done:],
            lambda prediction: answers.add(prediction.to_dict()), done,
        )  # fmt: skip
        statuses = Counter(p["status"] for p in answers.predictions())
        answers.finish(form, predictor.metadata)
    _note(f"{out}: {_counts(statuses)}")
    return 1 if statuses["unreadable"] else 0


def _run(
    arguments: argparse.Namespace,
    predictor: Any,
    sources: Sequence[Source],
    files: Sequence[Path | None],
    show: Show,
    done: int = 0,
) -> int:
    """Predicts, shows and annotates one source after the other."""
    from keras_agegender.serving.pipeline import PredictionTimes

    times, statuses = PredictionTimes(), Counter[str]()
    total = done + len(sources)
    predictions = predictor.stream(
        sources,
        whole_image=arguments.whole_image,
        frames_per_second=arguments.fps,
        times=times,
    )
    with (
        quiet_pictures(),  # each file has a status of its own
        contextlib.closing(predictions),
        progress_bar(total, "predicting", "file", shown=total > 1, keep=False) as bar,
    ):
        bar.update(done)
        for source, file, prediction in zip(sources, files, predictions, strict=True):
            show(prediction)
            if file is not None:
                annotate(source, file, prediction)
            statuses[prediction.status] += 1
            bar.update()
    if len(sources) > 1:
        _note(f"{_counts(statuses)}; {times}")
    return 1 if statuses["unreadable"] else 0


def _printer(form: str | None, count: int, metadata: Any) -> Show:
    """Returns what prints a prediction: JSON, CSV, a table, or the answers of one."""
    from keras_agegender.serving.predictions import (
        csv_columns,
        csv_rows,
        json_line,
        table_heading,
        table_lines,
    )

    if form == "json":
        return lambda prediction: say(json_line(prediction.to_dict()))
    if form == "csv":
        writer = csv.DictWriter(sys.stdout, csv_columns(metadata), lineterminator="\n")
        writer.writeheader()
        return lambda prediction: writer.writerows(csv_rows(prediction.to_dict()))
    if count == 1:
        return lambda prediction: say(str(prediction))
    say(table_heading())
    return lambda prediction: say("\n".join(table_lines(prediction)))


def _check_sources(sources: Sequence[Source], photos: Sequence[str]) -> None:
    """Raises a `ValueError` if there is nothing to predict on.

    A missing photo among others does not stop the others: its answer says so.
    """
    if not photos:
        raise ValueError(
            "Missing PHOTO. Expected a photo, folder or video behind the model."
        )
    if not any(Path(source.name).exists() for source in sources):
        raise ValueError(f"There is no photo {', '.join(photos)}.")


def _form(arguments: argparse.Namespace) -> str | None:
    """Returns `"json"`, `"csv"` or, for the table, `None`."""
    from keras_agegender.serving.predictions import form_of

    if arguments.json or arguments.csv:
        return "json" if arguments.json else "csv"
    if arguments.out is None:
        return None
    form = form_of(Path(arguments.out))
    if form is None:
        raise ValueError(
            "Invalid --out. Expected --json or --csv, or a file that ends in .jsonl, "
            f".json or .csv. Received: {arguments.out}."
        )
    return form


def _out_file(arguments: argparse.Namespace, sources: Sequence[Source]) -> Path | None:
    if arguments.out is None:
        return None
    out = Path(arguments.out)
    if out.is_dir():
        raise ValueError(f"Invalid --out. Expected a file. Received: {out}, a folder.")
    if out.resolve() in {Path(source.name).resolve() for source in sources}:
        raise ValueError(
            "Invalid --out. Expected another file than the photos. Received: "
            f"{out}; it would be overwritten."
        )
    return out


def _pixels_are_unknown(model: Path) -> bool:
    """Whether a model is a file away from its run, which knows what its pixels were."""
    run = RunDirectory(model.parent)
    return model.suffix == ".keras" and not run.recipe_file.is_file()


def _counts(statuses: Counter[str]) -> str:
    counted = ", ".join(f"{count} {name}" for name, count in statuses.most_common())
    return f"{statuses.total()} files: {counted}" if statuses else "0 files"


def _note(text: str) -> None:
    print(f"agegender: {text}", file=sys.stderr)


def add_predict(verbs: Any) -> None:
    """Adds `agegender predict`."""
    verb = add_verb(
        verbs, "predict", _predict, "age group and gender of the faces in photos"
    )
    verb.add_argument(
        "inputs",
        nargs="+",
        metavar="[MODEL] PHOTO",
        help="a run, an export of any format or a .keras file, which may be left out "
        "where there is a default model; then photos, folders (searched with those "
        "inside), globs or videos",
    )
    verb.add_argument(
        "--model",
        help="the model, instead of in front of the photos",
    )
    form = verb.add_mutually_exclusive_group()
    form.add_argument(
        "--json", action="store_true", help="JSON Lines: a line for each file"
    )
    form.add_argument(
        "--csv", action="store_true", help="a row for each face, or person of a video"
    )
    verb.add_argument(
        "--out",
        metavar="FILE",
        help="write into a file (.jsonl, .csv); interrupted, the same command goes on",
    )
    verb.add_argument(
        "--annotate",
        metavar="PATH",
        help="draw the answers: into a picture file or a folder for one photo, into a "
        "folder for several",
    )
    verb.add_argument(
        "--whole-image",
        action="store_true",
        help="where no face is found in a photo, take the whole picture for one",
    )
    verb.add_argument(
        "--fps",
        type=positive_number,
        default=4.0,
        metavar="N",
        help="how many frames of a video to look at in a second [4]",
    )


NAMES = {
    "savedmodel": "SavedModel",
    "onnx": "ONNX file",
    "litert": "LiteRT file",
    "litert-int8": "LiteRT file, int8",
}


def _export(arguments: argparse.Namespace) -> int:
    check_model(arguments.run_directory)
    check_new_model(Path(arguments.out), arguments.format, arguments.overwrite)
    load_frameworks()
    from keras_agegender.serving.export import export

    path = export(
        arguments.run_directory,
        arguments.out,
        license=arguments.license,
        format=arguments.format,
        crops=arguments.crops,
        report=say,
        overwrite=arguments.overwrite,
    )
    say(f"{NAMES[arguments.format]}: {path}")
    return 0


def add_export(verbs: Any) -> None:
    """Adds `agegender export`."""
    verb = add_verb(
        verbs,
        "export",
        _export,
        "write a run's best model as SavedModel, ONNX or LiteRT",
    )
    verb.add_argument("run_directory", metavar="run")
    verb.add_argument("--out", required=True, help="folder or file to make")
    verb.add_argument(
        "--format",
        choices=FORMATS,
        default="savedmodel",
        help="[savedmodel], a folder that finds faces itself; onnx, litert or "
        "litert-int8: a file that takes face crops and needs no TensorFlow",
    )
    verb.add_argument(
        "--crops",
        metavar="FOLDER",
        help="prepared dataset or folder of face crops that a file is compared on "
        "(default: the run's dataset, where it still is)",
    )
    verb.add_argument(
        "--license", metavar="TEXT", help="terms of the weights, kept in the export"
    )
    verb.add_argument(
        "--overwrite",
        action="store_true",
        help="replace what is there, finished or not",
    )


def _verify(arguments: argparse.Namespace) -> int:
    found = [verify(path) for path in arguments.paths]
    for verification in found:
        say(str(verification))
    return 1 if any(verification.differences for verification in found) else 0


def add_verify(verbs: Any) -> None:
    """Adds `agegender verify`."""
    verb = add_verb(
        verbs,
        "verify",
        _verify,
        "compare prepared datasets, exports (of every format) and finished runs with "
        "their checksums",
    )
    verb.add_argument("paths", nargs="+", metavar="path", help="a folder or a file")


port_number = whole_number("a port, from 0 (any that is free) to 65535", 0, 65535)
count = whole_number("a whole number from 1 on", 1)


def _serve(arguments: argparse.Namespace) -> int:
    models = named_models(arguments.models)
    load_frameworks()
    share_cores()
    from keras_agegender.serving.server import ServerLimits, run_server

    run_server(
        models,
        arguments.host,
        arguments.port,
        limits=ServerLimits(
            max_bytes=arguments.max_bytes,
            max_pixels=arguments.max_pixels,
            max_batch=arguments.max_batch,
            max_waiting=arguments.max_waiting,
            max_open_bytes=arguments.max_open_bytes,
            timeout=arguments.timeout,
        ),
        access_log=arguments.access_log,
    )
    return 0


def named_models(paths: Sequence[str]) -> dict[str, Path]:
    """Returns the models by their folders' names, the first is the default.

    Raises:
        ValueError: If one is no model, or two have the same name.
    """
    models: dict[str, Path] = {}
    for path in paths or [str(default_model())]:
        check_answering_model(path)
        name = Path(path).resolve().name.removesuffix(".keras")
        if name in models:
            raise ValueError(
                f"Invalid models. Expected different names. Received: {models[name]} "
                f"and {path}, both called {name}."
            )
        models[name] = Path(path)
    return models


def add_address_options(verb: argparse.ArgumentParser, port: int) -> None:
    """Adds MODEL, `--host` and `--port`, and what a signal that stops it means."""
    verb.set_defaults(stopped="every request that had come is answered")
    verb.add_argument(
        "models",
        nargs="*",
        metavar="MODEL",
        help="runs, exports or .keras files to choose among [the default model]",
    )
    verb.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen on; 0.0.0.0 lets other devices in [%(default)s]",
    )
    verb.add_argument(
        "--port",
        type=port_number,
        default=port,
        help="port to listen on [%(default)s]",
    )


def add_serve(verbs: Any) -> None:
    """Adds `agegender serve`."""
    verb = add_verb(
        verbs, "serve", _serve, "answer about photos over HTTP (extra `serve`)"
    )
    add_address_options(verb, 8000)
    for option, default, text in (
        ("--max-bytes", 20_000_000, "bytes of a photo's file at most"),
        ("--max-pixels", 50_000_000, "pixels of a photo at most"),
        ("--max-batch", 32, "photos answered about together at most"),
        ("--max-waiting", 256, "photos that may wait, for each model"),
        ("--max-open-bytes", 256_000_000, "bytes of all photos not yet answered about"),
    ):
        verb.add_argument(
            option, type=count, default=default, metavar="N",
            help=f"{text} [%(default)s]",
        )  # fmt: skip
    verb.add_argument(
        "--timeout",
        type=number("seconds above 0", lambda value: 0 < value < float("inf")),
        default=30.0,
        metavar="SECONDS",
        help="for a photo to come, and to be answered about [%(default)s]",
    )
    verb.add_argument(
        "--access-log", action="store_true", help="print a line for each request"
    )


def _demo(arguments: argparse.Namespace) -> int:
    models = named_models(arguments.models)
    load_frameworks()
    share_cores()
    from keras_agegender.serving.server import run_server

    run_server(
        models,
        arguments.host,
        arguments.port,
        page=True,
        open_browser=not arguments.no_browser,
    )
    return 0


def add_demo(verbs: Any) -> None:
    """Adds `agegender demo`."""
    verb = add_verb(
        verbs,
        "demo",
        _demo,
        "a page in the browser that answers about photos (extra `demo`)",
    )
    add_address_options(verb, 7860)
    verb.add_argument(
        "--no-browser", action="store_true", help="do not open the browser"
    )
