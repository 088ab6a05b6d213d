"""From photos to faces: reading, detection and cropping in background threads."""

from __future__ import annotations

import functools
import glob
import itertools
import os
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, TypeVar

import numpy as np

from keras_agegender.faces.detector import Detections, FaceDetector
from keras_agegender.faces.images import UnreadableImageError, pillow_to_rgb, read_image
from keras_agegender.faces.preprocessing import Preprocessing
from keras_agegender.faces.video import VideoReader, check_frames_per_second
from keras_agegender.serving.formats import InferenceModel, Outputs

if TYPE_CHECKING:
    from PIL import Image

    Photo: TypeAlias = "str | Path | bytes | np.ndarray | Image.Image"


class FoundFace(NamedTuple):
    """A face of a picture, or without landmarks a whole one."""

    box: np.ndarray
    score: float
    landmarks: np.ndarray | None


Prepare: TypeAlias = "Callable[[np.ndarray, FoundFace], tuple[np.ndarray, np.ndarray]]"


def make_preparation(pixels: Preprocessing, takes_crops: bool = False) -> Prepare:
    """Returns what turns a picture and a face into pixels and the box cut out.

    Args:
        pixels: What is done to them.
        takes_crops: Whether the model takes crops, uint8 of one size. Defaults to
            false: it takes the input, float32 in [0, 1].
    """
    import tensorflow as tf

    from keras_agegender.faces.geometry import full_box
    from keras_agegender.faces.preprocessing_graph import PICTURE, PreprocessingGraph

    graph = PreprocessingGraph(pixels)
    finish = graph.to_crop if takes_crops else graph.to_input

    @tf.function(input_signature=[PICTURE], autograph=False)
    def whole(image: Any) -> Any:
        return finish(graph.whole(image)), full_box(tf.shape(image)[:2])

    @tf.function(
        input_signature=[
            PICTURE,
            tf.TensorSpec((4,), tf.float32),
            tf.TensorSpec((5, 2), tf.float32),
        ],
        autograph=False,
    )
    def face(image: Any, box: Any, landmarks: Any) -> Any:
        picture = graph.face(image, box, landmarks)
        return finish(picture), graph.crop_box(image, box)

    @functools.cache
    def traced(function: Any) -> Any:
        """Is called without a look at the types of its arguments: that takes 0.1 ms."""
        return function.get_concrete_function()

    def prepare(image: np.ndarray, found: FoundFace) -> tuple[np.ndarray, np.ndarray]:
        if found.landmarks is None:
            values = traced(whole)(tf.constant(image))
        else:
            place = (found.box, found.landmarks)
            values = traced(face)(tf.constant(image), *map(tf.constant, place))
        return values[0].numpy(), values[1].numpy()

    return prepare


T = TypeVar("T")
R = TypeVar("R")

WAIT = 0.1  # seconds between two looks at whether anybody still wants results


def prefetch(items: Generator[T], ahead: int) -> Generator[T]:
    """Runs a generator in a thread; yields what it yields.

    Args:
        items: The generator. It is closed in its thread, also when nobody wants the
            rest.
        ahead: How many results may wait, at least 1.
    """
    waiting: queue.Queue[tuple[bool, Any]] = queue.Queue(ahead)
    stopped = threading.Event()

    def hand_over(result: tuple[bool, Any]) -> bool:
        while not stopped.is_set():
            try:
                waiting.put(result, timeout=WAIT)
                return True
            except queue.Full:
                continue
        return False

    def work() -> None:
        error: BaseException | None = None
        try:
            for item in items:
                if not hand_over((True, item)):
                    break
            items.close()
        except BaseException as raised:  # raised again where the results are used
            error = raised
        hand_over((False, error))

    # Daemons: an interruption of the program does not wait for a picture.
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        while True:
            is_item, value = waiting.get()
            if not is_item:
                if value is not None:
                    raise value
                return
            yield value
    finally:
        stopped.set()
        thread.join()


def map_ahead(
    function: Callable[[T], R], items: Iterable[T], workers: int, ahead: int
) -> Iterator[R]:
    """Applies a function to items in several threads; yields results in order.

    Args:
        function: What is called, from several threads at once.
        items: Its arguments, taken as they are needed.
        workers: How many threads.
        ahead: How many items are in work or wait at a time.
    """
    pending: deque[Future[R]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for item in items:
                pending.append(pool.submit(function, item))
                if len(pending) >= ahead:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


# Endings of a folder's files that are looked at. Formats that are not read are among
# them: their answer says so.
PHOTO_ENDINGS = frozenset(
    ".jpg .jpeg .jpe .jfif .png .gif .webp .bmp .tif .tiff .heic .heif .avif".split()
)
VIDEO_ENDINGS = frozenset(
    ".mp4 .m4v .mov .avi .mkv .webm .mpg .mpeg .wmv .3gp .mts".split()
)


class Source(NamedTuple):
    """One photo or video.

    Attributes:
        content: A file, the bytes of one, pixels, or a Pillow picture.
        name: What its prediction is called: the file, or `"picture"`.
        is_video: Whether it is the file of a video.
    """

    content: Any
    name: str
    is_video: bool = False


def find_sources(photos: Any, left_out: list[Path] | None = None) -> Iterator[Source]:
    """Yields the photos and videos that are meant, folder by folder, in order of names.

    Args:
        photos: A photo (file, bytes, RGB pixels or Pillow picture), a video file, a
            folder, a glob such as `"photos/**/*.jpg"`, a source that was found before,
            or an iterable of these. Folders are searched with those inside them, for
            the endings of photos and videos; hidden files are left out.
        left_out: Takes the files of folders that have other endings.
    """
    if isinstance(photos, Source):  # found before: by now its name may mean another
        yield photos
    elif isinstance(photos, (str, Path)):
        yield from _of_path(photos, left_out)
    elif _is_picture(photos):
        yield Source(photos, "picture")
    elif isinstance(photos, Iterable):
        for photo in photos:
            yield from find_sources(photo, left_out)
    else:
        yield Source(photos, "picture")  # its prediction says what is wrong with it


def is_glob(path: str | Path) -> bool:
    """Returns whether a path is a pattern, and not the name of something there."""
    return glob.has_magic(str(path)) and not Path(path).exists()


def _of_path(path: str | Path, left_out: list[Path] | None) -> Iterator[Source]:
    if Path(path).is_dir():
        yield from map(_file, _files_of(Path(path), left_out))
        return
    if is_glob(path):
        found = sorted(glob.glob(str(path), recursive=True))
        files = [name for name in found if not Path(name).is_dir()]
        if files:
            yield from map(_file, files)
            return
    yield _file(path)


def _files_of(folder: Path, left_out: list[Path] | None) -> Iterator[Path]:
    for root, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            file = Path(root, name)
            if name.startswith("."):
                continue
            if file.suffix.lower() in PHOTO_ENDINGS | VIDEO_ENDINGS:
                yield file
            elif left_out is not None:
                left_out.append(file)


def _file(path: str | Path) -> Source:
    return Source(path, str(path), Path(path).suffix.lower() in VIDEO_ENDINGS)


def _is_picture(photo: Any) -> bool:
    if isinstance(photo, bytes):
        return True
    if hasattr(photo, "ndim"):
        return photo.ndim != 4  # a batch is an iterable of pictures
    return hasattr(photo, "getexif")  # a Pillow picture, without importing Pillow


READERS, READ_AHEAD = 2, 4


class Picture(NamedTuple):
    """A photo or a frame, or the end of a video.

    Attributes:
        source: What it is of.
        image: RGB, uint8; `None` if there is none, and at the end of a video.
        reason: Why there is none, or why a video ended early.
        second: When a frame is shown; at the end of a video how much was read; `None`
            of a photo.
        is_end: Whether it is the end of a video.
    """

    source: Source
    image: np.ndarray | None
    reason: str = ""
    second: float | None = None
    is_end: bool = False


def read_pictures(
    sources: Iterable[Source],
    frames_per_second: float,
    note_seconds: Callable[[float], None],
    overlap: bool,
) -> Generator[Picture]:
    """Yields the pictures of sources, in order.

    Args:
        sources: Photos and videos.
        frames_per_second: How many frames of a video to look at in a second.
        note_seconds: Is told how long each picture took.
        overlap: Whether photos are read in several threads.
    """
    for is_video, group in itertools.groupby(sources, lambda s: s.is_video):
        if is_video:
            for source in group:
                yield from _frames(source, frames_per_second, note_seconds)
            continue
        read: Iterable[tuple[Picture, float]]
        if overlap:
            read = map_ahead(_timed_read, group, READERS, READ_AHEAD)
        else:
            read = (_timed_read(source) for source in group)
        for picture, seconds in read:
            note_seconds(seconds)
            yield picture


def _frames(
    source: Source, frames_per_second: float, note_seconds: Callable[[float], None]
) -> Generator[Picture]:
    try:
        video = VideoReader(source.content, frames_per_second)
    except UnreadableImageError as error:
        yield Picture(source, None, str(error), is_end=True)
        return
    start = time.perf_counter()
    for second, image in video:
        note_seconds(time.perf_counter() - start)
        yield Picture(source, image, second=second)
        start = time.perf_counter()
    yield Picture(source, None, video.reason, video.seconds, is_end=True)


def _timed_read(source: Source) -> tuple[Picture, float]:
    start = time.perf_counter()
    pixels = _read(source.content)
    seconds = time.perf_counter() - start
    if isinstance(pixels, str):
        return Picture(source, None, pixels), seconds
    return Picture(source, pixels), seconds


def _read(photo: Any) -> np.ndarray | str:
    """Returns upright pixels, or why there are none."""
    if isinstance(photo, np.ndarray):
        if photo.dtype != np.uint8 or photo.ndim != 3 or photo.shape[2] != 3:
            return (
                "picture: expected RGB pixels of shape (height, width, 3), uint8. "
                f"Received: shape {photo.shape}, {photo.dtype}."
            )
        if 0 in photo.shape:
            return f"picture: no pixels. Received: shape {photo.shape}."
        return photo
    if hasattr(photo, "getexif"):
        return _read_pillow(photo)
    if not hasattr(photo, "__fspath__") and not isinstance(photo, (str, bytes)):
        return (
            "picture: expected a file, bytes, RGB pixels or a Pillow picture. "
            f"Received: {type(photo).__name__}."
        )
    try:
        return read_image(photo)
    except UnreadableImageError as error:
        return str(error)


def _read_pillow(photo: Any) -> np.ndarray | str:
    from PIL import ImageOps

    try:
        pixels = pillow_to_rgb(ImageOps.exif_transpose(photo))
    except (OSError, SyntaxError, ValueError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        return f"picture: damaged picture ({reason})."
    return pixels if pixels.size else "picture: no pixels."


@dataclass
class PredictionTimes:
    """How long the steps of a prediction took.

    Steps overlap: their seconds may sum up to more than those that passed.

    Attributes:
        num_pictures: Photos, and frames of videos.
        num_faces: Faces answered about.
        seconds: From the first picture to the last answer.
        reading: Seconds of reading and decoding, over all threads.
        detection: Seconds of finding faces.
        cropping: Seconds of cutting faces out.
        network: Seconds of asking the model.
    """

    num_pictures: int = 0
    num_faces: int = 0
    seconds: float = 0.0
    reading: float = 0.0
    detection: float = 0.0
    cropping: float = 0.0
    network: float = 0.0

    def __str__(self) -> str:
        if not self.num_pictures or not self.seconds:
            return "no pictures"
        speeds = [
            f"{name} alone {count / seconds:.1f} {unit}/s"
            for name, count, unit, seconds in (
                ("reading", self.num_pictures, "images", self.reading),
                ("detection", self.num_pictures, "images", self.detection),
                ("cropping", self.num_faces, "faces", self.cropping),
                ("network", self.num_faces, "faces", self.network),
            )
            if count and seconds
        ]
        return f"{self.num_pictures / self.seconds:.1f} images/s ({', '.join(speeds)})"


# Pixels of a chunk's pictures at most, unless one alone has more: about 100 MB.
CHUNK_PIXELS = 32_000_000


class AnsweredFace(NamedTuple):
    """A face, the box that was cut out, and what the model says about it."""

    box: np.ndarray
    score: float
    crop_box: np.ndarray
    answers: Outputs


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
        model: InferenceModel,
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
            # Outputs come soon also where hardly any picture has a face.
            if num_faces >= self._batch_size or len(waiting) >= 2 * self._batch_size:
                yield from self._ask_about(waiting)
                waiting, num_faces = [], 0
        yield from self._ask_about(waiting)

    def _ask_about(self, pictures: list[_Ready]) -> Generator[AnsweredPicture]:
        start = time.perf_counter()
        inputs = [pixels for ready in pictures for pixels, _ in ready.inputs]
        answers: list[Outputs] = []
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
