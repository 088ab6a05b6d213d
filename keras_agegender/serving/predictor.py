"""`Predictor`: predictions for photos and videos."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from keras_agegender.encodings.encoding import Encoding
from keras_agegender.encodings.head import ANSWER
from keras_agegender.encodings.of_age import AgeCheck
from keras_agegender.faces.images import UnreadableImageError
from keras_agegender.faces.preprocessing import CropOptions, Preprocessing
from keras_agegender.faces.video import FaceTracker
from keras_agegender.serving import formats, pipeline, predictions
from keras_agegender.serving.pipeline import Face, Frame, PredictionTimes, Source
from keras_agegender.serving.predictions import PhotoPrediction, VideoPrediction

if TYPE_CHECKING:
    from keras_agegender.encodings.head import Head
    from keras_agegender.faces.detector import FaceDetector
    from keras_agegender.serving.pipeline import Photo

Prediction: TypeAlias = PhotoPrediction | VideoPrediction

# Chosen by eye from 2,479 detections on 2,505 images (FairFace, All-Age-Faces, UTKFace,
# photos): of a score below 0.97, 10 are not faces at 0.8, 6 at 0.85 and 4 at 0.9; of
# 2,469 faces, 5 are lost at 0.85 and 20 at 0.9.
MIN_SCORE = 0.85


class Predictor:
    """Predicts age group and gender of the faces in photos and videos.

    A model that was trained on whole images makes one prediction for the whole photo,
    without face detection, unless `detector` or `crop_options` is given.

    Args:
        model: An export of any format, a run, a `.keras` file, or the name of a
            released model. A `.keras` file outside its run has no record of its
            preprocessing: it takes whole images unless `crop_options` or `detector` is
            passed. Defaults to `default_model()`.
        detector: Finds the faces. Defaults to the one that the model was trained with.
        crop_options: How faces are cropped. Defaults to that of training.
        age_check: Check of the estimated age, such as `AgeCheck(18, threshold=25)`;
            `FacePrediction.of_age` has its result. Defaults to none.
        min_score: Minimum confidence of the detector, in [0, 1]. Values below the
            detector's own threshold, 0.8 by default, have no effect. Defaults to 0.85.

        all_outputs: Whether predictions have the auxiliary outputs too, which only
            helped in training. Defaults to `False`.

    Attributes:
        metadata: The model's agegender.json.
        pixels: The preprocessing, a `Preprocessing`.

    Raises:
        ValueError: If there is no model that can be loaded, or its faces were found by
            a detector that is not `MtcnnDetector` and none is given.

    Example:
    >>> print(Predictor("saved_models/first").predict("photo.jpg"))  # doctest: +SKIP
    photo.jpg: 1 face
      1  29 (24–36)  female 93 %  [178 102 390 370]
    """

    def __init__(
        self,
        model: str | Path | None = None,
        detector: FaceDetector | None = None,
        crop_options: CropOptions | None = None,
        age_check: AgeCheck | None = None,
        *,
        min_score: float | None = None,
        all_outputs: bool = False,
    ) -> None:
        self.min_score = MIN_SCORE if min_score is None else min_score
        if not 0 <= self.min_score <= 1:
            raise ValueError(
                "Invalid `min_score`. Expected a number in [0, 1]. "
                f"Received: min_score={min_score}."
            )
        self._model = formats.load_model(formats.find_model(model))
        self.metadata = self._model.metadata
        if not all_outputs:
            self.metadata = predictions.without_auxiliary(self.metadata)
        if self._model.takes_photos and (detector or crop_options):
            raise ValueError(
                f"The model in {model} detects and crops faces itself. Expected no "
                "`detector` and no `crop_options`."
            )
        if age_check is not None:
            if Encoding.from_dict(self.metadata["encoding"]).age_head is None:
                raise ValueError(
                    f"Invalid `age_check`. The model in {model} does not predict age."
                )
            self.metadata = {**self.metadata, "age_check": asdict(age_check)}
        path = Preprocessing.from_dict(self.metadata["pixels"])
        if detector is not None or crop_options is not None:
            path = replace(
                path,
                crop=crop_options or path.crop or CropOptions(),
                detector=detector.settings() if detector else path.detector,
            )
        self.pixels = path
        self._detector = detector
        if detector is None and path.crop is not None and not path.uses_mtcnn:
            raise ValueError(
                f"The model in {model} was trained on faces found by {path.detector}. "
                "Pass a `detector`. Received: detector=None."
            )

    @property
    def crop_options(self) -> CropOptions | None:
        """How faces are cut out; `None` if the whole image is used."""
        return self.pixels.crop

    @property
    def detector(self) -> FaceDetector | None:
        """The face detector; `None` if the whole image is used."""
        if self._detector is None and self.pixels.crop is not None:
            from keras_agegender.faces.detector import MtcnnDetector

            self._detector = MtcnnDetector.from_settings(self.pixels.detector or {})
        return self._detector

    def predict(
        self, photo: Photo, *, whole_image: bool = False, try_rotations: bool = False
    ) -> PhotoPrediction:
        """Predicts all faces in a photo.

        Args:
            photo: A file, the bytes of one, a Pillow image, or RGB pixels of shape
                (height, width, 3), uint8.
            whole_image: Whether to use the whole photo if no face is found.
            try_rotations: Whether to search the photo rotated by 90, 180 and 270
                degrees too, for photos that lie on their side without EXIF
                orientation; the rotation with the highest sum of face scores is used.
                Boxes stay in pixels of the photo as given. Detection takes four times
                as long. Defaults to `False`.

        Raises:
            UnreadableImageError: If the photo cannot be read.
            ValueError: If it is a folder, a glob, a video or a list of photos.
        """
        source = _single_source(photo)
        if source is None or source.is_video:
            text = repr(photo) if isinstance(photo, (list, tuple, set)) else str(photo)
            short = text if len(text) <= 80 else f"{text[:80]}…"
            raise ValueError(
                "Invalid `photo`. Expected one photo; `predict_many` takes lists, "
                "folders and globs, `predict_video` a video. Received: "
                f"{'a video' if source else 'several photos'}, {short}."
            )
        (prediction,) = self._run(
            [source], whole_image, try_rotations=try_rotations, overlap=False
        )
        return _readable(prediction)

    def predict_video(
        self, video: str | Path, *, frames_per_second: float = 4.0
    ) -> VideoPrediction:
        """Predicts each person in a video once.

        Faces are tracked over the frames; predictions are means over them.

        Args:
            video: A file of a format that OpenCV reads, whatever its suffix.
            frames_per_second: Frames to use from each second. Defaults to 4; below 2,
                people who move are not tracked.

        Raises:
            UnreadableImageError: If the video cannot be read or has no frames.
            ValueError: If `frames_per_second` is not above 0.

        Example:
        >>> print(Predictor(model).predict_video("video.mp4"))  # doctest: +SKIP
        video.mp4: 1 person in 12.0 s
          1  29 (24–36)  female 95 %  [0.5-11.2 s, 43 frames]
        """
        source = Source(video, str(video), is_video=True)
        (prediction,) = self._run([source], frames_per_second=frames_per_second)
        return _readable(prediction)

    def predict_many(
        self,
        photos: Photo | Iterable[Photo],
        *,
        whole_image: bool = False,
        try_rotations: bool = False,
        batch_size: int = 16,
        frames_per_second: float = 4.0,
    ) -> list[Prediction]:
        """Predicts many photos; an unreadable one does not stop the others.

        Args:
            photos: What `predict` takes, folders (searched recursively), globs, videos,
                or an iterable of these.
            whole_image: Whether to use the whole photo if no face is found.
            try_rotations: As in `predict`; for photos only.
            batch_size: Photos searched, and faces predicted, at a time. Defaults to 16.
            frames_per_second: Frames to use from each second of a video. Defaults to 4.

        Returns:
            One prediction for each photo and video, in the order given; files of a
            folder are in order of their names.

        Raises:
            ValueError: If `batch_size` or `frames_per_second` is not positive.
        """
        sources = pipeline.find_sources(photos)
        first = list(itertools.islice(sources, 2))
        return list(
            self._run(
                itertools.chain(first, sources),
                whole_image,
                batch_size,
                frames_per_second,
                try_rotations=try_rotations,
                # Threads cost more than they gain for a single photo.
                overlap=len(first) > 1 or any(source.is_video for source in first),
            )
        )

    def stream(
        self,
        photos: Photo | Iterable[Photo],
        *,
        whole_image: bool = False,
        try_rotations: bool = False,
        batch_size: int = 16,
        frames_per_second: float = 4.0,
        times: PredictionTimes | None = None,
    ) -> Iterator[Prediction]:
        """Yields the predictions that `predict_many` returns, one at a time.

        Photos are read as they are needed and only a few are in memory at a time.
        Reading, face detection and the network run concurrently, in threads.

        Args:
            photos: As in `predict_many`; an iterable may be endless.
            whole_image: As in `predict_many`.
            try_rotations: As in `predict`; for photos only.
            batch_size: As in `predict_many`.
            frames_per_second: As in `predict_many`.
            times: Collects the durations of the steps.

        Raises:
            ValueError: If `batch_size` or `frames_per_second` is not positive.

        Example:
        >>> for prediction in predictor.stream("photos"):  # doctest: +SKIP
        ...     print(prediction)
        """
        sources = pipeline.find_sources(photos)
        return self._run(
            sources,
            whole_image,
            batch_size,
            frames_per_second,
            try_rotations=try_rotations,
            times=times,
        )

    def _run(
        self,
        sources: Iterable[Source],
        whole_image: bool = False,
        batch_size: int = 16,
        frames_per_second: float = 4.0,
        *,
        try_rotations: bool = False,
        overlap: bool = True,
        times: PredictionTimes | None = None,
    ) -> Iterator[Prediction]:
        if try_rotations and self.pixels.crop is None:
            raise ValueError(
                "Invalid `try_rotations` (--try-rotations). Expected a model that "
                "finds faces. Received a model of whole images."
            )
        photos = self._model.takes_photos
        faces = pipeline.FacePipeline(
            self._model,
            None if photos else self._crop,
            None if photos else self.detector,
            whole_image=whole_image,
            batch_size=batch_size,
            frames_per_second=frames_per_second,
            min_score=self.min_score,
            try_rotations=try_rotations,
            overlap=overlap,
            times=times,
        )  # checks the options now, not with the first prediction

        def predict() -> Iterator[Prediction]:
            with closing(faces.run(sources)) as frames:
                for frame in frames:
                    if frame.source.is_video:
                        yield self._video(frame, frames, frames_per_second)
                    else:
                        yield self._photo(frame)

        return predict()

    @functools.cached_property
    def _crop(self) -> Callable[[np.ndarray, Face], None]:
        return pipeline.make_cropper(self.pixels, self._model.takes_crops)

    def _photo(self, frame: Frame) -> PhotoPrediction:
        faces = tuple(
            predictions.FacePrediction(
                **predictions.place_fields(
                    frame.place(face.box), frame.place(face.crop_box), face.score
                ),
                **predictions.face_fields(self.metadata, face.outputs),
            )
            for face in frame.faces
        )
        return PhotoPrediction(
            frame.source.name,
            frame.status,
            faces,
            frame.photo_size,
            frame.reason,
            frame.rotation,
        )

    def _video(
        self, first: Frame, rest: Iterator[Frame], frames_per_second: float
    ) -> VideoPrediction:
        """Returns the prediction for a video, consuming its frames up to its end."""
        persons = PersonAggregator(self.metadata)
        frame, num_frames = first, 0
        while not frame.is_end:
            persons.add(frame.faces, frame.second or 0.0)
            num_frames += 1
            frame = next(rest)
        faces = persons.results()
        status = first.status if num_frames else "unreadable"
        if num_frames and self.pixels.crop is not None:
            status = "ok" if faces else "no_face"
        return VideoPrediction(
            source=first.source.name,
            status=status,
            faces=faces,
            image_size=first.image_size,
            reason=frame.reason,
            seconds=round(frame.second or 0.0, 3),
            num_frames=num_frames,
            frames_per_second=frames_per_second,
        )


def _place(face: Face) -> dict[str, Any]:
    return predictions.place_fields(face.box, np.asarray(face.crop_box), face.score)


def _single_source(photo: Any) -> Source | None:
    """Returns the one photo or video; `None` if there may be several."""
    if isinstance(photo, (str, Path)):
        several = pipeline.is_glob(photo) or Path(photo).is_dir()
    else:
        several = (
            isinstance(photo, (list, tuple, set)) or getattr(photo, "ndim", 0) == 4
        )
    return None if several else next(pipeline.find_sources(photo), None)


def _readable(prediction: Any) -> Any:
    if prediction.status == "unreadable":
        raise UnreadableImageError(prediction.reason)
    return prediction


# After the name of a head: the probability of each of its classes.
PROBABILITIES = "_probabilities"


@dataclass
class _Person:
    """A person's accumulated outputs, times and best face."""

    best: Face
    best_second: float
    first_second: float
    last_second: float
    num_frames: int = 0
    sums: dict[str, np.ndarray] = field(default_factory=dict)


class PersonAggregator:
    """Averages the outputs of each person's faces over the frames of a video."""

    def __init__(
        self, metadata: Mapping[str, Any], tracker: FaceTracker | None = None
    ) -> None:
        self._metadata = metadata
        self._tracker = tracker or FaceTracker()
        self._persons: dict[int, _Person] = {}
        # A mean of class ids is meaningless: these heads' probabilities are averaged.
        extra_heads = Encoding.from_dict(metadata["encoding"]).extra_heads
        shown = {head["name"] for head in metadata["extra_heads"]}
        self._heads = [
            h for h in extra_heads if h.name in shown and not h.spec.is_number
        ]
        self._calibration = metadata.get("calibration") or {}

    def add(self, faces: Sequence[Face], second: float) -> None:
        """Adds the faces of the next frame."""
        boxes = np.array([face.box for face in faces])
        numbers = self._tracker.update(boxes, second)
        for number, face in zip(numbers, faces, strict=True):
            person = self._persons.get(number)
            if person is None:
                person = _Person(face, second, second, second)
                self._persons[number] = person
            if face.score > person.best.score:
                person.best, person.best_second = face, second
            person.last_second = second
            person.num_frames += 1
            for name, value in self._averaged(face.outputs).items():
                person.sums[name] = person.sums.get(name, 0.0) + value

    def results(self) -> tuple[predictions.PersonPrediction, ...]:
        """Returns the predictions for all persons, in order of appearance."""
        found = []
        for _, person in sorted(self._persons.items()):
            means = {name: s / person.num_frames for name, s in person.sums.items()}
            found.append(
                predictions.PersonPrediction(
                    **_place(person.best),
                    **predictions.face_fields(self._metadata, self._classes(means)),
                    first_second=round(person.first_second, 3),
                    last_second=round(person.last_second, 3),
                    best_second=round(person.best_second, 3),
                    num_frames=person.num_frames,
                )
            )
        return tuple(found)

    def _averaged(self, outputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        values = {name: np.asarray(v, "float64") for name, v in outputs.items()}
        for head in self._heads:
            name = f"{head.name}{PROBABILITIES}"
            values[name] = class_probabilities(head, values)
        return values

    def _classes(self, means: dict[str, np.ndarray]) -> dict[str, Any]:
        """Returns mean outputs and the most probable classes."""
        outputs: dict[str, Any] = dict(means)
        if "age_group_probabilities" in means:
            outputs["age_group"] = np.argmax(means["age_group_probabilities"])
        if "male_probability" in means:
            outputs["gender_id"] = int(means["male_probability"] > 0.5)
        if "heads_agree" in means:
            outputs["heads_agree"] = means["heads_agree"] >= 0.5
        for head in self._heads:
            probabilities = means[f"{head.name}{PROBABILITIES}"]
            outputs[f"{head.name}{ANSWER}"] = np.argmax(probabilities)
        male = means.get("male_probability")
        shares = {
            "age_group": means.get("age_group_probabilities"),
            "gender": None if male is None else np.array([1 - male, male]),
        }
        by = self._calibration.get("by")
        for name, thresholds in self._calibration.get("thresholds", {}).items():
            if (found := shares[name]) is not None:
                row = outputs[predictions.DECODED_NAMES[by]] if by else 0
                members = prediction_set(found, thresholds[row])
                outputs[predictions.SET_NAMES[name]] = members
        return outputs


def class_probabilities(head: Head, outputs: Mapping[str, np.ndarray]) -> np.ndarray:
    """Returns the probabilities of a face's classes, as `HeadType.probabilities`."""
    values = np.concatenate([np.ravel(outputs[name]) for name in head.output_names])
    if head.spec.binary:
        return np.array([1 - values[0], values[0]])
    if not head.spec.ranks:
        return values
    if head.spec.several_outputs:  # one of them is constant
        values = 1 - values[1:] if head.question == "younger" else values[:-1]
    elif head.spec.values == "conditional_ranks":
        values = np.cumprod(values)
    falling = np.sort(values)[::-1]
    return -np.diff(np.concatenate([[1.0], falling, [0.0]]))


def prediction_set(probabilities: np.ndarray, threshold: float) -> np.ndarray:
    """Returns which classes are in a face's prediction set, as `Calibration.sets`."""
    padded = np.concatenate([[-1.0], probabilities, [-1.0]])
    left = right = int(np.argmax(padded))
    inside = padded[left]
    while right - left + 1 < len(probabilities) and min(inside, 1.0) <= threshold:
        if padded[left - 1] >= padded[right + 1]:
            left -= 1
            inside += padded[left]
        else:
            right += 1
            inside += padded[right]
    places = np.arange(1, len(probabilities) + 1)
    return (places >= left) & (places <= right)
