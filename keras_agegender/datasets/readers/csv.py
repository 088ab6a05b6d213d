"""Reads your own CSV file."""

from __future__ import annotations

import csv
import io
import math
import os
import re
import shlex
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from keras_agegender.datasets.duplicates import (
    check_duplicates,
    drop_duplicates,
    find_same_images,
)
from keras_agegender.datasets.manifest import (
    BOX_COLUMNS,
    GAP,
    CleaningReport,
    Manifest,
    check_subjects,
    make_manifest,
    quoted,
)
from keras_agegender.datasets.readers.face_columns import (
    NO_BOX,
    FaceColumns,
    find_face_columns,
)
from keras_agegender.datasets.splits import SPLITS, check_shares, draw_splits
from keras_agegender.encodings.head import NAME, RESERVED_NAMES
from keras_agegender.encodings.head_types import HEAD_TYPES
from keras_agegender.encodings.registry import is_encoding_output
from keras_agegender.labels import (
    GENDERS,
    MAX_AGE,
    MISSING,
    AgeGroups,
    check_unmapped_ages,
    get_age_groups,
)

GENDER_WORDS = {
    "f": "female", "female": "female", "woman": "female",
    "m": "male", "male": "male", "man": "male",
}  # fmt: skip
SPLIT_WORDS = {name: name for name in SPLITS} | {
    "val": "validation",
    "valid": "validation",
}
_YEARS = re.compile(r"^\d+(\.\d+)?$")


@dataclass(frozen=True)
class Cell:
    """A value and its position, for error messages."""

    text: str
    where: str


def gender_words(values: Mapping[str, str] | None) -> dict[str, str]:
    """Returns value of a gender column -> `"female"` or `"male"`, with a user's own."""
    for value, gender in (values or {}).items():
        if gender not in GENDERS:
            raise ValueError(
                f"Invalid `gender_values`. Expected 'female' or 'male' for {value!r}. "
                f"Received: {gender!r}."
            )
    return GENDER_WORDS | {str(k).lower(): v for k, v in (values or {}).items()}


def read_labels(
    cells: Mapping[str, Cell],
    genders: Mapping[str, str],
    groups: AgeGroups,
    unmapped_ages: str,
    report: CleaningReport,
) -> dict[str, Any]:
    """Returns a row's labels and split by column of a manifest.

    Args:
        cells: Role -> cell, for the roles that the file has.
        genders: Result of `gender_words`.
        groups: Age groups of the manifest.
        unmapped_ages: As in `read_csv`.
        report: Counts unknown values and ages between two groups.
    """
    labels: dict[str, Any] = {"source": "csv"}
    if "age" in cells:
        labels["age_group"], labels["age_years"] = _age(
            cells["age"], groups, unmapped_ages, report
        )
    if "gender" in cells:
        labels["gender"] = _gender(cells["gender"], genders, report)
    if "subject" in cells:
        labels["subject"] = cells["subject"].text
    if "album" in cells:
        text = cells["album"].text
        labels["album"] = "" if text.lower() in UNKNOWN else text
    if "split" in cells:
        split = SPLIT_WORDS.get(cells["split"].text.lower())
        if split is None:
            raise ValueError(
                f"{cells['split'].where}: expected train, validation or test. "
                f"Received: {quoted(cells['split'].text)}."
            )
        labels["split"] = split
    return labels


def check_not_ids(file: Path, texts: list[str]) -> None:
    """Raises ValueError if a column `age_group` contains only numbers."""
    known = [text for text in texts if text.lower() not in UNKNOWN]
    if known and all(_YEARS.match(text) for text in known):
        raise ValueError(
            f"{file}: column 'age_group' holds numbers, which may be ids or years. "
            "Expected names such as '25-32'. If they are years, name the column with "
            f"`age_column` (--age-column age_group). Received: {quoted(known[0])}."
        )


def _age(
    cell: Cell, groups: AgeGroups, unmapped_ages: str, report: CleaningReport
) -> tuple[int, float]:
    """Returns an age group and years, `MISSING` if unknown."""
    if cell.text.lower() in UNKNOWN:
        report.rules["age", cell.text, "no age"] += 1
        return MISSING, MISSING
    if _YEARS.match(cell.text) and float(cell.text) <= MAX_AGE:
        years = float(cell.text)
        group = groups.from_years(years, unmapped_ages)
        if groups.from_years(years) == MISSING and unmapped_ages == "drop":
            report.num_between_groups += 1  # the caller leaves the row out
        elif groups.from_years(years) == MISSING:
            moved_to = None if group == MISSING else groups.names[group]
            report.count_unmapped(cell.text, moved_to)
        return group, years
    named = groups.from_text(cell.text)
    if named is not None:
        return named, MISSING
    raise ValueError(
        f"{cell.where}: expected years in [0, {MAX_AGE}] or one of the groups "
        f"{groups}. Received: {quoted(cell.text)}. Other groups: `age_groups` "
        "(--age-groups), for instance 'decades'."
    )


def _gender(cell: Cell, genders: Mapping[str, str], report: CleaningReport) -> int:
    word = cell.text.lower()
    if word in genders:
        return GENDERS.index(genders[word])
    if word in UNKNOWN:
        report.rules["gender", cell.text, "no gender"] += 1
        return MISSING
    hint = (
        " Numbers mean different things in different datasets; say which with "
        "`gender_values` (--female, --male)."
        if word.isdigit()
        else ""
    )
    raise ValueError(
        f"{cell.where}: expected one of {', '.join(genders)}.{hint} "
        f"Received: {quoted(cell.text)}."
    )


REPEATED = "repeated images, kept"
CONTRADICTED = "repeated images with other labels, kept"
_LABELS = {"age_group": "categorical", "age_years": "years", "gender": "binary"}


def report_repeated_images(
    rows: Sequence[Mapping[str, Any]],
    heads: Mapping[str, Mapping[str, Any]],
    report: CleaningReport,
) -> None:
    """Counts rows that repeat an image, and lists images with contradicting labels."""
    kinds = _LABELS | {name: head["kind"] for name, head in heads.items()}
    repeated = repeated_images(
        [row["path"] for row in rows],
        [tuple(row.get(name) for name in BOX_COLUMNS) for row in rows],
    )
    contradicted = 0
    for numbers in repeated:
        same = [rows[number] for number in numbers]
        columns = [
            name
            for name, kind in kinds.items()
            if len({row[name] for row in same if _is_known(row.get(name), kind)}) > 1
        ]
        if columns:
            contradicted += 1
            keys = ", ".join(row["key"] for row in same)
            report.items.append((f"{keys} ({', '.join(columns)})", CONTRADICTED))
    if repeated:
        report.totals[REPEATED] = sum(len(numbers) - 1 for numbers in repeated)
    if contradicted:
        report.totals[CONTRADICTED] = contradicted


def repeated_images(paths: Sequence[str], boxes: Sequence[Any]) -> list[list[int]]:
    """Returns the positions of the same bytes and box, two or more in each list."""
    positions: dict[Any, list[int]] = defaultdict(list)
    contents = find_same_images(paths).contents
    for position, face in enumerate(zip(contents, boxes, strict=True)):
        positions[face].append(position)
    return [same for same in positions.values() if len(same) > 1]


def _is_known(value: float | None, kind: str) -> bool:
    if value is None or math.isnan(value):
        return False
    return HEAD_TYPES[kind].continuous or value != MISSING


# By ../, an absolute path or a link: suspicious in a file from elsewhere.
OUTSIDE = "images outside of the folder, kept"
DELIMITERS = ",;\t|"
# Role -> names of the columns that have it where the caller does not say.
USUAL_NAMES = {
    "image": ("image", "file", "path", "filename"),
    "age": ("age", "age_group", "age_years"),
    "gender": ("gender", "sex"),
    "subject": ("subject", "identity", "person"),
    "album": ("album",),
    "split": ("split",),
}


def read_csv(
    file: str | Path,
    *,
    image_column: str | None = None,
    age_column: str | None = None,
    gender_column: str | None = None,
    subject_column: str | None = None,
    album_column: str | None = None,
    split_column: str | None = None,
    box_columns: Sequence[str] | None = None,
    landmark_columns: Sequence[str] | None = None,
    images_dir: str | Path | None = None,
    gender_values: Mapping[str, str] | None = None,
    age_groups: AgeGroups | str | Sequence[tuple[int, int]] | None = None,
    unmapped_ages: str = "mask",
    extra: str | Sequence[str] | Mapping[str, str | Mapping | None] = "auto",
    keep_columns: Sequence[str] = (),
    validation: float = 0.1,
    test: float = 0.1,
    seed: int = 0,
    duplicates: str | None = None,
    cache: str | Path | None = None,
) -> tuple[Manifest, CleaningReport]:
    """Reads images and labels from a CSV file.

    The first line names the columns; they may be separated by comma, semicolon, tab or
    bar. Empty cells, `NA`, `nan`, `None`, `unknown` and `-1` are unknown labels, which
    training masks.

    Args:
        file: The CSV file, UTF-8.
        image_column: Column of image files. `None` takes the one called `image`,
            `file`, `path` or `filename`.
        age_column: Column of ages in years (`27`), which are kept as `age_years`, or of
            groups by name (`25-32`, `(25, 32)`, `70+`). `None` takes the one called
            `age`, `age_group` or `age_years`, if any; an `age_group` of just numbers
            must be named, as they may be ids.
        gender_column: Column of genders. `None` takes `gender` or `sex`, if any.
        subject_column: Column of subjects, so that no subject is in two splits. `None`
            takes `subject`, `identity` or `person`, if any.
        album_column: Column of albums, such as the photographer or occasion, for
            `compare(cluster="album")`. `None` takes `album`, if any.
        split_column: Column with `train`, `validation` (or `val`) and `test`. `None`
            takes `split`, if any; without one, splits are drawn.
        box_columns: Columns of the row's face in pixels of the upright image: left,
            top, right, bottom, or left, top, width, height if the last two end with
            `w` and `h`, or `width` and `height`. Each row is then a face of its own,
            cropped by its box; rows without a box are dropped and counted. `None`
            takes columns such as `face_x0` … `face_y1`, `x`, `y`, `w`, `h` or `left`,
            `top`, `right`, `bottom`, if any.
        landmark_columns: x and y of the left eye, right eye, nose, left and right
            mouth corner (left and right as the viewer sees them), with a box. `None`
            takes `lefteye_x` … `rightmouth_y`, if any.
        images_dir: Folder that relative image files start from. `None` is the folder
            of the CSV file.
        gender_values: Value -> `"female"` or `"male"`, beside `f`, `m`, `female`,
            `male`, `woman`, `man`. Numbers need it: datasets disagree on them.
        age_groups: Age groups of the manifest, as `get_age_groups` takes them:
            `"decades"`, `"0-17,18+"`. Defaults to Adience's eight.
        unmapped_ages: What to do with ages in years between two groups: `"mask"`
            (default) keeps the face and its years without an age group, `"nearest"`
            uses the nearer group, `"drop"` drops the face.
        extra: Further columns that become outputs: `"auto"` (default) takes every
            column whose kind is evident, but none that seems to name rows (ids, dates,
            file names: the report says which); a list names them; a dict says their
            kinds too, `{"glasses": "binary"}`, and the order of classes,
            `{"size": {"kind": "coral", "classes": ["small", "large"]}}`; `()` takes
            none.
        keep_columns: Columns that become no outputs, but stay beside each face as
            texts: `evaluate(by=…)` and `compare(by=…)` group by them. Defaults to
            none.
        validation: Share of subjects that validate where splits are drawn.
        test: Share of subjects that test where splits are drawn.
        seed: Seed of the splits drawn. Defaults to 0.
        duplicates: Which images are never in two splits: those of the same bytes
            (`"exact"`), or those that look the same as well (`"near"`, which needs the
            extra `audit`). Where splits are drawn, they stay together; where the file
            has splits, training images of other splits are dropped. `None`
            (default) keeps exact ones together, and leaves the file's splits alone.
        cache: File that stores perceptual hashes by content. `None` (default) stores
            none.

    Returns:
        `(manifest, report)`. The report lists the role of each column, the ages moved
        to the nearer group, rows dropped because their image file does not exist, and
        images repeated with other labels.

    Raises:
        ValueError: If file, columns or a value cannot be understood; the message says
            file, line, column and value.
        ImportError: If near duplicates are searched and `imagehash` is absent.

    Example:
    >>> manifest, report = read_csv("labels.csv", age_column="years")  # doctest: +SKIP
    """
    check_duplicates(duplicates)
    check_shares(validation, test)
    manifest, report, has_splits = read_csv_as_is(
        file,
        image_column=image_column,
        age_column=age_column,
        gender_column=gender_column,
        subject_column=subject_column,
        album_column=album_column,
        split_column=split_column,
        box_columns=box_columns,
        landmark_columns=landmark_columns,
        images_dir=images_dir,
        gender_values=gender_values,
        age_groups=age_groups,
        unmapped_ages=unmapped_ages,
        extra=extra,
        keep_columns=keep_columns,
    )
    if not has_splits:
        drawn = draw_splits(
            manifest,
            report,
            validation=validation,
            test=test,
            seed=seed,
            duplicates=duplicates,
            cache=cache,
        )
        return drawn, report
    check_subjects(manifest["subject"], manifest["split"])
    if duplicates is not None:
        manifest = drop_duplicates(manifest, report, duplicates, cache=cache)
    return manifest, report


def read_csv_as_is(
    file: str | Path,
    *,
    box_columns: Sequence[str] | None = None,
    landmark_columns: Sequence[str] | None = None,
    images_dir: str | Path | None = None,
    gender_values: Mapping[str, str] | None = None,
    age_groups: AgeGroups | str | Sequence[tuple[int, int]] | None = None,
    unmapped_ages: str = "mask",
    extra: str | Sequence[str] | Mapping[str, str | Mapping | None] = "auto",
    keep_columns: Sequence[str] = (),
    **columns: str | None,
) -> tuple[Manifest, CleaningReport, bool]:
    """Reads a CSV file without drawing splits or checking subjects.

    Takes the arguments of `read_csv`, but those for drawing splits.
    """
    check_unmapped_ages(unmapped_ages)
    file = Path(file)
    names, rows = read_rows(file)
    roles = _find_roles(
        file,
        names,
        {role: columns.get(f"{role}_column") for role in USUAL_NAMES},
    )
    place = find_face_columns(
        [n for n in names if n not in (*roles.values(), *keep_columns)],
        box_columns,
        landmark_columns,
    )
    check_kept(keep_columns, [n for n in names if n not in roles.values()], file)
    if not {"age", "gender"} & set(roles) and not extra:
        raise ValueError(
            f"{file} has no column to learn from. Name one with `age_column` "
            "(--age-column), `gender_column` (--gender-column) or `extra` (--extra). "
            f"Columns: {names}."
        )
    if not columns.get("age_column") and roles.get("age") == "age_group":
        check_not_ids(file, [row["age_group"].strip() for _, row in rows])
    report = CleaningReport("csv", rows_read=len(rows))
    genders = gender_words(gender_values)
    groups = get_age_groups(age_groups)
    base = Path(images_dir) if images_dir is not None else file.parent
    made: list[dict[str, Any]] = []
    kept = []
    seen: Counter[str] = Counter()
    for number, row in rows:
        cells = {
            role: Cell(row[name].strip(), f"{file}, line {number}, column {name!r}")
            for role, name in roles.items()
        }
        labels = read_labels(cells, genders, groups, unmapped_ages, report)
        years = labels.get("age_years", MISSING)
        if (
            unmapped_ages == "drop"
            and years != MISSING
            and labels["age_group"] == MISSING
        ):
            report.drop(cells["image"].text, GAP)
            continue
        made_row = _find_image(cells["image"], base, seen, report)
        if made_row is None:
            continue
        face = place.read(row, f"{file}, line {number}")
        if face is None:
            report.drop(made_row["key"], NO_BOX)
            continue
        made.append({**made_row, **labels, **face})
        kept.append((number, row))
    if not made and NO_BOX in report.dropped:
        raise ValueError(
            f"{file}: no row has an image file and a face box in the columns "
            f"{', '.join(place.box)}. Dropped: {dict(report.dropped)}."
        )
    if not made:
        raise ValueError(
            f"None of the {len(rows)} images in {file} exists. Relative files "
            f"start from {base}; say where with `images_dir` "
            f"(--images). First: {quoted(rows[0][1][roles['image']])}."
        )
    taken = (*roles.values(), *keep_columns, *place.used)
    if extra == "auto":
        taken = (*taken, *place.others)
    _report_faces(made, place, report)
    free = [n for n in names if n not in taken]
    heads = _add_extra_columns(made, kept, file, free, extra, report)
    for made_row, (_, row) in zip(made, kept, strict=True):
        made_row |= {name: known_text(row[name]) for name in keep_columns}
    report_repeated_images(made, heads, report)
    if all(row.get("age_years", MISSING) == MISSING for row in made):
        for row in made:
            row.pop("age_years", None)
    manifest = make_manifest(
        made,
        extra_heads=heads,
        age_groups=groups,
        cleaning=report,
        shared_subjects=True,
        keep_columns=keep_columns,
    )
    return manifest, report, "split" in roles


def _report_faces(
    rows: Sequence[Mapping[str, Any]], place: FaceColumns, report: CleaningReport
) -> None:
    if place.box:
        report.totals[f"face boxes from {', '.join(place.box)}"] = len(rows)
        images = Counter(row["path"] for row in rows)
        several = sum(count > 1 for count in images.values())
        report.totals["images with several faces, one row each"] = several
    if place.landmarks:
        report.totals[f"landmarks from {', '.join(place.landmarks)}"] = len(rows)
    if place.others:
        text = f"not used, places in the image: {', '.join(place.others)}"
        report.totals[text] = len(rows)


def read_rows(file: Path) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """Returns column names and (line, cells by column) of every row."""
    if file.is_dir():
        raise ValueError(f"{file} is a folder. Expected a CSV file.")
    if not file.is_file():
        raise ValueError(f"There is no CSV file {file}.")
    return parse_rows(file, file.read_bytes())


def parse_rows(
    file: Path, data: bytes
) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """Returns column names and (line, cells by column) of a file's bytes."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is not UTF-8 text: {error.reason}.") from error
    lines = io.StringIO(text, newline="")  # csv handles line ends
    first = next(lines, "")
    if not first.strip():
        raise ValueError(f"{file}, line 1: expected the names of columns, found none.")
    # Those between quotes are part of a name.
    delimiter = max(DELIMITERS, key=re.sub(r'"[^"]*("|$)', "", first).count)
    lines.seek(0)
    reader = csv.reader(lines, delimiter=delimiter)
    parsed = _parsed(file, reader)
    names = [name.strip() for name in next(parsed)]
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise ValueError(f"{file}, line 1: the column {twice[0]!r} is there twice.")
    rows = []
    for cells in parsed:
        if not any(cell.strip() for cell in cells):
            continue
        if len(cells) != len(names):
            raise ValueError(
                f"{file}, line {reader.line_num}: expected {len(names)} values "
                f"separated by {delimiter!r}, received {len(cells)}."
            )
        rows.append((reader.line_num, dict(zip(names, cells, strict=True))))
    if not rows:
        raise ValueError(f"{file} names columns, but has no rows.")
    return names, rows


def _parsed(file: Path, reader: Any) -> Iterator[list[str]]:
    """Yields the rows of a `csv.reader`; what it cannot read is a ValueError."""
    try:
        yield from reader
    except csv.Error as error:
        raise ValueError(f"{file}, line {reader.line_num}: {error}.") from None


def _find_roles(
    file: Path, names: Sequence[str], given: Mapping[str, str | None]
) -> dict[str, str]:
    roles = {}
    for role, column in given.items():
        if column is not None:
            if column not in names:
                raise ValueError(
                    f"{file} has no column {column!r} for `{role}_column` "
                    f"(--{role}-column). Columns: {list(names)}."
                )
            roles[role] = column
            continue
        found = [n for usual in USUAL_NAMES[role] for n in names if n.lower() == usual]
        if found:
            roles[role] = found[0]
    if "image" not in roles:
        raise ValueError(
            f"{file} has no column called {', '.join(USUAL_NAMES['image'])}. Say which "
            "holds the images with `image_column` (--image-column). "
            f"Columns: {list(names)}."
        )
    return roles


def _find_image(
    cell: Cell, base: Path, seen: Counter[str], report: CleaningReport
) -> dict[str, str] | None:
    if not cell.text:
        raise ValueError(f"{cell.where}: expected an image file, found nothing.")
    path = base / cell.text
    key = Path(cell.text).as_posix()
    # `Path.is_file` raises an error of names that are longer than any file's.
    if not os.path.isfile(path):
        report.drop(key, "no image file")
        return None
    if not path.resolve().is_relative_to(base.resolve()):
        report.totals[OUTSIDE] = report.totals.get(OUTSIDE, 0) + 1
        report.items.append((key, OUTSIDE))
    seen[key] += 1
    if seen[key] > 1:
        key = f"{key}#{seen[key]}"
    return {"key": key, "path": str(path)}


def _add_extra_columns(
    made: list[dict[str, Any]],
    kept: Sequence[tuple[int, Mapping[str, str]]],
    file: Path,
    free: Sequence[str],
    extra: str | Sequence[str] | Mapping[str, str | Mapping | None],
    report: CleaningReport,
) -> dict[str, dict[str, Any]]:
    """Adds the columns that become outputs to the rows; returns their heads."""
    chosen = free if extra == "auto" else list(extra)
    heads = {}
    for name in (n for n in free if n not in chosen):
        report.totals[f"column {name!r} not used; {KEEP}"] = len(made)
    for name in chosen:
        if name not in free:
            raise ValueError(
                "Invalid `extra` (--extra). Expected columns without another role of "
                f"{file}: {free}. Received: {name!r}."
            )
        wanted = extra.get(name) if isinstance(extra, Mapping) else None
        if not isinstance(wanted, Mapping):
            wanted = {"kind": wanted}
        cells = [
            (row[name].strip(), f"{file}, line {number}, column {name!r}")
            for number, row in kept
        ]
        column = read_extra_column(
            name,
            cells,
            wanted.get("kind"),
            classes=wanted.get("classes", ()),
            named=extra != "auto",
        )
        if isinstance(column, str):
            if extra != "auto":
                raise ValueError(f"{file}, column {name!r}: {column}.")
            report.totals[f"column {name!r} not used: {column}"] = len(cells)
            continue
        for row, value in zip(made, column.values, strict=True):
            row[name] = value
        heads[name] = {"kind": column.kind, "classes": list(column.classes)}
        text = f"column {name!r} is an output: {column.kind}"
        if column.classes:
            text += f" ({', '.join(column.classes)})"
        if not any(wanted.values()):
            text += order_hint(name, column.classes)
        report.totals[text] = column.num_known
    return heads


# -- which columns become outputs ------------------------------------------------------

# From so many known cells on, a share of different values above the next means that
# (nearly) every row has its own.
FEWEST_CELLS, MOSTLY_DIFFERENT = 10, 0.9
# A name that ends with one of these words, or of these, is an id's. Then different
# values in more than half of the rows are enough, or more than `MOST_CLASSES`.
ID_WORDS = {"id", "ids", "index", "idx", "no", "nr", "number", "key"}
PEOPLE = {
    "client", "customer", "employee", "identity", "member", "patient", "people",
    "person", "student", "subject", "user",
}  # fmt: skip
THINGS = {
    "album", "batch", "face", "file", "frame", "image", "img", "item", "object",
    "photo", "picture", "record", "row", "sample", "session", "track", "video",
}  # fmt: skip
OFTEN_DIFFERENT, MOST_CLASSES = 0.5, 10
# Written together, as in "userid"; not every ending is one: "grid", "humid", "casino".
GLUED = re.compile(
    f"({'|'.join(sorted(PEOPLE | THINGS))})({'|'.join(sorted(ID_WORDS))})"
)
# Words that name a row wherever they stand, however often a value repeats.
ALWAYS_WORDS = {
    "epoch", "guid", "phone", "plz", "postcode", "serial", "timestamp", "uuid", "zip",
    "zipcode",
}  # fmt: skip
# Texts are classes if there are few of them, or so many rows for each on average.
FEWEST_ROWS_PER_VALUE = 5

PATTERNS = {
    "a date": (
        r"(19|20)\d\d([-/.])(0?[1-9]|1[0-2])\2(0?[1-9]|[12]\d|3[01])([T ][\d:.]+)?"
        r"(Z|[+-]\d\d:?\d\d)?",  # ISO 8601
        r"(0?[1-9]|1[0-2])/(0?[1-9]|[12]\d|3[01])/(19|20)?\d\d( .*)?",  # American
        # European
        r"(0?[1-9]|[12]\d|3[01])([-/.])(0?[1-9]|1[0-2])\2(19|20)?\d\d( .*)?",
        r"(19|20)\d\d(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])",
    ),
    "a time": (r"([01]?\d|2[0-3]):[0-5]\d(:[0-5]\d(\.\d+)?)?",),
    "an id": (
        r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",  # a UUID
        r"(?=.*[a-f])(?=.*\d)([0-9a-f]{16}|[0-9a-f]{32}|[0-9a-f]{40}|[0-9a-f]{64})",
    ),
    "file names": (
        r"https?://.+",
        r".*[^\s.]\.(jpe?g|png|webp|bmp|gif|tiff?|heic|txt|json|xml|csv|npy|mat|pts)",
    ),
}


def identifier_reason(name: str, texts: Sequence[str]) -> str | None:
    """Returns why a column looks like an identifier, or `None` if it does not.

    Example:
    >>> identifier_reason("taken", ["2019-03-01", "2019-03-02"])
    'it looks like a date'
    >>> identifier_reason("row", [str(1000 + n) for n in range(40)])
    'it looks like an id: 40 different values in 40 rows'
    >>> identifier_reason("city", [f"city {n // 2}" for n in range(40)])
    'too few rows per value: 20 different texts in 40 rows'
    >>> identifier_reason("stars", ["1", "2", "3", "2", "1"])
    """
    if not texts:
        return None
    different = {text.lower() for text in texts}
    for what, patterns in PATTERNS.items():
        if any(
            all(re.fullmatch(p, t, re.IGNORECASE) for t in different) for p in patterns
        ):
            return f"it looks like {what}"
    counts = f"{len(different)} different values in {len(texts)} rows"
    words = name_words(name)
    if ALWAYS_WORDS & set(words) and len(different) > 2:
        return f"it looks like an id: {counts}"
    if any(_is_fraction(text) for text in different):
        return None  # measurements differ from row to row too
    share = len(different) / len(texts)
    if _is_id_name(words) and (
        (len(different) > 2 and share > OFTEN_DIFFERENT)
        or len(different) > MOST_CLASSES
    ):
        hint = (
            f"; if it says who is on an image, --subject-column {name} keeps one "
            "person in one split"
        )
        return f"it looks like an id: {counts}" + (hint if share < 1 else "")
    if len(texts) >= FEWEST_CELLS and share >= MOSTLY_DIFFERENT:
        return f"it looks like an id: {counts}"
    if (
        len(different) > MOST_CLASSES
        and len(texts) < FEWEST_ROWS_PER_VALUE * len(different)
        and not all(_is_number(text) for text in different)
    ):
        return (
            f"too few rows per value: {len(different)} different texts in {len(texts)} "
            "rows"
        )
    return None


def name_words(name: str) -> list[str]:
    """Returns a name's words in lower case, without numbers at its end.

    Example:
    >>> name_words("PersonID_2")
    ['person', 'id']
    """
    words = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+", name)
    while words and words[-1].isdigit():
        words.pop()
    return [word.lower() for word in words]


def _is_id_name(words: Sequence[str]) -> bool:
    last = words[-1] if words else ""
    return last in ID_WORDS | PEOPLE or GLUED.fullmatch(last) is not None


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _is_fraction(text: str) -> bool:
    try:
        return not float(text).is_integer()
    except (ValueError, OverflowError):
        return False


UNKNOWN = ("", "na", "nan", "none", "unknown", "-1", "?")
NO = ("0", "false", "no", "n")
YES = ("1", "true", "yes", "y")
MAX_CLASSES = 50
# Words that have an order, lowest first; a column of three or more of one line may too.
ORDERED_WORDS = (
    ("xxs", "xs", "s", "m", "l", "xl", "xxl", "xxxl"),
    ("tiny", "small", "medium", "large", "huge"),
    ("short", "medium", "long"),
    ("very low", "low", "medium", "moderate", "high", "very high"),
    ("no", "mild", "moderate", "severe"),
    ("light", "medium", "dark"),
    ("never", "rarely", "sometimes", "often", "always"),
    ("very bad", "bad", "poor", "fair", "ok", "good", "very good", "excellent"),
    ("first", "second", "third", "fourth", "fifth"),
)
KEEP = "to group faces by it: --keep-columns (`keep_columns`)"


@dataclass(frozen=True)
class ExtraColumn:
    """A column that becomes an output.

    Attributes:
        kind: As `Head.kind`.
        classes: Names of a categorical column's classes, by id; else empty.
        values: One per row: ids, 0 and 1, or numbers; -1 or NaN where unknown.
    """

    kind: str
    classes: tuple[str, ...]
    values: list[float]

    @property
    def num_known(self) -> int:
        """Number of rows with a value."""
        if HEAD_TYPES[self.kind].continuous:
            return sum(not math.isnan(v) for v in self.values)
        return sum(v != MISSING for v in self.values)


def read_extra_column(
    name: str,
    cells: Sequence[tuple[str, str]],
    kind: str | None = None,
    *,
    classes: Sequence[str] = (),
    named: bool = False,
) -> ExtraColumn | str:
    """Returns a column as targets, or the reason why it cannot be an output."""
    taken = name in RESERVED_NAMES or is_encoding_output(name)
    if taken:
        return f"the name {name!r} is taken; rename the column"
    if not NAME.fullmatch(name):
        return (
            f"{name!r} cannot name an output (letters, digits, '_', '.', '-'); rename "
            "the column"
        )
    if kind is not None and kind not in HEAD_TYPES:
        raise ValueError(
            f"Invalid kind of column {name!r}. Expected one of {tuple(HEAD_TYPES)}. "
            f"Received: {kind!r}."
        )
    if classes:
        kind = kind or "categorical"
        if HEAD_TYPES[kind].column_values != "classes":
            raise ValueError(
                f"Invalid classes of column {name!r}. Expected none for the kind "
                f"{kind!r}. Received: {', '.join(classes)}."
            )
        return replace(_categorical(cells, classes), kind=kind)
    written = {t.lower() for t, _ in cells}
    may_be_binary = kind is None or HEAD_TYPES[kind].binary
    if may_be_binary and written - {"", "na", "nan"} == {"-1", "1"}:
        cells = [("0" if t == "-1" else t, where) for t, where in cells]  # as CelebA
        written = {t.lower() for t, _ in cells}
    if kind is None and not named:
        known = [t.lower() for t, _ in cells if t.lower() not in UNKNOWN]
        reason = identifier_reason(name, known)
        if reason is not None:
            return f"{reason}; name it with --extra (`extra`) to use it"
    numbers = [_number(t) for t in written - (set(UNKNOWN) - {"-1"})]
    if (
        kind is None
        and all(n is not None for n in numbers)
        and (any(n != int(n) for n in numbers if n is not None))
    ):
        kind = "regression"  # and -1 a number like another
    texts = sorted(
        written
        - (set(UNKNOWN) - ({"-1"} if kind and HEAD_TYPES[kind].continuous else set()))
    )
    if len(texts) < 2:
        return "it holds fewer than two different values"
    kind = kind or _evident_kind(texts)
    if kind is None:
        return f"it holds {len(texts)} different texts"
    return replace(_CELL_READERS[HEAD_TYPES[kind].column_values](cells), kind=kind)


def check_kept(columns: Sequence[str], free: Sequence[str], file: Path) -> None:
    """Checks columns to keep as metadata."""
    for name in columns:
        if name not in free:
            raise ValueError(
                "Invalid `keep_columns` (--keep-columns). Expected columns without "
                f"another role of {file}: {list(free)}. Received: {name!r}."
            )
        if name in RESERVED_NAMES or not NAME.fullmatch(name):
            raise ValueError(
                "Invalid `keep_columns` (--keep-columns). Expected a name of letters, "
                "digits, '_', '.' and '-' that datasets do not use themselves. "
                f"Received: {name!r}: rename the column."
            )


def known_text(cell: str) -> str:
    """Returns the text of a cell, `""` for an unknown value."""
    text = cell.strip()
    return "" if text.lower() in UNKNOWN else text


def order_hint(name: str, classes: Sequence[str]) -> str:
    """Returns how to declare the order of classes that look ordered, or `""`.

    Example:
    >>> order_hint("size", ["large", "medium", "small"])
    '; if ordered: --extra size:coral:small,medium,large, and other outputs behind it'
    >>> order_hint("colour", ["blue", "green", "red"])
    ''
    """
    words = {text.lower().replace("_", " "): text for text in classes}
    for order in ORDERED_WORDS:
        if len(words) == len(classes) >= 3 and set(words) <= set(order):
            ordered = ",".join(words[word] for word in order if word in words)
            option = shlex.quote(f"{name}:coral:{ordered}")
            return f"; if ordered: --extra {option}, and other outputs behind it"
    return ""


def _evident_kind(texts: Sequence[str]) -> str | None:
    if set(texts) <= {*NO, *YES}:
        return "binary"
    numbers = [_number(t) for t in texts]
    if all(n is not None for n in numbers):
        whole = sorted(int(n) for n in numbers if n == int(n or 0))
        if whole == list(range(len(texts))) and len(texts) <= MAX_CLASSES:
            return "categorical"
        return "regression"
    return "categorical" if len(texts) <= MAX_CLASSES else None


def _binary(cells: Sequence[tuple[str, str]]) -> ExtraColumn:
    values: list[float] = []
    for text, where in cells:
        word = text.lower()
        if word in YES or word in NO:
            values.append(int(word in YES))
        elif word in UNKNOWN:
            values.append(MISSING)
        else:
            raise ValueError(
                f"{where}: expected one of {', '.join((*YES, *NO))}. "
                f"Received: {quoted(text)}."
            )
    return ExtraColumn("binary", (), values)


def _regression(cells: Sequence[tuple[str, str]]) -> ExtraColumn:
    values = []
    for text, where in cells:
        number = _number(text)
        if number is None and text.lower() not in UNKNOWN:
            raise ValueError(f"{where}: expected a number. Received: {quoted(text)}.")
        values.append(math.nan if number is None else number)
    return ExtraColumn("regression", (), values)


def _years(cells: Sequence[tuple[str, str]]) -> ExtraColumn:
    column = _regression(cells)
    values = [MISSING if math.isnan(v) else v for v in column.values]
    for value, (text, where) in zip(values, cells, strict=True):
        if value != MISSING and not 0 <= value <= MAX_AGE:
            raise ValueError(
                f"{where}: expected years in [0, {MAX_AGE}]. Received: {quoted(text)}."
            )
    return ExtraColumn("years", (), values)


def _categorical(
    cells: Sequence[tuple[str, str]], classes: Sequence[str] = ()
) -> ExtraColumn:
    if classes:
        for text, where in cells:
            if text not in classes and text.lower() not in UNKNOWN:
                raise ValueError(
                    f"{where}: expected one of {', '.join(classes)}. Received: "
                    f"{quoted(text)}."
                )
    else:
        known = {t for t, _ in cells if t.lower() not in UNKNOWN}
        numeric = all(_number(t) is not None for t in known)
        classes = sorted(known, key=lambda t: (_number(t) if numeric else 0, t))
    lookup = {text: index for index, text in enumerate(classes)}
    return ExtraColumn(
        "categorical", tuple(classes), [lookup.get(t, MISSING) for t, _ in cells]
    )


# By `HeadType.column_values`.
_CELL_READERS = {
    "classes": _categorical,
    "yes or no": _binary,
    "numbers": _regression,
    "years": _years,
}


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
