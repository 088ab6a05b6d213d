"""The page of `agegender demo` in Chromium.

Most tests use a server with a table of predictions, so that every type of output and
every error occurs; one uses the real server.
"""

from __future__ import annotations

import io
import json
import shutil
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
from PIL import Image

import keras_agegender as kag
from keras_agegender.serving.predictions import FacePrediction, PhotoPrediction

pytestmark = pytest.mark.slow

PAGE = Path(kag.__file__).parent / "serving" / "page"
TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
POLICY = "default-src 'self'; img-src 'self' blob: data:"


# -- a server with a table of predictions ----------------------------------------------


AGE_GROUPS = ("0-2", "4-6", "25-32", "60-100")
MODELS = {
    "default": "first",
    "models": [
        {
            "name": "first",
            "outputs": {
                "gender": {"values": "probability", "classes": None},
                "age": {"values": "years", "classes": None},
                "race": {
                    "values": "probabilities",
                    "classes": ["red", "green", "blue"],
                },
                "glasses": {
                    "values": "probability",
                    "classes": ["no glasses", "glasses"],
                },
                "weight": {"values": "number", "classes": None},
                "size": {
                    "values": "conditional_ranks",
                    "classes": ["small", "medium", "large"],
                },
            },
            "licence": "for non-commercial research",
            "limits": "Predictions are worst for old faces.",
            "coverage": 0.9,
        },
        {"name": "second", "outputs": {}, "licence": None, "limits": None},
    ],
}


def face(left, side, gender=0.25, ages=(0.0, 0.1, 0.7, 0.2), **changes):
    years = np.full(101, 0.2 / 100)
    years[30] = 0.8
    fields = {
        "box": (left, 60.0, left + side, 60.0 + side),
        "crop_box": (left, 60.0, left + side, 60.0 + side),
        "score": 0.99,
        "age_group": AGE_GROUPS[int(np.argmax(ages))],
        "age_probabilities": dict(zip(AGE_GROUPS, ages, strict=True)),
        "age_years": 30.5,
        "gender": "male" if gender > 0.5 else "female",
        "male_probability": gender,
        "heads_agree": True,
        "heads": {
            "gender": gender, "age": years.round(6).tolist(), "race": [0.2, 0.5, 0.3],
            "glasses": 0.9, "weight": -0.4, "size": [0.5, 0.5],
        },
        "extra": {"race": "green", "glasses": 0.9, "weight": 71.25, "size": "small"},
        "age_set": ("25-32", "60-100"),
        "gender_set": ("female",),
        "binary": {"glasses": "glasses"},
    }  # fmt: skip
    return FacePrediction(**{**fields, **changes})


# Of a photo of 400 x 300 pixels. The second face is the largest.
FACES = (
    face(20.0, 60.0),
    face(120.0, 120.0, gender=0.97, ages=(0.0, 0.0, 0.3, 0.7)),
    face(300.0, 60.0, ages=(0.9, 0.1, 0.0, 0.0), age_years=1.5, heads_agree=False),
)


def prediction_text(faces, size=(300, 400), model="first"):
    status = "ok" if faces else "no_face"
    photo = PhotoPrediction("image", status, tuple(faces), size)
    # Unusual spaces: the downloaded text must be the same.
    return json.dumps({**photo.to_dict(), "model": model}, separators=(" , ", " : "))


def jpeg(value, size=(400, 300), **options):
    image = np.full((size[1], size[0], 3), value, "uint8")
    image[: size[1] // 4] = 255 - value  # upside down looks otherwise
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", **options)
    return file.getvalue()


SEVERAL, NOBODY, HUGE, BUSY = jpeg(90), jpeg(10), jpeg(200), jpeg(120)
ERRORS = {
    HUGE: (413, "The photo has more than 50 megapixels."),
    BUSY: (503, "Too many photos are waiting."),
}


class Handler(BaseHTTPRequestHandler):
    """The server's contract, with tables for responses."""

    def do_GET(self):  # noqa: N802
        path = urlsplit(self.path).path.lstrip("/") or "index.html"
        if path in ("models", "health"):
            self.send(200, json.dumps(MODELS if path == "models" else {}))
        else:
            file = PAGE / path
            self.send(200, file.read_text("utf-8"), TYPES[file.suffix])

    def do_POST(self):  # noqa: N802
        body = self.rfile.read(int(self.headers["Content-Length"]))
        (model,) = parse_qs(urlsplit(self.path).query)["model"]
        status, error = ERRORS.get(body, (400, "image: not an image."))
        faces = {SEVERAL: FACES, NOBODY: ()}.get(body)
        if faces is None:
            self.send(status, json.dumps({"error": error}))
        else:
            chosen = faces if model == "first" else faces[:1]
            self.send(200, prediction_text(chosen, model=model))

    def send(self, status, text, kind="application/json"):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Security-Policy", POLICY)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_):
        """Nothing is printed between the tests' dots."""


@pytest.fixture(scope="module")
def table_server():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    names = ("chromium", "chromium-browser", "google-chrome")
    program = next(filter(None, map(shutil.which, names)), None)
    if program is None:
        pytest.skip("needs Chromium on the path")
    arguments = ["--no-sandbox", "--use-fake-ui-for-media-stream"]
    arguments.append("--use-fake-device-for-media-stream")
    with playwright.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=program, args=arguments)
        yield chromium
        chromium.close()


@contextmanager
def opened(browser, url, errors=0, width=1280, **options):
    """A page in a window. Checks on exit for errors and requests to other servers.

    Args:
        browser: Chromium.
        url: The server's root.
        errors: Expected number of responses with an error status.
        width: Of the window, in pixels.
        options: Of the browser's context.
    """
    context = browser.new_context(viewport={"width": width, "height": 800}, **options)
    page = context.new_page()
    requests, complaints, failures = [], [], []
    page.on("request", lambda request: requests.append(request.url))
    page.on("pageerror", lambda error: failures.append(str(error)))
    page.on("console", lambda message: complaints.append(message.text))
    page.goto(url)
    state(page, "empty")
    yield page
    assert not failures
    # The browser itself reports a failed request; nothing else may be there.
    assert len(complaints) == errors
    assert all(text.startswith("Failed to load resource") for text in complaints)
    assert requests and all(r.startswith((url, "blob:", "data:")) for r in requests)
    context.close()


def state(page, name):
    page.wait_for_selector(f'main[data-state="{name}"]', timeout=60_000)


def give(page, content, name="party.jpg", kind="image/jpeg", then="faces"):
    """Chooses a file by the button, as a person does."""
    with page.expect_file_chooser() as chooser:
        page.click("#choose")
    chooser.value.set_files({"name": name, "mimeType": kind, "buffer": content})
    state(page, then)


def hand_over(page, event, content):
    """Pastes or drops a file."""
    page.evaluate(
        """([kind, bytes]) => {
            const data = new DataTransfer();
            data.items.add(new File([new Uint8Array(bytes)], "x.jpg"));
            dispatchEvent(kind === "paste"
                ? new ClipboardEvent(kind, { clipboardData: data })
                : new DragEvent(kind, { dataTransfer: data, cancelable: true }));
        }""",
        [event, list(content)],
    )


def charts(page):
    """Title -> {class: width of its bar as a share}, as drawn."""
    return page.evaluate(
        """() => Object.fromEntries(
            [...document.querySelectorAll("#charts section")].map((section) => [
                section.querySelector("h3").textContent,
                Object.fromEntries([...section.querySelectorAll("tr")].map((row) => [
                    row.querySelector("th").textContent,
                    row.querySelector(".bar").getBoundingClientRect().width /
                        row.querySelector(".track").getBoundingClientRect().width,
                ])),
            ]))"""
    )


# -- in a browser ----------------------------------------------------------------------


def test_faces_have_boxes_and_predictions(browser, table_server):
    with opened(browser, table_server) as page:
        give(page, SEVERAL)
        boxes = page.locator("#boxes button")
        labels = [box.get_attribute("aria-label") for box in boxes.all()]
        assert labels == [
            "Face 1: woman, 25-32", "Face 2: man, 60-100", "Face 3: girl, 0-2",
        ]  # fmt: skip
        pressed = [box.get_attribute("aria-pressed") for box in boxes.all()]
        assert pressed == ["false", "true", "false"], "the largest face is chosen first"

        photo, box = page.locator(".stage img").bounding_box(), boxes.nth(1)
        drawn = box.bounding_box()
        assert (drawn["x"] - photo["x"]) / photo["width"] == pytest.approx(
            0.3, abs=0.01
        )
        assert drawn["height"] / photo["height"] == pytest.approx(0.4, abs=0.01)

        boxes.nth(2).focus()
        page.keyboard.press("Enter")
        assert page.inner_text("#which") == "Face 3 of 3"
        assert page.is_visible("#doubt")
        page.click("#next")
        assert page.inner_text("#prediction h2") == "Woman, 25\u201132"
        assert not page.is_visible("#doubt")


def test_every_output_is_drawn(browser, table_server):
    with opened(browser, table_server) as page:
        give(page, SEVERAL)
        page.click("#boxes button:nth-child(2)")
        drawn = charts(page)
        assert drawn["Gender"] == pytest.approx(
            {"female": 0.03, "male": 0.97}, abs=0.01
        )
        ages = dict(zip(AGE_GROUPS, (0.0, 0.0, 0.3, 0.7), strict=True))
        assert drawn["Age group"] == pytest.approx(ages, abs=0.01)
        race = {"red": 0.2, "green": 0.5, "blue": 0.3}
        assert drawn["Race"] == pytest.approx(race, abs=0.01)
        glasses = {"no glasses": 0.1, "glasses": 0.9}
        assert drawn["Glasses"] == pytest.approx(glasses, abs=0.01)
        for title in ("Gender", "Age group", "Race", "Glasses"):
            assert sum(drawn[title].values()) == pytest.approx(1.0, abs=0.02)
        # Above medium: 0.5 of those that are above small, 0.5 of all.
        size = {"above small": 0.5, "above medium": 0.25}
        assert drawn["Size"] == pytest.approx(size, abs=0.01)
        text = page.inner_text("#charts")
        assert "71.25" in text and "-0.4" not in text, "in the column's own unit"
        assert "25-32 or 60-100, correct for 90 % of faces" in text
        assert page.locator("svg.years rect").count() == 101
        assert "highest at 30" in page.get_attribute("svg.years", "aria-label")


def test_the_download_is_the_servers_response(browser, table_server):
    with opened(browser, table_server) as page:
        give(page, SEVERAL, name="our.party.jpg")
        with page.expect_download() as download:
            page.click("#download")
        assert download.value.suggested_filename == "our.party.json"
        assert Path(download.value.path()).read_text("utf-8") == prediction_text(FACES)


def test_another_model_predicts_the_same_photo(browser, table_server):
    with opened(browser, table_server) as page:
        assert "non-commercial" in page.inner_text("#licence")
        assert "old faces" in page.inner_text("#model-limits")
        give(page, SEVERAL)
        with page.expect_response("**/predict?model=second"):
            page.select_option("#model", "second")
        page.wait_for_function("document.querySelector('#boxes').children.length === 1")
        assert page.is_hidden("#model-limits")
        assert "Race" in charts(page), "outputs that /models does not describe too"


@pytest.mark.parametrize("event", ["paste", "drop"])
def test_photos_are_pasted_and_dropped(browser, table_server, event):
    with opened(browser, table_server) as page:
        hand_over(page, event, NOBODY)
        state(page, "none")
        assert "No face was found" in page.inner_text("#message")
        assert "Try a photo with" in page.inner_text("#message")
        assert page.is_visible(".stage img") and page.is_hidden("#prediction")
        hand_over(page, event, SEVERAL)
        state(page, "faces")
        assert page.locator("#boxes button").count() == 3
        assert page.is_visible("#prediction")


def test_the_camera_takes_a_photo(browser, table_server):
    with opened(browser, table_server, errors=1) as page:
        page.wait_for_selector("#take", state="visible")
        page.click("#take")
        page.wait_for_selector("#shoot:enabled")
        track = "document.querySelector('video').srcObject.getTracks()[0]"
        page.evaluate(f"window.track = {track}")
        page.click("#shoot")
        state(page, "error")  # the table does not know the image
        assert page.inner_text("figcaption") == "camera.jpg"
        assert page.evaluate("track.readyState") == "ended", "the camera is off again"


def test_errors_are_said_in_the_servers_words(browser, table_server):
    with opened(browser, table_server, errors=3) as page:
        give(page, b"not an image", "notes.txt", "text/plain", then="error")
        assert "image: not an image." in page.inner_text("#message")
        assert page.is_hidden(".stage img") and page.is_hidden("#again")
        give(page, HUGE, then="error")
        assert "more than 50 megapixels" in page.inner_text("#message")
        give(page, BUSY, then="error")
        assert "Too many photos are waiting." in page.inner_text("#message")
        assert page.is_visible("#again")
        give(page, SEVERAL)
        assert page.is_hidden("#again")


def test_a_server_that_is_gone_is_said(browser, table_server):
    with opened(browser, table_server, errors=2) as page:
        for path in ("predict*", "health"):
            page.route(f"**/{path}", lambda route: route.abort("connectionrefused"))
        give(page, SEVERAL, then="error")
        assert "The server does not respond" in page.inner_text("#message")
        page.unroute_all()
        page.click("#again")
        state(page, "faces")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_all_of_it(browser, table_server, scheme):
    options = {"color_scheme": scheme, "has_touch": True, "is_mobile": True}
    with opened(browser, table_server, width=360, **options) as page:
        for content, then in ((SEVERAL, "faces"), (NOBODY, "none")):
            give(page, content, f"{'x' * 90}.jpg", then=then)
            assert page.evaluate("document.documentElement.scrollWidth") <= 360
            assert page.evaluate("innerWidth") == 360


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_stand_out_from_their_ground(browser, table_server, scheme):
    """By the colors as declared: WCAG 2's contrast ratio."""
    with opened(browser, table_server, color_scheme=scheme) as page:
        names = ("ground", "panel", "ink", "quiet", "accent", "on-accent", "alarm")
        colors = page.evaluate(
            """(names) => names.map((name) =>
                getComputedStyle(document.documentElement).getPropertyValue(`--${name}`))""",
            names,
        )
    color = dict(zip(names, colors, strict=True))
    pairs = [(t, g) for t in ("ink", "quiet", "alarm") for g in ("ground", "panel")]
    for text, ground in [*pairs, ("on-accent", "accent")]:
        assert contrast(color[text], color[ground]) >= 4.5, (text, ground)


def contrast(first, second):
    lights = sorted((luminance(first), luminance(second)))
    return (lights[1] + 0.05) / (lights[0] + 0.05)


def luminance(color):
    digits = color.strip().lstrip("#")
    values = np.array([int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)])
    linear = np.where(
        values <= 0.03928, values / 12.92, ((values + 0.055) / 1.055) ** 2.4
    )
    return float(linear @ (0.2126, 0.7152, 0.0722))


DRAWN_COLORS = """() => {
    const image = document.querySelector(".stage img");
    const { naturalWidth: width, naturalHeight: height } = image;
    const canvas = Object.assign(document.createElement("canvas"), { width, height });
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.drawImage(image, 0, 0);
    const at = (x, y) => [...context.getImageData(x * width, y * height, 1, 1).data];
    return [width, height, at(0.25, 0.25), at(0.75, 0.25), at(0.25, 0.75)];
}"""


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_photos_are_drawn_upright(browser, table_server, kind):
    """As `read_image` turns them, which is what boxes refer to."""
    quarters = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [255, 255, 0]]])
    image = Image.fromarray(
        quarters.repeat(64, axis=0).repeat(96, axis=1).astype("uint8")
    )
    with opened(browser, table_server, errors=8) as page:
        for orientation in range(1, 9):
            exif, file = Image.Exif(), io.BytesIO()
            exif[0x0112] = orientation
            image.save(file, kind, exif=exif)
            upright = kag.faces.read_image(file.getvalue())
            height, width = upright.shape[:2]
            # The table does not know the image; it is shown all the same.
            give(page, file.getvalue(), kind=f"image/{kind.lower()}", then="error")
            page.wait_for_selector(".stage img", state="visible")
            seen = page.evaluate(DRAWN_COLORS)
            assert seen[:2] == [width, height], orientation
            places = ((0.25, 0.25), (0.75, 0.25), (0.25, 0.75))
            for (x, y), color in zip(places, seen[2:], strict=True):
                expected = upright[int(y * height), int(x * width)].astype(int)
                assert np.abs(expected - color[:3]).max() < 12, orientation


def test_the_real_server(browser, tmp_path):
    server_module = pytest.importorskip(
        "keras_agegender.serving.server", reason="needs the server"
    )
    uvicorn = pytest.importorskip("uvicorn", reason="needs the extra `demo`")
    try:
        model = kag.serving.default_model()
    except ValueError:
        pytest.skip("needs the model of a checkout")
    photo = kag.synthetic.write_synthetic_photo(tmp_path / "drawn.jpg", seed=1)
    expected = kag.Predictor(model).predict(photo)
    assert len(expected.faces) > 1
    app = server_module.create_app({"compact": model}, page=True)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started and thread.is_alive():
            thread.join(0.1)
        port = server.servers[0].sockets[0].getsockname()[1]
        with opened(browser, f"http://127.0.0.1:{port}/", errors=1) as page:
            give(page, photo.read_bytes(), "drawn.jpg")
            boxes = page.locator("#boxes button")
            assert boxes.count() == len(expected.faces)
            boxes.nth(1).click()
            for title in ("Gender", "Age group"):
                assert sum(charts(page)[title].values()) == pytest.approx(1, abs=0.02)
            with page.expect_download() as download:
                page.click("#download")
            response = json.loads(Path(download.value.path()).read_text("utf-8"))
            assert response["model"] == "compact"
            boxes_found = [found["box"] for found in response["faces"]]
            assert boxes_found == [list(found.box) for found in expected.faces]
            give(page, b"not an image", "notes.txt", "text/plain", then="error")
    finally:
        server.should_exit = True
        thread.join()
