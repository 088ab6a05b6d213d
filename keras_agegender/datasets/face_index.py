"""Which faces a dataset holds."""

from __future__ import annotations

import csv
import hashlib
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from keras_agegender.datasets.manifest import (
    MANIFEST_COLUMNS,
    CleaningReport,
    Manifest,
    read_manifest,
    validate_manifest,
)
from keras_agegender.datasets.prepared import (
    STATUS_FILE,
    PreparedDataset,
    check_prepared,
    read_rows,
)
from keras_agegender.datasets.readers.adience import TREES, read_adience
from keras_agegender.datasets.readers.csv import USUAL_NAMES, read_csv_as_is
from keras_agegender.files import atomic_write, read_regular
from keras_agegender.labels import MISSING, AgeGroups

INDEX_COLUMNS = ("key", "subject", "source", "picture")
NUM_EXAMPLES = 3  # named in an error


@dataclass(frozen=True)
class FaceIndex:
    """The faces of a prepared dataset, without their pixels.

    Attributes:
        table: A row per face, in the order of the dataset: `split` (the one it was
            written to), `key`, `subject` (`""` where nobody says), `source` and
            `picture` (a hash of its compressed bytes).
    """

    table: pd.DataFrame

    @cached_property
    def _starts(self) -> dict[str, tuple[int, int]]:
        """Split -> (row of its first face, number of its faces)."""
        groups = self.table.groupby("split", sort=False).indices
        return {name: (int(rows[0]), len(rows)) for name, rows in groups.items()}

    @property
    def sources(self) -> list[str]:
        """What the faces were read from."""
        return sorted(self.table["source"].unique())

    def faces(self, expression: str) -> pd.DataFrame:
        """Returns the rows of a TensorFlow Datasets split expression, slices too."""
        import tensorflow_datasets as tfds

        counts = {
            name: tfds.core.SplitInfo(
                name=name, shard_lengths=[count], num_bytes=0, filename_template=None
            )
            for name, (_, count) in self._starts.items()
        }
        rows: list[int] = []
        parts = tfds.core.ReadInstruction.from_spec(expression).to_absolute(counts)
        for part in parts:
            start, count = self._starts[part.splitname]
            first, last = part.from_ or 0, part.to
            rows += range(start + first, start + (count if last is None else last))
        return self.table.iloc[rows]

    def write(self, file: Path) -> None:
        """Writes the index as a compressed CSV file, whole or not at all."""
        with atomic_write(file) as partial:
            self.table.to_csv(partial, index=False, compression="gzip")

    @classmethod
    def read(cls, file: Path) -> FaceIndex:
        """Reads what `write` wrote.

        Raises:
            ValueError: If it is damaged.
        """
        try:
            table = pd.read_csv(
                file, dtype=str, keep_default_na=False, compression="gzip"
            )
            return cls(table[["split", *INDEX_COLUMNS]].astype("object"))
        except (OSError, EOFError, ValueError, KeyError, zlib.error) as error:
            reason = " ".join(str(error).split())
            raise ValueError(
                f"{file} is damaged ({reason}). Put it back, or train anew "
                "(--overwrite)."
            ) from None


def index_faces(prepared: PreparedDataset, file: Path | None = None) -> FaceIndex:
    """Returns the index of a prepared dataset; reads every picture once, decodes none.

    Args:
        prepared: The dataset.
        file: Where the index is kept; read from there if it is there already. `None`
            keeps nothing.
    """
    if file is not None and file.is_file():
        return FaceIndex.read(file)
    rows: dict[str, list[str]] = {name: [] for name in ("split", *INDEX_COLUMNS)}
    for split in prepared.builder.info.splits:
        if not prepared.builder.info.splits[split].num_examples:
            continue
        wanted = {"image", "key", "subject", "source"}
        for face in read_rows(prepared, read_compressed(prepared, split, wanted)):
            rows["split"].append(split)
            rows["picture"].append(hashlib.sha256(face["image"]).hexdigest()[:32])
            for name in ("key", "subject", "source"):
                rows[name].append(face[name].decode() if name in face else "")
    index = FaceIndex(pd.DataFrame(rows, dtype="object"))
    if file is not None:
        index.write(file)
    return index


def read_compressed(prepared: PreparedDataset, split: str, columns: set[str]) -> Any:
    """Returns a split in the order of the shards, its pictures undecoded.

    Args:
        prepared: The dataset.
        split: A split name or expression.
        columns: Features to read, those that the dataset has.
    """
    import tensorflow_datasets as tfds

    wanted = columns & set(prepared.builder.info.features)
    skipped = {"image": tfds.decode.SkipDecoding()} if "image" in wanted else None
    return prepared.builder.as_dataset(
        split=split,
        decoders=tfds.decode.PartialDecoding(
            dict.fromkeys(wanted, True), decoders=skipped
        ),
        read_config=tfds.ReadConfig(try_autocache=False, interleave_cycle_length=1),
    )


def check_overlap(
    index: FaceIndex, splits: Mapping[str, str], allowed: tuple[str, ...] = ()
) -> None:
    """Raises ValueError if a face, person or picture is in two splits.

    Args:
        index: The dataset's index.
        splits: `train`, `validation`, `test` -> split expression.
        allowed: Two of the names, which may share what they like.
    """
    names = list(splits)
    for position, first in enumerate(names):
        for second in names[position + 1 :]:
            if {first, second} == set(allowed):
                continue
            ours, theirs = index.faces(splits[first]), index.faces(splits[second])
            for column, what in _WHAT.items():
                shared = _shared(ours[column], theirs[column])
                if not len(shared):
                    continue
                rows = ours[ours[column].isin(shared[:NUM_EXAMPLES])]
                examples = rows.drop_duplicates(column)["key"].tolist()
                pairs = [
                    repr(key) if key == other else f"{key!r} and {other!r}"
                    for key in examples
                    for other in [_partner(ours, theirs, column, key)]
                ]
                raise ValueError(
                    f"Invalid splits. {len(shared)} {what} are in {first!r} "
                    f"({splits[first]}) and in {second!r} ({splits[second]}): scores "
                    f"would be of faces seen before. For instance {'; '.join(pairs)}. "
                    "Take them out of one, or train on them all the same with --set "
                    "data.allow_overlap=true."
                )


_WHAT = {"key": "faces", "subject": "subjects", "picture": "pictures"}


def _shared(first: pd.Series, second: pd.Series) -> np.ndarray:
    shared = np.intersect1d(first.to_numpy(str), second.to_numpy(str))
    return shared[shared != ""]


def _partner(ours: pd.DataFrame, theirs: pd.DataFrame, column: str, key: str) -> str:
    value = ours.loc[ours["key"] == key, column].iloc[0]
    return theirs.loc[theirs[column] == value, "key"].iloc[0]


def seen_before(
    faces: pd.DataFrame, trained: pd.DataFrame, *, same_dataset: bool
) -> np.ndarray:
    """Returns which faces show a picture or a person that was trained on.

    Args:
        faces: Rows of an index.
        trained: Rows of the index of what was trained on.
        same_dataset: Whether keys and subjects of both mean the same; if not, pictures
            alone are compared.

    Returns:
        A boolean for each of `faces`.
    """
    columns = tuple(_WHAT) if same_dataset else ("picture",)
    seen = np.zeros(len(faces), bool)
    for column in columns:
        values = set(trained[column]) - {""}
        seen |= faces[column].isin(values).to_numpy()
    return seen


_IDS = ("fold", "age_group", "gender")
COLUMNS = ("key", "split", "subject", "source", *_IDS)
KINDS = ("manifest", "csv", "adience", "prepared")
NO_SPLIT = "all"  # where nobody says what trains and what tests


@dataclass(frozen=True)
class FaceTable:
    """The faces of any data.

    Attributes:
        kind: One of `HEAD_TYPES`.
        rows: A row per face and split it is in: `COLUMNS`, and `age_years` where known.
        age_groups: What age-group ids stand for.
        pictures: Yields the bytes of each row's picture file, in the order of the rows;
            `None` where it is not there.
        cleaning: What a reader did to the labels (`CleaningReport.counts`), where that
            was kept.
        left_out: (item, reason) of rows left out, where they are known one by one.
        status: Split -> status -> pictures, from a prepared dataset's status.csv.
    """

    kind: str
    rows: pd.DataFrame
    age_groups: AgeGroups
    pictures: Callable[[], Iterator[bytes | None]]
    cleaning: Mapping[str, Any] | None = None
    left_out: list[tuple[str, str]] = field(default_factory=list)
    status: dict[str, dict[str, int]] = field(default_factory=dict)


def kind_of(data: str | Path) -> str:
    """Returns what a path holds: `"manifest"`, `"csv"`, `"adience"` or `"prepared"`.

    Raises:
        ValueError: If it is none of them.
    """
    path = Path(data)
    if path.is_dir():
        if (path / "fold_0_data.txt").exists():
            return "adience"
        if (path / "dataset_info.json").exists():
            return "prepared"
        raise ValueError(
            f"Invalid data {path}. Expected a CSV file, a folder with Adience's "
            "fold_0_data.txt … fold_4_data.txt, or a prepared dataset. Received: a "
            "folder with neither of them."
        )
    if not path.is_file():
        if path.with_name(path.name + ".partial").is_dir():
            check_prepared(path)  # says that a preparation was not finished
        raise ValueError(f"There is no file or folder {path}.")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            names = next(csv.reader(file), [])
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(
            f"Invalid data {path}. Expected a CSV file: {error}."
        ) from None
    return "manifest" if set(MANIFEST_COLUMNS) <= set(names) else "csv"


def read_faces(
    data: str | Path | Manifest,
    splits: Mapping[str, str] | None = None,
    **options: Any,
) -> FaceTable:
    """Reads any data as a table of faces.

    Args:
        data: A manifest, its CSV file, any other CSV file, a folder with Adience's
            label files, or a prepared dataset.
        splits: Name -> split expression; of whole splits joined by `+`, where the data
            is not prepared. Splits named nowhere are left away. `None` takes the
            data's own.
        options: As `read_csv` or `read_adience` takes them.

    Raises:
        ValueError: If the data cannot be read, or an option does not belong to it.
    """
    kind = "manifest" if isinstance(data, pd.DataFrame) else kind_of(data)
    if options and kind in ("manifest", "prepared"):
        raise ValueError(
            f"Invalid option {sorted(options)[0]!r}. A {kind} was read before; options "
            "of readers are for other CSV files and Adience's label files."
        )
    if kind == "prepared":
        return _read_prepared(Path(data), splits)
    report: CleaningReport | None = None
    if isinstance(data, pd.DataFrame):
        validate_manifest(data, shared_subjects=True)
        manifest = data
    elif kind == "manifest":
        manifest = read_manifest(data, shared_subjects=True)
    elif kind == "adience":
        manifest, report = _read_adience(Path(data), options)
    else:
        manifest, report = _read_csv(Path(data), options)
    if splits is not None:
        manifest = _with_splits(manifest, splits)
    cleaning = report.counts() if report else manifest.cleaning
    wanted = [*COLUMNS, *({"age_years"} & set(manifest))]
    paths = manifest["path"].tolist()
    return FaceTable(
        kind,
        manifest[wanted].reset_index(drop=True),
        manifest.age_groups,
        lambda: (_bytes_of(path) for path in paths),
        cleaning,
        [item for item in report.items if item[1] in report.left_out] if report else [],
    )


def _read_adience(
    directory: Path, options: Mapping[str, Any]
) -> tuple[Manifest, CleaningReport]:
    images = options.get("images_dir")
    if images is None and any((directory / tree).is_dir() for tree in TREES):
        images = directory
    known = {k: v for k, v in options.items() if k in ("tree", "strict", "keep")}
    _check_options(options, {"images_dir", *known}, "Adience's label files")
    return read_adience(directory, images, shared_subjects=True, **known)


def _read_csv(
    file: Path, options: Mapping[str, Any]
) -> tuple[Manifest, CleaningReport]:
    columns = {f"{role}_column" for role in USUAL_NAMES}
    columns |= {"images_dir", "gender_values", "age_groups", "unmapped_ages"}
    _check_options(options, columns, "a CSV file")
    manifest, report, has_splits = read_csv_as_is(file, **options)
    if not has_splits:
        manifest["split"] = NO_SPLIT
    return manifest, report


def _check_options(options: Mapping[str, Any], known: set[str], what: str) -> None:
    unknown = sorted(set(options) - known)
    if unknown:
        raise ValueError(
            f"Invalid option {unknown[0]!r} of {what}. Expected one of {sorted(known)}."
        )


def _with_splits(manifest: Manifest, splits: Mapping[str, str]) -> Manifest:
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
    from keras_agegender.datasets.prepared import load_prepared, read_rows

    prepared = load_prepared(directory)
    names = dict(splits if splits is not None else prepared.splits)
    for name in names.values():
        prepared.num_faces(name)  # says which splits there are
    features = set(prepared.builder.info.features)
    wanted = {*COLUMNS, "age_years"} - {"split"} & features
    rows: list[dict[str, Any]] = []
    for name, expression in names.items():
        examples = read_compressed(prepared, expression, wanted)
        for face in read_rows(prepared, examples):
            rows.append({"split": name} | {c: _plain(face[c]) for c in wanted})
    table = pd.DataFrame(rows)
    for column in COLUMNS:
        if column not in table:
            table[column] = MISSING if column in _IDS else ""

    def pictures() -> Iterator[bytes]:
        for expression in names.values():
            examples = read_compressed(prepared, expression, {"image"})
            for face in read_rows(prepared, examples):
                yield face["image"]

    return FaceTable(
        "prepared",
        table,
        prepared.age_groups,
        pictures,
        prepared.info.get("cleaning"),
        status=_read_status(directory, names, prepared.builder.info.splits),
    )


def _plain(value: Any) -> Any:
    return value.decode() if isinstance(value, bytes) else value.item()


def _read_status(
    directory: Path, names: Mapping[str, str], own: Any
) -> dict[str, dict[str, int]]:
    """Returns counts by status of each split that is made of whole splits.

    Without such, by the splits that were written.
    """
    file = directory / STATUS_FILE
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
