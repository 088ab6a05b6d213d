"""ONNX and LiteRT files: the Keras model's answers, in runtimes of their own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf
from sample_data import small_backbone

import keras_agegender as kag
from keras_agegender.encodings.calibration import Calibration
from keras_agegender.encodings.head import Head
from keras_agegender.encodings.registry import get_encoding
from keras_agegender.faces.images import encode_jpeg
from keras_agegender.faces.preprocessing import Preprocessing
from keras_agegender.faces.preprocessing_graph import PreprocessingGraph
from keras_agegender.files import verify
from keras_agegender.models.builder import build_model
from keras_agegender.serving import formats
from keras_agegender.serving.bundle import build_export_bundle, crop_function
from keras_agegender.serving.export import Comparison, check_tolerance, export
from keras_agegender.serving.formats import export_formats
from keras_agegender.serving.litert import LiteRtModel
from keras_agegender.serving.model_format import Tolerance
from keras_agegender.serving.onnx_format import OnnxModel

PIXELS = Preprocessing(stored_size=(48, 40))
CALIBRATION = Calibration({"gender": 3.0, "age": 0.5}, {"age_group": (0.3,)})
OPENED = {
    "onnx": OnnxModel,
    "onnx-compact": OnnxModel,
    "litert": LiteRtModel,
    "litert-int8": LiteRtModel,
}


def crops(count=5, size=(48, 40)):
    return np.random.default_rng(0).integers(0, 256, (count, *size, 3), dtype="uint8")


def sure(model, factor=20.0):
    """Makes an untrained model as sure of its answers as trained ones are."""
    for layer in model.layers:
        if layer.name in (*model.output_names, "age_rank_score") and layer.weights:
            layer.kernel.assign(layer.kernel * factor)
    return model


def mixed_encoding():
    heads = [Head("glasses"), Head("size", "coral", classes=("s", "m", "l"))]
    return get_encoding("categorical", heads=heads)


@pytest.fixture(scope="module")
def model():
    encoding = mixed_encoding()
    return build_model(small_backbone, encoding, image_size=(32, 32), augment=True)


@pytest.fixture(scope="module")
def expected(model):
    """What the model says, calibrated and decoded, by way of the pixel path."""
    encoding = mixed_encoding()
    graph = PreprocessingGraph(PIXELS.with_input((32, 32)))
    inputs = tf.stack([graph.to_input(crop) for crop in crops()])
    outputs = CALIBRATION.apply(model(inputs, training=False), encoding)
    decoded = encoding.decode(outputs)
    sets = CALIBRATION.sets(decoded)
    return {
        **outputs,
        "age_group": decoded.age_group,
        "age_group_probabilities": decoded.age_probabilities,
        "age_group_set": sets.age_group,
        "male_probability": decoded.gender_probability,
        "size_answer": encoding.decode_head("size", outputs).values,
    }


def written(model, folder, format, **options):
    name = "m.onnx" if format.startswith("onnx") else "m.tflite"
    return export(
        model, folder / name, format=format, pixels=PIXELS, calibration=CALIBRATION,
        **{"input": "crops", **options},
    )  # fmt: skip


@pytest.mark.parametrize(
    "name", ["whole", pytest.param("faces", marks=pytest.mark.slow)]
)
def test_a_file_takes_photos(name, tmp_path):
    """A model of whole images, and one of faces, which the file finds itself."""
    pytest.importorskip("tf2onnx")
    crop = None if name == "whole" else kag.faces.CropOptions()
    detector = None if name == "whole" else kag.faces.MtcnnDetector().settings()
    pixels = replace(PIXELS, crop=crop, detector=detector, stored_size=(64, 64))
    encoding = get_encoding("categorical")
    network = sure(build_model(small_backbone, encoding, image_size=(32, 32)))
    said: list[str] = []
    file, folder = tmp_path / "m.onnx", tmp_path / "saved_model"
    export(network, file, format="onnx", pixels=pixels, report=said.append)
    assert "number of faces 100.0%" in said[0] and "ms an image" in said[0]
    export(network, folder, pixels=pixels)
    path = kag.synthetic.write_synthetic_photo(tmp_path / "photo.png", [(0, 0), (7, 1)])
    one, both = (kag.Predictor(model).predict(path) for model in (file, folder))
    assert one.status == both.status == ("not_cropped" if name == "whole" else "ok")
    assert len(one.faces) == len(both.faces) == (1 if name == "whole" else 2)
    for face, other in zip(one.faces, both.faces, strict=True):
        np.testing.assert_allclose(face.box, other.box, atol=0.5)
        found, expected = (list(f.age_probabilities.values()) for f in (face, other))
        np.testing.assert_allclose(found, expected, atol=0.05)


def test_what_a_file_can_take(tmp_path):
    network = build_model(small_backbone, get_encoding("gender"), image_size=(32, 32))
    with pytest.raises(ValueError, match="Expected 'crops' for the format 'litert'"):
        export(network, tmp_path / "m.tflite", format="litert", input="photo")
    other = replace(PIXELS, crop=kag.faces.CropOptions(), detector={"detector": "own"})
    with pytest.raises(ValueError, match="faces were found by .*'own'"):
        export(network, tmp_path / "m.onnx", format="onnx", input="photo", pixels=other)


@pytest.mark.parametrize("size, enlarge", [((9, 70), 1.0), ((48, 40), 256 / 227)])
def test_matrices_resize_as_the_pixel_path_does(size, enlarge):
    encoding = get_encoding("gender")
    network = build_model(small_backbone, encoding, image_size=(32, 32))
    bundle = build_export_bundle(
        network, pixels=Preprocessing().with_input((32, 32), enlarge)
    )
    seen = []
    bundle.functions["inputs"] = lambda pixels: seen.append(pixels) or {}
    answer = crop_function(bundle)
    answer(tf.constant(crops(2, size)))
    dynamic = tf.function(
        lambda images: answer(images) or seen.pop(),
        input_signature=[tf.TensorSpec((None, None, None, 3), tf.uint8)],
    )
    right = np.stack([bundle.graph.to_input(crop) for crop in crops(2, size)])
    np.testing.assert_allclose(dynamic(crops(2, size)), right, atol=1e-6)
    np.testing.assert_allclose(seen[0], right, atol=1e-6)


@pytest.fixture(scope="module", params=["onnx", "litert"])
def made(request, model, tmp_path_factory):
    """A file of each format, and what was said about it."""
    pytest.importorskip("tf2onnx" if request.param == "onnx" else "ai_edge_litert")
    folder, said = tmp_path_factory.mktemp(request.param), []
    file = written(model, folder, request.param, license="CC0", report=said.append)
    return request.param, file, said


def test_a_file_says_what_the_model_says(made, model, expected):
    """Of a model with augmentation, calibrated: what Keras' own export breaks."""
    format, file, said = made
    opened = OPENED[format](file)
    answers = opened.predict(crops())
    for name, value in expected.items():
        np.testing.assert_allclose(answers[name], value, atol=1e-5, err_msg=name)
    assert answers["age_group"].dtype == np.int64
    one = opened.predict(crops()[2:3])
    np.testing.assert_allclose(one["age"], expected["age"][2:3], atol=1e-5)

    assert opened.metadata["license"] == "CC0"
    assert opened.metadata["file"]["format"] == format
    assert opened.metadata["age_groups"][4] == "25-32"
    assert Preprocessing.from_dict(opened.metadata["pixels"]).stored_size == (48, 40)
    assert Calibration.from_dict(opened.metadata["calibration"]) == CALIBRATION
    assert (
        "same prediction: age_group 100.0%" in said[0] and "48 drawn faces" in said[0]
    )
    names = sorted(entry.name for entry in file.parent.iterdir())
    assert names == [file.name, f"{file.name}.sha256"]

    if format == "onnx":
        assert opened.predict(crops(2, (30, 70)))["age"].shape == (2, 8)
    else:
        assert opened.crop_size == (48, 40)
        with pytest.raises(ValueError, match=r"\(batch, 48, 40, 3\).*\(2, 30, 70, 3\)"):
            opened.predict(crops(2, (30, 70)))
    with pytest.raises(ValueError, match="Expected uint8.*float32"):
        opened.predict(crops().astype("float32"))
    with pytest.raises(ValueError, match="already"):
        written(model, file.parent, format)


def test_a_fixed_batch_size_is_static(model, expected, tmp_path):
    """Delegates for GPUs and NPUs refuse tensors of unknown size."""
    interpreter = pytest.importorskip("ai_edge_litert.interpreter").Interpreter
    file = written(model, tmp_path, "litert", batch_size=2)
    opened = interpreter(str(file))
    (details,) = opened.get_input_details()
    assert details["shape_signature"].tolist() == [2, 48, 40, 3]
    shapes = [x["shape_signature"] for x in opened.get_output_details()]
    assert all(-1 not in shape for shape in shapes)
    found = LiteRtModel(file).predict(crops()[:5])  # not a multiple of the batch
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], np.asarray(values)[:5], atol=1e-4)
    with pytest.raises(ValueError, match="Invalid `batch_size`"):
        written(model, tmp_path, "onnx", batch_size=1)


def test_onnx_outputs_are_in_the_order_of_the_metadata(made):
    format, file, _ = made
    if not format.startswith("onnx"):
        pytest.skip("LiteRT orders outputs by name")
    names = OnnxModel(file).predict(crops()[:1])
    outputs = OnnxModel(file).metadata["outputs"]
    assert list(names)[: len(outputs)] == outputs


def test_a_file_that_was_changed_is_not_opened(made, tmp_path):
    format, file, _ = made
    changed = shutil.copytree(file.parent, tmp_path / "copy") / file.name
    assert not verify(changed).differences
    content = bytearray(changed.read_bytes())
    content[len(content) // 2] ^= 1
    changed.write_bytes(content)
    assert [found.file for found in verify(changed).differences] == [file.name]
    with pytest.raises(ValueError, match="is damaged.*expected SHA-256.*Export"):
        OPENED[format](changed)


def test_a_file_that_answers_otherwise_is_not_put_in_place(
    made, model, tmp_path, monkeypatch
):
    format, file, _ = made
    if format != "onnx":
        pytest.skip("one format shows it")
    rows = [
        replace(row, write=lambda bundle, partial, metadata: shutil.copy(file, partial))
        if row.name == "onnx"
        else row
        for row in formats.FORMATS
    ]
    monkeypatch.setattr(formats, "FORMATS", rows)
    kernel = model.get_layer("gender").kernel
    before = kernel.numpy()
    kernel.assign(before + 0.1)
    try:
        (tmp_path / "m.onnx").write_text("the one before")
        with pytest.raises(ValueError, match="differ.*gender.*not written"):
            written(model, tmp_path, "onnx", overwrite=True)
    finally:
        kernel.assign(before)
    assert [entry.name for entry in tmp_path.iterdir()] == ["m.onnx"]
    assert (tmp_path / "m.onnx").read_text() == "the one before"


def tolerance(format):
    return export_formats()[format].tolerance


def test_drift_is_measured_against_what_was_declared():
    fine = Comparison("9 faces", 0.2, {"age": 0.01}, {"age_group": 0.95}, {}, 10, 1.0)
    check_tolerance(fine, tolerance("litert-int8"), "litert-int8")
    with pytest.raises(ValueError, match=r"differs by 0\.2 \(at most 0\.001\)"):
        check_tolerance(fine, tolerance("litert"), "litert")
    with pytest.raises(ValueError, match=r"same for 95\.0% .*at least 97%"):
        check_tolerance(fine, Tolerance(1.0, 1.0, 0.97), "litert-int8")
    broken = Comparison("9 faces", float("inf"), {}, {}, {}, 10, 1.0)
    with pytest.raises(ValueError, match="differs by inf"):
        check_tolerance(broken, tolerance("onnx"), "onnx")


def test_wrong_names_and_files_are_said(model, tmp_path):
    for format, name, message in (
        ("onnx", "a.tflite", r"ends in \.onnx"),
        ("litert", "a", r"ends in \.tflite"),
        ("coreml", "a.mlmodel", "Expected one of"),
    ):
        with pytest.raises(ValueError, match=message):
            export(model, tmp_path / name, format=format)
    with zipfile.ZipFile(tmp_path / "b.tflite", "w") as archive:
        archive.writestr("other", "")
    with pytest.raises(ValueError, match="has no metadata"):
        LiteRtModel(tmp_path / "b.tflite")
    with pytest.raises(ValueError, match="LiteRT file not found"):
        LiteRtModel(tmp_path / "c.tflite")


@pytest.mark.parametrize(
    ("content", "damage", "message"),
    [
        (b"{", {}, "not a JSON object"),
        (b"[1]", {}, "not a JSON object"),
        (b"[" * 100_000, {}, "not a JSON object"),
        (b" " * 50_000_000, {}, "has no metadata"),
        (b"{}", {8: 77}, "has no metadata"),  # packed as nobody does
        (b"{}", {6: 1}, "has no metadata"),  # encrypted
        (b"{}" * 99, {45: 255}, "has no metadata"),  # what is packed
    ],
)
def test_what_strangers_write_about_their_outputs(tmp_path, content, damage, message):
    file = tmp_path / "m.tflite"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("agegender.json", content)
    archive = bytearray(file.read_bytes())
    directory = archive.index(b"PK\1\2")
    for place, value in damage.items():
        archive[place] = value
        if place < 40:  # the directory at the end says so too
            archive[directory + place + 2] = value
    file.write_bytes(archive)
    with pytest.raises(ValueError, match=message):
        LiteRtModel(file)


@pytest.mark.slow
def test_integers_answer_nearly_as_floats(tmp_path):
    pytest.importorskip("ai_edge_litert")
    folder = tmp_path / "crops"
    folder.mkdir()
    for number, crop in enumerate(crops(60)):
        (folder / f"{number}.jpg").write_bytes(encode_jpeg(crop))
    (folder / "broken.jpg").write_text("no picture")
    said = []
    options = {"image_size": (32, 32), "augment": True}
    model = sure(build_model(small_backbone, mixed_encoding(), **options))
    file = written(model, tmp_path, "litert-int8", crops=folder, report=said.append)
    assert "60 images of" in said[0]
    opened = LiteRtModel(file)
    floats = written(model, tmp_path, "litert", crops=folder, overwrite=True)
    expected = LiteRtModel(floats).predict(crops())
    answers = opened.predict(crops())
    assert answers["age"].dtype == np.float32
    np.testing.assert_allclose(answers["age"], expected["age"], atol=0.1)
    # Decoding is exact: sums are those of floats, not of bytes.
    np.testing.assert_allclose(answers["age"].sum(-1), 1, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["ordinal", "coral"])
@pytest.mark.parametrize("backbone", ["resnet_se", "caffe"])
def test_every_network_in_every_format(backbone, encoding, tmp_path):
    pytest.importorskip("tf2onnx")
    options = {"width": 0.125} if backbone == "resnet_se" else {}
    size = (64, 64) if backbone == "resnet_se" else (67, 67)
    network = sure(build_model(backbone, encoding, image_size=size, **options))
    for format, name in (
        ("onnx", "m.onnx"),
        ("litert", "m.tflite"),
        ("litert-int8", "m8.tflite"),
    ):
        file = export(
            network, tmp_path / name, format=format, pixels=PIXELS, input="crops"
        )
        answers = OPENED[format](file).predict(crops(3))
        assert answers["age_group_probabilities"].shape == (3, 8)


def test_opening_a_file_drops_nobody_elses_errors(made, monkeypatch, capfd):
    """What other threads write to standard error while LiteRT opens a file."""
    format, file, _ = made
    if format != "litert":
        pytest.skip("LiteRT prints about itself")
    from ai_edge_litert.interpreter import Interpreter

    allocate = Interpreter.allocate_tensors

    def allocate_and_say(self):
        os.write(2, b"another thread\n")
        return allocate(self)

    monkeypatch.setattr(Interpreter, "allocate_tensors", allocate_and_say)
    LiteRtModel(file)
    assert "another thread" in capfd.readouterr().err


def test_a_file_needs_no_framework(made):
    format, file, _ = made
    module = OPENED[format].__module__
    name = OPENED[format].__name__
    code = f"""
import sys
sys.modules["keras"] = sys.modules["tensorflow"] = None
import numpy as np
from {module} import {name}
print(*{name}({str(file)!r}).predict(np.zeros((1, 48, 40, 3), "uint8"))["age"].shape)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "1 8"
