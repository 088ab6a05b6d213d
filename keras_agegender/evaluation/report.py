"""The report: one HTML page about a run."""

from __future__ import annotations

import base64
import importlib.resources
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from keras_agegender.datasets.prepared import PreparedDataset
from keras_agegender.evaluation.calibration import all_probabilities
from keras_agegender.evaluation.evaluate import file_suffix, open_data
from keras_agegender.evaluation.groups import few_further, group_title
from keras_agegender.evaluation.plots import (
    COLORS,
    decoded_history,
    history_panels,
    plot_confusion_matrices,
    plot_groups,
    plot_history,
    plot_reliability,
    reliability_bins,
)
from keras_agegender.evaluation.predictions import (
    QuestionAnswers,
    confident_mistakes,
    read_pictures,
    read_predictions,
    read_question_answers,
    thumbnail,
)
from keras_agegender.evaluation.scores import (
    UNKNOWN_FACES,
    one_class_warnings,
    scored_questions,
)
from keras_agegender.files import atomic_write, read_json, write_text
from keras_agegender.labels import GENDERS, MISSING
from keras_agegender.run_directory import RunDirectory


def run_facts(
    run: RunDirectory, checkpoint: str, metrics: Mapping[str, Any], split: str
) -> list[tuple[str, str]]:
    """Returns where scores come from: what was trained on what, and chosen how.

    Args:
        run: A run.
        checkpoint: Which of its models was scored.
        metrics: What metrics.json holds.
        split: The split expression that was scored.

    Returns:
        (name, fact) of everything that is known.
    """
    info, recipe = run.info(), run.recipe()
    model = f"{recipe.model.backbone}, encoding {recipe.model.encoding}"
    if recipe.model.image_size:
        model += ", {} × {} pixels".format(*recipe.model.image_size)
    trained = f"{info.get('data_name') or info.get('data', '')}"
    splits = ", ".join(f"{k}: {v}" for k, v in info.get("splits", {}).items())
    facts = {
        "Recipe": recipe.name,
        "Model": model,
        "Scored on": f"{metrics['data']}, split {split}: "
        f"{metrics['num_faces']:,} faces",
        "Trained on": f"{trained} ({splits})" if splits else trained,
        "Begun with": info.get("initialized_from", ""),
        "Seed": info.get("seed", ""),
        "Model kept": _kept(run, checkpoint),
        "Trained": _duration(info),
        "Versions": ", ".join(
            f"{name} {version}"
            for name, version in info.get("versions", {}).items()
            if name in ("keras-agegender", "keras", "tensorflow", "python")
        ),
        "Data": str(info.get("data_sha256") or "")[:12],
        "Experiment": str(run.identity or "")[:12],
    }
    return [(name, str(fact)) for name, fact in facts.items() if fact not in ("", None)]


def _kept(run: RunDirectory, checkpoint: str) -> str:
    epochs = run.recipe().training.epochs
    if checkpoint == "last":
        return f"last, epoch {epochs} of {epochs}"
    try:
        kept = run.checkpoint_info(checkpoint)
    except ValueError:  # of a run that wrote none
        return checkpoint
    sign = {"max": "highest", "min": "lowest"}.get(str(kept.get("mode")), "best")
    value = kept.get("value")
    shown = "" if value is None else f" ({value:.4f})"
    return (
        f"{checkpoint}, epoch {kept['epoch'] + 1} of {epochs}: {sign} "
        f"{kept['monitor']}{shown}"
    )


def _duration(info: Mapping[str, Any]) -> str:
    started, finished = info.get("started"), info.get("finished")
    if not started or not finished:
        return str(started or "")[:10]
    begin, end = map(datetime.fromisoformat, (started, finished))
    minutes = round((end - begin).total_seconds() / 60)
    took = f"{minutes} min" if minutes < 120 else f"{minutes / 60:.1f} h"
    return f"{begin:%Y-%m-%d}, finished after {took}"


def loss_weights_text(run: RunDirectory) -> str:
    """Returns the loss weights that training began with, in words."""
    weights = run.encoding().loss_weights
    if len(set(weights.values())) == 1:
        return f"{next(iter(weights.values())):g} for every output"
    return ", ".join(f"{name} {value:g}" for name, value in weights.items())


MOST_DIAGRAMS = 12  # of forty attributes the table has the others
_PANELS = {
    "loss": "Loss of training and validation faces over epochs",
    "accuracy": "Accuracies on validation faces over epochs",
    "weights": "Loss weights in force over epochs",
}


@dataclass(frozen=True)
class Picture:
    """A picture inside a page.

    Attributes:
        source: `data:` URI.
        alt: What is on it, for those who do not see it.
        caption: What stands below it.
    """

    source: str
    alt: str
    caption: str = ""


def embed(content: bytes, alt: str, caption: str = "", kind: str = "png") -> Picture:
    """Returns a PNG or JPEG picture that needs no file."""
    text = base64.b64encode(content).decode("ascii")
    return Picture(f"data:image/{kind};base64,{text}", alt, caption)


def draw_curves(run: RunDirectory, folder: Path) -> list[Picture]:
    """Draws what history.csv has, a picture for each panel; none without a history."""
    if not run.history_file.is_file() or not run.history_file.read_text("utf-8"):
        return []
    history = decoded_history(run.history_file, run.encoding())
    pictures = []
    for panel in history_panels(history):
        path = plot_history(
            history,
            folder / f"curves_{panel}.png",
            outputs=run.encoding().output_names,
            kept_epoch=run.kept_epoch,
            only=panel,
        )
        alt = f"{_PANELS[panel]}."
        if run.kept_epoch is not None:
            alt += f" The model of epoch {run.kept_epoch + 1} was kept."
        pictures.append(embed(path.read_bytes(), alt))
    return pictures


def draw_groups(
    columns: str, found: Mapping[str, Any], metrics: Mapping[str, Any], folder: Path
) -> list[Picture]:
    """Draws the bars of one grouping, a picture for each question; for few of them."""
    pictures = []
    further = metrics.get("extra") or {}
    for question in few_further(scored_questions(found)):
        scores = metrics.get("age" if question == "age_group" else question) or {}
        scores = scores or further.get(question) or {}
        path = plot_groups(
            found,
            folder / f"groups_{file_name(columns)}_{question}.png",
            columns=columns,
            question=question,
            overall=scores.get("accuracy"),
        )
        ranked = sorted(
            (g for g in found["groups"] if g[f"{question}_accuracy"] is not None),
            key=lambda group: group[f"{question}_accuracy"],
        )
        ends = [
            f"{group_title(group, columns.split(','))} "
            f"{group[f'{question}_accuracy']:.3f}"
            for group in (ranked[0], ranked[-1])
        ]
        alt = (
            f"Bars with intervals: {question.replace('_', ' ')} accuracy of "
            f"{len(ranked)} groups, lowest {ends[0]}, highest {ends[1]}."
        )
        pictures.append(embed(path.read_bytes(), alt))
    return pictures


def draw_reliability(
    answers: Sequence[QuestionAnswers],
    subjects: Any,
    metrics: Mapping[str, Any],
    folder: Path,
) -> tuple[list[Picture], pd.DataFrame]:
    """Draws the diagrams of the first 12 questions; returns the bins of all."""
    pictures: list[Picture] = []
    tables = []
    for question in answers:
        bins = reliability_bins(
            question.probabilities, question.truth, subjects=subjects
        )
        tables.append(bins.assign(question=question.name))
        if len(pictures) == MOST_DIAGRAMS:
            continue
        error = _calibration_error(question.name, metrics)
        path = plot_reliability(
            bins,
            folder / f"reliability_{file_name(question.name)}.png",
            title=question.title,
            calibration_error=error,
        )
        shown = "" if error is None else f" Expected calibration error {error:.3f}."
        alt = (
            f"Reliability diagram of {question.title.lower()}: share that is right "
            f"over confidence, of {int(bins['num_faces'].sum()):,} faces.{shown}"
        )
        pictures.append(embed(path.read_bytes(), alt))
    table = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()
    return pictures, table


def _calibration_error(name: str, metrics: Mapping[str, Any]) -> float | None:
    scores = metrics.get("age" if name == "age_group" else name)
    if name in ("age_group", "gender") and scores:
        return scores.get("expected_calibration_error")
    calibration = metrics.get("calibration") or {}
    return calibration.get("answers", {}).get(name, {}).get("ece")


def file_name(text: str) -> str:
    """Returns the name of one or more columns as part of a file's name.

    No two share one: commas become `+`; whatever is no letter, digit, `_`, `-` or `.`
    becomes its number between `%`.
    """
    escaped = (c if c.isalnum() or c in "_-.," else f"%{ord(c):x}%" for c in text)
    return "".join(escaped).replace(",", "+")


STEPS = 12  # places along a side
SQUARE = 0.25  # side of the square, as a share of the picture's
SMALLEST_SCALE = 0.02  # smaller changes of a probability are drawn as what they are


def occlusion_map(
    image: Any,
    probability: Callable[[np.ndarray], np.ndarray],
    *,
    steps: int = STEPS,
    square: float = SQUARE,
) -> np.ndarray:
    """Returns how much the probability of an answer falls where a picture is covered.

    Args:
        image: A model's input. Shape (height, width, channels).
        probability: Takes such images, shape (batch, height, width, channels), and
            returns the probability of the answer for each. Shape (batch,).
        steps: Places along each side, 2 or more. Defaults to 12.
        square: Side of the square as a share of the picture's, in (0, 1]. Defaults to
            0.25.

    Returns:
        Fall of the probability at each place: above 0 where the answer needs what is
        there, below 0 where it speaks against it. Shape (steps, steps).

    Raises:
        ValueError: If the image or an option is impossible.

    Example:
    >>> image = np.zeros((8, 8, 1)); image[0, 0] = 1.0
    >>> found = occlusion_map(image, lambda x: x.max((1, 2, 3)), steps=2, square=0.5)
    >>> found.round(2).tolist()  # covered by the mean of all pixels, 1 / 64
    [[0.98, 0.0], [0.0, 0.0]]
    """
    image = np.asarray(image)
    if image.ndim != 3:
        raise ValueError(
            "Invalid `image`. Expected shape (height, width, channels). Received: "
            f"shape {image.shape}."
        )
    if steps < 2 or not 0 < square <= 1:
        raise ValueError(
            "Invalid `steps` or `square`. Expected 2 or more, and a share in (0, 1]. "
            f"Received: steps={steps}, square={square}."
        )
    height, width = image.shape[:2]
    sides = [max(1, round(square * side)) for side in (height, width)]
    tops, lefts = (
        np.linspace(0, side - covered, steps).round().astype("int64")
        for side, covered in zip((height, width), sides, strict=True)
    )
    covered = np.repeat(image[None], steps * steps + 1, axis=0)  # the last one is whole
    gray = image.mean(axis=(0, 1))
    for place in range(steps * steps):
        top, left = tops[place // steps], lefts[place % steps]
        covered[place, top : top + sides[0], left : left + sides[1]] = gray
    found = np.asarray(probability(covered), "float64")
    return (found[-1] - found[:-1]).reshape(steps, steps)


def draw_occlusion(picture: np.ndarray, fall: np.ndarray, size: int = 224) -> Any:
    """Returns a picture with its occlusion map over it, red where the answer falls.

    Args:
        picture: RGB. Shape (height, width, 3), uint8.
        fall: What `occlusion_map` returned.
        size: Side of the result in pixels. Defaults to 224.

    Returns:
        RGB picture. Shape (size, size, 3), uint8.
    """
    import matplotlib
    from PIL import Image

    base = Image.fromarray(picture).resize((size, size), Image.Resampling.LANCZOS)
    reach = max(float(np.abs(fall).max()), SMALLEST_SCALE)
    scaled = Image.fromarray((fall / reach).astype("float32"))
    values = np.asarray(scaled.resize((size, size), Image.Resampling.BICUBIC))
    colors = matplotlib.colormaps["RdBu_r"](np.clip(values, -1, 1) / 2 + 0.5)[..., :3]
    # Where nothing depends on, the picture is gray and itself.
    opacity = 0.65 * np.clip(np.abs(values), 0, 1)[..., None]
    gray = np.asarray(base.convert("L"), "float32")[..., None].repeat(3, axis=2)
    mixed = (1 - opacity) * gray + opacity * 255 * colors
    return mixed.round().astype("uint8")


GONE = "data:image/gif;base64,R0lGODlhAQABAIAAAOTk5AAAACwAAAAAAQABAAACAkQBADs="


def mistake_cards(
    mistakes: pd.DataFrame, pictures: Mapping[str, np.ndarray] | None
) -> dict[str, list[dict[str, Any]]]:
    """Returns the mistakes of each question, with thumbnails.

    Args:
        mistakes: What `confident_mistakes` returned.
        pictures: What `read_pictures` returned; `None` for no pictures and no keys,
            which may name people too.
    """
    cards: dict[str, list[dict[str, Any]]] = {}
    for row in mistakes.to_dict("records"):
        card = {**row, "picture": None}
        if pictures is None:
            card.pop("key")
        else:
            alt = (
                f"Face that is {row['true']}, answered {row['answered']} with "
                f"probability {row['probability']:.3f}"
            )
            found = pictures.get(row["key"])
            card["picture"] = (
                Picture(GONE, f"{alt}; its picture is not in the dataset")
                if found is None
                else embed(thumbnail(found), alt, kind="jpeg")
            )
        cards.setdefault(row["question"].replace("_", " "), []).append(card)
    return cards


def chosen_faces(mistakes: pd.DataFrame, count: int) -> pd.DataFrame:
    """Returns the surest mistakes, of each question in turn, each face once."""
    turn = mistakes.groupby("question", sort=False).cumcount()
    order = turn.sort_values(kind="stable").index
    return mistakes.loc[order].drop_duplicates("key").head(count)


def occlusion_pictures(
    run: RunDirectory,
    checkpoint: str,
    mistakes: pd.DataFrame,
    answers: Sequence[QuestionAnswers],
    pictures: Mapping[str, np.ndarray],
) -> list[Picture]:
    """Returns occlusion maps of faces, each for the answer that is wrong about it.

    Args:
        run: A run.
        checkpoint: Which of its models.
        mistakes: Rows of `confident_mistakes`.
        answers: What was answered to each question.
        pictures: Key -> stored picture.
    """
    from keras_agegender.datasets.pipeline import (
        checked_image_size,
        preprocess_for_evaluation,
    )

    recipe, encoding = run.recipe(), run.encoding()
    size = checked_image_size(recipe.model.image_size, recipe.data.pipeline)
    model = run.load_model(checkpoint)
    calibration = run.calibration() if checkpoint == "best" else None
    classes = {question.name: question.classes for question in answers}
    found = []
    for row in mistakes.to_dict("records"):
        if row["key"] not in pictures:
            continue
        picture = pictures[row["key"]]
        answered = classes[row["question"]].index(row["answered"])

        def probability(
            images: np.ndarray, name: str = row["question"], answer: int = answered
        ) -> np.ndarray:
            outputs = model.predict(images, verbose=0)
            if calibration is not None:
                outputs = calibration.apply(outputs, encoding)
            return all_probabilities(outputs, encoding)[name][:, answer]

        image = preprocess_for_evaluation(picture, size, recipe.data.pipeline).numpy()
        fall = occlusion_map(image, probability)
        shown = (image * 255).round().astype("uint8")
        alt = (
            f"Occlusion map of a face that is {row['true']}, answered "
            f"{row['answered']}; covering a part lowers the probability by "
            f"{max(float(fall.max()), 0):.3f} at most"
        )
        caption = (
            f"{row['answered']} ({row['probability']:.3f}), true {row['true']}; "
            f"covered it falls to {row['probability'] - max(float(fall.max()), 0):.3f}"
        )
        found.append(
            embed(_jpeg(draw_occlusion(shown, fall)), alt, caption, kind="jpeg")
        )
    return found


def _jpeg(picture: np.ndarray) -> bytes:
    from PIL import Image

    with io.BytesIO() as stream:
        Image.fromarray(picture).save(stream, format="JPEG", quality=88)
        return stream.getvalue()


MOST_CLASSES = 20  # a larger confusion matrix is no table that anybody reads
# "Blues" from white to its dark end, as `plot_confusion_matrices` has it.
_DARKEST, _WHITE_TEXT = (8, 69, 148), 0.55


class Figure(NamedTuple):
    """A figure of metrics.json: its name there, what it is called, which is better."""

    name: str
    title: str
    lower_is_better: bool = False


_PROBABILITIES = (
    Figure("negative_log_likelihood", "−log likelihood", True),
    Figure("brier_score", "Brier score", True),
    Figure("expected_calibration_error", "calibration error (ECE)", True),
)
FIGURES: dict[str, tuple[Figure, ...]] = {
    "gender": (
        Figure("accuracy", "accuracy"),
        Figure("balanced_accuracy", "mean recall of the classes"),
        Figure("f1", "F1"),
        Figure("auc", "area under the ROC curve"),
        *_PROBABILITIES,
    ),
    "age": (
        Figure("accuracy", "accuracy"),
        Figure("balanced_accuracy", "mean recall of the classes"),
        Figure("one_off_accuracy", "right or a neighboring group"),
        Figure("all_heads_accuracy", "all age heads right"),
        Figure("quadratic_kappa", "quadratic kappa"),
        Figure("mean_absolute_error", "mean error in groups", True),
        Figure("mean_absolute_error_years", "mean error in years", True),
        Figure("cumulative_score_5", "within 5 years"),
        Figure("rank_violation_rate", "age heads contradict each other", True),
        *_PROBABILITIES,
    ),
}


def score_table(metrics: Mapping[str, Any]) -> pd.DataFrame:
    """Returns every score beside what always giving the commonest answer would reach.

    Args:
        metrics: What metrics.json holds.

    Returns:
        `question`, `figure`, `value`, `low` and `high` (95 % over people; NaN where
        there is no interval), `majority` (NaN where that has no such figure),
        `majority_answer`, `beaten` (whether the model is better; `None` where there is
        nothing to compare) and `num_faces`.
    """
    rows = []
    for question, figures in FIGURES.items():
        scores = metrics.get(question)
        if not scores:
            continue
        majority = scores.get("majority") or {}
        for name, title, lower in figures:
            if scores.get(name) is None:
                continue
            faces = "num_faces_with_years" if "years" in title else "num_faces"
            if name == "f1":
                title = f"{title} of {scores['positive']}"
            rows.append(
                _score_row(
                    "age group" if question == "age" else question,
                    title,
                    scores[name],
                    majority.get(name),
                    majority.get("answer", ""),
                    lower,
                    scores[faces],
                    (scores.get("intervals") or {}).get(name),
                )
            )
    for name, scores in (metrics.get("extra") or {}).items():
        for figure, title, lower in (
            ("accuracy", "accuracy", False),
            ("mean_absolute_error", "mean error", True),
        ):
            if scores.get(figure) is None:
                continue
            majority = scores.get("majority_accuracy") if not lower else None
            rows.append(
                _score_row(
                    name,
                    title,
                    scores[figure],
                    majority,
                    "",
                    lower,
                    scores["num_faces"],
                )
            )
    columns = [
        "question", "figure", "value", "low", "high", "majority", "majority_answer",
        "beaten", "num_faces",
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=columns)


def _score_row(
    question: str,
    title: str,
    value: float,
    majority: float | None,
    answer: str,
    lower: bool,
    faces: int,
    interval: Sequence[float] | None = None,
) -> tuple[Any, ...]:
    beaten = None
    if majority is not None:
        beaten = value < majority if lower else value > majority
    ends = (None, None) if interval is None else tuple(interval)
    return question, title, value, *ends, majority, answer, beaten, faces


def group_table(columns: str, found: Mapping[str, Any]) -> pd.DataFrame:
    """Returns the groups of one grouping, the worst first.

    Args:
        columns: Its name: `"age_group,gender"`, for instance.
        found: What `score_groups` returned for it.

    Returns:
        `group`, `num_faces`, `num_subjects`, `few`, and for each question
        `<question>_accuracy`, `<question>_low` and `<question>_high`.
    """
    rows = []
    for group in found["groups"]:
        row = {
            "group": group_title(group, columns.split(",")),
            "num_faces": group["num_faces"],
            "num_subjects": group["num_subjects"],
            "few": group["few"],
        }
        for question in scored_questions(found):
            low, high = group[f"{question}_interval"] or (None, None)
            row[f"{question}_accuracy"] = group[f"{question}_accuracy"]
            row |= {f"{question}_low": low, f"{question}_high": high}
        rows.append(row)
    return pd.DataFrame(rows)


def gap_sentences(found: Mapping[str, Any]) -> Iterator[str]:
    """Yields how far the worst group is behind the best, one sentence a question."""
    for question in few_further(scored_questions(found)):
        if question not in found["gaps"]:
            continue
        gap = found["gaps"][question]
        ends = gap["interval"]
        shown = f" (95 % interval {ends[0]:.3f} to {ends[1]:.3f})" if ends else ""
        yield (
            f"{question.replace('_', ' ').capitalize()}: {gap['worst']} is "
            f"{gap['value']:.3f}{shown} behind {gap['best']}."
        )


def confusion_tables(
    metrics: Mapping[str, Any], answers: Sequence[QuestionAnswers]
) -> dict[str, pd.DataFrame]:
    """Returns faces by true (row) and answered (column) class, of each question.

    Gender and age group are those of metrics.json; further heads, up to 20 classes,
    are counted from their answers.
    """
    tables = {}
    for name, key in (("gender", "gender"), ("age_group", "age")):
        if metrics.get(key):
            scores = metrics[key]
            names: Sequence[str] = GENDERS
            if key == "age":
                names = [group["name"] for group in scores["groups"]]
            tables[name] = pd.DataFrame(scores["confusion"], names, names)
    for question in answers:
        if question.name in tables or len(question.classes) > MOST_CLASSES:
            continue
        counts = np.zeros((len(question.classes),) * 2, "int64")
        known = question.truth != MISSING
        np.add.at(counts, (question.truth[known], question.answer[known]), 1)
        tables[question.name] = pd.DataFrame(counts, question.classes, question.classes)
    return tables


def confusion_rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Returns a confusion matrix with shares of the true class and their colors."""
    rows = []
    counts = table.to_numpy()
    for place, name in enumerate(table.index):
        total = int(counts[place].sum())
        cells = []
        for column, count in enumerate(counts[place]):
            share = float(count / total) if total else 0.0
            cells.append(
                {
                    "count": int(count),
                    "share": share,
                    "color": shade(share),
                    "ink": "#ffffff" if share > _WHITE_TEXT else "#222222",
                    "right": column == place,
                }
            )
        rows.append({"name": name, "total": total, "cells": cells})
    return rows


def shade(share: float) -> str:
    """Returns a blue as CSS has it: white for 0, the darkest for 1."""
    levels = [round(255 + (end - 255) * share) for end in _DARKEST]
    return "#" + "".join(f"{level:02x}" for level in levels)


def coverage_table(calibration: Mapping[str, Any]) -> pd.DataFrame:
    """Returns how often sets of answers hold the truth: of all faces, and of groups.

    Args:
        calibration: What `calibration_scores` returned.

    Returns:
        `question`, `of` (`"all"`, `"age_group"`, `"gender"`), `group`, `num_faces`,
        `coverage` and `mean_size`; groups without a face are left out.
    """
    rows = []
    for question, found in calibration["sets"].items():
        everyone = {**found, "of": "all", "name": "all faces"}
        for group in (everyone, *found["groups"]):
            if group["num_faces"]:
                rows.append(
                    {
                        "question": question.replace("_", " "),
                        "of": group["of"],
                        "group": group["name"],
                        "num_faces": group["num_faces"],
                        "coverage": group["coverage"],
                        "mean_size": group["mean_size"],
                    }
                )
    columns = ["question", "of", "group", "num_faces", "coverage", "mean_size"]
    return pd.DataFrame(rows, columns=columns)


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
        with atomic_write(found.folder / f"{name}.csv") as partial:
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
