"""`tf.data` pipelines for training and evaluation."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import tensorflow as tf

from keras_agegender.console import progress_bar
from keras_agegender.datasets import manifest as manifests
from keras_agegender.datasets.manifest import Manifest
from keras_agegender.datasets.prepared import (
    PreparedDataset,
    check_manifest_encoding,
    load_prepared,
    read_columns,
    read_rows,
)
from keras_agegender.encodings.encoding import Encoding
from keras_agegender.encodings.head import (
    LABEL_COLUMNS,
    Head,
    known_targets,
    split_outputs,
)
from keras_agegender.encodings.registry import get_encoding
from keras_agegender.faces import preprocessing_graph
from keras_agegender.faces.decoding import decode_image, decode_jpeg
from keras_agegender.faces.geometry import resize, to_bytes
from keras_agegender.faces.images import UnreadableImageError, read_image
from keras_agegender.faces.preprocessing import CropOptions, Preprocessing
from keras_agegender.labels import MISSING
from keras_agegender.models.augmentation import (
    BLUR_KERNEL,
    ERASED_AREA,
    ERASED_VALUE,
    Augmentation,
)

# Key of an example: the row's face box and landmarks, see `manifest.given_faces`.
GIVEN_FACE = "given_face"
NUM_NAMED = 10  # images in an error


def read_examples(
    data: Any, split: str, encoding: Encoding, cache: bool | str
) -> tf.data.Dataset:
    """Reads compressed images and the labels that the encoding needs."""
    columns = {"image", "age_group", "gender", *encoding.columns}
    if isinstance(data, pd.DataFrame):
        manifests.validate_manifest(data)
        check_manifest_encoding(data, encoding)
        examples = _read_manifest(data, split, columns)
    else:
        data = load_prepared(data) if isinstance(data, (str, Path)) else data
        data.check_encoding(encoding)
        examples = read_columns(data, split, columns)
    if cache:
        cardinality = examples.cardinality()
        examples = examples.cache("" if cache is True else str(cache))
        examples = examples.apply(tf.data.experimental.assert_cardinality(cardinality))
    return examples


def load_images(
    examples: tf.data.Dataset, read: Callable[[dict], tf.Tensor]
) -> tuple[tf.data.Dataset, Callable[[dict], tf.Tensor]]:
    """Decodes all images into memory; examples then have indices in their place."""
    decoded = examples.map(
        lambda example: {"image": read(example), **example},
        num_parallel_calls=tf.data.AUTOTUNE,
    )
    rows = [*decoded.as_numpy_iterator()]
    sizes = {row["image"].shape[:2] for row in rows}
    if len(sizes) > 1:
        raise ValueError(
            "Invalid `in_memory`. Expected images of one size, such as face crops. "
            f"Received images of {len(sizes)} sizes, {sorted(sizes)[:3]} among them."
        )
    with tf.device("CPU"):
        images = tf.constant(np.stack([row.pop("image") for row in rows]))
    columns = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    columns["image"] = np.arange(len(rows))

    def read_again(example: dict) -> tf.Tensor:
        # Of unknown size, as a decoded file: preprocessing has branches for either.
        image = tf.gather(images, example.pop("image"))
        return tf.compat.v1.placeholder_with_default(image, (None, None, 3))

    return tf.data.Dataset.from_tensor_slices(columns), read_again


def _read_manifest(
    manifest: Manifest, split: str, columns: set[str]
) -> tf.data.Dataset:
    """Reads rows of some splits of a manifest, and their images' files."""
    names = split.split("+")
    known = sorted(manifest["split"].unique())
    absent = sorted(set(names) - set(known))
    if absent:
        raise ValueError(
            f"Invalid `split`. Expected names of {known} with '+' between them. "
            f"Received: split={split!r}."
        )
    absent = sorted(columns - {"image", *manifest})
    if absent:
        raise ValueError(
            f"The manifest has no column {absent}, which outputs of the model need. "
            f"Columns: {sorted(manifest)}."
        )
    rows = manifest[manifest["split"].isin(names)]
    values = {name: rows[name].to_numpy() for name in sorted(columns - {"image"})}
    values["image"] = rows["path"].to_numpy().astype(str)
    if "face_left" in rows:
        values[GIVEN_FACE] = manifests.given_faces(rows).astype("float32")
    check_images(rows)
    examples = tf.data.Dataset.from_tensor_slices(values)
    return examples.map(
        lambda example: {**example, "image": tf.io.read_file(example["image"])},
        num_parallel_calls=tf.data.AUTOTUNE,
    )


def check_images(rows: pd.DataFrame) -> None:
    """Raises ValueError that names images which cannot be read or hold no given box.

    Every image is decoded once, in parallel: a damaged file would end a training in
    the middle of an epoch, and its error would not name it.
    """
    faces = manifests.given_faces(rows)

    def problem(position: int) -> str:
        try:
            image = read_image(rows["path"].iloc[position])
        except UnreadableImageError as error:
            return str(error)
        reason = manifests.outside_reason(faces[position], image.shape)
        return f"{rows['key'].iloc[position]}: {reason}" if reason else ""

    bar = progress_bar(len(rows), "check images", "image", shown=len(rows) > 1000)
    problems = []
    with bar, ThreadPoolExecutor() as threads:
        for reason in threads.map(problem, range(len(rows))):
            bar.update(1)
            problems += [reason] if reason else []
    if problems:
        shown = problems[:NUM_NAMED]
        more = len(problems) - len(shown)
        raise ValueError(
            f"{len(problems)} of {len(rows)} images cannot be used: "
            f"{' '.join(shown)}{f' And {more} more.' if more else ''} Replace or "
            "remove them, or run `prepare`, which skips and counts such images."
        )


def local_batch_size(batch_size: int, shard: tuple[int, int] | None) -> int:
    """Returns this process' share of a batch."""
    if shard is None:
        return batch_size
    if batch_size % shard[1]:
        raise ValueError(
            f"Invalid `batch_size`. Expected a multiple of the {shard[1]} shards. "
            f"Received: batch_size={batch_size}."
        )
    return batch_size // shard[1]


def shard_examples(
    examples: tf.data.Dataset,
    fillers: tf.data.Dataset,
    count: int,
    batch_size: int,
    shard: tuple[int, int] | None,
) -> tf.data.Dataset:
    """Takes every n-th of `count` examples, padded to whole batches."""
    if shard is None:
        return examples
    index, shards = shard
    if missing := -count % batch_size:
        filling = fillers.take(1).repeat(missing).map(mask_labels)
        examples = examples.concatenate(filling)
    return examples.shard(shards, index)


def mask_labels(example: dict) -> dict:
    """Masks a face's labels, so that loss and metrics ignore it."""

    def mask(value: tf.Tensor) -> tf.Tensor:
        if value.dtype == tf.string:
            return value
        unknown = np.nan if value.dtype.is_floating else MISSING
        return tf.fill(tf.shape(value), tf.cast(unknown, value.dtype))

    return {
        name: value if name in ("image", GIVEN_FACE) else mask(value)
        for name, value in example.items()
    }


def encode_labels(
    example: Mapping[str, tf.Tensor], encoding: Encoding
) -> tuple[dict[str, tf.Tensor], dict[str, tf.Tensor]]:
    """Returns targets and sample weights of a batch, as from `Encoding.encode`."""
    targets: dict[str, tf.Tensor] = {}
    weights: dict[str, tf.Tensor] = {}
    for head in encoding.heads:
        raw = _raw_targets(head, example)
        unknown = tf.math.is_nan(raw)
        value = tf.where(unknown, 0.0, raw)
        if head.spec.sparse_targets:
            value = tf.cast(value, tf.int32)
        targets |= split_outputs(head, value)
        weight = tf.cast(known_targets(head, tf.logical_not(unknown)), tf.float32)
        for column, table in encoding.weight_tables(head):
            factor = _look_up(table, tf.cast(example[column], tf.int64))
            # A row per face, whatever the questions of the head.
            weight = tf.transpose(tf.transpose(weight) * factor)
        weights |= dict.fromkeys(head.output_names, weight)
    return targets, weights


def _raw_targets(head: Head, example: Mapping[str, tf.Tensor]) -> tf.Tensor:
    """Returns a head's targets, NaN where unknown; see `Encoding.encode`."""
    table = head.target_table
    if table is None:
        number = tf.cast(example[head.columns[0]], tf.float32)
        if head.columns[0] in LABEL_COLUMNS:
            number = tf.where(number == MISSING, np.nan, number)
        return (number - head.mean) / head.scale
    whole = not head.spec.in_years
    ids = [_class_ids(example[column], head.name, whole) for column in head.columns]
    one = head.class_ids(ids, lambda known: tf.cast(known, tf.int64))
    # An id beyond the classes must not be taken for another class.
    message = (
        f"Invalid {' or '.join(head.columns)} of head {head.name!r}. Expected ids in "
        f"[0, {head.num_values}) or {MISSING} for unknown. Received:"
    )
    possible = (one >= MISSING) & (one < head.num_values)
    return _look_up(table, _checked(one, possible, [message, tf.reduce_max(one)]))


def _class_ids(values: tf.Tensor, head_name: str, whole: bool) -> tf.Tensor:
    """Returns ids, `MISSING` for NaN; fractions are completed years, or an error."""
    if not values.dtype.is_floating:
        return tf.cast(values, tf.int64)
    values = tf.where(tf.math.is_nan(values), float(MISSING), values)
    floor = tf.floor(values)
    if whole:
        message = f"Invalid target of head {head_name!r}. Expected class ids. Received:"
        floor = _checked(floor, values == floor, [message, values])
    return tf.cast(floor, tf.int64)


def _checked(values: tf.Tensor, right: tf.Tensor, message: list) -> tf.Tensor:
    """Returns the values, once it is sure, in a graph too, that all are right."""
    check = tf.debugging.Assert(tf.reduce_all(right), message)
    with tf.control_dependencies([check] if check is not None else []):
        return tf.identity(values)


def _look_up(table: np.ndarray, ids: tf.Tensor) -> tf.Tensor:
    """Returns rows of a table; -1 selects the last row."""
    rows = tf.constant(table.astype(np.float32))
    return tf.gather(rows, tf.math.floormod(ids, len(table)))


def read_labels(
    data: PreparedDataset | str | Path,
    split: str,
    columns: Iterable[str] = (),
) -> dict[str, np.ndarray]:
    """Reads the labels of a split, in the order of `make_eval_dataset`.

    Args:
        data: A prepared dataset or its directory.
        split: A split name or expression.
        columns: Further columns to read.

    Returns:
        `key`, `age_group` and `gender` (-1 where unknown), `age_years` where the
        dataset has it, and the columns asked for. Shape (num_faces,) each.
    """
    prepared = load_prepared(data) if isinstance(data, (str, Path)) else data
    wanted = {"key", "age_group", "gender", *columns}
    wanted |= {"age_years"} & set(prepared.builder.info.features)
    examples = read_columns(prepared, split, wanted)
    rows = [*read_rows(prepared, examples)]
    labels = {name: np.array([row[name] for row in rows]) for name in wanted}
    labels["key"] = np.array([key.decode() for key in labels["key"]])
    return labels


def columns_without_labels(
    prepared: PreparedDataset, split: str, columns: Iterable[str]
) -> set[str]:
    """Returns the columns without any label in a split.

    Faces are read until all are found to have one: a few, as a rule.
    """
    missing = set(columns)
    examples = read_columns(prepared, split, missing)
    for row in read_rows(prepared, examples):
        missing -= {name for name in missing if _is_label(name, row[name])}
        if not missing:
            break
    return missing


def _warn_of_absent_labels(data: Any, split: str, encoding: Encoding) -> None:
    """Warns of heads for whose column no face of the split has a label."""
    columns = {column for head in encoding.heads for column in head.columns}
    if isinstance(data, pd.DataFrame):
        rows = data[data["split"].isin(split.split("+"))]
        absent = {
            column
            for column in columns & set(rows)
            if not any(_is_label(column, value) for value in rows[column].to_numpy())
        }
    else:
        data = load_prepared(data) if isinstance(data, (str, Path)) else data
        known = columns & set(data.builder.info.features)
        data.num_faces(split)  # says which splits there are
        absent = columns_without_labels(data, split, known) if known else set()
    outputs = [head.name for head in encoding.heads if set(head.columns) & absent]
    if outputs:
        warnings.warn(
            f"No face of split {split!r} has a label for {', '.join(outputs)} "
            f"({', '.join(sorted(absent))}), so that none is trained. "
            "`Encoding.without_columns` drops such outputs.",
            stacklevel=3,
        )


def _is_label(column: str, value: np.ndarray) -> bool:
    """Whether a value is known; unknown numbers are NaN, unknown ids -1."""
    if np.issubdtype(value.dtype, np.floating) and column not in LABEL_COLUMNS:
        return not np.isnan(value)
    return value != MISSING


def read_age_groups(examples: tf.data.Dataset) -> list[int]:
    """Returns the age group of every example."""
    return [int(a) for a in examples.map(lambda e: e["age_group"]).as_numpy_iterator()]


@dataclass(frozen=True)
class PipelinePreset:
    """How a stored image becomes the model's input.

    Attributes:
        image_size: Default (height, width) of the model's input, in pixels.
        enlarge: Side of the resized image over side of the model's input. Above 1
            the input is cut out of it: at random in training, from its center else.
        random_flip: Whether training mirrors half of the images here; the ResNets
            have a layer for it instead.
    """

    image_size: tuple[int, int]
    enlarge: float = 1.0
    random_flip: bool = False


# The report, 1.3: Caffe resizes to 256, cuts 227 and flips; ResNet resizes to 224.
# They are chosen by the public argument `pipeline` and the recipe key `data.pipeline`.
PIPELINE_PRESETS = {
    "caffe": PipelinePreset(image_size=(227, 227), enlarge=256 / 227, random_flip=True),
    "resnet": PipelinePreset(image_size=(224, 224)),
}


def get_pipeline_preset(name: str) -> PipelinePreset:
    """Returns the preprocessing of that name, `"caffe"` or `"resnet"`."""
    if name not in PIPELINE_PRESETS:
        raise ValueError(
            f"Invalid `pipeline`. Expected one of {sorted(PIPELINE_PRESETS)}. "
            f"Received: pipeline={name!r}."
        )
    return PIPELINE_PRESETS[name]


def input_path(
    stored: Preprocessing, image_size: tuple[int, int] | None, pipeline: str
) -> Preprocessing:
    """Returns the preprocessing from stored images to a model's input."""
    size = checked_image_size(image_size, pipeline)
    return stored.with_input(size, get_pipeline_preset(pipeline).enlarge)


def preprocess_for_evaluation(
    image: tf.Tensor, image_size: tuple[int, int], pipeline: str = "resnet"
) -> tf.Tensor:
    """Turns one image into the model's input, deterministically."""
    path = input_path(Preprocessing(), image_size, pipeline)
    return preprocessing_graph.PreprocessingGraph(path).to_input(image)


def preprocess_for_training(
    image: tf.Tensor,
    image_size: tuple[int, int],
    pipeline: str = "resnet",
    seed: tf.Tensor | tuple[int, int] = (0, 0),
) -> tf.Tensor:
    """Preprocesses and augments one training image."""
    preprocessing = get_pipeline_preset(pipeline)
    size = preprocessing_graph.enlarged_size(image_size, preprocessing.enlarge)
    image = preprocessing_graph.unit_pixels(image, size)
    # Seeds of their own: from one, place and mirroring would go together.
    of_crop, of_flip = tf.unstack(tf.random.split(seed, 2))
    if size != tuple(image_size):
        image = tf.image.stateless_random_crop(image, (*image_size, 3), of_crop)
    if preprocessing.random_flip:
        image = tf.image.stateless_random_flip_left_right(image, of_flip)
    return tf.ensure_shape(image, (*image_size, 3))


def image_decoder(data: Any) -> Callable[[tf.Tensor], tf.Tensor]:
    """Returns what decodes the image files of a prepared dataset or a manifest."""
    was_prepared = getattr(data, "pixels", None) is not None
    return decode_jpeg if was_prepared else decode_image


def image_reader(
    data: Any, face_crop: CropOptions | Preprocessing | None
) -> Callable[[dict], tf.Tensor]:
    """Returns what takes the file out of an example and makes an image of it."""
    decode = image_decoder(data)
    if face_crop is None:
        if isinstance(data, pd.DataFrame):
            manifests.check_one_face_per_image(data)
        return lambda example: decode(example.pop("image"))
    if isinstance(face_crop, CropOptions):
        face_crop = Preprocessing(crop=face_crop)
    _check_on_the_fly(face_crop)
    graph = preprocessing_graph.PreprocessingGraph(face_crop)
    return lambda example: graph.subject(
        decode(example.pop("image")), example.pop(GIVEN_FACE, None)
    )


def _check_on_the_fly(path: Preprocessing) -> None:
    if path.crop is not None and path.crop.fallback == "skip":
        raise ValueError(
            "Invalid `face_crop`. Expected a fallback of 'center' or 'full': no "
            "image is skipped inside tf.data. Received: fallback='skip'."
        )
    if path.crop is not None and not path.uses_mtcnn:
        raise ValueError(
            "Invalid `face_crop`. Expected the detector 'mtcnn': no other works inside "
            f"tf.data. Received: {path.detector}."
        )


def checked_image_size(
    image_size: tuple[int, int] | None, pipeline: str
) -> tuple[int, int]:
    """Returns (height, width); raises ValueError unless both are positive ints."""
    size = tuple(image_size or get_pipeline_preset(pipeline).image_size)
    if len(size) != 2 or not all(isinstance(x, int) and x > 0 for x in size):
        raise ValueError(
            "Invalid `image_size`. Expected (height, width) in pixels. "
            f"Received: image_size={image_size!r}."
        )
    return size


def make_eval_dataset(
    data: PreparedDataset | str | Path | Manifest,
    encoding: Encoding | str,
    *,
    split: str = "validation",
    pipeline: str = "resnet",
    image_size: tuple[int, int] | None = None,
    batch_size: int = 64,
    cache: bool | str = False,
    in_memory: bool = False,
    face_crop: CropOptions | Preprocessing | None = None,
    shard: tuple[int, int] | None = None,
) -> tf.data.Dataset:
    """Returns evaluation batches `(image, targets, sample_weights)`, in a fixed order.

    Nothing is shuffled, nothing is random; images are prepared as an exported model
    prepares them.

    Args:
        data: A prepared dataset or its directory, or a manifest.
        encoding: What the labels become; a name or an `Encoding`.
        split: As in `make_train_dataset`. Defaults to `"validation"`.
        pipeline: `"resnet"` (default) or `"caffe"`.
        image_size: (height, width) in pixels; `None` is the pipeline's own.
        batch_size: Faces per batch. Defaults to 64.
        cache: As in `make_train_dataset`.
        in_memory: As in `make_train_dataset`.
        face_crop: As in `make_train_dataset`.
        shard: As in `make_train_dataset`.

    Returns:
        A dataset as that of `make_train_dataset`.

    Raises:
        ValueError: If the dataset, the split or a head's column does not exist.
    """
    encoding = get_encoding(encoding)
    if isinstance(data, (str, Path)):
        data = load_prepared(data)
    size = checked_image_size(image_size, pipeline)
    examples = read_examples(data, split, encoding, cache)
    read = image_reader(data, face_crop)
    if in_memory:
        examples, read = load_images(examples, read)

    def prepare(example: dict) -> tuple:
        image = read(example)
        return preprocess_for_evaluation(image, size, pipeline), example

    count = int(examples.cardinality())
    examples = shard_examples(examples, examples, count, batch_size, shard)
    return batch_examples(
        examples, prepare, encoding, local_batch_size(batch_size, shard)
    )


def batch_examples(
    examples: tf.data.Dataset, prepare: Any, encoding: Encoding, batch_size: int
) -> tf.data.Dataset:
    """Decodes in parallel, batches, encodes a batch at a time, prefetches."""
    if batch_size < 1:
        raise ValueError(
            "Invalid `batch_size`. Expected a positive integer. "
            f"Received: batch_size={batch_size}."
        )

    def encode(image: tf.Tensor, labels: dict) -> tuple:
        return image, *encode_labels(labels, encoding)

    batches = examples.map(prepare, num_parallel_calls=tf.data.AUTOTUNE)
    batches = batches.batch(batch_size).map(encode)
    return batches.prefetch(tf.data.AUTOTUNE)


GRAPH_SEED = 87_654_321  # TensorFlow's own where no global seed is set
SEED_STEP = 1_000_003  # between the seeds of two epochs
MIXUP_SEED = 500_009  # added for draws of their own


def make_train_dataset(
    data: PreparedDataset | str | Path | Manifest,
    encoding: Encoding | str,
    *,
    split: str = "train",
    pipeline: str = "resnet",
    image_size: tuple[int, int] | None = None,
    batch_size: int = 64,
    seed: int = 0,
    shuffle_buffer: int = 20_000,
    balanced: bool = False,
    cache: bool | str = False,
    in_memory: bool = False,
    face_crop: CropOptions | Preprocessing | None = None,
    augment: Augmentation | None = None,
    mixup: float = 0.0,
    epochs: range | None = None,
    shard: tuple[int, int] | None = None,
) -> tf.data.Dataset:
    """Returns shuffled training batches `(image, targets, sample_weights)`.

    Images are decoded and prepared in parallel; order and randomness depend on `seed`
    alone, and differ from epoch to epoch.

    Args:
        data: A prepared dataset or its directory, or a manifest.
        encoding: What the labels become; a name or an `Encoding`.
        split: `"train"`, `"validation"` or `"test"` as the dataset declares them, or
            any TensorFlow Datasets split expression, `"fold_0+fold_2"` for instance. Of
            a manifest, names of its splits with `+` between them.
        pipeline: `"resnet"` (default) or `"caffe"`.
        image_size: (height, width) in pixels; `None` is the pipeline's own.
        batch_size: Faces per step, over all devices. Defaults to 64.
        seed: Seed of order, crops and flips. Defaults to 0.
        shuffle_buffer: Faces shuffled together, as compressed files: about 20 kB each.
            Defaults to 20,000.
        balanced: Whether every age group is drawn equally often, rare ones several
            times in an epoch; faces without an age group are one more. An epoch has as
            many faces as the split. Defaults to `False`.
        cache: `True` keeps the compressed files in memory after the first epoch, a path
            on disk. Defaults to `False`.
        in_memory: Whether to decode all images now and keep them, as uint8, in memory:
            height x width x 3 bytes each. They must be of one size. The batches are
            the same, and so are those of a resumed training. Defaults to `False`.
        face_crop: Finds and cuts out the face of every image, each time it is read;
            for a manifest or a dataset of whole images. The pixels are those of
            `prepare`, which does it once and says what it found. Rows of a manifest
            with a face box (`face_left`, …) are cropped by it. A `Preprocessing` says
            all of it, `CropOptions` what differs from `prepare`'s defaults. Defaults to
            `None`: images are taken as they are.
        augment: Random changes beside the pipeline's own; for a model without
            augmentation layers. Defaults to `None`.
        mixup: Parameter alpha of mixup (Zhang et al. 2018, arXiv 1710.09412): every
            batch is mixed with itself in reverse, by a share drawn from
            Beta(alpha, alpha), images and targets alike. 0 (default)
            mixes nothing.
        epochs: `None` (default) makes a dataset of one epoch, which every pass shuffles
            anew. Numbers of epochs make one of all of them in a row, for `fit` with
            `steps_per_epoch`: the order and randomness of an epoch depend on `seed` and
            its number alone, so that resumed training is identical.
        shard: `(index, count)` of the processes that train together: the dataset then
            has this one's share of every batch, `batch_size / count` faces. The last
            batch is filled up with faces that weigh nothing, so that all are of one
            size. Defaults to `None`: whole batches.

    Returns:
        A dataset of image float32 (batch, height, width, 3) in [0, 1], targets and
        sample weights.

    Raises:
        ValueError: If the dataset, the split or a head's column does not exist.

    Example:
    >>> train_ds = make_train_dataset("data/adience", "ordinal")  # doctest: +SKIP
    """
    encoding = get_encoding(encoding)
    if isinstance(data, (str, Path)):
        data = load_prepared(data)
    size = checked_image_size(image_size, pipeline)
    _warn_of_absent_labels(data, split, encoding)
    examples = read_examples(data, split, encoding, cache)
    read = image_reader(data, face_crop)
    if in_memory:
        examples, read = load_images(examples, read)
    count = int(examples.cardinality())

    def one_epoch(epoch: tf.Tensor | None) -> tf.data.Dataset:
        if epoch is not None:
            # TensorFlow mixes its global seed into every other one, and fails to with
            # a global seed of 0 and the seed a tensor. Here it shall not matter.
            tf.compat.v1.set_random_seed(GRAPH_SEED)
        # Without an epoch's number tf.data counts passes by itself.
        anew = {
            "seed": seed if epoch is None else seed + epoch * SEED_STEP,
            "reshuffle_each_iteration": epoch is None,
        }
        if balanced:
            shuffled = _balance(examples, count, groups, shuffle_buffer, anew)
        else:
            shuffled = examples.shuffle(min(shuffle_buffer, max(count, 1)), **anew)
        # A seed per face that is drawn before the parallel part, so that the threads'
        # order does not matter.
        draws = tf.data.Dataset.random(
            seed=anew["seed"], rerandomize_each_iteration=epoch is None
        )
        zipped = tf.data.Dataset.zip(
            shard_examples(shuffled, examples, count, batch_size, shard),
            draws if shard is None else draws.shard(shard[1], shard[0]),
        )
        batches = batch_examples(
            zipped, prepare, encoding, local_batch_size(batch_size, shard)
        )
        if not mixup:
            return batches
        draws = tf.data.Dataset.random(
            seed=anew["seed"] + MIXUP_SEED, rerandomize_each_iteration=epoch is None
        )
        return tf.data.Dataset.zip(batches, draws).map(mix)

    def mix(batch: tuple, draw: tf.Tensor) -> tuple:
        seeds = tf.stack([draw, tf.constant(seed, tf.int64)])
        images, targets, weights = batch
        return mix_pairs(images, targets, weights, draw_share(mixup, seeds))

    def prepare(example: dict, draw: tf.Tensor) -> tuple:
        image = read(example)
        seeds = tf.stack([draw, tf.constant(seed, tf.int64)])
        image = preprocess_for_training(image, size, pipeline, seeds)
        if augment is not None:
            image = augment_image(image, augment, seeds + 1)
        return image, example

    groups = read_age_groups(examples) if balanced else []
    if epochs is None:
        return one_epoch(None)
    # An epoch is made when the one before it ends: the dataset is as quick to build,
    # and as small, whatever their number.
    numbers = tf.data.Dataset.range(epochs.start, epochs.stop, epochs.step)
    steps = -(-count // batch_size)  # of each process too: a shard is filled up
    return numbers.flat_map(one_epoch).apply(
        tf.data.experimental.assert_cardinality(len(epochs) * steps)
    )


def draw_share(alpha: float, seed: Any) -> tf.Tensor:
    """Returns the larger of x and 1 - x for x drawn from Beta(alpha, alpha)."""
    # In float64, where the small numbers of a small alpha are not all 0.
    one, other = tf.unstack(
        tf.random.stateless_gamma((2,), seed, alpha, None, "float64")
    )
    share = tf.math.divide_no_nan(one, one + other)
    return tf.cast(tf.maximum(share, 1.0 - share), tf.float32)


def mix_pairs(
    images: tf.Tensor,
    targets: Mapping[str, tf.Tensor],
    weights: Mapping[str, tf.Tensor],
    share: tf.Tensor | float,
) -> tuple:
    """Mixes a batch with itself in reverse.

    Targets are mixed by the sample weights too, so that one without a label has no
    part in it, and the sample weights themselves. Class ids cannot be mixed: they stay
    those of the image with the larger share.
    """
    targets, weights = dict(targets), dict(weights)
    for name, target in targets.items():
        if not target.dtype.is_floating:
            continue
        own = share * weights[name]
        both = own + (1.0 - share) * tf.reverse(weights[name], [0])
        factor = tf.math.divide_no_nan(own, both)
        factor = tf.reshape(
            factor,
            tf.concat([tf.shape(factor), [1] * (target.ndim - factor.ndim)], 0),
        )
        targets[name] = factor * target + (1.0 - factor) * tf.reverse(target, [0])
        weights[name] = both
    images = share * images + (1.0 - share) * tf.reverse(images, [0])
    return images, targets, weights


def _balance(
    examples: tf.data.Dataset,
    count: int,
    ages: Sequence[int],
    shuffle_buffer: int,
    shuffle: Mapping[str, Any],
) -> tf.data.Dataset:
    """Samples all age groups with equal probability."""
    groups = []
    for group in sorted(set(ages)):
        members = examples.filter(
            lambda example, group=group: tf.cast(example["age_group"], "int64") == group
        )
        buffer = min(shuffle_buffer, ages.count(group))
        groups.append(members.shuffle(buffer, **shuffle).repeat())
    mixed = tf.data.Dataset.sample_from_datasets(
        groups,
        seed=shuffle["seed"],
        rerandomize_each_iteration=shuffle["reshuffle_each_iteration"],
    )
    return mixed.take(count).apply(tf.data.experimental.assert_cardinality(count))


# -- augmentation: what the layers of `models.augmentation` do, and more ---------------


def augment_image(image: tf.Tensor, augmentation: Augmentation, seed: Any) -> tf.Tensor:
    """Changes one image at random.

    Example:
    >>> image = tf.random.stateless_uniform((8, 8, 3), (1, 2))
    >>> augment_image(image, Augmentation(), (3, 4)).shape
    TensorShape([8, 8, 3])
    """
    shape = image.shape
    seeds = iter(tf.unstack(tf.random.split(seed, 12)))
    a = augmentation
    for asked, change in (
        (a.flip, lambda x, s: tf.image.stateless_random_flip_left_right(x, s)),
        (a.rotation or a.zoom or a.shift, lambda x, s: _move(x, a, s)),
        (a.contrast, lambda x, s: _change_contrast(x, a.contrast, s)),
        (a.brightness, lambda x, s: _in_range(x + _draw(s, a.brightness))),
        (a.saturation, lambda x, s: _change_saturation(x, a.saturation, s)),
        (a.blur, lambda x, s: _blur(x, a.blur, s)),
        (a.low_resolution, lambda x, s: _reduce(x, a.low_resolution, s)),
        (a.jpeg_quality, lambda x, s: _compress(x, a.jpeg_quality or 100, s)),
        (a.erasing, lambda x, s: _erase(x, a.erasing, s)),
    ):
        of_change = next(
            seeds
        )  # switching one change off leaves the others as they are
        if asked:
            image = change(image, of_change)
    return tf.ensure_shape(image, shape)


def _draw(seed: tf.Tensor, limit: float, shape: tuple[int, ...] = ()) -> tf.Tensor:
    """Samples numbers from [-limit, limit]."""
    return tf.random.stateless_uniform(shape, seed, -limit, limit)


def _in_range(image: tf.Tensor) -> tf.Tensor:
    return tf.clip_by_value(image, 0.0, 1.0)


def _move(image: tf.Tensor, a: Augmentation, seed: tf.Tensor) -> tf.Tensor:
    """Rotates, zooms and shifts in one step, so that pixels are interpolated once."""
    of_angle, of_zoom, of_shift = tf.unstack(tf.random.split(seed, 3))
    angle = _draw(of_angle, a.rotation * math.pi / 180)
    scale = 1.0 + _draw(of_zoom, a.zoom)
    size = tf.cast(tf.shape(image)[:2], tf.float32)
    down, right = tf.unstack(_draw(of_shift, a.shift, (2,)) * size)
    middle_y, middle_x = tf.unstack((size - 1) / 2)
    cos, sin = tf.cos(angle) * scale, tf.sin(angle) * scale
    x, y = -middle_x - right, -middle_y - down
    transform = tf.stack(  # pixel of the result -> pixel of the image
        [
            *(cos, -sin, middle_x + cos * x - sin * y),
            *(sin, cos, middle_y + sin * x + cos * y),
            *(0.0, 0.0),
        ]
    )
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=image[tf.newaxis],
        transforms=transform[tf.newaxis],
        output_shape=tf.shape(image)[:2],
        interpolation="BILINEAR",
        fill_mode="NEAREST",
        fill_value=0.0,
    )[0]


def _change_contrast(image: tf.Tensor, limit: float, seed: tf.Tensor) -> tf.Tensor:
    mean = tf.reduce_mean(image, axis=(0, 1), keepdims=True)
    return _in_range((image - mean) * (1.0 + _draw(seed, limit)) + mean)


def _change_saturation(image: tf.Tensor, limit: float, seed: tf.Tensor) -> tf.Tensor:
    factor = 0.5 + _draw(seed, limit)
    return _in_range(tf.image.adjust_saturation(image, factor / (1.0 - factor)))


def _blur(image: tf.Tensor, limit: float, seed: tf.Tensor) -> tf.Tensor:
    """Blurs with a standard deviation along each axis."""
    sigma = tf.random.stateless_uniform((2,), seed, 0.0, limit) + 1e-6
    places = tf.range(BLUR_KERNEL, dtype=tf.float32) - BLUR_KERNEL // 2
    weights = tf.exp(-tf.square(places[:, tf.newaxis] / sigma) / 2)
    weights /= tf.reduce_sum(weights, axis=0)
    kernel = weights[:, tf.newaxis, 0] * weights[tf.newaxis, :, 1]
    kernel = tf.tile(kernel[..., tf.newaxis, tf.newaxis], (1, 1, 3, 1))
    blurred = tf.nn.depthwise_conv2d(image[tf.newaxis], kernel, [1] * 4, "SAME")
    return _in_range(blurred[0])


def _reduce(image: tf.Tensor, limit: float, seed: tf.Tensor) -> tf.Tensor:
    size = tf.cast(tf.shape(image)[:2], tf.float32)
    share = 1.0 - tf.random.stateless_uniform((), seed, 0.0, limit)
    small = tf.maximum(tf.cast(tf.round(size * share), tf.int32), 1)
    return _in_range(resize(resize(image, small), tf.shape(image)[:2]))


def _compress(image: tf.Tensor, lowest: int, seed: tf.Tensor) -> tf.Tensor:
    quality = tf.random.stateless_uniform((), seed, lowest, 101, tf.int32)
    file = tf.raw_ops.EncodeJpegVariableQuality(
        images=to_bytes(image * 255.0), quality=quality
    )
    return tf.cast(decode_jpeg(file), tf.float32) / 255.0


def _erase(image: tf.Tensor, probability: float, seed: tf.Tensor) -> tf.Tensor:
    of_chance, of_area, of_place = tf.unstack(tf.random.split(seed, 3))
    size = tf.cast(tf.shape(image)[:2], tf.float32)
    sides = size * tf.sqrt(tf.random.stateless_uniform((2,), of_area, *ERASED_AREA))
    start = tf.random.stateless_uniform((2,), of_place) * (size - sides)
    rows, columns = (tf.range(side) for side in tf.unstack(size))
    inside_rows = (rows >= start[0]) & (rows < start[0] + sides[0])
    inside_columns = (columns >= start[1]) & (columns < start[1] + sides[1])
    chosen = tf.random.stateless_uniform((), of_chance) < probability
    inside = inside_rows[:, tf.newaxis] & inside_columns & chosen
    return tf.where(inside[..., tf.newaxis], ERASED_VALUE, image)
