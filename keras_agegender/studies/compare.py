"""Comparison: two runs side by side on the same faces, with paired differences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from keras_agegender.evaluation.clusters import Clusters
from keras_agegender.evaluation.groups import known_values
from keras_agegender.evaluation.paired_test import paired_test
from keras_agegender.evaluation.predictions import read_predictions
from keras_agegender.evaluation.resampling import difference_interval
from keras_agegender.files import read_json
from keras_agegender.run_directory import RunDirectory
from keras_agegender.studies.gate import CellDifference, compare_cells, gate_lines
from keras_agegender.training.identity import differences, flatten

CLUSTERS = ("subject", "album", "face")


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
        interval: 95 % interval of second minus first, clustered; `None` of fewer than
            two clusters.
        p_value: Of the sign-flip test over clusters, McNemar's exact test where each
            face is its own: how likely this difference, or a larger one, is if neither
            run is better.
        num_clusters: Subjects (or albums) that the faces are of.
        largest_share: Share of the faces that the largest of them holds.
    """

    question: str
    num_faces: int
    first: float
    second: float
    only_first: int
    only_second: int
    interval: tuple[float, float] | None
    p_value: float
    num_clusters: int
    largest_share: float

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
        cluster: What intervals and tests take for independent: `"subject"`, `"album"`
            or `"face"`.
        cells: The differences of every age group of a gender, the worst first.
    """

    runs: tuple[str, str]
    differences: tuple[PairedDifference, ...]
    settings: dict[str, tuple[Any, Any]]
    warnings: tuple[str, ...] = ()
    cluster: str = "subject"
    cells: tuple[CellDifference, ...] = ()

    @property
    def worse(self) -> tuple[CellDifference, ...]:
        """The cells in which the second run is worse beyond noise."""
        return tuple(cell for cell in self.cells if cell.worse)

    def gate(self) -> str:
        """Returns the verdict over the cells, as `agegender compare --gate` prints."""
        return "\n".join(gate_lines(self.cells))

    def __str__(self) -> str:
        lines = [f"A {self.runs[0]}", f"B {self.runs[1]}"]
        lines += [f"  {key}: {a!r} | {b!r}" for key, (a, b) in self.settings.items()]
        lines += [f"  note: {warning}" for warning in self.warnings]
        lines.append(
            f"{'':<11}{'faces':>7}{'A':>8}{'B':>8}{'B - A':>9}  {'95 % interval':<18}"
            f"{'only A':>7}{'only B':>7}{'p':>9}"
        )
        for d in self.differences:
            ends = d.interval
            interval = f"[{ends[0]:+.3f}, {ends[1]:+.3f}]" if ends else "-"
            lines.append(
                f"{d.question:<11}{d.num_faces:>7}{d.first:>8.3f}{d.second:>8.3f}"
                f"{d.difference:>+9.3f}  {interval:<18}{d.only_first:>7}"
                f"{d.only_second:>7}{d.p_value:>9.3g}"
            )
        lines += [
            f"{d.question}: {d.num_clusters} {self.cluster}s, the largest holds "
            f"{d.largest_share:.1%} of the faces"
            for d in self.differences
        ]
        return "\n".join(lines)


def compare(
    first: str | Path | RunDirectory,
    second: str | Path | RunDirectory,
    *,
    predictions: str = "predictions.csv",
    cluster: str = "subject",
) -> Comparison:
    """Compares two runs face by face, from the predictions they left behind.

    Interval and test describe these two models on other people of the same kind: the
    errors on two faces of one person agree, so that people are drawn, not faces. They
    do not cover other seeds or folds: `compare_sets` does.

    Args:
        first: A run or its directory.
        second: Another one, scored on the same faces.
        predictions: File of both to read. Defaults to that of the test split.
        cluster: What is independent: `"subject"` (default), `"album"` (whose pictures
            they are, for Adience) or `"face"`. A face whose subject nobody knows counts
            as a subject of its own.

    Returns:
        Accuracies, paired differences, and the settings that differ.

    Raises:
        ValueError: If a run has no predictions, they do not say who is on the faces,
            or the two have no face in common.

    Example:
    >>> print(compare("runs/categorical", "runs/ordinal"))  # doctest: +SKIP
    """
    if cluster not in CLUSTERS:
        raise ValueError(
            f"Invalid `cluster`. Expected one of {CLUSTERS}. "
            f"Received: cluster={cluster!r}."
        )
    runs = [
        r if isinstance(r, RunDirectory) else RunDirectory.open(r)
        for r in (first, second)
    ]
    tables = [read_answers(run, predictions) for run in runs]
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
    warnings += why_unlike(*(run.info() for run in runs))
    for run in runs:
        warnings += seen_faces(run, predictions)
    both = tables[0].loc[shared], tables[1].loc[shared]
    clusters = _clusters(both, runs, cluster)
    if cluster != "face" and clusters.num_clusters == len(shared) > 1:
        warnings.append(f"every face counts as a {cluster} of its own")
    questions = tuple(
        question
        for question in ("gender", "age_group")
        if all(f"predicted_{question}" in table for table in tables)
    )
    found = [_difference(question, *both, clusters) for question in questions]
    return Comparison(
        (str(runs[0].path), str(runs[1].path)),
        tuple(d for d in found if d is not None),
        differing_settings(*(run.recipe().to_dict() for run in runs)),
        tuple(warnings),
        cluster,
        compare_cells(*both, clusters, questions),
    )


def read_answers(run: RunDirectory, name: str) -> pd.DataFrame:
    """Reads the predictions that a run left behind."""
    file = run.path / name
    if not file.is_file():
        raise ValueError(
            f"The run in {run.path} has no {name}. Make it with `agegender evaluate`."
        )
    return read_predictions(file)


def _clusters(
    tables: Sequence[pd.DataFrame], runs: Sequence[RunDirectory], cluster: str
) -> Clusters:
    """Returns which faces belong together, by the first table that says so."""
    if cluster == "face":
        return Clusters.of([""] * len(tables[0]))
    for table in tables:
        if cluster in table:
            return Clusters.of(table[cluster])
    raise ValueError(
        f"The predictions of {runs[0].path} have no column {cluster!r}: they are "
        "older, or their dataset does not know it. `agegender evaluate` writes them "
        "anew; cluster='face' (--cluster face) takes faces for independent: too narrow "
        "where people have several."
    )


def _difference(
    question: str, first: pd.DataFrame, second: pd.DataFrame, clusters: Clusters
) -> PairedDifference | None:
    known = known_values(first[question])
    if not known.any():
        return None
    truth = first[question].to_numpy()[known]
    right = [
        t[f"predicted_{question}"].to_numpy()[known] == truth for t in (first, second)
    ]
    own = clusters.select(known)
    differences = right[1].astype(int) - right[0].astype(int)
    return PairedDifference(
        question,
        len(truth),
        float(right[0].mean()),
        float(right[1].mean()),
        int((differences < 0).sum()),
        int((differences > 0).sum()),
        difference_interval(right[0], right[1], own).interval,
        paired_test(differences, own),
        own.num_clusters,
        own.largest_share,
    )


def differing_settings(
    first: Mapping[str, Any], second: Mapping[str, Any]
) -> dict[str, Any]:
    """Returns the settings of two recipes that differ, by dotted key."""
    flat = [flatten(settings) for settings in (first, second)]
    keys = sorted({*flat[0], *flat[1]} - {"name", "title", "published"})
    return {
        key: (flat[0].get(key), flat[1].get(key))
        for key in keys
        if flat[0].get(key) != flat[1].get(key)
    }


def why_unlike(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[str]:
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


def seen_faces(run: RunDirectory, predictions: str) -> list[str]:
    """Says that a run was scored on faces that it knows."""
    file = run.path / predictions.replace("predictions", "metrics").replace(
        ".csv", ".json"
    )
    if not file.is_file():
        return []
    metrics = read_json(file)
    return [
        f"{run.path} was {what} on {count} of the faces it is scored on"
        for key, what in (("training", "trained"), ("validation", "selected"))
        if (count := metrics.get(f"num_seen_in_{key}"))
    ]
