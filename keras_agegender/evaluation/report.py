"""The report: one HTML page about an evaluated run."""

from __future__ import annotations

import base64
import importlib.resources
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from PIL import Image

from keras_agegender.datasets.prepared import PreparedDataset, load_prepared
from keras_agegender.encodings.encoding import Encoding
from keras_agegender.errors import counted
from keras_agegender.evaluation import (
    own_data,
    plots,
    predictions as face_predictions,
    scores as evaluation_scores,
)
from keras_agegender.evaluation.calibration import all_probabilities
from keras_agegender.evaluation.evaluate import file_suffix, open_split
from keras_agegender.evaluation.groups import group_title, scored_tasks, shown_tasks
from keras_agegender.evaluation.occlusion import draw_occlusion, occlusion_map
from keras_agegender.evaluation.of_age import POPULATIONS, of_age_table
from keras_agegender.files import atomic_write, read_json, write_text
from keras_agegender.labels import GENDERS
from keras_agegender.metrics.table import METRICS, confusion_matrix, metrics_for
from keras_agegender.run_directory import RunDirectory

TEMPLATE = "report.html.jinja"
REPORT_FILE = "report.html"


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
    """Writes an HTML page about an evaluated run: scores, groups and mistakes.

    It starts with the groups that score worst, and needs no network and no other file.
    Its plots are also written as PNG and its tables as CSV files, to `report/` in the
    run directory; its name ends in dataset and split like that of metrics.json.

    Args:
        run: A run or its directory, scored by `evaluate`; or the folder of results on
            own data (`Evaluation.folder`), for which `data` and `split` are known.
        data: The evaluated dataset or its directory; `None` takes the training dataset.
            Only images of faces are read from it.
        split: The evaluated split. Defaults to `"test"`.
        checkpoint: The evaluated checkpoint. Defaults to `"best"`.
        out: HTML file to write; its folder is created. `None` (default) is
            `report.html` next to plots and tables.
        pictures: Whether to show images and keys of misclassified faces. Defaults to
            `True`; pass `False` for data that must not be shared.
        explain: Number of faces to draw occlusion maps for; each takes some seconds.
            Defaults to 0.

    Returns:
        The HTML file.

    Raises:
        ValueError: If the run was not evaluated on that split, its predictions have a
            missing column, or maps are requested without images.

    Example:
    >>> write_report("runs/1", pictures=False)  # doctest: +SKIP
    PosixPath('runs/1/report/report.html')
    """
    if explain < 0 or (explain and not pictures):
        raise ValueError(
            "Invalid `explain`. Expected a non-negative number of faces, and 0 without "
            f"pictures. Received: explain={explain}, pictures={pictures}."
        )
    if isinstance(run, (str, Path)) and own_data.is_results_folder(Path(run)):
        found = _read_results(Path(run), checkpoint, pictures)
        if explain and found.run is None:
            raise ValueError("Invalid `explain`. Expected 0 for a model without a run.")
    else:
        if not isinstance(run, RunDirectory):
            run = RunDirectory.open(run)
        if not any(run.path.glob("predictions*.csv")):
            raise ValueError(
                f"The run in {run.path} has no predictions. Run `agegender evaluate "
                f"{run.path}` first."
            )
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


@dataclass
class _Evaluated:
    """The files of an evaluation, and the dataset of its images."""

    run: RunDirectory | None
    encoding: Encoding
    metrics: dict[str, Any]
    predictions: pd.DataFrame
    split: str
    checkpoint: str
    folder: Path
    data: PreparedDataset | None = None
    without_images: str = ""
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)


def check_evaluated(
    run: RunDirectory, suffix: str = "", split: str = "test"
) -> tuple[Path, Path]:
    """Returns an evaluation's metrics and predictions."""
    metrics = run.path / f"metrics{suffix}.json"
    predictions = run.path / f"predictions{suffix}.csv"
    for file in (metrics, predictions):
        if not file.is_file():
            raise ValueError(
                f"The run in {run.path} has no {file.name}: it was not evaluated on "
                f"{split!r}. Run `agegender evaluate {run.path}` first."
            )
    return metrics, predictions


OMITTED = "Images and keys of faces were omitted on request."


def _read_results(folder: Path, checkpoint: str, with_images: bool) -> _Evaluated:
    """Reads the results on own data, which name the model and the data."""
    suffix = "" if checkpoint == "best" else f"_{checkpoint}"
    metrics = read_json(folder / f"metrics{suffix}.json")
    table = face_predictions.read_predictions(folder / f"predictions{suffix}.csv")
    model = own_data.open_model(metrics["model_path"], metrics["checkpoint"])
    data, encoding, reason = None, model.encoding, ""
    try:
        data = load_prepared(metrics["data_path"])
        encoding = own_data.with_age_groups(encoding, data.age_groups)
    except ValueError as error:
        reason = f"No images of faces are available: {error}"
    if not with_images:
        data, reason = None, OMITTED
    found = model.run, encoding, metrics, table, metrics["split"], model.checkpoint
    return _Evaluated(*found, folder / f"report{suffix}", data, reason)


def _read(
    run: RunDirectory,
    data: PreparedDataset | str | Path | None,
    split: str,
    checkpoint: str,
    with_images: bool,
) -> _Evaluated:
    prepared, same, reason = None, True, ""
    if data is None:
        split = run.info()["splits"].get(split, split)
    else:
        prepared, same, split = open_split(run, data, split)
    suffix = file_suffix(run, split, checkpoint, None if same else prepared)
    encoding = run.encoding()
    if prepared is not None:
        encoding = own_data.with_age_groups(encoding, prepared.age_groups)
    metrics, predictions = check_evaluated(run, suffix, split)
    table = face_predictions.read_predictions(predictions)
    if not with_images:
        prepared, reason = None, OMITTED
    elif prepared is None:
        try:
            prepared, _, _ = open_split(run, None, split)
        except ValueError as error:
            reason = f"No images of faces are available: {error}"
    folder, scores = run.path / f"report{suffix}", read_json(metrics)
    found = run, encoding, scores, table, split, checkpoint
    return _Evaluated(*found, folder, prepared, reason)


def _context(found: _Evaluated, explain: int) -> dict[str, Any]:
    """Returns everything that the template shows; draws the figures on the way."""
    metrics, folder = found.metrics, found.folder
    tasks = face_predictions.task_predictions(found.predictions, found.encoding)
    subjects = found.predictions.get("subject")
    scores = found.tables["scores"] = score_table(metrics)
    reliability, bins = draw_reliability(tasks, subjects, metrics, folder)
    found.tables["reliability"] = bins
    confusions = confusion_tables(metrics, tasks)
    plots.plot_confusion_matrices(metrics, folder / "confusion.png")
    found.tables |= {f"confusion_{file_name(n)}": t for n, t in confusions.items()}
    return {
        **_run_context(found),
        "metrics": metrics,
        "unknown_faces": evaluation_scores.UNKNOWN_FACES,
        "one_class": evaluation_scores.constant_prediction_warnings(metrics),
        "split": found.split,
        "unreliable": [
            title
            for title, key in (("gender", "gender"), ("age group", "age"))
            if metrics.get(key) and evaluation_scores.is_unreliable(metrics[key])
        ],
        "groups": _groups(found),
        "scores": _records(scores),
        "confusions": {
            name.replace("_", " "): {
                "names": [*table.columns],
                "rows": confusion_rows(table),
            }
            for name, table in confusions.items()
        },
        "reliability": reliability,
        "num_diagrams": len(tasks),
        **_of_age(found),
        **_calibration(found),
        **_mistakes(found, tasks, explain),
        "without_images": found.without_images,
        "folder": folder.name,
        "accent": plots.COLORS[0],
    }


def _run_context(found: _Evaluated) -> dict[str, Any]:
    """Returns what only a run records; facts of the scores for an export."""
    run, metrics = found.run, found.metrics
    if run is None:
        facts = {
            "Model": metrics["model_path"],
            "Scored on": f"{metrics['data']}: {counted(metrics['num_faces'], 'face')}",
        }
        model = {"title": metrics["recipe"], "facts": [*facts.items()]}
        return {**model, "curves": [], "loss_weights": ""}
    return {
        "title": run.recipe().title or run.recipe().name or "A run",
        "facts": run_facts(run, found.checkpoint, metrics, found.split),
        "curves": draw_curves(run, found.folder),
        "loss_weights": loss_weights_text(run),
    }


def _groups(found: _Evaluated) -> list[dict[str, Any]]:
    blocks = []
    for columns, scored in (found.metrics.get("groups") or {}).items():
        table = group_table(columns, scored)
        if table.empty:
            continue
        found.tables[f"groups_{file_name(columns)}"] = table
        block = {
            "title": columns.replace(",", " × ").replace("_", " "),
            "tasks": scored_tasks(scored),
            "rows": _records(table),
            "gaps": [*gap_sentences(scored)],
            "images": draw_groups(columns, scored, found.metrics, found.folder),
        }
        counts = ("num_unlabelled", "few_faces", "few_subjects")
        blocks.append(block | {name: scored[name] for name in counts})
    return blocks


def _of_age(found: _Evaluated) -> dict[str, Any]:
    scores = found.metrics.get("of_age")
    if not scores:
        return {"of_age": None}
    table = found.tables["of_age"] = of_age_table(scores)
    path = plots.plot_of_age(scores, found.folder / "of_age.png")
    shown = [p for p in scores["populations"] if p["num_faces"]]
    first, last = scores["thresholds"][0], scores["thresholds"][-1]
    ends = [
        f"{POPULATIONS[p['name']][0]}: {p['shares'][0]:.3f} at {first}, "
        f"{p['shares'][-1]:.3f} at {last}"
        for p in shown
    ]
    alt = f"Curves over the years that a face must look to pass. {'; '.join(ends)}."
    populations = [{**p, "title": POPULATIONS[p["name"]][0]} for p in shown]
    of_age = {**scores, "populations": populations, "rows": _records(table)}
    return {"of_age": {**of_age, "image": embed(path.read_bytes(), alt)}}


def _calibration(found: _Evaluated) -> dict[str, Any]:
    calibration = found.metrics.get("calibration")
    if not calibration:
        return {"calibration": None, "coverage": {}}
    table = found.tables["coverage"] = coverage_table(calibration)
    tasks = table.groupby("question", sort=False)
    blocks = {str(name): _records(part) for name, part in tasks}
    return {"calibration": calibration, "coverage": blocks}


def _mistakes(
    found: _Evaluated, tasks: list[face_predictions.TaskPredictions], explain: int
) -> dict[str, Any]:
    """Returns confident mistakes in gender and age group, or else in further heads."""
    shown = [t for t in tasks if t.name in ("gender", "age_group")] or tasks[:2]
    mistakes = face_predictions.confident_mistakes(shown, found.predictions.index)
    found.tables["mistakes"] = mistakes.drop(columns="key")  # a key may name somebody
    images, maps = None, []
    if found.data is not None:
        found.tables["mistakes"] = mistakes
        images = face_predictions.read_images(found.data, found.split, mistakes["key"])
        if explain and found.run is not None:
            chosen = chosen_faces(mistakes, explain)
            maps = occlusion_images(found.run, found.checkpoint, chosen, tasks, images)
    return {
        "mistakes": mistake_cards(mistakes, images),
        "num_wrong": {t.name.replace("_", " "): int(t.wrong.sum()) for t in shown},
        "num_faces_shown": len(images or ()),
        "maps": maps,
    }


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Returns rows as dicts, with `None` for NaN, which a template can test."""
    cleaned = table.astype(object).where(table.notna(), None)
    return [{str(k): v for k, v in row.items()} for row in cleaned.to_dict("records")]


def _render(context: Mapping[str, Any]) -> str:
    import jinja2

    strict = jinja2.StrictUndefined
    environment = jinja2.Environment(
        autoescape=True, undefined=strict, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["figure"] = lambda value, digits=3: (
        "–" if value is None else f"{value:.{digits}f}"
    )
    text = importlib.resources.files(__package__).joinpath(TEMPLATE).read_text("utf-8")
    return environment.from_string(text).render(context)


# -- facts -----------------------------------------------------------------------------


def run_facts(
    run: RunDirectory, checkpoint: str, metrics: Mapping[str, Any], split: str
) -> list[tuple[str, str]]:
    """Returns (name, fact) of what a run was trained on and how it was selected."""
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
        "Initialized from": info.get("initialized_from", ""),
        "Seed": info.get("seed", ""),
        "Checkpoint": _checkpoint_text(run, checkpoint),
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


def _checkpoint_text(run: RunDirectory, checkpoint: str) -> str:
    epochs = run.recipe().training.epochs
    if checkpoint == "last":
        return f"last, epoch {epochs} of {epochs}"
    try:
        info = run.checkpoint_info(checkpoint)
    except ValueError:  # the run has no record of it
        return checkpoint
    sign = {"max": "highest", "min": "lowest"}.get(str(info.get("mode")), "best")
    value = info.get("value")
    shown = "" if value is None else f" ({value:.4f})"
    return (
        f"{checkpoint}, epoch {info['epoch'] + 1} of {epochs}: {sign} "
        f"{info['monitor']}{shown}"
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
    """Returns the initial loss weights as text."""
    weights = run.encoding().loss_weights
    if len(set(weights.values())) == 1:
        return f"{next(iter(weights.values())):g} for every output"
    return ", ".join(f"{name} {value:g}" for name, value in weights.items())


# -- figures ---------------------------------------------------------------------------

MOST_DIAGRAMS = 12  # the table has the others, of forty attributes for instance
_PANELS = {
    "loss": "Loss of training and validation faces over epochs",
    "accuracy": "Accuracies on validation faces over epochs",
    "weights": "Loss weights in force over epochs",
}


class EmbeddedImage(NamedTuple):
    """An image inside a page: `data:` URI, alternative text and caption."""

    source: str
    alt: str
    caption: str = ""


def embed(
    content: bytes, alt: str, caption: str = "", format: str = "png"
) -> EmbeddedImage:
    """Returns a PNG or JPEG image as a data URI."""
    text = base64.b64encode(content).decode("ascii")
    return EmbeddedImage(f"data:image/{format};base64,{text}", alt, caption)


def draw_curves(run: RunDirectory, folder: Path) -> list[EmbeddedImage]:
    """Draws the panels of history.csv; none without a history."""
    if not run.history_file.is_file() or not run.history_file.read_text("utf-8"):
        return []
    history = plots.decoded_history(run.history_file, run.encoding())
    images = []
    for panel in plots.history_panels(history):
        path = plots.plot_history(
            history,
            folder / f"curves_{panel}.png",
            outputs=run.encoding().output_names,
            best_epoch=run.best_epoch,
            only=panel,
        )
        alt = f"{_PANELS[panel]}."
        if run.best_epoch is not None:
            alt += f" The best checkpoint is of epoch {run.best_epoch + 1}."
        images.append(embed(path.read_bytes(), alt))
    return images


def draw_groups(
    columns: str, found: Mapping[str, Any], metrics: Mapping[str, Any], folder: Path
) -> list[EmbeddedImage]:
    """Draws the bars of one grouping, an image for each task."""
    images = []
    further = metrics.get("extra") or {}
    for task in shown_tasks(scored_tasks(found)):
        scores = metrics.get("age" if task == "age_group" else task) or {}
        scores = scores or further.get(task) or {}
        file = folder / f"groups_{file_name(columns)}_{task}.png"
        overall = scores.get("accuracy")
        path = plots.plot_groups(
            found, file, columns=columns, task=task, overall=overall
        )
        value = f"{task}_accuracy"
        scored = [g for g in found["groups"] if g[value] is not None]
        ranked = sorted(scored, key=lambda group: group[value])
        ends = [
            f"{group_title(group, columns.split(','))} {group[value]:.3f}"
            for group in (ranked[0], ranked[-1])
        ]
        alt = (
            f"Bars with intervals: {task.replace('_', ' ')} accuracy of "
            f"{len(ranked)} groups, lowest {ends[0]}, highest {ends[1]}."
        )
        images.append(embed(path.read_bytes(), alt))
    return images


def draw_reliability(
    tasks: Sequence[face_predictions.TaskPredictions],
    subjects: Any,
    metrics: Mapping[str, Any],
    folder: Path,
) -> tuple[list[EmbeddedImage], pd.DataFrame]:
    """Draws the diagrams of the first 12 tasks; returns the bins of all."""
    images: list[EmbeddedImage] = []
    tables = []
    for task in tasks:
        bins = plots.reliability_bins(task.probabilities, task.truth, subjects=subjects)
        tables.append(bins.assign(question=task.name))
        if len(images) == MOST_DIAGRAMS:
            continue
        error = _calibration_error(task.name, metrics)
        path = plots.plot_reliability(
            bins,
            folder / f"reliability_{file_name(task.name)}.png",
            title=task.title,
            calibration_error=error,
        )
        shown = "" if error is None else f" Expected calibration error {error:.3f}."
        alt = (
            f"Reliability diagram of {task.title.lower()}: share that is right "
            f"over confidence, of {int(bins['num_faces'].sum()):,} faces.{shown}"
        )
        images.append(embed(path.read_bytes(), alt))
    table = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()
    return images, table


def _calibration_error(name: str, metrics: Mapping[str, Any]) -> float | None:
    scores = metrics.get("age" if name == "age_group" else name)
    if name in ("age_group", "gender") and scores:
        return scores.get("expected_calibration_error")
    calibration = metrics.get("calibration") or {}
    return calibration.get("answers", {}).get(name, {}).get("ece")


def file_name(text: str) -> str:
    """Returns column names as a part of a file name; different columns differ.

    Commas become `+`; other special characters become their number between `%`.
    """
    escaped = (c if c.isalnum() or c in "_-.," else f"%{ord(c):x}%" for c in text)
    return "".join(escaped).replace(",", "+")


# -- mistakes --------------------------------------------------------------------------


def chosen_faces(mistakes: pd.DataFrame, count: int) -> pd.DataFrame:
    """Returns the most confident mistakes, of each task in turn, each face once."""
    turn = mistakes.groupby("question", sort=False).cumcount()
    order = turn.sort_values(kind="stable").index
    return mistakes.loc[order].drop_duplicates("key").head(count)


def occlusion_images(
    run: RunDirectory,
    checkpoint: str,
    mistakes: pd.DataFrame,
    tasks: Sequence[face_predictions.TaskPredictions],
    images: Mapping[str, np.ndarray],
) -> list[EmbeddedImage]:
    """Returns an occlusion map for each of some rows of `confident_mistakes`."""
    from keras_agegender.datasets.pipeline import (
        checked_image_size,
        preprocess_for_evaluation,
    )

    recipe, encoding = run.recipe(), run.encoding()
    size = checked_image_size(recipe.model.image_size, recipe.data.pipeline)
    model = run.load_model(checkpoint)
    calibration = run.calibration() if checkpoint == "best" else None
    classes = {task.name: task.classes for task in tasks}
    found = []
    for row in mistakes.to_dict("records"):
        if row["key"] not in images:
            continue
        predicted = classes[row["question"]].index(row["answered"])

        def probability(
            batch: np.ndarray, name: str = row["question"], index: int = predicted
        ) -> np.ndarray:
            outputs = model.predict(batch, verbose=0)
            if calibration is not None:
                outputs = calibration.apply(outputs, encoding)
            return all_probabilities(outputs, encoding)[name][:, index]

        image = preprocess_for_evaluation(
            images[row["key"]], size, recipe.data.pipeline
        ).numpy()
        drop = occlusion_map(image, probability)
        most = max(float(drop.max()), 0)
        alt = (
            f"Occlusion map of a face that is {row['true']}, predicted "
            f"{row['answered']}; covering a part lowers the probability by "
            f"{most:.3f} at most"
        )
        caption = (
            f"{row['answered']} ({row['probability']:.3f}), true {row['true']}; "
            f"covered it falls to {row['probability'] - most:.3f}"
        )
        drawn = draw_occlusion((image * 255).round().astype("uint8"), drop)
        with io.BytesIO() as stream:
            Image.fromarray(drawn).save(stream, format="JPEG", quality=88)
            found.append(embed(stream.getvalue(), alt, caption, "jpeg"))
    return found


GONE = "data:image/gif;base64,R0lGODlhAQABAIAAAOTk5AAAACwAAAAAAQABAAACAkQBADs="


def mistake_cards(
    mistakes: pd.DataFrame, images: Mapping[str, np.ndarray] | None
) -> dict[str, list[dict[str, Any]]]:
    """Returns the mistakes of each task, with thumbnails.

    Without `images` there are no keys either, which may name people.
    """
    cards: dict[str, list[dict[str, Any]]] = {}
    for row in mistakes.to_dict("records"):
        card = {**row, "image": None}
        if images is None:
            card.pop("key")
        else:
            alt = (
                f"Face that is {row['true']}, predicted {row['answered']} with "
                f"probability {row['probability']:.3f}"
            )
            found = images.get(row["key"])
            card["image"] = (
                EmbeddedImage(GONE, f"{alt}; its image is not in the dataset")
                if found is None
                else embed(face_predictions.thumbnail(found), alt, format="jpeg")
            )
        cards.setdefault(row["question"].replace("_", " "), []).append(card)
    return cards


# -- tables ----------------------------------------------------------------------------

MOST_CLASSES = 20  # a larger confusion matrix is not readable
# "Blues" from white to its dark end, as `plot_confusion_matrices` has it.
_DARKEST, _WHITE_TEXT = (8, 69, 148), 0.55


def score_table(metrics: Mapping[str, Any]) -> pd.DataFrame:
    """Returns every score next to the majority-class baseline."""
    rows = []
    for section, task, needs in (
        ("gender", "gender", ("classes", "two classes")),
        ("age", "age group", ("classes", "ordered", "ranks", "years")),
    ):
        scores = metrics.get(section) or {}
        majority = scores.get("majority") or {}
        for row in (METRICS[name] for name in metrics_for(*needs)):
            if not row.title or not scores:
                continue
            faces = "num_faces_with_years" if row.needs == "years" else "num_faces"
            rows.append(
                _score_row(
                    (task, row.title.format(positive=scores.get("positive"))),
                    scores.get(row.name),
                    scores.get(faces),
                    row.lower_is_better,
                    majority.get(row.name),
                    majority.get("answer", ""),
                    (scores.get("intervals") or {}).get(row.name),
                )
            )
    for name, scores in (metrics.get("extra") or {}).items():
        values = (name, "accuracy"), scores.get("accuracy"), scores["num_faces"]
        rows.append(_score_row(*values, majority=scores.get("majority_accuracy")))
        error = scores.get("mean_absolute_error")
        rows.append(_score_row((name, "mean error"), error, scores["num_faces"], True))
    columns = [
        "question", "figure", "value", "low", "high", "majority", "majority_answer",
        "beaten", "num_faces",
    ]  # fmt: skip
    known = [row for row in rows if row[2] is not None]
    return pd.DataFrame(known, columns=columns)


def _score_row(
    titles: tuple[str, str],
    value: float | None,
    faces: int | None,
    lower: bool = False,
    majority: float | None = None,
    answer: str = "",
    interval: Sequence[float] | None = None,
) -> tuple[Any, ...]:
    beaten = None
    if majority is not None and value is not None:
        beaten = value < majority if lower else value > majority
    return *titles, value, *(interval or (None, None)), majority, answer, beaten, faces


def group_table(columns: str, found: Mapping[str, Any]) -> pd.DataFrame:
    """Returns the groups of one grouping (`"age_group,gender"`), the worst first."""
    rows = []
    for group in found["groups"]:
        row: dict[str, Any] = {"group": group_title(group, columns.split(","))}
        row |= {name: group[name] for name in ("num_faces", "num_subjects", "few")}
        for task in scored_tasks(found):
            low, high = group[f"{task}_interval"] or (None, None)
            row[f"{task}_accuracy"] = group[f"{task}_accuracy"]
            row |= {f"{task}_low": low, f"{task}_high": high}
        rows.append(row)
    return pd.DataFrame(rows)


def gap_sentences(found: Mapping[str, Any]) -> Iterator[str]:
    """Yields the gap between the worst and the best group, one sentence per task."""
    for task in shown_tasks(scored_tasks(found)):
        if task not in found["gaps"]:
            continue
        gap = found["gaps"][task]
        ends = gap["interval"]
        shown = f" (95 % interval {ends[0]:.3f} to {ends[1]:.3f})" if ends else ""
        yield (
            f"{task.replace('_', ' ').capitalize()}: {gap['worst']} is "
            f"{gap['value']:.3f}{shown} behind {gap['best']}."
        )


def confusion_tables(
    metrics: Mapping[str, Any], tasks: Sequence[face_predictions.TaskPredictions]
) -> dict[str, pd.DataFrame]:
    """Returns faces by true (row) and predicted (column) class, for each task.

    Gender and age group are those of metrics.json; extra heads with up to 20 classes
    are counted from their predictions.
    """
    tables = {}
    for name, key in (("gender", "gender"), ("age_group", "age")):
        if metrics.get(key):
            scores = metrics[key]
            names: Sequence[str] = GENDERS
            if key == "age":
                names = [group["name"] for group in scores["groups"]]
            tables[name] = pd.DataFrame(scores["confusion"], names, names)
    for task in tasks:
        if task.name not in tables and len(task.classes) <= MOST_CLASSES:
            counts = confusion_matrix(task.truth, task.predicted, len(task.classes))
            tables[task.name] = pd.DataFrame(counts, task.classes, task.classes)
    return tables


def confusion_rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Returns a confusion matrix with shares of the true class and their colors."""
    rows = []
    for place, (name, counts) in enumerate(table.iterrows()):
        total = int(counts.sum())
        shares = [float(count / total) if total else 0.0 for count in counts]
        cells = [
            {
                "count": int(count),
                "share": share,
                "color": shade(share),
                "ink": "#ffffff" if share > _WHITE_TEXT else "#222222",
                "right": column == place,
            }
            for column, (count, share) in enumerate(zip(counts, shares, strict=True))
        ]
        rows.append({"name": name, "total": total, "cells": cells})
    return rows


def shade(share: float) -> str:
    """Returns a CSS color from white for 0 to dark blue for 1."""
    levels = [round(255 + (end - 255) * share) for end in _DARKEST]
    return "#" + "".join(f"{level:02x}" for level in levels)


def coverage_table(calibration: Mapping[str, Any]) -> pd.DataFrame:
    """Returns the coverage of prediction sets, overall and by group with faces."""
    rows = [
        {"question": task.replace("_", " "), "group": group["name"], **group}
        for task, found in calibration["sets"].items()
        for group in ({**found, "of": "all", "name": "all faces"}, *found["groups"])
        if group["num_faces"]
    ]
    columns = ["question", "of", "group", "num_faces", "coverage", "mean_size"]
    return pd.DataFrame(rows, columns=columns)
