"""Predictions as values, text, tables and files."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from keras_agegender.encodings.encoding import Encoding
from keras_agegender.encodings.head import ANSWER
from keras_agegender.encodings.head_types import HEAD_TYPES
from keras_agegender.encodings.of_age import AgeCheck, at_least_probability
from keras_agegender.files import atomic_write

if TYPE_CHECKING:
    from keras_agegender.serving.pipeline import Source

# Field of `Decoded` -> name of the exported output.
DECODED_NAMES = {
    "age_group": "age_group",
    "age_probabilities": "age_group_probabilities",
    "heads_agree": "heads_agree",
    "gender": "gender_id",
    "gender_probability": "male_probability",
    "age_years": "age_years",
    "median_age_group": "median_age_group",
}
# The same for `PredictionSets`: bool masks, a column for each age group or gender.
SET_NAMES = {"age_group": "age_group_set", "gender": "gender_set"}

MAX_LISTED_OUTPUTS = 6


@dataclass(frozen=True)
class FacePrediction:
    """The predictions for one face.

    A field is `None` if the model has no such output.

    Attributes:
        box: Detected face, `bbox_xyxy` in pixels of the upright photo. If a face is
            cut off, its box may extend beyond the edge of the photo.
        crop_box: The part that the model saw, `bbox_xyxy`.
        score: Confidence of the detector in [0, 1]; 0 for a whole image.
        age_group: Name of the age group, `"25-32"` for instance.
        age_probabilities: Age group -> probability; they sum to 1.
        age_years: Expected age in years; for a model of age groups, the expectation of
            their centers.
        gender: `"female"` or `"male"`.
        male_probability: Probability of male; female has the rest.
        heads_agree: Whether the age outputs are consistent with each other.
        heads: Output -> its value: one number, or one for each class.
        extra: Outputs other than age and gender: a number for regression, the
            probability of the second class (yes) for binary outputs, or the most
            probable class.
        age_set: Prediction set of a calibrated model: neighboring age groups that
            contain the true one for 90 % of the faces, or the share that `calibrate`
            was given. `None` without calibration.
        gender_set: Prediction set of gender: one class, or both.
        binary: Binary output of `extra` -> predicted class, `"yes"` or `"no"` if the
            classes have no names.
        of_age: Result of the predictor's `age_check`: the required `age` and
            `threshold`, `probability` of an age of at least `age`, `None` if the model
            does not distinguish it, and whether the face `passes`.
        age_interval: Youngest and oldest year of the central 80 % of the predicted
            distribution of years. `None` for a model of age groups.
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
    of_age: dict[str, Any] | None = None
    age_interval: tuple[int, int] | None = None

    @property
    def age_confidence(self) -> float | None:
        """Probability of the predicted age group."""
        if self.age_group is None or self.age_probabilities is None:
            return None
        return self.age_probabilities[self.age_group]

    @property
    def gender_confidence(self) -> float | None:
        """Probability of the predicted gender."""
        if self.male_probability is None:
            return None
        male = self.male_probability
        return male if self.gender == "male" else 1 - male

    def to_dict(self) -> dict[str, Any]:
        """Returns the predictions as plain values, ready for JSON."""
        return _without_check(asdict(self))

    @property
    def words(self) -> tuple[str, ...]:
        """The predictions as text, as they are printed and drawn.

        The age is in years if the model predicts years, otherwise the age group. Lists
        the first six outputs other than age and gender, and counts the rest.
        """
        parts = []
        if self.age_interval is not None:
            youngest, oldest = self.age_interval
            parts.append(f"{self.age_years:.0f} ({youngest}–{oldest})")
        elif self.age_group is not None:
            doubt = "" if self.heads_agree else ", age outputs disagree"
            share = f"{self.age_confidence:.0%}{doubt}"
            parts.append(_class_text(self.age_group, share, self.age_set))
        if self.gender is not None:
            share = f"{self.gender_confidence:.0%}"
            if len(self.gender_set or ()) > 1:
                parts.append(_class_text(self.gender, share, self.gender_set))
            else:
                parts.append(f"{self.gender} {share[:-1]} %")
        if self.of_age is not None:
            parts.append(self._check_text(self.of_age))
        names = list(self.extra)
        parts += [self._extra_text(name) for name in names[:MAX_LISTED_OUTPUTS]]
        if len(names) > MAX_LISTED_OUTPUTS:
            parts.append(f"… and {len(names) - MAX_LISTED_OUTPUTS} more outputs")
        return tuple(parts)

    def __str__(self) -> str:
        corners = " ".join(f"{x:.0f}" for x in self.box)
        return f"{'  '.join(self.words)}  [{corners}]"

    def _check_text(self, found: Mapping[str, Any]) -> str:
        """Returns `"refused at 25 (looks 23), 18 or older 93%"`."""
        verdict = "passes" if found["passes"] else "refused at"
        text = f"{verdict} {found['threshold']:g} (looks {self.age_years:.0f})"
        if found["probability"] is None:
            return text
        return f"{text}, {found['age']} or older {found['probability']:.0%}"

    def _extra_text(self, name: str) -> str:
        value = self.extra[name]
        if isinstance(value, str):
            return f"{name} {value}"
        if name in self.binary:
            return f"{name} {self.binary[name]} ({max(value, 1 - value):.0%})"
        return f"{name} {_number(value)}"


def with_groups(prediction: Any) -> Any:
    """Returns a prediction whose text has age groups instead of years."""
    faces = tuple(replace(face, age_interval=None) for face in prediction.faces)
    return replace(prediction, faces=faces)


def _without_check(face: dict[str, Any]) -> dict[str, Any]:
    """Returns a face's values without `of_age` if there was no age check."""
    return {k: v for k, v in face.items() if k != "of_age" or v is not None}


class _Printed:
    """What the predictions for photos and videos share."""

    def to_dict(self: Any) -> dict[str, Any]:
        """Returns the prediction as plain values, ready for JSON."""
        found = asdict(self)
        if not found.get("rotation"):
            found.pop("rotation", None)
        return {**found, "faces": tuple(map(_without_check, found["faces"]))}

    def __str__(self: Any) -> str:
        if self.status == "unreadable":
            return str(self.found)
        lines = [f"{self.source}: {self.found}"]
        lines += [f"  {number}  {face}" for number, face in enumerate(self.faces, 1)]
        return "\n".join(lines)


@dataclass(frozen=True)
class PhotoPrediction(_Printed):
    """The predictions for one photo.

    Attributes:
        source: The file, or `"image"`.
        status: `"ok"`, `"no_face"`, `"whole_image"` (no face found; the whole image was
            used), `"not_cropped"` (the model was trained on whole images; no face was
            searched for) or `"unreadable"`.
        reason: Why it is unreadable, in one line; else empty.
        image_size: (height, width) of the upright photo, in pixels.
        faces: One for each face, from left to right.
        rotation: Degrees, counter-clockwise, by which the photo was rotated before its
            faces were cropped; 0 without `try_rotations`. In `to_dict` if not 0.
    """

    source: str
    status: str
    faces: tuple[FacePrediction, ...] = ()
    image_size: tuple[int, int] | None = None
    reason: str = ""
    rotation: int = 0

    @property
    def found(self) -> str:
        """What was found in the photo, as text."""
        count = len(self.faces)
        faces = "1 face" if count == 1 else f"{count} faces"
        if self.rotation:
            faces += f", photo rotated by {self.rotation} degrees"
        return {
            "unreadable": f"unreadable: {self.reason}",
            "no_face": "no face found",
            "whole_image": "no face found; the whole image",
            "not_cropped": "the whole image, as the model was trained",
        }.get(self.status, faces)


NEARLY_ALL = 0.6  # share of an image


def is_nearly_all_face(prediction: Any) -> bool:
    """Returns whether one face box covers nearly all of a photo: a tight crop."""
    if prediction.status != "ok" or len(prediction.faces) != 1:
        return False
    height, width = prediction.image_size
    left, top, right, bottom = prediction.faces[0].box
    sides = min(right, width) - max(left, 0), min(bottom, height) - max(top, 0)
    return sides[0] * sides[1] >= NEARLY_ALL * width * height


@dataclass(frozen=True)
class PersonPrediction(FacePrediction):
    """The predictions for one person of a video: means over the frames with the face.

    Attributes:
        box: Face in the frame with the highest score, `bbox_xyxy` in pixels.
        crop_box: The part of that frame that the model saw, `bbox_xyxy`.
        score: Confidence of the detector there, in [0, 1].
        age_group: The most probable age group by the means.
        age_probabilities: Age group -> mean probability.
        age_years: Mean of the expected ages, in years.
        gender: `"female"` or `"male"`, by the mean.
        male_probability: Mean probability of male.
        heads_agree: Whether the age outputs are consistent in half of the frames.
        heads: Output -> mean of its values.
        extra: Outputs other than age and gender, by the means.
        age_set: Prediction set of the means, of a calibrated model.
        gender_set: The same for gender.
        binary: Binary output of `extra` -> predicted class.
        of_age: Result of the age check, by the means.
        age_interval: Interval of the mean distribution of years.
        first_second: When the person was first seen.
        last_second: When the person was last seen.
        best_second: Time of the frame that `box` refers to.
        num_frames: Number of frames with the person.
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
class VideoPrediction(_Printed):
    """The predictions for one video.

    Attributes:
        source: The file.
        status: `"ok"`, `"no_face"`, `"not_cropped"` (the model was trained on whole
            images; no face was searched for) or `"unreadable"`.
        reason: Why it is unreadable or ends early, in one line; else empty.
        image_size: (height, width) of its frames, in pixels.
        faces: One for each person, in order of appearance.
        seconds: Its length, or how much of it could be read.
        num_frames: Number of frames that were used.
        frames_per_second: Frames used in each second.
    """

    source: str
    status: str
    faces: tuple[PersonPrediction, ...] = ()
    image_size: tuple[int, int] | None = None
    reason: str = ""
    seconds: float = 0.0
    num_frames: int = 0
    frames_per_second: float = 4.0

    @property
    def found(self) -> str:
        """What was found in the video, as text."""
        if self.status == "unreadable":
            return f"unreadable: {self.reason}"
        count = len(self.faces)
        what = {
            "no_face": "no face found",
            "not_cropped": "whole images, as the model was trained",
        }.get(self.status, "1 person" if count == 1 else f"{count} persons")
        early = f"; {self.reason}" if self.reason else ""
        return f"{what} in {self.seconds:.1f} s{early}"


def _class_text(name: str, share: str, members: tuple[str, ...] | None) -> str:
    """Returns a class with its probability and its prediction set of several."""
    if members is None or len(members) < 2:
        return f"{name} ({share})"
    # The age groups of a set are neighbors.
    between = "or" if len(members) == 2 else "to"
    return f"{members[0]} {between} {members[-1]} ({name}: {share})"


def _number(value: float) -> str:
    """Returns a number with three significant digits, or as an integer from 100 on."""
    digits = ".0f" if abs(value) >= 100 else ".3g"
    return format(float(format(value, digits)) + 0.0, digits)  # no minus before 0


# -- from outputs to fields ------------------------------------------------------------


def face_fields(
    metadata: Mapping[str, Any], outputs: Mapping[str, np.ndarray]
) -> dict[str, Any]:
    """Returns the fields of a `FacePrediction` that come from a model."""
    groups, genders = metadata["age_groups"], metadata["genders"]
    age, gender = outputs.get("age_group"), outputs.get("gender_id")
    probabilities = outputs.get("age_group_probabilities")
    agree, years = outputs.get("heads_agree"), outputs.get("age_years")
    heads = {name: _plain(outputs[name]) for name in metadata["outputs"]}
    extra: dict[str, Any] = {}
    binary: dict[str, str] = {}
    for head in metadata["extra_heads"]:
        name, classes = head["name"], head["classes"]
        value = outputs[f"{name}{ANSWER}"]
        if HEAD_TYPES[head["kind"]].binary:
            extra[name], binary[name] = heads[name], classes[int(value)]
        else:
            extra[name] = classes[int(value)] if classes else _rounded(value)
    return {
        "age_group": None if age is None else groups[int(age)],
        "age_probabilities": None
        if probabilities is None
        else {n: _rounded(p) for n, p in zip(groups, probabilities, strict=True)},
        "age_years": None if years is None else round(float(years), 1),
        "gender": None if gender is None else genders[int(gender)],
        "male_probability": None
        if gender is None
        else _rounded(outputs["male_probability"]),
        "heads_agree": None if agree is None else bool(agree),
        "heads": heads,
        "extra": extra,
        "binary": binary,
        "age_set": _members(groups, outputs.get("age_group_set")),
        "gender_set": _members(genders, outputs.get("gender_set")),
        **({"of_age": _of_age(metadata, outputs)} if "age_check" in metadata else {}),
        "age_interval": _age_interval(metadata, outputs),
    }


# Share of the distribution of years in `age_interval`. On UTKFace's test faces, 84 % of
# the true ages are inside the intervals of utkface-compact.
INTERVAL = 0.8


def _age_interval(
    metadata: Mapping[str, Any], outputs: Mapping[str, np.ndarray]
) -> tuple[int, int] | None:
    """Returns the years between which the middle of the distribution lies."""
    for head in metadata.get("encoding", {}).get("heads", ()):
        if HEAD_TYPES[head["kind"]].in_years:
            below = np.cumsum(np.ravel(outputs[head["name"]]).astype("float64"))
            below /= below[-1]
            tail = (1 - INTERVAL) / 2
            low, high = np.searchsorted(below, (tail, 1 - tail), side="right")
            return int(low), int(min(high, len(below) - 1))
    return None


def _of_age(
    metadata: Mapping[str, Any], outputs: Mapping[str, np.ndarray]
) -> dict[str, Any] | None:
    """Returns the result of the age check in a predictor's metadata, if any."""
    if "age_check" not in metadata:
        return None
    check = AgeCheck(**metadata["age_check"])
    chances = outputs.get("age_group_probabilities")
    encoding = Encoding.from_dict(metadata["encoding"])
    probability = at_least_probability(encoding, outputs, check.age, chances)
    return {
        "age": check.age,
        "threshold": check.required,
        "probability": None if probability is None else _rounded(probability),
        "passes": bool(check.passes(float(outputs["age_years"]))),
    }


def without_auxiliary(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a model's metadata without its auxiliary outputs."""
    hidden = metadata.get("auxiliary_outputs") or ()
    heads = [h for h in metadata["extra_heads"] if h["name"] not in hidden]
    outputs = [name for name in metadata["outputs"] if name not in hidden]
    return {**metadata, "extra_heads": heads, "outputs": outputs}


def place_fields(box: np.ndarray, crop_box: np.ndarray, score: float) -> dict[str, Any]:
    """Returns the fields of a `FacePrediction` for the position of the face."""
    return {
        "box": tuple(round(float(x), 1) for x in box),
        "crop_box": tuple(round(float(x), 1) for x in crop_box),
        "score": round(float(score), 4),
    }


def _members(names: Sequence[str], mask: np.ndarray | None) -> tuple[str, ...] | None:
    if mask is None:
        return None
    return tuple(name for name, member in zip(names, mask, strict=True) if member)


def _plain(values: np.ndarray) -> float | list[float]:
    numbers = [_rounded(value) for value in np.ravel(values)]
    return numbers[0] if len(numbers) == 1 else numbers


def _rounded(value: Any) -> float:
    return round(float(value), 6)


# -- tables and files ------------------------------------------------------------------

BOX = ("left", "top", "right", "bottom")
INTERVAL_FIELDS = ("age_low", "age_high")
# Fields of persons in videos; empty for photos.
VIDEO_FIELDS = ("first_second", "last_second", "num_frames")
# Columns of an age check -> key of `of_age`.
_CHECK_COLUMNS = {"of_age_probability": "probability", "of_age_passes": "passes"}
# Column widths of the printed table, in characters.
FILE_WIDTH, FACE_WIDTH, TEXT_WIDTH = 40, 4, 14
# Suffix of an output file -> its format.
OUTPUT_FORMATS = {".json": "json", ".jsonl": "json", ".ndjson": "json", ".csv": "csv"}


def json_line(prediction: Mapping[str, Any]) -> str:
    """Returns the result of `to_dict` as one line of a JSON Lines file.

    It is ASCII, with escapes, if the file's name is not valid text, as Linux allows.
    """
    line = json.dumps(prediction, ensure_ascii=False)
    try:
        line.encode()
    except UnicodeEncodeError:
        return json.dumps(prediction)
    return line


def csv_columns(metadata: Mapping[str, Any]) -> list[str]:
    """Returns the columns of a model's CSV rows; they do not depend on the photos."""
    extra = [head["name"] for head in metadata["extra_heads"]]
    return [
        "source", "status", "reason", "face", *BOX, "score",
        "age_group", "age_years", *INTERVAL_FIELDS, "age_set", "gender",
        "male_probability", "gender_set", "heads_agree", *extra,
        *(_CHECK_COLUMNS if "age_check" in metadata else ()), *VIDEO_FIELDS,
        *(f"probability_{name}" for name in metadata["age_groups"]),
    ]  # fmt: skip


def csv_rows(prediction: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yields a row for each face or person; without any, one row with the status."""
    first = {name: prediction[name] for name in ("source", "status", "reason")}
    if not prediction["faces"]:
        yield first
    for number, face in enumerate(prediction["faces"], 1):
        names = ("score", "age_group", "age_years", "gender", "male_probability",
                 "heads_agree", *VIDEO_FIELDS)  # fmt: skip
        probabilities = face["age_probabilities"] or {}
        checked = face.get("of_age")
        yield {
            **first,
            "face": number,
            **dict(zip(BOX, face["box"], strict=True)),
            **{name: face.get(name) for name in names},
            **dict(zip(INTERVAL_FIELDS, face["age_interval"] or (), strict=False)),
            **{name: " ".join(face[name] or ()) for name in ("age_set", "gender_set")},
            **face["extra"],
            **face["binary"],
            **{c: checked[k] for c, k in _CHECK_COLUMNS.items() if checked},
            **{f"probability_{name}": p for name, p in probabilities.items()},
        }


def table_heading() -> str:
    """Returns the first line of the printed table."""
    return _line("file", "face", ("predictions",), "box or seconds")


def table_lines(prediction: PhotoPrediction | VideoPrediction) -> Iterator[str]:
    """Yields a line for each face or person; or one line with the status."""
    if not prediction.faces:
        found = prediction.found.replace(f"{prediction.source}: ", "")
        yield _line(prediction.source, "-", (found,), "")
    for number, face in enumerate(prediction.faces, 1):
        place = str(face).rpartition("[")[2].removesuffix("]")
        yield _line(prediction.source, str(number), face.words, place)


def _line(file: str, number: str, texts: tuple[str, ...], place: str) -> str:
    # The end of a path says more than its beginning.
    name = file if len(file) <= FILE_WIDTH else f"…{file[1 - FILE_WIDTH :]}"
    columns = [name.ljust(FILE_WIDTH), number.ljust(FACE_WIDTH)]
    columns += [text.ljust(TEXT_WIDTH) for text in texts]
    return "  ".join([*columns, place]).rstrip()


class PredictionFile:
    """Writes predictions to a file that can be resumed: in a `with` block, to `finish`.

    `request` is what determines the predictions besides the sources. `say` gets the
    reason if a partial file cannot be continued; `num_done` sources are finished.
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
        done: list[int] = []
        self._stream: BinaryIO
        if self.partial.is_file():
            if reason := self._difference(header, sources):
                say(f"{self.partial} {reason}: starting over")
            else:
                done = [len(line) for line in _whole_lines(self.partial)]
        size, self.num_done = len(header) + sum(done), len(done)
        if self.num_done:
            self._stream = self.partial.open("r+b")
            self._stream.truncate(size)  # a line may be cut off in the middle
            self._stream.seek(size)
        else:
            self._stream = self.partial.open("wb")
            self._stream.write(header)
            self._stream.flush()

    def __enter__(self) -> PredictionFile:
        return self

    def __exit__(self, *error: object) -> None:
        self._stream.close()

    def add(self, prediction: Mapping[str, Any]) -> None:
        """Adds the prediction for the next source, as returned by `to_dict`."""
        self._stream.write(f"{json_line(prediction)}\n".encode())
        self._stream.flush()  # an interruption loses no finished prediction

    def finish(self, format: str, metadata: Mapping[str, Any]) -> None:
        """Writes the file and removes the partial one."""
        self._stream.close()
        with (
            atomic_write(self._file) as new,
            new.open(
                "w",
                encoding="utf-8",
                errors="backslashreplace",  # names that are not valid text
                newline="" if format == "csv" else "\n",
            ) as stream,
        ):
            if format == "json":
                stream.writelines(x.decode() for x in _whole_lines(self.partial))
            else:
                writer = csv.DictWriter(stream, csv_columns(metadata))
                writer.writeheader()
                for prediction in self.predictions():
                    writer.writerows(csv_rows(prediction))
        self.partial.unlink()

    def predictions(self) -> Iterator[dict[str, Any]]:
        """Yields the predictions added by this call and by interrupted ones."""
        for line in _whole_lines(self.partial):
            yield json.loads(line)

    def _difference(self, header: bytes, sources: Sequence[Source]) -> str:
        """Returns why the partial file cannot be continued; empty if it can."""
        with self.partial.open("rb") as stream:
            if stream.readline() != header:
                return "was written with another model or other options"
        started = self.partial.stat().st_mtime
        for number, line in enumerate(_whole_lines(self.partial)):
            name = json.loads(line)["source"]
            if number >= len(sources) or sources[number].name != name:
                return f"lists other files, or another order, from {name} on"
            file = Path(name)
            if file.is_file() and file.stat().st_mtime > started:
                return f"is older than {name}"
        return ""


def _whole_lines(partial: Path) -> Iterator[bytes]:
    """Yields the complete lines after the first."""
    with partial.open("rb") as stream:
        stream.readline()
        for line in stream:
            if not line.endswith(b"\n"):
                return
            yield line
