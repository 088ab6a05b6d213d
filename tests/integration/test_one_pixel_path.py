"""One way for pixels: training, `Predictor` and every signature see the same ones.

A corpus of formats and orientations, made on the spot. The model hands its input back,
so that what each way shows it can be compared pixel by pixel.
"""

from __future__ import annotations

import io

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from sample_data import MiddleDetector

from keras_agegender.datasets.manifest import make_manifest
from keras_agegender.datasets.pipeline import make_eval_dataset
from keras_agegender.datasets.prepare import prepare
from keras_agegender.datasets.prepared import load_prepared
from keras_agegender.encodings.encoding import Encoding
from keras_agegender.encodings.head import Head
from keras_agegender.faces.detector import MtcnnDetector
from keras_agegender.faces.images import UnreadableImageError
from keras_agegender.faces.preprocessing import CropOptions
from keras_agegender.serving.export import export
from keras_agegender.serving.predictor import Predictor
from keras_agegender.synthetic.drawing import draw_face

SIZE = (32, 32)
TOLERANCE = 2 / 255
ORIENTATIONS = {  # what undoes it -> EXIF value
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def saved(picture, kind, **options):
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


def turned(picture, orientation, kind="JPEG", **options):
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010E] = "a description in front of it"
    if orientation > 1:
        picture = picture.transpose(ORIENTATIONS[orientation])
    return saved(picture, kind, exif=exif, **options)


def corpus(width=330, height=300):
    """Name -> file of a picture with one drawn face, right of its middle."""
    face = Image.fromarray(draw_face(3, 4, 1).image)
    photo = Image.new("RGB", (width, height), (70, 120, 90))
    photo.paste(face, (66, 20))
    alpha = photo.copy()
    fade = np.full((height, width), 255, "uint8")
    fade[:10], fade[:, :50] = 90, 0
    alpha.putalpha(Image.fromarray(fade))
    files = {
        "jpeg": saved(photo, "JPEG", quality=97),
        "progressive": saved(photo, "JPEG", quality=90, progressive=True),
        "cmyk": saved(photo.convert("CMYK"), "JPEG", quality=95),
        "gray_jpeg": saved(photo.convert("L"), "JPEG", quality=95),
        "png": saved(photo, "PNG"),
        "gray_png": saved(photo.convert("L"), "PNG"),
        "deep_png": saved(
            Image.fromarray(np.asarray(photo.convert("L")).astype("uint16") * 257),
            "PNG",
        ),
        "palette": saved(photo.convert("P", palette=Image.Palette.ADAPTIVE), "PNG"),
        "alpha": saved(alpha, "PNG"),
        "gif": saved(photo.convert("P", palette=Image.Palette.ADAPTIVE), "GIF"),
        "bmp": saved(photo, "BMP"),
        "png_exif_6": turned(photo, 6, "PNG"),
        "gray_bmp": saved(photo.convert("L"), "BMP"),
        "webp": saved(photo, "WEBP", lossless=True),
        "alpha_webp": saved(alpha, "WEBP", lossless=True),
        "webp_exif_6": turned(photo, 6, "WEBP", lossless=True),
    }
    for orientation in range(1, 9):
        files[f"exif_{orientation}"] = turned(photo, orientation, quality=95)
    return files


def mirror_model():
    """A model whose one output is its input, in a row."""
    image = keras.Input((*SIZE, 3), name="image")
    pixels = keras.layers.Flatten(name="pixels")(image)
    encoding = Encoding(
        "custom", heads=(Head("pixels", "categorical", 3 * SIZE[0] * SIZE[1]),)
    )
    return keras.Model(image, {"pixels": pixels}), encoding


PATHS = {
    "mtcnn": ("resnet", {"crop_options": CropOptions()}),
    "settings": (
        "caffe",
        {
            "crop_options": CropOptions(margin=0.4, align=True, pad=True),
            "detector": MtcnnDetector(min_face_size=0.3, score_threshold=0.7),
            "output_size": (96, 80),
            "jpeg_quality": 70,
        },
    ),
    "whole": ("caffe", {"output_size": (64, 64)}),
}


@pytest.fixture(
    scope="module",
    params=["mtcnn", pytest.param("settings", marks=pytest.mark.slow), "whole"],
)
def ways(request, tmp_path_factory):
    """Files by name, pixels of training by name, and the export."""
    pipeline, arguments = PATHS[request.param]
    folder = tmp_path_factory.mktemp(request.param)
    files, rows = corpus(), []
    if request.param == "settings":
        files = {
            name: files[name]
            for name in ("png", "alpha", "gray_jpeg", "exif_1", "exif_6")
        }
    for name, data in files.items():
        (folder / name).write_bytes(data)
        rows.append({"key": name, "path": str(folder / name), "split": "test"})
    manifest = make_manifest([{**r, "age_group": 1, "gender": 1} for r in rows])
    report = prepare(manifest, folder / "prepared", progress=False, **arguments)
    assert set(report.counts) <= {"ok", "not_cropped"}
    options = {"split": "test", "pipeline": pipeline, "image_size": SIZE}
    batch = next(iter(make_eval_dataset(report.directory, "gender", **options)))
    trained = dict(zip(files, batch[0].numpy(), strict=True))
    model, encoding = mirror_model()
    prepared = load_prepared(report.directory)
    path = export(
        model, folder / "model", encoding=encoding, pixels=prepared.pixels,
        pipeline=pipeline,
    )  # fmt: skip
    on_the_fly = make_eval_dataset(
        manifest, "gender", face_crop=prepared.pixels, **options
    )
    return files, trained, path, prepared, next(iter(on_the_fly))[0].numpy()


def pixels_of(row):
    return np.reshape(row, (*SIZE, 3))


def test_predictor_sees_what_training_saw(ways):
    files, trained, path, *_ = ways
    predictions = Predictor(path).predict_many(list(files.values()))
    for name, prediction in zip(files, predictions, strict=True):
        (face,) = prediction.faces
        difference = np.abs(pixels_of(face.heads["pixels"]) - trained[name]).max()
        assert difference < TOLERANCE, name


def test_photo_sees_what_training_saw(ways):
    files, trained, path, *_ = ways
    signatures = tf.saved_model.load(str(path)).signatures
    photo = signatures["photo"]
    together = signatures["photos"](photo_bytes=tf.constant(list(files.values())))
    assert together["counts"].numpy().tolist() == [1] * len(files)
    for row, name in enumerate(files):
        difference = np.abs(pixels_of(together["pixels"][row, 0]) - trained[name])
        assert difference.max() < TOLERANCE, name
        answers = photo(photo_bytes=tf.constant(files[name]))
        assert len(answers["boxes"]) == 1, name
        difference = np.abs(pixels_of(answers["pixels"]) - trained[name]).max()
        assert difference < TOLERANCE, name
    refused = saved(Image.new("RGB", (8, 8)), "TIFF")
    with pytest.raises(tf.errors.InvalidArgumentError, match="TIFF is not read"):
        photo(photo_bytes=tf.constant(refused))
    with pytest.raises(UnreadableImageError, match="TIFF is not read"):
        Predictor(path).predict(refused)


def test_cropping_on_the_fly_sees_what_training_saw(ways):
    files, trained, _, _, on_the_fly = ways
    for name, pixels in zip(files, on_the_fly, strict=True):
        assert np.abs(pixels - trained[name]).max() < TOLERANCE, name


def test_serving_default_sees_what_training_saw(ways):
    """Stored pictures as they are; whole pictures on the way that `prepare` went."""
    files, trained, path, prepared, _ = ways
    import tensorflow_datasets as tfds

    rows = prepared.builder.as_dataset(
        split="test", decoders={"image": tfds.decode.SkipDecoding()}
    )
    stored = [row["image"] for row in rows.as_numpy_iterator()]
    loaded = tf.saved_model.load(str(path)).signatures
    answers = loaded["serving_default"](image_bytes=tf.constant(stored))
    again = loaded["inputs"](inputs=np.stack(list(trained.values())))
    for row, name in enumerate(trained):
        crop = tf.io.decode_jpeg(stored[row], dct_method="INTEGER_ACCURATE")
        one = loaded["faces"](faces=crop[tf.newaxis])
        for answer, place in ((answers, row), (again, row), (one, 0)):
            difference = np.abs(pixels_of(answer["pixels"][place]) - trained[name])
            assert difference.max() < TOLERANCE, name
    if prepared.pixels.faces == "whole":
        names = sorted(files)
        data = tf.constant([files[name] for name in names])
        answers = loaded["serving_default"](image_bytes=data)
        for row, name in enumerate(names):
            difference = np.abs(pixels_of(answers["pixels"][row]) - trained[name])
            assert difference.max() < TOLERANCE, name


def test_orientation_and_transparency_are_seen(ways):
    """All turned files show the same picture; what is clear is white, not black."""
    files, trained, _, prepared, _ = ways
    for orientation in range(1, 9):
        if f"exif_{orientation}" not in files:
            continue
        difference = np.abs(trained[f"exif_{orientation}"] - trained["exif_1"])
        assert difference.mean() < 0.06, orientation
    if prepared.pixels.faces == "whole":
        assert trained["alpha"][:, 0].mean() > 0.95
        assert trained["png"][:, 0].mean() < 0.5


def test_a_model_of_whole_images_detects_no_face(ways):
    files, _, path, prepared, _ = ways
    prediction = Predictor(path).predict(files["png"])
    if prepared.pixels.faces == "cropped":
        assert prediction.status == "ok"
        return
    assert prediction.status == "not_cropped"
    assert "as the model was trained" in str(prediction)
    assert prediction.faces[0].crop_box == (0, 0, 330, 300)
    asked = Predictor(path, MiddleDetector()).predict(files["png"])
    assert asked.status == "ok" and asked.faces[0].box == (82.5, 75, 247.5, 225)
    margin = CropOptions(margin=0)
    found = Predictor(path, crop_options=margin).predict(files["png"])
    assert found.status == "ok" and found.faces[0].box[0] > 12


@pytest.mark.slow
def test_a_detector_that_graphs_cannot_contain(tmp_path):
    model, encoding = mirror_model()
    path = export(model, tmp_path / "a", encoding=encoding, crop_options=CropOptions())
    from dataclasses import replace

    pixels = replace(Predictor(path).pixels, detector=MiddleDetector().settings())
    with pytest.warns(UserWarning, match="no signature `photo`"):
        export(model, tmp_path / "b", encoding=encoding, pixels=pixels)
    loaded = tf.saved_model.load(str(tmp_path / "b"))
    assert set(loaded.signatures) == {"serving_default", "faces", "inputs"}
    with pytest.raises(ValueError, match="Expected `detector`"):
        Predictor(tmp_path / "b")
    with_detector = Predictor(tmp_path / "b", MiddleDetector())
    assert with_detector.predict(corpus()["png"]).status == "ok"
