"""What the server's addresses answer: photos are received, checked and answered about.

The photo is taken off the wire within its limits, looked at by its header, put into the
queue of its model, and waited for, as long as its sender does.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from PIL import Image

from keras_agegender.faces.images import PILLOW_FORMATS, open_picture
from keras_agegender.serving.photo_queue import PhotoQueue, QueueFullError
from keras_agegender.serving.server_metrics import ServerMetrics
from keras_agegender.suggestion import did_you_mean

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

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
class PhotoAnswering:
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
