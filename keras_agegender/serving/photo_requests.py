"""Requests: a photo that was sent becomes an answer, or an error with its status."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from keras_agegender.serving.photo_queue import PhotoQueue, QueueFullError
from keras_agegender.serving.server_limits import (
    RefusedError,
    ServerLimits,
    check_photo,
)
from keras_agegender.serving.server_metrics import ServerMetrics
from keras_agegender.suggestion import did_you_mean

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response


@dataclass(frozen=True)
class PhotoRequests:
    """What each address answers.

    Attributes:
        queues: Name of a model -> the queue in front of it; the first is the default.
        limits: What is taken.
        metrics: What is counted.
    """

    queues: Mapping[str, PhotoQueue]
    limits: ServerLimits
    metrics: ServerMetrics

    async def health(self, request: Request) -> Response:
        """Says that models are loaded."""
        return json_response({"status": "ready"})

    async def models(self, request: Request) -> Response:
        """Lists the models."""
        shown = [
            describe_model(name, photos.predictor.metadata)
            for name, photos in self.queues.items()
        ]
        return json_response({"default": next(iter(self.queues)), "models": shown})

    async def metrics_text(self, request: Request) -> Response:
        """Shows the counters."""
        from starlette.responses import Response

        return Response(self.metrics.text(), media_type=self.metrics.media_type)

    async def predict(self, request: Request) -> Response:
        """Answers about the photo in a request's body."""
        start = time.perf_counter()
        name = request.query_params.get("model") or next(iter(self.queues))
        try:
            photo = await self._receive(request, name)
            content = await self._answer(photo, name)
            status, headers = 200, None
        except RefusedError as refused:
            content, status = {"error": str(refused)}, refused.status
            headers = {"Retry-After": "1"} if status == 503 else None
        self.metrics.count(status, time.perf_counter() - start, content)
        return json_response(content, status, headers)

    async def _receive(self, request: Request, name: str) -> bytes:
        """Returns the photo of a request, once it is sure that it may be decoded."""
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

    async def _answer(self, photo: bytes, name: str) -> dict[str, Any]:
        try:
            waiting = self.queues[name].submit(photo)
        except QueueFullError as error:
            raise RefusedError(503, f"Too busy: {error} Try again.") from None
        try:
            async with asyncio.timeout(self.limits.timeout):
                prediction = await asyncio.wrap_future(waiting)
        except TimeoutError:
            raise RefusedError(
                504, f"There was no answer within {self.limits.timeout:g} s."
            ) from None
        if prediction.status == "unreadable":
            raise RefusedError(400, prediction.reason)
        answer = prediction.to_dict()
        del answer["source"]  # no file: there is none here
        return {"model": name, **answer}


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


def json_response(
    content: Mapping[str, Any], status: int = 200, headers: Any = None
) -> Response:
    """Returns plain values as an HTTP answer."""
    from starlette.responses import Response

    text = json.dumps(content, ensure_ascii=False)
    return Response(text, status, headers, media_type="application/json")
