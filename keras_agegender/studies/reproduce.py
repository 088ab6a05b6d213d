"""Reproduction: recipes × folds × seeds become one table, published beside measured.

In: names of recipes and a prepared dataset. Out: a folder with a run directory for each
combination, and `table.csv`, `table.md` and `table.png` over all of them. The same call
again goes on where it was stopped; a run that failed is in the table as failed.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import keras

from keras_agegender.datasets.prepared import PreparedDataset, load_prepared
from keras_agegender.datasets.splits import cross_validation_splits
from keras_agegender.evaluation.plots import plot_reproduction
from keras_agegender.recipes.loading import load_recipe
from keras_agegender.recipes.recipe import Published, Recipe
from keras_agegender.run_directory import RunDirectory
from keras_agegender.training.check_pixels import check_pixels
from keras_agegender.training.train import pretraining_recipe, train

# Column of the table -> (attribute of `Published`, path in metrics.json).
FIGURES: dict[str, tuple[str, tuple[str, str]]] = {
    "gender accuracy": ("gender_accuracy", ("gender", "accuracy")),
    "gender f1": ("gender_f1", ("gender", "f1")),
    "gender precision": ("gender_precision", ("gender", "precision")),
    "gender recall": ("gender_recall", ("gender", "recall")),
    # The report counts an ordinal answer as right only if all heads are.
    "age accuracy": ("age_accuracy", ("age", "all_heads_accuracy")),
    "age accuracy, decoded": ("", ("age", "accuracy")),
}

# What `quick` makes of every recipe: enough to see that it runs, not what it is worth.
QUICK_SIZE, QUICK_EPOCHS, QUICK_FACES = (64, 64), 2, 600
QUICK_BATCH, QUICK_SLICES = 32, 20


@dataclass(frozen=True)
class Row:
    """One line of the table: a model kept by a recipe, over all folds and seeds.

    Attributes:
        recipe: Name of the recipe.
        title: What it is.
        checkpoint: Which of its models; empty for the best.
        positive: Positive class of f1, precision and recall.
        published: Column -> the report's figure, where it gives one.
        measured: Column -> a figure of each finished run.
        failed: Reasons of the runs that failed.
    """

    recipe: str
    title: str
    checkpoint: str
    positive: str
    published: dict[str, float] = field(default_factory=dict)
    measured: dict[str, list[float]] = field(default_factory=dict)
    failed: tuple[str, ...] = ()

    @property
    def num_runs(self) -> int:
        """Finished runs."""
        return max(map(len, self.measured.values()), default=0)


@dataclass(frozen=True)
class Reproduction:
    """What `reproduce` found.

    Attributes:
        directory: Folder of the runs and the table.
        rows: Lines of the table.
        note: What the measured figures are of, in words.
    """

    directory: Path
    rows: tuple[Row, ...]
    note: str

    @property
    def num_failed(self) -> int:
        """Runs that failed."""
        return len({reason for row in self.rows for reason in row.failed})

    def __str__(self) -> str:
        return to_markdown(self.rows, self.note)


def reproduce(
    recipes: Sequence[str | Path | Recipe],
    data: PreparedDataset | str | Path,
    directory: str | Path,
    *,
    pretraining_data: PreparedDataset | str | Path | None = None,
    folds: Sequence[int] | None = None,
    seeds: Sequence[int] = (0,),
    overrides: Sequence[str] = (),
    quick: bool = False,
    report: Callable[[str], None] = print,
) -> Reproduction:
    """Trains and evaluates recipes over folds and seeds; writes one table.

    Args:
        recipes: Names, numbers or files of recipes, or recipes.
        data: A prepared dataset or its directory.
        directory: Folder to make, or to go on in.
        pretraining_data: Prepared dataset for recipes that begin with another one.
        folds: Test folds of a cross-validation over the dataset's folds, 0 to 4; `None`
            takes the splits that the dataset declares.
        seeds: Seeds; every fold is trained with each. Defaults to one, 0.
        overrides: Settings that replace those of every recipe given by name,
            `"training.epochs=3"` for instance.
        quick: Whether pictures are reduced to 64 × 64 pixels, training to 2 epochs and
            data to some 600 faces a split: all of it runs in minutes, and the table
            says that its figures are worth nothing.
        report: Takes each line said on the way. Defaults to `print`.

    Returns:
        The table's rows.

    Raises:
        ValueError: If a recipe, fold or split does not exist. A run that fails in
            training does not raise: it is in the table.

    Example:
    >>> reproduce(["7", "8"], "data/adience", "reproduced", seeds=[0, 1, 2])
    ... # doctest: +SKIP
    """
    prepared = data if isinstance(data, PreparedDataset) else load_prepared(data)
    directory = Path(directory)
    changes = [*(_quick_overrides() if quick else ()), *overrides]
    loaded = [
        recipe if isinstance(recipe, Recipe) else load_recipe(recipe, changes)
        for recipe in recipes
    ]
    for recipe in loaded:
        check_pixels(recipe, prepared)
    rounds = list(_rounds(prepared, folds, seeds))
    directory.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = []
    note = _note(prepared, folds, seeds, overrides, quick)
    for recipe in loaded:
        found: list[dict[str, Any]] = []
        for place, splits, seed in rounds:
            path = directory / "runs" / recipe.name / f"{place}_seed{seed}"
            report(f"{recipe.name}, {place}, seed {seed}")
            if quick:
                splits = _fewer(prepared, splits)
            found.append(
                _run(recipe, prepared, path, pretraining_data, splits, seed, quick)
            )
            failure = found[-1].get("failed")
            report(f"  failed: {failure}" if failure else f"  {_summary(found[-1])}")
        rows += _rows(recipe, found)
        _write(directory, rows, note)  # after every recipe: it may take days
    return Reproduction(directory, tuple(rows), note)


def _rounds(
    prepared: PreparedDataset, folds: Sequence[int] | None, seeds: Sequence[int]
) -> Iterator[tuple[str, dict[str, str], int]]:
    """Yields the name, splits and seed of each run of a recipe."""
    names = set(prepared.builder.info.splits)
    for fold in folds if folds is not None else [None]:
        if fold is None:
            missing = {"train", "validation", "test"} - set(prepared.splits)
            if missing:
                raise ValueError(
                    f"The dataset in {prepared.directory} declares no {sorted(missing)}"
                    " split."
                )
            place, splits = "declared_splits", dict(prepared.splits)
        else:
            if f"fold_{fold}" not in names:
                raise ValueError(
                    f"The dataset in {prepared.directory} has no fold {fold}. Splits: "
                    f"{sorted(names)}."
                )
            place, splits = f"fold{fold}", cross_validation_splits(fold)
        for seed in seeds:
            yield place, splits, seed


def _run(
    recipe: Recipe,
    prepared: PreparedDataset,
    path: Path,
    pretraining_data: Any,
    splits: Mapping[str, str],
    seed: int,
    quick: bool,
) -> dict[str, Any]:
    """Trains one combination unless it is finished; returns its figures, or why not."""
    if not _is_finished(recipe, prepared, path, splits):
        try:
            pretrained = None
            if recipe.pretraining and pretraining_data is not None:
                pretrained = _pretrain(recipe, path, pretraining_data, seed, quick)
            train(
                recipe,
                prepared,
                path,
                pretrained=pretrained,
                splits=splits,
                seed=seed,
                verbose=0,
            )
        except Exception as error:  # whatever it was: the table goes on, and shows it
            reason = " ".join(str(error).split())[:300]
            message = (
                f"{path.parent.name} {path.name}: {type(error).__name__}: {reason}"
            )
            return {"failed": message}
        finally:
            keras.backend.clear_session()  # models of finished runs
    return {
        checkpoint: json.loads((path / file).read_text("utf-8"))
        for checkpoint, file in [
            ("", "metrics.json"),
            *((name, f"metrics_{name}.json") for name in recipe.training.keep),
        ]
    }


def _is_finished(
    recipe: Recipe, prepared: PreparedDataset, path: Path, splits: Mapping[str, str]
) -> bool:
    """Returns whether the very run is there; another one in its place is an error."""
    run = RunDirectory(path)
    info = run.info()
    if info.get("status") != "finished":
        return False
    same = (
        run.recipe_file.read_text("utf-8") == recipe.to_toml()
        and info["data"] == str(prepared.builder.data_dir)
        and all(info["splits"][name] == splits[name] for name in ("train", "test"))
    )
    if not same:
        raise ValueError(
            f"{path} holds a finished run of other settings, data or splits. Choose "
            "another directory."
        )
    return True


def _pretrain(recipe: Recipe, path: Path, data: Any, seed: int, quick: bool) -> Path:
    """Trains what recipes begin with once for all folds of a seed."""
    first = pretraining_recipe(recipe, _quick_overrides() if quick else ())
    size = first.model.image_size
    shared = path.parent.parent / first.name / f"seed{seed}_{size[0]}x{size[1]}"
    prepared = data if isinstance(data, PreparedDataset) else load_prepared(data)
    splits = dict(prepared.splits)
    if quick:
        splits = _fewer(prepared, splits)
        first = replace(first, data=replace(first.data, validation_split=""))
    if not _is_finished(first, prepared, shared, splits):
        train(first, prepared, shared, splits=splits, seed=seed, verbose=0)
    return shared


def _quick_overrides() -> list[str]:
    return [
        f"model.image_size={list(QUICK_SIZE)}",
        f"training.epochs={QUICK_EPOCHS}",
        f"data.batch_size={QUICK_BATCH}",
    ]


def _fewer(prepared: PreparedDataset, splits: Mapping[str, str]) -> dict[str, str]:
    """Cuts every split, so that some `QUICK_FACES` remain of it.

    They are taken in slices from everywhere: a dataset may lie sorted by age.
    """
    fewer = {}
    for name, expression in splits.items():
        parts = expression.split("+")
        length = QUICK_FACES // (len(parts) * QUICK_SLICES)
        slices = []
        for part in parts:
            count = prepared.num_faces(part)
            starts = [k * count // QUICK_SLICES for k in range(QUICK_SLICES)]
            if count <= length * QUICK_SLICES:
                slices.append(part)
            else:
                slices += [f"{part}[{start}:{start + length}]" for start in starts]
        fewer[name] = "+".join(slices)
    return fewer


# -- the table -------------------------------------------------------------------------


def _rows(recipe: Recipe, found: Sequence[Mapping[str, Any]]) -> list[Row]:
    published = recipe.published or (Published(),)
    failed = tuple(run["failed"] for run in found if "failed" in run)
    finished = [run for run in found if "failed" not in run]
    rows = []
    for line in published:
        scores = [run[line.checkpoint] for run in finished]
        measured = {
            name: [v for v in (_figure(s, path) for s in scores) if v is not None]
            for name, (_, path) in FIGURES.items()
        }
        stated = {
            name: getattr(line, attribute)
            for name, (attribute, _) in FIGURES.items()
            if attribute and getattr(line, attribute) is not None
        }
        rows.append(
            Row(
                recipe.name,
                recipe.title,
                line.checkpoint,
                line.positive,
                stated,
                {k: v for k, v in measured.items() if v},
                failed,
            )
        )
    return rows


def _figure(scores: Mapping[str, Any], path: tuple[str, str]) -> float | None:
    section, key = path
    values = scores.get(section) or {}
    value = values.get(key)
    if value is None and key == "all_heads_accuracy":  # one head answers
        value = values.get("accuracy")
    return value


def _summary(run: Mapping[str, Any]) -> str:
    scores = run[""]
    parts = [
        f"{name} {value:.3f}"
        for name in ("gender accuracy", "age accuracy, decoded")
        if (value := _figure(scores, FIGURES[name][1])) is not None
    ]
    return ", ".join(parts) or f"mean accuracy {scores.get('extra_mean_accuracy')}"


def _note(
    prepared: PreparedDataset,
    folds: Sequence[int] | None,
    seeds: Sequence[int],
    overrides: Sequence[str],
    quick: bool,
) -> str:
    name = prepared.info.get("name", prepared.builder.name)
    parts = [
        f"Measured on {name} ({prepared.directory}), "
        + ("declared splits" if folds is None else f"test folds {list(folds)}")
        + f", seeds {list(seeds)}; mean ± standard deviation over runs."
    ]
    if "synthetic" in name:
        parts.append("These faces are synthetic: no figure here is one of people.")
    if overrides:
        parts.append(f"Changed in every recipe: {', '.join(overrides)}.")
    if quick:
        parts.append(
            f"QUICK: {QUICK_SIZE[0]} x {QUICK_SIZE[1]} pixels, {QUICK_EPOCHS} epochs, "
            f"at most {QUICK_FACES} faces a split. It shows that recipes run, not what "
            "they are worth."
        )
    parts.append("Published figures are of Adience's fold 4, or CelebA's test data.")
    return " ".join(parts)


def to_markdown(rows: Sequence[Row], note: str) -> str:
    """Returns the table as Markdown, published and measured in columns of their own."""
    header = ["recipe", "model kept", "runs", "failed", "positive"]
    for name in FIGURES:
        header += ([f"{name}, published"] if FIGURES[name][0] else []) + [
            f"{name}, measured"
        ]
    lines = [note, "", _line(header), _line(["---"] * len(header))]
    for row in rows:
        cells = [
            row.recipe,
            row.checkpoint or "best",
            str(row.num_runs),
            str(len(row.failed)),
            row.positive,
        ]
        for name in FIGURES:
            if FIGURES[name][0]:
                value = row.published.get(name)
                cells.append("" if value is None else f"{value:.3f}")
            cells.append(_mean_and_deviation(row.measured.get(name, [])))
        lines.append(_line(cells))
    failures = sorted({reason for row in rows for reason in row.failed})
    if failures:
        lines += ["", "Failed:", *(f"- {reason}" for reason in failures)]
    return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _mean_and_deviation(values: Sequence[float]) -> str:
    if not values:
        return ""
    mean = statistics.fmean(values)
    if len(values) == 1:
        return f"{mean:.3f}"
    return f"{mean:.3f} ± {statistics.stdev(values):.3f}"


def _write(directory: Path, rows: Sequence[Row], note: str) -> None:
    import pandas as pd

    table = []
    for row in rows:
        line: dict[str, Any] = {
            "recipe": row.recipe,
            "title": row.title,
            "checkpoint": row.checkpoint or "best",
            "positive": row.positive,
            "runs": row.num_runs,
            "failed": len(row.failed),
        }
        for name in FIGURES:
            values = row.measured.get(name, [])
            if FIGURES[name][0]:
                line[f"{name}, published"] = row.published.get(name)
            line[f"{name}, measured mean"] = (
                statistics.fmean(values) if values else None
            )
            several = len(values) > 1
            line[f"{name}, measured sd"] = (
                statistics.stdev(values) if several else math.nan
            )
        table.append(line)
    pd.DataFrame(table).to_csv(directory / "table.csv", index=False)
    (directory / "table.md").write_text(to_markdown(rows, note) + "\n", "utf-8")
    plot_reproduction(rows, directory / "table.png", note)
