"""Encodings: which named outputs stand for an age group and a gender, and back."""

from __future__ import annotations

from typing import Any

import numpy as np

from keras_agegender.encodings.targets import check_ids
from keras_agegender.labels import MISSING


def balanced_class_weights(ids: Any, num_classes: int) -> list[float]:
    """Returns weights by which every class counts the same: N / (classes · n).

    Args:
        ids: Class ids, -1 where unknown. Shape (batch,).
        num_classes: Classes there are; those without a face weigh 0.

    Example:
    >>> balanced_class_weights([0, 0, 0, 1, -1], 2)
    [0.6666666666666666, 2.0]
    """
    known = check_ids(ids, num_classes, "ids")
    counts = np.bincount(known[known != MISSING], minlength=num_classes)
    present = max(int((counts > 0).sum()), 1)
    return [float(counts.sum() / (present * n)) if n else 0.0 for n in counts]
