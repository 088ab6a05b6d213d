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
from keras_agegender.labels import MISSING
from keras_agegender.serving.output_names import DECODED_NAMES, SET_NAMES

# Of `photos`: how many faces were found in each photo.
COUNTS = "counts"


def serving_functions(
    model: keras.Model,
    encoding: Encoding,
    graph: PixelGraph,
    calibration: Calibration | None = None,
) -> dict[str, Callable[..., dict[str, tf.Tensor]]]:
    """Returns the functions behind the signatures, by name.

    `faces` takes crops as they are stored and resizes them; `inputs` what comes out of
    that: `Predictor` keeps its faces small until they are answered about.

    Args:
        model: A model without augmentation.
        encoding: What decodes its outputs.
        graph: What is done to the pixels, the model's input included.
        calibration: What makes its probabilities honest; `None` (default) leaves them.
    """
    path = graph.path
    shape = (None, *graph.image_size, 3)

    def inputs(inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        outputs = _named_outputs(model(inputs, training=False), encoding)
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

    def faces(faces: tf.Tensor) -> dict[str, tf.Tensor]:
        pixels = tf.map_fn(graph.to_input, faces, fn_output_signature=tf.float32)
        return inputs(tf.ensure_shape(pixels, shape))

    def serving_default(image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        images = tf.map_fn(graph.face_file, image_bytes, fn_output_signature=tf.float32)
        return inputs(tf.ensure_shape(images, shape))

    functions: dict[str, Any] = {
        "serving_default": serving_default,
        "faces": faces,
        "inputs": inputs,
    }
    if path.crop is None or path.uses_mtcnn:
        functions |= _photo_functions(inputs, graph)
    return functions


def _photo_functions(
    answer: Callable[..., dict[str, tf.Tensor]], graph: PixelGraph
) -> dict[str, Callable[..., dict[str, tf.Tensor]]]:
    """Returns `photo` and `photos`, which find the faces themselves.

    Args:
        answer: Answers about prepared faces.
        graph: What is done to the pixels.
    """
    shape = (None, *graph.image_size, 3)

    def whole_inputs(photo_bytes: tf.Tensor) -> tuple[tf.Tensor, PhotoFaces]:
        image = graph.decode(photo_bytes)
        box = full_box(tf.shape(image)[:2])[tf.newaxis]
        found = PhotoFaces(box, tf.zeros((1,)), tf.zeros((1, 5, 2)))
        return graph.to_input(graph.whole(image))[tf.newaxis], found

    def face_inputs(photo_bytes: tf.Tensor) -> tuple[tf.Tensor, PhotoFaces]:
        image = graph.decode(photo_bytes)
        found = graph.find(image)
        inputs = tf.map_fn(
            lambda face: graph.to_input(graph.face(image, *face)),
            (found.boxes, found.landmarks),
            fn_output_signature=tf.TensorSpec(shape[1:], tf.float32),
        )
        return inputs, found

    def any_number(inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        """Answers about no face too."""
        count = tf.shape(inputs)[0]
        # Without a face a black one: fused convolutions take no empty batch.
        padding = [[0, tf.cast(count == 0, tf.int32)], [0, 0], [0, 0], [0, 0]]
        answers = answer(tf.ensure_shape(tf.pad(inputs, padding), shape))
        return {name: value[:count] for name, value in answers.items()}

    inputs_of = whole_inputs if graph.path.crop is None else face_inputs

    def photo(photo_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        inputs, found = inputs_of(photo_bytes)
        return {**any_number(inputs), **found._asdict()}

    def photos(photo_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        rows = (shape, (None, 4), (None,), (None, 5, 2))

        def flat(data: tf.Tensor) -> tuple[tf.Tensor, ...]:
            pixels, found = inputs_of(data)
            return pixels, *found

        inputs, *found = tf.map_fn(
            flat,
            photo_bytes,
            fn_output_signature=tuple(
                tf.RaggedTensorSpec(row, tf.float32, ragged_rank=0) for row in rows
            ),
        )
        # Of no photo at all the pixels have no shape.
        together = any_number(tf.reshape(inputs.values, (-1, *shape[1:])))
        answers = {name: inputs.with_values(value) for name, value in together.items()}
        answers |= dict(zip(PhotoFaces._fields, found, strict=True))
        padded = {name: _padded(value) for name, value in answers.items()}
        return {**padded, COUNTS: tf.cast(inputs.row_lengths(), tf.int64)}

    return {"photo": photo, "photos": photos}


def _padded(rows: tf.RaggedTensor) -> tf.Tensor:
    """Makes rows of all photos equally long: ids with -1, all else with 0."""
    fill = tf.cast(MISSING if rows.dtype == tf.int64 else 0, rows.dtype)
    return rows.to_tensor(default_value=fill)


def _named_outputs(outputs: Any, encoding: Encoding) -> dict[str, Any]:
    if isinstance(outputs, Mapping):
        return {name: outputs[name] for name in encoding.output_names}
    return {encoding.output_names[0]: outputs}
