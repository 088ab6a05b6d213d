"""Reads your own CSV file."""

from __future__ import annotations

import csv
import io
import math
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
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
from keras_agegender.datasets.readers import AmbiguousColumnError
from keras_agegender.datasets.readers.columns import (
    NOT_USED,
    ORDERED_WORDS,
    ROLES,
    UNKNOWN,
    ColumnRole,
    check_kept,
    find_roles,
    find_subject,
    is_taken,
    known_text,
    metadata_reason,
    order_hint,
    read_extra_column,
)
from keras_agegender.datasets.readers.face_columns import (
    NO_BOX,
    FaceColumns,
    find_face_columns,
)
from keras_agegender.datasets.splits import SPLITS, check_shares, draw_splits
from keras_agegender.encodings.head_types import HEAD_TYPES
from keras_agegender.labels import (
    AGE_GROUP_PRESETS,
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
    return GENDER_WORDS | {_word(str(k)): v for k, v in (values or {}).items()}


def _word(text: str) -> str:
    """Returns a cell in lower case; `1.0`, as spreadsheets write it, is `1`."""
    return re.sub(r"^(\d+)\.0+$", r"\1", text.strip().lower())


def read_labels(
    cells: Mapping[str, Cell],
    genders: Mapping[str, str],
    groups: AgeGroups,
    age_ids: bool,
    unmapped_ages: str,
    report: CleaningReport,
) -> dict[str, Any]:
    """Returns a row's labels and split by column of a manifest.

    Args:
        cells: Role -> cell, for the roles that the file has.
        genders: Result of `gender_words`.
        groups: Age groups of the manifest.
        age_ids: Whether ages are ids of the groups.
        unmapped_ages: As in `read_csv`.
        report: Counts unknown values and ages between two groups.
    """
    labels: dict[str, Any] = {"source": "csv"}
    if "age" in cells:
        labels["age_group"], labels["age_years"] = _age(
            cells["age"], groups, age_ids, unmapped_ages, report
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


def check_ages(
    name: str,
    texts: Sequence[str],
    groups: AgeGroups,
    age_values: str | None,
    was_named: bool,
) -> bool:
    """Returns whether a column of ages contains ids of age groups.

    Raises AmbiguousColumnError if its numbers may be ids or years.
    """
    if age_values not in (None, "years", "ids"):
        raise ValueError(
            "Invalid `age_values` (--age-values). Expected 'years' or 'ids'. Received: "
            f"age_values={age_values!r}."
        )
    known = [_word(text) for text in texts if text.lower() not in UNKNOWN]
    numbers = {float(text) for text in known if _YEARS.match(text)}
    only_numbers = len(known) > 0 and all(_YEARS.match(text) for text in known)
    if age_values is not None or not only_numbers:
        return age_values == "ids"
    ids = all(n.is_integer() and n < len(groups) for n in numbers)
    suspicious = ids and len(numbers) > 2 and max(numbers) == len(groups) - 1
    if not suspicious and (was_named or name.lower() != "age_group"):
        return False
    several = f"the numbers {min(numbers):g} to {max(numbers):g}"
    raise AmbiguousColumnError(
        f"column {name!r} contains {several}, which may be years or ids of the "
        f"{len(groups)} age groups {groups}. Say which with `age_values` (--age-values "
        "years or --age-values ids).",
        {"age_values": "ids" if ids else "years"},
        {"age_values": "years"},
    )


def _age(
    cell: Cell,
    groups: AgeGroups,
    ids: bool,
    unmapped_ages: str,
    report: CleaningReport,
) -> tuple[int, float]:
    """Returns an age group and years, `MISSING` if unknown."""
    text = _word(cell.text)
    if text in UNKNOWN:
        report.rules["age", cell.text, "no age"] += 1
        return MISSING, MISSING
    if ids:
        if text.isdigit() and int(text) < len(groups):
            return int(text), MISSING
        raise ValueError(
            f"{cell.where}: expected the id of an age group, 0 to {len(groups) - 1}. "
            f"Received: {quoted(cell.text)}."
        )
    if _YEARS.match(text) and float(text) <= MAX_AGE:
        years = float(text)
        group = groups.from_years(years, unmapped_ages)
        if groups.from_years(years) == MISSING and unmapped_ages == "drop":
            report.num_between_groups += 1  # the caller drops the row
        elif groups.from_years(years) == MISSING:
            moved_to = None if group == MISSING else groups.names[group]
            report.count_unmapped(cell.text, moved_to)
        return group, years
    named = groups.from_text(cell.text)
    if named is None:
        named = groups.from_spreadsheet_date(cell.text)
        if named is not None:
            rule = "age, which a spreadsheet turned into a date"
            report.rules[rule, cell.text, groups.names[named]] += 1
    if named is not None:
        return named, MISSING
    raise ValueError(
        f"{cell.where}: expected years in [0, {MAX_AGE}] or one of the groups "
        f"{groups}. Received: {quoted(cell.text)}."
    )


def _age_hint(texts: Sequence[str], column: str) -> str:
    """Returns what helps if ages are neither years nor groups, or `""`."""
    known = {text.strip() for text in texts if text.strip().lower() not in UNKNOWN}
    for name, groups in AGE_GROUP_PRESETS.items():
        if all(
            (_YEARS.match(text) and float(text) <= MAX_AGE)
            or groups.from_text(text) is not None
            or groups.from_spreadsheet_date(text) is not None
            for text in known
        ):
            return f" All ages fit `age_groups={name!r}` (--age-groups {name})."
    words = {text.lower().replace("_", " ") for text in known}
    if any(len(words) > 1 and words <= set(order) for order in ORDERED_WORDS):
        classes = order_hint("life_stage", sorted(known)) or ""
        option = classes.partition("--extra ")[2].partition(", and")[0]
        return (
            " These are words with an order. Rename the column and learn them as an "
            f"ordered output: --extra {option}."
            if option
            else " These are classes: rename the column, and name it with --extra."
        )
    if any(_DATE_LIKE.search(text) for text in known):
        return (
            " Some look like dates that a spreadsheet made of groups: 3-9 becomes "
            "9-Mar, 10-19 becomes Oct-19. Use the file as it was downloaded."
        )
    return (
        " Other groups: `age_groups` (--age-groups), a preset "
        f"({', '.join(AGE_GROUP_PRESETS)}) or ranges such as 0-17,18-64,65+."
    )


_DATE_LIKE = re.compile(
    r"\d+[-. /]*[a-zäéû]{3}|[a-zäéû]{3}[-. /]*\d+|\d{4}-\d\d-\d\d", re.I
)


def _gender(cell: Cell, genders: Mapping[str, str], report: CleaningReport) -> int:
    word = _word(cell.text)
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


# -- genders that other sources contradict ---------------------------------------------

FEWEST_COMPARED, MOSTLY = 10, 0.9
# Names of files that hold a gender: UTKFace's (0 is male), MORPH's, AgeDB's.
_IN_NAMES = (
    (re.compile(r"(?:^|/)\d{1,3}_([01])_[0-4]_\d+[ .]"), {"0": "male", "1": "female"}),
    (re.compile(r"\d+_\d+([MF])\d{2}\."), {"M": "male", "F": "female"}),
    (re.compile(r"_\d{1,3}_([mf])\.\w+$"), {"m": "male", "f": "female"}),
)
_GENDER_FOLDERS = {
    "female": "female", "females": "female", "woman": "female", "women": "female",
    "girl": "female", "girls": "female", "male": "male", "males": "male", "man": "male",
    "men": "male", "boy": "male", "boys": "male",
}  # fmt: skip


def _gender_of_name(key: str) -> str | None:
    """Returns the gender that an image's path holds, `None` if it holds none."""
    for pattern, genders in _IN_NAMES:
        if match := pattern.search(key):
            return genders[match[1]]
    words = re.findall(r"[a-z]+", key.lower())
    found = {_GENDER_FOLDERS[word] for word in words if word in _GENDER_FOLDERS}
    return found.pop() if len(found) == 1 else None


def check_genders(
    made: Sequence[Mapping[str, Any]],
    rows: Sequence[Mapping[str, str]],
    columns: Sequence[str],
    where: str,
    report: CleaningReport,
) -> None:
    """Compares genders with names of files and with columns of words for genders.

    Raises ValueError if nearly all differ: the values are coded the other way round.
    """
    sources = {"names of files": [_gender_of_name(row["key"]) for row in made]}
    for name in columns:
        words = (row[name].strip().lower() for row in rows)
        sources[f"column {name!r}"] = [GENDER_WORDS.get(word) for word in words]
    for source, genders in sources.items():
        pairs = [
            (row["key"], GENDERS[row["gender"]], gender)
            for row, gender in zip(made, genders, strict=True)
            if gender is not None and row.get("gender", MISSING) != MISSING
        ]
        wrong = [key for key, ours, theirs in pairs if ours != theirs]
        if len(pairs) >= FEWEST_COMPARED and len(wrong) >= MOSTLY * len(pairs):
            raise ValueError(
                f"{where}: genders are coded the other way round: {source} say the "
                f"opposite for {len(wrong)} of {len(pairs)} images, {wrong[0]!r} for "
                "example. Swap the values of `gender_values` (--female, --male)."
            )
        if wrong:
            text = f"genders that {source} contradict, kept"
            report.totals[text] = len(wrong)
            report.items += [(key, text) for key in wrong]


COPY = "copy of another image, with the same labels"
CONTRADICTED = "copies with other labels or splits, kept"
_LABELS = {"age_group": "categorical", "age_years": "years", "gender": "binary"}
_TEXTS = ("subject", "split")


def drop_copies(
    rows: list[dict[str, Any]],
    heads: Mapping[str, Mapping[str, Any]],
    report: CleaningReport,
) -> list[dict[str, Any]]:
    """Returns one row of each face, the one with most labels; all if labels differ."""
    types = _LABELS | {name: head["kind"] for name, head in heads.items()}
    repeated = repeated_images(
        [row["path"] for row in rows],
        [tuple(row.get(name) for name in BOX_COLUMNS) for row in rows],
    )

    def known(row: Mapping[str, Any]) -> list[str]:
        return [
            *(name for name, kind in types.items() if _is_known(row.get(name), kind)),
            *(name for name in _TEXTS if row.get(name)),
        ]

    dropped: set[int] = set()
    for numbers in repeated:
        same = [rows[number] for number in numbers]
        columns = [
            name
            for name in (*types, *_TEXTS)
            if len({row[name] for row in same if name in known(row)}) > 1
        ]
        if columns:
            keys = ", ".join(row["key"] for row in same)
            report.items.append((f"{keys} ({', '.join(columns)})", CONTRADICTED))
            report.totals[CONTRADICTED] = report.totals.get(CONTRADICTED, 0) + 1
            continue
        best = max(numbers, key=lambda number: len(known(rows[number])))
        for number in numbers:
            if number != best:
                report.drop(f"{rows[number]['key']} ({rows[best]['key']})", COPY)
                dropped.add(number)
    return [row for number, row in enumerate(rows) if number not in dropped]


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
    ignore_columns: Sequence[str] = (),
    age_values: str | None = None,
    invalid: str = "error",
    assume_yes: bool = False,
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
        ignore_columns: Columns that are not used. Defaults to none.
        age_values: `"years"` or `"ids"` (of the age groups): what numbers in the age
            column are. `None` (default) takes years, and raises an error for numbers
            that are exactly the ids of the groups.
        invalid: What happens to rows with a value that cannot be read, such as an age
            of 200: `"error"` (default) raises one error that lists them, `"drop"` drops
            and lists them.
        assume_yes: Whether a column that may identify people is taken as the subject,
            and numbers that may be ids as ids. Defaults to `False`, an error.
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
        ignore_columns=ignore_columns,
        age_values=age_values,
        invalid=invalid,
        assume_yes=assume_yes,
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
    ignore_columns: Sequence[str] = (),
    age_values: str | None = None,
    invalid: str = "error",
    assume_yes: bool = False,
    **columns: str | None,
) -> tuple[Manifest, CleaningReport, bool]:
    """Reads a CSV file without drawing splits or checking subjects.

    Takes the arguments of `read_csv`, but those for drawing splits.
    """
    check_unmapped_ages(unmapped_ages)
    if invalid not in INVALID:
        raise ValueError(
            f"Invalid `invalid` (--invalid). Expected one of {INVALID}. Received: "
            f"invalid={invalid!r}."
        )
    file = Path(file)
    names, rows = read_rows(file)
    roles = find_roles(
        file, names, {role: columns.get(f"{role}_column") for role in ROLES}
    )
    taken = {role.column for role in roles.values()}
    check_kept(keep_columns, [n for n in names if n not in taken], file)
    check_kept(ignore_columns, names, file, "ignore_columns", "--ignore-columns")
    place = find_face_columns(
        [n for n in names if n not in (*taken, *keep_columns, *ignore_columns)],
        box_columns,
        landmark_columns,
    )
    settled = {*taken, *keep_columns, *ignore_columns, *place.used, *place.others}
    settled |= set() if extra == "auto" else set(extra)
    cells = {n: [row[n].strip() for _, row in rows] for n in names}
    if "subject" not in roles:
        free = {n: cells[n] for n in names if n not in settled}
        subject = find_subject(file, free, assume_yes)
        if subject is not None:
            roles["subject"] = subject
            settled.add(subject.column)
    if not {"age", "gender"} & set(roles) and not extra:
        raise ValueError(
            f"{file} has no column to learn from. Name one with `age_column` "
            "(--age-column), `gender_column` (--gender-column) or `extra` (--extra). "
            f"Columns: {names}."
        )
    report = CleaningReport("csv", rows_read=len(rows))
    genders = gender_words(gender_values)
    groups = get_age_groups(age_groups)
    age_ids = False
    if "age" in roles:
        age = roles["age"].column
        try:
            was_named = columns.get("age_column") is not None
            age_ids = check_ages(age, cells[age], groups, age_values, was_named)
        except AmbiguousColumnError as question:
            if not assume_yes:
                message = f"{file}: {question}"
                raise AmbiguousColumnError(
                    message, question.accept, question.decline
                ) from None
            age_ids = question.accept["age_values"] == "ids"
    base, leading = find_images(
        Path(images_dir) if images_dir is not None else file.parent,
        cells[roles["image"].column],
        report,
    )
    made: list[dict[str, Any]] = []
    kept = []
    seen: Counter[str] = Counter()
    problems: list[tuple[str, str]] = []
    for number, row in rows:
        given = {
            role: Cell(row[column].strip(), f"{file}, line {number}, column {column!r}")
            for role, (column, _, _) in roles.items()
        }
        try:
            labels = read_labels(given, genders, groups, age_ids, unmapped_ages, report)
            face = place.read(row, f"{file}, line {number}")
            if not given["image"].text:
                raise ValueError(
                    f"{given['image'].where}: expected an image file, found nothing."
                )
        except ValueError as error:
            problems.append((given["image"].text, str(error)))
            continue
        years = labels.get("age_years", MISSING)
        if (
            unmapped_ages == "drop"
            and years != MISSING
            and labels["age_group"] == MISSING
        ):
            report.drop(given["image"].text, GAP)
            continue
        made_row = _find_image(given["image"].text, base, leading, seen, report)
        if made_row is None:
            continue
        if face is None:
            report.drop(made_row["key"], NO_BOX)
            continue
        made.append({**made_row, **labels, **face})
        kept.append((number, row))
    if problems:
        hint = ""
        if "age" in roles and any(f"{roles['age'].column!r}" in p for _, p in problems):
            hint = _age_hint(cells[roles["age"].column], roles["age"].column)
        _check_problems(file, problems, invalid, hint, report)
    if not made and NO_BOX in report.dropped:
        raise ValueError(
            f"{file}: no row has an image file and a face box in the columns "
            f"{', '.join(place.box)}. Dropped: {dict(report.dropped)}."
        )
    if not made:
        raise ValueError(
            f"None of the {len(rows)} images in {file} exists. Relative files "
            f"start from {base}; say where with `images_dir` (--images). "
            f"First: {quoted(rows[0][1][roles['image'].column])}."
        )
    report.columns = [*roles.values(), *_face_roles(place)]
    report.columns += [
        ColumnRole(n, "kept as text", "--keep-columns") for n in keep_columns
    ]
    report.columns += [
        ColumnRole(n, NOT_USED, "--ignore-columns") for n in ignore_columns
    ]
    _report_faces(made, place, report)
    named = () if extra == "auto" else tuple(extra)
    with_role = {c.column for c in report.columns if c.column not in place.others}
    others = [
        name
        for name in names
        if name not in with_role and (name not in place.others or name in named)
    ]
    report.columns = [c for c in report.columns if c.column not in others]
    heads = _add_extra_columns(made, kept, file, others, extra, report)
    report.columns.sort(key=lambda role: names.index(role[0]))
    if "gender" in roles:
        words = {n: {t.lower() for t in cells[n]} - set(UNKNOWN) for n in names}
        words.pop(roles["gender"].column)
        again = [
            n for n, found in words.items() if found and found <= set(GENDER_WORDS)
        ]
        check_genders(made, [row for _, row in kept], again, str(file), report)
    for made_row, (_, row) in zip(made, kept, strict=True):
        made_row |= {name: known_text(row[name]) for name in keep_columns}
    made = drop_copies(made, heads, report)
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


INVALID = ("error", "drop")
MOST_LISTED = 20


def _check_problems(
    file: Path,
    problems: Sequence[tuple[str, str]],
    invalid: str,
    hint: str,
    report: CleaningReport,
) -> None:
    """Drops rows with an invalid value, or raises one ValueError for all of them."""
    if invalid == "drop":
        for image, problem in problems:
            report.dropped[INVALID_VALUE] += 1
            report.items.append((f"{image}: {problem}", INVALID_VALUE))
        return
    texts = [problem for _, problem in problems[:MOST_LISTED]]
    if len(problems) == 1:
        raise ValueError(texts[0] + hint)
    more = len(problems) - len(texts)
    raise ValueError(
        f"{len(problems)} rows of {file} have an invalid value.{hint} `invalid='drop'` "
        f"(--invalid drop) drops and lists them. {' '.join(texts)}"
        + (f" And {more} more." if more else "")
    )


INVALID_VALUE = "invalid value"


def _face_roles(place: FaceColumns) -> list[ColumnRole]:
    return [
        *(
            ColumnRole(n, "face box: crops are made by it", "its name")
            for n in place.box
        ),
        *(ColumnRole(n, "landmark of the face", "its name") for n in place.landmarks),
        *(ColumnRole(n, NOT_USED, "a place in the image") for n in place.others),
    ]


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


SAMPLE, MOST_FOLDERS = 20, 200


def find_images(
    base: Path, texts: Sequence[str], report: CleaningReport
) -> tuple[Path, int]:
    """Returns the folder that image files start from, and leading folders to skip.

    If the files are not where they should be, folders just above and below are tried,
    and names without their first folders.
    """
    some = [text for text in texts if text][:: max(1, len(texts) // SAMPLE)]

    def count(folder: Path, leading: int) -> int:
        return sum(_locate(folder, text, leading) is not None for text in some)

    if not base.is_dir() or not some or count(base, 0):
        return base, 0
    below = [p for p in base.iterdir() if p.is_dir()]
    below += [q for p in below[:MOST_FOLDERS] for q in p.iterdir() if q.is_dir()]
    parents = list(base.absolute().parents)[:2]
    folders = [base, *sorted(below)[:MOST_FOLDERS], *parents]
    counts = {
        (f, n): count(f, n) for f in folders for n in (0, 1, 2) if (f, n) != (base, 0)
    }
    most = max(counts.values())
    best = [place for place, found in counts.items() if found == most]
    if 2 * most < len(some):
        return base, 0
    shortest = [place for place in best if place[1] == min(n for _, n in best)]
    if len(shortest) > 1:
        found_in = ", ".join(str(folder) for folder, _ in shortest)
        raise ValueError(
            f"The images are not below {base}, but in several other folders: "
            f"{found_in}. Name one with `images_dir` (--images)."
        )
    folder, leading = shortest[0]
    text = f"images found below {folder}"
    if leading:
        text += (
            ", without the first folder of their names"
            if leading == 1
            else (f", without the first {leading} folders of their names")
        )
    report.totals[text] = len(texts)
    return folder, leading


def _locate(base: Path, text: str, leading: int = 0) -> str | None:
    """Returns an image's name below `base`, with `/` between folders, if it exists."""
    for name in dict.fromkeys((text, text.replace("\\", "/"))):
        parts = Path(name).parts
        if leading >= len(parts):
            continue
        key = Path(*parts[leading:]).as_posix()
        # `Path.is_file` raises an error of names that are longer than any file's.
        if os.path.isfile(base / key):
            return key
    return None


def _find_image(
    text: str, base: Path, leading: int, seen: Counter[str], report: CleaningReport
) -> dict[str, str] | None:
    key = _locate(base, text, leading)
    if key is None:
        report.drop(Path(text).as_posix(), "no image file")
        return None
    path = base / key
    if not path.resolve().is_relative_to(base.resolve()):
        report.totals[OUTSIDE] = report.totals.get(OUTSIDE, 0) + 1
        report.items.append((key, OUTSIDE))
    seen[key] += 1
    if seen[key] > 1:
        key = f"{key}#{seen[key]}"
    return {"key": key, "path": str(path)}


def _shortened(classes: Sequence[str], most: int = 8) -> str:
    text = ", ".join(classes[:most])
    more = len(classes) - most
    return f"{text} and {more} more" if more > 0 else text


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
    unused = "not named with --extra; --keep-columns groups faces by it"
    report.columns += [ColumnRole(n, NOT_USED, unused) for n in free if n not in chosen]
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
        if extra == "auto" and not is_taken(name):
            known = [t.lower() for t, _ in cells if t.lower() not in UNKNOWN]
            names = list(kept[0][1])
            reason = metadata_reason(name, known, names, GENDER_WORDS)
            if reason is not None:
                why = f"{reason}; name it with --extra to learn it"
                report.columns.append(ColumnRole(name, NOT_USED, why))
                continue
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
            report.columns.append(ColumnRole(name, NOT_USED, column))
            continue
        for row, value in zip(made, column.values, strict=True):
            row[name] = value
        heads[name] = {"kind": column.head_type, "classes": list(column.classes)}
        role = f"output: {column.head_type}"
        if column.classes:
            role += f" ({_shortened(column.classes)})"
        why = "--extra" if extra != "auto" else f"its {column.num_known} known values"
        if not any(wanted.values()):
            why += order_hint(name, column.classes)
        report.columns.append(ColumnRole(name, role, why))
    return heads
