"""Prediction: photos and videos become answers about all the faces in them.

In: a run, a `.keras` file or what `export` wrote in any format, and photos. Out: a
`PhotoPrediction` each, with a `FacePrediction` for every face found, or of a video a
`VideoPrediction` with a `PersonPrediction` for everybody seen. Pixels take the path
that training wrote down, through the graph that the SavedModel's own signatures hold.
An export needs no Keras for photos; a run answers as its export would, and takes longer
to load.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from keras_agegender.faces.cropping import CropOptions
from keras_agegender.faces.detector import FaceDetector
from keras_agegender.faces.images import UnreadableImageError
from keras_agegender.faces.pixel_path import PixelPath
from keras_agegender.serving.answering_model import default_model, load_answering_model
from keras_agegender.serving.answers import (
    FacePrediction,
    PhotoPrediction,
    VideoPrediction,
)
from keras_agegender.serving.face_answers import face_fields, place_fields
from keras_agegender.serving.face_cutting import Prepare, make_preparation
from keras_agegender.serving.face_pipeline import AnsweredPicture, FacePipeline
from keras_agegender.serving.photo_sources import Source, find_sources, is_glob
from keras_agegender.serving.prediction_times import PredictionTimes

if TYPE_CHECKING:
    from keras_agegender.serving.photo_sources import Photo

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
        pixels: What is done to the pixels, a `PixelPath`.

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
        path = PixelPath.from_dict(self.metadata["pixels"])
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
        from keras_agegender.serving.people import VideoPeople

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
