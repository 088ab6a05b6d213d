"""The manifest: one row per face."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from keras_agegender import files, labels

# Field and outcomes of the rules about ages that lie between two groups; any other
# outcome is the group that was nearer.
GAP = "age between two groups"
NO_AGE_GROUP = "no age group"
# How many ages or rows a printed report names, and how much of each name.
MOST_NAMES, MOST_LETTERS = 3, 100
WIDEST = 72  # of its first column; a longer text pushes its number to the right
_DROPPED = "dropped: "
NOT_TEXT = "name is not UTF-8"  # but bytes: no text file could hold it


def quoted(text: str) -> str:
    """Quotes an invalid cell for an error, shortened if long.

    Example:
    >>> quoted("old")
    "'old'"
    """
    return repr(text if len(text) <= MOST_LETTERS else f"{text[:MOST_LETTERS]}…")


@dataclass
class CleaningReport:
    """Counts of everything a reader changed, kept or dropped.

    Attributes:
        source: Name of the reader, `"adience"` for instance.
        rows_read: Rows of the label files.
        rules: (field, from, to) -> rows it was applied to.
        totals: Named totals, in the order they were added.
        dropped: Reason -> rows dropped.
        items: (item, reason) of rows dropped or reported one by one.
        num_between_groups: Ages between two groups, without an age group.
        num_moved: Ages between two groups that were moved to the nearer one.
        columns: (column, role, why) of a label file with columns.
    """

    source: str
    rows_read: int = 0
    rules: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    totals: dict[str, int] = field(default_factory=dict)
    dropped: Counter[str] = field(default_factory=Counter)
    items: list[tuple[str, str]] = field(default_factory=list)
    num_between_groups: int = 0
    num_moved: int = 0
    columns: list[Any] = field(default_factory=list)

    def drop(self, item: str, reason: str) -> None:
        """Counts and lists a dropped row."""
        self.dropped[reason] += 1
        self.items.append((item, reason))

    def count_unmapped(self, years: str, group: str | None) -> None:
        """Counts an age between two groups that became `group`, or has none."""
        self.rules[GAP, years, group or NO_AGE_GROUP] += 1
        if group is None:
            self.num_between_groups += 1
        else:
            self.num_moved += 1

    @property
    def rows_kept(self) -> int:
        """Rows of the manifest."""
        return self.rows_read - sum(self.dropped.values())

    def to_frame(self) -> Any:
        """Returns the rules as a pandas DataFrame: field, from, to, rows."""
        import pandas as pd

        rows = [(*rule, count) for rule, count in sorted(self.rules.items())]
        return pd.DataFrame(rows, columns=["field", "from", "to", "rows"])

    def to_dict(self) -> dict[str, Any]:
        """Returns everything as plain values, for JSON."""
        return {**self.counts(), "items": [list(item) for item in self.items]}

    def counts(self) -> dict[str, Any]:
        """Returns everything but the rows one by one, as plain values."""
        return {
            "source": self.source,
            "rows_read": self.rows_read,
            "rows_kept": self.rows_kept,
            "rules": [
                {"field": f, "from": a, "to": b, "rows": n}
                for (f, a, b), n in sorted(self.rules.items())
            ],
            "totals": dict(self.totals),
            "left_out": dict(self.dropped),
            "num_between_groups": self.num_between_groups,
            "num_moved": self.num_moved,
            **({"columns": [list(c) for c in self.columns]} if self.columns else {}),
        }

    def items_text(self) -> str:
        """Returns the items as CSV: item, reason, and whether the row was dropped."""
        import pandas as pd

        rows = [(item, why, why in self.dropped) for item, why in self.items]
        table = pd.DataFrame(rows, columns=["item", "reason", "left_out"])
        return table.to_csv(index=False)

    def __str__(self) -> str:
        first = f"{self.source}: {self.rows_read} rows read, {self.rows_kept} kept"
        if self.num_between_groups:
            first += (
                f"; {self.num_between_groups} ages lie between two groups "
                "(--unmapped-ages mask keeps them without a group, nearest takes the "
                "nearer one, drop skips those faces; --age-groups decades has no gaps)"
            )
        if self.num_moved:
            first += (
                f"; {self.num_moved} ages lie between two groups and were moved to the "
                "nearer one (--unmapped-ages nearest)"
            )
        rows = cleaning_rows(self.counts())
        width = min(max((len(text) for text, _ in rows), default=0), WIDEST)
        lines = [first]
        if self.columns:
            from tabulate import tabulate

            table = tabulate(
                self.columns, headers=("column", "role", "why"), tablefmt="plain",
                disable_numparse=True,
            )  # fmt: skip
            lines += [f"  {line}".rstrip() for line in table.splitlines()]
        for text, count in rows:
            lines.append(f"  {text:<{width}}  {count:>7}")
            reason = text.removeprefix(_DROPPED)
            named = [item for item, why in self.items if why == reason]
            if named:
                apart = "; " if "," in named[0] else ", "
                lines.append(f"    {_first_few(named, apart)}")
        return "\n".join(lines)


def cleaning_rows(counts: Mapping[str, Any]) -> list[tuple[str, int]]:
    """Returns the cleaning steps as (text, rows) for a table.

    Rules about ages between two groups are one row for each outcome: there may be one
    for every year.
    """
    rows: list[tuple[str, int]] = []
    gaps: dict[str, list[Mapping[str, Any]]] = {}
    for rule in counts["rules"]:
        if rule["field"] == GAP:
            kept = rule["to"] == NO_AGE_GROUP
            gaps.setdefault(NO_AGE_GROUP if kept else "the nearer group", []).append(
                rule
            )
        else:
            text = f"{rule['field']} {rule['from']!r} -> {rule['to']}"
            rows.append((text, rule["rows"]))
    for to, rules in gaps.items():
        years = sorted({rule["from"] for rule in rules}, key=float)
        text = f"{GAP} ({_first_few(years)}) -> {to}"
        rows.append((text, sum(rule["rows"] for rule in rules)))
    rows += counts["totals"].items()
    return rows + [(f"{_DROPPED}{why}", n) for why, n in counts["left_out"].items()]


def _first_few(names: list[str], apart: str = ", ") -> str:
    short = (n if len(n) <= MOST_LETTERS else n[:MOST_LETTERS] + "…" for n in names)
    text = apart.join(itertools.islice(short, MOST_NAMES))
    more = len(names) - MOST_NAMES
    return f"{text} and {more} more" if more > 0 else text


MANIFEST_COLUMNS: dict[str, str] = {
    "key": "unique name of the row: the image's path below its folder",
    "path": "the image file",
    "subject": "the person shown; '' if unknown",
    "fold": "fold of the label files, -1 without folds",
    "split": "split of the row: fold_0 … fold_4, or train, validation, test",
    "age_group": "id of the age group, -1 where unknown",
    "gender": "id in GENDERS, -1 where unknown",
    "source": "name of the reader",
}
_TEXT = ("key", "path", "subject", "split", "source")
OPTIONAL_TEXT = ("album",)
# Files are called so.
SPLIT_NAME = re.compile(
    files.RESERVED_NAMES_PATTERN + r"[A-Za-z0-9_][A-Za-z0-9_-]{0,99}"
)
_IDS = ("fold", "age_group", "gender")
# Optional: the row's face in pixels of the upright image, NaN where unknown. `prepare`
# and on-the-fly cropping cut out this box instead of one that they find.
BOX_COLUMNS = ("face_left", "face_top", "face_right", "face_bottom")
# Optional, with a box: its eyes, nose and mouth corners, left and right as the viewer
# sees them.
LANDMARK_COLUMNS = tuple(
    f"{part}_{axis}"
    for part in ("left_eye", "right_eye", "nose", "left_mouth", "right_mouth")
    for axis in "xy"
)
FACE_COLUMNS = (*BOX_COLUMNS, *LANDMARK_COLUMNS)


class Manifest(pd.DataFrame):
    """A table of faces, one row each, with its age groups, heads and cleaning report.

    It is a DataFrame: selecting, sorting, assigning, copying and pickling keep the
    attributes below. So do `merge`, `join` and `concat` of manifests that agree on
    them; if they disagree, the result has no age groups and cannot be used until
    `with_rows` says what it means.

    Attributes:
        age_groups: What age-group ids stand for.
        extra_heads: Extra column that is an output -> `{"kind": …, "classes": […]}`.
        keep_columns: Extra columns of text that are no outputs.
        cleaning: What a reader did (`CleaningReport.counts`), or `None`.
        cleaning_items: The rows it dropped or reported, as CSV text.
    """

    _metadata = [  # noqa: RUF012, pandas looks here
        "_age_groups",
        "extra_heads",
        "keep_columns",
        "cleaning",
        "cleaning_items",
    ]
    _age_groups: labels.AgeGroups | None = None
    extra_heads: Mapping[str, Mapping[str, Any]] = {}
    keep_columns: tuple[str, ...] = ()
    cleaning: Mapping[str, Any] | None = None
    cleaning_items: str = ""

    @property
    def _constructor(self) -> type[Manifest]:
        return Manifest

    @property
    def age_groups(self) -> labels.AgeGroups:
        """The age groups of the ids."""
        if self._age_groups is None:
            raise ValueError(NO_MEANING)
        return self._age_groups

    def with_rows(self, rows: pd.DataFrame) -> Manifest:
        """Returns other rows with this manifest's age groups, heads and cleaning.

        Args:
            rows: Any DataFrame with ids of the same meaning, such as the result of an
                operation that returned a plain one.
        """
        return Manifest(rows).__finalize__(self)

    def __finalize__(
        self, other: Any, method: str | None = None, **kwargs: Any
    ) -> Manifest:
        """Propagates metadata on which all inputs agree; called by pandas."""
        super().__finalize__(other, method, **kwargs)
        if isinstance(other, (pd.DataFrame, pd.Series)):
            return self
        # merge and concat: pandas 3 lists the inputs, pandas 2 has them by name
        inputs = getattr(other, "input_objs", None) or getattr(other, "objs", None)
        inputs = inputs or [other.left, other.right]
        frames = [item for item in inputs if isinstance(item, pd.DataFrame)]
        known = [isinstance(f, Manifest) and f._age_groups is not None for f in frames]
        manifests = list(itertools.compress(frames, known))
        others = (f for f, k in zip(frames, known, strict=True) if not k)
        # Rows of any other frame have ids of unknown meaning; its columns have none.
        unknown = not manifests or (
            method == "concat" and any("age_group" in other for other in others)
        )
        for names in (
            ("_age_groups", "extra_heads", "keep_columns"),
            ("cleaning", "cleaning_items"),
        ):
            values = [[getattr(item, name) for name in names] for item in manifests]
            agree = not unknown and all(value == values[0] for value in values)
            for place, name in enumerate(names):
                value = values[0][place] if agree else getattr(Manifest, name)
                object.__setattr__(self, name, value)
        return self


NO_MEANING = (
    "Invalid manifest. Expected a `Manifest`, which says what its age-group ids mean. "
    "Received a plain DataFrame, or rows of manifests with different age groups or "
    "heads. Give the rows the meaning of a manifest with `manifest.with_rows(frame)`."
)


def make_manifest(
    rows: Iterable[Mapping[str, Any]] | pd.DataFrame,
    extra_heads: Mapping[str, Mapping[str, Any]] | None = None,
    age_groups: labels.AgeGroups = labels.ADIENCE_AGE_GROUPS,
    *,
    cleaning: CleaningReport | None = None,
    shared_subjects: bool = False,
    keep_columns: Sequence[str] = (),
) -> Manifest:
    """Returns a valid manifest of rows; absent columns get their empty value."""
    frame = rows if isinstance(rows, pd.DataFrame) else pd.DataFrame(list(rows))
    defaults: dict[str, Any] = {
        "subject": "",
        "fold": labels.MISSING,
        "split": "train",
        "age_group": labels.MISSING,
        "gender": labels.MISSING,
        "source": "",
    }
    absent = [c for c in MANIFEST_COLUMNS if c not in frame]
    frame = frame.assign(**{c: defaults.get(c, "") for c in absent})
    extra = [c for c in frame if c not in MANIFEST_COLUMNS]
    texts = (*OPTIONAL_TEXT, *keep_columns)
    manifest = Manifest(
        frame[[*MANIFEST_COLUMNS, *extra]].astype(
            {
                **dict.fromkeys(_TEXT, "object"),
                **dict.fromkeys(_IDS, "int64"),
                **{name: "object" for name in texts if name in extra},
                **{name: "float64" for name in FACE_COLUMNS if name in extra},
            }
        )
    )
    manifest._age_groups = age_groups
    manifest.extra_heads = {k: dict(v) for k, v in (extra_heads or {}).items()}
    manifest.keep_columns = tuple(keep_columns)
    if cleaning is not None:
        keep_cleaning(manifest, cleaning)
    validate_manifest(manifest, shared_subjects=shared_subjects)
    return manifest


def keep_cleaning(manifest: Manifest, cleaning: CleaningReport) -> None:
    """Replaces the cleaning of a manifest by a report."""
    manifest.cleaning = cleaning.counts()
    if cleaning.items:
        manifest.cleaning_items = cleaning.items_text()


def validate_manifest(manifest: pd.DataFrame, *, shared_subjects: bool = False) -> None:
    """Raises ValueError unless a DataFrame is a manifest that can be prepared.

    Checks columns, ranges, unique keys, and that no subject is in two splits.
    """
    if not isinstance(manifest, Manifest):
        raise ValueError(NO_MEANING)
    counts = {"age_group": len(manifest.age_groups), "gender": len(labels.GENDERS)}
    absent = [c for c in MANIFEST_COLUMNS if c not in manifest]
    if absent:
        raise ValueError(f"Invalid manifest. It has no column {absent}.")
    if manifest.empty:
        raise ValueError("Invalid manifest. It has no rows.")
    twice = manifest["key"][manifest["key"].duplicated()]
    if len(twice):
        raise ValueError(f"Invalid manifest. The key {twice.iloc[0]!r} is there twice.")
    for split in manifest["split"].unique():
        if not SPLIT_NAME.fullmatch(str(split)):
            raise ValueError(
                "Invalid manifest. Expected names of splits of at most 100 letters, "
                f"digits, '_' and '-', and {files.RESERVED_NAMES_TEXT}. "
                f"Received: {split!r}."
            )
    for column in _IDS:
        count = counts.get(column)
        wrong = manifest[column] < labels.MISSING
        if count is not None:
            wrong |= manifest[column] >= count
        if wrong.any():
            row = manifest[wrong].iloc[0]
            raise ValueError(
                f"Invalid manifest. Expected {column} ids in [-1, {count}). "
                f"Received: {row[column]} of {row['key']!r}."
            )
    if "age_years" in manifest:
        _check_years(manifest)
    _check_boxes(manifest)
    for column in extra_columns(manifest):
        if column in text_columns(manifest):
            continue
        if not pd.api.types.is_numeric_dtype(manifest[column]):
            raise ValueError(
                f"Invalid manifest. Extra column {column!r} must hold numbers. "
                f"Received: {manifest[column].iloc[0]!r}."
            )
    if not shared_subjects:
        check_subjects(manifest["subject"], manifest["split"])


def _check_years(manifest: pd.DataFrame) -> None:
    years = manifest["age_years"]
    wrong = (years != labels.MISSING) & ~years.between(0, labels.MAX_AGE)
    if wrong.any():
        row = manifest[wrong].iloc[0]
        raise ValueError(
            f"Invalid manifest. Expected age_years in [0, {labels.MAX_AGE}] or "
            f"{labels.MISSING}. Received: {row['age_years']} of {row['key']!r}."
        )


def _check_boxes(manifest: pd.DataFrame) -> None:
    for columns in (BOX_COLUMNS, LANDMARK_COLUMNS):
        found = [name for name in columns if name in manifest]
        if found and len(found) < len(columns):
            raise ValueError(
                f"Invalid manifest. Expected all of the columns {list(columns)}. "
                f"Received: {found}."
            )
    boxes = given_faces(manifest)[:, :4]
    known = ~np.isnan(boxes)
    right = (boxes[:, :2] < boxes[:, 2:]).all(axis=1) & np.isfinite(boxes).all(axis=1)
    wrong = known.any(axis=1) & ~right
    if wrong.any():
        row = np.flatnonzero(wrong)[0]
        raise ValueError(
            "Invalid manifest. Expected face_left < face_right and face_top < "
            f"face_bottom. Received: {boxes[row].tolist()} of "
            f"{manifest['key'].iloc[row]!r}."
        )


def given_faces(rows: pd.DataFrame) -> np.ndarray:
    """Returns given boxes and landmarks. Shape (num_rows, 14), NaN where unknown."""
    return rows.reindex(columns=FACE_COLUMNS).to_numpy("float64")


def outside_reason(box: np.ndarray, shape: Sequence[int]) -> str:
    """Returns why a given box cannot be cut out of an image, or `""`."""
    height, width = shape[:2]
    left, top, right, bottom = box[:4]
    if not (left >= width or top >= height or right <= 0 or bottom <= 0):
        return ""  # also for NaN, an unknown box
    return (
        f"box {[round(float(x), 1) for x in box[:4]]} is outside of the image of "
        f"{width} x {height} pixels"
    )


def check_one_face_per_image(manifest: pd.DataFrame) -> None:
    """Raises ValueError if whole images would be used and one has several boxes."""
    boxes = manifest.reindex(columns=["path", *BOX_COLUMNS]).drop_duplicates()
    twice = boxes["path"].duplicated() & boxes["face_left"].notna()
    if twice.any():
        raise ValueError(
            f"{boxes['path'][twice].nunique()} images have several rows with face "
            "boxes. Expected face crops (`crop_options`, `face_crop`; no --no-crop): "
            "their faces would all be the same whole image. First: "
            f"{boxes['path'][twice].iloc[0]!r}."
        )


def check_subjects(subjects: Iterable[str], splits: Iterable[str]) -> None:
    """Raises ValueError if a subject is in two splits; `''` is unknown.

    Both arguments have a value for each image. Shape (num_rows,).
    """
    table = pd.DataFrame({"subject": list(subjects), "split": list(splits)})
    table = table[table["subject"] != ""].drop_duplicates()
    shared = table["subject"][table["subject"].duplicated()].unique()
    if len(shared):
        first = shared[0]
        where = sorted(table["split"][table["subject"] == first])
        raise ValueError(
            f"{len(shared)} subjects are in more than one split: a model would be "
            f"tested on people it has seen. First: subject {first!r} in {where}."
        )


def extra_columns(manifest: pd.DataFrame) -> list[str]:
    """Returns the columns beside those every manifest has and those of faces."""
    known = (*MANIFEST_COLUMNS, *FACE_COLUMNS)
    return [c for c in manifest.columns if c not in known]


def text_columns(manifest: Manifest) -> tuple[str, ...]:
    """Returns the names of extra columns that hold texts, where they are there."""
    return (*OPTIONAL_TEXT, *manifest.keep_columns)


def summarize(rows: pd.DataFrame, age_groups: labels.AgeGroups) -> pd.DataFrame:
    """Returns counts: one row per split and gender, one column per age group."""
    groups = age_groups.names
    names = pd.DataFrame(
        {
            "split": rows["split"],
            "gender": [[*labels.GENDERS, "unknown"][g] for g in rows["gender"]],
            "age_group": [[*groups, "unknown"][a] for a in rows["age_group"]],
        }
    )
    table = pd.crosstab([names["split"], names["gender"]], names["age_group"])
    order = [n for n in (*groups, "unknown") if n in table]
    return table[order]


def write_manifest(manifest: Manifest, file: str | Path) -> None:
    """Writes a manifest as CSV, with a JSON file that describes its columns.

    Args:
        manifest: What a reader returned.
        file: The CSV file to write.

    Raises:
        ValueError: If it is no manifest, or a subject is in two splits.

    Example:
    >>> write_manifest(manifest, "manifest.csv")  # doctest: +SKIP
    """
    validate_manifest(manifest)
    file = Path(file)
    with files.atomic_write(file) as partial:
        manifest.to_csv(partial, index=False)
    optional = {
        "cleaning": manifest.cleaning,
        "cleaning_items": manifest.cleaning_items,
        "kept": list(manifest.keep_columns),
    }
    meanings = {
        "extra_heads": manifest.extra_heads,
        "age_groups": manifest.age_groups.to_list(),
        **{name: value for name, value in optional.items() if value},
    }
    files.write_json(file.with_suffix(".json"), meanings)


def read_manifest(file: str | Path, *, shared_subjects: bool = False) -> Manifest:
    """Reads a manifest written by `write_manifest`.

    Args:
        file: The CSV file.
        shared_subjects: Whether a subject may be in two splits: an audit tells which.
            Defaults to `False`.

    Raises:
        ValueError: If it is no manifest.

    Example:
    >>> manifest = read_manifest("manifest.csv")  # doctest: +SKIP
    """
    file = Path(file)
    if not file.is_file():
        raise ValueError(f"There is no manifest file {file}.")
    sidecar = file.with_suffix(".json")
    meanings = files.read_json(sidecar) if sidecar.is_file() else {}
    if not meanings.get("age_groups"):
        raise ValueError(
            f"{file} has no {sidecar.name} beside it that says what its age-group ids "
            "mean. Put back the file that `write_manifest` wrote, or read the CSV with "
            "`read_csv`."
        )
    texts = (*_TEXT, *OPTIONAL_TEXT, *meanings.get("kept", ()))
    columns = pd.read_csv(file, nrows=0).columns
    manifest = Manifest(
        pd.read_csv(
            file,
            dtype=dict.fromkeys(texts, "object"),
            keep_default_na=False,
            na_values={c: [""] for c in columns if c not in texts},
        )
    )
    manifest._age_groups = labels.AgeGroups.from_list(meanings["age_groups"])
    manifest.extra_heads = meanings.get("extra_heads", {})
    manifest.keep_columns = tuple(meanings.get("kept", ()))
    manifest.cleaning = meanings.get("cleaning")
    manifest.cleaning_items = meanings.get("cleaning_items", "")
    validate_manifest(manifest, shared_subjects=shared_subjects)
    return manifest
