"""What is weak about a calibration, in words: too few faces, bounds reached."""

from __future__ import annotations

import math
from collections.abc import Iterator

from keras_agegender.encodings.calibration import Calibration
from keras_agegender.encodings.encoding import Encoding
from keras_agegender.evaluation.fit_calibration import TEMPERATURES
from keras_agegender.labels import GENDERS

# A search between bounds ends a little inside them.
NEAR_BOUND = 1.01


def least_faces(alpha: float) -> int:
    """Returns how many faces sets need to leave any answer out.

    Args:
        alpha: Share of faces whose truth may lie outside the set, in (0, 1).

    Example:
    >>> least_faces(0.05)  # doctest: +SKIP
    19
    """
    return max(1, math.ceil(1 / alpha - 1e-9) - 1)  # 1 / 0.1 may exceed 10


def calibration_warnings(calibration: Calibration, encoding: Encoding) -> list[str]:
    """Returns a line for everything about a calibration that is not to be trusted.

    Args:
        calibration: What `fit_calibration` returned.
        encoding: Names its groups.
    """
    return [*_of_temperatures(calibration), *_of_sets(calibration, encoding)]


def _of_temperatures(calibration: Calibration) -> Iterator[str]:
    low, high = TEMPERATURES
    for name, value in calibration.temperatures.items():
        faces = calibration.num_faces.get(name)
        over = "" if faces is None else f" ({faces})"
        if value >= high / NEAR_BOUND:
            why = "the model answers no better than chance"
        elif value <= low * NEAR_BOUND:
            why = "all of them are answered right"
        else:
            continue
        yield (
            f"{name}: temperature {value:.3f} is at its bound: too few faces{over}, or "
            f"{why}"
        )


def _of_sets(calibration: Calibration, encoding: Encoding) -> Iterator[str]:
    needed = least_faces(calibration.alpha)
    share = f"{100 * (1 - calibration.alpha):.4g}%"
    groups = {"gender": GENDERS, "age_group": encoding.age_groups.names}
    for name, values in calibration.thresholds.items():
        counts = calibration.num_faces.get(f"{name}_set", (None,) * len(values))
        counts = (counts,) if isinstance(counts, int) else counts
        names = ("",) if calibration.by is None else groups[calibration.by]
        for group, value, count in zip(names, values, counts, strict=True):
            if value < 1:
                continue
            of = f" of faces answered {group}" if group else ""
            if count is None or count >= needed:
                why = "threshold 1"
                end = ""
            else:
                why = f"too few faces ({count}) for {share}" if count else "no face"
                end = f"; at least {needed} needed"
            yield f"{name} sets{of}: {why}: sets hold every answer{end}"
