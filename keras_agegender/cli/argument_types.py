"""Values of options: read, or refused with what was expected, as argparse parses them.

Each takes the text behind an option; argparse adds the option's name to the message.
"""

from __future__ import annotations

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


seed = whole_number(f"a whole number from 0 to {MAX_SEED}", 0, MAX_SEED)
pixels = whole_number("a whole number of pixels from 1 on", 1)
fold = whole_number("the number of a fold, from 0 on", 0)


def share(text: str) -> float:
    """Reads a share in [0, 1)."""
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not 0 <= value < 1:
        raise ArgumentTypeError(
            f"expected a share from 0 to below 1, such as 0.1. Received: {text!r}"
        )
    return value


def inner_share(text: str) -> float:
    """Reads a share in (0, 1)."""
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not 0 < value < 1:
        raise ArgumentTypeError(
            f"expected a share above 0 and below 1, such as 0.1. Received: {text!r}"
        )
    return value


def positive_number(text: str) -> float:
    """Reads a number above 0."""
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not 0 < value < float("inf"):
        raise ArgumentTypeError(f"expected a number above 0. Received: {text!r}")
    return value
