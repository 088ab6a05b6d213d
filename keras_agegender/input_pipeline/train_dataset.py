"""tf.data pipelines from a prepared dataset to batches that `model.fit` takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import tensorflow as tf

from keras_agegender.datasets.prepared import PreparedDataset, load_prepared
from keras_agegender.encodings.catalogue import get_encoding
from keras_agegender.encodings.encoding import Encoding

if TYPE_CHECKING:
    from keras_agegender.faces.cropping import CropOptions
    from keras_agegender.faces.pixel_path import PixelPath
    from keras_agegender.models.augmentation_options import Augmentation
from keras_agegender.input_pipeline.augment import augment_image
from keras_agegender.input_pipeline.eval_dataset import batch_examples
from keras_agegender.input_pipeline.labels import read_age_groups
from keras_agegender.input_pipeline.pixels import (
    checked_image_size,
    picture_reader,
    preprocess_for_training,
)
from keras_agegender.input_pipeline.reading import (
    local_batch_size,
    read_examples,
    shard_examples,
)

GRAPH_SEED = 87_654_321  # TensorFlow's own where no global seed is set
SEED_STEP = 1_000_003  # between the seeds of two epochs


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
    face_crop: CropOptions | PixelPath | None = None,
    augment: Augmentation | None = None,
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
            for a manifest or a dataset of whole pictures. The pixels are those of
            `prepare`, which does it once and says what it found. A `PixelPath` says
            all of it, `CropOptions` what differs from `prepare`'s defaults. Defaults to
            `None`: pictures are taken as they are.
        augment: Random changes beside the pipeline's own; for a model without
            augmentation layers. Defaults to `None`.
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
    if isinstance(data, (str, Path)):
        data = load_prepared(data)
    size = checked_image_size(image_size, pipeline)
    examples = read_examples(data, split, encoding, cache)
    read = picture_reader(data, face_crop)
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
        return batch_examples(
            zipped, prepare, encoding, local_batch_size(batch_size, shard)
        )

    def prepare(example: dict, draw: tf.Tensor) -> tuple:
        image = read(example.pop("image"))
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
