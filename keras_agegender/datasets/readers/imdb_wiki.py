"""IMDB-WIKI: a MATLAB file of dates of birth and years of photos."""

from __future__ import annotations

import contextlib
import datetime
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from keras_agegender.datasets.readers.labeled_faces import LabeledFace
from keras_agegender.faces.images import open_image
from keras_agegender.labels import GENDERS

FILES = ("imdb.mat", "wiki.mat")
# Day 1 of MATLAB is in the year 0, that of Python in the year 1, a leap year later.
MATLAB_TO_PYTHON = 366
NO_FACE, SEVERAL_FACES = "no face found by the authors", "several faces in the image"
NO_DATE = "no date of birth"


def find_mat_files(path: Path) -> list[Path]:
    """Returns imdb.mat and wiki.mat: the path, or those in or just below a folder."""
    if path.is_file():
        return [path] if path.name in FILES else []
    return sorted(
        f for name in FILES for p in (name, f"*/{name}") for f in path.glob(p)
    )


def read_imdb_wiki(
    path: str | Path, *, several_faces: bool = False
) -> Iterator[LabeledFace]:
    """Yields the faces of imdb.mat and wiki.mat, of whole images or of crops.

    An age is that in the middle of the photo's year, as the authors compute it.
    """
    files = find_mat_files(Path(path))
    if not files:
        raise ValueError(f"{path}: expected {' or '.join(FILES)}. Found neither.")
    for file in files:
        table = _read_mat(file)
        has_crops = _has_crops(file.parent, table)
        for number in range(len(table["full_path"])):
            row = {name: column[number] for name, column in table.items()}
            yield _face(file, row, has_crops, several_faces)


def _face(
    file: Path, row: dict[str, Any], has_crops: bool, several_faces: bool
) -> LabeledFace:
    years = age_in_years(row["dob"], row["photo_taken"])
    gender = float(row["gender"])
    problem = NO_DATE if years is None else ""
    if not math.isfinite(row["face_score"]):
        problem = NO_FACE
    elif not several_faces and not math.isnan(row["second_face_score"]):
        problem = problem or SEVERAL_FACES
    who = f"{row['name']} {row['dob']}" if str(row["name"]) else ""
    return LabeledFace(
        file.parent / str(row["full_path"]),
        years=years,
        gender="" if math.isnan(gender) else GENDERS[int(gender)],
        subject=who,
        box=None if has_crops or problem else _box(row),
        problem=problem,
    )


def age_in_years(day_of_birth: float, year_of_photo: float) -> float | None:
    """Returns the age on July 1 of a year, `None` for days before the year 1.

    Example:
    >>> age_in_years(723671, 2009)  # born on 1981-05-05
    28
    """
    day = int(day_of_birth) - MATLAB_TO_PYTHON
    if not 1 <= day <= datetime.date.max.toordinal():
        return None
    born = datetime.date.fromordinal(day)
    return int(year_of_photo) - born.year - ((born.month, born.day) > (7, 1))


def _box(row: dict[str, Any]) -> list[float]:
    """Returns the box with MATLAB's pixel 1 as 0, up to the end of its last pixel."""
    left, top, right, bottom = (float(v) for v in np.ravel(row["face_location"]))
    return [left - 1, top - 1, right, bottom]


def _has_crops(folder: Path, table: dict[str, Any], count: int = 20) -> bool:
    """Returns whether images are the published crops: boxes do not fit into them."""
    outside, read = 0, 0
    for number, name in enumerate(table["full_path"]):
        file = folder / str(name)
        if read == count:
            break
        if not math.isfinite(table["face_score"][number]):
            continue
        # `prepare` counts what it cannot read.
        with contextlib.suppress(OSError, ValueError):
            with open_image(file.read_bytes()) as image:
                width, height = image.size
            right, bottom = np.ravel(table["face_location"][number])[2:]
            read += 1
            outside += right > width + 1 or bottom > height + 1
    return 4 * outside > read  # a crop of a face at the upper left may fit


def _read_mat(file: Path) -> dict[str, Any]:
    """Returns the columns of a MATLAB file by name."""
    try:
        from scipy.io import loadmat
        from scipy.io.matlab import MatReadError
    except ImportError as error:
        raise ImportError(
            f"{file} needs the package scipy. Install it with `pip install "
            "'keras-agegender[train]'`."
        ) from error
    try:
        loaded = loadmat(file, squeeze_me=True, struct_as_record=False)[file.stem]
        names = ("dob", "photo_taken", "full_path", "gender", "face_location",
                 "face_score", "second_face_score")  # fmt: skip
        table: dict[str, Any] = {
            name: np.atleast_1d(getattr(loaded, name)) for name in names
        }
        # Some names are empty arrays.
        names_of_people = np.atleast_1d(loaded.name)
    except (
        AttributeError, KeyError, MatReadError, NotImplementedError, OSError, TypeError,
        ValueError,
    ) as error:  # fmt: skip
        raise ValueError(f"{file} is not IMDB-WIKI's MATLAB file: {error}.") from error
    if table["face_location"].dtype != object:  # all of one row
        table["face_location"] = table["face_location"].reshape(-1, 4)
    table["name"] = ["" if np.size(n) == 0 else str(n) for n in names_of_people]
    return table
