"""A queue in front of a `Predictor`: photos that wait are answered about together."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import NamedTuple

from keras_agegender.serving.answers import PhotoPrediction
from keras_agegender.serving.predictor import Predictor


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
