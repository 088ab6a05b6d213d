"""Comparison: two runs side by side on the same faces, with paired differences."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from keras_agegender.run_directory import RunDirectory
from keras_agegender.training.identity import differences, flatten

RESAMPLES = 10_000


@dataclass(frozen=True)
class PairedDifference:
    """How two runs answer one question about the same faces.

    Attributes:
        question: `"gender"` or `"age_group"`.
        num_faces: Faces with that label that both runs answered.
        first: Accuracy of the first run.
        second: Accuracy of the second.
        only_first: Faces that just the first run got right.
        only_second: Faces that just the second run got right.
        interval: 95 % interval of second minus first, by a bootstrap over faces.
        p_value: Of McNemar's exact test: how likely this difference, or a larger one,
            is if neither run is better.
    """

    question: str
    num_faces: int
    first: float
    second: float
    only_first: int
    only_second: int
    interval: tuple[float, float]
    p_value: float

    @property
    def difference(self) -> float:
        """Second minus first."""
        return self.second - self.first


@dataclass(frozen=True)
class Comparison:
    """What `compare` found.

    Attributes:
        runs: The two folders.
        differences: One for each question that both answer.
        settings: Recipe setting -> its values in both, where they differ.
        warnings: Reasons why the comparison may be unfair.
    """

    runs: tuple[str, str]
    differences: tuple[PairedDifference, ...]
    settings: dict[str, tuple[Any, Any]]
    warnings: tuple[str, ...] = ()

    def __str__(self) -> str:
        lines = [f"A {self.runs[0]}", f"B {self.runs[1]}"]
        lines += [f"  {key}: {a!r} | {b!r}" for key, (a, b) in self.settings.items()]
        lines += [f"  note: {warning}" for warning in self.warnings]
        lines.append(
            f"{'':<11}{'faces':>7}{'A':>8}{'B':>8}{'B - A':>9}  {'95 % interval':<18}"
            f"{'only A':>7}{'only B':>7}{'p':>9}"
        )
        for d in self.differences:
            interval = f"[{d.interval[0]:+.3f}, {d.interval[1]:+.3f}]"
            lines.append(
                f"{d.question:<11}{d.num_faces:>7}{d.first:>8.3f}{d.second:>8.3f}"
                f"{d.difference:>+9.3f}  {interval:<18}{d.only_first:>7}"
                f"{d.only_second:>7}{d.p_value:>9.2g}"
            )
        return "\n".join(lines)


def compare(
    first: str | Path | RunDirectory,
    second: str | Path | RunDirectory,
    *,
    predictions: str = "predictions.csv",
    seed: int = 0,
) -> Comparison:
    """Compares two runs face by face, from the predictions they left behind.

    Interval and test describe these two models on other faces of the same kind. They
    do not cover other seeds: `reproduce` shows the spread over seeds.

    Args:
        first: A run or its directory.
        second: Another one, scored on the same faces.
        predictions: File of both to read. Defaults to that of the test split.
        seed: Seed of the bootstrap. Defaults to 0.

    Returns:
        Accuracies, paired differences, and the settings that differ.

    Raises:
        ValueError: If a run has no predictions, or the two have no face in common.

    Example:
    >>> print(compare("runs/categorical", "runs/ordinal"))  # doctest: +SKIP
    """
    runs = [
        r if isinstance(r, RunDirectory) else RunDirectory.open(r)
        for r in (first, second)
    ]
    tables = [_read_predictions(run, predictions) for run in runs]
    shared = tables[0].index.intersection(tables[1].index)
    if shared.empty:
        raise ValueError(
            f"{runs[0].path} and {runs[1].path} were scored on no face in common: "
            "other datasets, or other splits of one. `agegender evaluate --data … "
            "--split …` scores both on the same."
        )
    warnings = []
    for run, table in zip(runs, tables, strict=True):
        if len(table) > len(shared):
            warnings.append(
                f"{len(table) - len(shared)} faces of {run.path} are not in the other"
            )
    warnings += _unlike(*(run.info() for run in runs))
    for run in runs:
        warnings += _seen(run, predictions)
    differences = [
        _difference(question, tables[0].loc[shared], tables[1].loc[shared], seed)
        for question in ("gender", "age_group")
        if all(f"predicted_{question}" in table for table in tables)
    ]
    return Comparison(
        (str(runs[0].path), str(runs[1].path)),
        tuple(d for d in differences if d is not None),
        _differing(*(run.recipe().to_dict() for run in runs)),
        tuple(warnings),
    )


def _read_predictions(run: RunDirectory, name: str) -> pd.DataFrame:
    file = run.path / name
    if not file.is_file():
        raise ValueError(
            f"The run in {run.path} has no {name}. Make it with `agegender evaluate`."
        )
    return pd.read_csv(file, keep_default_na=False, dtype={"key": str}).set_index("key")


def _difference(
    question: str, first: pd.DataFrame, second: pd.DataFrame, seed: int
) -> PairedDifference | None:
    from scipy.stats import binomtest

    known = (first[question] != "").to_numpy()
    if not known.any():
        return None
    truth = first[question].to_numpy()[known]
    right = [
        t[f"predicted_{question}"].to_numpy()[known] == truth for t in (first, second)
    ]
    only_first = int((right[0] & ~right[1]).sum())
    only_second = int((right[1] & ~right[0]).sum())
    count = len(truth)
    # A bootstrap sample of faces is a multinomial draw of these three counts.
    shares = (
        np.array([only_first, only_second, count - only_first - only_second]) / count
    )
    draws = np.random.default_rng(seed).multinomial(count, shares, RESAMPLES)
    low, high = np.percentile((draws[:, 1] - draws[:, 0]) / count, [2.5, 97.5])
    uneven = only_first + only_second
    p_value = binomtest(only_second, uneven, 0.5).pvalue if uneven else 1.0
    return PairedDifference(
        question,
        count,
        float(right[0].mean()),
        float(right[1].mean()),
        only_first,
        only_second,
        (float(low), float(high)),
        float(p_value),
    )


def _differing(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the settings of two recipes that differ, by dotted key."""
    flat = [flatten(settings) for settings in (first, second)]
    keys = sorted({*flat[0], *flat[1]} - {"name", "title", "published"})
    return {
        key: (flat[0].get(key), flat[1].get(key))
        for key in keys
        if flat[0].get(key) != flat[1].get(key)
    }


def _unlike(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[str]:
    """Returns how two runs' experiments differ beside their recipes' settings."""
    identities = [info.get("identity") for info in (first, second)]
    if None in identities:
        same = first.get("data_sha256") == second.get("data_sha256")
        return [] if same else ["the two were trained on different datasets"]
    if identities[0] == identities[1]:
        return ["the two are runs of one experiment: differences are chance"]
    found = differences(first["experiment"], second["experiment"])
    warnings = []
    if any(line.startswith("data.sha256") for line in found):
        warnings.append("the two were trained on different datasets")
    for key in ("data.splits.", "data.pixels.", "begins_with", "seed"):
        warnings += [
            line.replace(" there and ", " in A and ").replace(" here", " in B")
            for line in found
            if line.startswith(key)
        ]
    return warnings


def _seen(run: RunDirectory, predictions: str) -> list[str]:
    """Says that a run was scored on faces that it knows."""
    file = run.path / predictions.replace("predictions", "metrics").replace(
        ".csv", ".json"
    )
    if not file.is_file():
        return []
    metrics = json.loads(file.read_text("utf-8"))
    return [
        f"{run.path} was {what} on {count} of the faces it is scored on"
        for key, what in (("training", "trained"), ("validation", "selected"))
        if (count := metrics.get(f"num_seen_in_{key}"))
    ]
