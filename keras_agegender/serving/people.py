"""Faces of a video's frames become people, each with one smoothed answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from keras_agegender.encodings.calibration import Calibration
from keras_agegender.encodings.decoding import Decoded, class_probabilities
from keras_agegender.encodings.encoding import Encoding
from keras_agegender.encodings.head import ANSWER, Head
from keras_agegender.faces.tracking import FaceTracker
from keras_agegender.serving.answers import PersonPrediction
from keras_agegender.serving.face_answers import face_fields, place_fields
from keras_agegender.serving.face_pipeline import AnsweredFace
from keras_agegender.serving.output_names import DECODED_NAMES, SET_NAMES

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
            found = np.asarray(class_probabilities(head, batch), "float64")
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
