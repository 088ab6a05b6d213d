"""An HTTP server that answers about photos: Starlette on uvicorn (extra `serve`).

    GET  /health    {"status": "ready"}
    GET  /models    the models, their outputs and terms
    POST /predict   a photo's bytes -> what `agegender predict --json` says of it
    GET  /metrics   for Prometheus
    GET  /          the page of `agegender demo`, where it is wanted

Photos that wait are answered about in batches. Errors are `{"error": "…"}`: 400 empty
or damaged, 404 no such model, 408 body too slow, 413 too many bytes or pixels, 415 no
picture of a format that is read, 503 too many wait, 504 no answer in time. Nothing is
written to disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import socket
import time
import webbrowser
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from keras_agegender.faces.images import PILLOW_FORMATS, open_picture
from keras_agegender.serving.photo_queue import PhotoQueue, QueueFullError
from keras_agegender.serving.predictor import Predictor
from keras_agegender.serving.server_metrics import ServerMetrics
from keras_agegender.suggestion import did_you_mean

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
# Status of a request that nobody waits for any more, in the metrics only: nginx's.
CLIENT_LEFT = 499


@dataclass(frozen=True)
class ServerLimits:
    """What a server takes.

    Attributes:
        max_bytes: Bytes of a photo's file at most.
        max_pixels: Pixels of a photo at most, as its file's header says.
        max_batch: Photos answered about together at most.
        max_waiting: Photos that may wait, for each model.
        timeout: Seconds in which a photo must have come, and must be answered about.
    """

    max_bytes: int = 20_000_000
    max_pixels: int = 50_000_000
    max_batch: int = 32
    max_waiting: int = 256
    timeout: float = 30.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not value > 0:
                raise ValueError(
                    f"Invalid `{name}`. Expected a positive number. Received: {value}."
                )


class RefusedError(Exception):
    """A request that is not answered, with its HTTP status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


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
        ImportError: If the extra `serve` is not installed.

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
            max_waiting_bytes=max(256_000_000, limits.max_bytes),
            on_batch=metrics.batch_photos.observe,
        )
        metrics.watch(name, queues[name])
    answering = _Answering(queues, limits, metrics)

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        for photos in queues.values():
            await asyncio.to_thread(photos.close)

    return _application(answering, lifespan, page)


def _application(answering: _Answering, lifespan: Any, page: bool) -> Starlette:
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
        return _json({"error": error.detail}, error.status_code, error.headers)

    return Starlette(
        routes=routes,
        lifespan=lifespan,
        middleware=[Middleware(_Headers)],
        exception_handlers={HTTPException: refuse},
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
        ImportError: If the extra `serve` is not installed.
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


@dataclass(frozen=True)
class _Answering:
    """What each address answers."""

    queues: Mapping[str, PhotoQueue]
    limits: ServerLimits
    metrics: ServerMetrics

    async def health(self, request: Request) -> Response:
        return _json({"status": "ready"})

    async def models(self, request: Request) -> Response:
        shown = [
            describe_model(name, photos.predictor.metadata)
            for name, photos in self.queues.items()
        ]
        return _json({"default": next(iter(self.queues)), "models": shown})

    async def metrics_text(self, request: Request) -> Response:
        from starlette.responses import Response

        return Response(self.metrics.text(), media_type=self.metrics.media_type)

    async def predict(self, request: Request) -> Response:
        start = time.perf_counter()
        name = request.query_params.get("model") or next(iter(self.queues))
        try:
            photo = await self._receive(request, name)
            content = await self._answer(request, photo, name)
            status, headers = 200, None
        except RefusedError as refused:
            content, status = {"error": str(refused)}, refused.status
            headers = {"Retry-After": "1"} if status == 503 else None
        self.metrics.count(status, time.perf_counter() - start, content)
        return _json(content, status, headers)

    async def _receive(self, request: Request, name: str) -> bytes:
        """Returns the photo of a request, once it is sure that it may be decoded."""
        from starlette.requests import ClientDisconnect

        if name not in self.queues:
            hint = did_you_mean(name, list(self.queues))
            raise RefusedError(
                404, f"There is no model {name!r}.{hint} Models: {list(self.queues)}."
            )
        try:
            async with asyncio.timeout(self.limits.timeout):
                photo = await self._body(request)
        except TimeoutError:
            raise RefusedError(
                408, f"The photo did not come within {self.limits.timeout:g} s."
            ) from None
        except ClientDisconnect:
            raise RefusedError(CLIENT_LEFT, "The client left.") from None
        check_photo(photo, self.limits.max_pixels)
        return photo

    async def _body(self, request: Request) -> bytes:
        most = self.limits.max_bytes
        declared = request.headers.get("content-length", "")
        photo = bytearray()
        if not declared.isdecimal() or int(declared) <= most:
            async for part in request.stream():
                photo += part
                if len(photo) > most:
                    break
            else:
                return bytes(photo)
        raise RefusedError(413, f"The file has more than {most} bytes.")

    async def _answer(
        self, request: Request, photo: bytes, name: str
    ) -> dict[str, Any]:
        try:
            answer = asyncio.wrap_future(self.queues[name].submit(photo))
        except QueueFullError as error:
            raise RefusedError(503, f"Too busy: {error} Try again.") from None
        # The photo has come: all that can follow it is that its sender leaves.
        leaving = asyncio.ensure_future(request.receive())
        try:
            done, _ = await asyncio.wait(
                (answer, leaving),
                timeout=self.limits.timeout,
                return_when=asyncio.FIRST_COMPLETED,
            )
        finally:
            leaving.cancel()
            answer.cancel()  # of what is not answered yet: out of the queue
        if not done:
            raise RefusedError(
                504, f"There was no answer within {self.limits.timeout:g} s."
            )
        if answer not in done:
            raise RefusedError(CLIENT_LEFT, "The client left.")
        prediction = answer.result()
        if prediction.status == "unreadable":
            raise RefusedError(400, prediction.reason)
        answer = prediction.to_dict()
        del answer["source"]  # no file: there is none here
        return {"model": name, **answer}


def check_photo(photo: bytes, max_pixels: int) -> None:
    """Raises `RefusedError` for what is no photo, or is too large, by its header."""
    if not photo:
        raise RefusedError(400, "The body is empty. Expected the bytes of a photo.")
    try:
        with open_picture(photo) as picture:
            width, height = picture.size
    except Image.UnidentifiedImageError:
        formats = ", ".join(PILLOW_FORMATS)
        raise RefusedError(
            415, f"This is no picture of a format that is read: {formats}."
        ) from None
    except Image.DecompressionBombError as error:
        raise RefusedError(413, f"The picture is too large: {error}") from None
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise RefusedError(400, f"The picture is damaged ({reason}).") from None
    if width * height > max_pixels:
        raise RefusedError(
            413,
            f"The picture has {width} x {height} pixels. Expected at most "
            f"{max_pixels} in all.",
        )


def describe_model(name: str, metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what clients are told of a model.

    Args:
        name: What it is called here.
        metadata: What its agegender.json says.
    """
    calibration = metadata.get("calibration")
    return {
        "name": name,
        "outputs": {
            head["name"]: {"kind": head["kind"], "classes": head.get("classes") or None}
            for head in metadata["encoding"]["heads"]
        },
        "licence": metadata.get("license"),
        "limits": (metadata.get("user") or {}).get("limits"),
        "coverage": None if calibration is None else 1 - calibration["alpha"],
    }


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


def _json(
    content: Mapping[str, Any], status: int = 200, headers: Any = None
) -> Response:
    from starlette.responses import Response

    text = json.dumps(content, ensure_ascii=False)
    return Response(text, status, headers, media_type="application/json")


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
