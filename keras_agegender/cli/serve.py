"""Commands that use a model: `predict`, `export`, `verify`, `serve` and `demo`."""

from __future__ import annotations

import argparse
import contextlib
import csv
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from keras_agegender import files
from keras_agegender.cli import console
from keras_agegender.console import progress_bar
from keras_agegender.encodings.of_age import AgeCheck
from keras_agegender.faces.images import UnreadableImageError, read_image
from keras_agegender.run_directory import find_checkpoint
from keras_agegender.serving import formats, pipeline, predictions
from keras_agegender.serving.pipeline import Source
from keras_agegender.serving.predictor import MIN_SCORE, Predictor

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
Show = Callable[[Any], None]


def _note(text: str) -> None:
    print(f"agegender: {text}", file=sys.stderr)


# -- predict ---------------------------------------------------------------------------


def choose_model(
    model: str | None, inputs: Sequence[str]
) -> tuple[Path, Sequence[str]]:
    """Returns the model and the photos.

    The first input is the model if it is one. Otherwise, if it exists or looks like a
    photo, all inputs are photos for the default model.
    """
    first, photos = Path(inputs[0]), list(inputs)
    suffixes = pipeline.PHOTO_SUFFIXES | pipeline.VIDEO_SUFFIXES
    is_photo = len(inputs) == 1 or first.exists() or pipeline.is_glob(first)
    is_photo = is_photo or first.suffix.lower() in suffixes
    is_model = formats.find_format(formats.find_model(inputs[0])) is not None
    if model is None and (is_model or not is_photo):
        model, photos = inputs[0], photos[1:]
    if model is None:
        inner = first / "run"
        if formats.find_format(inner):
            raise ValueError(
                f"{first} is not a model. Did you mean {inner}? (To predict on a "
                "folder, pass the model with --model.)"
            )
        return formats.default_model(), photos
    path = formats.find_model(model)
    formats.check_model(path)
    return path, photos


def _predict(arguments: argparse.Namespace) -> int:
    model, photos = choose_model(arguments.model, arguments.inputs)
    skipped: list[Path] = []
    sources = list(pipeline.find_sources(photos, skipped))
    if not photos:
        raise ValueError(
            "Missing PHOTO. Expected a photo, folder or video after the model."
        )
    # A missing photo among others is reported as unreadable.
    if not any(Path(source.name).exists() for source in sources):
        raise ValueError(f"Photo not found: {', '.join(photos)}.")
    out = _out_file(arguments, sources)
    format = _output_format(arguments)
    annotated: Sequence[Path | None] = [None] * len(sources)
    if arguments.annotate:
        annotated = annotation_files(sources, Path(arguments.annotate))
    check = _age_check(arguments)
    if skipped:
        total = len(sources) + len(skipped)
        _note(
            f"skipped {len(skipped)} of {total} files: not a photo or video by suffix"
        )
    console.share_cores()
    predictor = Predictor(
        model,
        age_check=check,
        min_score=arguments.min_score,
        all_outputs=arguments.all_outputs,
    )
    if str(model) not in arguments.inputs and str(model) != arguments.model:
        _note(f"model: {model}")
    for name in ("license", "limits"):
        if text := predictor.metadata.get(name):
            _note(f"{name}: {text.partition('. ')[0].removesuffix('.')}")
    if model.suffix == ".keras" and find_checkpoint(model).run is None:
        _note(f"{model} has no record of its preprocessing: using whole images")
    if out is None:
        show = _printer(format, len(sources), predictor.metadata, arguments.groups)
        return _run(arguments, predictor, sources, annotated, show)
    request = {
        "model": formats.model_identity(model),
        "whole_image": arguments.whole_image,
        **({"try_rotations": True} if arguments.try_rotations else {}),
        "frames_per_second": arguments.fps,
        "min_score": predictor.min_score,
        "all_outputs": arguments.all_outputs,
    }
    if check is not None:
        request["age_check"] = asdict(check)
    refusal = f"Another process predicts into {out}. Choose another file."
    with (
        files.exclusive_lock(files.lock_beside(out), refusal),
        predictions.PredictionFile(out, sources, request, _note) as written,
    ):
        done = written.num_done
        if done:
            _note(f"{done} of {len(sources)} are already done; continuing")
        _run(
            arguments, predictor, sources[done:], annotated[done:],
            lambda prediction: written.add(prediction.to_dict()), done,
        )  # fmt: skip
        statuses = Counter(p["status"] for p in written.predictions())
        written.finish(format or "json", predictor.metadata)
    _note(f"{out}: {_counts(statuses)}")
    return 1 if statuses["unreadable"] else 0


def _age_check(arguments: argparse.Namespace) -> AgeCheck | None:
    """Returns the check of --at-least and --threshold."""
    if arguments.at_least is None:
        if arguments.threshold is not None:
            raise ValueError("Missing --at-least. Expected it with --threshold.")
        return None
    return AgeCheck(arguments.at_least, arguments.threshold)


def _run(
    arguments: argparse.Namespace,
    predictor: Any,
    sources: Sequence[Source],
    annotated: Sequence[Path | None],
    show: Show,
    done: int = 0,
) -> int:
    """Predicts, prints and annotates the sources in order."""
    times, statuses = pipeline.PredictionTimes(), Counter[str]()
    filled = 0
    total = done + len(sources)
    found = predictor.stream(
        sources,
        whole_image=arguments.whole_image,
        try_rotations=arguments.try_rotations,
        frames_per_second=arguments.fps,
        times=times,
    )
    with (
        contextlib.closing(found),
        progress_bar(total, "predicting", "file", shown=total > 1, keep=False) as bar,
    ):
        bar.update(done)
        for source, file, prediction in zip(sources, annotated, found, strict=True):
            show(prediction)
            if file is not None and prediction.status != "unreadable":
                drawn = predictions.with_groups(prediction)
                annotate(source, file, drawn if arguments.groups else prediction)
            statuses[prediction.status] += 1
            filled += predictions.is_nearly_all_face(prediction)
            bar.update()
    if statuses["no_face"] and not arguments.whole_image:
        _note(
            f"no face found in {statuses['no_face']} of {len(sources)} files: if they "
            "are face crops, use --whole-image"
            + ("" if arguments.try_rotations else "; on their side, --try-rotations")
        )
    if filled:
        _note(
            f"{filled} of {len(sources)} files are nearly all face, as crops are: the "
            "original photos may give better predictions (--whole-image uses a crop as "
            "it is if no face is found in it)"
        )
    if len(sources) > 1:
        _note(f"{_counts(statuses)}; {times}")
    return 1 if statuses["unreadable"] else 0


def _counts(statuses: Counter[str]) -> str:
    counted = ", ".join(f"{count} {name}" for name, count in statuses.most_common())
    return f"{statuses.total()} files: {counted}" if statuses else "0 files"


def _printer(
    format: str | None, count: int, metadata: Any, groups: bool = False
) -> Show:
    """Returns a function that prints predictions: as JSON, CSV, a table or text."""
    if format == "json":
        return lambda found: console.say(predictions.json_line(found.to_dict()))
    if format == "csv":
        columns = predictions.csv_columns(metadata)
        writer = csv.DictWriter(sys.stdout, columns, lineterminator="\n")
        writer.writeheader()
        return lambda found: writer.writerows(predictions.csv_rows(found.to_dict()))
    text = predictions.with_groups if groups else lambda found: found
    if count == 1:
        return lambda found: console.say(str(text(found)))
    console.say(predictions.table_heading())
    return lambda found: console.say("\n".join(predictions.table_lines(text(found))))


def _output_format(arguments: argparse.Namespace) -> str | None:
    """Returns `"json"`, `"csv"` or, for text, `None`."""
    if arguments.json or arguments.csv:
        return "json" if arguments.json else "csv"
    if arguments.out is None:
        return None
    suffix = Path(arguments.out).suffix.lower()
    if suffix not in predictions.OUTPUT_FORMATS:
        raise ValueError(
            "Invalid --out. Expected --json or --csv, or a file that ends in .jsonl, "
            f".json or .csv. Received: {arguments.out}."
        )
    return predictions.OUTPUT_FORMATS[suffix]


def _out_file(arguments: argparse.Namespace, sources: Sequence[Source]) -> Path | None:
    if arguments.out is None:
        return None
    out = Path(arguments.out)
    if out.is_dir():
        raise ValueError(f"Invalid --out. Expected a file. Received: {out}, a folder.")
    if out.resolve() in {Path(source.name).resolve() for source in sources}:
        raise ValueError(
            f"Invalid --out. Expected a file that is not one of the photos. Received: "
            f"{out}."
        )
    return out


def annotation_files(sources: Sequence[Source], target: Path) -> list[Path]:
    """Returns the file of each source's annotated image."""
    several = len(sources) > 1
    is_image = target.suffix.lower() in IMAGE_SUFFIXES and not target.is_dir()
    if several and (is_image or target.is_file()):
        raise ValueError(
            "Invalid --annotate. Expected a folder for several photos. Received: "
            f"{target}, one file for {len(sources)} photos."
        )
    is_folder = target.is_dir() or several or not (target.suffix or target.is_file())
    if not (is_image or is_folder):
        raise ValueError(
            "Invalid --annotate. Expected a folder, or a file that ends in "
            f"{', '.join(IMAGE_SUFFIXES)}. Received: {target}."
        )
    named: dict[Path, None] = {target: None} if is_image else {}
    for source in () if is_image else sources:
        stem, index = Path(source.name).stem, 1
        file = target / f"{stem}.png"
        while file in named:
            index += 1
            file = target / f"{stem}_{index}.png"
        named[file] = None
    photos = {Path(source.name).resolve() for source in sources}
    same = photos & {file.resolve() for file in named}
    if same:
        raise ValueError(
            "Invalid --annotate. Expected a file or folder other than the photo's. "
            f"Received: {target}; {same.pop()} would be overwritten."
        )
    return list(named)


def annotate(source: Source, file: Path, prediction: Any) -> None:
    """Writes a photo with its predictions; for a video an image for each person."""
    try:
        if source.is_video:
            _annotate_persons(source, file, prediction)
        else:
            _write_annotated(file, read_image(source.content), prediction)
    except UnreadableImageError as error:  # it was deleted or changed meanwhile
        _note(f"not annotated: {error}")


def _annotate_persons(source: Source, file: Path, video: Any) -> None:
    """Writes each person's best frame: NAME_1.png, NAME_2.png and so on."""
    from keras_agegender.faces.video import VideoReader

    wanted = dict(enumerate(video.faces, 1))
    for second, image in VideoReader(source.content, video.frames_per_second):
        for index, person in list(wanted.items()):
            if second >= person.best_second - 5e-4:  # rounded to a thousandth
                size = image.shape[:2]
                photo = predictions.PhotoPrediction(video.source, "ok", (person,), size)
                name = f"{file.stem}_{index}{file.suffix}"
                _write_annotated(file.with_name(name), image, photo)
                del wanted[index]
        if not wanted:
            return


def _write_annotated(file: Path, image: Any, prediction: Any) -> None:
    from PIL import Image

    from keras_agegender.serving.annotate import annotate_photo

    file.parent.mkdir(parents=True, exist_ok=True)
    annotated = annotate_photo(image, prediction)
    with files.atomic_write(file) as partial:
        Image.fromarray(annotated).save(partial)
    print(f"Annotated: {file}", file=sys.stderr)


def add_min_score(verb: argparse.ArgumentParser) -> None:
    """Adds `--min-score`."""
    verb.add_argument(
        "--min-score", type=console.probability, metavar="P",
        help=f"minimum confidence of a face, at least 0.8 [{MIN_SCORE:g}]",
    )  # fmt: skip


def add_predict(verbs: Any) -> None:
    """Adds `agegender predict`."""
    verb = console.add_verb(
        verbs, "predict", _predict, "age group and gender of the faces in photos"
    )
    verb.add_argument(
        "inputs", nargs="+", metavar="[MODEL] PHOTO",
        help="a run, an export of any format or a .keras file [the default model]; "
        "then photos, folders (searched recursively), globs or videos",
    )  # fmt: skip
    verb.add_argument("--model", help="the model (alternative to the first argument)")
    form = verb.add_mutually_exclusive_group()
    form.add_argument(
        "--json", action="store_true", help="print JSON Lines, one line per file"
    )
    form.add_argument(
        "--csv", action="store_true",
        help="print CSV, one row per face, or per person in a video",
    )  # fmt: skip
    verb.add_argument(
        "--out", metavar="FILE",
        help="write to a file (.jsonl, .csv); rerun the same command to resume",
    )  # fmt: skip
    verb.add_argument(
        "--annotate", metavar="PATH",
        help="save annotated photos to a folder, or to a file for a single photo",
    )  # fmt: skip
    verb.add_argument(
        "--try-rotations", action="store_true",
        help="search photos rotated by 90, 180 and 270 degrees too",
    )  # fmt: skip
    verb.add_argument(
        "--whole-image", action="store_true",
        help="use the whole photo if no face is found",
    )  # fmt: skip
    add_min_score(verb)
    verb.add_argument(
        "--groups", action="store_true",
        help="print and draw age groups instead of years",
    )  # fmt: skip
    verb.add_argument(
        "--all-outputs", action="store_true",
        help="also show auxiliary outputs, which only helped in training",
    )  # fmt: skip
    verb.add_argument(
        "--at-least", type=int, metavar="AGE",
        help="check the estimated age: print the probability of at least AGE years and "
        "whether the face looks at least as old as --threshold",
    )  # fmt: skip
    verb.add_argument(
        "--threshold", type=float, metavar="T",
        help="years that a face must look to pass, e.g. 25 for --at-least 18 "
        "[the age of --at-least]",
    )  # fmt: skip
    verb.add_argument(
        "--fps", type=console.positive_number, default=4.0, metavar="N",
        help="frames per second to use from a video [4]",
    )  # fmt: skip


# -- export and verify -----------------------------------------------------------------


def _export(arguments: argparse.Namespace) -> int:
    from keras_agegender.serving.export import export

    path = export(
        arguments.run_directory,
        arguments.out,
        license=arguments.license,
        format=arguments.format,
        input=arguments.input,
        crops=arguments.crops,
        batch_size=arguments.batch_size,
        report=console.say,
        overwrite=arguments.overwrite,
    )
    console.say(f"{formats.export_formats()[arguments.format].title}: {path}")
    return 0


def add_export(verbs: Any) -> None:
    """Adds `agegender export`."""
    verb = console.add_verb(
        verbs, "export", _export, "write a run's best model as a self-contained model"
    )
    verb.add_argument(
        "run_directory", metavar="RUN", help="a run, or a .keras file for another model"
    )
    verb.add_argument("--out", required=True, help="output folder or file")
    rows = formats.export_formats()
    titles = ", ".join(f"{name} ({row.title})" for name, row in rows.items())
    verb.add_argument(
        "--format", choices=list(rows), default=next(iter(rows)),
        help=f"{titles}. SavedModels and ONNX files find faces; LiteRT files take face "
        "crops. Only SavedModels require TensorFlow [%(default)s]",
    )  # fmt: skip
    verb.add_argument(
        "--input", choices=("photo", "crops"),
        help="what an ONNX file takes: a photo, whose faces it finds, or face crops "
        "[photo]",
    )  # fmt: skip
    verb.add_argument(
        "--crops", metavar="FOLDER",
        help="prepared dataset or folder of face crops to validate an exported file on "
        "[the run's dataset, if it still exists]",
    )  # fmt: skip
    verb.add_argument(
        "--batch-size", type=count, metavar="N",
        help="fixed number of crops of a LiteRT file, for GPU and NPU delegates [any]",
    )  # fmt: skip
    verb.add_argument(
        "--license", metavar="TEXT",
        help="license terms of the weights, stored in the export",
    )  # fmt: skip
    verb.add_argument(
        "--overwrite", action="store_true", help="replace an existing export"
    )


def _verify(arguments: argparse.Namespace) -> int:
    found = [files.verify(path) for path in arguments.paths]
    for verification in found:
        console.say(str(verification))
    return 1 if any(verification.differences for verification in found) else 0


def add_verify(verbs: Any) -> None:
    """Adds `agegender verify`."""
    verb = console.add_verb(
        verbs, "verify", _verify, "compare datasets, exports and runs with checksums"
    )
    verb.add_argument("paths", nargs="+", metavar="path", help="a folder or a file")


# -- serve and demo --------------------------------------------------------------------

port_number = console.whole_number("a port, from 0 (any free port) to 65535", 0, 65535)
count = console.whole_number("a positive integer", 1)


# Option of `serve` -> its default and help.
LIMITS = {
    "max_bytes": (20_000_000, "maximum bytes of a photo's file"),
    "max_pixels": (50_000_000, "maximum pixels of a photo"),
    "max_batch": (32, "maximum photos in a batch"),
    "max_waiting": (256, "maximum waiting photos, for each model"),
    "max_open_bytes": (256_000_000, "maximum bytes of all photos in progress"),
}


def _serve(arguments: argparse.Namespace) -> int:
    models = named_models(arguments.models)
    console.share_cores()
    from keras_agegender.serving.server import ServerLimits, run_server

    limits = {name: getattr(arguments, name) for name in (*LIMITS, "timeout")}
    run_server(
        models,
        arguments.host,
        arguments.port,
        limits=ServerLimits(**limits),
        access_log=arguments.access_log,
    )
    return 0


def named_models(paths: Sequence[str]) -> dict[str, Path]:
    """Returns the models by the names of their folders or files."""
    models: dict[str, Path] = {}
    for path in map(formats.find_model, paths or [str(formats.default_model())]):
        formats.check_model(path)
        name = path.resolve().name.removesuffix(".keras").removesuffix(".onnx")
        if name in models:
            raise ValueError(
                f"Invalid models. Expected different names. Received: {models[name]} "
                f"and {path}, both named {name}."
            )
        models[name] = path
    return models


def add_address_options(verb: argparse.ArgumentParser, port: int) -> None:
    """Adds MODEL, `--host` and `--port`, and the message when a signal stops it."""
    verb.set_defaults(interrupted="all received requests were completed")
    verb.add_argument(
        "models", nargs="*", metavar="MODEL",
        help="runs, exports or .keras files to serve [the default model]",
    )  # fmt: skip
    verb.add_argument(
        "--host", default="127.0.0.1",
        help="address; 0.0.0.0 allows access from other devices [%(default)s]",
    )  # fmt: skip
    verb.add_argument(
        "--port", type=port_number, default=port, help="port [%(default)s]"
    )


def add_serve(verbs: Any) -> None:
    """Adds `agegender serve`."""
    verb = console.add_verb(verbs, "serve", _serve, "predict photos over HTTP")
    add_address_options(verb, 8000)
    for name, (default, text) in LIMITS.items():
        verb.add_argument(
            f"--{name.replace('_', '-')}", type=count, default=default, metavar="N",
            help=f"{text} [%(default)s]",
        )  # fmt: skip
    verb.add_argument(
        "--timeout", type=console.positive_number, default=30.0, metavar="SECONDS",
        help="timeout for receiving a photo, and for predicting it [%(default)s]",
    )  # fmt: skip
    verb.add_argument("--access-log", action="store_true", help="log each request")


def _demo(arguments: argparse.Namespace) -> int:
    models = named_models(arguments.models)
    console.share_cores()
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
    verb = console.add_verb(
        verbs,
        "demo",
        _demo,
        "a page in the browser that predicts photos",
    )
    add_address_options(verb, 7860)
    verb.add_argument(
        "--no-browser", action="store_true", help="do not open the browser"
    )
