"""Evaluation: a trained run and held-out faces become scores, a table and pictures."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from keras import ops

from keras_agegender.datasets.prepared import PreparedDataset, load_prepared
from keras_agegender.encodings.encoding import Encoding
from keras_agegender.evaluation.metrics import Evaluation, evaluate_predictions
from keras_agegender.evaluation.plots import plot_confusion_matrices
from keras_agegender.files import write_json
from keras_agegender.input_pipeline.eval_dataset import make_eval_dataset
from keras_agegender.input_pipeline.labels import read_labels
from keras_agegender.labels import AGE_GROUP_NAMES, GENDERS
from keras_agegender.run_directory import RunDirectory


def evaluate(
    run: RunDirectory | str | Path,
    data: PreparedDataset | str | Path | None = None,
    *,
    split: str = "test",
    checkpoint: str = "best",
    positive_gender: str = "male",
) -> Evaluation:
    """Scores a run's best model on held-out faces and writes what it found.

    In the run directory it writes metrics.json, confusion.png and predictions.csv (one
    row per face), named after the split where it is not the run's own test split.

    Args:
        run: A run or its directory.
        data: A prepared dataset or its directory; `None` takes the one trained on.
        split: A split name or expression. Defaults to `"test"`.
        checkpoint: Which of the run's models: `"best"` (default), `"last"` or the name
            of one that the recipe keeps; it is in the files' names, unless the best.
        positive_gender: Positive class of precision, recall and f1. The report's Caffe
            rows count `"male"` (default), its ResNet rows `"female"`.

    Returns:
        The scores.

    Raises:
        ValueError: If the run, the dataset or the split does not exist.

    Example:
    >>> evaluate("runs/1", split="fold_4")  # doctest: +SKIP
    """
    if not isinstance(run, RunDirectory):
        run = RunDirectory.open(run)
    recipe, encoding, info = run.recipe(), run.encoding(), run.info()
    if data is None:
        data = info["data"]
        split = info["splits"].get(split, split)
    if isinstance(data, (str, Path)):
        data = load_prepared(data)
    check_same_pixels(run, data)
    images = make_eval_dataset(
        data,
        encoding,
        split=split,
        pipeline=recipe.data.pipeline,
        image_size=recipe.model.image_size,
        batch_size=recipe.data.batch_size,
    ).map(lambda image, targets, weights: image)
    labels = read_labels(data, split, columns=encoding.columns.values())
    outputs = run.load_model(checkpoint).predict(images, verbose=0)
    scores = score(outputs, labels, encoding, positive_gender)
    suffix = "" if checkpoint == "best" else f"_{checkpoint}"
    if split not in ("test", info["splits"].get("test")):
        suffix += f"_{_slug(split)}"
    write_json(
        run.path / f"metrics{suffix}.json",
        {
            "split": split,
            "recipe": recipe.name,
            "checkpoint": checkpoint,
            **scores.to_dict(),
        },
    )
    plot_confusion_matrices(scores, run.path / f"confusion{suffix}.png")
    write_predictions(run.path / f"predictions{suffix}.csv", outputs, labels, encoding)
    return scores


def check_same_pixels(run: RunDirectory, prepared: PreparedDataset) -> None:
    """Refuses to score a model on pixels that it was not trained on.

    Raises:
        ValueError: If run and dataset both say what was done to their pixels, and it is
            not the same; it names what differs.
    """
    trained, held = run.pixels(), prepared.pixels
    if trained is None or held is None or trained.stored() == held:
        return
    raise ValueError(
        f"The run in {run.path} was trained on other pixels than those in "
        f"{prepared.directory}. They differ in {trained.stored().differences(held)}. "
        f"Expected: {trained.stored().describe()}. Received: {held.describe()}."
    )


def score(
    outputs: Mapping[str, Any],
    labels: Mapping[str, np.ndarray],
    encoding: Encoding,
    positive_gender: str = "male",
) -> Evaluation:
    """Returns the scores of a model's outputs.

    Args:
        outputs: Head name -> predictions. Shape (num_faces, units) each.
        labels: `age_group`, `gender` and the columns of extra heads, -1 (NaN for
            regression) where unknown. Shape (num_faces,) each.
        encoding: What decodes the outputs.
        positive_gender: Positive class of precision, recall and f1.
    """
    return evaluate_predictions(
        labels["age_group"],
        labels["gender"],
        _to_numpy(encoding.decode(outputs)),
        positive_gender=positive_gender,
        separate_age_heads=encoding.question is not None,
        extra={
            head.name: (head.kind, labels[head.column], np.asarray(outputs[head.name]))
            for head in encoding.heads
            if head.column
        },
    )


def write_predictions(
    file: Path,
    outputs: Mapping[str, Any],
    labels: Mapping[str, np.ndarray],
    encoding: Encoding,
) -> None:
    """Writes one CSV row per face: its key, the truth, the answer, every output."""
    import pandas as pd

    decoded = _to_numpy(encoding.decode(outputs))
    table: dict[str, Any] = {"key": labels["key"]}
    for name, names in (("age_group", AGE_GROUP_NAMES), ("gender", GENDERS)):
        lookup = np.array([*names, ""])  # MISSING = -1 is the last
        table[name] = lookup[labels[name]]
        answer = getattr(decoded, name)
        if answer is not None:
            table[f"predicted_{name}"] = lookup[answer]
    if decoded.gender_probability is not None:
        table["male_probability"] = decoded.gender_probability.round(4)
    if decoded.heads_agree is not None:
        table["heads_agree"] = decoded.heads_agree
    for name, values in outputs.items():
        values = np.asarray(values).reshape(len(labels["key"]), -1)
        for unit in range(values.shape[1]):
            column = name if values.shape[1] == 1 else f"{name}[{unit}]"
            table[f"output_{column}"] = values[:, unit].round(4)
    partial = file.with_name(file.name + ".partial")
    pd.DataFrame(table).to_csv(partial, index=False)
    os.replace(partial, file)


def _to_numpy(decoded: Any) -> Any:
    return type(decoded)(
        *(None if x is None else ops.convert_to_numpy(x) for x in decoded)
    )


def _slug(split: str) -> str:
    return "".join(c if c.isalnum() or c == "_" else "-" for c in split)
