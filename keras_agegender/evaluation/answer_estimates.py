"""Figures of a single run with intervals over its faces, from its predictions."""

from __future__ import annotations

import numpy as np
import pandas as pd

from keras_agegender.evaluation.clusters import Estimate
from keras_agegender.evaluation.groups import (
    known_values,
    right_answers,
    subjects_of,
)
from keras_agegender.evaluation.resampling import mean_interval, proportion_interval


def answer_estimates(table: pd.DataFrame) -> dict[str, Estimate]:
    """Returns what a run's answers score, clustered by people.

    Args:
        table: Predictions, as `read_predictions` returns them.

    Returns:
        `gender_accuracy`, `age_accuracy`, `age_all_heads_accuracy`,
        `age_one_off_accuracy` and `age_mean_absolute_error` (in groups), those that the
        table knows.
    """
    found = {}
    for question, short in (("gender", "gender"), ("age_group", "age")):
        if f"predicted_{question}" not in table:
            continue
        labeled = table[known_values(table[question])]
        clusters = subjects_of(labeled)
        right = right_answers(labeled, question)
        found[f"{short}_accuracy"] = proportion_interval(right, clusters)
        if question == "gender":
            continue
        if "heads_agree" in table:
            agree = labeled["heads_agree"].to_numpy(bool)
            found["age_all_heads_accuracy"] = proportion_interval(
                right & agree, clusters
            )
        if {"age_group_id", "predicted_age_group_id"} <= set(table):
            ids = labeled[["age_group_id", "predicted_age_group_id"]].to_numpy("int64")
            errors = np.abs(ids[:, 0] - ids[:, 1])
            found["age_one_off_accuracy"] = proportion_interval(errors <= 1, clusters)
            found["age_mean_absolute_error"] = mean_interval(errors, clusters)
    return found
