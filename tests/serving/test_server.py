"""The server: every answer that it gives, batches, and how it stops."""

from __future__ import annotations

import asyncio
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from PIL import Image
from sample_data import MiddleDetector, picture

pytest.importorskip("starlette", reason="needs the extra `serve`")
pytest.importorskip("prometheus_client", reason="needs the extra `serve`")
httpx = pytest.importorskip("httpx", reason="needs httpx")

from starlette.testclient import TestClient  # noqa: E402

from keras_agegender.encodings.registry import get_encoding
from keras_agegender.faces.preprocessing import CropOptions
from keras_agegender.models.builder import build_model
from keras_agegender.serving.predictions import PhotoPrediction
from keras_agegender.serving.predictor import Predictor
from keras_agegender.serving.server import (
    HEADERS,
    PhotoQueue,
    QueueFullError,
    ServerLimits,
    create_app,
    describe_model,
    run_server,
)


def encoded(pixels, kind="PNG", **options):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


PHOTO = encoded(picture(size=(80, 60)))
LIMITS = ServerLimits(max_bytes=50_000, max_pixels=100_000, timeout=20.0)


@pytest.fixture(scope="module")
def model_file(tmp_path_factory):
    file = tmp_path_factory.mktemp("model") / "small.keras"
    build_model("caffe_1conv", get_encoding("categorical"), image_size=(32, 32)).save(
        file
    )
    return file


@pytest.fixture(scope="module")
def predictor(model_file):
    return Predictor(model_file, MiddleDetector(), CropOptions())


@pytest.fixture(scope="module")
def client(predictor):
    app = create_app({"small": predictor, "other": predictor}, limits=LIMITS)
    with TestClient(app) as client:
        yield client


def error_of(response):
    assert set(response.json()) == {"error"}
    return response.status_code, response.json()["error"]


# -- what is answered ------------------------------------------------------------------


def test_an_answer_is_what_predict_says(client, predictor):
    response = client.post("/predict", content=PHOTO)
    expected = predictor.predict(PHOTO).to_dict()
    del expected["source"]
    assert response.status_code == 200
    assert response.json() == json.loads(json.dumps({"model": "small", **expected}))
    assert client.post("/predict?model=other", content=PHOTO).json()["model"] == "other"


def test_nobody_on_a_photo_is_no_error(client):
    answer = client.post("/predict", content=encoded(np.zeros((40, 32, 3), "uint8")))
    assert answer.status_code == 200
    assert (answer.json()["status"], answer.json()["faces"]) == ("no_face", [])


def test_health_and_models(client):
    assert client.get("/health").json() == {"status": "ready"}
    shown = client.get("/models").json()
    assert shown["default"] == "small"
    assert [m["name"] for m in shown["models"]] == ["small", "other"]
    assert shown["models"][0]["outputs"]["gender"]["values"] == "probability"


def test_a_model_is_described_by_what_travels_with_it():
    metadata = {
        "encoding": {"heads": [{"name": "hair", "kind": "categorical",
                                "classes": ["dark", "fair"]}]},
        "license": "for research", "limits": "No babies.",
        "calibration": {"alpha": 0.2},
    }  # fmt: skip
    assert describe_model("mine", metadata) == {
        "name": "mine",
        "outputs": {"hair": {"values": "probabilities", "classes": ["dark", "fair"]}},
        "licence": "for research",
        "limits": "No babies.",
        "coverage": 0.8,
    }


def test_every_answer_carries_the_headers(client):
    for response in (client.get("/health"), client.get("/nothing")):
        for name, value in HEADERS.items():
            assert response.headers[name] == value


# -- what is refused -------------------------------------------------------------------


def tiff():
    return encoded(picture(size=(8, 8)), "TIFF")


def bomb():
    """A PNG file of 45 bytes whose header says 30,000 x 30,000 pixels."""
    from struct import pack
    from zlib import crc32

    chunks = [
        (b"IHDR", pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)),
        (b"IDAT", b""),
    ]
    parts = [
        pack(">I", len(data)) + name + data + pack(">I", crc32(name + data))
        for name, data in chunks
    ]
    return b"".join([b"\x89PNG\r\n\x1a\n", *parts])


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (b"", 400, "body is empty"),
        (b"hello", 415, "Not an image of a supported format: JPEG, PNG"),
        (tiff(), 415, "Not an image of a supported format"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", 415, "Not an image of a supported format"),
        (PHOTO[:-40], 400, "damaged"),
        (PHOTO[:20], 400, "damaged"),
        (encoded(np.zeros((400, 300, 3), "uint8")), 413, "300 x 400 pixels"),
        (bomb(), 413, "pixels"),
        (b"x" * 50_001, 413, "more than 50000 bytes"),
    ],
    ids=["empty", "text", "tiff", "eps", "truncated", "stub", "large", "bomb", "bytes"],
)
def test_what_is_no_photo_is_refused(client, body, status, message):
    code, error = error_of(client.post("/predict", content=body))
    assert code == status and re.search(message, error)
    assert len(error) < 300 and "\n" not in error


def test_bodies_of_unknown_length_are_cut_off_too(client):
    def parts():
        for _ in range(60):
            yield b"x" * 1000

    code, error = error_of(client.post("/predict", content=parts()))
    assert code == 413 and "50000 bytes" in error


def test_unknown_models_and_addresses(client):
    code, error = error_of(client.post("/predict?model=smal", content=PHOTO))
    assert code == 404 and "mean 'small'" in error
    assert error_of(client.get("/nothing"))[0] == 404
    assert error_of(client.get("/predict"))[0] == 405


def test_limits_must_be_positive():
    with pytest.raises(ValueError, match=r"`timeout`.*Received: 0"):
        ServerLimits(timeout=0)
    with pytest.raises(ValueError, match=r"`max_open_bytes`.*max_bytes=2000"):
        ServerLimits(max_bytes=2000, max_open_bytes=1999)
    with pytest.raises(ValueError, match="`models`"):
        create_app({})


# -- the queue -------------------------------------------------------------------------


class Slow:
    """A predictor that waits for a sign before each batch, and notes the batches."""

    metadata = {"encoding": {"heads": []}}

    def __init__(self):
        self.batches, self.may_go, self.has_begun = [], threading.Event(), []

    def predict(self, photo):
        return PhotoPrediction("picture", "no_face")

    def predict_many(self, photos, batch_size):
        self.has_begun.append(len(photos))
        assert self.may_go.wait(20)
        self.batches.append(list(photos))
        if b"bad" in photos:
            raise RuntimeError("out of memory")
        return [PhotoPrediction(photo.decode("latin-1"), "no_face") for photo in photos]


def wait_until(condition):
    for _ in range(1000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("waited for 10 s")


def test_what_waits_shares_a_batch_and_order_is_kept():
    slow, sizes = Slow(), []
    photos = PhotoQueue(slow, max_batch=3, threads=1, on_batch=sizes.append)
    first = photos.submit(b"0")
    wait_until(lambda: slow.has_begun)
    others = [photos.submit(b"%d" % number) for number in range(1, 6)]
    assert len(photos) == 5
    slow.may_go.set()
    names = [future.result(20).source for future in [first, *others]]
    assert names == ["0", "1", "2", "3", "4", "5"]
    assert slow.batches == [[b"0"], [b"1", b"2", b"3"], [b"4", b"5"]]
    assert sizes == [1, 3, 2]
    photos.close()


def test_who_gives_up_is_not_answered():
    slow = Slow()
    photos = PhotoQueue(slow, threads=1)
    first = photos.submit(b"0")
    wait_until(lambda: slow.has_begun)
    gone, kept = photos.submit(b"gone"), photos.submit(b"kept")
    assert gone.cancel() and not first.cancel()
    slow.may_go.set()
    assert kept.result(20).source == "kept"
    assert slow.batches == [[b"0"], [b"kept"]]
    photos.close()


def test_one_photo_fails_alone():
    slow = Slow()
    slow.may_go.set()
    photos = PhotoQueue(slow, threads=1)
    futures = [photos.submit(photo) for photo in (b"0", b"bad", b"2")]
    assert futures[0].result(20).source == "0"
    assert futures[2].result(20).source == "2"
    with pytest.raises(RuntimeError, match="out of memory"):
        futures[1].result(20)
    photos.close()


def test_a_full_queue_takes_no_more_and_a_closed_one_ends_its_work():
    slow = Slow()
    photos = PhotoQueue(slow, max_waiting=2, max_waiting_bytes=10, threads=1)
    first = photos.submit(b"0")
    wait_until(lambda: slow.has_begun)
    last = photos.submit(b"123456")
    with pytest.raises(QueueFullError, match=r"1 photos \(6 bytes\) are waiting"):
        photos.submit(b"12345")
    photos.submit(b"1")
    with pytest.raises(QueueFullError, match=r"2 photos \(\d+ bytes\) are waiting"):
        photos.submit(b"1")
    slow.may_go.set()
    photos.close()
    assert first.result(0).source == "0" and last.result(0).source == "123456"
    with pytest.raises(QueueFullError):
        photos.submit(b"1")


def test_busy_and_late_are_told_apart():
    slow = Slow()
    limits = ServerLimits(max_waiting=1, timeout=0.3)
    app = create_app({"slow": slow_predictor(slow)}, limits=limits)
    with TestClient(app) as client:
        results = {}

        def ask(name):
            results[name] = client.post("/predict", content=PHOTO)

        threads = [threading.Thread(target=ask, args=(n,)) for n in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        codes = sorted(response.status_code for response in results.values())
        # Two threads have one photo each, one waits; the others are too many.
        assert set(codes) == {503, 504} and 1 <= codes.count(504) <= 3
        busy = next(r for r in results.values() if r.status_code == 503)
        assert busy.headers["Retry-After"] == "1"
        slow.may_go.set()
        text = client.get("/metrics").text
        assert f'agegender_requests_total{{status="503"}} {codes.count(503)}.0' in text
        assert 'agegender_waiting_photos{model="slow"}' in text


def slow_predictor(slow):
    """A `Predictor` by its class alone, which waits."""
    made = object.__new__(Predictor)
    made.metadata = slow.metadata
    made.predict, made.predict_many = slow.predict, slow.predict_many
    return made


async def send(app, *parts, leaves_after, is_whole=True):
    """Speaks ASGI: a client that sends parts of a photo, waits, and is gone."""
    messages = [{"type": "http.request", "body": p, "more_body": True} for p in parts]
    messages[-1]["more_body"] = leaves_after is None or not is_whole

    async def receive():
        if messages:
            return messages.pop(0)
        if leaves_after is not None:
            await asyncio.to_thread(wait_until, leaves_after)
        return {"type": "http.disconnect"}

    async def take(message):
        pass

    scope = {"type": "http", "method": "POST", "path": "/predict", "headers": [],
             "query_string": b""}  # fmt: skip
    await app(scope, receive, take)


def test_a_client_that_leaves_while_it_sends_is_no_fault_of_the_server(predictor):
    app = create_app({"small": predictor})
    asyncio.run(send(app, PHOTO[:100], leaves_after=None))
    text = TestClient(app).get("/metrics").text
    assert 'agegender_requests_total{status="499"} 1.0' in text
    assert "agegender_batch_photos_count 0.0" in text


def test_photos_of_clients_that_left_are_not_looked_at():
    """Two photos are worked on, two wait; the client of one of these leaves."""
    slow, left = Slow(), []
    app = create_app({"slow": slow_predictor(slow)})

    async def four():
        waiting = []
        for number in range(4):
            is_gone = (lambda: True) if number == 2 else (lambda: len(left) == 4)
            waiting.append(asyncio.create_task(send(app, PHOTO, leaves_after=is_gone)))
            busy = min(number + 1, 2)
            await asyncio.to_thread(wait_until, lambda n=busy: len(slow.has_begun) == n)
        await waiting[2]
        slow.may_go.set()
        await asyncio.to_thread(wait_until, lambda: sum(map(len, slow.batches)) == 3)
        left.extend(range(4))
        await asyncio.gather(*waiting)

    asyncio.run(four())
    text = TestClient(app).get("/metrics").text
    assert 'agegender_requests_total{status="499"} 1.0' in text
    assert 'agegender_requests_total{status="200"} 3.0' in text
    assert "agegender_batch_photos_sum 3.0" in text


def test_all_open_photos_together_have_a_limit():
    """One photo is worked on, another one is half there: a third would be too many."""
    slow, left = Slow(), []
    limits = ServerLimits(max_bytes=len(PHOTO), max_open_bytes=2 * len(PHOTO))
    app = create_app({"slow": slow_predictor(slow)}, limits=limits)
    half = len(PHOTO) // 2

    async def three():
        first = asyncio.create_task(send(app, PHOTO, leaves_after=lambda: left))
        await asyncio.to_thread(wait_until, lambda: slow.has_begun)
        # It announced nothing and sends no more, but is still there.
        second = asyncio.create_task(
            send(app, PHOTO[:half], leaves_after=lambda: left, is_whole=False)
        )
        await asyncio.to_thread(wait_until, lambda: open_bytes(app) > len(PHOTO))
        assert open_bytes(app) == len(PHOTO) + half
        await send(app, PHOTO, leaves_after=lambda: True)
        assert 'agegender_requests_total{status="503"} 1.0' in metrics_of(app)
        slow.may_go.set()
        left.append(True)
        await asyncio.gather(first, second)

    asyncio.run(three())
    assert open_bytes(app) == 0
    assert TestClient(app).post("/predict", content=PHOTO).status_code == 200


def metrics_of(app):
    return TestClient(app).get("/metrics").text


def open_bytes(app):
    return float(re.search(r"(?m)^agegender_open_bytes (\S+)", metrics_of(app))[1])


def test_a_fault_while_answering_is_counted_and_told_in_json(caplog):
    class Broken(Slow):
        def predict_many(self, photos, batch_size):
            raise RuntimeError("out of\nmemory")

    app = create_app({"broken": slow_predictor(Broken())})
    answer = TestClient(app).post("/predict", content=PHOTO)
    assert error_of(answer) == (
        500, "Unexpected RuntimeError. See the server's log."
    )  # fmt: skip
    assert 'agegender_requests_total{status="500"} 1.0' in metrics_of(app)
    assert [r.getMessage() for r in caplog.records if r.levelname == "ERROR"] == [
        "unexpected RuntimeError: out of memory"
    ]


def test_faults_elsewhere_are_json_too(predictor, monkeypatch):
    app = create_app({"small": predictor})
    monkeypatch.setattr(predictor, "metadata", {})
    with TestClient(app, raise_server_exceptions=False) as client:
        assert error_of(client.get("/models"))[0] == 500


def test_the_browser_finds_somebody_there(predictor, monkeypatch):
    class FoundError(Exception):
        pass

    def connect(address):
        host, port = address.removeprefix("http://").split(":")
        socket.create_connection((host, int(port)), 5).close()
        raise FoundError

    monkeypatch.setattr("webbrowser.open", connect)
    with pytest.raises(FoundError):
        run_server({"small": predictor}, port=0, open_browser=True)


def test_figures_for_prometheus(predictor):
    with TestClient(create_app({"small": predictor})) as client:
        client.post("/predict", content=PHOTO)
        client.post("/predict", content=b"text")
        text = client.get("/metrics").text
    assert 'agegender_requests_total{status="200"} 1.0' in text
    assert 'agegender_requests_total{status="415"} 1.0' in text
    assert "agegender_faces_total 1.0" in text
    assert "agegender_batch_photos_count 1.0" in text
    assert "agegender_request_seconds_count 2.0" in text


def test_a_port_that_is_taken_is_told_before_models_load():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(OSError, match="Cannot listen on 127.0.0.1, port"):
            run_server({"missing": "nowhere"}, port=taken.getsockname()[1])


# -- the process -----------------------------------------------------------------------


@pytest.mark.slow
def test_200_clients_and_a_calm_end(model_file):
    command = [sys.executable, "-m", "keras_agegender.cli.main", "serve"]
    process = subprocess.Popen(
        [*command, str(model_file), "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=dict(os.environ),
    )
    try:
        address = re.search(r"http://\S+", process.stdout.readline())[0]
        limits = httpx.Limits(max_connections=None)

        async def load():
            async with httpx.AsyncClient(timeout=60, limits=limits) as client:

                async def ask():
                    codes = []
                    for _ in range(3):
                        answer = await client.post(f"{address}/predict", content=PHOTO)
                        codes.append(answer.status_code)
                    return codes

                found = await asyncio.gather(*(ask() for _ in range(200)))
                assert [code for codes in found for code in codes] == [200] * 600
                # Told to stop with photos on the way: who is connected is answered.
                last = [
                    asyncio.create_task(
                        client.post(f"{address}/predict", content=PHOTO)
                    )
                    for _ in range(50)
                ]
                await asyncio.sleep(0.3)
                process.send_signal(signal.SIGTERM)
                return await asyncio.gather(*last, return_exceptions=True)

        answers = asyncio.run(load())
        late = [a for a in answers if isinstance(a, httpx.ConnectError)]
        codes = [a.status_code for a in answers if a not in late]
        assert codes == [200] * len(codes) and codes
        assert process.wait(30) in (143, -signal.SIGTERM)
        said = process.stderr.read()
        assert "Traceback" not in said and "goes on" not in said
    finally:
        process.kill()
        process.wait()
