"""The clients of TensorFlow Serving, against what it would receive and hand over.

No TensorFlow Serving runs here. In its place an export's own signatures are run behind
real sockets: gRPC by TensorFlow Serving's own service definition, REST by the rules of
its `json_tensor.cc`, which are written down again below.
"""

from __future__ import annotations

import base64
import io
import json
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from sample_data import small_backbone

from keras_agegender.encodings.calibration import Calibration
from keras_agegender.encodings.head import Head
from keras_agegender.encodings.registry import get_encoding
from keras_agegender.faces.preprocessing import CropOptions
from keras_agegender.models.builder import build_model
from keras_agegender.serving.export import export
from keras_agegender.serving.predictor import Predictor
from keras_agegender.synthetic.drawing import draw_face

PIPELINES = Path(__file__).resolve().parents[2] / "pipelines"
sys.path.insert(0, str(PIPELINES))
import tf_serving_client  # noqa: E402

NO_PHOTO = b"no picture\x00\xff"
MODEL = "faces"


def photo(num_faces, kind="JPEG"):
    """A photo with drawn faces beside each other."""
    picture = Image.new("RGB", (330 * max(num_faces, 1), 300), (70, 120, 90))
    for number in range(num_faces):
        face = Image.fromarray(draw_face(3 + number, 4, 1).image)
        picture.paste(face, (330 * number + 66, 20))
    stream = io.BytesIO()
    picture.save(stream, kind, quality=95)
    return stream.getvalue()


PHOTOS = (photo(1), photo(0), photo(2, "PNG"))


class TfServing:
    """Runs signatures on what was received; keeps it in `received`."""

    def __init__(self, path):
        self.loaded = tf.saved_model.load(str(path))  # signatures alone do not keep it
        self.received = []

    def run(self, model, signature, tensor):
        """Returns an error's kind and words, or the outputs."""
        self.received.append((signature, tensor))
        if model != MODEL:
            return "NOT_FOUND", f"Servable not found for request: Latest({model})"
        try:
            outputs = self.loaded.signatures[signature](photo_bytes=tensor)
        except tf.errors.InvalidArgumentError as error:
            return "INVALID_ARGUMENT", error.message
        return None, {name: value.numpy() for name, value in outputs.items()}


# -- REST, as json_tensor.cc reads and writes it --------------------------------------


def decoded(value):
    """`FillTensorProto`: one key, `b64`, or a list of such; nothing else is bytes."""
    if isinstance(value, list):
        return [decoded(item) for item in value]
    assert list(value) == ["b64"]
    return base64.b64decode(value["b64"], validate=True)


def decimal(value):
    """`WriteDecimal`: six digits if they are enough, else nine; never an integer."""
    text = f"{value:.6g}"
    if np.float32(text) != value:
        text = f"{value:.9g}"
    return text if "." in text or "e" in text else f"{text}.0"


def written(array):
    """`AddTensorValues`: nested lists, a scalar without."""
    if array.ndim:
        return f"[{', '.join(map(written, array))}]"
    if array.dtype == bool:
        return str(bool(array)).lower()
    return decimal(array) if array.dtype == np.float32 else str(int(array))


def rest_answer(serving, address, body):
    model = address.removeprefix("/v1/models/").removesuffix(":predict")
    request = json.loads(body)
    assert set(request) == {"signature_name", "inputs"}
    assert list(request["inputs"]) == ["photo_bytes"]
    tensor = tf.constant(decoded(request["inputs"]["photo_bytes"]), tf.string)
    error, outputs = serving.run(model, request["signature_name"], tensor)
    if error:
        status = {"INVALID_ARGUMENT": 400, "NOT_FOUND": 404}[error]
        return status, json.dumps({"error": outputs})
    parts = (f'"{name}": {written(value)}' for name, value in outputs.items())
    return 200, f'{{"outputs": {{{", ".join(parts)}}}}}'


@contextmanager
def rest_server(answer):
    """Serves `answer(address, body) -> status, text` on a free port."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            status, text = answer(self.path, body)
            self.send_response(status)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *arguments):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@contextmanager
def rest(serving):
    with rest_server(lambda *request: rest_answer(serving, *request)) as address:
        yield lambda name=MODEL: tf_serving_client.RestClient(address, name)


# -- gRPC, by TensorFlow Serving's own service definition -----------------------------


@contextmanager
def grpc(serving):
    reason = "needs tensorflow-serving-api (extra `test`)"
    grpc = pytest.importorskip("grpc", reason=reason)
    pytest.importorskip("tensorflow_serving.apis", reason=reason)
    from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

    class Service(prediction_service_pb2_grpc.PredictionServiceServicer):
        def Predict(self, request, context):
            assert list(request.inputs) == ["photo_bytes"]
            proto = request.inputs["photo_bytes"]
            tensor = tf.io.parse_tensor(proto.SerializeToString(), tf.string)
            spec = request.model_spec
            error, outputs = serving.run(spec.name, spec.signature_name, tensor)
            if error:
                context.abort(getattr(grpc.StatusCode, error), outputs)
            answer = predict_pb2.PredictResponse()
            for name, value in outputs.items():
                answer.outputs[name].CopyFrom(tf.make_tensor_proto(value))
            return answer

    server = grpc.server(ThreadPoolExecutor(2))
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(
        Service(), server
    )
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield lambda name=MODEL: tf_serving_client.GrpcClient(f"127.0.0.1:{port}", name)
    server.stop(None).wait()


HEADS = [
    Head("glasses"),
    Head("weight", "regression"),
    Head("size", "coral", classes=("s", "m", "l")),
]
CALIBRATION = Calibration({"gender": 3.0}, {"age_group": (0.3,), "gender": (0.6,)})


@pytest.fixture(
    scope="module", params=["whole", pytest.param("cropped", marks=pytest.mark.slow)]
)
def served(request, tmp_path_factory):
    """An export with every kind of answer, and one of whole pictures that has few."""
    folder = tmp_path_factory.mktemp(request.param) / "model"
    is_cropped = request.param == "cropped"
    encoding = get_encoding("categorical", heads=HEADS if is_cropped else ())
    network = build_model(small_backbone, encoding, image_size=(32, 32))
    export(
        network,
        folder,
        encoding=encoding,
        crop_options=CropOptions() if is_cropped else None,
        calibration=CALIBRATION if is_cropped else None,
    )
    return folder, TfServing(folder), Predictor(folder)


@pytest.fixture(params=[rest, grpc], ids=["rest", "grpc"])
def make_client(request, served):
    served[1].received.clear()
    with request.param(served[1]) as make:
        yield make


def answers(client, photos, folder):
    names = [str(number) for number in range(len(photos))]
    return list(tf_serving_client.ask(client, names, photos, metadata_of(folder)))


def metadata_of(folder):
    return tf_serving_client.read_metadata(folder)


def check_same(answer, prediction):
    """The client's answer is the `Predictor`'s, but for what the graph does not say."""
    expected = prediction.to_dict()
    assert (answer["status"], answer["reason"]) == (expected["status"], "")
    assert len(answer["faces"]) == len(expected["faces"])
    for face, other in zip(answer["faces"], expected["faces"], strict=True):
        del other["crop_box"]
        assert set(face) == set(other)
        assert face.pop("box") == pytest.approx(other.pop("box"), abs=0.11)
        for name, value in face.items():
            if name in ("heads", "age_probabilities", "extra"):
                assert set(value) == set(other[name])
                for key, number in value.items():
                    assert number == pytest.approx(other[name][key], abs=1e-4), key
            elif isinstance(value, float):
                assert value == pytest.approx(other[name], abs=0.11), name
            else:
                assert value == other[name], name


def test_several_photos_get_the_answers_of_the_predictor(served, make_client):
    folder, serving, predictor = served
    found = answers(make_client(), PHOTOS, folder)
    assert [name for name, _ in serving.received] == ["photos"]
    assert serving.received[0][1].numpy().tolist() == list(PHOTOS)
    expected = predictor.predict_many(list(PHOTOS))
    counts = [1, 0, 2] if predictor.pixels.crop else [1, 1, 1]
    assert [len(answer["faces"]) for answer in found] == counts
    for answer, prediction in zip(found, expected, strict=True):
        check_same(answer, prediction)


@pytest.mark.parametrize("number", range(len(PHOTOS)))
def test_one_photo_is_asked_about_by_photo(served, make_client, number):
    folder, serving, predictor = served
    (answer,) = answers(make_client(), PHOTOS[number : number + 1], folder)
    ((name, tensor),) = serving.received
    assert (name, tensor.shape, tensor.numpy()) == ("photo", (), PHOTOS[number])
    check_same(answer, predictor.predict(PHOTOS[number]))


def test_photos_without_any_face(served, make_client):
    folder, _, predictor = served
    found = answers(make_client(), [photo(0)] * 2, folder)
    expected = "no_face" if predictor.pixels.crop else "not_cropped"
    assert [answer["status"] for answer in found] == [expected] * 2


def test_one_that_cannot_be_read_does_not_stop_the_others(served, make_client):
    folder, serving, predictor = served
    first, bad, last = answers(make_client(), [PHOTOS[0], NO_PHOTO, PHOTOS[2]], folder)
    assert [name for name, _ in serving.received] == ["photos"] + ["photo"] * 3
    assert (bad["status"], bad["faces"]) == ("unreadable", [])
    assert bad["reason"] and "\n" not in bad["reason"]
    check_same(first, predictor.predict(PHOTOS[0]))
    check_same(last, predictor.predict(PHOTOS[2]))


def test_rows_are_as_long_as_the_fullest_photo_has_faces():
    """Of two faces, none and one; what is behind them is padding, never an answer."""
    metadata = {"age_groups": [], "genders": ["female", "male"], "outputs": ["gender"],
                "extra_heads": []}  # fmt: skip
    male = np.float32([[0.25, 0.75], [0, 0], [0.625, 0]])
    outputs = {
        "gender": male,
        "gender_id": np.array([[0, 1], [-1, -1], [1, -1]]),
        "male_probability": male,
        "boxes": np.arange(24, dtype="float32").reshape(3, 2, 4),
        "scores": np.float32([[0.5, 0.75], [0, 0], [0.875, 0]]),
        "landmarks": np.zeros((3, 2, 5, 2), "float32"),
        "counts": np.array([2, 0, 1]),
    }
    photos = tf_serving_client.faces_of(outputs, metadata)
    assert [[face["box"] for face in faces] for faces in photos] == [
        [(0, 1, 2, 3), (4, 5, 6, 7)], [], [(16, 17, 18, 19)],
    ]  # fmt: skip
    assert [[(f["gender"], f["score"]) for f in faces] for faces in photos] == [
        [("female", 0.5), ("male", 0.75)], [], [("male", 0.875)],
    ]  # fmt: skip
    rows = {name: value[0] for name, value in outputs.items() if name != "counts"}
    assert tf_serving_client.faces_of(rows, metadata) == photos[:1]


def test_a_model_that_is_not_served_is_an_error(served, make_client):
    folder, *_ = served
    with pytest.raises(ValueError, match="(404|NOT_FOUND).*Servable not found"):
        answers(make_client("other"), PHOTOS[:1], folder)


def test_the_request_and_the_answer_byte_for_byte():
    request = b'{"signature_name": "photo", "inputs": {"photo_bytes": {"b64": "AP8="}}}'
    assert tf_serving_client.rest_request([b"\x00\xff"]) == request
    request = (
        b'{"signature_name": "photos", "inputs": '
        b'{"photo_bytes": [{"b64": "YQ=="}, {"b64": "YgA="}]}}'
    )
    assert tf_serving_client.rest_request([b"a", b"b\x00"]) == request
    # As TensorFlow Serving lays it out.
    body = b"""{
    "outputs": {
        "male_probability": [[0.123456791, 1e-05], [1.0, 0.0]],
        "age_group_set": [[true, false]],
        "boxes": [[], []],
        "counts": [2, 1]
    }
}"""
    outputs = tf_serving_client.rest_outputs(body)
    assert outputs["male_probability"].dtype == np.float32
    assert outputs["male_probability"][0, 0] == np.float32(0.123456791)
    assert outputs["age_group_set"].dtype == bool
    assert outputs["boxes"].shape == (2, 0)
    assert outputs["counts"].tolist() == [2, 1]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.2, "0.2"), (1.0, "1.0"), (1 / 3, "0.333333343"), (3e-5, "3e-05"),
     (9e6, "9e+06"), (178.25, "178.25")],
)  # fmt: skip
def test_decimals_are_written_as_tensorflow_serving_does(value, text):
    assert decimal(np.float32(value)) == text


def test_errors_that_are_no_json_and_nobody_there():
    with rest_server(lambda address, body: (502, "<html>Bad gateway")) as address:
        client = tf_serving_client.RestClient(address, MODEL)
        with pytest.raises(ValueError, match="answered 502: <html>Bad gateway"):
            client.outputs(PHOTOS[:1])
    with pytest.raises(ValueError, match="No response from http://127"):
        client.outputs(PHOTOS[:1])


def test_only_exports_that_detect_faces_are_accepted(tmp_path):
    with pytest.raises(
        ValueError, match="Expected a folder written by `agegender export`"
    ):
        metadata_of(tmp_path)
    text = json.dumps({"signatures": ["serving_default", "faces"]})
    (tmp_path / "agegender.json").write_text(text, "utf-8")
    with pytest.raises(ValueError, match="does not take photos"):
        metadata_of(tmp_path)


def test_as_a_command(served, tmp_path, monkeypatch, capsys):
    folder, serving, _ = served
    (tmp_path / "a.jpg").write_bytes(PHOTOS[0])
    (tmp_path / "b.jpg").write_bytes(NO_PHOTO)
    files = [str(tmp_path / name) for name in ("a.jpg", "b.jpg")]
    with rest_server(lambda *request: rest_answer(serving, *request)) as address:
        arguments = ["--address", address, "--name", MODEL, "--batch", "1"]
        monkeypatch.setattr(sys, "argv", ["client", str(folder), *files, *arguments])
        tf_serving_client.main()
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["source"] for line in lines] == files
    assert [len(line["faces"]) for line in lines] == [1, 0]
    with pytest.raises(SystemExit) as stopped:
        tf_serving_client.main()  # nobody is there any more
    assert stopped.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: No response from http://127.0.0.1")
