"""The HTTP server of `agegender serve` and `agegender demo`."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import logging
import socket
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from PIL import Image

from keras_agegender.encodings.head_types import HEAD_TYPES
from keras_agegender.errors import did_you_mean, one_line
from keras_agegender.faces import images
from keras_agegender.serving import formats
from keras_agegender.serving.predictions import PhotoPrediction
from keras_agegender.serving.predictor import Predictor

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response


class QueueFullError(RuntimeError):
    """The queue is full, with the number of waiting photos."""


class _Waiting(NamedTuple):
    photo: bytes
    future: Future[PhotoPrediction]


class PhotoQueue:
    """Predicts photos in threads, and batches those that wait.

    A single photo is predicted at once. Photos that arrive meanwhile share a batch of
    the detector and of the network. While one batch is read, another one may be in the
    network. `on_batch` is called with the number of photos of each batch.
    """

    def __init__(
        self,
        predictor: Predictor,
        *,
        max_batch: int = 32,
        max_waiting: int = 256,
        max_waiting_bytes: int = 256_000_000,
        threads: int = 2,
        on_batch: Callable[[int], object] = lambda num_photos: None,
    ) -> None:
        self.predictor = predictor
        self._max_batch = max_batch
        self._max_waiting, self._max_bytes = max_waiting, max_waiting_bytes
        self._on_batch = on_batch
        self._waiting: deque[_Waiting] = deque()
        self._num_bytes = 0
        self._closed = False
        self._changed = threading.Condition()
        self._threads = [
            threading.Thread(target=self._work, daemon=True) for _ in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def __len__(self) -> int:
        """Returns the number of waiting photos."""
        return len(self._waiting)

    def submit(self, photo: bytes) -> Future[PhotoPrediction]:
        """Adds the bytes of a photo; `QueueFullError` if there is no room.

        A future that is cancelled before its batch starts is not predicted.
        """
        future: Future[PhotoPrediction] = Future()
        with self._changed:
            if self._closed:
                raise QueueFullError("The queue is closed.")
            full = len(self._waiting) >= self._max_waiting
            if full or self._num_bytes + len(photo) > self._max_bytes:
                raise QueueFullError(
                    f"{len(self._waiting)} photos ({self._num_bytes} bytes) are "
                    "waiting."
                )
            self._waiting.append(_Waiting(photo, future))
            self._num_bytes += len(photo)
            self._changed.notify()
        return future

    def close(self) -> None:
        """Predicts the waiting photos, then stops; accepts no more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _take(self) -> list[_Waiting]:
        """Waits for photos and returns the next batch; empty at the end."""
        with self._changed:
            while not self._waiting and not self._closed:
                self._changed.wait()
            count = min(len(self._waiting), self._max_batch)
            taken = [self._waiting.popleft() for _ in range(count)]
            self._num_bytes -= sum(len(waiting.photo) for waiting in taken)
        return taken

    def _work(self) -> None:
        while batch := self._take():
            # Skips cancelled photos; the others cannot be cancelled any more.
            wanted = [w for w in batch if w.future.set_running_or_notify_cancel()]
            if wanted:
                self._on_batch(len(wanted))
                self._predict(wanted)

    def _predict(self, batch: list[_Waiting]) -> None:
        photos = [waiting.photo for waiting in batch]
        try:
            predictions = self.predictor.predict_many(photos, batch_size=len(photos))
        except Exception as error:  # of any kind: the thread must survive it
            if len(batch) == 1:
                batch[0].future.set_exception(error)
                return
            for waiting in batch:  # one photo must not fail the others
                self._predict([waiting])
            return
        for waiting, prediction in zip(batch, predictions, strict=True):
            waiting.future.set_result(prediction)  # type: ignore[arg-type]


class ServerMetrics:
    """Prometheus metrics of one application, in a separate registry."""

    def __init__(self) -> None:
        import prometheus_client as prometheus

        self._registry = prometheus.CollectorRegistry()
        self._write = prometheus.generate_latest
        self.media_type = prometheus.CONTENT_TYPE_LATEST

        def metric(kind: Any, name: str, help: str, *args: Any, **options: Any) -> Any:
            name = f"agegender_{name}"
            return kind(name, help, *args, registry=self._registry, **options)

        counter, histogram = prometheus.Counter, prometheus.Histogram
        gauge, sizes = prometheus.Gauge, (1, 2, 4, 8, 16, 32, 64)
        self._requests = metric(
            counter, "requests", "Photos sent, by HTTP status.", ["status"]
        )
        self._faces = metric(counter, "faces", "Faces predicted.")
        self._seconds = metric(
            histogram, "request_seconds", "From a request to its response."
        )
        self.batch_photos = metric(
            histogram, "batch_photos", "Photos in a batch.", buckets=sizes
        )
        self.waiting = metric(
            gauge, "waiting_photos", "Waiting photos, by model.", ["model"]
        )
        self.open_bytes = metric(
            gauge, "open_bytes", "Bytes of photos held by open requests."
        )

    def count(self, status: int, seconds: float, content: Mapping[str, Any]) -> None:
        """Counts a response: its HTTP status, duration and content."""
        self._requests.labels(str(status)).inc()
        self._seconds.observe(seconds)
        self._faces.inc(len(content.get("faces", ())))

    def text(self) -> bytes:
        """Returns all metrics in the text format of Prometheus."""
        return self._write(self._registry)


# nginx's status for a request whose client disconnected; in the metrics only.
CLIENT_LEFT = 499

LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class ServerLimits:
    """Limits of a server.

    Attributes:
        max_bytes: Maximum bytes of a photo's file.
        max_pixels: Maximum pixels of a photo, by its file's header.
        max_batch: Maximum photos in a batch.
        max_waiting: Maximum waiting photos, for each model.
        max_open_bytes: Maximum bytes of all photos in progress; at least `max_bytes`.
        timeout: Timeout in seconds for receiving a photo, and for predicting it.
    """

    max_bytes: int = 20_000_000
    max_pixels: int = 50_000_000
    max_batch: int = 32
    max_waiting: int = 256
    max_open_bytes: int = 256_000_000
    timeout: float = 30.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not value > 0:
                raise ValueError(
                    f"Invalid `{name}`. Expected a positive number. Received: {value}."
                )
        if self.max_open_bytes < self.max_bytes:
            raise ValueError(
                "Invalid `max_open_bytes`. Expected at least `max_bytes`. Received: "
                f"max_open_bytes={self.max_open_bytes}, max_bytes={self.max_bytes}."
            )


class RefusedError(Exception):
    """A request that is refused, with its HTTP status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class OpenBytes:
    """Counts the bytes held by all open requests, as they arrive."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.held = 0

    @contextlib.contextmanager
    def request(self) -> Iterator[Callable[[int], None]]:
        """Yields a function that adds bytes of one request, while it is open.

        The function raises `RefusedError` if all requests together hold too many.
        """
        own = 0

        def add(count: int) -> None:
            nonlocal own
            if self.held + count > self.limit:
                text = f"Too busy: {self.held} bytes of photos are being processed."
                raise RefusedError(503, f"{text} Try again later.")
            own += count
            self.held += count

        try:
            yield add
        finally:
            self.held -= own


@dataclass(frozen=True)
class PhotoHandlers:
    """The handlers of all routes."""

    queues: Mapping[str, PhotoQueue]
    limits: ServerLimits
    metrics: ServerMetrics
    open_bytes: OpenBytes

    async def health(self, request: Request) -> Response:
        """Reports that the models are loaded."""
        return json_response({"status": "ready"})

    async def models(self, request: Request) -> Response:
        """Lists the models with their outputs and terms."""
        shown = [
            describe_model(name, photos.predictor.metadata)
            for name, photos in self.queues.items()
        ]
        return json_response({"default": next(iter(self.queues)), "models": shown})

    async def metrics_text(self, request: Request) -> Response:
        """Returns the metrics."""
        from starlette.responses import Response

        return Response(self.metrics.text(), media_type=self.metrics.media_type)

    async def predict(self, request: Request) -> Response:
        """Predicts the photo in the body of a request."""
        start = time.perf_counter()
        name = request.query_params.get("model") or next(iter(self.queues))
        status, headers = 200, None
        try:
            with self.open_bytes.request() as count:
                photo = await self._receive(request, name, count)
                content = await self._predict(request, photo, name)
        except RefusedError as refused:
            content, status = {"error": str(refused)}, refused.status
            headers = {"Retry-After": "1"} if status == 503 else None
        except Exception as error:  # of any kind: counted, and reported in JSON
            content, status = unexpected(error), 500
        self.metrics.count(status, time.perf_counter() - start, content)
        return json_response(content, status, headers)

    async def _receive(
        self, request: Request, name: str, count: Callable[[int], None]
    ) -> bytes:
        """Returns the photo of a request, checked by its header."""
        from starlette.requests import ClientDisconnect

        if name not in self.queues:
            hint = did_you_mean(name, list(self.queues))
            raise RefusedError(
                404, f"Unknown model {name!r}.{hint} Models: {list(self.queues)}."
            )
        try:
            async with asyncio.timeout(self.limits.timeout):
                photo = await self._body(request, count)
        except TimeoutError:
            raise RefusedError(
                408, f"The photo was not received within {self.limits.timeout:g} s."
            ) from None
        except ClientDisconnect:
            raise RefusedError(CLIENT_LEFT, "The client disconnected.") from None
        check_photo(photo, self.limits.max_pixels)
        return photo

    async def _body(self, request: Request, count: Callable[[int], None]) -> bytes:
        most = self.limits.max_bytes
        declared = request.headers.get("content-length", "")
        photo = bytearray()
        if not declared.isdecimal() or int(declared) <= most:
            async for part in request.stream():
                if len(photo) + len(part) > most:
                    break
                count(len(part))
                photo += part
            else:
                return bytes(photo)
        raise RefusedError(413, f"The file has more than {most} bytes.")

    async def _predict(
        self, request: Request, photo: bytes, name: str
    ) -> dict[str, Any]:
        try:
            future = self.queues[name].submit(photo)
        except QueueFullError as error:
            raise RefusedError(503, f"Too busy: {error} Try again later.") from None
        predicted = asyncio.wrap_future(future)
        # The body is complete: the next message can only be a disconnection.
        left = asyncio.ensure_future(request.receive())
        try:
            done, _ = await asyncio.wait(
                (predicted, left),
                timeout=self.limits.timeout,
                return_when=asyncio.FIRST_COMPLETED,
            )
        finally:
            left.cancel()
            # Leaves the queue at once; cancelling `predicted` would do so later.
            future.cancel()
        if not done:
            raise RefusedError(
                504, f"The prediction took longer than {self.limits.timeout:g} s."
            )
        if predicted not in done:
            raise RefusedError(CLIENT_LEFT, "The client disconnected.")
        prediction = predicted.result()
        if prediction.status == "unreadable":
            raise RefusedError(400, prediction.reason)
        content = prediction.to_dict()
        del content["source"]  # there is no file
        return {"model": name, **content}


def check_photo(photo: bytes, max_pixels: int) -> None:
    """Checks a photo's format and size by its header."""
    if not photo:
        raise RefusedError(400, "The body is empty. Expected the bytes of a photo.")
    try:
        with images.open_image(photo) as image:
            width, height = image.size
    except Image.UnidentifiedImageError:
        supported, hint = ", ".join(images.PILLOW_FORMATS), ""
        if photo.startswith(b"--"):  # a form's boundary
            hint = " Send only the photo's bytes: curl --data-binary @photo.jpg."
        raise RefusedError(
            415, f"Not an image of a supported format: {supported}.{hint}"
        ) from None
    except Image.DecompressionBombError as error:
        raise RefusedError(413, f"The image is too large: {error}") from None
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        reason = one_line(error)
        raise RefusedError(400, f"The image is damaged ({reason}).") from None
    if width * height > max_pixels:
        raise RefusedError(
            413,
            f"The image has {width} x {height} pixels. Expected at most "
            f"{max_pixels} in total.",
        )


def describe_model(name: str, metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the description of a model in `/models`."""
    calibration = metadata.get("calibration")
    hidden = metadata.get("auxiliary_outputs") or ()
    return {
        "name": name,
        "outputs": {
            head["name"]: {
                "values": HEAD_TYPES[head["kind"]].values,
                "classes": head.get("classes") or None,
            }
            for head in metadata["encoding"]["heads"]
            if head["name"] not in hidden or head["name"] in metadata["outputs"]
        },
        "licence": metadata.get("license"),
        "limits": metadata.get("limits"),
        "coverage": None if calibration is None else 1 - calibration["alpha"],
    }


def unexpected(error: Exception) -> dict[str, str]:
    """Logs an error of the server in one line; returns the content of the response."""
    text = one_line(error, 300)
    LOGGER.error("unexpected %s: %s", type(error).__name__, text)
    return {"error": f"Unexpected {type(error).__name__}. See the server's log."}


def json_response(
    content: Mapping[str, Any], status: int = 200, headers: Any = None
) -> Response:
    """Returns a JSON response."""
    from starlette.responses import Response

    text = json.dumps(content, ensure_ascii=False)
    return Response(text, status, headers, media_type="application/json")


PAGE = Path(__file__).with_name("page")
# Headers of every response. The page may load only its own files.
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob: data:",
}
BACKLOG = 2048  # connections that wait to be accepted: uvicorn's default


def create_app(
    models: Mapping[str, Predictor | str | Path],
    *,
    limits: ServerLimits | None = None,
    page: bool = False,
) -> Starlette:
    """Returns a Starlette application that predicts photos.

    When it returns, models are loaded and warmed up.

    Args:
        models: Name -> a `Predictor`, or its `model`. The first is the default.
        limits: Size limits and timeout. Defaults to `ServerLimits()`.
        page: Whether `/` is the page of `agegender demo`. Defaults to `False`.

    Raises:
        ValueError: If there is no model, or one cannot be loaded.

    Example:
    >>> app = create_app({"compact": "saved_models/compact"})  # doctest: +SKIP
    """
    if not models:
        raise ValueError("Invalid `models`. Expected at least one. Received: {}.")
    for model in models.values():
        if not isinstance(model, Predictor):
            formats.check_model(model)  # all of them, before the first one is loaded
    limits = limits or ServerLimits()
    metrics = ServerMetrics()
    queues: dict[str, PhotoQueue] = {}
    for name, model in models.items():
        predictor = model if isinstance(model, Predictor) else Predictor(model)
        blank = io.BytesIO()
        Image.new("RGB", (160, 160), "gray").save(blank, "PNG")
        predictor.predict(blank.getvalue())  # the first prediction is slower
        queues[name] = PhotoQueue(
            predictor,
            max_batch=limits.max_batch,
            max_waiting=limits.max_waiting,
            max_waiting_bytes=limits.max_open_bytes,
            on_batch=metrics.batch_photos.observe,
        )
        metrics.waiting.labels(name).set_function(queues[name].__len__)
    open_bytes = OpenBytes(limits.max_open_bytes)
    metrics.open_bytes.set_function(lambda: open_bytes.held)
    return _application(PhotoHandlers(queues, limits, metrics, open_bytes), page)


def _application(handlers: PhotoHandlers, page: bool) -> Starlette:
    from starlette.applications import Starlette
    from starlette.exceptions import HTTPException
    from starlette.middleware import Middleware
    from starlette.routing import BaseRoute, Mount, Route
    from starlette.staticfiles import StaticFiles

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        for photos in handlers.queues.values():
            await asyncio.to_thread(photos.close)

    routes: list[BaseRoute] = [
        Route("/health", handlers.health),
        Route("/models", handlers.models),
        Route("/metrics", handlers.metrics_text),
        Route("/predict", handlers.predict, methods=["POST"]),
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
    """Serves models until the process is stopped.

    On SIGTERM and SIGINT, it finishes the requests that were received, then ends the
    process by that signal, as uvicorn does.

    Args:
        models: As in `create_app`.
        host: Address to listen on. Defaults to this machine only.
        port: Port to listen on; 0 is any free port. Defaults to 8000.
        limits: Size limits and timeout. Defaults to `ServerLimits()`.
        page: Whether `/` is the page of `agegender demo`. Defaults to `False`.
        open_browser: Whether to open the page in a browser. Defaults to `False`.
        access_log: Whether to log each request. Defaults to `False`.

    Raises:
        ValueError: If a model cannot be loaded.
        OSError: If the port is taken.
    """
    import uvicorn

    listening = _listen(host, port)  # before models load: they take seconds
    with listening:
        app = create_app(models, limits=limits, page=page)
        shown = f"[{host}]" if ":" in host else host
        address = f"http://{shown}:{listening.getsockname()[1]}"
        listening.listen(BACKLOG)  # before the address is printed
        names = ", ".join(models)
        print(f"Serving {names} on {address} (press Ctrl-C to stop)", flush=True)
        if open_browser:
            import webbrowser

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
    """Adds `HEADERS` to every response."""

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
