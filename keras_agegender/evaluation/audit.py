"""Audits a dataset."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tabulate import tabulate

from keras_agegender.datasets import (
    duplicates as duplicate_images,
    manifest as manifests,
    prepared as prepared_data,
    splits as face_splits,
)
from keras_agegender.datasets.readers import READERS, find_reader
from keras_agegender.files import read_regular
from keras_agegender.labels import GENDERS, MISSING, AgeGroups

# -- what is audited -------------------------------------------------------------------

_IDS = ("fold", "age_group", "gender")
_COLUMNS = ("key", "split", "subject", "source", *_IDS)


@dataclass(frozen=True)
class FaceTable:
    """A table of faces from any data source.

    Attributes:
        source_type: `"manifest"`, `"prepared"`, or the name of a reader.
        rows: A row per face and split it is in: `_COLUMNS`, and `age_years` if known.
        age_groups: What age-group ids stand for.
        images: Yields the bytes of each row's image file, in the order of the rows;
            `None` for a file that does not exist.
        cleaning: What a reader did to the labels (`CleaningReport.counts`), if known.
        dropped: (item, reason) of dropped rows, if they are known one by one.
        status: Split -> status -> images, from a prepared dataset's status.csv.
    """

    source_type: str
    rows: pd.DataFrame
    age_groups: AgeGroups
    images: Callable[[], Iterator[bytes | None]]
    cleaning: Mapping[str, Any] | None = None
    dropped: list[tuple[str, str]] = field(default_factory=list)
    status: dict[str, dict[str, int]] = field(default_factory=dict)


def source_type(data: str | Path) -> str:
    """Returns `"manifest"`, `"prepared"`, or the name of the reader of a path."""
    path = Path(data)
    if not path.exists():
        if path.with_name(path.name + ".partial").is_dir():
            prepared_data.check_prepared(
                path
            )  # says that its preparation was not finished
        raise ValueError(f"There is no file or folder {path}.")
    if (path / "dataset_info.json").exists():
        return "prepared"
    reader = find_reader(path)
    if reader is None:
        titles = ", ".join(reader.title for reader in READERS.values())
        raise ValueError(
            f"Invalid data {path}. Expected a prepared dataset, a manifest, or one of "
            f"{titles}. Received: a folder with none of them."
        )
    if path.is_file():
        try:
            with path.open(encoding="utf-8-sig", newline="") as file:
                names = next(csv.reader(file), [])
        except (UnicodeDecodeError, csv.Error) as error:
            if reader.name != "csv":
                return reader.name
            raise ValueError(
                f"Invalid data {path}. Expected a CSV file: {error}."
            ) from None
        if set(manifests.MANIFEST_COLUMNS) <= set(names):
            return "manifest"
    return reader.name


def check_options(data: Any, source_type: str, options: Mapping[str, Any]) -> None:
    """Checks that the reader of a data source accepts the options."""
    reader = READERS.get(source_type)
    known = {o.keyword for o in reader.options if o.audit} if reader else set()
    wrong = sorted(set(options) - known)
    if wrong:
        raise ValueError(
            f"Invalid options. {data} is read as {_title(source_type)}. Expected "
            f"{'some of ' + ', '.join(sorted(known)) if known else 'no options'}. "
            f"Received: {', '.join(wrong)}."
        )


def read_faces(
    data: str | Path | manifests.Manifest,
    splits: Mapping[str, str] | None = None,
    **options: Any,
) -> FaceTable:
    """Reads any data as a table of faces; takes the arguments of `audit`."""
    kind = "manifest" if isinstance(data, pd.DataFrame) else source_type(data)
    shown = "The manifest" if isinstance(data, pd.DataFrame) else data
    check_options(shown, kind, options)
    report: manifests.CleaningReport | None = None
    if isinstance(data, pd.DataFrame):
        manifests.validate_manifest(data, shared_subjects=True)
        manifest = data
    elif kind == "prepared":
        return _read_prepared(Path(data), splits)
    elif kind == "manifest":
        manifest = manifests.read_manifest(data, shared_subjects=True)
    else:
        reader = READERS[kind]
        manifest, report = (reader.read_as_is or reader.read)(data, **options)
    if splits is not None:
        manifest = _with_splits(manifest, splits)
    paths = manifest["path"].tolist()
    return FaceTable(
        kind,
        pd.DataFrame(
            manifest[[*_COLUMNS, *({"age_years"} & set(manifest))]]
        ).reset_index(drop=True),
        manifest.age_groups,
        lambda: map(_bytes_of, paths),
        report.counts() if report else manifest.cleaning,
        [item for item in report.items if item[1] in report.dropped] if report else [],
    )


def _with_splits(
    manifest: manifests.Manifest, splits: Mapping[str, str]
) -> manifests.Manifest:
    """Returns a row for each face and named split that it is in."""
    own = sorted(manifest["split"].unique())
    parts = []
    for name, expression in splits.items():
        wanted = expression.split("+")
        absent = sorted(set(wanted) - set(own))
        if absent:
            raise ValueError(
                f"Invalid split {name}={expression}. Expected names of {own} with '+' "
                f"between them. Received: {absent[0]!r}."
            )
        parts.append(manifest[manifest["split"].isin(wanted)].assign(split=name))
    return pd.concat(parts)


def _bytes_of(path: str) -> bytes | None:
    try:
        return read_regular(path)
    except OSError:
        return None


def _read_prepared(directory: Path, splits: Mapping[str, str] | None) -> FaceTable:
    prepared = prepared_data.load_prepared(directory)
    names = dict(splits if splits is not None else prepared.splits)
    for name in names.values():
        prepared.num_faces(name)  # says which splits there are
    features = set(prepared.builder.info.features)
    wanted = {*_COLUMNS, "age_years"} - {"split"} & features
    rows: list[dict[str, Any]] = []
    for name, expression in names.items():
        for face in prepared_data.read_rows(
            prepared, prepared.read(expression, wanted)
        ):
            rows.append({"split": name} | {c: _plain(face[c]) for c in wanted})
    table = pd.DataFrame(rows)
    for column in _COLUMNS:
        if column not in table:
            table[column] = MISSING if column in _IDS else ""

    def images() -> Iterator[bytes]:
        for expression in names.values():
            for face in prepared_data.read_rows(
                prepared, prepared.read(expression, {"image"})
            ):
                yield face["image"]

    return FaceTable(
        "prepared",
        table,
        prepared.age_groups,
        images,
        prepared.info.get("cleaning"),
        status=_read_status(directory, names, prepared.builder.info.splits),
    )


def _plain(value: Any) -> Any:
    return value.decode() if isinstance(value, bytes) else value.item()


def _read_status(
    directory: Path, names: Mapping[str, str], own: Any
) -> dict[str, dict[str, int]]:
    """Returns counts by status of each split, or of those written if one is sliced."""
    file = directory / prepared_data.STATUS_FILE
    if not file.is_file():
        return {}
    table = pd.read_csv(file, keep_default_na=False, dtype=str)
    parts = {name: text.split("+") for name, text in names.items()}
    if not {part for split in parts.values() for part in split} <= set(own):
        parts = {name: [name] for name in sorted(table["split"].unique())}
    return {
        name: {
            str(status): int(count)
            for status, count in table["status"][table["split"].isin(wanted)]
            .value_counts()
            .sort_index()
            .items()
        }
        for name, wanted in parts.items()
    }


# -- pairs of images that are one ------------------------------------------------------

MANY_YEARS = 5  # two ages that differ by more are not one guess twice
_LABELS = ("split", "subject", "age_group", "gender", "age_years")


@dataclass(frozen=True)
class PairCounts:
    """Counts of pairs of rows with the same image.

    Attributes:
        pairs: All of them.
        across: `"train, validation"` (two splits) -> pairs with one row in each.
        age_groups_differ: Pairs with two known age groups that differ.
        years_differ: Pairs with two known ages in years that differ.
        many_years_differ: Pairs whose ages differ by more than 5 years.
        genders_differ: Pairs with two known genders that differ.
        subjects_differ: Pairs with two known subjects that differ.
    """

    pairs: int
    across: dict[str, int]
    age_groups_differ: int
    years_differ: int
    many_years_differ: int
    genders_differ: int
    subjects_differ: int

    @property
    def num_across(self) -> int:
        """Pairs in two splits."""
        return sum(self.across.values())

    @property
    def num_within(self) -> int:
        """Pairs in one split."""
        return self.pairs - self.num_across


def exact_pairs(rows: pd.DataFrame) -> tuple[PairCounts, pd.DataFrame]:
    """Returns the pairs of rows of the same content."""
    known = rows["content"] != ""
    repeated = known & rows["content"].duplicated(keep=False)
    contents = rows["content"][repeated].unique()
    counts = _count(rows[repeated], pd.DataFrame({"a": contents, "b": contents}))
    numbers = pd.Series(np.arange(len(rows)), index=rows.index)[repeated]
    first = numbers.groupby(rows["content"][repeated]).transform("min")
    later = numbers != first
    listed = pd.DataFrame({"first": first[later], "second": numbers[later]})
    return counts, listed.assign(distance=0).reset_index(drop=True)


def near_pairs(
    rows: pd.DataFrame, looks: Mapping[str, bytes]
) -> tuple[PairCounts, pd.DataFrame]:
    """Returns the pairs of rows with different contents that look alike."""
    edges = duplicate_images.near_contents(looks)
    counts = _count(rows, edges)
    numbered = pd.DataFrame(
        {"content": rows["content"].to_numpy(), "number": np.arange(len(rows))}
    )
    numbered = numbered[numbered["content"].isin({*edges["a"], *edges["b"]})]
    both = edges.merge(numbered, left_on="a", right_on="content").merge(
        numbered, left_on="b", right_on="content"
    )
    ends = np.sort(both[["number_x", "number_y"]].to_numpy(), axis=1)
    listed = pd.DataFrame(
        {"first": ends[:, 0], "second": ends[:, 1], "distance": both["distance"]}
    )
    return counts, listed.sort_values(["first", "second"], ignore_index=True)


def _count(rows: pd.DataFrame, edges: pd.DataFrame) -> PairCounts:
    """Counts pairs of rows with matching contents."""
    cells = (
        rows[rows["content"].isin({*edges["a"], *edges["b"]})]
        .groupby(["content", *_LABELS], dropna=False)
        .size()
        .reset_index(name="rows")
    )
    cells["cell"] = np.arange(len(cells))
    both = edges.merge(cells, left_on="a", right_on="content").merge(
        cells, left_on="b", right_on="content"
    )
    own = both["a"] == both["b"]
    weight = both["rows_x"] * (both["rows_y"] - (both["cell_x"] == both["cell_y"]))
    # An edge from a content to itself gives each pair twice, in either order.
    weight = np.where(own, weight / 2, both["rows_x"] * both["rows_y"])

    def differ(column: str, unknown: object, by_more_than: int = 0) -> int:
        x, y = both[f"{column}_x"], both[f"{column}_y"]
        different = x != y if not by_more_than else (x - y).abs() > by_more_than
        return round(weight[(x != unknown) & (y != unknown) & different].sum())

    apart = (both["split_x"] != both["split_y"]).to_numpy()
    names = np.sort(both[["split_x", "split_y"]].to_numpy(str), axis=1)[apart]
    across = pd.Series(weight[apart]).groupby([", ".join(pair) for pair in names]).sum()
    return PairCounts(
        pairs=round(weight.sum()),
        across={str(name): round(count) for name, count in across.items()},
        age_groups_differ=differ("age_group", MISSING),
        years_differ=differ("age_years", MISSING),
        many_years_differ=differ("age_years", MISSING, MANY_YEARS),
        genders_differ=differ("gender", MISSING),
        subjects_differ=differ("subject", ""),
    )


NUM_EXAMPLES = 5
_INDENT = "  "


def _title(source_type: str) -> str:
    if source_type in READERS:
        return READERS[source_type].title
    return "a manifest" if source_type == "manifest" else "a prepared dataset"


def audit_text(audit: Audit) -> str:
    """Returns an audit as lines to print."""
    found = audit
    parts = [
        [f"{found.data}: {_title(found.source_type)}, {found.num_faces:,} faces"],
        found.counts.to_string().splitlines(),
        _cleaning(found),
        _status(found.status),
        _subjects(found),
        _pictures(found),
        _duplicates(found),
        _cohort(found),
        [
            f"LEAKAGE: in more than one split: {', '.join(found.leaks)}."
            if found.leaks
            else _no_leakage(found)
        ],
    ]
    return "\n\n".join("\n".join(lines) for lines in parts if lines)


def _no_leakage(found: Audit) -> str:
    if set(found.fingerprints) == {face_splits.ALL}:
        return "The data has no splits, so nothing can leak yet."
    if found.exact is None:
        return "No leakage found, but there are no images to compare."
    return "No leakage found." + (
        "" if found.near else " Near duplicates were not searched."
    )


def _cleaning(found: Audit) -> list[str]:
    if found.cleaning is None:
        return ["Labels: corrections and dropped rows are unknown."]
    cleaning = found.cleaning
    first = (
        f"Labels ({cleaning['source']}): {cleaning['rows_read']:,} rows read, "
        f"{cleaning['rows_kept']:,} kept"
    )
    return [
        first,
        *_table((text, f"{n:,}") for text, n in manifests.cleaning_rows(cleaning)),
    ]


def _status(status: Mapping[str, Mapping[str, int]]) -> list[str]:
    if not status:
        return []
    table = pd.DataFrame(status).T.fillna(0).astype(int)
    return ["Faces found in pictures:", *table.to_string().splitlines()]


def _subjects(found: Audit) -> list[str]:
    if not found.num_subjects:
        return ["Subjects: unknown."]
    shared = found.shared_subjects
    lines = [f"Subjects: {found.num_subjects:,}, {len(shared)} in more than one split"]
    for subject, splits in [*shared.items()][:NUM_EXAMPLES]:
        lines.append(f"{_INDENT}{subject!r} in {', '.join(splits)}")
    return lines + _more(len(shared))


def _pictures(found: Audit) -> list[str]:
    counts = ", ".join(
        f"{n:,} {what}" for what, n in found.images.items() if n or what == "there"
    )
    lines = [f"Pictures: {counts}"]
    for key, reason in [*found.unreadable.items()][:NUM_EXAMPLES]:
        lines.append(f"{_INDENT}{key}: {reason}")
    return lines + _more(len(found.unreadable))


def _duplicates(found: Audit) -> list[str]:
    if found.exact is None:
        return []
    columns = {
        "pairs": "pairs",
        "num_within": "in one split",
        "num_across": "in two splits",
        "age_groups_differ": "age groups differ",
        "many_years_differ": f"years differ by > {MANY_YEARS}",
        "genders_differ": "genders differ",
    }
    if found.num_subjects:
        columns["subjects_differ"] = "subjects differ"
    kinds = {"same bytes": found.exact, "same look": found.near}
    table = pd.DataFrame(
        {
            name: {title: getattr(counts, key) for key, title in columns.items()}
            for name, counts in kinds.items()
            if counts is not None
        }
    ).T
    lines = ["Pairs of the same image:", *table.to_string().splitlines()]
    listed = found.duplicates
    across = listed[listed["split_1"] != listed["split_2"]]
    for kind, name in (
        (duplicate_images.EXACT, "same bytes"),
        (duplicate_images.NEAR, "same look"),
    ):
        lines += _examples(
            across[across["kind"] == kind], f"In two splits, {name}:", found
        )
    # Copies of a file within a split are common, near duplicates are not.
    within = listed[
        (listed["split_1"] == listed["split_2"])
        & (listed["kind"] == duplicate_images.NEAR)
    ]
    lines += _examples(within, "In one split, same look:", found)
    return lines + _examples(listed[_disagree(listed)], "Labels differ:", found)


def _disagree(pairs: pd.DataFrame) -> pd.Series:
    years = (pairs["age_years_1"] - pairs["age_years_2"]).abs() > MANY_YEARS
    known = (pairs["age_years_1"] != MISSING) & (pairs["age_years_2"] != MISSING)
    differ = years & known
    for column in ("age_group", "gender"):
        first, second = pairs[f"{column}_1"], pairs[f"{column}_2"]
        differ |= (first != second) & (first != MISSING) & (second != MISSING)
    return differ


def _examples(pairs: pd.DataFrame, title: str, found: Audit) -> list[str]:
    if pairs.empty:
        return []
    lines = [title]
    for pair in pairs.head(NUM_EXAMPLES).to_dict("records"):
        sides = [
            f"{pair[f'key_{k}']} ({pair[f'split_{k}']}, {_labels(pair, k, found)})"
            for k in (1, 2)
        ]
        lines.append(f"{_INDENT}{sides[0]} and {sides[1]}")
    return lines + _more(len(pairs))


def _labels(pair: Mapping[str, Any], side: int, found: Audit) -> str:
    years, group = pair[f"age_years_{side}"], pair[f"age_group_{side}"]
    age = f"{years:g} years"
    if years == MISSING:
        age = "age unknown" if group == MISSING else found.age_group_names[group]
    return f"{age}, {[*GENDERS, 'gender unknown'][pair[f'gender_{side}']]}"


def _more(count: int) -> list[str]:
    more = count - NUM_EXAMPLES
    return [f"{_INDENT}and {more:,} more (--json FILE lists all)"] if more > 0 else []


def _cohort(found: Audit) -> list[str]:
    values = found.fingerprints.items()
    rows = [(name, value, found.cohorts.get(name, "")) for name, value in values]
    lines = ["Fingerprints of keys and labels:", *_table(rows, ("left",) * 3)]
    for name, differences in found.nearest.items():
        more = ", ".join(f"{k} {n:+,}" for k, n in differences.items() if n)
        lines.append(
            f"{_INDENT}No known cohort of Adience; the nearest by counts: {name} "
            f"(more than there: {more or 'none, but other faces or labels'})"
        )
    return lines


def _table(
    rows: Iterable[tuple[str, ...]], align: Sequence[str] = ("left", "right")
) -> list[str]:
    table = list(rows)
    if not table:
        return []
    text = tabulate(table, tablefmt="plain", disable_numparse=True, colalign=align)
    return [f"{_INDENT}{line.rstrip()}" for line in text.splitlines()]


FORMAT = 1  # of the JSON


@dataclass(frozen=True)
class Audit:
    """The result of an audit.

    Attributes:
        data: What was audited.
        source_type: `"manifest"`, `"prepared"`, or the name of a reader.
        num_faces: Rows, each face once for each split it is in.
        counts: Faces by split and gender (rows) and age group (columns).
        age_group_names: Names of the age groups, by id.
        num_subjects: Subjects that are named.
        shared_subjects: Subject -> the splits it is in, of those in more than one.
        exact: Pairs of rows of the same bytes; `None` where no picture is there.
        near: Pairs of rows of other bytes that look the same; `None` where that was
            not asked for, or no picture is there.
        duplicates: A row per pair found: `kind`, `distance` in bits, and `key`,
            `split`, `age_group`, `age_years`, `gender` of both (`key_1`, `key_2`, …).
            Of a picture that is there many times, the first is beside each other one.
        images: `there`, `absent`, `unreadable`, and `of one color`, which are not
            compared.
        unreadable: Key -> why its picture cannot be read.
        status: Split -> status -> pictures, from a prepared dataset: `ok`, `no_face`,
            `several_faces`, …
        cleaning: What the reader did (`CleaningReport.counts`); `None` if not known.
        dropped: (item, reason) of dropped rows, if they are known one by one.
        fingerprints: `"all"` and each split -> hash of keys and labels.
        cohorts: `"all"` and splits -> the known cohort with that fingerprint.
        nearest: Known cohort with the nearest numbers of faces -> faces more than in
            it, by fold; of Adience's faces that are no known cohort.
    """

    data: str
    source_type: str
    num_faces: int
    counts: pd.DataFrame
    age_group_names: tuple[str, ...]
    num_subjects: int
    shared_subjects: dict[str, list[str]]
    exact: PairCounts | None
    near: PairCounts | None
    duplicates: pd.DataFrame
    images: dict[str, int]
    unreadable: dict[str, str]
    status: dict[str, dict[str, int]]
    cleaning: Mapping[str, Any] | None
    dropped: list[tuple[str, str]]
    fingerprints: dict[str, str]
    cohorts: dict[str, str]
    nearest: dict[str, dict[str, int]] = field(default_factory=dict)

    @property
    def leaks(self) -> list[str]:
        """Descriptions of what is in more than one split; empty without leakage."""
        exact, near = (c.num_across if c else 0 for c in (self.exact, self.near))
        found = [
            _counted(len(self.shared_subjects), "subject"),
            _counted(exact, "pair", " of exact duplicates"),
            _counted(near, "pair", " of near duplicates"),
        ]
        return [text for text in found if text]

    def to_dict(self) -> dict[str, Any]:
        """Returns everything as plain values, for JSON."""
        counts = self.counts.reset_index().to_dict("records")
        return {
            "format": FORMAT,
            "data": self.data,
            "kind": self.source_type,
            "num_faces": self.num_faces,
            "leaks": self.leaks,
            "counts": [{str(k): v for k, v in row.items()} for row in counts],
            "age_group_names": list(self.age_group_names),
            "num_subjects": self.num_subjects,
            "shared_subjects": self.shared_subjects,
            duplicate_images.EXACT: _pair_values(self.exact),
            duplicate_images.NEAR: _pair_values(self.near),
            "duplicates": self.duplicates.to_dict("records"),
            "pictures": self.images,
            "unreadable": self.unreadable,
            "status": self.status,
            "cleaning": self.cleaning,
            "left_out": [list(item) for item in self.dropped],
            "fingerprints": self.fingerprints,
            "cohorts": self.cohorts,
            "nearest": self.nearest,
        }

    def __str__(self) -> str:
        return audit_text(self)


def _counted(count: int, what: str, of: str = "") -> str:
    return f"{count:,} {what}{'s' if count > 1 else ''}{of}" if count else ""


def audit(
    data: str | Path | manifests.Manifest,
    *,
    splits: Mapping[str, str] | None = None,
    near_duplicates: bool = True,
    cache: str | Path | None = None,
    progress: bool = True,
    **options: Any,
) -> Audit:
    """Finds leakage, duplicates and doubtful labels in any data of faces.

    Leakage is a subject, an image, or a near duplicate of an image in two splits.
    Near duplicates are one photo saved again, resized, recolored or cropped by about
    2 %. Mirrored copies are not found; two photos of one person are not duplicates.

    Args:
        data: A manifest or its CSV file (`write_manifest`), a prepared dataset, or the
            file or folder of any reader: a CSV file, or Adience, UTKFace or CelebA.
            Data without splits is one split, `all`.
        splits: Name -> split expression, such as `report_splits()`. `None` takes the
            data's own: of Adience's label files each fold is one.
        near_duplicates: Whether to search near duplicates, which takes about a minute
            for 60,000 small images, and needs the extra `audit`. Defaults to `True`.
        cache: File that stores perceptual hashes by content, for the next audit of
            these images and to resume after an interruption. `None` stores none.
        progress: Whether a progress bar is shown on stderr.
        options: Keyword arguments of the data's reader, such as `age_column` of
            `read_csv` or `strict` of `read_adience`.

    Raises:
        ValueError: If the data cannot be read.
        ImportError: If near duplicates are searched and `imagehash` is absent.

    Example:
    >>> found = audit("data/adience_prepared")  # doctest: +SKIP
    >>> found.leaks, found.near.pairs  # doctest: +SKIP
    ([], 12)
    """
    if near_duplicates:
        duplicate_images.check_imagehash()
    faces = read_faces(data, splits, **options)
    hashes = _hash(faces, near_duplicates, cache, progress)
    rows = faces.rows.assign(content=hashes.contents)
    if "age_years" not in rows:
        rows["age_years"] = MISSING
    exact = near = None
    listed = {duplicate_images.EXACT: _NO_PAIRS, duplicate_images.NEAR: _NO_PAIRS}
    if any(hashes.contents):
        exact, listed[duplicate_images.EXACT] = exact_pairs(rows)
        if near_duplicates:
            near, listed[duplicate_images.NEAR] = near_pairs(rows, hashes.looks)
    subjects = rows[rows["subject"] != ""].groupby("subject")["split"].unique()
    return Audit(
        data="manifest" if isinstance(data, pd.DataFrame) else str(data),
        source_type=faces.source_type,
        num_faces=len(rows),
        counts=manifests.summarize(rows, faces.age_groups),
        age_group_names=faces.age_groups.names,
        num_subjects=len(subjects),
        shared_subjects={s: sorted(x) for s, x in subjects.items() if len(x) > 1},
        exact=exact,
        near=near,
        duplicates=_describe(rows, listed),
        images=_count_images(hashes, near_duplicates),
        unreadable={
            key: hashes.unreadable[content]
            for key, content in zip(rows["key"], rows["content"], strict=True)
            if content in hashes.unreadable
        },
        status=faces.status,
        cleaning=faces.cleaning,
        dropped=faces.dropped,
        **_cohorts(faces),
    )


_NO_PAIRS = pd.DataFrame({"first": [], "second": [], "distance": []}, dtype="int64")


def _hash(
    faces: FaceTable, looks: bool, cache: str | Path | None, progress: bool
) -> duplicate_images.ImageHashes:
    opened = (
        duplicate_images.HashCache(cache, duplicate_images.METHOD)
        if looks and cache is not None
        else None
    )
    try:
        return duplicate_images.hash_images(
            faces.images(),
            len(faces.rows),
            looks=looks,
            cache=opened,
            progress=progress,
        )
    finally:
        if opened is not None:
            opened.close()


def _count_images(hashes: duplicate_images.ImageHashes, looks: bool) -> dict[str, int]:
    there = [content for content in hashes.contents if content]
    counts = {"there": len(there), "absent": len(hashes.contents) - len(there)}
    if looks:
        unreadable = sum(content in hashes.unreadable for content in there)
        known = sum(content in hashes.looks for content in there)
        counts |= {
            "unreadable": unreadable,
            "of one color": len(there) - unreadable - known,
        }
    return counts


def _describe(rows: pd.DataFrame, listed: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Returns listed pairs with the keys, splits and labels of both rows."""
    columns = ["key", "split", "age_group", "age_years", "gender"]
    parts = []
    for kind, pairs in listed.items():
        sides = [
            rows[columns].iloc[pairs[end]].add_suffix(f"_{number}")
            for number, end in ((1, "first"), (2, "second"))
        ]
        part = pd.concat([side.reset_index(drop=True) for side in sides], axis=1)
        part.insert(0, "kind", kind)
        part.insert(1, "distance", pairs["distance"].to_numpy())
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


def _pair_values(counts: PairCounts | None) -> dict[str, Any] | None:
    if counts is None:
        return None
    return {
        **asdict(counts),
        "num_within": counts.num_within,
        "num_across": counts.num_across,
    }


def _cohorts(faces: FaceTable) -> dict[str, Any]:
    rows = faces.rows
    parts = {face_splits.ALL: rows} | {
        str(name): part for name, part in rows.groupby("split")
    }
    values = {
        n: face_splits.fingerprint(part, faces.age_groups) for n, part in parts.items()
    }
    found = {name: face_splits.find_cohort(value) for name, value in values.items()}
    known = {
        name: cohort[0] + (f", {cohort[1]}" if cohort[1] != face_splits.ALL else "")
        for name, cohort in found.items()
        if cohort is not None
    }
    nearest = None
    if not known and set(rows["source"]) == {"adience"}:
        nearest = face_splits.nearest_cohort(rows)
    return {
        "fingerprints": values,
        "cohorts": known,
        "nearest": dict([nearest]) if nearest else {},
    }
