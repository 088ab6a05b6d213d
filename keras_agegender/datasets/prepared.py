"""Prepared datasets: face crops and labels as a TensorFlow Datasets directory.

What `prepare` writes and the input pipeline reads. Any TensorFlow user can open one
with `tfds.builder_from_directory`, without this package.
"""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_agegender.checksums import check_sizes
from keras_agegender.datasets.check_encoding import check_encoding
from keras_agegender.datasets.check_features import check_features
from keras_agegender.encodings.head import Head
from keras_agegender.files import disk_errors, read_json
from keras_agegender.labels import GENDERS, AgeGroups, get_age_groups
from keras_agegender.quiet import quiet_datasets, quiet_start

if TYPE_CHECKING:
    from keras_agegender.encodings.encoding import Encoding
from keras_agegender.faces.pixel_path import PixelPath

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
        """The folder it lies in."""
        return Path(self.builder.data_dir)

    @property
    def pixels(self) -> PixelPath | None:
        """What was done to its pixels; `None` where `prepare` did not make it."""
        values = self.info.get("pixels")
        return PixelPath.from_dict(values) if values else None

    def extra_heads(self) -> tuple[Head, ...]:
        """Returns a head for each extra column that is meant as an output."""
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
        """Raises ValueError unless the dataset has what an encoding's heads ask for.

        Its age groups must be the encoding's, and a column with classes must have as
        many of them as the head that is read from it.
        """
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
            raise ValueError(f"Split {split!r} of {self.directory} holds no face.")
        return count

    def as_dataset(self, split: str = "train") -> Any:
        """Returns the decoded examples of a split as a `tf.data.Dataset` of dicts."""
        return self.builder.as_dataset(split=self.splits.get(split, split))


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
    """Makes sure that a folder holds a prepared dataset, without opening it.

    Raises:
        ValueError: If there is none, or it is not complete.
    """
    directory = Path(directory)
    if not directory.is_dir():
        unfinished = directory.with_name(directory.name + ".partial").is_dir()
        hint = " Its preparation was not finished: run it again." if unfinished else ""
        raise ValueError(f"There is no prepared dataset in {directory}.{hint}")
    if not (directory / "dataset_info.json").is_file():
        raise ValueError(
            f"{directory} is no prepared dataset: it holds no dataset_info.json. Make "
            "one with `agegender prepare`."
        )
    check_sizes(directory, AGAIN, (STATUS_FILE, CLEANING_FILE, CONTACT_SHEET_FILE))
    check_features(directory, AGAIN)
    return directory


def read_preparation(directory: Path) -> dict[str, Any]:
    """Returns what preparation.json says.

    Raises:
        ValueError: If it is damaged.
    """
    info = read_json(directory / PREPARATION_FILE, AGAIN)
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
    """Writes examples as a TensorFlow Datasets directory.

    Args:
        directory: Empty or absent folder; dataset_info.json will lie right in it.
        name: Dataset name in snake case.
        description: What the dataset is, for its dataset_info.json.
        splits: Split name -> an iterable of (key, example) pairs, or a Beam transform
            that yields them, with the keys' order that of the examples. An example's
            image is a file object of a JPEG.
        extra: Extra column -> `"int64"`, `"float32"` or `"str"`.
        age_groups: What age-group ids stand for.
        beam_options: Beam's `PipelineOptions`, for transforms.
    """
    tfds = _tfds()
    with _silent_progress(), disk_errors(directory):
        builder = tfds.dataset_builders.store_as_tfds_dataset(
            name=name,
            version="1.0.0",
            features=_features(tfds, extra, age_groups),
            split_datasets=splits,
            description=description,
            data_dir=str(directory),
            disable_shuffling=True,
            download_config=tfds.download.DownloadConfig(beam_options=beam_options),
        )
    made = Path(builder.data_dir)
    for file in made.iterdir():  # name/version/ is TFDS' cache layout, not ours
        os.replace(file, directory / file.name)
    made.rmdir()
    made.parent.rmdir()


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
    """Imports TensorFlow Datasets and keeps it from asking the network."""
    with quiet_start():
        import tensorflow  # noqa: F401, which the next line loads when it is used
        import tensorflow_datasets as tfds
    quiet_datasets()

    with contextlib.suppress(AttributeError):
        tfds.core.utils.gcs_utils._is_gcs_disabled = True
    return tfds


@contextlib.contextmanager
def _silent_progress() -> Iterator[None]:
    tfds = _tfds()
    tfds.disable_progress_bar()
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # it prints where it writes
            yield
    finally:
        tfds.enable_progress_bar()
