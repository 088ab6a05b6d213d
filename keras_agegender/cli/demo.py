"""`agegender demo`: a page in the browser, where photos are answered about."""

from __future__ import annotations

import argparse
from typing import Any

from keras_agegender.cli.console import add_verb, load_frameworks, share_cores
from keras_agegender.cli.serve import add_address_options, named_models


def _demo(arguments: argparse.Namespace) -> int:
    models = named_models(arguments.models)
    load_frameworks()
    share_cores()
    from keras_agegender.serving.server import run_server

    run_server(
        models,
        arguments.host,
        arguments.port,
        page=True,
        open_browser=not arguments.no_browser,
    )
    return 0


def add_demo(verbs: Any) -> None:
    """Adds `agegender demo`."""
    verb = add_verb(
        verbs,
        "demo",
        _demo,
        "a page in the browser that answers about photos (extra `demo`)",
    )
    add_address_options(verb, 7860)
    verb.add_argument(
        "--no-browser", action="store_true", help="do not open the browser"
    )
