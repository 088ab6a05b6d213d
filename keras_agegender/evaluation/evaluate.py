"""Evaluation: a trained run and held-out faces become scores, a table and pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from keras import ops

from keras_agegender.datasets.prepared import PreparedDataset, load_prepared
from keras_agegender.datasets.shards import naming_damage
from keras_agegender.encodings.encoding import Encoding
from keras_agegender.encodings.kinds import KINDS
from keras_agegender.evaluation.calibration_scores import calibration_scores
from keras_agegender.evaluation.confusion_plot import plot_confusion_matrices
from keras_agegender.evaluation.descriptions import (
    check_groupings,
    read_descriptions,
)
from keras_agegender.evaluation.groups import further_questions, score_groups
from keras_agegender.evaluation.metrics import Evaluation, evaluate_predictions
from keras_agegender.evaluation.predictions import (
    prediction_table,
    write_predictions,
)
from keras_agegender.evaluation.seen_faces import count_seen, data_name, possibly_seen
from keras_agegender.files import directory_hash, write_json
from keras_agegender.input_pipeline.eval_dataset import make_eval_dataset
from keras_agegender.input_pipeline.labels import read_labels
from keras_agegender.run_directory import RunDirectory


def evaluate(
    run: RunDirectory | str | Path,
    data: PreparedDataset | str | Path | None = None,
    *,
    split: str = "test",
    checkpoint: str = "best",
    positive_gender: str | None = None,
    by: str | Sequence[str] = (),
) -> Evaluation:
    """Scores a run's best model on held-out faces and writes what it found.

    In the run directory it writes metrics.json, confusion.png and predictions.csv (one
    row per face), named after dataset and split where they are not the run's own test
    split. Faces whose picture or person the model was trained or selected on are
    counted in the scores (`num_seen_in_training`, `num_seen_in_validation`); where the
    run has no record of them, `possibly_seen_in` goes by names. Of a run that was
    calibrated (`calibrate`), the best model's calibrated answers are scored, as its
    export gives them, and `scores.calibration` says what they are worth.

    Args:
        run: A run or its directory.
        data: A prepared dataset or its directory; `None` takes the one trained on.
        split: A split name or expression. Defaults to `"test"`. On the dataset trained
            on, names are the run's splits.
        checkpoint: Which of the run's models: `"best"` (default), `"last"` or the name
            of one that the recipe keeps; it is in the files' names, unless the best.
        positive_gender: Positive class of precision, recall and f1, `"male"` or
            `"female"`. `None` (default) takes the recipe's
            `evaluation.positive_gender`.
        by: Columns of the dataset to score groups by, beside age group and gender:
            `"race"`, or `"race,gender"` for both crossed. Defaults to none.

    Returns:
        The scores.

    Raises:
        ValueError: If the run, the dataset, the split or a column does not exist, or
            the dataset trained on is another one by now.

    Example:
    >>> evaluate("runs/1", split="fold_4")  # doctest: +SKIP
    """
    if not isinstance(run, RunDirectory):
        run = RunDirectory.open(run)
    recipe, encoding = run.recipe(), run.encoding()
    data, same = open_data(run, data)
    splits = run.info()["splits"] if same else data.splits
    split = splits.get(split, split)
    calibration = run.calibration() if checkpoint == "best" else None
    if encoding.age_groups.bounds != data.age_groups.bounds:
        # Years are answered in any groups; the sets were fitted in others.
        data.check_encoding(encoding)
        encoding = replace(encoding, age_groups=data.age_groups)
        calibration = None
    descriptions = read_descriptions(data, split)
    check_groupings(by, descriptions, encoding)
    raw, labels = predict_split(run, data, split, checkpoint)
    outputs = calibration.apply(raw, encoding) if calibration else raw
    positive = positive_gender or recipe.evaluation.positive_gender
    subjects = descriptions.get("subject", np.full(len(labels["key"]), ""))
    scores = score(outputs, labels, encoding, positive, subjects)
    scores = replace(
        scores,
        **count_seen(run, data, split),
        possibly_seen_in=possibly_seen(run, data, split),
    )
    scores = replace(scores, model=run.describe_model(checkpoint))
    table = prediction_table(outputs, labels, encoding, descriptions)
    groups = score_groups(table, by, further_questions(table, encoding))
    scores = replace(scores, groups=groups)
    if calibration is not None:
        found = calibration_scores(raw, labels, encoding, calibration)
        scores = replace(scores, calibration=found)
    suffix = file_suffix(run, split, checkpoint, data=None if same else data)
    write_json(
        run.path / f"metrics{suffix}.json",
        {
            "split": split,
            "data": data_name(data),
            "recipe": recipe.name,
            "identity": run.identity,
            "checkpoint": checkpoint,
            **scores.to_dict(),
        },
    )
    plot_confusion_matrices(scores, run.path / f"confusion{suffix}.png")
    write_predictions(run.path / f"predictions{suffix}.csv", table)
    return scores


def file_suffix(
    run: RunDirectory,
    split: str,
    checkpoint: str = "best",
    data: PreparedDataset | None = None,
) -> str:
    """Returns what the names of an evaluation's files end in.

    Args:
        run: A run.
        split: A split expression.
        checkpoint: Which of the run's models.
        data: The dataset; `None` (default) is the one trained on.
    """
    suffix = "" if checkpoint == "best" else f"_{checkpoint}"
    if data is not None:
        suffix += f"_{_slug(data_name(data))}"
    if data is not None or split != run.info()["splits"].get("test"):
        suffix += f"_{_slug(split)}"
    return suffix


def predict_split(
    run: RunDirectory, data: PreparedDataset, split: str, checkpoint: str = "best"
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Returns a model's outputs about the faces of a split, and their labels.

    Raises:
        ValueError: If the split or the model does not exist, or the model was trained
            on other pixels.
    """
    check_same_pixels(run, data)
    recipe, encoding = run.recipe(), run.encoding()
    images = make_eval_dataset(
        data,
        encoding,
        split=split,
        pipeline=recipe.data.pipeline,
        image_size=recipe.model.image_size,
        batch_size=recipe.data.batch_size,
    ).map(lambda image, targets, weights: image)
    labels = read_labels(data, split, columns=encoding.columns)
    model = run.load_model(checkpoint)
    with naming_damage(data):
        return model.predict(images, verbose=0), labels


def open_data(
    run: RunDirectory, data: PreparedDataset | str | Path | None
) -> tuple[PreparedDataset, bool]:
    """Returns a dataset, and whether it is the one that the run was trained on."""
    info = run.info()
    given = data
    if isinstance(data, PreparedDataset):
        prepared = data
    else:
        prepared = load_prepared(info["data"] if data is None else data)
    same = directory_hash(prepared.directory) == info.get("data_sha256")
    if given is None and not same:
        raise ValueError(
            f"The dataset in {prepared.directory} is not the one that the run in "
            f"{run.path} was trained on: it was prepared again since, or is damaged "
            "(`agegender verify`). Say what to evaluate on with `data` (--data)."
        )
    return prepared, same


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
    subjects: Any = None,
) -> Evaluation:
    """Returns the scores of a model's outputs.

    Args:
        outputs: Head name -> predictions. Shape (num_faces, units) each.
        labels: `age_group`, `gender` and the columns of extra heads, -1 (NaN for
            regression) where unknown. Shape (num_faces,) each.
        encoding: What decodes the outputs.
        positive_gender: Positive class of precision, recall and f1.
        subjects: Who is on each face, for intervals. Shape (num_faces,).
    """
    return evaluate_predictions(
        labels["age_group"],
        labels["gender"],
        _to_numpy(encoding.decode(outputs)),
        positive_gender=positive_gender,
        separate_age_heads=encoding.age_head is not None
        and KINDS[encoding.age_head.kind].ranks,
        extra={
            head.name: (
                head.kind,
                labels[head.columns[0]],
                ops.convert_to_numpy(encoding.answer(head.name, outputs).values),
            )
            for head in encoding.extra_heads
        },
        age_groups=encoding.age_groups,
        age_years_true=labels.get("age_years"),
        subjects=subjects,
    )


def _to_numpy(decoded: Any) -> Any:
    return type(decoded)(
        *(None if x is None else ops.convert_to_numpy(x) for x in decoded)
    )


def _slug(split: str) -> str:
    return "".join(c if c.isalnum() or c == "_" else "-" for c in split)
