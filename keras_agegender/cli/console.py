"""The `agegender` command: parse, call one library function, print."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Any


def load_frameworks() -> None:
    """Imports TensorFlow and Keras without their start-up chatter on the screen."""
    import logging
    import warnings

    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    warnings.filterwarnings("ignore")
    # TensorFlow 2.21 writes two lines at any log level, from C++ to the descriptor.
    sys.stderr.flush()
    stderr = os.dup(2)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        import keras  # noqa: F401
        import tensorflow as tf

        tf.config.list_physical_devices()
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
    logging.getLogger("absl").setLevel(logging.ERROR)
    logging.getLogger("tensorflow").setLevel(logging.ERROR)


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
    """Prints at once, also into a pipe."""
    print(text, flush=True)


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
