"""`agegender predict`: photos, folders and videos in; a table, JSON or CSV out."""

from __future__ import annotations

import argparse
import contextlib
import csv
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from keras_agegender.cli.annotations import annotate, annotation_files
from keras_agegender.cli.argument_types import positive_number
from keras_agegender.cli.checks import choose_model
from keras_agegender.cli.console import add_verb, load_frameworks, say, share_cores
from keras_agegender.files import lock_beside, only_writer
from keras_agegender.progress import progress_bar
from keras_agegender.quiet import quiet_pictures
from keras_agegender.run_directory import RunDirectory
from keras_agegender.serving.answering_model import model_identity
from keras_agegender.serving.photo_sources import Source, find_sources

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
    from keras_agegender.serving.answer_file import AnswerFile

    request = {
        "model": model_identity(model),
        "whole_image": arguments.whole_image,
        "frames_per_second": arguments.fps,
    }
    refusal = f"Another process predicts into {out}. Choose another file."
    with (
        only_writer(lock_beside(out), refusal),
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
    from keras_agegender.serving.prediction_times import PredictionTimes

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
    from keras_agegender.serving.answer_tables import (
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
    from keras_agegender.serving.answer_file import form_of

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
