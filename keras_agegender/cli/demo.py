"""`agegender demo`: a page in the browser, where photos are answered about."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from keras_agegender.cli.argument_types import whole_number
from keras_agegender.cli.console import add_verb, load_frameworks
from keras_agegender.serving.answering_model import (
    check_answering_model,
    default_model,
)

port_number = whole_number("a port, from 0 (any that is free) to 65535", 0, 65535)


def _demo(arguments: argparse.Namespace) -> int:
    models = _named_models(arguments.models)
    load_frameworks()
    from keras_agegender.serving.server import run_server

    run_server(
        models,
        arguments.host,
        arguments.port,
        page=True,
        open_browser=not arguments.no_browser,
    )
    return 0


def _named_models(paths: Sequence[str]) -> dict[str, Path]:
    """Returns the models by their folders' names, the first is the default.

    Raises:
        ValueError: If one is no model, or two have the same name.
    """
    models: dict[str, Path] = {}
    for path in paths or [str(default_model())]:
        check_answering_model(path)
        name = Path(path).resolve().name.removesuffix(".keras")
        if name in models:
            raise ValueError(
                f"Invalid models. Expected different names. Received: {models[name]} "
                f"and {path}, both called {name}."
            )
        models[name] = Path(path)
    return models


def add_demo(verbs: Any) -> None:
    """Adds `agegender demo`."""
    verb = add_verb(
        verbs, "demo", _demo, "a page in the browser that answers about photos"
    )
    verb.add_argument(
        "models",
        nargs="*",
        metavar="MODEL",
        help="runs, exports or .keras files to choose among [the default model]",
    )
    verb.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen on; 0.0.0.0 lets other devices in [%(default)s]",
    )
    verb.add_argument(
        "--port",
        type=port_number,
        default=7860,
        help="port to listen on [%(default)s]",
    )
    verb.add_argument(
        "--no-browser", action="store_true", help="do not open the browser"
    )
