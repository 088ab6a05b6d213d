"""Distillation: training batches whose targets are partly a teacher's answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import keras
import tensorflow as tf

from keras_agegender.encodings.encoding import Encoding, check_output_names
from keras_agegender.encodings.head_types import HEAD_TYPES
from keras_agegender.encodings.registry import get_encoding

# Losses whose targets may be any probabilities, not just labels.


def distill(
    batches: tf.data.Dataset,
    teacher: keras.Model,
    encoding: Encoding | str,
    *,
    weight: float = 0.5,
    outputs: Sequence[str] | None = None,
) -> tf.data.Dataset:
    """Returns the batches with targets between the labels and a teacher's answers.

    The teacher sees the very pictures that the student does, augmentation included,
    resized to its own input. As the loss is linear in the target, a target of
    `(1 - weight) · label + weight · answer` weighs the losses towards both that way.
    Targets without a label still count for nothing.

    Args:
        batches: As `make_train_dataset` makes them: `(image, targets, weights)`.
        teacher: A model with outputs of the same names and sizes; more do no harm.
        encoding: The student's, which the targets are of; a name or an `Encoding`.
        weight: Share of the teacher's answer, in (0, 1]. Defaults to 0.5.
        outputs: Names of the outputs to mix. Those of categorical heads, whose targets
            are ids, and of regressions cannot be. Defaults to `None`: all that can.

    Returns:
        A dataset like the one given.

    Raises:
        ValueError: If the weight is out of range, or an output cannot be mixed or is
            not one of the teacher's.

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
    if keras.backend.backend() != "tensorflow":
        raise ValueError(
            "Invalid Keras backend for distillation. Expected 'tensorflow', whose "
            f"models run inside tf.data. Received: {keras.backend.backend()!r}."
        )
    names = _mixed_outputs(
        get_encoding(encoding), batches.element_spec[1], teacher, outputs
    )
    size = teacher.input_shape[1:3]

    def mix(image: tf.Tensor, targets: dict, weights: dict) -> tuple:
        seen = image
        if None not in size and tuple(image.shape[1:3]) != tuple(size):
            seen = tf.image.resize(image, size, antialias=True)
        answers = teacher(seen, training=False)
        mixed = {
            name: (1.0 - weight) * targets[name] + weight * answers[name]
            for name in names
        }
        return image, {**targets, **mixed}, weights

    return batches.map(mix).prefetch(tf.data.AUTOTUNE)


def _mixed_outputs(
    encoding: Encoding,
    targets: Mapping[str, tf.TensorSpec],
    teacher: keras.Model,
    outputs: Sequence[str] | None,
) -> list[str]:
    """Returns the names of the outputs to mix, once it is sure that they can be."""
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
                f"Invalid `teacher`. Expected an output {name!r} of shape {expected} "
                f"for each face. Received the outputs {shapes}."
            )
    return names
