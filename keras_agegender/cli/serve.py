"""`agegender serve`: models behind HTTP."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from keras_agegender.cli.argument_types import number, whole_number
from keras_agegender.cli.console import add_verb, load_frameworks, share_cores
from keras_agegender.serving.answering_model import (
    check_answering_model,
    default_model,
)

port_number = whole_number("a port, from 0 (any that is free) to 65535", 0, 65535)
count = whole_number("a whole number from 1 on", 1)


def _serve(arguments: argparse.Namespace) -> int:
    models = named_models(arguments.models)
    load_frameworks()
    share_cores()
    from keras_agegender.serving.server import ServerLimits, run_server

    run_server(
        models,
        arguments.host,
        arguments.port,
        limits=ServerLimits(
            max_bytes=arguments.max_bytes,
            max_pixels=arguments.max_pixels,
            max_batch=arguments.max_batch,
            max_waiting=arguments.max_waiting,
            max_open_bytes=arguments.max_open_bytes,
            timeout=arguments.timeout,
        ),
        access_log=arguments.access_log,
    )
    return 0


def named_models(paths: Sequence[str]) -> dict[str, Path]:
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


def add_address_options(verb: argparse.ArgumentParser, port: int) -> None:
    """Adds MODEL, `--host` and `--port`, and what a signal that stops it means."""
    verb.set_defaults(stopped="every request that had come is answered")
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
        default=port,
        help="port to listen on [%(default)s]",
    )


def add_serve(verbs: Any) -> None:
    """Adds `agegender serve`."""
    verb = add_verb(
        verbs, "serve", _serve, "answer about photos over HTTP (extra `serve`)"
    )
    add_address_options(verb, 8000)
    for option, default, text in (
        ("--max-bytes", 20_000_000, "bytes of a photo's file at most"),
        ("--max-pixels", 50_000_000, "pixels of a photo at most"),
        ("--max-batch", 32, "photos answered about together at most"),
        ("--max-waiting", 256, "photos that may wait, for each model"),
        ("--max-open-bytes", 256_000_000, "bytes of all photos not yet answered about"),
    ):
        verb.add_argument(
            option, type=count, default=default, metavar="N",
            help=f"{text} [%(default)s]",
        )  # fmt: skip
    verb.add_argument(
        "--timeout",
        type=number("seconds above 0", lambda value: 0 < value < float("inf")),
        default=30.0,
        metavar="SECONDS",
        help="for a photo to come, and to be answered about [%(default)s]",
    )
    verb.add_argument(
        "--access-log", action="store_true", help="print a line for each request"
    )
