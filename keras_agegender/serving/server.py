"""An HTTP server that answers about photos: Starlette on uvicorn (extra `serve`).

    GET  /health    {"status": "ready"}
    GET  /models    the models, their outputs and terms
    POST /predict   a photo's bytes -> what `agegender predict --json` says of it
    GET  /metrics   for Prometheus
    GET  /          the page of `agegender demo`, where it is wanted

Photos that wait are answered about in batches. Errors are `{"error": "…"}`: 400 empty
or damaged, 404 no such model, 408 body too slow, 413 too many bytes or pixels, 415 no
picture of a format that is read, 500 a fault of the server, 503 too many wait or are
open, 504 no answer in time. Nothing is written to disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import socket
import webbrowser
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from keras_agegender.serving.photo_answering import (
    OpenBytes,
    PhotoAnswering,
    ServerLimits,
    json_response,
    unexpected,
)
from keras_agegender.serving.photo_queue import PhotoQueue
from keras_agegender.serving.predictor import Predictor
from keras_agegender.serving.server_metrics import ServerMetrics

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

PAGE = Path(__file__).with_name("page")
# Of every answer. The page's own files are all that it may load.
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob: data:",
}
# Connections that may wait to be accepted; uvicorn's own number.
BACKLOG = 2048


def create_app(
    models: Mapping[str, Predictor | str | Path],
    *,
    limits: ServerLimits | None = None,
    page: bool = False,
) -> Starlette:
    """Returns a Starlette application that answers about photos.

    Models are loaded, and have answered once, when it returns.

    Args:
        models: Name -> a `Predictor`, or what one loads. The first is the default.
        limits: What is taken. Defaults to `ServerLimits()`.
        page: Whether `/` is the page of `agegender demo`. Defaults to `False`.

    Raises:
        ValueError: If there is no model, or one cannot be loaded.
        ImportError: If the extra "serve" is not installed.

    Example:
    >>> app = create_app({"compact": "saved_models/compact"})  # doctest: +SKIP
    """
    _check_extra()
    if not models:
        raise ValueError("Invalid `models`. Expected at least one. Received: {}.")
    limits = limits or ServerLimits()
    metrics = ServerMetrics()
    queues: dict[str, PhotoQueue] = {}
    for name, model in models.items():
        predictor = model if isinstance(model, Predictor) else Predictor(model)
        predictor.predict(_blank_photo())  # graphs are traced before anybody waits
        queues[name] = PhotoQueue(
            predictor,
            max_batch=limits.max_batch,
            max_waiting=limits.max_waiting,
            max_waiting_bytes=limits.max_open_bytes,
            on_batch=metrics.batch_photos.observe,
        )
        metrics.watch(name, queues[name])
    open_bytes = OpenBytes(limits.max_open_bytes)
    metrics.watch_bytes(lambda: open_bytes.held)
    answering = PhotoAnswering(queues, limits, metrics, open_bytes)

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        for photos in queues.values():
            await asyncio.to_thread(photos.close)

    return _application(answering, lifespan, page)


def _application(answering: PhotoAnswering, lifespan: Any, page: bool) -> Starlette:
    from starlette.applications import Starlette
    from starlette.exceptions import HTTPException
    from starlette.middleware import Middleware
    from starlette.routing import BaseRoute, Mount, Route
    from starlette.staticfiles import StaticFiles

    routes: list[BaseRoute] = [
        Route("/health", answering.health),
        Route("/models", answering.models),
        Route("/metrics", answering.metrics_text),
        Route("/predict", answering.predict, methods=["POST"]),
    ]
    if page:
        routes.append(Mount("/", StaticFiles(directory=PAGE, html=True)))

    async def refuse(request: Request, error: Any) -> Response:
        return json_response({"error": error.detail}, error.status_code, error.headers)

    async def fail(request: Request, error: Exception) -> Response:
        return json_response(unexpected(error), 500)

    return Starlette(
        routes=routes,
        lifespan=lifespan,
        middleware=[Middleware(_Headers)],
        exception_handlers={HTTPException: refuse, Exception: fail},
    )


def run_server(
    models: Mapping[str, Predictor | str | Path],
    host: str = "127.0.0.1",
    port: int = 8000,
    *,
    limits: ServerLimits | None = None,
    page: bool = False,
    open_browser: bool = False,
    access_log: bool = False,
) -> None:
    """Serves models until the process is told to stop.

    SIGTERM and SIGINT let the photos that were sent be answered about, then end the
    process by that very signal, as uvicorn does.

    Args:
        models: As in `create_app`.
        host: Address to listen on. Defaults to this machine alone.
        port: Port to listen on; 0 is any that is free. Defaults to 8000.
        limits: What is taken. Defaults to `ServerLimits()`.
        page: Whether `/` is the page of `agegender demo`. Defaults to `False`.
        open_browser: Whether the page is opened in a browser. Defaults to `False`.
        access_log: Whether each request is a line. Defaults to `False`.

    Raises:
        ValueError: If a model cannot be loaded.
        OSError: If the port is taken.
        ImportError: If the extra "serve" is not installed.
    """
    _check_extra()
    import uvicorn

    listening = _listen(host, port)  # before models load: they take seconds
    with listening:
        app = create_app(models, limits=limits, page=page)
        shown = f"[{host}]" if ":" in host else host
        address = f"http://{shown}:{listening.getsockname()[1]}"
        listening.listen(BACKLOG)  # whoever reads the address may connect
        print(f"Serving {', '.join(models)} on {address} (Ctrl-C stops)", flush=True)
        if open_browser:
            webbrowser.open(address)
        config = uvicorn.Config(
            app,
            backlog=BACKLOG,
            log_level="info" if access_log else "warning",
            access_log=access_log,
            server_header=False,
            timeout_graceful_shutdown=int((limits or ServerLimits()).timeout) + 1,
        )
        uvicorn.Server(config).run(sockets=[listening])


class _Headers:
    """Adds `HEADERS` to every answer."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self._headers = [(k.lower().encode(), v.encode()) for k, v in HEADERS.items()]

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def send_with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *self._headers]
            await send(message)

        await self._app(scope, receive, send_with_headers)


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except OSError as error:
        listening.close()
        reason = error.strerror or str(error)
        raise OSError(f"Cannot listen on {host}, port {port}: {reason}.") from None
    return listening


def _blank_photo() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (160, 160), "gray").save(file, "PNG")
    return file.getvalue()


def _check_extra() -> None:
    try:
        import prometheus_client  # noqa: F401
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "Serving needs the extra `serve`: pip install 'keras-agegender[serve]'. "
            f"Missing: {error.name}."
        ) from None
