"""The figures of `evaluate` after every epoch, whatever outputs answer a question."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from keras_agegender.callbacks.decoded_accuracy import DecodedAccuracy
from keras_agegender.encodings.encoding import Encoding
from keras_agegender.evaluation.detailed_metrics import head_metrics


class DecodedMetrics(DecodedAccuracy):
    """Adds every figure of the decoded answers to the logs of every epoch.

    For encodings whose answers come from several outputs (`age1` … `age8`): a metric
    in `compile` sees one of them, so that `detailed_metrics` has none about age there.
    This callback takes the place of `DecodedAccuracy`: it predicts the validation faces
    once more after each epoch and logs, beside what `DecodedAccuracy` does,
    `val_<head>_<metric>` for the metrics of `detailed_metrics`, of every head:
    `val_age_one_off_accuracy`, `val_age_quadratic_kappa`, `val_gender_f1` and so on.
    Figures without a labelled face are not logged. Where both have a name
    (`val_age_mean_absolute_error` of a years head) it is what `DecodedAccuracy` logs.

    Args:
        dataset: As for `DecodedAccuracy`.
        labels: As there: `age_group`, `gender` and the columns of the encoding's heads.
        encoding: What decodes the model's outputs.

    Example:
    >>> callback = DecodedMetrics(val_ds, labels, encoding)  # doctest: +SKIP
    """

    def figures(self, outputs: Mapping[str, Any]) -> dict[str, float]:
        """Returns what is logged of the decoded answers, without the prefix.

        Args:
            outputs: Output name -> predictions. Shape (num_faces, units) each.
        """
        found = decoded_metrics(outputs, self.labels, self.encoding)
        return found | super().figures(outputs)


def decoded_metrics(
    outputs: Mapping[str, Any], labels: Mapping[str, Any], encoding: Encoding
) -> dict[str, float]:
    """Returns the figures that `DecodedMetrics` adds, without the prefix.

    Args:
        outputs: Output name -> predictions. Shape (num_faces, units) each.
        labels: `age_group`, `gender` and the columns of the encoding's heads, -1 where
            unknown. Shape (num_faces,) each.
        encoding: What decodes them.
    """
    given = (labels["age_group"], labels["gender"], labels)
    targets, weights = encoding.encode(*given), encoding.sample_weights(*given)
    found = {}
    for head in encoding.heads:
        if not np.any(weights[head.output_names[0]]):
            continue
        for metric in head_metrics(encoding, head):
            metric.update_state(targets, outputs, weights)
            found[f"{head.name}_{metric.name}"] = float(metric.result())
    return found
