"""Datasets whose file names hold the labels: one row of `FILE_NAMES` for each."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from keras_agegender.datasets.manifest import CleaningReport, Manifest
from keras_agegender.datasets.readers.labeled_faces import (
    IMAGE_SUFFIXES,
    LabeledFace,
    read_labeled_faces,
)
from keras_agegender.labels import AgeGroups

# UTKFace's number of a race is the index, as the dataset's page has it.
RACES = ("white", "black", "asian", "indian", "other")
OTHER_VERSION = "another version of an image of this name"
MALFORMED = "malformed name"


@dataclass(frozen=True)
class FileNames:
    """How the paths of a dataset's images spell their labels.

    Attributes:
        pattern: Of the end of a path, with groups `age`, and `gender`, `subject` if the
            name has them.
        example: Such a path.
        genders: Text of the group `gender`, in lower case -> `"female"` or `"male"`.
        gender_of: Returns the gender from the match where the name holds it otherwise.
        metadata: Returns further columns from the match.
        one_per_name: Whether images of the same name in two folders are versions of
            one face, such as the photo and its crop.
        first: Folder whose version is taken.
    """

    pattern: str
    example: str
    genders: Mapping[str, str] = field(default_factory=dict)
    gender_of: Callable[[re.Match[str]], str] | None = None
    metadata: Callable[[re.Match[str]], dict[str, str | float]] | None = None
    one_per_name: bool = False
    first: str = ""

    def match(self, path: str) -> re.Match[str] | None:
        """Returns the match of a path, with `/` between folders."""
        pattern = rf"(?:.*/)?{self.pattern}"
        return re.fullmatch(pattern, path, re.IGNORECASE | re.ASCII | re.DOTALL)


_F_OR_M = {"f": "female", "m": "male"}
FILE_NAMES = {
    "utkface": FileNames(
        # One published name has a blank before the dot.
        r"(?P<age>\d{1,3})_(?P<gender>[01])_(?P<race>[0-4])_(?P<face>\d+) ?\.[^/]*",
        "27_1_0_20170116220224657.jpg.chip.jpg",
        genders={"0": "male", "1": "female"},
        metadata=lambda match: {"race": int(match["race"])},
        one_per_name=True,
    ),
    "afad": FileNames(
        r"(?P<age>\d{1,3})/(?P<gender>11[12])/[^/]+",
        "15/111/109207-0.jpg",
        genders={"111": "male", "112": "female"},
    ),
    "all_age_faces": FileNames(
        r"(?P<face>\d{5})A(?P<age>\d{2,3})\.[^/]*",
        "original images/00000A02.jpg",
        gender_of=lambda match: "female" if int(match["face"]) <= 7380 else "male",
        one_per_name=True,
        first="original images",
    ),
    "fgnet": FileNames(r"(?P<subject>\d{3})A(?P<age>\d{2})[a-z]?\.[^/]*", "001A02.JPG"),
    "agedb": FileNames(
        r"\d+_(?P<subject>[^/]+)_(?P<age>\d{1,3})_(?P<gender>[fm])\.[^/]*",
        "0_MariaCallas_35_f.jpg",
        genders=_F_OR_M,
    ),
    "cacd": FileNames(
        r"(?P<age>\d{1,3})_(?P<subject>[^/\d_][^/]*)_\d{4}\.[^/]*",
        "14_Aaron_Johnson_0001.jpg",
    ),
    "morph": FileNames(
        r"(?P<subject>\d+)_\d+(?P<gender>[FM])(?P<age>\d{2,3})\.[^/]*",
        "Album2/009055_1M54.JPG",
        genders=_F_OR_M,
    ),
}


def read_file_names(directory: str | Path, source: str) -> Iterator[LabeledFace]:
    """Yields the images below a folder with the labels that their names hold."""
    directory, names = Path(directory), FILE_NAMES[source]
    if not directory.is_dir():
        raise ValueError(
            f"There is no folder {directory}. Expected one of images such as "
            f"{names.example}."
        )
    files = [f for f in directory.rglob("*") if f.suffix.lower() in IMAGE_SUFFIXES]
    seen: set[tuple[str | Any, ...]] = set()
    for file in sorted(files, key=lambda f: (names.first not in f.parts, f)):
        if not file.is_file():
            continue
        match = names.match(file.absolute().as_posix())
        if match is None:
            yield LabeledFace(file, problem=MALFORMED)
            continue
        if names.one_per_name and match.groups() in seen:
            yield LabeledFace(file, problem=OTHER_VERSION)
            continue
        seen.add(match.groups())
        yield _face(file, match, names)


def _face(file: Path, match: re.Match[str], names: FileNames) -> LabeledFace:
    parts = match.groupdict()
    gender = names.genders.get(parts.get("gender", "").lower(), "")
    return LabeledFace(
        file,
        years=int(parts["age"]),
        gender=names.gender_of(match) if names.gender_of else gender,
        subject=parts.get("subject", ""),
        metadata=names.metadata(match) if names.metadata else {},
    )


def has_file_names(path: Path, source: str) -> bool:
    """Returns whether most images of a sample below a folder are named so."""
    names = FILE_NAMES[source]
    sample = sample_images(path)
    fitting = sum(names.match(file) is not None for file in sample)
    return 2 * fitting > len(sample)


def sample_images(folder: Path, count: int = 40, depth: int = 4) -> list[str]:
    """Returns some of the images below a folder; does not list all of a large one."""
    if not folder.is_dir():
        return []
    found, folders = [], []
    with os.scandir(folder.absolute()) as entries:
        for entry in itertools.islice(entries, 1000):
            if entry.name.lower().endswith(IMAGE_SUFFIXES):
                found.append(Path(entry.path).as_posix())
            elif depth and entry.is_dir():
                folders.append(Path(entry.path))
    for below in sorted(folders)[:count]:
        if len(found) >= count:
            break
        found += sample_images(below, count - len(found), depth - 1)
    return found[:count]


def read_utkface(
    directory: str | Path,
    *,
    age_groups: AgeGroups | str | Sequence[tuple[int, int]] | None = None,
    unmapped_ages: str = "drop",
    validation: float = 0.1,
    test: float = 0.1,
    seed: int = 0,
    duplicates: str | None = None,
    cache: str | Path | None = None,
    as_is: bool = False,
) -> tuple[Manifest, CleaningReport]:
    """Reads UTKFace's labels from the file names.

    Files with other names than published are dropped, counted and listed in the report,
    as are copies of an image in several folders. UTKFace does not identify people, so
    that one person may be in two splits: scores are slightly optimistic.

    Args:
        directory: Folder of images; folders in it are searched too.
        age_groups: Age groups of the manifest, as `get_age_groups` takes them. Defaults
            to Adience's eight.
        unmapped_ages: What to do with ages between two groups: `"drop"` (default) drops
            the image, `"mask"` keeps its gender and years without an age group,
            `"nearest"` uses the nearer group, the younger of two equally near.
        validation: Share of images that validate, in [0, 1). Defaults to 0.1.
        test: Share of images that test, in [0, 1). Defaults to 0.1.
        seed: Seed of the split. Defaults to 0.
        duplicates: Which images are never in two splits: those of the same bytes
            (`"exact"`; `None`, the default, does so too), or those that look the same
            as well (`"near"`; UTKFace has hundreds), which needs the extra `audit`.
            It is not the default, as splits must not depend on what is installed.
        cache: File that stores perceptual hashes by content. `None` (default) stores
            none.
        as_is: Whether no splits are drawn, as an audit needs it. Defaults to `False`.

    Returns:
        `(manifest, report)`. The column `age_years` holds the age, `race` the index in
        `RACES`; neither is an output unless asked for. The report counts ages that
        were moved to the nearer group (`num_moved`) or have none.

    Raises:
        ValueError: If there is no such folder, or no usable image in it.
        ImportError: If near duplicates are searched and `imagehash` is absent.

    Example:
    >>> manifest, report = read_utkface("data/UTKFace")  # doctest: +SKIP
    """
    return read_labeled_faces(
        read_file_names(directory, "utkface"),
        directory,
        source="utkface",
        age_groups=age_groups,
        unmapped_ages=unmapped_ages,
        validation=validation,
        test=test,
        seed=seed,
        duplicates=duplicates,
        cache=cache,
        as_is=as_is,
    )
