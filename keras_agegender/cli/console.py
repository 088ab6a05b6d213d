"""Command-line conventions: argument types, output, signals and exit codes."""

from __future__ import annotations

import argparse
import contextlib
import logging
import math
import os
import sys
import warnings
from argparse import ArgumentTypeError
from collections.abc import Callable, Sequence
from typing import Any

from keras_agegender.errors import one_line

CLOSED_PIPE = 141  # 128 + SIGPIPE, as shells report it
INTERRUPTED = 130  # 128 + SIGINT
# Of the extra `train`, as they are imported.
TRAINING_PACKAGES = (
    "tensorflow", "keras", "tensorflow_datasets", "mtcnn", "pandas", "sklearn",
    "matplotlib", "tomli_w", "jinja2", "tabulate", "pydantic", "cv2", "scipy",
)  # fmt: skip
RESUMES = "run the same command to resume"


def share_cores() -> None:
    """Limits each operation of TensorFlow to a quarter of the cores, for predicting.

    Reading, detecting, cropping and the network run in parallel, and operations on
    single faces are too small for many threads.
    """
    if "tensorflow" not in sys.modules:
        threads = max(1, (os.cpu_count() or 1) // 4)
        os.environ.setdefault("TF_NUM_INTRAOP_THREADS", str(threads))


def until_closed(work: Callable[[], int]) -> int:
    """Runs a program; a closed output pipe (`| head`) ends it silently."""
    if sys.stdout is None:  # closed from the start, as by `>&-`
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    try:
        try:
            return work()
        finally:
            sys.stdout.flush()  # not at exit, where Python would print a traceback
    except BrokenPipeError:
        for stream in (sys.stdout, sys.stderr):
            # Python flushes both once more at exit.
            with contextlib.suppress(OSError):  # a stream without a descriptor
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        return CLOSED_PIPE


def exit_code(
    work: Callable[[], int | None],
    program: str,
    wrong_input: int = 1,
    interrupted: str = RESUMES,
) -> int:
    """Runs a program; an error or a warning becomes one line on stderr."""
    logging.getLogger("absl").setLevel(logging.ERROR)
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        # Warnings of this library, not of the frameworks.
        warnings.simplefilter("ignore")
        warnings.filterwarnings(
            "always", category=UserWarning, module="keras_agegender"
        )
        warnings.showwarning = lambda message, *_, **__: print(
            f"warning: {one_line(message)}", file=sys.stderr
        )
        return until_closed(lambda: _exit_code(work, program, wrong_input, interrupted))


def _exit_code(
    work: Callable[[], int | None], program: str, wrong_input: int, interrupted: str
) -> int:
    try:
        return work() or 0
    except KeyboardInterrupt:
        print(f"{program}: interrupted; {interrupted}", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        raise
    except Exception as error:
        if os.environ.get("AGEGENDER_TRACEBACK"):
            raise
        text = one_line(error)
        if isinstance(error, ModuleNotFoundError) and error.name in TRAINING_PACKAGES:
            extra = "video" if error.name in ("cv2", "scipy") else "train"
            text = (
                f"{error.name} is not installed: pip install 'keras-agegender[{extra}]'"
            )
        if isinstance(error, OSError) and error.filename and error.strerror:
            text = f"{error.strerror}: {error.filename}"
        elif not isinstance(error, (ValueError, OSError, ImportError)):
            text = (
                f"unexpected {type(error).__name__}: {text[:300]} "
                "(AGEGENDER_TRACEBACK=1 shows the traceback)"
            )
        print(f"{program}: {text}", file=sys.stderr)
        return wrong_input


def read_splits(texts: Sequence[str]) -> dict[str, str]:
    """Reads `--split NAME=EXPRESSION` options."""
    splits = {}
    for text in texts:
        name, equals, expression = text.partition("=")
        if not equals or name not in ("train", "validation", "test"):
            raise ValueError(
                "Invalid --split. Expected train=…, validation=… or test=…, such as "
                f"test=fold_4. Received: {text!r}."
            )
        splits[name] = expression
    return splits


def say(text: str) -> None:
    """Prints and flushes; escapes file names that are not valid text."""
    code = getattr(sys.stdout, "encoding", None) or "utf-8"
    print(text.encode(code, "backslashreplace").decode(code), flush=True)


def add_verb(verbs: Any, name: str, run: Any, text: str) -> argparse.ArgumentParser:
    """Adds a command whose arguments are passed to `run`."""
    verb = verbs.add_parser(name, help=text, description=text)
    verb.set_defaults(run=run)
    return verb


def add_set_option(verb: argparse.ArgumentParser) -> None:
    """Adds `--set KEY=VALUE`."""
    text = (
        "override a recipe setting, e.g. training.epochs=3; an empty value unsets it; "
        "pretraining.KEY=VALUE applies to the pretraining recipe"
    )
    verb.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help=text
    )


def add_split_option(verb: argparse.ArgumentParser, text: str) -> None:
    """Adds `--split NAME=EXPRESSION`."""
    verb.add_argument(
        "--split", action="append", default=[], metavar="NAME=EXPRESSION", help=text
    )


MAX_SEED = 2**32 - 1  # of NumPy's global generator, which Keras seeds too


def whole_number(
    expected: str, least: int, most: int | None = None
) -> Callable[[str], int]:
    """Returns the `type=` of an integer option with a range."""

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
    """Returns the `type=` of a number option; rejects NaN."""

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if math.isnan(value) or not accepts(value):
            raise ArgumentTypeError(f"expected {expected}. Received: {text!r}")
        return value

    return read


seed = whole_number(f"an integer from 0 to {MAX_SEED}", 0, MAX_SEED)
pixels = whole_number("a positive number of pixels", 1)
fold = whole_number("the number of a fold, 0 or higher", 0)
probability = number("a number from 0 to 1", lambda value: 0 <= value <= 1)
share = number("a share in [0, 1), such as 0.1", lambda value: 0 <= value < 1)
inner_share = number("a share in (0, 1), such as 0.1", lambda value: 0 < value < 1)
positive_number = number("a number above 0", lambda value: 0 < value < math.inf)
