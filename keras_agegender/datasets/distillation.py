"""Distillation: training batches whose targets are partly teachers' predictions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_agegender.encodings.encoding import Encoding, check_output_names
from keras_agegender.encodings.head_types import HEAD_TYPES
from keras_agegender.encodings.registry import get_encoding
from keras_agegender.models.weights import match_heads, stored_encoding


def distill(
    batches: tf.data.Dataset,
    teachers: keras.Model | Sequence[keras.Model],
    encoding: Encoding | str,
    *,
    weight: float = 0.5,
    outputs: Sequence[str] | None = None,
    flip: bool = False,
) -> tf.data.Dataset | Iterator[tuple]:
    """Returns the batches with targets between the labels and teachers' predictions.

    Teachers see the same images as the student, augmentation of the data included,
    resized to their own input. As the loss is linear in the target, a target of
    `(1 - weight) * label + weight * prediction` weights the losses to both that way.
    Targets without a label still have no weight.

    Args:
        batches: Batches of `make_train_dataset`: `(image, targets, weights)`.
        teachers: A model, or several whose predictions are averaged, with outputs of
            the same names, sizes and classes. They may have further outputs. Binary
            outputs whose two classes have the other order are converted.
        encoding: The student's, which the targets are of; a name or an `Encoding`.
        weight: Share of the prediction, in (0, 1]. Defaults to 0.5.
        outputs: Names of the outputs to mix. Those of categorical heads, whose targets
            are ids, and of regressions cannot be mixed. Defaults to `None`: all that
            can.
        flip: Whether predictions are averaged over each image and its mirror image.
            Defaults to `False`.

    Returns:
        On TensorFlow a dataset like `batches`; on other backends a Python generator of
        the same batches, as NumPy arrays, which `fit` takes with `steps_per_epoch`.

    Raises:
        ValueError: If the weight is out of range, or an output cannot be mixed or is
            not one of a teacher's.

    Example:
    >>> small = make_train_dataset("data/utkface", "years")  # doctest: +SKIP
    >>> small = distill(small, large_model, "years")  # doctest: +SKIP

    Source: Hinton et al., "Distilling the Knowledge in a Neural Network", 2015 (arXiv
    1503.02531), at temperature 1; the same view for both: Beyer et al., "Knowledge
    distillation: A good teacher is patient and consistent", CVPR 2022 (arXiv
    2106.05237).
    """
    if not 0 < weight <= 1:
        raise ValueError(
            f"Invalid `weight`. Expected a number in (0, 1]. Received: {weight}."
        )
    if isinstance(teachers, keras.Model):
        teachers = [teachers]
    encoding = get_encoding(encoding)
    reversed_outputs = []
    for teacher in teachers:
        names = _mixed_outputs(encoding, batches.element_spec[1], teacher, outputs)
        reversed_outputs.append(_reversed_outputs(encoding, teacher, names))

    def in_order(found: Mapping, place: int) -> dict:
        return {**found, **{n: 1.0 - found[n] for n in reversed_outputs[place]}}

    def view(image: tf.Tensor, teacher: keras.Model) -> tf.Tensor:
        size = teacher.input_shape[1:3]
        if None not in size and tuple(image.shape[1:3]) != tuple(size):
            image = tf.image.resize(image, size, antialias=True)
        return image

    def mix(targets: Mapping, found: Sequence[Mapping]) -> dict:
        mixed = {
            name: (1.0 - weight) * targets[name]
            + weight * (sum(f[name] for f in found) / len(found))
            for name in names
        }
        return {**targets, **mixed}

    def predict(image: tf.Tensor, targets: dict, weights: dict) -> tuple:
        found = []
        for place, teacher in enumerate(teachers):
            seen = view(image, teacher)
            found.append(in_order(teacher(seen, training=False), place))
            if flip:
                mirrored = teacher(seen[:, :, ::-1], training=False)
                found.append(in_order(mirrored, place))
        return image, mix(targets, found), weights

    def generate(batches: Any) -> Iterator[tuple]:
        for image, views, targets, weights in batches.as_numpy_iterator():
            found = []
            for place, (teacher, seen) in enumerate(zip(teachers, views, strict=True)):
                found.append(in_order(teacher.predict_on_batch(seen), place))
                if flip:
                    mirrored = teacher.predict_on_batch(seen[:, :, ::-1])
                    found.append(in_order(mirrored, place))
            yield image, mix(targets, found), weights

    if keras.backend.backend() == "tensorflow":  # whose models run inside tf.data
        return batches.map(predict).prefetch(tf.data.AUTOTUNE)
    return generate(
        batches.map(lambda x, y, w: (x, tuple(view(x, t) for t in teachers), y, w))
    )


def _reversed_outputs(
    encoding: Encoding, teacher: keras.Model, names: Sequence[str]
) -> list[str]:
    """Returns binary outputs with the other order; checks that classes are the same."""
    known = stored_encoding(teacher)
    found = []
    for match in match_heads(known, encoding).values() if known else ():
        mixed = [n for n in (match.new.output_names if match.new else ()) if n in names]
        if mixed and match.reason:
            raise ValueError(
                f"Invalid `teachers`. Output {mixed[0]!r} of {teacher.name!r} predicts "
                f"something else: {match.reason}. Select others with `outputs`."
            )
        found += mixed if match.order else []
    return found


def _mixed_outputs(
    encoding: Encoding,
    targets: Mapping[str, tf.TensorSpec],
    teacher: keras.Model,
    outputs: Sequence[str] | None,
) -> list[str]:
    """Returns the names of the outputs to mix; checks that a teacher has them."""
    can_be = [
        name
        for head in encoding.heads
        for name in head.output_names
        if head.spec.soft_targets
    ]
    check_output_names(outputs or (), can_be, "outputs")
    names = can_be if outputs is None else list(outputs)
    if not names:
        raise ValueError(
            "Invalid `encoding`. Expected an output whose target is a probability, of "
            f"the head types {[n for n, t in HEAD_TYPES.items() if t.soft_targets]}. "
            f"Received outputs: {list(encoding.output_names)}."
        )
    shapes = {
        name: tuple(output.shape[1:])
        for name, output in zip(teacher.output_names, teacher.outputs, strict=True)
    }
    for name in names:
        expected = tuple(targets[name].shape[1:])
        if shapes.get(name) != expected:
            raise ValueError(
                f"Invalid `teachers`. Expected an output {name!r} of shape {expected} "
                f"for each face. Received the outputs {shapes}."
            )
    return names
