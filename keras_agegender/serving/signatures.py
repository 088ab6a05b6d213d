"""The signatures of an export: pixels in, answers about faces out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import keras
import tensorflow as tf

from keras_agegender.encodings.calibration import Calibration
from keras_agegender.encodings.encoding import Encoding
from keras_agegender.encodings.head import ANSWER
from keras_agegender.faces.boxes import full_box
from keras_agegender.faces.pixel_graph import PhotoFaces, PixelGraph

# Field of `Decoded` -> name of the exported output.
DECODED_NAMES = {
    "age_group": "age_group",
    "age_probabilities": "age_group_probabilities",
    "heads_agree": "heads_agree",
    "gender": "gender_id",
    "gender_probability": "male_probability",
    "age_years": "age_years",
    "median_age_group": "median_age_group",
}
# The same of `AnswerSets`: bool masks, a column for each age group or gender.
SET_NAMES = {"age_group": "age_group_set", "gender": "gender_set"}


def serving_functions(
    model: keras.Model,
    encoding: Encoding,
    graph: PixelGraph,
    calibration: Calibration | None = None,
) -> dict[str, Callable[..., dict[str, tf.Tensor]]]:
    """Returns the functions behind the signatures, by name.

    Args:
        model: A model without augmentation.
        encoding: What decodes its outputs.
        graph: What is done to the pixels, the model's input included.
        calibration: What makes its probabilities honest; `None` (default) leaves them.
    """
    path = graph.path
    shape = (None, *graph.image_size, 3)

    def faces(faces: tf.Tensor) -> dict[str, tf.Tensor]:
        outputs = _named_outputs(model(faces, training=False), encoding)
        if calibration is not None:
            outputs = calibration.apply(outputs, encoding)
        answers = dict(outputs)
        decoded = encoding.decode(outputs)
        if calibration is not None:
            for field, members in calibration.sets(decoded)._asdict().items():
                if members is not None:
                    answers[SET_NAMES[field]] = members
        for field, value in decoded._asdict().items():
            if value is not None:
                is_id = field in ("age_group", "gender", "median_age_group")
                value = tf.cast(value, tf.int64) if is_id else value
                answers[DECODED_NAMES[field]] = value
        for head in encoding.extra_heads:
            value = encoding.answer(head.name, outputs).values
            answers[f"{head.name}{ANSWER}"] = tf.cast(value, tf.float32)
        return answers

    def serving_default(image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        images = tf.map_fn(graph.face_file, image_bytes, fn_output_signature=tf.float32)
        return faces(tf.ensure_shape(images, shape))

    def whole_photo(photo_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        image = graph.decode(photo_bytes)
        answers = faces(graph.to_input(graph.whole(image))[tf.newaxis])
        box = full_box(tf.shape(image)[:2])[tf.newaxis]
        found = PhotoFaces(box, tf.zeros((1,)), tf.zeros((1, 5, 2)))
        return {**answers, **found._asdict()}

    def photo(photo_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        image = graph.decode(photo_bytes)
        found = graph.find(image)
        inputs = tf.map_fn(
            lambda face: graph.to_input(graph.face(image, *face)),
            (found.boxes, found.landmarks),
            fn_output_signature=tf.TensorSpec(shape[1:], tf.float32),
        )
        # Without a face a black one: fused convolutions take no empty batch.
        count = tf.shape(inputs)[0]
        inputs = tf.pad(
            inputs, [[0, tf.cast(count == 0, tf.int32)], [0, 0], [0, 0], [0, 0]]
        )
        answers = faces(tf.ensure_shape(inputs, shape))
        return {
            **{name: value[:count] for name, value in answers.items()},
            **found._asdict(),
        }

    functions: dict[str, Any] = {"serving_default": serving_default, "faces": faces}
    if path.crop is None:
        functions["photo"] = whole_photo
    elif path.uses_mtcnn:
        functions["photo"] = photo
    return functions


def _named_outputs(outputs: Any, encoding: Encoding) -> dict[str, Any]:
    if isinstance(outputs, Mapping):
        return {name: outputs[name] for name in encoding.output_names}
    return {encoding.output_names[0]: outputs}
