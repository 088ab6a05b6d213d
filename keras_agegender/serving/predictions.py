"""Predictions as values, tables and files."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from keras_agegender.files import atomic_write
from keras_agegender.serving.pipeline import Source

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


BOX = ("left", "top", "right", "bottom")
# Of people in videos; empty of photos.
VIDEO_FIELDS = ("first_second", "last_second", "num_frames")
# Width of the columns of the printed table, in letters.
FILE_WIDTH, FACE_WIDTH, ANSWER_WIDTH = 40, 4, 14


def json_line(prediction: Mapping[str, Any]) -> str:
    """Returns what `to_dict` gave as one line of a JSON Lines file.

    It is ASCII, with escapes, if the file's name is no text, as Linux allows them.
    """
    line = json.dumps(prediction, ensure_ascii=False)
    try:
        line.encode()
    except UnicodeEncodeError:
        return json.dumps(prediction)
    return line


def csv_columns(metadata: Mapping[str, Any]) -> list[str]:
    """Returns the columns of a model's CSV rows; they do not depend on the photos.

    Args:
        metadata: What the model's agegender.json says.
    """
    extra = [head["name"] for head in metadata["extra_heads"]]
    return [
        "source", "status", "reason", "face", *BOX, "score",
        "age_group", "age_years", "age_set", "gender", "male_probability",
        "gender_set", "heads_agree", *extra, *VIDEO_FIELDS,
        *(_probability_column(name) for name in metadata["age_groups"]),
    ]  # fmt: skip


def csv_rows(prediction: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yields a row for each face or person; one with the status where there is none.

    Args:
        prediction: What `to_dict` gave.
    """
    first = {name: prediction[name] for name in ("source", "status", "reason")}
    if not prediction["faces"]:
        yield first
    for number, face in enumerate(prediction["faces"], 1):
        names = ("score", "age_group", "age_years", "gender", "male_probability",
                 "heads_agree", *VIDEO_FIELDS)  # fmt: skip
        probabilities = face["age_probabilities"] or {}
        yield {
            **first,
            "face": number,
            **dict(zip(BOX, face["box"], strict=True)),
            **{name: face.get(name) for name in names},
            **{name: " ".join(face[name] or ()) for name in ("age_set", "gender_set")},
            **face["extra"],
            **face["binary"],
            **{_probability_column(n): p for n, p in probabilities.items()},
        }


def table_heading() -> str:
    """Returns the first line of the printed table."""
    return _line("file", "face", ("answers",), "box or seconds")


def table_lines(prediction: PhotoPrediction | VideoPrediction) -> Iterator[str]:
    """Yields a line for each face or person, or one that says what was found."""
    if not prediction.faces:
        found = prediction.found.replace(f"{prediction.source}: ", "")
        yield _line(prediction.source, "-", (found,), "")
    for number, face in enumerate(prediction.faces, 1):
        place = str(face).rpartition("[")[2].removesuffix("]")
        yield _line(prediction.source, str(number), face.words, place)


def _line(file: str, number: str, answers: tuple[str, ...], place: str) -> str:
    # The end of a path says more than its beginning.
    name = file if len(file) <= FILE_WIDTH else f"…{file[1 - FILE_WIDTH :]}"
    columns = [name.ljust(FILE_WIDTH), number.ljust(FACE_WIDTH)]
    columns += [answer.ljust(ANSWER_WIDTH) for answer in answers]
    return "  ".join([*columns, place]).rstrip()


def _probability_column(age_group: str) -> str:
    return f"probability_{age_group}"


ENDINGS = {".json": "json", ".jsonl": "json", ".ndjson": "json", ".csv": "csv"}


class AnswerFile:
    """Collects the predictions of sources, in their order.

    Used in a `with` block; `finish` makes the file.

    Args:
        file: What to make.
        sources: All photos and videos.
        request: What else determines the predictions, as plain values.
        say: Is told in a line why an interrupted file is begun anew.

    Attributes:
        num_done: How many sources an interrupted call has answered about.
    """

    def __init__(
        self,
        file: Path,
        sources: Sequence[Source],
        request: Mapping[str, Any],
        say: Callable[[str], None],
    ) -> None:
        self._file = file
        self.partial = file.with_name(f"{file.name}.partial")
        header = f"{json.dumps({'request': request}, sort_keys=True)}\n".encode()
        size, self.num_done = len(header), 0
        self._stream: BinaryIO
        if self.partial.is_file():
            reason = self._difference(header, sources)
            if reason:
                say(f"{self.partial} {reason}: all is predicted anew")
            else:
                for line in _whole_lines(self.partial):
                    size += len(line)
                    self.num_done += 1
        if self.num_done:
            self._stream = self.partial.open("r+b")
            self._stream.truncate(size)  # a line may be cut off in the middle
            self._stream.seek(size)
        else:
            self._stream = self.partial.open("wb")
            self._stream.write(header)
            self._stream.flush()

    def __enter__(self) -> AnswerFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stream.close()

    def add(self, prediction: Mapping[str, Any]) -> None:
        """Adds the prediction of the next source, as `to_dict` gave it."""
        self._stream.write(f"{json_line(prediction)}\n".encode())
        self._stream.flush()  # an interruption loses no finished answer

    def finish(self, form: str, metadata: Mapping[str, Any]) -> None:
        """Makes the file and removes the partial one.

        Args:
            form: `"json"`, a line for each source, or `"csv"`, a row for each face.
            metadata: What the model's agegender.json says.
        """
        self._stream.close()
        with (
            atomic_write(self._file) as new,
            new.open(
                "w",
                encoding="utf-8",
                errors="backslashreplace",  # names that are no text
                newline="" if form == "csv" else "\n",
            ) as stream,
        ):
            if form == "json":
                stream.writelines(x.decode() for x in _whole_lines(self.partial))
            else:
                writer = csv.DictWriter(stream, csv_columns(metadata))
                writer.writeheader()
                for prediction in self.predictions():
                    writer.writerows(csv_rows(prediction))
        self.partial.unlink()

    def predictions(self) -> Iterator[dict[str, Any]]:
        """Yields what was added, by this call and those before."""
        for line in _whole_lines(self.partial):
            yield json.loads(line)

    def _difference(self, header: bytes, sources: Sequence[Source]) -> str:
        """Returns why the partial file cannot be gone on with; else nothing."""
        with self.partial.open("rb") as stream:
            if stream.readline() != header:
                return "is of another model or other options"
        begun = self.partial.stat().st_mtime
        for number, line in enumerate(_whole_lines(self.partial)):
            name = json.loads(line)["source"]
            if number >= len(sources) or sources[number].name != name:
                return f"has other files, or in another order, from {name} on"
            file = Path(name)
            if file.is_file() and file.stat().st_mtime > begun:
                return f"is older than {name}"
        return ""


def form_of(file: Path) -> str | None:
    """Returns in which form a file of that name is written; `None` if unknown."""
    return ENDINGS.get(file.suffix.lower())


def _whole_lines(partial: Path) -> Iterator[bytes]:
    """Yields the lines behind the first; the last is whole or left out."""
    with partial.open("rb") as stream:
        stream.readline()
        for line in stream:
            if not line.endswith(b"\n"):
                return
            yield line
