"""The HTTP server."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import logging
import socket
import threading
import time
import webbrowser
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sized
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from PIL import Image

from keras_agegender.errors import did_you_mean
from keras_agegender.faces.images import PILLOW_FORMATS, open_picture
from keras_agegender.serving.predictions import PhotoPrediction
from keras_agegender.serving.predictor import Predictor

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response


class QueueFullError(RuntimeError):
    """No more photos may wait; the message says how many do."""


class _Waiting(NamedTuple):
    photo: bytes
    future: Future[PhotoPrediction]


class PhotoQueue:
    """Answers about photos in threads, as many at a time as wait.

    A photo that comes alone is answered about at once; of those that come while others
    are answered, up to `max_batch` share a batch of the detector and of the network.

    Args:
        predictor: What answers; used by all threads.
        max_batch: Photos answered about together at most. Defaults to 32.
        max_waiting: Photos that may wait. Defaults to 256.
        max_waiting_bytes: Bytes of their files that may. Defaults to 256 MB.
        threads: How many batches are worked on at a time: while one is being read,
            another one may be in the network. Defaults to 2.
        on_batch: Is told how many photos each batch has. Defaults to nothing.

    Example:
    >>> photos = PhotoQueue(Predictor("saved_models/first"))  # doctest: +SKIP
    >>> print(photos.submit(file.read_bytes()).result())  # doctest: +SKIP
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
        for name, value in (
            *(("max_batch", max_batch), ("max_waiting", max_waiting)),
            *(("max_waiting_bytes", max_waiting_bytes), ("threads", threads)),
        ):
            if value < 1:
                raise ValueError(
                    f"Invalid `{name}`. Expected a positive integer. Received: {value}."
                )
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
        """How many photos wait."""
        return len(self._waiting)

    def submit(self, photo: bytes) -> Future[PhotoPrediction]:
        """Puts the bytes of a photo into the queue.

        Returns:
            The prediction to come. Cancelled before its batch begins, the photo is not
            looked at.

        Raises:
            QueueFullError: If too many photos or bytes wait, or the queue is closed.
        """
        future: Future[PhotoPrediction] = Future()
        with self._changed:
            if self._closed:
                raise QueueFullError("No more photos are taken.")
            full = len(self._waiting) >= self._max_waiting
            if full or self._num_bytes + len(photo) > self._max_bytes:
                raise QueueFullError(
                    f"{len(self._waiting)} photos wait, of {self._num_bytes} bytes."
                )
            self._waiting.append(_Waiting(photo, future))
            self._num_bytes += len(photo)
            self._changed.notify()
        return future

    def close(self) -> None:
        """Answers about what waits, and stops; nothing more is taken."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _take(self) -> list[_Waiting]:
        """Waits for photos; returns the next batch, empty at the end."""
        with self._changed:
            while not self._waiting and not self._closed:
                self._changed.wait()
            count = min(len(self._waiting), self._max_batch)
            taken = [self._waiting.popleft() for _ in range(count)]
            self._num_bytes -= sum(len(waiting.photo) for waiting in taken)
        return taken

    def _work(self) -> None:
        while batch := self._take():
            # Whoever gave up is not answered; who is, cannot give up any more.
            wanted = [w for w in batch if w.future.set_running_or_notify_cancel()]
            if wanted:
                self._on_batch(len(wanted))
                self._answer(wanted)

    def _answer(self, batch: list[_Waiting]) -> None:
        photos = [waiting.photo for waiting in batch]
        try:
            predictions = self.predictor.predict_many(photos, batch_size=len(photos))
        except Exception as error:  # of any kind: the thread must outlive it
            if len(batch) == 1:
                batch[0].future.set_exception(error)
                return
            for waiting in batch:  # a neighbor's fault is no other photo's
                self._answer([waiting])
            return
        for waiting, prediction in zip(batch, predictions, strict=True):
            waiting.future.set_result(prediction)  # type: ignore[arg-type]


SIZES = (1, 2, 4, 8, 16, 32, 64)


class ServerMetrics:
    """Counters and histograms of one application, apart from those of the process.

    Attributes:
        batch_photos: Histogram of the photos answered about together.
        media_type: Content type of `text()`.
    """

    def __init__(self) -> None:
        import prometheus_client as prometheus

        self._registry = registry = prometheus.CollectorRegistry()
        self._write = prometheus.generate_latest
        self.media_type = prometheus.CONTENT_TYPE_LATEST
        self._requests = prometheus.Counter(
            "agegender_requests", "Photos sent, by HTTP status.", ["status"],
            registry=registry,
        )  # fmt: skip
        self._seconds = prometheus.Histogram(
            "agegender_request_seconds", "From a request to its answer.",
            registry=registry,
        )  # fmt: skip
        self._faces = prometheus.Counter(
            "agegender_faces", "Faces answered about.", registry=registry
        )
        self.batch_photos = prometheus.Histogram(
            "agegender_batch_photos", "Photos answered about together.",
            buckets=SIZES, registry=registry,
        )  # fmt: skip
        self._waiting = prometheus.Gauge(
            "agegender_waiting_photos", "Photos that wait, by model.", ["model"],
            registry=registry,
        )  # fmt: skip
        self._open_bytes = prometheus.Gauge(
            "agegender_open_bytes", "Bytes of photos that open requests hold.",
            registry=registry,
        )  # fmt: skip

    def watch_bytes(self, held: Callable[[], int]) -> None:
        """Shows how many bytes of photos open requests hold."""
        self._open_bytes.set_function(held)

    def watch(self, model: str, photos: Sized) -> None:
        """Shows how many photos wait in a queue."""
        self._waiting.labels(model).set_function(lambda: len(photos))

    def count(self, status: int, seconds: float, content: Mapping[str, Any]) -> None:
        """Counts an answer.

        Args:
            status: Its HTTP status.
            seconds: How long it took.
            content: What was answered.
        """
        self._requests.labels(str(status)).inc()
        self._seconds.observe(seconds)
        self._faces.inc(len(content.get("faces", ())))

    def text(self) -> bytes:
        """Returns all of it as Prometheus reads it."""
        return self._write(self._registry)


# Status of a request that nobody waits for any more, in the metrics only: nginx's.
CLIENT_LEFT = 499

LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class ServerLimits:
    """What a server takes.

    Attributes:
        max_bytes: Bytes of a photo's file at most.
        max_pixels: Pixels of a photo at most, as its file's header says.
        max_batch: Photos answered about together at most.
        max_waiting: Photos that may wait, for each model.
        max_open_bytes: Bytes of all photos at most that are being received, wait or
            are answered about; at least `max_bytes`.
        timeout: Seconds in which a photo must have come, and must be answered about.
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
                "Invalid `max_open_bytes`. Expected at least `max_bytes`, or no photo "
                f"of that size could come. Received: max_open_bytes="
                f"{self.max_open_bytes}, max_bytes={self.max_bytes}."
            )


class RefusedError(Exception):
    """A request that is not answered, with its HTTP status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class OpenBytes:
    """Counts the bytes that all open requests hold together.

    Bytes count as they come: a client that announces many and sends none holds none.

    Args:
        most: How many there may be.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.held = 0

    @contextmanager
    def request(self) -> Iterator[Callable[[int], None]]:
        """Yields what counts bytes of one request, until it is answered.

        It raises `RefusedError` if all requests together would hold too many.
        """
        own = 0

        def add(count: int) -> None:
            nonlocal own
            if self.held + count > self.most:
                raise RefusedError(
                    503, f"Too busy: open photos have {self.held} bytes. Try again."
                )
            own += count
            self.held += count

        try:
            yield add
        finally:
            self.held -= own


@dataclass(frozen=True)
class PhotoHandlers:
    """What each address answers."""

    queues: Mapping[str, PhotoQueue]
    limits: ServerLimits
    metrics: ServerMetrics
    open_bytes: OpenBytes

    async def health(self, request: Request) -> Response:
        """Says that the models are loaded."""
        return json_response({"status": "ready"})

    async def models(self, request: Request) -> Response:
        """Says which models there are, what they answer and under which terms."""
        shown = [
            describe_model(name, photos.predictor.metadata)
            for name, photos in self.queues.items()
        ]
        return json_response({"default": next(iter(self.queues)), "models": shown})

    async def metrics_text(self, request: Request) -> Response:
        """Says what was counted."""
        from starlette.responses import Response

        return Response(self.metrics.text(), media_type=self.metrics.media_type)

    async def predict(self, request: Request) -> Response:
        """Answers about the photo that is the body of a request."""
        start = time.perf_counter()
        name = request.query_params.get("model") or next(iter(self.queues))
        status, headers = 200, None
        try:
            with self.open_bytes.request() as count:
                photo = await self._receive(request, name, count)
                content = await self._answer(request, photo, name)
        except RefusedError as refused:
            content, status = {"error": str(refused)}, refused.status
            headers = {"Retry-After": "1"} if status == 503 else None
        except Exception as error:  # of any kind: it is counted, and answered in JSON
            content, status = unexpected(error), 500
        self.metrics.count(status, time.perf_counter() - start, content)
        return json_response(content, status, headers)

    async def _receive(
        self, request: Request, name: str, count: Callable[[int], None]
    ) -> bytes:
        """Returns the photo of a request, once it is sure that it may be decoded."""
        from starlette.requests import ClientDisconnect

        if name not in self.queues:
            hint = did_you_mean(name, list(self.queues))
            raise RefusedError(
                404, f"There is no model {name!r}.{hint} Models: {list(self.queues)}."
            )
        try:
            async with asyncio.timeout(self.limits.timeout):
                photo = await self._body(request, count)
        except TimeoutError:
            raise RefusedError(
                408, f"The photo did not come within {self.limits.timeout:g} s."
            ) from None
        except ClientDisconnect:
            raise RefusedError(CLIENT_LEFT, "The client left.") from None
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

    async def _answer(
        self, request: Request, photo: bytes, name: str
    ) -> dict[str, Any]:
        try:
            future = self.queues[name].submit(photo)
        except QueueFullError as error:
            raise RefusedError(503, f"Too busy: {error} Try again.") from None
        asked = asyncio.wrap_future(future)
        # The photo has come: all that can follow it is that its sender leaves.
        leaving = asyncio.ensure_future(request.receive())
        try:
            done, _ = await asyncio.wait(
                (asked, leaving),
                timeout=self.limits.timeout,
                return_when=asyncio.FIRST_COMPLETED,
            )
        finally:
            leaving.cancel()
            # Out of the queue, if it is not answered yet: at once, where `asked` would
            # hand it on later.
            future.cancel()
        if not done:
            raise RefusedError(
                504, f"There was no answer within {self.limits.timeout:g} s."
            )
        if asked not in done:
            raise RefusedError(CLIENT_LEFT, "The client left.")
        prediction = asked.result()
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
        hint = ""
        if photo.startswith(b"--"):  # a form's boundary
            hint = " Send the photo's bytes alone: curl --data-binary @photo.jpg."
        raise RefusedError(
            415, f"This is no picture of a format that is read: {formats}.{hint}"
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
        "limits": metadata.get("limits"),
        "coverage": None if calibration is None else 1 - calibration["alpha"],
    }


def unexpected(error: Exception) -> dict[str, str]:
    """Logs a line about a fault of the server; returns what its client is told."""
    text = " ".join(str(error).split())[:300]
    LOGGER.error("unexpected %s: %s", type(error).__name__, text)
    return {"error": f"Unexpected {type(error).__name__}; the server's log says more."}


def json_response(
    content: Mapping[str, Any], status: int = 200, headers: Any = None
) -> Response:
    """Returns plain values as a response."""
    from starlette.responses import Response

    text = json.dumps(content, ensure_ascii=False)
    return Response(text, status, headers, media_type="application/json")


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
    answering = PhotoHandlers(queues, limits, metrics, open_bytes)

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        for photos in queues.values():
            await asyncio.to_thread(photos.close)

    return _application(answering, lifespan, page)


def _application(answering: PhotoHandlers, lifespan: Any, page: bool) -> Starlette:
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
