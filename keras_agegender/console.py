"""Console output: framework logs and progress bars."""

from __future__ import annotations

import contextlib
import importlib.abc
import importlib.util
import logging
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from types import ModuleType
from typing import Any, TextIO

# A line of TensorFlow, XLA or absl; lines are compared as bytes.
START_UP_LINE = re.compile(
    rb"WARNING: All log messages before absl::InitializeLog"
    rb"|[IWE]\d{4} \d\d:\d\d:[\d.]+\s+\d+ \S+:\d+\]"
    rb"|\d{4}-\d\d-\d\d \d\d:\d\d:[\d.]+: [IWE] \S+:\d+\]"
    rb"|To enable the following instructions: "
    rb"|Skipping registering GPU devices\.\.\."
)

# Messages of TensorFlow Datasets about its own code when a dataset is opened.
DATASETS_LINE = re.compile(
    r"`FeatureConnector.dtype` is deprecated|Variant folder .* has no"
)


def quiet_tensorflow() -> None:
    """Sets TensorFlow's log level and suppresses its startup messages.

    Does nothing if TensorFlow has already been imported, or if `TF_CPP_MIN_LOG_LEVEL`
    or `AGEGENDER_FRAMEWORK_LOGS=1` requests the messages.
    """
    if "tensorflow" in sys.modules or _lines_wanted():
        return
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if not any(isinstance(finder, _QuietImport) for finder in sys.meta_path):
        sys.meta_path.insert(0, _QuietImport())


def _lines_wanted() -> bool:
    logs = os.environ.get("AGEGENDER_FRAMEWORK_LOGS", "0") not in ("", "0")
    return logs or os.environ.get("TF_CPP_MIN_LOG_LEVEL", "2") in ("0", "1")


class _QuietImport(importlib.abc.MetaPathFinder):
    """Imports TensorFlow and filters messages from before it reads a log level."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name != "tensorflow":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.loader is not None:
            run = spec.loader.exec_module

            def run_quietly(module: ModuleType) -> None:
                with contextlib.ExitStack() as stack:
                    with contextlib.suppress(OSError):  # no stderr, no temporary folder
                        stack.enter_context(_filtered_stderr())
                    run(module)
                    if hasattr(module, "config"):
                        # Searches for GPUs now, so that its messages are filtered too.
                        module.config.list_physical_devices()

            spec.loader.exec_module = run_quietly  # type: ignore[method-assign]
        return spec


@contextlib.contextmanager
def _filtered_stderr() -> Iterator[None]:
    """Captures file descriptor 2, then prints the lines that are not filtered."""
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


def quiet_datasets() -> None:
    """Suppresses log messages of TensorFlow Datasets about its own code."""
    logger = logging.getLogger("absl")
    if not _lines_wanted() and _is_not_about_itself not in logger.filters:
        logger.addFilter(_is_not_about_itself)


def _is_not_about_itself(record: logging.LogRecord) -> bool:
    return DATASETS_LINE.match(record.getMessage()) is None


# Progress in a log file.
LINE = "{desc}: {n_fmt} of {total_fmt} {unit}s in {elapsed}, {remaining} to go"


def progress_bar(
    total: int | None,
    description: str,
    unit: str,
    *,
    shown: bool = True,
    keep: bool = True,
) -> Any:
    """Returns a tqdm bar; if stderr is not a terminal, a line every 20 seconds."""
    from tqdm import tqdm

    is_terminal = sys.stderr.isatty()
    return tqdm(
        total=total,
        desc=f"      {description}",
        unit=unit,
        disable=not shown,
        leave=keep and is_terminal,
        mininterval=1 if is_terminal else 20,
        delay=0 if is_terminal else 20,
        dynamic_ncols=is_terminal,
        file=sys.stderr if is_terminal else _Lines(sys.stderr),
        bar_format=None if is_terminal else LINE,
    )


class _Lines:
    """Writes each update of a tqdm bar on a line of its own."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        """Writes a line; skips updates that only clear the bar."""
        if line := text.strip("\r\n").rstrip():
            self._stream.write(f"{line}\n")

    def flush(self) -> None:
        """Writes the buffered line."""
        self._stream.flush()
