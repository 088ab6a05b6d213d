"""Whether the files that describe a prepared dataset ask for more than data."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NoReturn

from keras_agegender.files import read_json

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
    """Makes sure that opening a dataset imports nothing and reads from its folder only.

    TensorFlow Datasets imports whatever module features.json names, and reads shards
    from wherever dataset_info.json says. Both are parsed here as it parses them.

    Args:
        directory: A prepared dataset.
        remedy: What to do about a damaged file, as a sentence.

    Raises:
        ValueError: If they name anything else than features that `prepare` writes and
            files of the folder, or a file of the folder is a link that leads out of it.
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

    content = read_json(file, remedy)
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
