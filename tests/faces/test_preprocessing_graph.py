"""The pixel graph: which pixels are stored, for every option, in and out of graphs."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from sample_data import picture, resize_image

from keras_agegender.faces.decoding import decode_jpeg
from keras_agegender.faces.detector import MtcnnDetector
from keras_agegender.faces.preprocessing import CropOptions, Preprocessing
from keras_agegender.faces.preprocessing_graph import PhotoFaces, PreprocessingGraph
from keras_agegender.synthetic.drawing import draw_face

IMAGE = picture(size=(60, 80))


def graph(stored_size=None, jpeg_quality=None, **options):
    path = Preprocessing(
        crop=CropOptions(**options),
        detector={"detector": "given"},
        stored_size=stored_size,
        jpeg_quality=jpeg_quality,
    )
    return PreprocessingGraph(path)


def faces_at(*boxes):
    count = len(boxes)
    return PhotoFaces(
        tf.reshape(tf.constant(boxes, tf.float32), (-1, 4)),
        tf.linspace(0.9, 0.8, max(count, 1))[:count],
        tf.zeros((count, 5, 2)),
    )


def stored(graph, faces, image=IMAGE):
    face = graph.store(tf.constant(image), faces)
    return decode_jpeg(face.jpeg).numpy(), face.box.numpy(), float(face.score)


ONE = faces_at([20, 10, 40, 30])
TWO = faces_at([0, 0, 10, 10], [35, 25, 43, 33])


def test_no_margin_is_the_face_itself():
    cut = graph(margin=0).face(tf.constant(IMAGE), ONE.boxes[0], ONE.landmarks[0])
    np.testing.assert_array_equal(cut, IMAGE[10:30, 20:40])
    _, box, score = stored(graph(margin=0), ONE)
    assert box.tolist() == [20, 10, 40, 30] and score == pytest.approx(0.9)


@pytest.mark.parametrize(("selection", "left"), [("largest", 0), ("center", 35)])
def test_which_face_is_stored(selection, left):
    _, box, _ = stored(graph(margin=0, face_selection=selection), TWO)
    assert box[0] == left


@pytest.mark.parametrize(
    ("fallback", "box"), [("center", [10, 0, 70, 60]), ("full", [0, 0, 80, 60])]
)
def test_without_a_face(fallback, box):
    image, found, score = stored(graph((30, 30), fallback=fallback), faces_at())
    assert found.tolist() == box and score == 0 and image.shape == (30, 30, 3)


def test_padding_keeps_the_face_in_the_middle():
    """A face in the corner, doubled: a quarter of the crop is picture."""
    face = faces_at([0, 0, 20, 20])
    crop = graph(margin=0.5, pad=True).face(
        tf.constant(IMAGE + 1), face.boxes[0], face.landmarks[0]
    )
    assert not crop[:10].numpy().any() and not crop[:, :10].numpy().any()
    np.testing.assert_array_equal(crop[10:, 10:], IMAGE[:30, :30] + 1)
    _, inside, _ = stored(graph(margin=0.5), face)
    assert inside.tolist() == [0, 0, 40, 40]


def test_alignment_turns_the_face():
    """Eyes on a line of 90 degrees: the crop is the picture turned by it."""
    image = np.zeros((40, 40, 3), "uint8")
    image[:20] = 200
    landmarks = tf.constant([[20.0, 10], [20, 30], [0, 0], [0, 0], [0, 0]])
    box = tf.constant([10.0, 10, 30, 30])
    plain = graph(margin=0).face(tf.constant(image), box, landmarks).numpy()
    turned = graph(margin=0, align=True)
    turned = turned.face(tf.constant(image), box, landmarks).numpy()
    assert plain[0].min() == 200 and plain[-1].max() == 0
    assert turned[1:-1, 0].min() == 200 and turned[1:-1, -1].max() == 0


def test_compression_is_repeated_in_prediction():
    """What `store` writes and reads back is what `face` shows."""
    noise = np.random.default_rng(0).integers(0, 256, (60, 80, 3), "uint8")
    for quality in (30, 95):
        path = graph((32, 32), quality, margin=0)
        expected, *_ = stored(path, ONE, noise)
        shown = path.face(tf.constant(noise), ONE.boxes[0], ONE.landmarks[0])
        np.testing.assert_array_equal(shown, expected)
        clean = graph((32, 32), None, margin=0)
        clean = clean.face(tf.constant(noise), ONE.boxes[0], ONE.landmarks[0])
        assert np.abs(clean.numpy().astype(int) - expected).max() > 10


def test_the_center_is_cut_for_the_input():
    """Of a picture at its resized size, the middle 227 rows of 256: 14 to 240."""
    image = np.random.default_rng(0).integers(0, 256, (256, 256, 3), "uint8")
    path = Preprocessing().with_input((227, 227), 256 / 227)
    out = PreprocessingGraph(path).to_input(tf.constant(image)).numpy()
    np.testing.assert_allclose(out, image[14:241, 14:241] / 255.0, atol=1e-6)


@pytest.mark.parametrize("size", [(200, 200), (256, 300), (640, 480), (8, 30)])
def test_finds_the_faces_that_the_detector_finds(size):
    face = draw_face(3, 4, 1).image
    side = min(size)
    image = np.full((*size, 3), 110, "uint8")
    image[:side, :side] = resize_image(face, (side, side))
    (expected,) = MtcnnDetector().detect([image])
    found = PreprocessingGraph(Preprocessing(crop=CropOptions())).find(
        tf.constant(image)
    )
    assert len(found.boxes) == len(expected) == (0 if side < 12 else 1)
    np.testing.assert_allclose(found.boxes, expected.boxes, atol=0.05)
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-3)
    np.testing.assert_allclose(found.landmarks, expected.landmarks, atol=0.05)


def test_the_detector_s_settings_count():
    """A face of a fifth of the picture is found, or is too small to be looked for."""
    image = np.full((300, 300, 3), 110, "uint8")
    image[100:180, 100:180] = resize_image(draw_face(3, 4, 1).image, (80, 80))
    for size, count in ((0.1, 1), (0.6, 0)):
        settings = MtcnnDetector(min_face_size=size).settings()
        path = Preprocessing(crop=CropOptions(), detector=settings)
        assert len(PreprocessingGraph(path).find(tf.constant(image)).boxes) == count


def test_travels_in_a_dataset_and_in_a_saved_model(tmp_path):
    image = draw_face(3, 4, 1).image
    pixels = PreprocessingGraph(Preprocessing(crop=CropOptions(), stored_size=(64, 64)))
    expected = pixels.subject(tf.constant(image)).numpy()
    dataset = tf.data.Dataset.from_tensors(image).map(pixels.subject)
    # Threads add up convolutions in another order.
    np.testing.assert_allclose(next(iter(dataset)), expected, atol=1)
    module = tf.Module()
    module.pixels = pixels
    module.crop = tf.function(
        pixels.subject, input_signature=[tf.TensorSpec((None, None, 3), tf.uint8)]
    )
    tf.saved_model.save(module, str(tmp_path))
    loaded = tf.saved_model.load(str(tmp_path))
    np.testing.assert_allclose(loaded.crop(tf.constant(image)), expected, atol=1)


def test_what_a_path_does_not_hold_is_said():
    with pytest.raises(ValueError, match="Expected the detector 'mtcnn'"):
        graph().find(tf.constant(IMAGE))
    with pytest.raises(ValueError, match="Expected `image_size`"):
        graph().to_input(tf.constant(IMAGE))
    with pytest.raises(ValueError, match="Expected `crop`"):
        PreprocessingGraph(Preprocessing()).crop_box(tf.constant(IMAGE), ONE.boxes[0])
