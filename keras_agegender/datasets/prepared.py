"""Prepared datasets on disk."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from keras_agegender import files
from keras_agegender.console import quiet_datasets
from keras_agegender.encodings.head import Head, check_class_ids
from keras_agegender.encodings.head_types import HEAD_TYPES
from keras_agegender.faces.preprocessing import Preprocessing
from keras_agegender.labels import GENDERS, AgeGroups, get_age_groups

if TYPE_CHECKING:
    from keras_agegender.datasets.face_index import FaceIndex
    from keras_agegender.datasets.manifest import Manifest
    from keras_agegender.encodings.encoding import Encoding


# Classes of features that `prepare` writes -> the field that describes one. No other is
# opened: some of TensorFlow Datasets' own hold JSON in which a class is named again.
FEATURES = {
    f"tensorflow_datasets.core.features.{name}": field
    for name, field in {
        "features_dict.FeaturesDict": "features_dict",
        "class_label_feature.ClassLabel": "class_label",
        "image_feature.Image": "image",
        "scalar.Scalar": "tensor",
        "tensor_feature.Tensor": "tensor",
        "text_feature.Text": "text",
    }.items()
}
# Text and whole fields: `{SHARD_INDEX:c}` would format a number as a slash.
TEMPLATE = re.compile(r"(?:[\w.=-]|\{[A-Z_]+\})*")


def check_features(directory: Path, remedy: str) -> None:
    """Checks that a dataset reads only data from its own folder.

    TensorFlow Datasets imports whatever module features.json names, and reads shards
    from wherever dataset_info.json or a link points. Both files are parsed here the way
    it parses them; `remedy` is part of the error about a damaged one.
    """
    # Without TensorFlow, which is loaded when the dataset is opened.
    from tensorflow_datasets.core.proto import dataset_info_pb2, feature_pb2

    file = directory / "features.json"
    if file.is_file():
        _check_feature(file, "", _parse(file, feature_pb2.Feature(), remedy))
    file = directory / "dataset_info.json"
    if file.is_file():
        _check_info(file, _parse(file, dataset_info_pb2.DatasetInfo(), remedy))
    _check_links(directory)


def _parse(file: Path, message: Any, remedy: str) -> Any:
    from google.protobuf import json_format

    content = files.read_json(file, remedy)
    if not isinstance(content, dict):
        raise ValueError(f"{file} is damaged. {remedy}")
    try:
        return json_format.ParseDict(content, message)
    except json_format.ParseError as error:
        _refuse(file, "fields of tensorflow_datasets", str(error))


def _check_feature(file: Path, key: str, feature: Any) -> None:
    name, field = feature.python_class_name, feature.WhichOneof("content")
    at = f"{key or 'the whole'}: "
    if name not in FEATURES:
        _refuse(
            file,
            f"python_class_name to be one of {sorted(FEATURES)}",
            f"{at}python_class_name={name!r}",
        )
    if field != FEATURES[name]:
        _refuse(file, f"content {FEATURES[name]!r} of {name}", f"{at}{field!r}")
    if field in ("class_label", "image") and not _is_plain(key):
        # It is part of the name of the file with the names of classes.
        _refuse(file, f"the name of a {name} to be plain", repr(key))
    if field == "features_dict":
        for inner, value in feature.features_dict.features.items():
            _check_feature(file, f"{key}-{inner}" if key else inner, value)


def _check_info(file: Path, info: Any) -> None:
    if info.HasField("features"):
        _check_feature(file, "features", info.features)
    names = [("name", info.name), ("file_format", info.file_format)]
    for split in info.splits:
        names.append(("name of a split", split.name))
        names.append(("filepath_template", split.filepath_template))
        if not TEMPLATE.fullmatch(split.filepath_template):
            _refuse(
                file,
                "files of the folder, as "
                "'{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}'",
                f"filepath_template={split.filepath_template!r}",
            )
    for key, value in names:
        if not _is_plain(value):
            _refuse(file, "files of the folder", f"{key}={value!r}")


def _is_plain(name: str) -> bool:
    return not {"/", "\\", ":", "\0"} & set(name) and name not in (".", "..")


def _check_links(directory: Path) -> None:
    home = directory.resolve()
    for file in sorted(directory.iterdir()):
        if file.is_symlink() and not file.resolve().is_relative_to(home):
            raise ValueError(
                f"{file} is a link out of its dataset. Expected files of the folder. "
                f"Received: a link to {file.resolve()}."
            )


def _refuse(file: Path, expected: str, received: str) -> NoReturn:
    raise ValueError(
        f"{file} asks for more than data. Expected {expected}. Received: {received}."
    )


def check_encoding(
    encoding: Encoding,
    age_groups: AgeGroups,
    extra_heads: Mapping[str, Mapping[str, Any]],
    where: str,
) -> None:
    """Raises ValueError unless data (`where`) has what an encoding's heads ask for.

    Age groups must be equal, and a head must have the classes of its column, in order.
    """
    age = encoding.age_head
    if age is not None and not age.spec.in_years:
        if encoding.age_groups.bounds != age_groups.bounds:
            raise ValueError(
                f"Invalid `age_groups`. The encoding has {encoding.age_groups}; "
                f"{where} has {age_groups}."
            )
    for head in encoding.extra_heads:
        column = head.columns[0]
        declared = extra_heads.get(column, {})
        classes = tuple(declared.get("classes") or ())
        content = f"{len(classes)} classes ({', '.join(classes)})" if classes else ""
        numeric = bool(declared) and HEAD_TYPES[declared["kind"]].continuous
        if numeric and not head.spec.is_number:
            content = "numbers, no classes"
        elif not classes or (
            not head.spec.continuous
            and len(classes) == head.num_values
            and head.classes in ((), classes)
        ):
            continue
        raise ValueError(
            f"Invalid head {head.name!r}. Column {column!r} of {where} has {content}. "
            f"Received: head_type={head.head_type!r}, num_classes={head.num_classes}"
            + (f", classes={head.classes}." if head.classes else ".")
        )


def check_manifest_encoding(manifest: Manifest, encoding: Encoding) -> None:
    """Raises ValueError unless a manifest has what an encoding's heads ask for."""
    check_encoding(encoding, manifest.age_groups, manifest.extra_heads, "the manifest")
    for head in encoding.extra_heads:
        column = head.columns[0]
        if not head.spec.is_number and column in manifest:
            check_class_ids(head, column, manifest[column], head.num_values)


PREPARATION_FILE = "preparation.json"
STATUS_FILE = "status.csv"
CLEANING_FILE = "cleaning.csv"
CONTACT_SHEET_FILE = "doubtful.jpg"
AGAIN = "Prepare it again (--overwrite), or put the file back."


@dataclass(frozen=True)
class PreparedDataset:
    """A prepared dataset on disk.

    Attributes:
        builder: Its TensorFlow Datasets builder, read-only.
        splits: `train`, `validation`, `test` -> split expression.
        info: What preparation.json says: pixels, splits, counts, versions.
    """

    builder: Any
    splits: dict[str, str]
    info: dict[str, Any]

    @property
    def directory(self) -> Path:
        """Its folder."""
        return Path(self.builder.data_dir)

    @cached_property
    def data_sha256(self) -> str:
        """SHA-256 of its shards; the files are read once for each `PreparedDataset`."""
        return files.directory_hash(self.directory)

    @cached_property
    def face_index(self) -> FaceIndex:
        """Which faces it has; the shards are read once for each `PreparedDataset`."""
        from keras_agegender.datasets.face_index import index_faces

        return index_faces(self)

    @property
    def pixels(self) -> Preprocessing | None:
        """Its preprocessing; `None` if it was not written by `prepare`."""
        values = self.info.get("pixels")
        return Preprocessing.from_dict(values) if values else None

    def extra_heads(self) -> tuple[Head, ...]:
        """Returns a head for each extra column intended as an output."""
        return tuple(
            Head(name, column["kind"], classes=tuple(column["classes"]))
            for name, column in self.info.get("extra_heads", {}).items()
        )

    @property
    def age_groups(self) -> AgeGroups:
        """What its age-group ids stand for."""
        groups = self.info.get("age_groups")
        if groups:
            return AgeGroups.from_list(groups)
        # A dataset that `prepare` did not make says it with the names of its classes.
        names = self.builder.info.features["age_group"].names
        return get_age_groups(",".join(names))

    def check_encoding(self, encoding: Encoding) -> None:
        """Raises ValueError unless age groups and classes are those of an encoding."""
        check_encoding(
            encoding,
            self.age_groups,
            self.info.get("extra_heads", {}),
            f"the dataset in {self.directory}",
        )

    def num_faces(self, split: str) -> int:
        """Returns how many faces a split, or an expression over splits, has.

        Raises:
            ValueError: If there is no such split, or no face in it.
        """
        expression = self.splits.get(split, split)
        try:
            count = self.builder.info.splits[expression].num_examples
        except (KeyError, ValueError) as error:
            raise ValueError(
                f"Invalid `split`. Expected one of {sorted(self.splits)} or an "
                f"expression of {sorted(self.builder.info.splits)}. Received: "
                f"split={split!r}."
            ) from error
        if count == 0:
            raise ValueError(f"Split {split!r} of {self.directory} has no faces.")
        return count

    def as_dataset(self, split: str = "train") -> Any:
        """Returns the decoded examples of a split as a `tf.data.Dataset` of dicts."""
        return self.builder.as_dataset(split=self.splits.get(split, split))

    def read(self, expression: str, columns: Collection[str]) -> Any:
        """Reads some features in the order written, images undecoded.

        Args:
            expression: A TensorFlow Datasets split expression, such as
                `"fold_0+fold_1[:10]"`.
            columns: Features to read.
        """
        import tensorflow_datasets as tfds

        absent = sorted(set(columns) - set(self.builder.info.features))
        if absent:
            raise ValueError(
                f"The prepared dataset in {self.directory} has no column {absent}. "
                f"Columns: {sorted(self.builder.info.features)}."
            )
        undecoded = (
            {"image": tfds.decode.SkipDecoding()} if "image" in columns else None
        )
        return self.builder.as_dataset(
            split=expression,
            decoders=tfds.decode.PartialDecoding(
                dict.fromkeys(columns, True), decoders=undecoded
            ),
            read_config=tfds.ReadConfig(try_autocache=False, interleave_cycle_length=1),
        )


def load_prepared(directory: str | Path) -> PreparedDataset:
    """Opens a prepared dataset.

    Args:
        directory: Folder that `prepare` made, or any TensorFlow Datasets directory with
            the features `image`, `age_group` and `gender`.

    Raises:
        ValueError: If there is none, or it is not complete.

    Example:
    >>> load_prepared("data/adience").splits["test"]  # doctest: +SKIP
    'fold_4'
    """
    directory = check_prepared(directory)
    builder = _tfds().builder_from_directory(str(directory))
    absent = sorted({"image", "age_group", "gender"} - set(builder.info.features or ()))
    if absent:
        raise ValueError(f"The dataset in {directory} has no feature {absent}.")
    file = directory / PREPARATION_FILE
    info = read_preparation(directory) if file.is_file() else {}
    own = {name: name for name in builder.info.splits}
    return PreparedDataset(builder, info.get("splits") or own, info)


def check_prepared(directory: str | Path) -> Path:
    """Raises ValueError unless a folder holds a complete prepared dataset."""
    directory = Path(directory)
    if not directory.is_dir():
        unfinished = directory.with_name(directory.name + ".partial").is_dir()
        hint = " Its preparation was not finished: run it again." if unfinished else ""
        raise ValueError(f"There is no prepared dataset in {directory}.{hint}")
    if not (directory / "dataset_info.json").is_file():
        raise ValueError(
            f"{directory} is not a prepared dataset: it has no dataset_info.json. Make "
            "one with `agegender prepare`."
        )
    files.check_sizes(
        directory, AGAIN, (STATUS_FILE, CLEANING_FILE, CONTACT_SHEET_FILE)
    )
    check_features(directory, AGAIN)
    return directory


def read_preparation(directory: Path) -> dict[str, Any]:
    """Returns the content of preparation.json; ValueError if it is damaged."""
    info = files.read_json(directory / PREPARATION_FILE, AGAIN)
    if not isinstance(info, dict):
        raise ValueError(f"{directory / PREPARATION_FILE} is damaged. {AGAIN}")
    return info


def write_tfds(
    directory: Path,
    name: str,
    description: str,
    splits: Mapping[str, Any],
    extra: Mapping[str, str],
    age_groups: AgeGroups,
    beam_options: Any = None,
) -> None:
    """Writes examples as a TensorFlow Datasets directory."""
    tfds = _tfds()
    with _quiet_writing(tfds), files.disk_errors(directory):
        builder = tfds.dataset_builders.AdhocBuilder(
            name=name,
            version="1.0.0",
            features=_features(tfds, extra, age_groups),
            split_datasets=splits,
            description=description,
            data_dir=str(directory),
            disable_shuffling=True,
        )
        # What it prints on stdout is about its cache, which this is not.
        builder._log_download_bytes = builder._log_download_done = lambda: None
        builder.download_and_prepare(
            download_config=tfds.download.DownloadConfig(beam_options=beam_options)
        )
    made = Path(builder.data_dir)
    for shard in sorted(made.glob("*.tfrecord*")):
        _sort_features(shard)
    for file in made.iterdir():  # name/version/ is TFDS' cache layout, not ours
        os.replace(file, directory / file.name)
    made.rmdir()
    made.parent.rmdir()


def _sort_features(shard: Path) -> None:
    """Serializes a shard's examples again, with their features in the order of names.

    Protocol buffers write a map in an order that differs from process to process. The
    same images and labels would be other bytes, and another `data_sha256`.
    """
    import tensorflow as tf

    with files.atomic_write(shard) as partial, tf.io.TFRecordWriter(str(partial)) as to:
        for record in tf.data.TFRecordDataset(str(shard)).as_numpy_iterator():
            example = tf.train.Example.FromString(record)
            to.write(example.SerializeToString(deterministic=True))


def _features(tfds: Any, extra: Mapping[str, str], age_groups: AgeGroups) -> Any:
    import numpy as np

    features = tfds.features
    return features.FeaturesDict(
        {
            "image": features.Image(shape=(None, None, 3), encoding_format="jpeg"),
            "key": features.Text(),
            "age_group": features.ClassLabel(names=list(age_groups.names)),
            "gender": features.ClassLabel(names=list(GENDERS)),
            "subject": features.Text(),
            "source": features.Text(),
            "fold": features.Scalar(np.int64),
            "face_box": features.Tensor(shape=(4,), dtype=np.float32),
            "face_score": features.Scalar(np.float32),
            "face_status": features.Text(),
            "num_faces": features.Scalar(np.int64),
            **{
                name: features.Text()
                if kind == "str"
                else features.Scalar(np.dtype(kind))
                for name, kind in extra.items()
            },
        }
    )


def _tfds() -> Any:
    """Imports TensorFlow Datasets without its start-up lines."""
    import tensorflow  # noqa: F401, which the next line loads when it is used
    import tensorflow_datasets as tfds

    quiet_datasets()
    return tfds


@contextlib.contextmanager
def _quiet_writing(tfds: Any) -> Iterator[None]:
    """Turns off progress bars and queries to Google's bucket; restores both."""
    utils = tfds.core.utils
    switches = (
        (utils.tqdm_utils, "_active", False),
        (utils.gcs_utils, "_is_gcs_disabled", True),
    )
    before = [getattr(module, name) for module, name, _ in switches]
    try:
        for module, name, value in switches:
            setattr(module, name, value)
        yield
    finally:
        for (module, name, _), value in zip(switches, before, strict=True):
            setattr(module, name, value)


def read_columns(
    data: PreparedDataset | str | Path, split: str, columns: Collection[str]
) -> Any:
    """Returns `PreparedDataset.read` of a named split, with a known length."""
    import tensorflow as tf

    prepared = load_prepared(data) if isinstance(data, (str, Path)) else data
    count = prepared.num_faces(split)
    examples = prepared.read(prepared.splits.get(split, split), columns)
    return examples.apply(tf.data.experimental.assert_cardinality(count))


def read_rows(prepared: PreparedDataset, examples: Any) -> Iterator[dict[str, Any]]:
    """Yields examples read from a prepared dataset as NumPy values."""
    with naming_damage(prepared):
        yield from examples.as_numpy_iterator()


@contextlib.contextmanager
def naming_damage(prepared: PreparedDataset) -> Iterator[None]:
    """Turns TensorFlow's error about a damaged shard into one that names the shard."""
    import tensorflow as tf

    try:
        yield
    except tf.errors.DataLossError as error:
        directory = prepared.directory
        what = _damaged_shard(directory) or error.message.partition("\n")[0]
        raise ValueError(
            f"{directory} is damaged. {what}. `agegender verify {directory}` lists all "
            f"damaged files. {AGAIN}"
        ) from None


def _damaged_shard(directory: Path) -> str:
    """Names the first shard whose checksum differs; empty without checksums."""
    if not (directory / files.CHECKSUMS_FILE).is_file():
        return ""
    found = [d for d in files.verify(directory).differences if ".tfrecord" in d.file]
    return str(found[0]) if found else ""
