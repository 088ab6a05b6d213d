"""tf.data pipelines from a prepared dataset to batches that `model.fit` takes."""

from __future__ import annotations

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
from keras_agegender.input_pipeline.labels import encode_labels
from keras_agegender.input_pipeline.pixels import (
    checked_image_size,
    picture_reader,
    preprocess_for_evaluation,
)
from keras_agegender.input_pipeline.reading import (
    local_batch_size,
    read_examples,
    shard_examples,
)


def make_eval_dataset(
    data: PreparedDataset | str | Path | pd.DataFrame,
    encoding: Encoding | str,
    *,
    split: str = "validation",
    pipeline: str = "resnet",
    image_size: tuple[int, int] | None = None,
    batch_size: int = 64,
    cache: bool | str = False,
    face_crop: CropOptions | PixelPath | None = None,
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
    if isinstance(data, (str, Path)):
        data = load_prepared(data)
    size = checked_image_size(image_size, pipeline)
    examples = read_examples(data, split, encoding, cache)
    read = picture_reader(data, face_crop)

    def prepare(example: dict) -> tuple:
        image = read(example.pop("image"))
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
