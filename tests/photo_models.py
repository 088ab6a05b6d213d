"""A small ONNX file that predicts photos: two faces at fixed shares of the photo."""

from __future__ import annotations

import json

import numpy as np

import keras_agegender as kag

# left, top, right, bottom as shares of the photo; the second is left of the first.
BOXES = ((0.5, 0.25, 0.75, 0.75), (0.125, 0.25, 0.375, 0.75))
SCORES = (0.95, 0.85)
YEARS = (41, 8)


def years_distribution(year):
    """Probabilities of 0 to 100 years: a triangle of three years on both sides."""
    shares = np.clip(4 - np.abs(np.arange(101) - year), 0, None).astype("float32")
    return shares / shares.sum()


def write_photo_model(file, boxes=BOXES, scores=SCORES, years=YEARS, **metadata):
    """Writes the file; returns its path."""
    import onnx
    from onnx import TensorProto as Type, helper, numpy_helper

    count = len(boxes)
    encoding = kag.get_encoding("years")
    ages = np.stack([years_distribution(year) for year in years])
    groups = np.zeros((count, 8), "float32")
    groups[:, 4] = 1.0
    values = {
        "scores": np.array(scores, "float32"),
        "landmarks": np.zeros((count, 5, 2), "float32"),
        "age": ages,
        "gender": np.full((count, 1), 0.25, "float32"),
        "age_group": np.full(count, 4, "int64"),
        "age_group_probabilities": groups,
        "age_years": np.array(years, "float32"),
        "median_age_group": np.full(count, 4, "int64"),
        "gender_id": np.zeros(count, "int64"),
        "male_probability": np.full(count, 0.25, "float32"),
        "heads_agree": np.ones(count, bool),
    }
    constants = {**values, "shares": np.array(boxes, "float32"), "axes": [2, 1, 0]}
    constants["turn"] = np.array([1, 0, 1, 0], "int64")
    del constants["axes"]
    nodes = [
        helper.make_node("Constant", [], [f"{name}_value" if name in values else name],
                         value=numpy_helper.from_array(np.asarray(value)))
        for name, value in constants.items()
    ] + [helper.make_node("Identity", [f"{name}_value"], [name]) for name in values] + [
        helper.make_node("Shape", ["image"], ["shape"], start=0, end=2),
        helper.make_node("Gather", ["shape", "turn"], ["sides"]),
        helper.make_node("Cast", ["sides"], ["limits"], to=Type.FLOAT),
        helper.make_node("Mul", ["shares", "limits"], ["boxes"]),
    ]  # fmt: skip
    outputs = [
        helper.make_tensor_value_info(
            name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape
        )
        for name, value in values.items()
    ]
    outputs.append(helper.make_tensor_value_info("boxes", Type.FLOAT, (count, 4)))
    image = helper.make_tensor_value_info("image", Type.UINT8, ("height", "width", 3))
    graph = helper.make_graph(nodes, "photos", [image], outputs)
    opset = helper.make_opsetid("", 17)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=8)
    path = kag.faces.Preprocessing(crop=kag.faces.CropOptions()).with_input((32, 32))
    described = {
        "format": 3,
        "file": {"format": "onnx", "input": "photo"},
        "age_groups": list(encoding.age_groups.names),
        "genders": ["female", "male"],
        "encoding": encoding.to_dict(),
        "outputs": list(encoding.output_names),
        "extra_heads": [],
        "pixels": path.to_dict(),
        "calibration": None,
        "license": "for tests",
        "limits": None,
        **metadata,
    }
    helper.set_model_props(model, {"agegender": json.dumps(described)})
    onnx.checker.check_model(model)
    onnx.save(model, str(file))
    return file
