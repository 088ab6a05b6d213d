"""Values of options: read, or refused with what was expected, as argparse parses them.

Each takes the text behind an option; argparse adds the option's name to the message.
"""

from __future__ import annotations

import math
from argparse import ArgumentTypeError
from collections.abc import Callable

MAX_SEED = 2**32 - 1  # of NumPy's global generator, which Keras seeds too


def whole_number(
    expected: str, least: int, most: int | None = None
) -> Callable[[str], int]:
    """Returns the `type=` of an option that takes whole numbers of a range.

    Args:
        expected: What to say is expected, for instance "a number of pixels from 1 on".
        least: Smallest number that is taken.
        most: Largest one; `None` (default) takes all above.
    """

    def read(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = None
        if value is None or value < least or (most is not None and value > most):
            raise ArgumentTypeError(f"expected {expected}. Received: {text!r}")
        return value

    return read


def number(expected: str, accepts: Callable[[float], bool]) -> Callable[[str], float]:
    """Returns the `type=` of an option that takes numbers; NaN is none.

    Args:
        expected: What to say is expected, for instance "a number above 0".
        accepts: Whether a number may be taken.
    """

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if math.isnan(value) or not accepts(value):
            raise ArgumentTypeError(f"expected {expected}. Received: {text!r}")
        return value

    return read


seed = whole_number(f"a whole number from 0 to {MAX_SEED}", 0, MAX_SEED)
pixels = whole_number("a whole number of pixels from 1 on", 1)
fold = whole_number("the number of a fold, from 0 on", 0)


share = number("a share from 0 to below 1, such as 0.1", lambda value: 0 <= value < 1)
inner_share = number(
    "a share above 0 and below 1, such as 0.1", lambda value: 0 < value < 1
)
positive_number = number("a number above 0", lambda value: 0 < value < math.inf)
