"""What a server counts, in the words of Prometheus."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sized
from typing import Any

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
