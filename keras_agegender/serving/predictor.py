"""Prediction: a photo becomes answers about all the faces in it.

In: a SavedModel that `export` wrote, and photos. Out: a `PhotoPrediction` each, with a
`FacePrediction` for every face found. Neither Keras nor the code of any network is
needed: the SavedModel brings everything. Pixels take the path that training wrote down,
through the graph that the SavedModel's own signatures hold. A run answers as its export
would; it needs Keras, and takes longer to load.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from keras_agegender.faces.cropping import CropOptions
from keras_agegender.faces.detector import Detections, FaceDetector
from keras_agegender.faces.images import UnreadableImageError, read_image
from keras_agegender.faces.pixel_path import PixelPath
from keras_agegender.quiet import quiet_start
from keras_agegender.run_directory import RunDirectory
from keras_agegender.serving.answers import FacePrediction, PhotoPrediction
from keras_agegender.serving.export_folder import METADATA_FILE, check_export
from keras_agegender.serving.saved_model_check import check_operations

__all__ = ["FacePrediction", "PhotoPrediction", "Predictor"]


class Predictor:
    """Answers about photos, from an exported model.

    A model that was trained on whole pictures answers once, about the whole photo, and
    no face is looked for, unless `detector` or `crop_options` is given.

    Args:
        directory: What `export` wrote, or a run, of which the best model answers as its
            export would.
        detector: Finds the faces; `None` (default) is the one the model was trained
            with.
        crop_options: How faces are cut out. `None` (default) is how it was done for
            training.

    Attributes:
        metadata: What the model's agegender.json says, or a run's would.
        pixels: What is done to the pixels, a `PixelPath`.

    Raises:
        ValueError: If there is neither an exported model nor a finished run in that
            folder, or its faces were found by a detector that is not `MtcnnDetector`
            and none is given.

    Example:
    >>> print(Predictor("saved_models/first").predict("photo.jpg"))  # doctest: +SKIP
    photo.jpg: 1 face
      1  25-32 (61%)  female (93%)  [178 102 390 370]
    """

    def __init__(
        self,
        directory: str | Path,
        detector: FaceDetector | None = None,
        crop_options: CropOptions | None = None,
    ) -> None:
        self.metadata, self._answer = _load(Path(directory))
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
                f"The model in {directory} was trained on faces that {path.detector} "
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

    def predict(
        self, photo: str | Path | bytes | np.ndarray, *, whole_image: bool = False
    ) -> PhotoPrediction:
        """Answers about all faces in a photo.

        Args:
            photo: A file, the bytes of one, or RGB pixels of shape (height, width, 3),
                uint8.
            whole_image: Whether a photo in which no face is found is taken for one.

        Raises:
            UnreadableImageError: If the photo cannot be read.
        """
        (prediction,) = self.predict_many([photo], whole_image=whole_image)
        if prediction.status == "unreadable":
            raise UnreadableImageError(prediction.reason)
        return prediction

    def predict_many(
        self,
        photos: Sequence[str | Path | bytes | np.ndarray],
        *,
        whole_image: bool = False,
        batch_size: int = 16,
    ) -> list[PhotoPrediction]:
        """Answers about many photos; one that cannot be read does not stop the others.

        Args:
            photos: What `predict` takes.
            whole_image: Whether a photo in which no face is found is taken for one.
            batch_size: Photos searched, and faces answered about, at a time. Defaults
                to 16.

        Returns:
            One prediction for each photo, in the order given.

        Raises:
            ValueError: If `batch_size` is not positive.
        """
        if batch_size < 1:
            raise ValueError(
                "Invalid `batch_size`. Expected a positive integer. "
                f"Received: batch_size={batch_size}."
            )
        predictions: list[PhotoPrediction] = []
        for start in range(0, len(photos), batch_size):
            chunk = photos[start : start + batch_size]
            predictions += self._predict_chunk(chunk, whole_image, batch_size)
        return predictions

    def _predict_chunk(
        self, photos: Sequence[Any], whole_image: bool, batch_size: int
    ) -> list[PhotoPrediction]:
        images = [_read(photo) for photo in photos]
        readable = [image for image in images if not isinstance(image, str)]
        detector = self.detector
        found = iter(detector.detect(readable) if detector and readable else [])
        statuses, boxes = [], []
        for image in images:
            detections = None
            if detector and not isinstance(image, str):
                detections = next(found)
            status, faces = _boxes(image, detections, whole_image)
            statuses.append(status)
            boxes.append(faces)
        crops = [
            (image, face)
            for image, faces in zip(images, boxes, strict=True)
            for face in faces
        ]
        answers = self._answers(crops, batch_size)
        return [
            PhotoPrediction(
                source=_name(photo),
                status=status,
                faces=tuple(
                    self._face(face.box, face.score, *next(answers)) for face in faces
                ),
                image_size=None if isinstance(image, str) else image.shape[:2],
                reason=image if isinstance(image, str) else "",
            )
            for photo, image, status, faces in zip(
                photos, images, statuses, boxes, strict=True
            )
        ]

    @functools.cached_property
    def _prepare(self) -> Any:
        """What turns picture, box and landmarks into the input and the box cut out."""
        import tensorflow as tf

        from keras_agegender.faces.boxes import full_box
        from keras_agegender.faces.pixel_graph import PICTURE, PixelGraph

        graph = PixelGraph(self.pixels)

        @tf.function(input_signature=[PICTURE])
        def whole(image: Any) -> Any:
            return graph.to_input(graph.whole(image)), full_box(tf.shape(image)[:2])

        @tf.function(
            input_signature=[
                PICTURE,
                tf.TensorSpec((4,), tf.float32),
                tf.TensorSpec((5, 2), tf.float32),
            ]
        )
        def face(image: Any, box: Any, landmarks: Any) -> Any:
            picture = graph.face(image, box, landmarks)
            return graph.to_input(picture), graph.crop_box(image, box)

        def prepare(image: np.ndarray, found: _Found) -> Any:
            if found.landmarks is None:
                return whole(image)
            return face(image, found.box, found.landmarks)

        return prepare

    def _answers(
        self, crops: Sequence[tuple[Any, _Found]], batch_size: int
    ) -> Iterator[tuple[np.ndarray, dict[str, np.ndarray]]]:
        """Yields for each face the box cut out and what the model says about it."""
        import tensorflow as tf

        for start in range(0, len(crops), batch_size):
            batch = [self._prepare(*c) for c in crops[start : start + batch_size]]
            outputs = self._answer(faces=tf.stack([pixels for pixels, _ in batch]))
            outputs = {name: value.numpy() for name, value in outputs.items()}
            for row, (_, box) in enumerate(batch):
                yield box.numpy(), {n: value[row] for n, value in outputs.items()}

    def _face(
        self,
        box: np.ndarray,
        score: float,
        crop: np.ndarray,
        answer: Mapping[str, np.ndarray],
    ) -> FacePrediction:
        groups, genders = self.metadata["age_groups"], self.metadata["genders"]
        age, gender = answer.get("age_group"), answer.get("gender_id")
        probabilities = answer.get("age_group_probabilities")
        agree = answer.get("heads_agree")
        heads = {name: _plain(answer[name]) for name in self.metadata["outputs"]}
        years = answer.get("age_years")
        return FacePrediction(
            box=_corners(box),
            crop_box=_corners(crop),
            score=round(float(score), 4),
            age_group=None if age is None else groups[int(age)],
            age_probabilities=None
            if probabilities is None
            else {n: _rounded(p) for n, p in zip(groups, probabilities, strict=True)},
            age_years=None if years is None else round(float(years), 1),
            gender=None if gender is None else genders[int(gender)],
            male_probability=None
            if gender is None
            else _rounded(answer["male_probability"]),
            heads_agree=None if agree is None else bool(agree),
            heads=heads,
            extra=_extra(self.metadata["extra_heads"], heads, answer),
            binary=_binary(self.metadata["extra_heads"], answer),
            age_set=_members(groups, answer.get("age_group_set")),
            gender_set=_members(genders, answer.get("gender_set")),
        )


def _load(directory: Path) -> tuple[dict[str, Any], Callable[..., Any]]:
    """Returns the metadata and the function that answers about prepared faces."""
    if RunDirectory(directory).recipe_file.is_file():
        return _load_run(directory)
    check_export(directory)
    file = directory / METADATA_FILE
    if not file.is_file():
        raise ValueError(
            f"The SavedModel in {directory} has no {METADATA_FILE}; it is not one that "
            "`agegender export` wrote."
        )
    with quiet_start():
        import tensorflow as tf

    check_operations(directory)
    try:
        metadata = json.loads(file.read_text("utf-8"))
        loaded = tf.saved_model.load(str(directory))
        answer = loaded.signatures["faces"]
    except (ValueError, KeyError, OSError, tf.errors.OpError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"The export in {directory} is damaged: {reason}") from None
    if "pixels" not in metadata:
        raise ValueError(
            f"The export in {directory} is of an older version, which did not write "
            "down its pixels. Export the run again."
        )
    return metadata, answer


def _load_run(directory: Path) -> tuple[dict[str, Any], Callable[..., Any]]:
    with quiet_start():
        import tensorflow as tf

        from keras_agegender.serving.served_model import serve

    served = serve(RunDirectory.open(directory))
    shape = (None, *served.graph.image_size, 3)
    faces = tf.TensorSpec(shape, tf.float32, name="faces")
    answer = tf.function(served.functions["faces"], input_signature=[faces])
    return served.metadata, answer


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
    try:
        return read_image(photo)
    except UnreadableImageError as error:
        return str(error)


def _name(photo: Any) -> str:
    return str(photo) if isinstance(photo, (str, Path)) else "picture"


class _Found(NamedTuple):
    """A face of a photo, or without landmarks a whole one."""

    box: np.ndarray
    score: float
    landmarks: np.ndarray | None


def _boxes(
    image: np.ndarray | str, detections: Detections | None, whole_image: bool
) -> tuple[str, list[_Found]]:
    """Returns a photo's status and its faces, from left to right."""
    if isinstance(image, str):
        return "unreadable", []
    if detections is not None and len(detections):
        order = np.argsort(detections.boxes[:, 0], kind="stable")
        values = (detections.boxes, detections.scores, detections.landmarks)
        return "ok", [_Found(*(v[i] for v in values)) for i in order]
    if detections is None or whole_image:
        height, width = image.shape[:2]
        whole = _Found(np.array([0, 0, width, height], "float32"), 0.0, None)
        return "not_cropped" if detections is None else "whole_image", [whole]
    return "no_face", []


def _extra(
    heads: Sequence[Mapping[str, Any]],
    outputs: Mapping[str, Any],
    answers: Mapping[str, Any],
) -> dict[str, float | str]:
    """Returns the outputs that are read from a column of their own."""
    extra: dict[str, float | str] = {}
    for head in heads:
        name, classes = head["name"], head["classes"]
        if head["kind"] == "binary":
            extra[name] = outputs[name]
        elif classes:
            extra[name] = classes[int(answers[f"{name}_answer"])]
        else:
            extra[name] = _rounded(answers[f"{name}_answer"])
    return extra


def _binary(
    heads: Sequence[Mapping[str, Any]], answers: Mapping[str, Any]
) -> dict[str, str]:
    """Returns the classes that binary outputs answer with."""
    return {
        head["name"]: head["classes"][int(answers[f"{head['name']}_answer"])]
        for head in heads
        if head["kind"] == "binary"
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
