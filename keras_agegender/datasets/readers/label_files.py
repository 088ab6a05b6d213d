"""Datasets with CSV files or lists of labels: one row of `LABEL_FILES` for each."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from keras_agegender.datasets.manifest import quoted
from keras_agegender.datasets.readers import csv as csv_files, file_names
from keras_agegender.datasets.readers.face_columns import (
    NO_BOX,
    FaceColumns,
    find_face_columns,
)
from keras_agegender.datasets.readers.labeled_faces import NO_LABEL, LabeledFace
from keras_agegender.labels import AGE_GROUP_PRESETS

Row = Mapping[str, str]
FAIRFACE_AGES = AGE_GROUP_PRESETS["fairface"].names
# In the order of the class ids of the copy on Hugging Face.
FAIRFACE_GENDERS = ("male", "female")
FAIRFACE_RACES = (
    "East Asian", "Indian", "Black", "White", "Middle Eastern", "Latino_Hispanic",
    "Southeast Asian",
)  # fmt: skip
UNKNOWN = ("", "-1", "none", "null", "nan", "unknown", "u")


@dataclass(frozen=True)
class LabelFile:
    """How a dataset's CSV files are recognized and one of their rows is read.

    Attributes:
        columns: Names that the first line has.
        image: Column of image files.
        face: Returns the face of (row, image file, row's position, options).
        fits: Whether the first rows are of this dataset if others have such columns.
        split_folders: Whether images are in a folder called as the file's split.
    """

    columns: tuple[str, ...]
    image: str
    face: Callable[..., LabeledFace]
    fits: Callable[[list[Row]], bool] = lambda rows: True
    split_folders: bool = False


def _years(text: str, where: str) -> float | None:
    """Returns an age, `None` if it is unknown."""
    if text.strip().lower() in UNKNOWN:
        return None
    try:
        years = float(text)
    except ValueError:
        years = math.nan
    if not math.isfinite(years):
        raise ValueError(
            f"{where}: expected an age in years. Received: {quoted(text)}."
        )
    return years


def _gender(text: str) -> str:
    return csv_files.GENDER_WORDS.get(text.strip().lower(), "")


def _class(text: str, names: tuple[str, ...]) -> str:
    """Returns a label that may be a class id, `""` if it is unknown."""
    text = text.strip().removesuffix(".0")
    if text.lower() in UNKNOWN:
        return ""
    return names[int(text)] if text.isdigit() and int(text) < len(names) else text


def _fairface(row: Row, path: Path, where: str) -> LabeledFace:
    # `service_test` says which faces commercial services were tested on.
    return LabeledFace(
        path,
        age_group=_class(row["age"], FAIRFACE_AGES),
        gender=_class(row["gender"], FAIRFACE_GENDERS).lower(),
        metadata={"race": _class(row["race"], FAIRFACE_RACES)},
    )


def _is_fairface_of_ids(rows: list[Row]) -> bool:
    """Returns whether a file has FairFace's class ids: 8 could be years elsewhere."""
    return all("service_test" in row for row in rows) and _is_fairface(rows)


def _is_fairface(rows: list[Row]) -> bool:
    """Returns whether races and ages are FairFace's, as others have these columns."""
    groups = AGE_GROUP_PRESETS["fairface"]
    races = {_class(row["race"], FAIRFACE_RACES) for row in rows}
    ages = {_class(row["age"], FAIRFACE_AGES) for row in rows} - {""}
    return races <= {*FAIRFACE_RACES, ""} and all(
        groups.from_text(age) is not None
        or groups.from_spreadsheet_date(age) is not None
        for age in ages
    )


@lru_cache
def _face_columns(names: tuple[str, ...]) -> FaceColumns:
    return find_face_columns(names)


def _lagenda(row: Row, path: Path, where: str) -> LabeledFace:
    years, gender = _years(row["age"], where), _gender(row["gender"])
    box = _face_columns(tuple(row)).read(row, where)
    problem = NO_LABEL if years is None and not gender else NO_BOX if not box else ""
    return LabeledFace(
        path,
        years=years,
        gender=gender,
        box=tuple(box.values()) if box else None,
        problem=problem,
    )


def _appa_real(
    row: Row, path: Path, where: str, age_label: str = "apparent", crops: bool = False
) -> LabeledFace:
    ages = {"apparent": row["apparent_age_avg"], "real": row["real_age"]}
    if age_label not in ages:
        raise ValueError(
            "Invalid `age_label` (--age-label). Expected 'apparent' or 'real'. "
            f"Received: {age_label!r}."
        )
    crop = path.with_name(f"{path.name}_face.jpg")
    other = "real" if age_label == "apparent" else "apparent"
    return LabeledFace(
        crop if crops or not path.exists() and crop.exists() else path,
        years=_years(ages[age_label], where),
        metadata={f"{other}_age": ages[other].strip()},
    )


def _morph(row: Row, path: Path, where: str) -> LabeledFace:
    return LabeledFace(
        path,
        years=_years(row["age"], where),
        gender=_gender(row.get("gender", "")),
        subject=row["id_num"].strip(),
        metadata={"race": row["race"].strip()} if "race" in row else {},
    )


LABEL_FILES = {
    "fairface": LabelFile(
        ("file", "age", "gender", "race"), "file", _fairface, _is_fairface
    ),
    "fairface_ids": LabelFile(
        ("image", "age", "gender", "race"), "image", _fairface, _is_fairface_of_ids
    ),
    "lagenda": LabelFile(
        ("img_name", "age", "gender", "face_x0", "person_x0"), "img_name", _lagenda
    ),
    "appa_real": LabelFile(
        ("file_name", "apparent_age_avg", "real_age"),
        "file_name",
        _appa_real,
        split_folders=True,
    ),
    "morph": LabelFile(("id_num", "picture_num", "age", "photo"), "photo", _morph),
}


def find_label_files(
    path: Path, source: str, *, named: bool = False
) -> list[tuple[Path, LabelFile]]:
    """Returns the CSV files of a dataset: the path, or those in or just below it.

    If the user named the dataset, columns alone decide.
    """
    files = _csv_files(path) if path.is_dir() else [path]
    found = []
    for file in files:
        names, rows = _first_rows(file)
        for name in (source, f"{source}_ids"):
            layout = LABEL_FILES.get(name)
            if layout is None or not set(layout.columns) <= set(names):
                continue
            if named or layout.fits(rows):
                found.append((file, layout))
                break
    return found


def _csv_files(folder: Path, depth: int = 1) -> list[Path]:
    """Returns the CSV files in a folder and just below it."""
    files, folders = [], []
    with os.scandir(folder) as entries:  # fast in folders of many images
        for entry in entries:
            if entry.name.lower().endswith(".csv"):
                files.append(Path(entry.path))
            elif depth and entry.is_dir():
                folders.append(Path(entry.path))
    below = [f for sub in sorted(folders)[:50] for f in _csv_files(sub, depth - 1)]
    return sorted(files) + below


def _first_rows(file: Path, count: int = 100) -> tuple[list[str], list[Row]]:
    """Returns columns and first rows of a CSV file, nothing of any other file."""
    try:
        with file.open("rb") as lines:
            start = [line for _, line in zip(range(count), lines, strict=False)]
        names, rows = csv_files.parse_rows(file, b"".join(start))
    except (OSError, ValueError):
        return [], []
    return names, [row for _, row in rows]


def read_label_files(
    path: str | Path,
    source: str,
    *,
    images_dir: str | Path | None = None,
    **options: object,
) -> Iterator[LabeledFace]:
    """Yields the faces of a dataset's CSV files, of one of them or of a folder's."""
    path = Path(path)
    if not path.exists():
        raise ValueError(f"File or folder not found: {path}.")
    files = find_label_files(path, source, named=True)
    if not files:
        columns = ", ".join(LABEL_FILES[source].columns)
        raise ValueError(
            f"{path}: expected a CSV file of {source}, or a folder with one, with the "
            f"columns {columns}. Found none."
        )
    for file, layout in files:
        split = _split_of(file)
        _, rows = csv_files.read_rows(file)
        images = [row[layout.image].strip().replace("\\", "/") for _, row in rows]
        if layout.split_folders and split:
            folder = "valid" if split == "validation" else split
            images = [f"{folder}/{image}" for image in images]
        base = find_images(Path(images_dir or file.parent), images)
        for (line, row), image in zip(rows, images, strict=True):
            face = layout.face(row, base / image, f"{file}, line {line}", **options)
            if len(files) > 1:
                face = _with_split(face, split, file)
            yield face


def _with_split(face: LabeledFace, split: str, file: Path) -> LabeledFace:
    if not split:
        raise ValueError(
            f"{file}: expected train, valid or test in the name of each of several "
            "label files. Read this one by itself."
        )
    return replace(face, split=split)


def _split_of(file: Path) -> str:
    """Returns the split that a label file is called after, or `""`."""
    splits = csv_files.SPLIT_WORDS
    words = re.split(r"[\W_]", file.stem.lower())
    named = [splits[word] for word in words if word in splits]
    return named[-1] if named else ""


def find_images(base: Path, images: list[str], sample: int = 20) -> Path:
    """Returns the folder, `base` or one just below it, that has the listed images."""
    if not base.is_dir():
        raise ValueError(f"There is no folder {base} of images (--images).")
    some = images[:: max(1, len(images) // sample)]
    folders = [base, *sorted(p for p in base.iterdir() if p.is_dir())]
    counts = {
        folder: sum(
            os.path.exists(folder / image)
            or os.path.exists(folder / f"{image}_face.jpg")
            for image in some
        )
        for folder in folders
    }
    best = max(folders, key=counts.__getitem__)
    equal = [str(f) for f in folders if counts[f] == counts[best] > 0]
    if len(equal) > 1 and best != base:
        raise ValueError(
            f"The images are in several folders: {', '.join(equal)}. Name one with "
            "`images_dir` (--images)."
        )
    return best


NAME_LISTS = {"male": "male_names.txt", "female": "female_names.txt"}
IN_BOTH, IN_NEITHER = "in both lists of names", "in neither list of names"


def read_lfw(directory: str | Path) -> Iterator[LabeledFace]:
    """Yields LFW's images, with genders from its lists of male and female names."""
    directory = Path(directory)
    listed = {}
    for gender, name in NAME_LISTS.items():
        file = directory / name
        if not file.is_file():
            raise ValueError(f"There is no {file}, LFW's list of {gender} names.")
        lines = file.read_text("utf-8-sig").splitlines()
        listed[gender] = {line.strip().removesuffix(".jpg") for line in lines} - {""}
    for file in sorted(directory.rglob("*.jpg")):
        person = re.sub(r"_\d{4}$", "", file.stem)
        genders = [g for g, names in listed.items() if {file.stem, person} & names]
        problem = "" if len(genders) == 1 else IN_BOTH if genders else IN_NEITHER
        gender = "" if problem else genders[0]
        yield LabeledFace(file, gender=gender, subject=person, problem=problem)


def is_lfw(path: Path) -> bool:
    """Returns whether a folder has LFW's two lists of names."""
    return all((path / name).is_file() for name in NAME_LISTS.values())


def read_morph(
    path: str | Path, *, images_dir: str | Path | None = None
) -> Iterator[LabeledFace]:
    """Yields MORPH's faces from its CSV file, without one from the file names."""
    if find_label_files(Path(path), "morph"):
        return read_label_files(path, "morph", images_dir=images_dir)
    return file_names.read_file_names(path, "morph")


def is_morph(path: Path) -> bool:
    """Returns whether a path is MORPH's CSV file, or a folder of its images."""
    return bool(find_label_files(path, "morph")) or file_names.has_file_names(
        path, "morph"
    )
