"""Reports: one page per evaluated run, for people.

In: what `evaluate` and `train` left in the run directory. Out: one HTML file that needs
no other, and beside it its figures as PNG and its tables as CSV files.
"""

from __future__ import annotations

import importlib.resources
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from keras_agegender.datasets.prepared import PreparedDataset
from keras_agegender.evaluation.confusion_plot import plot_confusion_matrices
from keras_agegender.evaluation.evaluate import file_suffix, open_data
from keras_agegender.evaluation.figures import COLORS
from keras_agegender.evaluation.group_lines import scored_questions
from keras_agegender.evaluation.metrics_table import UNKNOWN_FACES
from keras_agegender.evaluation.mistakes import confident_mistakes, read_pictures
from keras_agegender.evaluation.one_class import one_class_warnings
from keras_agegender.evaluation.predictions import read_predictions
from keras_agegender.evaluation.question_answers import read_question_answers
from keras_agegender.evaluation.report_facts import loss_weights_text, run_facts
from keras_agegender.evaluation.report_figures import (
    draw_curves,
    draw_groups,
    draw_reliability,
    file_name,
)
from keras_agegender.evaluation.report_pictures import (
    chosen_faces,
    mistake_cards,
    occlusion_pictures,
)
from keras_agegender.evaluation.report_tables import (
    confusion_rows,
    confusion_tables,
    coverage_table,
    gap_sentences,
    group_table,
    score_table,
)
from keras_agegender.files import read_json, replacing, write_text
from keras_agegender.run_directory import RunDirectory

TEMPLATE = "report.html.jinja"
REPORT_FILE = "report.html"


@dataclass
class _Evaluated:
    """What an evaluation left, and where its pictures are."""

    run: RunDirectory
    metrics: dict[str, Any]
    predictions: pd.DataFrame
    split: str
    checkpoint: str
    folder: Path
    data: PreparedDataset | None = None
    without_pictures: str = ""
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)


def write_report(
    run: RunDirectory | str | Path,
    data: PreparedDataset | str | Path | None = None,
    *,
    split: str = "test",
    checkpoint: str = "best",
    out: str | Path | None = None,
    pictures: bool = True,
    explain: int = 0,
) -> Path:
    """Writes a page about a run from what `evaluate` left: scores, groups, mistakes.

    It opens with the groups of people that fare worst. The page needs no network and no
    other file. Its figures lie as PNG and its tables as CSV files in `report/` in the
    run directory, which is named after dataset and split as metrics.json is.

    Args:
        run: A run or its directory; `evaluate` has scored it.
        data: Dataset that it was scored on, or its directory; `None` takes the one
            trained on, of which only pictures of faces are read.
        split: Split that it was scored on. Defaults to `"test"`.
        checkpoint: Which of the run's models was scored. Defaults to `"best"`.
        out: HTML file to write, whole or not at all; its folder is made. `None`
            (default) is `report.html` beside figures and tables.
        pictures: Whether faces that are answered wrong are shown, with their keys.
            Defaults to `True`; `False` is for data that must not be passed on.
        explain: Faces to draw occlusion maps of; each takes some seconds. Defaults to
            0.

    Returns:
        The HTML file.

    Raises:
        ValueError: If the run was not evaluated so, its predictions are of an older
            version, or maps are asked for without pictures.

    Example:
    >>> write_report("runs/1", pictures=False)  # doctest: +SKIP
    PosixPath('runs/1/report/report.html')
    """
    if explain < 0 or (explain and not pictures):
        raise ValueError(
            "Invalid `explain`. Expected a number of faces, 0 or more, and pictures of "
            f"faces to be allowed. Received: explain={explain}, pictures={pictures}."
        )
    if not isinstance(run, RunDirectory):
        run = RunDirectory.open(run)
    found = _read(run, data, split, checkpoint, pictures)
    file = found.folder / REPORT_FILE if out is None else Path(out)
    found.folder.mkdir(exist_ok=True)
    file.parent.mkdir(parents=True, exist_ok=True)
    page = _render(_context(found, explain))
    for name, table in found.tables.items():
        with replacing(found.folder / f"{name}.csv") as partial:
            table.to_csv(partial, index=name.startswith("confusion"))
    write_text(file, page)
    return file


def check_evaluated(
    run: RunDirectory, suffix: str = "", split: str = "test"
) -> tuple[Path, Path]:
    """Returns an evaluation's metrics and predictions.

    Raises:
        ValueError: If one of the files is not there.
    """
    files = tuple(run.path / f"{n}{suffix}" for n in ("metrics", "predictions"))
    metrics, predictions = files[0].with_suffix(".json"), files[1].with_suffix(".csv")
    for file in (metrics, predictions):
        if not file.is_file():
            raise ValueError(
                f"The run in {run.path} has no {file.name}: it was not evaluated on "
                f"{split!r} yet. `agegender evaluate {run.path}` writes it."
            )
    return metrics, predictions


def _read(
    run: RunDirectory,
    data: PreparedDataset | str | Path | None,
    split: str,
    checkpoint: str,
    pictures: bool,
) -> _Evaluated:
    prepared, same, reason = None, True, ""
    if data is not None:
        prepared, same = open_data(run, data)
    splits = run.info()["splits"] if same or prepared is None else prepared.splits
    split = splits.get(split, split)
    suffix = file_suffix(run, split, checkpoint, None if same else prepared)
    metrics, predictions = check_evaluated(run, suffix, split)
    table = read_predictions(predictions)
    if not pictures:
        prepared, reason = None, "Pictures and keys of faces were left out on request."
    elif prepared is None:
        try:
            prepared, _ = open_data(run, None)
        except ValueError as error:
            reason = f"There are no pictures of faces: {error}"
    return _Evaluated(
        run,
        read_json(metrics),
        table,
        split,
        checkpoint,
        run.path / f"report{suffix}",
        prepared,
        reason,
    )


def _context(found: _Evaluated, explain: int) -> dict[str, Any]:
    """Returns everything that the template shows; draws the figures on the way."""
    run, metrics, folder = found.run, found.metrics, found.folder
    answers = read_question_answers(found.predictions, run.encoding())
    subjects = found.predictions.get("subject")
    scores = found.tables["scores"] = score_table(metrics)
    reliability, bins = draw_reliability(answers, subjects, metrics, folder)
    found.tables["reliability"] = bins
    confusions = confusion_tables(metrics, answers)
    plot_confusion_matrices(metrics, folder / "confusion.png")
    found.tables |= {f"confusion_{file_name(n)}": t for n, t in confusions.items()}
    return {
        "title": run.recipe().title or run.recipe().name or "A run",
        "facts": run_facts(run, found.checkpoint, metrics, found.split),
        "metrics": metrics,
        "unknown_faces": UNKNOWN_FACES,
        "one_class": one_class_warnings(metrics),
        "split": found.split,
        "groups": _groups(found),
        "scores": _records(scores),
        "curves": draw_curves(run, folder),
        "loss_weights": loss_weights_text(run),
        "confusions": {
            name.replace("_", " "): {
                "names": [*table.columns],
                "rows": confusion_rows(table),
            }
            for name, table in confusions.items()
        },
        "reliability": reliability,
        "num_diagrams": len(answers),
        **_calibration(found),
        **_faces(found, answers, explain),
        "without_pictures": found.without_pictures,
        "folder": folder.name,
        "accent": COLORS[0],
    }


def _groups(found: _Evaluated) -> list[dict[str, Any]]:
    blocks = []
    for columns, scored in (found.metrics.get("groups") or {}).items():
        table = group_table(columns, scored)
        if table.empty:
            continue
        found.tables[f"groups_{file_name(columns)}"] = table
        blocks.append(
            {
                "title": columns.replace(",", " × ").replace("_", " "),
                "questions": scored_questions(scored),
                "rows": _records(table),
                "gaps": [*gap_sentences(scored)],
                "num_unlabelled": scored["num_unlabelled"],
                "few_faces": scored["few_faces"],
                "few_subjects": scored["few_subjects"],
                "pictures": draw_groups(columns, scored, found.metrics, found.folder),
            }
        )
    return blocks


def _calibration(found: _Evaluated) -> dict[str, Any]:
    calibration = found.metrics.get("calibration")
    if not calibration:
        return {"calibration": None, "coverage": {}}
    table = found.tables["coverage"] = coverage_table(calibration)
    blocks = {
        str(name): _records(part)
        for name, part in table.groupby("question", sort=False)
    }
    return {"calibration": calibration, "coverage": blocks}


def _faces(found: _Evaluated, answers: list[Any], explain: int) -> dict[str, Any]:
    """Returns the surest mistakes about gender and age group, or else further heads."""
    asked = [a for a in answers if a.name in ("gender", "age_group")] or answers[:2]
    mistakes = confident_mistakes(asked, found.predictions.index)
    found.tables["mistakes"] = mistakes.drop(columns="key")  # a key may name somebody
    pictures = None
    if found.data is not None:
        found.tables["mistakes"] = mistakes
        pictures = read_pictures(found.data, found.split, mistakes["key"])
    maps = []
    if pictures is not None and explain:
        chosen = chosen_faces(mistakes, explain)
        maps = occlusion_pictures(
            found.run, found.checkpoint, chosen, answers, pictures
        )
    return {
        "mistakes": mistake_cards(mistakes, pictures),
        "num_wrong": {a.name.replace("_", " "): int(a.wrong.sum()) for a in asked},
        "num_faces_shown": len(pictures or ()),
        "maps": maps,
    }


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Returns rows as dicts, with `None` for NaN, which a template can ask for."""
    cleaned = table.astype(object).where(table.notna(), None)
    return [{str(k): v for k, v in row.items()} for row in cleaned.to_dict("records")]


def _render(context: Mapping[str, Any]) -> str:
    import jinja2

    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["figure"] = _figure
    text = importlib.resources.files(__package__).joinpath(TEMPLATE).read_text("utf-8")
    return environment.from_string(text).render(context)


def _figure(value: Any, digits: int = 3) -> str:
    return "–" if value is None else f"{value:.{digits}f}"
