"""Synthetic faces: a generated dataset in Adience's file layout.

It is intended for tests and first experiments: scores on it do not apply to people.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from keras_agegender.console import progress_bar
from keras_agegender.datasets.manifest import CleaningReport, make_manifest
from keras_agegender.datasets.readers import adience
from keras_agegender.faces.images import encode_jpeg
from keras_agegender.files import read_json, write_bytes, write_json, write_text
from keras_agegender.labels import AGE_GROUPS, CELEBA_ATTRIBUTES, GENDERS
from keras_agegender.synthetic.drawing import SyntheticFace, draw_face
from keras_agegender.synthetic.look import sample_identity

SOURCE = "synthetic"
GENERATOR_VERSION = 2
ATTRIBUTES_FILE = "list_attr_celeba.txt"
MARKER = "synthetic.json"
IMAGES_PER_SUBJECT = 4
NOTICE = """These faces are synthetic.

They were drawn by keras_agegender from polygons and random numbers, and show people who
do not exist. The layout is that of Adience, so that its reader can read them. Scores on
them measure how well drawings can be told apart and say nothing about people.
"""


@dataclass(frozen=True)
class _Plan:
    """One image to draw: its subject, fold and labels."""

    index: int
    subject: int
    fold: int
    age_group: int
    gender: int

    @property
    def values(self) -> dict[str, str]:
        """Its columns of the fold file that name the image."""
        return {
            "user_id": f"synthetic{self.subject // 8:04d}@N00",
            "original_image": f"{self.index:06d}_synthetic.jpg",
            "face_id": str(self.subject + 1),
        }

    @property
    def key(self) -> str:
        """Path of the image, relative to the dataset's folder."""
        return adience.TREES["faces"].format(**self.values)


# Entries of the label files: plan, face box and attributes of each image.
Rows = list[tuple[_Plan, np.ndarray, dict[str, int]]]


def write_synthetic_faces(
    directory: str | Path,
    num_faces: int,
    *,
    image_size: tuple[int, int] = (256, 256),
    seed: int = 0,
    progress: bool = False,
) -> Path:
    """Draws synthetic faces into a folder laid out like Adience.

    Age groups and genders are balanced, and each subject has four images, all in one
    fold. The same arguments write the same bytes. An interrupted call can be repeated
    to resume it; a complete folder does not change.

    Args:
        directory: Folder to create.
        num_faces: Number of faces, at least 80: one subject per age group and gender in
            each fold.
        image_size: (height, width) in pixels. Defaults to 256 × 256.
        seed: Seed of all random numbers. Defaults to 0.
        progress: Whether to show a progress bar on stderr. Defaults to `False`.

    Returns:
        The folder.

    Raises:
        ValueError: If the folder contains other files, or `num_faces` is too small.

    Example:
    >>> write_synthetic_faces("faces", 80)  # doctest: +SKIP
    """
    directory = Path(directory)
    request = _request(num_faces, image_size, seed)
    if _is_complete(directory, request):
        return directory
    directory.mkdir(parents=True, exist_ok=True)
    write_text(directory / "README.txt", NOTICE)
    rows: Rows = []
    with progress_bar(num_faces, "drawing", "face", shown=progress) as bar:
        for plan in _plans(num_faces):
            face = _draw(plan, seed, image_size)
            _write_image(directory / plan.key, face.image)
            rows.append((plan, face.face_box, face.attributes))
            bar.update()
    _write_folds(directory, rows)
    _write_attributes(directory / ATTRIBUTES_FILE, rows)
    write_json(directory / MARKER, request)
    return directory


def check_synthetic_faces(
    directory: str | Path,
    num_faces: int,
    *,
    image_size: tuple[int, int] = (256, 256),
    seed: int = 0,
) -> bool:
    """Returns whether `write_synthetic_faces` has completed with these arguments."""
    return _is_complete(Path(directory), _request(num_faces, image_size, seed))


def write_synthetic_photo(
    file: str | Path,
    faces: Sequence[tuple[int, int]] = ((1, 1), (7, 0), (4, 1), (2, 0)),
    *,
    side: int = 320,
    seed: int = 0,
) -> Path:
    """Draws a photo of several people side by side, to predict on.

    Args:
        file: Path of the JPEG file to write.
        faces: (age-group id, gender id) of each face, from left to right.
        side: Height of the photo and width of each face's part, in pixels.
        seed: Seed of the faces. A dataset of the same seed has other faces.

    Returns:
        The file.

    Example:
    >>> write_synthetic_photo("photo.jpg", [(0, 0), (7, 1)])  # doctest: +SKIP
    """
    parts = [
        draw_face(
            np.random.default_rng([seed, 3, number]),
            age_group,
            gender,
            image_size=(side, side),
        ).image
        for number, (age_group, gender) in enumerate(faces)
    ]
    file = Path(file)
    write_bytes(file, encode_jpeg(np.hstack(parts), quality=92))
    return file


def read_synthetic(directory: str | Path) -> tuple[pd.DataFrame, CleaningReport]:
    """Reads synthetic faces with the Adience reader, and their 40 attributes.

    Args:
        directory: Folder that `write_synthetic_faces` created.

    Returns:
        `(manifest, report)`. The attributes are columns of the manifest; they are not
        outputs by default.

    Raises:
        ValueError: If the folder contains no complete synthetic dataset.
    """
    directory = Path(directory)
    if not (directory / MARKER).is_file():
        raise ValueError(
            f"{directory} is not a complete synthetic dataset: {MARKER} is missing."
        )
    manifest, report = adience.read_adience(directory, directory)
    lines = (directory / ATTRIBUTES_FILE).read_text("utf-8").splitlines()
    attributes = pd.DataFrame(
        [line.split() for line in lines[2:]], columns=["key", *lines[1].split()]
    )
    joined = manifest.merge(attributes, on="key", how="left", validate="one_to_one")
    for name in CELEBA_ATTRIBUTES:
        joined[name] = (joined[name].astype(int) > 0).astype("int64")
    joined["source"] = SOURCE
    report.source = SOURCE
    return make_manifest(joined.to_dict("records"), cleaning=report), report


def _plans(num_faces: int) -> Iterator[_Plan]:
    """Assigns age groups, genders and folds such that every prefix is balanced."""
    cells = [(a, g) for a in range(len(AGE_GROUPS)) for g in range(len(GENDERS))]
    num_subjects = max(
        -(-num_faces // IMAGES_PER_SUBJECT), adience.NUM_FOLDS * len(cells)
    )
    for index in range(num_faces):
        subject = index % num_subjects
        age_group, gender = cells[subject % len(cells)]
        fold = subject // len(cells) % adience.NUM_FOLDS
        yield _Plan(index, subject, fold, age_group, gender)


def _draw(plan: _Plan, seed: int, image_size: tuple[int, int]) -> SyntheticFace:
    """Draws a planned image from generators seeded by seed, subject and index."""
    identity = sample_identity(np.random.default_rng([seed, 1, plan.subject]))
    rng = np.random.default_rng([seed, 2, plan.index])
    return draw_face(
        rng, plan.age_group, plan.gender, image_size=image_size, identity=identity
    )


def _write_image(file: Path, image: np.ndarray) -> None:
    if file.is_file():  # written, in full, by an interrupted call
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(file, encode_jpeg(image, quality=92), durable=False)


def _write_folds(directory: Path, rows: Rows) -> None:
    for fold in range(adience.NUM_FOLDS):
        lines = ["\t".join(adience.COLUMNS)]
        for plan, face_box, _ in rows:
            if plan.fold != fold:
                continue
            left, top, right, bottom = face_box.round().astype(int)
            values = {
                **plan.values,
                "age": "({}, {})".format(*AGE_GROUPS[plan.age_group]),
                "gender": GENDERS[plan.gender][0],
                "x": left, "y": top, "dx": right - left, "dy": bottom - top,
                "tilt_ang": 0, "fiducial_yaw_angle": 0, "fiducial_score": 100,
            }  # fmt: skip
            lines.append("\t".join(str(values[column]) for column in adience.COLUMNS))
        write_text(directory / f"fold_{fold}_data.txt", "\n".join(lines) + "\n")


def _write_attributes(file: Path, rows: Rows) -> None:
    """Writes CelebA's list: a count, the names, then 1 or -1 per image."""
    lines = [str(len(rows)), " ".join(CELEBA_ATTRIBUTES)]
    for plan, _, attributes in rows:
        values = ("1" if attributes[name] else "-1" for name in CELEBA_ATTRIBUTES)
        lines.append(" ".join([plan.key, *values]))
    write_text(file, "\n".join(lines) + "\n")


def _request(num_faces: int, image_size: tuple[int, int], seed: int) -> dict[str, Any]:
    """Returns what determines the faces, as stored in the marker file."""
    if num_faces < adience.NUM_FOLDS * len(AGE_GROUPS) * len(GENDERS):
        raise ValueError(
            "Invalid `num_faces` (--faces). Expected at least 80, for 5 folds, 8 age "
            f"groups and 2 genders. Received: num_faces={num_faces}."
        )
    return {
        "source": SOURCE,
        "generator": GENERATOR_VERSION,
        "seed": seed,
        "num_faces": num_faces,
        "image_size": list(image_size),
    }


def _is_complete(directory: Path, request: dict[str, Any]) -> bool:
    marker = directory / MARKER
    if marker.is_file():
        found = read_json(marker)
        if found == request:
            return True
        different = [key for key in request if found.get(key) != request[key]]
        raise ValueError(
            f"{directory} contains other synthetic faces. Expected "
            f"{', '.join(f'{key}={request[key]}' for key in different)}. Found: "
            f"{', '.join(f'{key}={found.get(key)}' for key in different)}. Choose "
            "another directory (--directory)."
        )
    if directory.exists() and not directory.is_dir():
        raise ValueError(f"{directory} is a file. Expected a directory.")
    readme = directory / "README.txt"
    ours = readme.is_file() and readme.read_text("utf-8") == NOTICE
    if directory.is_dir() and any(directory.iterdir()) and not ours:
        raise ValueError(
            f"{directory} is not empty and does not contain synthetic faces. Choose "
            "another directory (--directory)."
        )
    return False
