"""Command-line conventions: argument types, output, signals and exit codes."""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import signal
import sys
import threading
from argparse import ArgumentTypeError
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from keras_agegender.console import quiet_start

# What a shell says of a program that wrote into a pipe nobody reads: 128 + SIGPIPE.
CLOSED_PIPE = 141
AGAIN_AFTER = 0.05  # seconds
GOES_ON = "the same command goes on from here"


def load_frameworks() -> None:
    """Imports TensorFlow and Keras without their start-up lines on the screen."""
    import logging
    import warnings

    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    warnings.filterwarnings("ignore")
    with quiet_start():
        import keras  # noqa: F401
        import tensorflow  # noqa: F401
    logging.getLogger("absl").setLevel(logging.ERROR)
    logging.getLogger("tensorflow").setLevel(logging.ERROR)


def share_cores() -> None:
    """Gives each operation of TensorFlow a quarter of the cores, at least one.

    For verbs that predict: reading, finding faces, cutting them out and the network run
    side by side, and operations on single faces are too small to be worth sharing out.
    TF_NUM_INTRAOP_THREADS goes before.
    """
    import tensorflow as tf

    if "TF_NUM_INTRAOP_THREADS" in os.environ:
        return
    with contextlib.suppress(RuntimeError):  # TensorFlow is at work already
        threads = max(1, (os.cpu_count() or 1) // 4)
        tf.config.threading.set_intra_op_parallelism_threads(threads)


def until_closed(work: Callable[[], int]) -> int:
    """Runs a program as long as somebody reads what it prints: `agegender … | head`.

    Returns:
        What it returns; 141 if its output was closed before it was done.
    """
    if sys.stdout is None:  # closed from the beginning, as by `>&-`
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    try:
        try:
            return work()
        finally:
            sys.stdout.flush()  # not at exit, where Python would print a traceback
    except BrokenPipeError:
        for stream in (sys.stdout, sys.stderr):
            _discard_if_closed(stream)
        return CLOSED_PIPE


def _discard_if_closed(stream: Any) -> None:
    """Leads what a stream still holds nowhere: Python flushes it once more at exit."""
    try:
        stream.flush()
    except BrokenPipeError:
        with contextlib.suppress(OSError):  # a stream without a descriptor
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


class Terminated(KeyboardInterrupt):
    """SIGTERM, which ends a program as Ctrl-C does: what is open is closed."""


def exit_code(
    work: Callable[[], int | None],
    program: str,
    wrong_input: int = 1,
    stopped: str = GOES_ON,
) -> int:
    """Runs a program; what goes wrong becomes one line on stderr.

    Args:
        work: The program, its command line parsed; returns an exit code or `None`.
        program: Its name, which the line begins with.
        wrong_input: Exit code of an error, where 1 is an answer. Defaults to 1.
        stopped: What a signal that stops it means for whoever sent it. Defaults to that
            the same command goes on.

    Returns:
        0 done, `wrong_input` if something was wrong with it, 130 interrupted (Ctrl-C),
        141 if nobody reads its output any more, 143 terminated (SIGTERM).
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # whatever imports TensorFlow
    return until_closed(lambda: _exit_code(work, program, wrong_input, stopped))


def _exit_code(
    work: Callable[[], int | None], program: str, wrong_input: int, stopped: str
) -> int:
    stops: list[KeyboardInterrupt] = []
    try:
        with _raising_at_signals(stops):
            return work() or 0
    except BrokenPipeError:
        raise
    except Exception as error:
        # A library in C may put an error of its own in place of the signal's.
        if stops:
            return _stopped(stops[0], program, stopped)
        return _failed(error, program, wrong_input)
    except KeyboardInterrupt as stop:
        return _stopped(stop, program, stopped)


def _failed(error: Exception, program: str, wrong_input: int) -> int:
    """Says in one line what went wrong."""
    if os.environ.get("AGEGENDER_TRACEBACK"):
        raise error
    text = _one_line(error)
    if not isinstance(error, (ValueError, OSError, ImportError)):
        text = (
            f"unexpected {type(error).__name__}: {text[:300]} (AGEGENDER_TRACEBACK=1 "
            "shows where)"
        )
    print(f"{program}: {text}", file=sys.stderr)
    return wrong_input


def _stopped(stop: KeyboardInterrupt, program: str, meaning: str) -> int:
    """Says in one line that somebody stopped the program."""
    terminated = isinstance(stop, Terminated)
    word = "terminated" if terminated else "interrupted"
    print(f"{program}: {word}; {meaning}", file=sys.stderr)
    return 143 if terminated else 130


@contextlib.contextmanager
def _raising_at_signals(stops: list[KeyboardInterrupt]) -> Iterator[None]:
    """Raises at Ctrl-C and SIGTERM, and notes it; only a main thread may ask for that.

    Args:
        stops: What is raised is put there.
    """

    def stop(number: int, frame: object) -> None:
        stops.append(KeyboardInterrupt() if number == signal.SIGINT else Terminated())
        raise stops[-1]

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {signal.SIGTERM: signal.signal(signal.SIGTERM, stop)}
    # A shell that starts this in the background lets it ignore Ctrl-C.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        before[signal.SIGINT] = signal.signal(signal.SIGINT, stop)
    try:
        with _again_if_lost(stops):
            yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)


@contextlib.contextmanager
def _again_if_lost(stops: list[KeyboardInterrupt]) -> Iterator[None]:
    """Sends a signal again that came where Python drops what is raised.

    That is while it frees objects: in `__del__`, or in JAX's hook of the collector.
    """
    timers: list[threading.Timer] = []
    before = sys.unraisablehook

    def hook(lost: Any) -> None:
        if lost.exc_value not in stops:
            before(lost)
            return
        terminated = isinstance(lost.exc_value, Terminated)
        number = signal.SIGTERM if terminated else signal.SIGINT
        timers.append(threading.Timer(AGAIN_AFTER, os.kill, (os.getpid(), number)))
        timers[-1].start()

    sys.unraisablehook = hook
    try:
        yield
    finally:
        sys.unraisablehook = before
        for timer in timers:
            timer.cancel()
            timer.join()


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.strerror}: {error.filename}"
    return text


def read_splits(texts: Sequence[str]) -> dict[str, str]:
    """Reads `--split NAME=EXPRESSION` options."""
    splits = {}
    for text in texts:
        name, equals, expression = text.partition("=")
        if not equals or name not in ("train", "validation", "test"):
            raise ValueError(
                "Invalid --split. Expected train=…, validation=… or test=…, for "
                f"instance test=fold_4. Received: {text!r}."
            )
        splits[name] = expression
    return splits


def say(text: str) -> None:
    """Prints at once, also into a pipe, also names of files that are no text."""
    code = getattr(sys.stdout, "encoding", None) or "utf-8"
    print(text.encode(code, "backslashreplace").decode(code), flush=True)


def add_verb(verbs: Any, name: str, run: Any, text: str) -> argparse.ArgumentParser:
    """Adds a verb whose arguments are passed to `run`."""
    verb = verbs.add_parser(name, help=text, description=text)
    verb.set_defaults(run=run)
    return verb


def add_set_option(verb: argparse.ArgumentParser) -> None:
    """Adds `--set KEY=VALUE`."""
    verb.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="replace a setting of the recipe, for instance training.epochs=3; no "
        "value unsets it; pretraining.KEY=VALUE is for what it begins with alone",
    )


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
