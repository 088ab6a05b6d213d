"""tf.data pipelines from a prepared dataset to batches that `model.fit` takes.

In: a prepared dataset (a TensorFlow Datasets directory) or, to crop faces on the fly, a
manifest; and an encoding. Out: batches
`(image, targets, sample_weights)`: float32 images in [0, 1], and two dicts keyed by
output name. A sample weight is 0 where a face has no label for that output.

The report has two recipes for the pixels, `PIPELINES`. The evaluation half of each is
one function, `preprocess_for_evaluation`; exported models call the same one.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import tensorflow as tf

from keras_agegender.datasets.manifest import validate_manifest
from keras_agegender.encodings import NUM_GENDERS, NUM_GROUPS, Encoding, get_encoding
from keras_agegender.faces.images import read_image
from keras_agegender.labels import MISSING

if TYPE_CHECKING:
    from keras_agegender.datasets.prepared import PreparedDataset
    from keras_agegender.faces.cropping import CropOptions
    from keras_agegender.faces.graph_cropping import GraphCropper

SEED_STEP = 1_000_003  # between the seeds of two epochs


@dataclass(frozen=True)
class Pipeline:
    """How a stored picture becomes the model's input.

    Attributes:
        image_size: Default (height, width) of the model's input, in pixels.
        enlarge: Side of the resized picture over side of the model's input. Above 1
            the input is cut out of it: at random in training, from its centre else.
        random_flip: Whether training mirrors half of the pictures here; the ResNets
            have a layer for it instead.
    """

    image_size: tuple[int, int]
    enlarge: float = 1.0
    random_flip: bool = False


# The report, 1.3: Caffe resizes to 256, cuts 227 and flips; ResNet resizes to 224.
PIPELINES = {
    "caffe": Pipeline(image_size=(227, 227), enlarge=256 / 227, random_flip=True),
    "resnet": Pipeline(image_size=(224, 224)),
}


def get_pipeline(name: str) -> Pipeline:
    """Returns the pipeline of that name, `"caffe"` or `"resnet"`.

    Raises:
        ValueError: If there is none.
    """
    if name not in PIPELINES:
        raise ValueError(
            f"Invalid `pipeline`. Expected one of {sorted(PIPELINES)}. "
            f"Received: pipeline={name!r}."
        )
    return PIPELINES[name]


def _resized_size(pipeline: Pipeline, image_size: tuple[int, int]) -> tuple[int, int]:
    height, width = image_size
    return round(height * pipeline.enlarge), round(width * pipeline.enlarge)


def _resize(image: tf.Tensor, size: tuple[int, int]) -> tf.Tensor:
    """Resizes with antialiasing and scales to [0, 1]."""
    image = tf.cast(image, tf.float32) / 255.0
    image = tf.image.resize(image, size, method="bilinear", antialias=True)
    return tf.clip_by_value(image, 0.0, 1.0)  # the kernel's weights sum to 1.0000002


def preprocess_for_evaluation(
    image: tf.Tensor, image_size: tuple[int, int], pipeline: str = "resnet"
) -> tf.Tensor:
    """Turns one picture into the model's input, the same way every time.

    Args:
        image: RGB picture, values in [0, 255]. Shape (height, width, 3), uint8.
        image_size: (height, width) of the model's input, in pixels.
        pipeline: `"resnet"` (resize; the default) or `"caffe"` (resize larger, centre
            crop).

    Returns:
        float32 in [0, 1]. Shape (*image_size, 3).
    """
    height, width = image_size
    large_height, large_width = _resized_size(get_pipeline(pipeline), image_size)
    image = _resize(image, (large_height, large_width))
    top, left = (large_height - height) // 2, (large_width - width) // 2
    image = image[top : top + height, left : left + width]
    return tf.ensure_shape(image, (height, width, 3))


def preprocess_for_training(
    image: tf.Tensor,
    image_size: tuple[int, int],
    pipeline: str = "resnet",
    seed: tf.Tensor | tuple[int, int] = (0, 0),
) -> tf.Tensor:
    """Turns one picture into the model's input, at random where the recipe says so.

    Args:
        image: RGB picture, values in [0, 255]. Shape (height, width, 3), uint8.
        image_size: (height, width) of the model's input, in pixels.
        pipeline: `"resnet"` (nothing random here: its augmentation is in the model) or
            `"caffe"` (random crop, random horizontal flip).
        seed: Two integers; the same seed gives the same result. Shape (2,).

    Returns:
        float32 in [0, 1]. Shape (*image_size, 3).
    """
    recipe = get_pipeline(pipeline)
    size = _resized_size(recipe, image_size)
    image = _resize(image, size)
    if size != tuple(image_size):
        image = tf.image.stateless_random_crop(image, (*image_size, 3), seed)
    if recipe.random_flip:
        image = tf.image.stateless_random_flip_left_right(image, seed)
    return tf.ensure_shape(image, (*image_size, 3))


def encode_labels(
    example: Mapping[str, tf.Tensor], encoding: Encoding
) -> tuple[dict[str, tf.Tensor], dict[str, tf.Tensor]]:
    """Looks up targets and sample weights of a batch, as `Encoding.encode` gives them.

    Args:
        example: Labels `age_group` and `gender`, -1 where unknown, and the columns of
            the encoding's extra heads. Shape (batch,) each.
        encoding: What to encode them as.

    Returns:
        `(targets, sample_weights)`, dicts keyed by output name.
    """
    # -1 for a missing label is the tables' last row and column.
    cell = tf.stack(
        [
            tf.math.floormod(tf.cast(example["age_group"], tf.int64), NUM_GROUPS + 1),
            tf.math.floormod(tf.cast(example["gender"], tf.int64), NUM_GENDERS + 1),
        ],
        axis=-1,
    )
    targets, weights = {}, {}
    for head in encoding.heads:
        if head.column is None:
            table = encoding.target_tables[head.name].astype(np.float32)
            value = tf.gather_nd(tf.constant(table), cell)
        else:
            value = tf.cast(example[head.column], tf.float32)
            if head.kind != "regression":
                value = tf.where(value == MISSING, np.float32(np.nan), value)
        known = tf.logical_not(tf.math.is_nan(value))
        value = tf.where(known, value, 0.0)
        if head.kind == "categorical":
            targets[head.name] = tf.cast(value, tf.int32)
        else:
            targets[head.name] = value[..., tf.newaxis]
        weight = tf.cast(known, tf.float32)
        if head.name in encoding.weight_tables:
            table = encoding.weight_tables[head.name].astype(np.float32)
            factor = tf.gather_nd(tf.constant(table), cell)
            # A row per face, whatever the questions of the head.
            weight = tf.transpose(tf.transpose(weight) * factor)
        weights[head.name] = weight
    return targets, weights


def make_train_dataset(
    data: PreparedDataset | str | Path | pd.DataFrame,
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
    face_crop: CropOptions | GraphCropper | None = None,
    epochs: range | None = None,
    shard: tuple[int, int] | None = None,
) -> tf.data.Dataset:
    """Returns shuffled training batches `(image, targets, sample_weights)`.

    Pictures are decoded and prepared in parallel; order and randomness depend on `seed`
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
        face_crop: Finds and cuts out the face of every picture, each time it is read;
            for a manifest or a dataset of whole pictures. `prepare` does it once and
            says what it found. Defaults to `None`: pictures are crops already.
        epochs: `None` (default) makes a dataset of one epoch, which every pass shuffles
            anew. Numbers of epochs make one of all of them in a row, for `fit` with
            `steps_per_epoch`: the order and randomness of an epoch depend on `seed` and
            its number alone, so that training that is resumed goes on the same way.
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
    size = _checked_size(image_size, pipeline)
    examples = _read_examples(data, split, encoding, cache)
    read = _picture_reader(data, face_crop)
    count = int(examples.cardinality())

    def one_epoch(epoch: int | None) -> tf.data.Dataset:
        # Without an epoch's number tf.data counts passes by itself.
        anew = {
            "seed": seed + (epoch or 0) * SEED_STEP,
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
            _share(shuffled, examples, count, batch_size, shard),
            draws if shard is None else draws.shard(shard[1], shard[0]),
        )
        return _batch(zipped, prepare, encoding, _local_size(batch_size, shard))

    def prepare(example: dict, draw: tf.Tensor) -> tuple:
        image = read(example.pop("image"))
        seeds = tf.stack([draw, tf.constant(seed, tf.int64)])
        return preprocess_for_training(image, size, pipeline, seeds), example

    groups = _age_groups(examples) if balanced else []
    if epochs is None:
        return one_epoch(None)
    parts = [one_epoch(epoch) for epoch in epochs]
    return functools.reduce(tf.data.Dataset.concatenate, parts)


def make_eval_dataset(
    data: PreparedDataset | str | Path | pd.DataFrame,
    encoding: Encoding | str,
    *,
    split: str = "validation",
    pipeline: str = "resnet",
    image_size: tuple[int, int] | None = None,
    batch_size: int = 64,
    cache: bool | str = False,
    face_crop: CropOptions | GraphCropper | None = None,
    shard: tuple[int, int] | None = None,
) -> tf.data.Dataset:
    """Returns evaluation batches `(image, targets, sample_weights)`, in a fixed order.

    Nothing is shuffled, nothing is random; pictures are prepared as an exported model
    prepares them.

    Args:
        data: A prepared dataset or its directory, or a manifest.
        encoding: What the labels become; a name or an `Encoding`.
        split: As in `make_train_dataset`. Defaults to `"validation"`.
        pipeline: `"resnet"` (default) or `"caffe"`.
        image_size: (height, width) in pixels; `None` is the pipeline's own.
        batch_size: Faces per batch. Defaults to 64.
        cache: As in `make_train_dataset`.
        face_crop: As in `make_train_dataset`.
        shard: As in `make_train_dataset`.

    Returns:
        A dataset as that of `make_train_dataset`.

    Raises:
        ValueError: If the dataset, the split or a head's column does not exist.
    """
    encoding = get_encoding(encoding)
    size = _checked_size(image_size, pipeline)
    examples = _read_examples(data, split, encoding, cache)
    read = _picture_reader(data, face_crop)

    def prepare(example: dict) -> tuple:
        image = read(example.pop("image"))
        return preprocess_for_evaluation(image, size, pipeline), example

    count = int(examples.cardinality())
    examples = _share(examples, examples, count, batch_size, shard)
    return _batch(examples, prepare, encoding, _local_size(batch_size, shard))


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
        `key`, `age_group` and `gender` (-1 where unknown) and the columns asked for.
        Shape (num_faces,) each.
    """
    wanted = {"key", "age_group", "gender", *columns}
    examples = _read_columns(data, split, wanted)
    rows = [*examples.as_numpy_iterator()]
    labels = {name: np.array([row[name] for row in rows]) for name in wanted}
    labels["key"] = np.array([key.decode() for key in labels["key"]])
    return labels


def decode_picture(data: tf.Tensor) -> tf.Tensor:
    """Decodes the bytes of a JPEG or PNG to RGB. Returns uint8 (height, width, 3)."""
    return tf.io.decode_image(data, channels=3, expand_animations=False)


def _picture_reader(data: Any, face_crop: Any) -> Callable[[tf.Tensor], tf.Tensor]:
    """Returns what turns a file's bytes into the picture that is prepared."""
    # Pictures of a manifest may be of any kind; a prepared dataset has JPEGs.
    decode = _decode_any if isinstance(data, pd.DataFrame) else decode_picture
    if face_crop is None:
        return decode
    from keras_agegender.faces.graph_cropping import GraphCropper

    if not isinstance(face_crop, GraphCropper):
        face_crop = GraphCropper(face_crop)
    return lambda data: face_crop.subject(decode(data))


def _decode_any(data: tf.Tensor) -> tf.Tensor:
    """Decodes a picture of any kind, upright; see `read_image`."""
    image = tf.numpy_function(read_image, [data], tf.uint8)
    return tf.ensure_shape(image, (None, None, 3))


def _checked_size(image_size: tuple[int, int] | None, pipeline: str) -> tuple[int, int]:
    size = tuple(image_size or get_pipeline(pipeline).image_size)
    if len(size) != 2 or not all(isinstance(x, int) and x > 0 for x in size):
        raise ValueError(
            "Invalid `image_size`. Expected (height, width) in pixels. "
            f"Received: image_size={image_size!r}."
        )
    return size


def _read_examples(
    data: Any, split: str, encoding: Encoding, cache: bool | str
) -> tf.data.Dataset:
    """Reads compressed pictures and the labels that the encoding needs."""
    columns = {"image", "age_group", "gender", *encoding.columns.values()}
    if isinstance(data, pd.DataFrame):
        examples = _read_manifest(data, split, columns)
    else:
        examples = _read_columns(data, split, columns)
    if cache:
        cardinality = examples.cardinality()
        examples = examples.cache("" if cache is True else str(cache))
        examples = examples.apply(tf.data.experimental.assert_cardinality(cardinality))
    return examples


def _read_manifest(
    manifest: pd.DataFrame, split: str, columns: set[str]
) -> tf.data.Dataset:
    """Reads rows of some splits of a manifest, and their pictures' files."""
    validate_manifest(manifest)
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
    examples = tf.data.Dataset.from_tensor_slices(values)
    return examples.map(
        lambda example: {**example, "image": tf.io.read_file(example["image"])},
        num_parallel_calls=tf.data.AUTOTUNE,
    )


def _read_columns(data: Any, split: str, columns: set[str]) -> tf.data.Dataset:
    """Reads some features of a split, in a fixed order, the picture undecoded."""
    import tensorflow_datasets as tfds

    from keras_agegender.datasets.prepared import load_prepared

    prepared = load_prepared(data) if isinstance(data, (str, Path)) else data
    builder = prepared.builder
    expression = prepared.splits.get(split, split)
    count = prepared.num_faces(split)
    absent = sorted(columns - set(builder.info.features))
    if absent:
        raise ValueError(
            f"The prepared dataset in {builder.data_dir} has no column {absent}, which "
            f"outputs of the model need. Columns: {sorted(builder.info.features)}."
        )
    examples = builder.as_dataset(
        split=expression,
        decoders=tfds.decode.PartialDecoding(
            {name: True for name in columns},
            decoders={"image": tfds.decode.SkipDecoding()}
            if "image" in columns
            else None,
        ),
        read_config=tfds.ReadConfig(try_autocache=False, interleave_cycle_length=1),
    )
    return examples.apply(tf.data.experimental.assert_cardinality(count))


def _local_size(batch_size: int, shard: tuple[int, int] | None) -> int:
    """Returns how many faces of a batch this process has."""
    if shard is None:
        return batch_size
    if batch_size % shard[1]:
        raise ValueError(
            f"Invalid `batch_size`. Expected a multiple of the {shard[1]} shards. "
            f"Received: batch_size={batch_size}."
        )
    return batch_size // shard[1]


def _share(
    examples: tf.data.Dataset,
    fillers: tf.data.Dataset,
    count: int,
    batch_size: int,
    shard: tuple[int, int] | None,
) -> tf.data.Dataset:
    """Takes every n-th of `count` examples, filled up to whole batches."""
    if shard is None:
        return examples
    index, shards = shard
    if missing := -count % batch_size:
        filling = fillers.take(1).repeat(missing).map(_mask)
        examples = examples.concatenate(filling)
    return examples.shard(shards, index)


def _mask(example: dict) -> dict:
    """Takes a face's labels away: it weighs nothing in loss and metrics."""

    def mask(value: tf.Tensor) -> tf.Tensor:
        if value.dtype == tf.string:
            return value
        unknown = np.nan if value.dtype.is_floating else MISSING
        return tf.fill(tf.shape(value), tf.cast(unknown, value.dtype))

    return {name: mask(value) for name, value in example.items()}


def _age_groups(examples: tf.data.Dataset) -> list[int]:
    return [int(a) for a in examples.map(lambda e: e["age_group"]).as_numpy_iterator()]


def _balance(
    examples: tf.data.Dataset,
    count: int,
    ages: Sequence[int],
    shuffle_buffer: int,
    shuffle: Mapping[str, Any],
) -> tf.data.Dataset:
    """Draws from every age group there is with the same probability."""
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


def _batch(
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
