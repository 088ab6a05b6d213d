"""The way from sources to answers in batches, every step in a thread of its own.

    read ─► find faces ─► cut them out ─► ask the model

A step takes the next pictures while the following step works on the last ones. Pictures
go in chunks of bounded size, and between two steps at most one chunk waits.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from keras_agegender.faces.detector import Detections, FaceDetector
from keras_agegender.faces.video import check_frames_per_second
from keras_agegender.serving.answering_model import AnsweringModel, Answers
from keras_agegender.serving.face_cutting import FoundFace, Prepare
from keras_agegender.serving.photo_reading import Picture, read_pictures
from keras_agegender.serving.photo_sources import Source
from keras_agegender.serving.prediction_times import PredictionTimes
from keras_agegender.serving.prefetching import prefetch

# Pixels of a chunk's pictures at most, unless one alone has more: about 100 MB.
CHUNK_PIXELS = 32_000_000


class AnsweredFace(NamedTuple):
    """A face, the box that was cut out, and what the model says about it."""

    box: np.ndarray
    score: float
    crop_box: np.ndarray
    answers: Answers


class AnsweredPicture(NamedTuple):
    """A picture with what was found; its pixels are gone.

    Attributes:
        picture: The picture, `image` being `None`.
        status: As in `PhotoPrediction`.
        image_size: (height, width) in pixels.
        faces: From left to right.
    """

    picture: Picture
    status: str
    image_size: tuple[int, int] | None
    faces: Sequence[AnsweredFace]


class _Seen(NamedTuple):
    picture: Picture
    status: str
    faces: list[FoundFace]


class _Ready(NamedTuple):
    """A picture without its pixels; of each face what the model takes, and crop box."""

    seen: _Seen
    image_size: tuple[int, int] | None
    inputs: list[tuple[np.ndarray, np.ndarray]]


class FacePipeline:
    """Answers about the faces of many pictures, in order.

    Args:
        model: What answers.
        prepare: What `make_preparation` returned.
        detector: What finds faces; `None` takes whole pictures.
        whole_image: Whether a photo without a face is taken for one.
        batch_size: Pictures searched, and faces answered about, at a time.
        frames_per_second: How many frames of a video to look at in a second.
        overlap: Whether steps run in threads of their own. Defaults to true.
        times: Takes how long the steps took.

    Raises:
        ValueError: If `batch_size` or `frames_per_second` is not positive.
    """

    def __init__(
        self,
        model: AnsweringModel,
        prepare: Prepare,
        detector: FaceDetector | None,
        *,
        whole_image: bool,
        batch_size: int,
        frames_per_second: float,
        overlap: bool = True,
        times: PredictionTimes | None = None,
    ) -> None:
        if batch_size < 1:
            raise ValueError(
                "Invalid `batch_size`. Expected a positive integer. "
                f"Received: batch_size={batch_size}."
            )
        check_frames_per_second(frames_per_second)
        self.times = PredictionTimes() if times is None else times
        self._model = model
        self._prepare = prepare
        self._detector = detector
        self._whole_image = whole_image
        self._batch_size = batch_size
        self.frames_per_second = frames_per_second
        self._overlap = overlap

    def run(self, sources: Iterable[Source]) -> Generator[AnsweredPicture]:
        """Yields every picture of every source, and the end of every video."""
        start = time.perf_counter()
        pictures = read_pictures(
            sources, self.frames_per_second, self._note_reading, self._overlap
        )
        chunks = self._ahead(self._chunks(pictures))
        ready = self._ahead(self._cut_out(self._ahead(self._find(chunks))))
        for answered in self._ask(ready):
            self.times.seconds = time.perf_counter() - start
            yield answered

    def _note_reading(self, seconds: float) -> None:
        self.times.reading += seconds

    def _ahead(self, items: Generator[Any]) -> Generator[Any]:
        return prefetch(items, 1) if self._overlap else items

    def _chunks(self, pictures: Iterable[Picture]) -> Generator[list[Picture]]:
        chunk: list[Picture] = []
        num_pixels = 0
        for picture in pictures:
            size = 0 if picture.image is None else picture.image.size // 3
            if chunk and num_pixels + size > CHUNK_PIXELS:
                yield chunk
                chunk, num_pixels = [], 0
            chunk.append(picture)
            num_pixels += size
            if len(chunk) >= self._batch_size:
                yield chunk
                chunk, num_pixels = [], 0
        if chunk:
            yield chunk

    # -- finding and cutting -----------------------------------------------------------

    def _find(self, chunks: Iterable[list[Picture]]) -> Generator[list[_Seen]]:
        for chunk in chunks:
            images = [p.image for p in chunk if p.image is not None]
            self.times.num_pictures += len(images)
            found: Iterator[Detections] = iter(())
            if self._detector is not None and images:
                start = time.perf_counter()
                found = iter(self._detector.detect(images))
                self.times.detection += time.perf_counter() - start
            yield [self._look(picture, found) for picture in chunk]

    def _look(self, picture: Picture, found: Iterator[Detections]) -> _Seen:
        """Returns a picture's status and its faces, from left to right."""
        if picture.image is None:
            return _Seen(picture, "unreadable", [])
        detections = next(found) if self._detector is not None else None
        if detections is not None and len(detections):
            order = np.argsort(detections.boxes[:, 0], kind="stable")
            values = (detections.boxes, detections.scores, detections.landmarks)
            faces = [FoundFace(*(value[i] for value in values)) for i in order]
            return _Seen(picture, "ok", faces)
        is_photo = picture.second is None
        if detections is None or (self._whole_image and is_photo):
            height, width = picture.image.shape[:2]
            whole = FoundFace(np.array([0, 0, width, height], "float32"), 0.0, None)
            status = "not_cropped" if detections is None else "whole_image"
            return _Seen(picture, status, [whole])
        return _Seen(picture, "no_face", [])

    def _cut_out(self, chunks: Iterable[list[_Seen]]) -> Generator[list[_Ready]]:
        for chunk in chunks:
            start = time.perf_counter()
            ready = [self._without_pixels(seen) for seen in chunk]
            self.times.cropping += time.perf_counter() - start
            yield ready

    def _without_pixels(self, seen: _Seen) -> _Ready:
        image = seen.picture.image
        if image is None:
            return _Ready(seen, None, [])
        inputs = [self._prepare(image, face) for face in seen.faces]
        seen = seen._replace(picture=seen.picture._replace(image=None))
        return _Ready(seen, image.shape[:2], inputs)

    # -- asking ------------------------------------------------------------------------

    def _ask(self, chunks: Iterable[list[_Ready]]) -> Generator[AnsweredPicture]:
        """Asks the model about the faces of several chunks together."""
        waiting: list[_Ready] = []
        num_faces = 0
        for chunk in chunks:
            waiting += chunk
            num_faces += sum(len(ready.inputs) for ready in chunk)
            # Answers come soon also where hardly any picture has a face.
            if num_faces >= self._batch_size or len(waiting) >= 2 * self._batch_size:
                yield from self._ask_about(waiting)
                waiting, num_faces = [], 0
        yield from self._ask_about(waiting)

    def _ask_about(self, pictures: list[_Ready]) -> Generator[AnsweredPicture]:
        start = time.perf_counter()
        inputs = [pixels for ready in pictures for pixels, _ in ready.inputs]
        answers: list[Answers] = []
        for first in range(0, len(inputs), self._batch_size):
            batch = np.stack(inputs[first : first + self._batch_size])
            outputs = self._model.answer(batch)
            answers += [
                {name: value[row] for name, value in outputs.items()}
                for row in range(len(batch))
            ]
        self.times.network += time.perf_counter() - start
        self.times.num_faces += len(inputs)
        following = iter(answers)
        for (picture, status, faces), size, prepared in pictures:
            yield AnsweredPicture(
                picture,
                status,
                size,
                [
                    AnsweredFace(face.box, face.score, crop_box, next(following))
                    for face, (_, crop_box) in zip(faces, prepared, strict=True)
                ],
            )
