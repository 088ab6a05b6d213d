"""`Predictor`: predictions for photos and videos."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from keras_agegender.encodings.calibration import Calibration
from keras_agegender.encodings.decoding import Decoded
from keras_agegender.encodings.encoding import Encoding
from keras_agegender.encodings.head import ANSWER, Head
from keras_agegender.encodings.head_types import HEAD_TYPES
from keras_agegender.faces.detector import FaceDetector
from keras_agegender.faces.images import UnreadableImageError
from keras_agegender.faces.preprocessing import CropOptions, Preprocessing
from keras_agegender.faces.video import FaceTracker
from keras_agegender.serving.bundle import DECODED_NAMES, SET_NAMES
from keras_agegender.serving.formats import default_model, load_answering_model
from keras_agegender.serving.pipeline import (
    AnsweredFace,
    AnsweredPicture,
    FacePipeline,
    PredictionTimes,
    Prepare,
    Source,
    find_sources,
    is_glob,
    make_preparation,
)
from keras_agegender.serving.predictions import (
    FacePrediction,
    PersonPrediction,
    PhotoPrediction,
    VideoPrediction,
)

if TYPE_CHECKING:
    from keras_agegender.serving.pipeline import Photo


Metadata = Mapping[str, Any]
Outputs = Mapping[str, np.ndarray]


def face_fields(metadata: Metadata, answers: Outputs) -> dict[str, Any]:
    """Returns the fields of a `FacePrediction` that a model answers.

    Args:
        metadata: What the model's agegender.json says.
        answers: Name -> what the signature `faces` says about one face.
    """
    groups, genders = metadata["age_groups"], metadata["genders"]
    age, gender = answers.get("age_group"), answers.get("gender_id")
    probabilities = answers.get("age_group_probabilities")
    agree, years = answers.get("heads_agree"), answers.get("age_years")
    heads = {name: _plain(answers[name]) for name in metadata["outputs"]}
    return {
        "age_group": None if age is None else groups[int(age)],
        "age_probabilities": None
        if probabilities is None
        else {n: _rounded(p) for n, p in zip(groups, probabilities, strict=True)},
        "age_years": None if years is None else round(float(years), 1),
        "gender": None if gender is None else genders[int(gender)],
        "male_probability": None
        if gender is None
        else _rounded(answers["male_probability"]),
        "heads_agree": None if agree is None else bool(agree),
        "heads": heads,
        "extra": _extra(metadata["extra_heads"], heads, answers),
        "binary": _binary(metadata["extra_heads"], answers),
        "age_set": _members(groups, answers.get("age_group_set")),
        "gender_set": _members(genders, answers.get("gender_set")),
    }


def place_fields(box: np.ndarray, crop_box: np.ndarray, score: float) -> dict[str, Any]:
    """Returns the fields of a `FacePrediction` that say where the face is."""
    return {
        "box": _corners(box),
        "crop_box": _corners(crop_box),
        "score": round(float(score), 4),
    }


def _extra(
    heads: Sequence[Metadata], outputs: Mapping[str, Any], answers: Outputs
) -> dict[str, float | str]:
    """Returns the outputs that are read from a column of their own."""
    extra: dict[str, float | str] = {}
    for head in heads:
        name, classes = head["name"], head["classes"]
        if HEAD_TYPES[head["kind"]].binary:
            extra[name] = outputs[name]
        elif classes:
            extra[name] = classes[int(answers[f"{name}{ANSWER}"])]
        else:
            extra[name] = _rounded(answers[f"{name}{ANSWER}"])
    return extra


def _binary(heads: Sequence[Metadata], answers: Outputs) -> dict[str, str]:
    """Returns the classes that binary outputs answer with."""
    return {
        head["name"]: head["classes"][int(answers[f"{head['name']}{ANSWER}"])]
        for head in heads
        if HEAD_TYPES[head["kind"]].binary
    }


def _members(
    names: Sequence[str], members: np.ndarray | None
) -> tuple[str, ...] | None:
    """Returns the names that are in a set of answers."""
    if members is None:
        return None
    return tuple(name for name, there in zip(names, members, strict=True) if there)


def _plain(values: np.ndarray) -> float | list[float]:
    numbers = [_rounded(value) for value in np.ravel(values)]
    return numbers[0] if len(numbers) == 1 else numbers


def _rounded(value: Any) -> float:
    return round(float(value), 6)


def _corners(box: np.ndarray) -> tuple[float, float, float, float]:
    left, top, right, bottom = (round(float(x), 1) for x in box)
    return left, top, right, bottom


__all__ = ["FacePrediction", "PhotoPrediction", "Predictor", "VideoPrediction"]

Prediction: TypeAlias = PhotoPrediction | VideoPrediction


class Predictor:
    """Answers about photos and videos, from a trained model.

    A model that was trained on whole pictures answers once, about the whole photo, and
    no face is looked for, unless `detector` or `crop_options` is given.

    Args:
        model: What `export` wrote, in any format (ONNX and LiteRT need the extra
            `export`), a run, of which the best model answers as its export would, or a
            `.keras` file. A `.keras` file outside its run does not say what its pixels
            were: it takes whole pictures, unless `crop_options` or `detector` is given.
            `None` (default) is `default_model()`.
        detector: Finds the faces; `None` (default) is the one the model was trained
            with.
        crop_options: How faces are cut out. `None` (default) is how it was done for
            training.

    Attributes:
        metadata: What the model's agegender.json says, or a run's would.
        pixels: What is done to the pixels, a `Preprocessing`.

    Raises:
        ValueError: If there is no model that can be loaded, or its faces were found by
            a detector that is not `MtcnnDetector` and none is given.

    Example:
    >>> print(Predictor("saved_models/first").predict("photo.jpg"))  # doctest: +SKIP
    photo.jpg: 1 face
      1  25-32 (61%)  female (93%)  [178 102 390 370]
    """

    def __init__(
        self,
        model: str | Path | None = None,
        detector: FaceDetector | None = None,
        crop_options: CropOptions | None = None,
    ) -> None:
        model = default_model() if model is None else model
        self._model = load_answering_model(model)
        self.metadata = self._model.metadata
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
                f"The model in {model} was trained on faces that {path.detector} "
                "found. Expected `detector`: that one, or another. Received: "
                "detector=None."
            )

    @property
    def crop_options(self) -> CropOptions | None:
        """How faces are cut out; `None` where the whole picture is taken."""
        return self.pixels.crop

    @property
    def detector(self) -> FaceDetector | None:
        """What finds the faces; `None` where the whole picture is taken."""
        if self._detector is None and self.pixels.crop is not None:
            from keras_agegender.faces.detector import MtcnnDetector

            self._detector = MtcnnDetector.from_settings(self.pixels.detector or {})
        return self._detector

    def predict(self, photo: Photo, *, whole_image: bool = False) -> PhotoPrediction:
        """Answers about all faces in a photo.

        Args:
            photo: A file, the bytes of one, a Pillow picture, or RGB pixels of shape
                (height, width, 3), uint8.
            whole_image: Whether a photo in which no face is found is taken for one.

        Raises:
            UnreadableImageError: If the photo cannot be read.
            ValueError: If it is a folder, a glob, a video or a list of photos.
        """
        source = _one_source(photo)
        if source is None or source.is_video:
            what = "a video" if source else "several photos"
            raise ValueError(
                "Invalid `photo`. Expected one photo; `predict_many` takes lists, "
                "folders and globs, `predict_video` a video. Received: "
                f"{what}, {_short(photo)}."
            )
        (prediction,) = self._run([source], whole_image, overlap=False)
        if isinstance(prediction, VideoPrediction):
            raise TypeError(f"A photo was read as a video: {_short(photo)}.")
        if prediction.status == "unreadable":
            raise UnreadableImageError(prediction.reason)
        return prediction

    def predict_video(
        self, video: str | Path, *, frames_per_second: float = 4.0
    ) -> VideoPrediction:
        """Answers about everybody in a video, once for each person.

        Faces are followed over the frames looked at, and answers are means over them.

        Args:
            video: A file of a format that OpenCV reads, whatever its ending.
            frames_per_second: How many frames to look at in a second. Defaults to 4;
                below 2 people who move are not followed.

        Raises:
            UnreadableImageError: If the video cannot be read or has no frames.
            ValueError: If `frames_per_second` is not above 0.

        Example:
        >>> print(Predictor(model).predict_video("video.mp4"))  # doctest: +SKIP
        video.mp4: 1 person in 12.0 s
          1  25-32 (64%)  female (95%)  [0.5-11.2 s, 43 frames]
        """
        source = Source(video, str(video), is_video=True)
        (prediction,) = self._run([source], frames_per_second=frames_per_second)
        if isinstance(prediction, PhotoPrediction):
            raise TypeError(f"A video was read as a photo: {video}.")
        if prediction.status == "unreadable":
            raise UnreadableImageError(prediction.reason)
        return prediction

    def predict_many(
        self,
        photos: Photo | Iterable[Photo],
        *,
        whole_image: bool = False,
        batch_size: int = 16,
        frames_per_second: float = 4.0,
    ) -> list[Prediction]:
        """Answers about many photos; one that cannot be read does not stop the others.

        Args:
            photos: What `predict` takes, folders, which are searched with those inside
                them, globs, videos, or an iterable of these.
            whole_image: Whether a photo in which no face is found is taken for one.
            batch_size: Photos searched, and faces answered about, at a time. Defaults
                to 16.
            frames_per_second: How many frames of a video to look at in a second.
                Defaults to 4.

        Returns:
            One prediction for each photo and video, in the order given; files of a
            folder are in order of their names.

        Raises:
            ValueError: If `batch_size` or `frames_per_second` is not positive.
        """
        return list(
            self.stream(
                photos,
                whole_image=whole_image,
                batch_size=batch_size,
                frames_per_second=frames_per_second,
            )
        )

    def stream(
        self,
        photos: Photo | Iterable[Photo],
        *,
        whole_image: bool = False,
        batch_size: int = 16,
        frames_per_second: float = 4.0,
        times: PredictionTimes | None = None,
    ) -> Iterator[Prediction]:
        """Yields what `predict_many` returns, one prediction after the other.

        Photos are read as they are needed, and a few of them are in memory at a time:
        any number can be predicted on. Reading, finding faces and the network run at
        the same time, in threads of their own.

        Args:
            photos: What `predict_many` takes; an iterable may be endless.
            whole_image: Whether a photo in which no face is found is taken for one.
            batch_size: Photos searched, and faces answered about, at a time. Defaults
                to 16.
            frames_per_second: How many frames of a video to look at in a second.
                Defaults to 4.
            times: Takes how long the steps took.

        Raises:
            ValueError: If `batch_size` or `frames_per_second` is not positive.

        Example:
        >>> for prediction in predictor.stream("photos"):  # doctest: +SKIP
        ...     print(prediction)
        """
        return self._run(
            find_sources(photos),
            whole_image,
            batch_size,
            frames_per_second,
            times=times,
        )

    def _run(
        self,
        sources: Iterable[Source],
        whole_image: bool = False,
        batch_size: int = 16,
        frames_per_second: float = 4.0,
        *,
        overlap: bool = True,
        times: PredictionTimes | None = None,
    ) -> Iterator[Prediction]:
        pipeline = FacePipeline(
            self._model,
            self._prepare,
            self.detector,
            whole_image=whole_image,
            batch_size=batch_size,
            frames_per_second=frames_per_second,
            overlap=overlap,
            times=times,
        )
        return self._predictions(pipeline, sources)

    def _predictions(
        self, pipeline: FacePipeline, sources: Iterable[Source]
    ) -> Iterator[Prediction]:
        with closing(pipeline.run(sources)) as answered:
            for picture in answered:
                if picture.picture.source.is_video:
                    video = self._video(picture, answered)
                    rate = pipeline.frames_per_second
                    yield replace(video, frames_per_second=rate)
                else:
                    yield self._photo(picture)

    @functools.cached_property
    def _prepare(self) -> Prepare:
        return make_preparation(self.pixels, self._model.takes_crops)

    def _photo(self, answered: AnsweredPicture) -> PhotoPrediction:
        return PhotoPrediction(
            source=answered.picture.source.name,
            status=answered.status,
            faces=tuple(
                FacePrediction(
                    **place_fields(face.box, face.crop_box, face.score),
                    **face_fields(self.metadata, face.answers),
                )
                for face in answered.faces
            ),
            image_size=answered.image_size,
            reason=answered.picture.reason,
        )

    def _video(
        self, first: AnsweredPicture, following: Iterator[AnsweredPicture]
    ) -> VideoPrediction:
        """Returns the prediction of a video, its frames taken up to its end."""
        source = first.picture.source
        people = VideoPeople(self.metadata)
        frame, num_frames = first, 0
        while not frame.picture.is_end:
            people.add(frame.faces, frame.picture.second or 0.0)
            num_frames += 1
            frame = next(following)
        persons = people.predictions()
        status = first.status if num_frames else "unreadable"
        if num_frames and self.detector is not None:
            status = "ok" if persons else "no_face"
        return VideoPrediction(
            source=source.name,
            status=status,
            faces=persons,
            image_size=first.image_size,
            reason=frame.picture.reason,
            seconds=round(frame.picture.second or 0.0, 3),
            num_frames=num_frames,
        )


def _one_source(photo: Any) -> Source | None:
    """Returns the photo or video that is meant; `None` if several may be."""
    if isinstance(photo, (str, Path)) and (is_glob(photo) or Path(photo).is_dir()):
        return None
    if isinstance(photo, (list, tuple, set)) or getattr(photo, "ndim", 0) == 4:
        return None
    return next(find_sources(photo), None)


def _short(photo: Any) -> str:
    text = repr(photo) if isinstance(photo, (list, tuple, set)) else str(photo)
    return text if len(text) <= 80 else f"{text[:80]}…"


# Behind the name of a further head: the probability of each of its classes.
PROBABILITIES = "_probabilities"


@dataclass
class _Person:
    """What is kept of a person: sums of the answers, times, and the surest face."""

    best: AnsweredFace
    best_second: float
    first_second: float
    last_second: float
    num_frames: int = 0
    sums: dict[str, np.ndarray] = field(default_factory=dict)


class VideoPeople:
    """Collects the faces of a video, frame by frame.

    Args:
        metadata: What the model's agegender.json says.
        tracker: Says who is who; `None` is a new `FaceTracker()`.
    """

    def __init__(
        self, metadata: Mapping[str, Any], tracker: FaceTracker | None = None
    ) -> None:
        self._metadata = metadata
        self._tracker = tracker or FaceTracker()
        self._people: dict[int, _Person] = {}
        encoding = Encoding.from_dict(metadata["encoding"])
        # A mean of ids says nothing: of these heads, probabilities are averaged.
        self._heads = [h for h in encoding.extra_heads if _has_classes(h, metadata)]
        values = metadata.get("calibration")
        self._calibration = Calibration.from_dict(values) if values else None

    def add(self, faces: Sequence[AnsweredFace], second: float) -> None:
        """Adds the faces of the next frame."""
        boxes = np.array([face.box for face in faces])
        numbers = self._tracker.update(boxes, second)
        for number, face in zip(numbers, faces, strict=True):
            person = self._people.get(number)
            if person is None:
                person = _Person(face, second, second, second)
                self._people[number] = person
            if face.score > person.best.score:
                person.best, person.best_second = face, second
            person.last_second = second
            person.num_frames += 1
            for name, value in self._averaged(face.answers).items():
                person.sums[name] = person.sums.get(name, 0.0) + value

    def predictions(self) -> tuple[PersonPrediction, ...]:
        """Returns the answers about everybody, in the order in which they appeared."""
        return tuple(self._predict(p) for _, p in sorted(self._people.items()))

    def _averaged(self, answers: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        values = {name: np.asarray(v, "float64") for name, v in answers.items()}
        batch = {name: value[np.newaxis] for name, value in answers.items()}
        for head in self._heads:
            found = np.asarray(head.spec.probabilities(head, batch), "float64")
            values[f"{head.name}{PROBABILITIES}"] = found[0]
        return values

    def _predict(self, person: _Person) -> PersonPrediction:
        means = {name: s / person.num_frames for name, s in person.sums.items()}
        best = person.best
        return PersonPrediction(
            **place_fields(best.box, best.crop_box, best.score),
            **face_fields(self._metadata, self._decided(means)),
            first_second=round(person.first_second, 3),
            last_second=round(person.last_second, 3),
            best_second=round(person.best_second, 3),
            num_frames=person.num_frames,
        )

    def _decided(self, means: dict[str, np.ndarray]) -> dict[str, Any]:
        """Returns answers whose classes are the most probable by the means."""
        answers: dict[str, Any] = dict(means)
        if "age_group_probabilities" in means:
            answers["age_group"] = np.argmax(means["age_group_probabilities"])
        if "male_probability" in means:
            answers["gender_id"] = int(means["male_probability"] > 0.5)
        if "heads_agree" in means:
            answers["heads_agree"] = means["heads_agree"] >= 0.5
        for head in self._heads:
            probabilities = means[f"{head.name}{PROBABILITIES}"]
            answers[f"{head.name}{ANSWER}"] = np.argmax(probabilities)
        return answers | self._sets(answers)

    def _sets(self, answers: Mapping[str, Any]) -> dict[str, np.ndarray]:
        if self._calibration is None:
            return {}
        needed = ("age_group", "age_probabilities", "gender", "gender_probability")
        fields = {field: answers.get(DECODED_NAMES[field]) for field in needed}
        batch = {
            n: np.asarray(v)[np.newaxis] for n, v in fields.items() if v is not None
        }
        sets = self._calibration.sets(Decoded(**batch))._asdict()
        return {
            SET_NAMES[field]: np.asarray(members)[0]
            for field, members in sets.items()
            if members is not None
        }


def _has_classes(head: Head, metadata: Mapping[str, Any]) -> bool:
    classes = {h["name"]: h["classes"] for h in metadata["extra_heads"]}
    return bool(classes[head.name])
