"""The `agegender` command: parse, call one library function, print."""

from __future__ import annotations

import argparse
from typing import Any

from keras_agegender.checksums import verify
from keras_agegender.cli.console import add_verb, say


def _verify(arguments: argparse.Namespace) -> int:
    found = [verify(path) for path in arguments.paths]
    for verification in found:
        say(str(verification))
    return 1 if any(verification.differences for verification in found) else 0


def add_verify(verbs: Any) -> None:
    """Adds `agegender verify`."""
    verb = add_verb(
        verbs,
        "verify",
        _verify,
        "compare prepared datasets, exports (of every format) and finished runs with "
        "their checksums",
    )
    verb.add_argument("paths", nargs="+", metavar="path", help="a folder or a file")
