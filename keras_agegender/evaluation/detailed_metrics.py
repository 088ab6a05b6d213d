"""The metrics by name: for arrays, for Keras, and what each needs.

One table, so that no figure is one thing in metrics.json and another in the logs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

from keras_agegender.encodings.encoding import Encoding
from keras_agegender.encodings.head import Head
from keras_agegender.encodings.kinds import KINDS
from keras_agegender.evaluation.array_metrics import (
    accuracy_of,
    balanced_accuracy_of,
    one_off_accuracy_of,
    mean_absolute_error_of,
    cumulative_score_5_of,
    quadratic_kappa_of,
    precision_of,
    recall_of,
    f1_of,
    auc_of,
    all_heads_accuracy_of,
    rank_violation_rate_of,
    negative_log_likelihood_of,
    brier_score_of,
    expected_calibration_error_of,
)
from keras_agegender.evaluation.keras_count_metrics import (
    BalancedAccuracy,
    QuadraticKappa,
    ExpectedCalibrationError,
    PositiveClassMetric,
)
from keras_agegender.evaluation.keras_metrics import (
    ExactAccuracy,
    OneOffAccuracy,
    MeanAbsoluteGroupError,
    AgeYearsError,
    CumulativeScore,
    AllHeadsAccuracy,
    RankViolationRate,
    NegativeLogLikelihood,
    BrierScore,
)
from keras_agegender.evaluation.answers import NUMBERS, Answers, find_head


@dataclass(frozen=True)
class Metric:
    """A row of `METRICS`.

    Attributes:
        of_arrays: Answers about labelled faces -> the figure, `None` if undefined.
        of_keras: Makes the Keras metric from an encoding and a column.
        needs: What a question must have: `"classes"`, `"two classes"`, classes that are
            `"ordered"`, `"ranks"` (heads that ask about them) or `"years"`.
    """

    of_arrays: Callable[[Answers], float | None]
    of_keras: Callable[..., Any]
    needs: str


def _positive(figure: str) -> Callable[..., Any]:
    return partial(PositiveClassMetric, figure)


METRICS: dict[str, Metric] = {
    "accuracy": Metric(accuracy_of, ExactAccuracy, "classes"),
    "balanced_accuracy": Metric(
        balanced_accuracy_of,
        BalancedAccuracy,
        "classes",
    ),
    "negative_log_likelihood": Metric(
        negative_log_likelihood_of,
        NegativeLogLikelihood,
        "classes",
    ),
    "brier_score": Metric(brier_score_of, BrierScore, "classes"),
    "expected_calibration_error": Metric(
        expected_calibration_error_of,
        ExpectedCalibrationError,
        "classes",
    ),
    "precision": Metric(precision_of, _positive("precision"), "two classes"),
    "recall": Metric(recall_of, _positive("recall"), "two classes"),
    "f1": Metric(f1_of, _positive("f1"), "two classes"),
    "auc": Metric(auc_of, _positive("auc"), "two classes"),
    "one_off_accuracy": Metric(one_off_accuracy_of, OneOffAccuracy, "ordered"),
    "mean_absolute_error": Metric(
        mean_absolute_error_of,
        MeanAbsoluteGroupError,
        "ordered",
    ),
    "quadratic_kappa": Metric(quadratic_kappa_of, QuadraticKappa, "ordered"),
    "all_heads_accuracy": Metric(all_heads_accuracy_of, AllHeadsAccuracy, "ranks"),
    "rank_violation_rate": Metric(rank_violation_rate_of, RankViolationRate, "ranks"),
    "mean_absolute_error_years": Metric(mean_absolute_error_of, AgeYearsError, "years"),
    "cumulative_score_5": Metric(cumulative_score_5_of, CumulativeScore, "years"),
}


def score_answers(answers: Answers, names: Iterable[str]) -> dict[str, float | None]:
    """Returns figures by name, `None` where one is undefined.

    Args:
        answers: Answers about labelled faces, NumPy arrays.
        names: Keys of `METRICS`.
    """
    return {name: METRICS[name].of_arrays(answers) for name in names}


def metric_names(encoding: Encoding, column: str) -> list[str]:
    """Returns the metrics that the answers for a column have.

    Args:
        encoding: An encoding.
        column: As for `find_head`.
    """
    kind = KINDS[find_head(encoding, column).kind]
    if column == "age_years":
        has = {"years"}
    else:
        head = find_head(encoding, column)
        has = {"classes"}
        if column == "gender" or head.num_values == 2:
            has.add("two classes")
        if column == "age_group" or kind.ordered:
            has.add("ordered")
        if kind.ranks:
            has.add("ranks")
    return [name for name, metric in METRICS.items() if metric.needs in has]


def detailed_metrics(encoding: Encoding) -> dict[str, list[Any]]:
    """Returns every metric of every output, for `compile(weighted_metrics=…)`.

    They are what `evaluate` reports, of the decoded answers: for classes exact and
    balanced accuracy, negative log-likelihood, Brier score and expected calibration
    error; of two classes precision, recall, f1 and AUC of class 1 (male); of ordered
    ones one-off accuracy, mean error and quadratic kappa; of questions about ranks
    whether all are right, and how often they contradict each other; of years the mean
    error and CS@5. `Encoding.metrics` are among them, by their names there.

    A face of the joint encoding counts if both its labels are known, as in its loss.
    Several outputs that answer one question (ordinal encodings) only have the latter:
    Keras shows a metric one output at a time. The callback `DecodedMetrics` logs the
    same figures of those, and every class takes dicts of outputs in `update_state`.

    A model saved with its compilation loads where `keras_agegender` is imported, or
    with `compile=False`.

    Args:
        encoding: The model's encoding.

    Example:
    >>> enc = kag.get_encoding("coral")
    >>> [m.name for m in kag.detailed_metrics(enc)["age"]][-2:]
    ['all_heads_accuracy', 'rank_violation_rate']
    >>> arguments = enc.compile_arguments()
    >>> arguments["weighted_metrics"] = kag.detailed_metrics(enc)
    >>> model.compile("adam", **arguments)  # doctest: +SKIP
    """
    found = dict(encoding.metrics())
    for head in encoding.heads:
        if len(head.output_names) > 1:
            continue
        for metric in head_metrics(encoding, head):
            if len(encoding.output_names) == 1:  # Keras puts no output's name in front
                metric.name = f"{head.name}_{metric.name}"
            found[head.name] = [*found[head.name], metric]
    return found


def head_metrics(encoding: Encoding, head: Head) -> list[Any]:
    """Returns the metrics of one head's decoded answers, new ones.

    Args:
        encoding: The model's encoding.
        head: One of its heads, of any number of outputs.
    """
    found = []
    for column in _columns(encoding, head):
        for name in metric_names(encoding, column):
            metric = METRICS[name].of_keras(encoding, column)
            if head.columns == ("gender", "age_group"):
                metric.name = f"{column}_{metric.name}"
            found.append(metric)
    return found


def _columns(encoding: Encoding, head: Head) -> tuple[str, ...]:
    """Returns the columns that a head answers with classes or years of age."""
    if head is encoding.age_head and head.kind == "years":
        return ("age_group", "age_years")
    if head.kind in NUMBERS:
        return ()
    return head.columns
