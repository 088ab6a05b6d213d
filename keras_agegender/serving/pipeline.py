"""The prediction pipeline: reading, detection, cropping and prediction in parallel."""

from __future__ import annotations

import contextlib
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
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, TypeVar

import numpy as np

from keras_agegender.errors import one_line
from keras_agegender.faces.detector import Detections, FaceDetector
from keras_agegender.faces.images import UnreadableImageError, pillow_to_rgb, read_image
from keras_agegender.faces.preprocessing import Preprocessing
from keras_agegender.faces.video import VideoReader, check_frames_per_second
from keras_agegender.serving.model_format import InferenceModel, Outputs

if TYPE_CHECKING:
    from PIL import Image

    Photo: TypeAlias = "str | Path | bytes | np.ndarray | Image.Image"

# -- sources ---------------------------------------------------------------------------

# Files of a folder that are used. Some formats cannot be read and are reported so.
PHOTO_SUFFIXES = frozenset(
    ".jpg .jpeg .jpe .jfif .png .gif .webp .bmp .tif .tiff .heic .heif .avif".split()
)
VIDEO_SUFFIXES = frozenset(
    ".mp4 .m4v .mov .avi .mkv .webm .mpg .mpeg .wmv .3gp .mts".split()
)


class Source(NamedTuple):
    """One photo or video: its content, and the `source` of its prediction."""

    content: Any  # a file, the bytes of one, pixels, or a Pillow image
    name: str  # the file, or "image"
    is_video: bool = False


def find_sources(photos: Any, skipped: list[Path] | None = None) -> Iterator[Source]:
    """Yields photos and videos; those of a folder in order of their names."""
    if isinstance(photos, Source):
        yield photos
    elif isinstance(photos, (str, Path)):
        yield from _path_sources(photos, skipped)
    elif _is_image(photos) or not isinstance(photos, Iterable):
        yield Source(photos, "image")  # other types are reported as unreadable
    else:
        for photo in photos:
            yield from find_sources(photo, skipped)


def is_glob(path: str | Path) -> bool:
    """Returns whether a path is a pattern, and not the name of an existing file."""
    return glob.has_magic(str(path)) and not Path(path).exists()


def _path_sources(path: str | Path, skipped: list[Path] | None) -> Iterator[Source]:
    files: Iterable[str | Path] = [path]
    if Path(path).is_dir():
        files = _folder_files(Path(path), skipped)
    elif is_glob(path):
        found = sorted(glob.glob(str(path), recursive=True))
        files = [name for name in found if not Path(name).is_dir()] or [path]
    for file in files:
        yield Source(file, str(file), Path(file).suffix.lower() in VIDEO_SUFFIXES)


def _folder_files(folder: Path, skipped: list[Path] | None) -> Iterator[Path]:
    for root, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            file = Path(root, name)
            if name.startswith("."):
                continue
            if file.suffix.lower() in PHOTO_SUFFIXES | VIDEO_SUFFIXES:
                yield file
            elif skipped is not None:
                skipped.append(file)


def _is_image(photo: Any) -> bool:
    if hasattr(photo, "ndim"):
        return photo.ndim != 4  # a batch is an iterable of images
    # A Pillow image is recognized without importing Pillow.
    return isinstance(photo, bytes) or hasattr(photo, "getexif")


# -- threads ---------------------------------------------------------------------------

T = TypeVar("T")
R = TypeVar("R")

WAIT = 0.1  # seconds between two checks whether results are still wanted


def prefetch(items: Generator[T], ahead: int) -> Generator[T]:
    """Runs a generator in a background thread, up to `ahead` results in advance.

    The generator is closed in its thread, also when the rest is not wanted.
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
        except BaseException as raised:  # raised again in the consumer
            error = raised
        hand_over((False, error))

    # A daemon: interrupting the program does not wait for an image.
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

    At most `ahead` items are being processed or waiting at a time.
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


# -- frames ----------------------------------------------------------------------------


@dataclass
class Face:
    """A face of a frame, or the whole frame."""

    box: np.ndarray  # `bbox_xyxy` in pixels, shape (4,)
    score: float  # 0 for a whole frame
    landmarks: np.ndarray | None = None  # (5, 2); `None` for a whole frame
    crop_box: np.ndarray | None = None  # the part of the image that was cut out
    pixels: np.ndarray | None = None  # the model's input, until it was used
    outputs: Outputs = field(default_factory=dict)


@dataclass
class Frame:
    """A photo, a frame of a video, or the end of a video, on its way to predictions."""

    source: Source
    image: np.ndarray | None  # RGB, uint8, until the faces were cut out
    reason: str = ""  # why it is unreadable, or why a video ends early
    second: float | None = None  # of a frame; at the end, how much of a video was read
    is_end: bool = False
    status: str = "unreadable"  # of `PhotoPrediction`
    image_size: tuple[int, int] | None = None
    faces: list[Face] = field(default_factory=list)  # from left to right
    rotation: int = 0  # degrees counter-clockwise of `image`, whose pixels boxes are in

    def place(self, box: Any) -> np.ndarray:
        """Returns a box of the rotated image in pixels of the photo itself."""
        left, top, right, bottom = map(float, box)
        height, width = self.image_size or (0, 0)
        for _ in range(self.rotation // 90):
            # A quarter turn back: the photo is as wide as the rotated one is high.
            left, top, right, bottom = height - bottom, left, height - top, right
            height, width = width, height
        return np.array([left, top, right, bottom], "float32")

    @property
    def photo_size(self) -> tuple[int, int] | None:
        """(height, width) of the photo itself."""
        size = self.image_size
        return size[::-1] if size and self.rotation % 180 else size


READERS, READ_AHEAD = 2, 4


def read_frames(
    sources: Iterable[Source],
    frames_per_second: float,
    note_seconds: Callable[[float], None],
    overlap: bool,
) -> Generator[Frame]:
    """Yields the photos and video frames of sources, in order."""
    for is_video, group in itertools.groupby(sources, lambda s: s.is_video):
        if is_video:
            for source in group:
                yield from _video_frames(source, frames_per_second, note_seconds)
            continue
        read: Iterable[tuple[Frame, float]]
        if overlap:
            read = map_ahead(_read_photo, group, READERS, READ_AHEAD)
        else:
            read = map(_read_photo, group)
        for frame, seconds in read:
            note_seconds(seconds)
            yield frame


def _video_frames(
    source: Source, frames_per_second: float, note_seconds: Callable[[float], None]
) -> Generator[Frame]:
    try:
        video = VideoReader(source.content, frames_per_second)
    except UnreadableImageError as error:
        yield Frame(source, None, str(error), is_end=True)
        return
    start = time.perf_counter()
    for second, image in video:
        note_seconds(time.perf_counter() - start)
        yield Frame(source, image, second=second)
        start = time.perf_counter()
    yield Frame(source, None, video.reason, video.seconds, is_end=True)


def _read_photo(source: Source) -> tuple[Frame, float]:
    start = time.perf_counter()
    try:
        frame = Frame(source, _upright_rgb(source.content))
    except UnreadableImageError as error:
        frame = Frame(source, None, str(error))
    return frame, time.perf_counter() - start


def _upright_rgb(photo: Any) -> np.ndarray:
    """Returns upright pixels, or raises `UnreadableImageError`."""
    if isinstance(photo, np.ndarray):
        if photo.dtype != np.uint8 or photo.ndim != 3 or photo.shape[2] != 3:
            raise UnreadableImageError(
                "image: expected RGB pixels of shape (height, width, 3), uint8. "
                f"Received: shape {photo.shape}, {photo.dtype}."
            )
        if 0 in photo.shape:
            raise UnreadableImageError(
                f"image: no pixels. Received: shape {photo.shape}."
            )
        return photo
    if hasattr(photo, "getexif"):
        return _pillow_pixels(photo)
    if not hasattr(photo, "__fspath__") and not isinstance(photo, (str, bytes)):
        raise UnreadableImageError(
            "image: expected a file, bytes, RGB pixels or a Pillow image. "
            f"Received: {type(photo).__name__}."
        )
    return read_image(photo)


def _pillow_pixels(photo: Any) -> np.ndarray:
    from PIL import ImageOps

    try:
        pixels = pillow_to_rgb(ImageOps.exif_transpose(photo))
    except (OSError, SyntaxError, ValueError) as error:
        reason = one_line(error)
        raise UnreadableImageError(f"image: damaged image ({reason}).") from None
    if not pixels.size:
        raise UnreadableImageError("image: no pixels.")
    return pixels


def rotated(image: np.ndarray, quarters: int) -> np.ndarray:
    """Returns an image rotated counter-clockwise by quarter turns."""
    return np.ascontiguousarray(np.rot90(image, quarters))


def _total_score(boxes: Any, scores: Any, min_score: float) -> float:
    """Returns the sum of the scores of selected faces: the best rotation has most."""
    return float(sum(scores[i] for i in select_faces(boxes, scores, min_score)))


def _predict_photo(
    model: InferenceModel,
    min_score: float,
    whole_image: bool,
    try_rotations: bool,
    frame: Frame,
) -> tuple[Frame, float]:
    """Predicts the faces of a frame, and releases its image."""
    if frame.image is None:
        return frame, 0.0
    start = time.perf_counter()
    outputs = model.predict(frame.image)
    total = _total_score(outputs["boxes"], outputs["scores"], min_score)
    for quarters in (1, 2, 3) if try_rotations else ():
        other = model.predict(rotated(frame.image, quarters))
        if (score := _total_score(other["boxes"], other["scores"], min_score)) > total:
            outputs, total, frame.rotation = other, score, 90 * quarters
    size = frame.image.shape[:2]
    size = frame.image_size = size[::-1] if frame.rotation % 180 else size
    crop = Preprocessing.from_dict(model.metadata["pixels"]).crop
    found: Sequence[int] = range(len(outputs["boxes"]))
    status = "not_cropped"
    if crop is not None:
        found = select_faces(outputs["boxes"], outputs["scores"], min_score)
        status = "ok" if found else "no_face"
        if not found and whole_image and frame.second is None:
            outputs = model.predict(frame.image, whole_image=True)
            found, status = range(1), "whole_image"
    frame.image = None
    boxes, scores, landmarks = map(outputs.pop, ("boxes", "scores", "landmarks"))
    cut_out = None if status == "whole_image" else crop
    for row in found:
        box = boxes[row]
        frame.faces.append(
            Face(
                box=box,
                score=scores[row],
                landmarks=landmarks[row],
                crop_box=box if cut_out is None else cut_out.crop_box(box, size),
                outputs={name: value[row] for name, value in outputs.items()},
            )
        )
    frame.status = status
    return frame, time.perf_counter() - start


def make_cropper(
    pixels: Preprocessing, takes_crops: bool = False
) -> Callable[[np.ndarray, Face], None]:
    """Returns a function that fills in a face's `pixels` and `crop_box`."""
    import tensorflow as tf

    from keras_agegender.faces.geometry import full_box
    from keras_agegender.faces.preprocessing_graph import IMAGE, PreprocessingGraph

    graph = PreprocessingGraph(pixels)
    finish = graph.to_crop if takes_crops else graph.to_input
    box, points = (tf.TensorSpec(s, tf.float32) for s in ((4,), (5, 2)))
    traced: dict[str, Any] = {}

    def cut_whole(image: Any) -> Any:
        return finish(graph.whole(image)), full_box(tf.shape(image)[:2])

    def cut_face(image: Any, box: Any, landmarks: Any) -> Any:
        return finish(graph.face(image, box, landmarks)), graph.crop_box(image, box)

    def call(function: Callable[..., Any], signature: Any, *values: np.ndarray) -> Any:
        # The concrete function skips matching the signature: 0.1 ms for each call.
        if function.__name__ not in traced:
            graph_function = tf.function(function, signature, autograph=False)
            traced[function.__name__] = graph_function.get_concrete_function()
        return traced[function.__name__](*map(tf.constant, values))

    def crop(image: np.ndarray, face: Face) -> None:
        if face.landmarks is None:
            found = call(cut_whole, [IMAGE], image)
        else:
            found = call(
                cut_face, [IMAGE, box, points], image, face.box, face.landmarks
            )
        face.pixels, face.crop_box = (value.numpy() for value in found)

    return crop


# -- the pipeline ----------------------------------------------------------------------

# Share of the smaller of two boxes in the other one, above which they are one face.
MAX_SHARED = 0.5


def select_faces(boxes: np.ndarray, scores: np.ndarray, min_score: float) -> list[int]:
    """Returns the indices of faces from left to right, without duplicates."""
    found: list[int] = []
    for index in np.argsort(-scores, kind="stable").tolist():
        corners = boxes[[*found, index]].reshape(-1, 2, 2).astype("float64")
        areas = np.prod(corners[:, 1] - corners[:, 0], axis=1)
        low = np.maximum(corners[:-1, 0], corners[-1, 0])
        high = np.minimum(corners[:-1, 1], corners[-1, 1])
        shared = np.prod(np.clip(high - low, 0, None), axis=1)
        is_new = np.all(shared <= MAX_SHARED * np.minimum(areas[:-1], areas[-1]))
        if is_new and scores[index] >= min_score:
            found.append(index)
    return sorted(found, key=lambda index: float(boxes[index, 0]))


@dataclass
class PredictionTimes:
    """Seconds of the steps of a prediction, and what they processed.

    Steps overlap: their sum may exceed the elapsed time.

    Attributes:
        num_images: Photos and video frames.
        num_faces: Faces that were predicted.
        seconds: From the first image to the last prediction.
        reading: Reading and decoding, over all threads.
        detection: Face detection, unless the model includes it.
        cropping: Cropping, unless the model includes it.
        network: The model, over all threads.
    """

    num_images: int = 0
    num_faces: int = 0
    seconds: float = 0.0
    reading: float = 0.0
    detection: float = 0.0
    cropping: float = 0.0
    network: float = 0.0

    def __str__(self) -> str:
        if not self.num_images or not self.seconds:
            return "no images"
        speeds = [
            f"{name} alone {count / seconds:.1f} {unit}/s"
            for name, count, unit, seconds in (
                ("reading", self.num_images, "images", self.reading),
                ("detection", self.num_images, "images", self.detection),
                ("cropping", self.num_faces, "faces", self.cropping),
                ("network", self.num_faces, "faces", self.network),
            )
            if count and seconds
        ]
        return f"{self.num_images / self.seconds:.1f} images/s ({', '.join(speeds)})"


# Pixels of a chunk's images at most, unless a single one has more: about 100 MB.
CHUNK_PIXELS = 32_000_000


class FacePipeline:
    """Predicts the faces of many images, in order; without `overlap` in one thread."""

    def __init__(
        self,
        model: InferenceModel,
        crop: Callable[[np.ndarray, Face], None] | None,
        detector: FaceDetector | None,
        *,
        whole_image: bool,
        batch_size: int,
        frames_per_second: float,
        min_score: float = 0.0,
        try_rotations: bool = False,
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
        self.frames_per_second = frames_per_second
        self._model = model
        self._crop = crop
        self._detector = detector
        self._whole_image = whole_image
        self._min_score = min_score
        self._try_rotations = try_rotations
        self._batch_size = batch_size
        self._overlap = overlap

    def run(self, sources: Iterable[Source]) -> Generator[Frame]:
        """Yields every photo, every frame of a video, and the end of every video."""
        start = time.perf_counter()
        frames = read_frames(
            sources, self.frames_per_second, self._note_reading, self._overlap
        )
        if self._model.takes_photos:
            predicted = self._predict_photos(frames)
        else:
            chunks = self._ahead(self._chunks(frames))
            cropped = self._ahead(self._cut(self._ahead(self._find(chunks))))
            predicted = self._predict(cropped)
        with contextlib.closing(predicted):
            for frame in predicted:
                self.times.seconds = time.perf_counter() - start
                yield frame

    def _note_reading(self, seconds: float) -> None:
        self.times.reading += seconds

    def _ahead(self, items: Generator[Any]) -> Generator[Any]:
        return prefetch(items, 1) if self._overlap else items

    def _chunks(self, frames: Iterable[Frame]) -> Generator[list[Frame]]:
        chunk: list[Frame] = []
        num_pixels = 0
        for frame in frames:
            size = 0 if frame.image is None else frame.image.size // 3
            if chunk and num_pixels + size > CHUNK_PIXELS:
                yield chunk
                chunk, num_pixels = [], 0
            chunk.append(frame)
            num_pixels += size
            if len(chunk) >= self._batch_size:
                yield chunk
                chunk, num_pixels = [], 0
        if chunk:
            yield chunk

    def _find(self, chunks: Iterable[list[Frame]]) -> Generator[list[Frame]]:
        for chunk in chunks:
            frames = [frame for frame in chunk if frame.image is not None]
            images = [f.image for f in frames if f.image is not None]
            self.times.num_images += len(images)
            found: list[Detections | None] = [None] * len(images)
            if self._detector is not None and images:
                start = time.perf_counter()
                found = [*self._detector.detect(images)]
                if self._try_rotations:
                    self._rotate(self._detector, frames, images, found)
                self.times.detection += time.perf_counter() - start
            for frame, image, detections in zip(frames, images, found, strict=True):
                self._set_faces(frame, image, detections)
            yield chunk

    def _rotate(
        self,
        detector: FaceDetector,
        frames: list[Frame],
        images: list[np.ndarray],
        found: list[Detections | None],
    ) -> None:
        """Rotates photos whose faces are found better so; replaces detections."""

        def total(faces: Detections | None) -> float:
            if faces is None:
                return 0.0
            return _total_score(faces.boxes, faces.scores, self._min_score)

        photos = [k for k, frame in enumerate(frames) if frame.second is None]
        originals = {k: images[k] for k in photos}
        for quarters in (1, 2, 3):
            turned = [rotated(originals[k], quarters) for k in photos]
            detected = detector.detect(turned) if turned else []
            for k, image, faces in zip(photos, turned, detected, strict=True):
                if total(faces) > total(found[k]):
                    frames[k].image, frames[k].rotation = image, 90 * quarters
                    images[k], found[k] = image, faces

    def _set_faces(
        self, frame: Frame, image: np.ndarray, detections: Detections | None
    ) -> None:
        """Sets a frame's status and its faces, from left to right."""
        height, width = frame.image_size = image.shape[:2]
        if detections is not None and len(detections):
            order = select_faces(detections.boxes, detections.scores, self._min_score)
            values = (detections.boxes, detections.scores, detections.landmarks)
            frame.faces = [Face(*(value[i] for value in values)) for i in order]
        if frame.faces:
            frame.status = "ok"
        elif detections is None or (self._whole_image and frame.second is None):
            frame.status = "not_cropped" if detections is None else "whole_image"
            frame.faces = [Face(np.array([0, 0, width, height], "float32"), 0.0)]
        else:
            frame.status = "no_face"

    def _predict_photos(self, frames: Iterable[Frame]) -> Generator[Frame]:
        """Predicts with a model that detects the faces itself."""
        predict = functools.partial(
            _predict_photo,
            self._model,
            self._min_score,
            self._whole_image,
            self._try_rotations,
        )
        workers = os.cpu_count() or 1
        mapped: Iterable[tuple[Frame, float]]
        if self._overlap:
            mapped = map_ahead(predict, frames, workers, 2 * workers)
        else:
            mapped = map(predict, frames)
        for frame, seconds in mapped:
            self.times.network += seconds
            self.times.num_images += frame.image_size is not None
            self.times.num_faces += len(frame.faces)
            yield frame

    def _cut(self, chunks: Iterable[list[Frame]]) -> Generator[list[Frame]]:
        """Cuts the faces out of images, and releases them."""
        for chunk in chunks:
            start = time.perf_counter()
            for frame in chunk:
                if frame.image is not None and self._crop is not None:
                    for face in frame.faces:
                        self._crop(frame.image, face)
                    frame.image = None
            self.times.cropping += time.perf_counter() - start
            yield chunk

    def _predict(self, chunks: Iterable[list[Frame]]) -> Generator[Frame]:
        """Predicts the faces of several chunks together."""
        waiting: list[Frame] = []
        num_faces = 0
        for chunk in chunks:
            waiting += chunk
            num_faces += sum(len(frame.faces) for frame in chunk)
            # Limits the delay if hardly any image has a face.
            if num_faces >= self._batch_size or len(waiting) >= 2 * self._batch_size:
                yield from self._predicted(waiting)
                waiting, num_faces = [], 0
        yield from self._predicted(waiting)

    def _predicted(self, frames: list[Frame]) -> list[Frame]:
        start = time.perf_counter()
        faces = [face for frame in frames for face in frame.faces]
        for first in range(0, len(faces), self._batch_size):
            batch = faces[first : first + self._batch_size]
            outputs = self._model.predict(
                np.stack([np.asarray(face.pixels) for face in batch])
            )
            for row, face in enumerate(batch):
                face.outputs = {name: value[row] for name, value in outputs.items()}
                face.pixels = None
        self.times.network += time.perf_counter() - start
        self.times.num_faces += len(faces)
        return frames
