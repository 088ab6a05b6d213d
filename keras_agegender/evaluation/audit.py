"""Audits a dataset."""

from __future__ import annotations

import contextlib
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
from keras_agegender.errors import counted
from keras_agegender.faces.images import UnreadableImageError, encode_jpeg, read_image
from keras_agegender.files import read_regular
from keras_agegender.labels import GENDERS, MISSING, AgeGroups

# -- what is audited -------------------------------------------------------------------

_IDS = ("fold", "age_group", "gender")
_COLUMNS = ("key", "split", "subject", "source", *_IDS)


@dataclass(frozen=True)
class FaceTable:
    """A table of faces from any data source; see `Audit` for the other fields.

    `rows` has one row per face and split: `_COLUMNS`, and `age_years` if known.
    `images` yields the bytes of each row's image file, `None` if it does not exist.
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
            prepared_data.check_prepared(path)  # its error names the unfinished one
        raise ValueError(f"File or folder not found: {path}.")
    if (path / "dataset_info.json").exists():
        return "prepared"
    reader = find_reader(path)
    if reader is None:
        titles = ", ".join(reader.title for reader in READERS.values())
        raise ValueError(
            f"Invalid data {path}. Expected a prepared dataset, a manifest, or one of "
            f"{titles}. Received: a folder that contains none of them."
        )
    if path.is_file():
        try:
            with path.open(encoding="utf-8-sig", newline="") as file:
                names = next(csv.reader(file), [])
        except (UnicodeDecodeError, csv.Error) as error:
            if reader.name != "csv":
                return reader.name
            message = f"Invalid data {path}. Expected a CSV file. Received: {error}."
            raise ValueError(message) from None
        if set(manifests.MANIFEST_COLUMNS) <= set(names):
            return "manifest"
    return reader.name


def check_options(data: Any, source_type: str, options: Mapping[str, Any]) -> None:
    """Checks that the reader of a data source accepts the options."""
    reader = READERS.get(source_type)
    known = {o.keyword for o in reader.options if o.audit} if reader else set()
    wrong = sorted(set(options) - known)
    if wrong:
        expected = (
            f"options among {', '.join(sorted(known))}" if known else "no options"
        )
        raise ValueError(
            f"Invalid options. {data} is read as {_title(source_type)}. Expected "
            f"{expected}. Received: {', '.join(wrong)}."
        )


def read_faces(
    data: str | Path | manifests.Manifest,
    splits: Mapping[str, str] | None = None,
    **options: Any,
) -> FaceTable:
    """Reads any data as a table of faces; takes the arguments of `audit`."""
    in_memory = isinstance(data, pd.DataFrame)
    kind = "manifest" if in_memory else source_type(data)
    check_options("The manifest" if in_memory else data, kind, options)
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
    paths, boxes = manifest["path"].tolist(), manifests.given_faces(manifest)[:, :4]
    columns = [*_COLUMNS, *({"age_years"} & set(manifest))]
    return FaceTable(
        kind,
        pd.DataFrame(manifest[columns]).reset_index(drop=True),
        manifest.age_groups,
        lambda: map(_bytes_of, paths, boxes),
        report.counts() if report else manifest.cleaning,
        [item for item in report.items if item[1] in report.dropped] if report else [],
    )


def _with_splits(
    manifest: manifests.Manifest, splits: Mapping[str, str]
) -> manifests.Manifest:
    """Returns one row per face and split."""
    own = sorted(manifest["split"].unique())
    parts = []
    for name, expression in splits.items():
        wanted = expression.split("+")
        absent = sorted(set(wanted) - set(own))
        if absent:
            raise ValueError(
                f"Invalid split {name}={expression}. Expected names from {own}, joined "
                f"by '+'. Received: {absent[0]!r}."
            )
        parts.append(manifest[manifest["split"].isin(wanted)].assign(split=name))
    return pd.concat(parts)


def _bytes_of(path: str, box: np.ndarray) -> bytes | None:
    """Returns an image file, or an image of the given box: a face of several."""
    try:
        if np.isnan(box).any():
            return read_regular(path)
        image = read_image(path)
        if manifests.outside_reason(box, image.shape):
            return None
        left, top, right, bottom = np.maximum(box.round().astype(int), 0)
        return encode_jpeg(
            image[top : max(bottom, top + 1), left : max(right, left + 1)]
        )
    except (OSError, UnreadableImageError):
        return None


def _read_prepared(directory: Path, splits: Mapping[str, str] | None) -> FaceTable:
    prepared = prepared_data.load_prepared(directory)
    names = dict(splits if splits is not None else prepared.splits)
    for name in names.values():
        prepared.num_faces(name)  # an unknown split is an error
    features = set(prepared.builder.info.features)
    wanted = {*_COLUMNS, "age_years"} - {"split"} & features
    rows: list[dict[str, Any]] = []
    for name, expression in names.items():
        stored = prepared.read(expression, wanted)
        for face in prepared_data.read_rows(prepared, stored):
            rows.append({"split": name} | {c: _plain(face[c]) for c in wanted})
    table = pd.DataFrame(rows)
    for column in _COLUMNS:
        if column not in table:
            table[column] = MISSING if column in _IDS else ""

    def images() -> Iterator[bytes]:
        for expression in names.values():
            stored = prepared.read(expression, {"image"})
            for face in prepared_data.read_rows(prepared, stored):
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
    """Returns counts by status for each split, or for whole splits if one is sliced."""
    file = directory / prepared_data.STATUS_FILE
    if not file.is_file():
        return {}
    table = pd.read_csv(file, keep_default_na=False, dtype=str)
    parts = {name: text.split("+") for name, text in names.items()}
    if not {part for split in parts.values() for part in split} <= set(own):
        parts = {name: [name] for name in sorted(table["split"].unique())}
    found = {}
    for name, wanted in parts.items():
        counts = table["status"][table["split"].isin(wanted)].value_counts()
        found[name] = {str(s): int(n) for s, n in counts.sort_index().items()}
    return found


# -- pairs of the same image -----------------------------------------------------------

MANY_YEARS = 5  # a larger difference is not just another guess of the same age
_LABELS = ("split", "subject", "age_group", "gender", "age_years")


@dataclass(frozen=True)
class PairCounts:
    """Counts of pairs of rows with the same image.

    Attributes:
        pairs: Number of pairs.
        across: `"train, validation"` (two splits) -> pairs with one row in each.
        age_groups_differ: Pairs with different age groups, both known; as below.
        years_differ: Pairs with different ages in years.
        many_years_differ: Pairs whose ages differ by more than 5 years.
        genders_differ: Pairs with different genders.
        subjects_differ: Pairs with different subjects.
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
        """Number of pairs in two splits."""
        return sum(self.across.values())

    @property
    def num_within(self) -> int:
        """Number of pairs in one split."""
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
    both = _both_sides(edges, numbered)
    ends = np.sort(both[["number_x", "number_y"]].to_numpy(), axis=1)
    listed = pd.DataFrame(
        {"first": ends[:, 0], "second": ends[:, 1], "distance": both["distance"]}
    )
    return counts, listed.sort_values(["first", "second"], ignore_index=True)


def _both_sides(edges: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    """Joins a table by content to both ends of each edge."""
    first = edges.merge(table, left_on="a", right_on="content")
    return first.merge(table, left_on="b", right_on="content")


def _count(rows: pd.DataFrame, edges: pd.DataFrame) -> PairCounts:
    """Counts pairs of rows with matching contents."""
    cells = (
        rows[rows["content"].isin({*edges["a"], *edges["b"]})]
        .groupby(["content", *_LABELS], dropna=False)
        .size()
        .reset_index(name="rows")
    )
    cells["cell"] = np.arange(len(cells))
    both = _both_sides(edges, cells)
    own = both["a"] == both["b"]
    weight = both["rows_x"] * (both["rows_y"] - (both["cell_x"] == both["cell_y"]))
    # An edge from a content to itself counts each pair in both orders.
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


def audit_text(found: Audit) -> str:
    """Returns an audit as text."""
    faces = counted(found.num_faces, "face")
    parts = [
        [f"{found.data}: {_title(found.source_type)}, {faces}"],
        found.counts.to_string().splitlines(),
        _cleaning(found),
        _status(found.status),
        _subjects(found),
        _images(found),
        _duplicates(found),
        _cohort(found),
        [_verdict(found)],
    ]
    return "\n\n".join("\n".join(lines) for lines in parts if lines)


def _verdict(found: Audit) -> str:
    if found.leaks:
        return f"LEAKAGE: in more than one split: {', '.join(found.leaks)}."
    if set(found.fingerprints) == {face_splits.ALL}:
        return "The data has no splits, so nothing can leak yet."
    if found.exact is None:
        return "No leakage found, but there are no images to compare."
    searched = "" if found.near else " Near duplicates were not searched."
    return f"No leakage found.{searched}"


def _cleaning(found: Audit) -> list[str]:
    if (cleaning := found.cleaning) is None:
        return ["Labels: corrections and dropped rows are unknown."]
    title = (
        f"Labels ({cleaning['source']}): {cleaning['rows_read']:,} rows read, "
        f"{cleaning['rows_kept']:,} kept"
    )
    rows = ((text, f"{n:,}") for text, n in manifests.cleaning_rows(cleaning))
    return [title, *_table(rows)]


def _status(status: Mapping[str, Mapping[str, int]]) -> list[str]:
    if not status:
        return []
    table = pd.DataFrame(status).T.fillna(0).astype(int)
    return ["Faces found in images:", *table.to_string().splitlines()]


def _subjects(found: Audit) -> list[str]:
    if not found.num_subjects:
        return ["Subjects: unknown."]
    shared = found.shared_subjects
    lines = [f"Subjects: {found.num_subjects:,}, {len(shared)} in more than one split"]
    for subject, splits in [*shared.items()][:NUM_EXAMPLES]:
        lines.append(f"{_INDENT}{subject!r} in {', '.join(splits)}")
    return lines + _more(len(shared))


def _images(found: Audit) -> list[str]:
    counts = ", ".join(
        f"{n:,} {what}" for what, n in found.images.items() if n or what == "there"
    )
    lines = [f"Images: {counts}"]
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
    across = listed["split_1"] != listed["split_2"]
    same_look = listed["kind"] == duplicate_images.NEAR
    # Copies of a file within a split are common, near duplicates are not.
    for title, chosen in (
        ("In two splits, same bytes:", across & ~same_look),
        ("In two splits, same look:", across & same_look),
        ("In one split, same look:", ~across & same_look),
        ("Labels differ:", _disagree(listed)),
    ):
        lines += _examples(listed[chosen], title, found)
    return lines


def _disagree(pairs: pd.DataFrame) -> pd.Series:
    differ = pd.Series(False, pairs.index)
    for column, most in (("age_years", MANY_YEARS), ("age_group", 0), ("gender", 0)):
        first, second = pairs[f"{column}_1"], pairs[f"{column}_2"]
        known = (first != MISSING) & (second != MISSING)
        differ |= known & ((first - second).abs() > most)
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
        data: The audited data.
        source_type: `"manifest"`, `"prepared"`, or the name of a reader.
        num_faces: Number of rows; a face has one row per split.
        counts: Faces by split and gender (rows) and age group (columns).
        age_group_names: Names of the age groups, by id.
        num_subjects: Number of named subjects.
        shared_subjects: Subject -> its splits, for subjects in more than one.
        exact: Pairs of rows with the same bytes; `None` without images.
        near: Pairs of rows with different bytes that look alike; `None` without
            images, or if near duplicates were not searched.
        duplicates: A row per pair: `kind`, `distance` in bits, and `key`, `split`,
            `age_group`, `age_years` and `gender` of both (`key_1`, `key_2`, …). An
            image with several copies is paired with each of them.
        images: Numbers of images: `there`, `absent`, `unreadable`, and `of one color`,
            which are not compared.
        unreadable: Key -> why its image cannot be read.
        status: Split -> status -> images, from a prepared dataset: `ok`, `no_face`,
            `several_faces`, …
        cleaning: Counts of the reader (`CleaningReport.counts`); `None` if unknown.
        dropped: (item, reason) of dropped rows, if known.
        fingerprints: `"all"` and each split -> hash of keys and labels.
        cohorts: `"all"` and splits -> the known cohort with that fingerprint.
        nearest: For Adience's faces that match no known cohort: the most similar
            cohort -> numbers of additional faces, by fold.
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
        """Descriptions of the leaks between splits; empty without leakage."""
        exact, near = (c.num_across if c else 0 for c in (self.exact, self.near))
        found = [
            (len(self.shared_subjects), "subject", ""),
            (exact, "pair", " of exact duplicates"),
            (near, "pair", " of near duplicates"),
        ]
        return [f"{counted(n, what)}{of}" for n, what, of in found if n]

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


def audit(
    data: str | Path | manifests.Manifest,
    *,
    splits: Mapping[str, str] | None = None,
    near_duplicates: bool = True,
    cache: str | Path | None = None,
    progress: bool = True,
    **options: Any,
) -> Audit:
    """Finds leakage, duplicates and doubtful labels in a dataset of faces.

    Leakage is a subject, an image, or a near duplicate of an image in two splits.
    Near duplicates are one photo saved again, resized, recolored or cropped by about
    2 %. Mirrored copies are not found; two photos of one person are not duplicates.

    Args:
        data: A manifest or its CSV file (`write_manifest`), a prepared dataset, or the
            file or folder of any reader: a CSV file, or Adience, UTKFace or CelebA.
            Data without splits is one split, `all`.
        splits: Name -> split expression, such as `report_splits()`. `None` (default)
            takes the data's own; in Adience's label files, each fold is a split.
        near_duplicates: Whether to search near duplicates, which takes about a minute
            for 60,000 small images, and needs the extra `audit`. Defaults to `True`.
        cache: File that stores perceptual hashes, for the next audit of these images
            and to resume after an interruption. `None` (default) stores none.
        progress: Whether a progress bar is shown on stderr.
        options: Keyword arguments of the data's reader, such as `age_column` of
            `read_csv` or `strict` of `read_adience`.

    Raises:
        ValueError: If the data cannot be read.
        ImportError: If near duplicates are searched without `imagehash` installed.

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
    with contextlib.ExitStack() as stack:
        opened = None
        if looks and cache is not None:
            opened = duplicate_images.HashCache(cache, duplicate_images.METHOD)
            stack.callback(opened.close)
        count = len(faces.rows)
        return duplicate_images.hash_images(
            faces.images(), count, looks=looks, cache=opened, progress=progress
        )


def _count_images(hashes: duplicate_images.ImageHashes, looks: bool) -> dict[str, int]:
    there = [content for content in hashes.contents if content]
    counts = {"there": len(there), "absent": len(hashes.contents) - len(there)}
    if looks:
        counts["unreadable"] = sum(content in hashes.unreadable for content in there)
        known = sum(content in hashes.looks for content in there)
        counts["of one color"] = len(there) - counts["unreadable"] - known
    return counts


def _describe(rows: pd.DataFrame, listed: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Returns listed pairs with the keys, splits and labels of both rows."""
    described = rows[["key", "split", "age_group", "age_years", "gender"]]
    parts = []
    for kind, pairs in listed.items():
        sides = [
            described.iloc[pairs[end]].add_suffix(suffix).reset_index(drop=True)
            for end, suffix in (("first", "_1"), ("second", "_2"))
        ]
        found = pairs[["distance"]].reset_index(drop=True)
        found.insert(0, "kind", kind)
        parts.append(pd.concat([found, *sides], axis=1))
    return pd.concat(parts, ignore_index=True)


def _pair_values(counts: PairCounts | None) -> dict[str, Any] | None:
    if counts is None:
        return None
    both = {"num_within": counts.num_within, "num_across": counts.num_across}
    return {**asdict(counts), **both}


def _cohorts(faces: FaceTable) -> dict[str, Any]:
    parts = [(face_splits.ALL, faces.rows), *faces.rows.groupby("split")]
    values, known = {}, {}
    for name, rows in parts:
        values[str(name)] = face_splits.fingerprint(rows, faces.age_groups)
        if cohort := face_splits.find_cohort(values[str(name)]):
            part = "" if cohort[1] == face_splits.ALL else f", {cohort[1]}"
            known[str(name)] = cohort[0] + part
    nearest = None
    if not known and set(faces.rows["source"]) == {"adience"}:
        nearest = face_splits.nearest_cohort(faces.rows)
    near = dict([nearest]) if nearest else {}
    return {"fingerprints": values, "cohorts": known, "nearest": near}
