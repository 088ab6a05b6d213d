"""What a model answered about a photo: plain values that print and become JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

LISTED_OUTPUTS = 6


@dataclass(frozen=True)
class FacePrediction:
    """The answers about one face.

    Fields are `None` where the model does not answer that question.

    Attributes:
        box: Face as detected, `bbox_xyxy` in pixels of the upright photo.
        crop_box: What the model saw, `bbox_xyxy`.
        score: Confidence of the detector in [0, 1]; 0 for a whole picture.
        age_group: Name of the age group, `"25-32"` for instance.
        age_probabilities: Age group -> probability; they sum to 1.
        age_years: Expected age in years; of a model of age groups, that of their
            centers.
        gender: `"female"` or `"male"`.
        male_probability: Probability of male; that of female is the rest.
        heads_agree: Whether the age outputs tell one story.
        heads: Output -> what the model said: one number, or one for each class.
        extra: The outputs beside age and gender: a number for regression, the
            probability of the second class (yes) of a binary one, or the most probable
            class.
        age_set: Of a calibrated model, neighboring age groups of which one is right
            for 90 % of the faces, or as `calibrate` was told; else `None`.
        gender_set: The same of gender: one, or both where the model cannot tell.
        binary: Binary output of `extra` -> the class answered, `"yes"` or `"no"` where
            the classes have no names.
    """

    box: tuple[float, float, float, float]
    crop_box: tuple[float, float, float, float]
    score: float
    age_group: str | None
    age_probabilities: dict[str, float] | None
    age_years: float | None
    gender: str | None
    male_probability: float | None
    heads_agree: bool | None
    heads: dict[str, float | list[float]]
    extra: dict[str, float | str]
    age_set: tuple[str, ...] | None = None
    gender_set: tuple[str, ...] | None = None
    binary: dict[str, str] = field(default_factory=dict)

    @property
    def age_confidence(self) -> float | None:
        """Probability of the age group answered."""
        if self.age_group is None or self.age_probabilities is None:
            return None
        return self.age_probabilities[self.age_group]

    @property
    def gender_confidence(self) -> float | None:
        """Probability of the gender answered."""
        if self.male_probability is None:
            return None
        male = self.male_probability
        return male if self.gender == "male" else 1 - male

    def to_dict(self) -> dict[str, Any]:
        """Returns the answers as plain values, ready for JSON."""
        return asdict(self)

    @property
    def words(self) -> tuple[str, ...]:
        """The answers in words, as they are printed and drawn.

        Of many further outputs the first six, and how many more there are.
        """
        parts = []
        if self.age_group is not None:
            doubt = "" if self.heads_agree else ", age outputs disagree"
            share = f"{self.age_confidence:.0%}{doubt}"
            parts.append(_answer_text(self.age_group, share, self.age_set))
        if self.gender is not None:
            share = f"{self.gender_confidence:.0%}"
            parts.append(_answer_text(self.gender, share, self.gender_set))
        names = list(self.extra)
        parts += [self._extra_text(name) for name in names[:LISTED_OUTPUTS]]
        if len(names) > LISTED_OUTPUTS:
            parts.append(f"… and {len(names) - LISTED_OUTPUTS} more outputs")
        return tuple(parts)

    def __str__(self) -> str:
        corners = " ".join(f"{x:.0f}" for x in self.box)
        return f"{'  '.join(self.words)}  [{corners}]"

    def _extra_text(self, name: str) -> str:
        value = self.extra[name]
        if isinstance(value, str):
            return f"{name} {value}"
        if name in self.binary:
            return f"{name} {self.binary[name]} ({max(value, 1 - value):.0%})"
        return f"{name} {_number(value)}"


@dataclass(frozen=True)
class PhotoPrediction:
    """The answers about one photo.

    Attributes:
        source: The file, or `"picture"`.
        status: `"ok"`, `"no_face"`, `"whole_image"` (no face found; the picture was
            taken for one), `"not_cropped"` (the model was trained on whole pictures; no
            face was looked for) or `"unreadable"`.
        reason: Why it is unreadable, in a line; else empty.
        image_size: (height, width) of the upright photo, in pixels.
        faces: One for each face, from left to right.
    """

    source: str
    status: str
    faces: tuple[FacePrediction, ...] = ()
    image_size: tuple[int, int] | None = None
    reason: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Returns the prediction as plain values, ready for JSON."""
        return asdict(self)

    @property
    def found(self) -> str:
        """What was found in the photo, in words."""
        count = len(self.faces)
        return {
            "unreadable": f"unreadable: {self.reason}",
            "no_face": "no face found",
            "whole_image": "no face found; the whole picture",
            "not_cropped": "the whole picture, as the model was trained",
        }.get(self.status, "1 face" if count == 1 else f"{count} faces")

    def __str__(self) -> str:
        if self.status == "unreadable":
            return self.found
        lines = [f"{self.source}: {self.found}"]
        lines += [f"  {place}  {face}" for place, face in enumerate(self.faces, 1)]
        return "\n".join(lines)


@dataclass(frozen=True)
class PersonPrediction(FacePrediction):
    """The answers about one person of a video: means over the frames with the face.

    Attributes:
        box: Face in the frame in which the detector was surest, `bbox_xyxy` in pixels.
        crop_box: What the model saw of that frame, `bbox_xyxy`.
        score: Confidence of the detector there, in [0, 1].
        age_group: The most probable age group by the means.
        age_probabilities: Age group -> mean probability.
        age_years: Mean of the expected ages, in years.
        gender: `"female"` or `"male"`, by the mean.
        male_probability: Mean probability of male.
        heads_agree: Whether the age outputs tell one story in half of the frames.
        heads: Output -> mean of what the model said.
        extra: The outputs beside age and gender, by the means.
        age_set: Of a calibrated model, the set that the means give.
        gender_set: The same of gender.
        binary: Binary output of `extra` -> the class answered.
        first_second: When the person was first seen.
        last_second: When the person was last seen.
        best_second: When the frame of `box` is shown.
        num_frames: In how many of the frames looked at.
    """

    first_second: float = 0.0
    last_second: float = 0.0
    best_second: float = 0.0
    num_frames: int = 1

    def __str__(self) -> str:
        seen = "1 frame" if self.num_frames == 1 else f"{self.num_frames} frames"
        when = f"{self.first_second:.1f}-{self.last_second:.1f} s, {seen}"
        return f"{'  '.join(self.words)}  [{when}]"


@dataclass(frozen=True)
class VideoPrediction:
    """The answers about one video.

    Attributes:
        source: The file.
        status: `"ok"`, `"no_face"`, `"not_cropped"` (the model was trained on whole
            pictures; no face was looked for) or `"unreadable"`.
        reason: Why it is unreadable or ends early, in a line; else empty.
        image_size: (height, width) of its frames, in pixels.
        faces: One for each person, in the order in which they appear.
        seconds: How long it is, or how much of it could be read.
        num_frames: How many frames were looked at.
        frames_per_second: How many in a second.
    """

    source: str
    status: str
    faces: tuple[PersonPrediction, ...] = ()
    image_size: tuple[int, int] | None = None
    reason: str = ""
    seconds: float = 0.0
    num_frames: int = 0
    frames_per_second: float = 4.0

    def to_dict(self) -> dict[str, Any]:
        """Returns the prediction as plain values, ready for JSON."""
        return asdict(self)

    @property
    def found(self) -> str:
        """What was found in the video, in words."""
        if self.status == "unreadable":
            return f"unreadable: {self.reason}"
        count = len(self.faces)
        what = {
            "no_face": "no face found",
            "not_cropped": "whole pictures, as the model was trained",
        }.get(self.status, "1 person" if count == 1 else f"{count} persons")
        early = f"; {self.reason}" if self.reason else ""
        return f"{what} in {self.seconds:.1f} s{early}"

    def __str__(self) -> str:
        if self.status == "unreadable":
            return self.found
        lines = [f"{self.source}: {self.found}"]
        lines += [f"  {number}  {face}" for number, face in enumerate(self.faces, 1)]
        return "\n".join(lines)


def _answer_text(answer: str, share: str, answers: tuple[str, ...] | None) -> str:
    """Returns an answer with its probability, behind the set where there are more."""
    if answers is None or len(answers) < 2:
        return f"{answer} ({share})"
    # Age groups have no holes between the first and the last.
    between = "or" if len(answers) == 2 else "to"
    return f"{answers[0]} {between} {answers[-1]} ({answer}: {share})"


def _number(value: float) -> str:
    """Returns three digits of a number, and all of those before the point."""
    digits = ".0f" if abs(value) >= 100 else ".3g"
    return format(float(format(value, digits)) + 0.0, digits)  # no minus before 0
