"""ONNX files that take photos: the same predictions as other formats, no framework."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from photo_models import write_photo_model
from PIL import Image

import keras_agegender as kag
from keras_agegender.cli.main import main
from keras_agegender.faces.preprocessing_graph import PreprocessingGraph
from keras_agegender.serving import formats
from keras_agegender.serving.onnx_format import (
    FLOAT16_SIZE,
    INT8_SIZE,
    compact_weights,
    share_constants,
)
from keras_agegender.serving.predictor import class_probabilities, prediction_set

PIXELS = np.full((80, 160, 3), 90, "uint8")


@pytest.fixture
def model(tmp_path):
    return write_photo_model(tmp_path / "tiny.onnx")


@pytest.fixture
def photo(tmp_path):
    Image.fromarray(PIXELS).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def test_faces_from_left_to_right(model):
    prediction = kag.Predictor(model).predict(PIXELS)
    assert prediction.status == "ok" and prediction.image_size == (80, 160)
    first, second = prediction.faces
    assert first.box == (20.0, 20.0, 60.0, 60.0)
    assert second.box == (80.0, 20.0, 120.0, 60.0)
    # A margin of a quarter on each side of 40 pixels.
    assert first.crop_box == (10.0, 10.0, 70.0, 70.0)
    assert (first.score, second.score) == (0.85, 0.95)
    assert (first.age_years, second.age_years) == (8.0, 41.0)
    assert first.gender == "female" and first.male_probability == 0.25


def test_a_photo_model_tries_rotations_too(model):
    # Its scores are the same in all rotations: the photo as it is comes first.
    predictor = kag.Predictor(model)
    found = predictor.predict(PIXELS, try_rotations=True)
    assert found == predictor.predict(PIXELS) and found.rotation == 0


def test_many_photos_in_threads_keep_their_order(model):
    photos = [np.zeros((40 + 2 * n, 80, 3), "uint8") for n in range(12)]
    found = kag.Predictor(model).predict_many(photos)
    assert [p.image_size[0] for p in found] == [40 + 2 * n for n in range(12)]
    assert [p.faces[0].box[3] for p in found] == [30 + 1.5 * n for n in range(12)]
    times = kag.serving.PredictionTimes()
    assert len(list(kag.Predictor(model).stream(photos, times=times))) == 12
    assert (times.num_images, times.num_faces) == (12, 24)


def test_min_score_drops_faces(model):
    (face,) = kag.Predictor(model, min_score=0.9).predict(PIXELS).faces
    assert face.age_years == 41.0
    assert kag.Predictor(model, min_score=0.99).predict(PIXELS).status == "no_face"
    with pytest.raises(ValueError, match="Invalid `min_score`"):
        kag.Predictor(model, min_score=1.5)


def test_boxes_that_share_most_of_their_area_are_one_face(tmp_path):
    # The second shares 0.6 of its area with the first, the third 0.4.
    boxes = [(0.2, 0.2, 0.4, 0.6), (0.28, 0.2, 0.48, 0.6), (0.32, 0.2, 0.52, 0.6)]
    for chosen, scores, left in (
        ([0, 1], (0.9, 0.99), [0.28]),
        ([0, 2], (0.9, 0.99), [0.2, 0.32]),
    ):
        file = tmp_path / f"{chosen[1]}.onnx"
        write_photo_model(file, [boxes[i] for i in chosen], scores)
        faces = kag.Predictor(file).predict(np.zeros((100, 100, 3), "uint8")).faces
        assert [face.box[0] for face in faces] == pytest.approx([100 * x for x in left])


def test_what_such_a_file_cannot_do(model, tmp_path):
    nothing = np.zeros((40, 40, 3), "uint8")
    none = write_photo_model(tmp_path / "none.onnx", scores=(0.1, 0.1))
    with pytest.raises(ValueError, match="Invalid `whole_image`.*has no input"):
        kag.Predictor(none).predict(nothing, whole_image=True)
    with pytest.raises(ValueError, match="no `detector`"):
        kag.Predictor(model, kag.faces.MtcnnDetector())
    file = kag.serving.OnnxModel(model)
    with pytest.raises(ValueError, match="takes photos"):
        file.predict(PIXELS[None])
    for wrong in (PIXELS[..., :1], PIXELS.astype("float32"), PIXELS[:0]):
        with pytest.raises(ValueError, match="Invalid `image`"):
            file.predict_photo(wrong)


def test_the_released_model(monkeypatch, tmp_path):
    """It is in the wheel: at most 8 MB, with the terms of its weights."""
    monkeypatch.delenv("KERAS_AGEGENDER_MODEL", raising=False)
    monkeypatch.chdir(tmp_path)
    file = kag.serving.default_model()
    assert file.stat().st_size <= 8_000_000
    assert file == formats.find_model("utkface-compact")
    photo = kag.synthetic.write_synthetic_photo("photo.png", seed=1)
    predictor = kag.Predictor()
    assert "non-commercial" in predictor.metadata["license"]
    assert predictor.predict(photo).status in ("ok", "no_face")
    assert predictor.metadata["extra_heads"] == []  # race is auxiliary
    assert kag.Predictor(all_outputs=True).metadata["extra_heads"][0]["name"] == "race"


def test_the_released_model_predicts_like_its_run(tmp_path):
    """Detection, crops and network in one file, against TensorFlow and Keras."""
    import tensorflow as tf

    from keras_agegender.serving.bundle import build_export_bundle, photo_function

    run = Path(__file__).parents[2] / "saved_models" / "utkface-compact"
    expected = photo_function(build_export_bundle(run))
    file = kag.serving.OnnxModel(kag.serving.default_model())
    people = [(0, 0), (4, 1), (7, 1)]
    path = kag.synthetic.write_synthetic_photo(tmp_path / "photo.png", people, side=96)
    photo = kag.faces.read_image(path)
    nothing = np.full((50, 70, 3), 90, "uint8")
    for image, whole, count in (
        (photo, False, 3),
        (photo, True, 1),
        (nothing, True, 1),
    ):
        found = file.predict_photo(image, whole_image=whole)
        outputs = expected(tf.constant(image), tf.constant(whole))
        assert set(found) == set(outputs) and len(found["boxes"]) == count
        for name in ("boxes", "landmarks"):
            np.testing.assert_allclose(found[name], outputs[name], atol=0.5)
        for name in ("scores", "male_probability", "age_group_probabilities"):
            np.testing.assert_allclose(found[name], outputs[name], atol=0.03)
    assert len(file.predict_photo(nothing)["boxes"]) == 0
    one = kag.Predictor().predict(nothing, whole_image=True)
    assert one.status == "whole_image" and one.faces[0].box == (0, 0, 70, 50)
    assert one.faces[0].crop_box == (0, 0, 70, 50) and one.faces[0].score == 0


def test_large_constants_of_loops_are_shared():
    onnx = pytest.importorskip("onnx")
    helper, rng = onnx.helper, np.random.default_rng(0)
    values = rng.normal(size=(40, 40)).astype("float32")
    rows = helper.make_tensor_value_info("x", 1, (40, 40))

    def branch(name):
        constant = onnx.numpy_helper.from_array(values, f"{name}_weights")
        out = helper.make_tensor_value_info(name, 1, (40, 40))
        node = helper.make_node("MatMul", ["x", constant.name], [name])
        return helper.make_graph([node], name, [], [out], [constant])

    condition = helper.make_tensor_value_info("condition", onnx.TensorProto.BOOL, ())
    result = helper.make_tensor_value_info("y", 1, (40, 40))
    node = helper.make_node(
        "If", ["condition"], ["y"], then_branch=branch("a"), else_branch=branch("b")
    )
    graph = helper.make_graph([node], "both", [rows, condition], [result])
    opset = helper.make_opsetid("", 17)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=8)
    before = model.ByteSize()
    share_constants(model.graph)
    onnx.checker.check_model(model)
    assert model.ByteSize() < before / 1.8 and len(model.graph.initializer) == 1
    import onnxruntime

    session = onnxruntime.InferenceSession(model.SerializeToString())
    x = rng.normal(size=(40, 40)).astype("float32")
    for chosen in (True, False):
        (y,) = session.run(None, {"x": x, "condition": np.array(chosen)})
        np.testing.assert_allclose(y, x @ values, rtol=1e-4, atol=1e-4)


def test_weights_in_8_and_16_bits(tmp_path):
    onnx = pytest.importorskip("onnx")
    rng = np.random.default_rng(0)
    weights = {
        "large": rng.normal(size=(8, INT8_SIZE // 8)).astype("float32"),
        "middle": rng.normal(size=(FLOAT16_SIZE, 1)).astype("float32"),
        "small": rng.normal(size=(3, 1)).astype("float32"),
    }
    weights["large"][2] = 0  # a channel without a scale
    graph = onnx.helper.make_graph(
        [
            onnx.helper.make_node("Identity", [name], [f"{name}_out"])
            for name in weights
        ],
        "weights", [],
        [
            onnx.helper.make_tensor_value_info(f"{n}_out", 1, w.shape)
            for n, w in weights.items()
        ],
        [onnx.numpy_helper.from_array(w, n) for n, w in weights.items()],
    )  # fmt: skip
    opset = onnx.helper.make_opsetid("", 17)
    model = onnx.helper.make_model(graph, opset_imports=[opset], ir_version=8)
    before = model.ByteSize()
    compact_weights(model)
    onnx.checker.check_model(model)
    assert model.ByteSize() < before / 3.9
    import onnxruntime

    session = onnxruntime.InferenceSession(model.SerializeToString())
    large, middle, small = session.run([f"{name}_out" for name in weights], {})
    # Half a step of 127 of the channel's largest weight; 11 bits of each weight.
    steps = np.abs(weights["large"]).max(1, keepdims=True) / 127
    assert (np.abs(large - weights["large"]) <= steps * 0.5001).all()
    np.testing.assert_allclose(middle, weights["middle"], rtol=2**-11, atol=1e-7)
    np.testing.assert_array_equal(small, weights["small"])


def test_released_models_are_found_by_name(model, tmp_path, monkeypatch):
    monkeypatch.setattr(formats, "RELEASED", tmp_path)
    assert formats.find_model("tiny") == model
    assert kag.Predictor("tiny").predict(PIXELS).status == "ok"
    with pytest.raises(ValueError, match=r"other contains.*released model: \['tiny'\]"):
        kag.Predictor("other")


def test_years_or_groups_are_printed(model, photo, capsys):
    for options, text in (((), "8 (6–10)"), (("--groups",), "25-32 (100%)")):
        assert main(["predict", str(model), str(photo), *options]) == 0
        assert text in capsys.readouterr().out


def test_auxiliary_outputs_on_request(tmp_path, photo, capsys):
    model = write_photo_model(tmp_path / "x.onnx", auxiliary_outputs=["age"])
    for options, shown in (((), False), (("--all-outputs",), True)):
        assert main(["predict", str(model), str(photo), "--json", *options]) == 0
        (face, _) = json.loads(capsys.readouterr().out)["faces"]
        assert ("age" in face["heads"]) == shown and "gender" in face["heads"]


def test_terms_are_printed(model, photo, capsys):
    assert main(["predict", str(model), str(photo)]) == 0
    assert "license: for tests" in capsys.readouterr().err


SCRIPT = """
import sys
from starlette.testclient import TestClient
import keras_agegender as kag
from keras_agegender.cli.main import main
model, photo, out = sys.argv[1:]
assert main(["predict", model, photo, "--json"]) == 0
assert main(["predict", model, photo, "--annotate", out]) == 0
with TestClient(kag.serving.create_app({"tiny": model}, page=True)) as client:
    reply = client.post("/predict", content=open(photo, "rb").read())
    assert reply.status_code == 200 and len(reply.json()["faces"]) == 2
    assert client.get("/").status_code == client.get("/models").status_code == 200
loaded = {"tensorflow", "keras", "jax", "torch", "pandas", "scipy"} & set(sys.modules)
print("loaded", sorted(loaded), file=sys.stderr)
"""


def test_no_framework_is_imported(model, photo, tmp_path):
    pytest.importorskip("starlette")
    arguments = [model, photo, tmp_path / "annotated.png"]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *map(str, arguments)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1] == "loaded []"
    assert len(json.loads(done.stdout.splitlines()[0])["faces"]) == 2
    assert (tmp_path / "annotated.png").is_file()


# -- parity with the graphs ------------------------------------------------------------


@pytest.mark.parametrize("pad", [False, True])
@pytest.mark.parametrize("square", [False, True])
def test_crop_boxes_are_those_of_the_graph(square, pad):
    options = kag.faces.CropOptions(margin=0.4, square=square, pad=pad)
    graph = PreprocessingGraph(kag.faces.Preprocessing(crop=options))
    image = np.zeros((60, 100, 3), "uint8")
    for box in ((10, 10, 30, 50), (-8, 40, 20, 66), (5, 2, 95, 59)):
        expected = graph.crop_box(image, np.array(box, "float32")).numpy()
        np.testing.assert_allclose(
            options.crop_box(box, (60, 100)), expected, atol=1e-4
        )


@pytest.mark.parametrize(
    "name", ["ordinal", "coral", "corn", "categorical", "gender", "years"]
)
@pytest.mark.parametrize("question", ["older", "younger"])
def test_class_probabilities_are_those_of_head_types(name, question):
    options = {"question": question} if name == "ordinal" else {}
    encoding = kag.get_encoding(name, **options)
    rng = np.random.default_rng(0)
    for head in encoding.heads:
        units = {n: rng.uniform(size=(1, 1)) for n in head.output_names}
        if not head.spec.several_outputs and not head.spec.binary:
            shape = (
                (head.num_classes - 1, 1) if head.spec.ranks else (head.num_classes,)
            )
            units = {head.name: rng.uniform(size=(1, *shape))}
        expected = np.asarray(head.spec.probabilities(head, units))[0]
        found = class_probabilities(head, {n: v[0] for n, v in units.items()})
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_prediction_sets_are_those_of_calibration():
    rng = np.random.default_rng(0)
    for threshold in (0.0, 0.3, 0.7, 0.95, 1.0):
        calibration = kag.encodings.Calibration({}, {"age_group": (threshold,)})
        shares = rng.dirichlet(np.ones(8) * 0.5, 40).astype("float32")
        decoded = kag.encodings.Decoded(
            age_group=shares.argmax(1), age_probabilities=shares
        )
        expected = np.asarray(calibration.sets(decoded).age_group)
        found = [prediction_set(row, threshold) for row in shares]
        np.testing.assert_array_equal(found, expected)
