"""What a process prints: quiet start-up and progress bars."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import sys
import tempfile
import threading
from collections.abc import Iterator
from typing import Any, TextIO

# A line of TensorFlow, XLA or absl; the lines are compared as bytes, as they came.
START_UP_LINE = re.compile(
    rb"WARNING: All log messages before absl::InitializeLog"
    rb"|[IWE]\d{4} \d\d:\d\d:[\d.]+\s+\d+ \S+:\d+\]"
    rb"|\d{4}-\d\d-\d\d \d\d:\d\d:[\d.]+: [IWE] \S+:\d+\]"
    rb"|To enable the following instructions: "
    rb"|Skipping registering GPU devices\.\.\."
)

# What libjpeg inside TensorFlow writes, with no word about which file it is of.
PICTURE_LINE = re.compile(
    rb"Improper call to JPEG library"
    rb"|Corrupt JPEG data: "
    rb"|Bogus (Huffman table definition|marker length|DHT|DQT|DAC|sampling factors)"
    rb"|Warning: unknown JFIF revision"
    rb"|(Quantization|Huffman|Arithmetic) table 0x\w+ was not defined"
    rb"|Invalid (component ID|SOS parameters|progressive parameters|scan script|JPEG)"
    rb"|Inconsistent progression sequence"
    rb"|Un(supported marker type|known Adobe color transform)"
    rb"|(Input file read error|Premature end of (JPEG|input) file)"
)

# What TensorFlow Datasets says about its own code whenever a dataset is opened.
DATASETS_LINE = re.compile(
    r"`FeatureConnector.dtype` is deprecated|Variant folder .* has no"
)


@contextlib.contextmanager
def quiet_start() -> Iterator[None]:
    """Removes the start-up lines of a TensorFlow that is imported inside the block.

    Does nothing if TensorFlow is imported already, or if the lines are asked for.

    Example:
    >>> with quiet_start():
    ...     import tensorflow as tf
    """
    if "tensorflow" in sys.modules or _lines_wanted():
        yield
        return
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):  # no standard error, no temporary folder
            stack.enter_context(_filtered_stderr())
        yield
        _find_devices()


@contextlib.contextmanager
def no_standard_error() -> Iterator[None]:
    """Drops what is written to file descriptor 2, by C++ for instance.

    Errors are raised as always.
    """
    with open(os.devnull, "w") as nothing:
        kept = os.dup(2)
        try:
            _flush()
            os.dup2(nothing.fileno(), 2)
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def quiet_datasets() -> None:
    """Removes the lines that TensorFlow Datasets logs about its own code, no others."""
    logger = logging.getLogger("absl")
    if not _lines_wanted() and _is_not_about_itself not in logger.filters:
        logger.addFilter(_is_not_about_itself)


def _is_not_about_itself(record: logging.LogRecord) -> bool:
    return DATASETS_LINE.match(record.getMessage()) is None


def _lines_wanted() -> bool:
    return os.environ.get("AGEGENDER_FRAMEWORK_LOGS", "0") not in (
        "",
        "0",
    ) or os.environ.get("TF_CPP_MIN_LOG_LEVEL", "2") in ("0", "1")


def _find_devices() -> None:
    """Lets TensorFlow look for GPUs now: the lines about them come with the others.

    This does not create the devices: visible devices and memory growth can still be
    set.
    """
    tensorflow = sys.modules.get("tensorflow")
    if tensorflow is not None and hasattr(tensorflow, "config"):
        tensorflow.config.list_physical_devices()


@contextlib.contextmanager
def quiet_pictures() -> Iterator[None]:
    """Removes what libjpeg writes about damaged pictures, which names no file.

    All else that is written to file descriptor 2 goes on to standard error, line by
    line. What Python writes goes there without a detour: progress bars see a terminal.
    """
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):  # no standard error
            stack.enter_context(_lines_left_out())
        yield


@contextlib.contextmanager
def _lines_left_out() -> Iterator[None]:
    stderr = os.dup(2)
    incoming, outgoing = os.pipe()

    def pass_on() -> None:
        with open(incoming, "rb") as lines:
            for line in lines:
                if not PICTURE_LINE.match(line):
                    os.write(stderr, line)

    thread = threading.Thread(target=pass_on, daemon=True)
    python_stderr = sys.stderr
    _flush()
    os.dup2(outgoing, 2)
    os.close(outgoing)
    thread.start()
    try:
        with contextlib.ExitStack() as stack:
            if _writes_to_2(python_stderr):
                sys.stderr = stack.enter_context(
                    open(stderr, "w", buffering=1, errors="backslashreplace",
                         encoding=python_stderr.encoding, closefd=False)
                )  # fmt: skip
            yield
    finally:
        sys.stderr = python_stderr
        os.dup2(stderr, 2)  # closes the pipe, and the thread sees its end
        thread.join(1.0)  # a process that this one started may keep it open
        os.close(stderr)


def _writes_to_2(stream: Any) -> bool:
    try:
        return bool(stream.fileno() == 2)
    except (AttributeError, OSError, ValueError):  # none, closed, or a test's own
        return False


@contextlib.contextmanager
def _filtered_stderr() -> Iterator[None]:
    """Holds back what is written to file descriptor 2, then prints all but the lines.

    The descriptor and not `sys.stderr`, since the lines are written in C++.
    """
    stderr = os.dup(2)
    try:
        with tempfile.TemporaryFile() as held:
            _flush()
            os.dup2(held.fileno(), 2)
            try:
                yield
            finally:
                _flush()
                os.dup2(stderr, 2)
                held.seek(0)
                for line in held:
                    if not START_UP_LINE.match(line):
                        os.write(2, line)
    finally:
        os.close(stderr)


def _flush() -> None:
    if sys.stderr is not None:
        sys.stderr.flush()


# A line of a log: what is done, how much of it, time so far and time to come.
LINE = "{desc}: {n_fmt} of {total_fmt} {unit}s in {elapsed}, {remaining} to go"


def progress_bar(
    total: int | None,
    description: str,
    unit: str,
    *,
    shown: bool = True,
    keep: bool = True,
) -> Any:
    """Returns a tqdm bar that is calm where nobody watches it.

    On a terminal it moves once a second; elsewhere, in a log file for instance, there
    is no bar but a line of its own every 20 seconds.

    Args:
        total: How many units there are; `None` if unknown.
        description: What is done.
        unit: What is counted, `"image"` for instance.
        shown: Whether to show it at all.
        keep: Whether it stays on the screen when done.
    """
    from tqdm import tqdm

    watched = sys.stderr.isatty()
    return tqdm(
        total=total,
        desc=f"      {description}",
        unit=unit,
        disable=not shown,
        leave=keep and watched,
        mininterval=1 if watched else 20,
        delay=0 if watched else 20,
        dynamic_ncols=watched,
        file=sys.stderr if watched else _Lines(sys.stderr),
        bar_format=None if watched else LINE,
    )


class _Lines:
    """Takes what tqdm writes over its last text, and writes a line for each text."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        """Writes a line; nothing where tqdm just clears its own."""
        if line := text.strip("\r\n").rstrip():
            self._stream.write(f"{line}\n")

    def flush(self) -> None:
        """Writes what waits."""
        self._stream.flush()
