"""Of age, or not: minors who pass and adults who are refused, by threshold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from tabulate import tabulate

from keras_agegender.encodings.of_age import ADULT
from keras_agegender.evaluation.groups import is_few, subjects_of
from keras_agegender.metrics import intervals, table as metric_table

THRESHOLDS = range(ADULT, 31)
SHOWN = (18, 21, 25, 30)  # in printed scores
SCORES = (
    "accuracy", "auc", "negative_log_likelihood", "brier_score",
    "expected_calibration_error",
)  # fmt: skip
# Name -> title, youngest and oldest age, and whether those who pass are counted.
POPULATIONS = {
    "minors_14_17": ("minors 14-17 pass", 14, 17, True),
    "minors": ("all minors pass", 0, 17, True),
    "adults_18_30": ("adults 18-30 refused", 18, 30, False),
}


def score_of_age(table: pd.DataFrame) -> dict[str, Any] | None:
    """Scores the check "of age if the face looks at least T years".

    This is how NIST's FATE AEV reports age estimation ("Challenge 25"): the share of
    minors who pass, and of young adults who are refused, for T from 18 to 30.

    Args:
        table: A row per face, as in predictions.csv: `age_years`, -1 if unknown,
            `predicted_age_years`, `subject` and, if the model predicts it,
            `adult_probability`.

    Returns:
        `age`, `thresholds`, and for each of `populations` (faces of 14 to 17 years, all
        minors, and adults of 18 to 30) `name`, `num_faces`, `num_subjects`, `few`
        (under 30 faces or 10 people), and `shares` and `intervals` (95 % over people)
        by threshold; `probability` has the scores of P(age >= 18). `None` without
        minors of known age, or without predicted years.

    Example:
    >>> table = pd.DataFrame({"age_years": [16, 20], "predicted_age_years": [19, 24]})
    >>> found = score_of_age(table)["populations"]
    >>> found[0]["shares"][:3], found[2]["shares"][6:8]  # minors at 18, adults at 24
    ([1.0, 1.0, 0.0], [0.0, 1.0])
    """
    if not {"age_years", "predicted_age_years"} <= set(table):
        return None
    age = table["age_years"].to_numpy("float64")
    known = age >= 0
    if not (known & (age < ADULT)).any():
        return None
    expected, clusters = table["predicted_age_years"].to_numpy(), subjects_of(table)
    populations = []
    for name, (_, youngest, oldest, passing) in POPULATIONS.items():
        faces = known & (age >= youngest) & (age < oldest + 1)
        own = clusters.select(faces)
        found = [
            intervals.proportion_interval((expected[faces] >= t) == passing, own)
            for t in THRESHOLDS
        ]
        populations.append(
            {
                "name": name,
                "num_faces": int(faces.sum()),
                "num_subjects": own.num_clusters,
                "few": is_few(own),
                "shares": [estimate.value for estimate in found],
                "intervals": [estimate.interval for estimate in found],
            }
        )
    return {
        "age": ADULT,
        "thresholds": list(THRESHOLDS),
        "populations": populations,
        "probability": _score_probability(table[known]),
    }


def _score_probability(table: pd.DataFrame) -> dict[str, Any] | None:
    """Returns the scores of P(age >= 18) for faces of known age."""
    if "adult_probability" not in table:
        return None
    adult = (table["age_years"].to_numpy() >= ADULT).astype("int64")
    p = table["adult_probability"].to_numpy("float64")
    found = metric_table.Predictions(
        adult, (p > 0.5).astype("int64"), 2, np.stack([1 - p, p], axis=1)
    )
    return {"num_faces": len(table), **metric_table.score(found, SCORES)}


def of_age_table(found: Mapping[str, Any]) -> pd.DataFrame:
    """Returns a row per threshold: each population's share and its interval."""
    rows: dict[str, Sequence[Any]] = {"threshold": found["thresholds"]}
    for population in found["populations"]:
        name = population["name"]
        ends = [interval or (None, None) for interval in population["intervals"]]
        rows[name] = population["shares"]
        rows[f"{name}_low"], rows[f"{name}_high"] = zip(*ends, strict=True)
    return pd.DataFrame(rows)


def of_age_lines(found: Mapping[str, Any]) -> list[str]:
    """Formats the result of `score_of_age` as lines of text."""
    populations = [p for p in found["populations"] if p["num_faces"]]
    titles = [POPULATIONS[p["name"]][0] for p in populations]
    rows: list[list[str]] = []
    for index, threshold in enumerate(found["thresholds"]):
        if threshold in SHOWN:
            cells = [_share(p["shares"][index], p["intervals"][index])
                     for p in populations]  # fmt: skip
            rows.append([f"at least {threshold}", *cells])
    counts = [
        f"{p['num_faces']} ({p['num_subjects']}){' few' if p['few'] else ''}"
        for p in populations
    ]
    rows.append(["faces (people)", *counts])
    text = tabulate(rows, ["must look", *titles], "plain", disable_numparse=True)
    lines = [line.rstrip() for line in text.splitlines()]
    if scores := found.get("probability"):
        values = {
            name: metric_table.format_value(scores[name])
            for name in SCORES
            if scores.get(name) is not None
        }
        texts = [f"{metric_table.METRICS[k].title} {v}" for k, v in values.items()]
        lines.append(f"P(age >= {found['age']}): {', '.join(texts[:2])},")
        lines.append(f"  {', '.join(texts[2:])}")
    return lines


def _share(value: float | None, interval: Sequence[float] | None) -> str:
    text = metric_table.format_value(value)
    return text + (f" [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else "")
