"""tf.data pipelines: the same targets as NumPy, the same order for the same seed."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from PIL import Image
from sample_data import EXTRA_HEADS, make_prepared, make_rows, picture

from keras_agegender.datasets.manifest import BOX_COLUMNS, make_manifest
from keras_agegender.datasets.pipeline import (
    encode_labels,
    get_pipeline_preset,
    make_eval_dataset,
    make_train_dataset,
    preprocess_for_evaluation,
    preprocess_for_training,
    read_labels,
)
from keras_agegender.datasets.prepare import prepare
from keras_agegender.datasets.prepared import load_prepared
from keras_agegender.encodings.encoding import Encoding
from keras_agegender.encodings.head import Head
from keras_agegender.encodings.registry import get_encoding, list_encodings
from keras_agegender.faces.decoding import decode_image, decode_jpeg
from keras_agegender.faces.preprocessing import CropOptions, Preprocessing
from keras_agegender.models.augmentation import Augmentation
from keras_agegender.synthetic.drawing import draw_face

BRIGHTER = Augmentation(flip=False, contrast=0, brightness=0.2)
SMALL = {"image_size": (32, 32), "batch_size": 8}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    directory = make_prepared(tmp_path_factory.mktemp("p"), extra_heads=EXTRA_HEADS)
    return load_prepared(directory)


def batches(dataset):
    return [tf.nest.map_structure(lambda x: x.numpy(), batch) for batch in dataset]


def joined(dataset):
    rows = batches(dataset)
    return tf.nest.map_structure(lambda *parts: np.concatenate(parts), *rows)


@pytest.mark.parametrize("name", [n for n in list_encodings() if n != "attributes"])
def test_targets_equal_those_of_the_encoding(prepared, name):
    encoding = get_encoding(name, heads=prepared.extra_heads())
    labels = read_labels(prepared, "train", columns=[*EXTRA_HEADS, "age_years"])
    ages, genders = labels["age_group"], labels["gender"]
    assert (ages == -1).any() and (genders == -1).any()
    expected = encoding.encode(ages, genders, labels)
    weights = encoding.sample_weights(ages, genders, labels)
    _, targets, sample_weights = joined(
        make_eval_dataset(prepared, encoding, split="train", **SMALL)
    )
    assert list(targets) == list(expected) == list(sample_weights)
    for head in encoding.output_names:
        np.testing.assert_allclose(targets[head], expected[head], err_msg=head)
        assert targets[head].dtype == expected[head].dtype
        np.testing.assert_array_equal(sample_weights[head], weights[head], err_msg=head)


def test_targets_are_the_same_eagerly_and_in_a_graph():
    encoding = get_encoding("ordinal")
    example = {
        "age_group": tf.constant([0, 3, 7, -1], tf.int64),
        "gender": tf.constant([1, -1, 0, 1], tf.int64),
    }
    eager = encode_labels(example, encoding)
    graph = tf.function(lambda e: encode_labels(e, encoding))(example)
    tf.nest.map_structure(np.testing.assert_array_equal, eager, graph)


def test_images_are_the_pipeline_s(prepared):
    """The dataset's images equal those of the function that exports call."""
    for name in ("resnet", "caffe"):
        images, _, _ = joined(
            make_eval_dataset(
                prepared, "gender", split="fold_0", pipeline=name, **SMALL
            )
        )
        rows = prepared.builder.as_dataset(
            split="fold_0", decoders={"image": tfds.decode.SkipDecoding()}
        )
        stored = [decode_jpeg(row["image"]) for row in rows]
        expected = [preprocess_for_evaluation(x, (32, 32), name) for x in stored]
        np.testing.assert_allclose(images, np.stack(expected), atol=1e-6)
        assert images.dtype == np.float32
        assert 0 <= images.min() and images.max() <= 1


def test_caffe_sizes():
    """256 is cut to 227, as in the report; other sizes keep the ratio."""
    pipeline = get_pipeline_preset("caffe")
    assert round(227 * pipeline.enlarge) == 256
    image = tf.constant(picture(size=(300, 200)))
    for size in ((227, 227), (96, 96), (64, 48)):
        assert preprocess_for_evaluation(image, size, "caffe").shape == (*size, 3)


def test_the_centre_is_cut_for_evaluation():
    """Of a picture at its resized size, the middle 227 rows of 256: 14 to 240."""
    image = np.random.default_rng(0).integers(0, 256, (256, 256, 3), "uint8")
    out = preprocess_for_evaluation(tf.constant(image), (227, 227), "caffe").numpy()
    np.testing.assert_allclose(out, image[14:241, 14:241] / 255.0, atol=1e-6)


def test_random_crops_are_windows_and_half_of_them_mirrored():
    image = np.random.default_rng(0).integers(0, 256, (256, 256, 3), "uint8")
    seen = set()
    mirrored = 0
    for seed in range(40):
        out = preprocess_for_training(
            tf.constant(image), (227, 227), "caffe", (seed, 1)
        )
        pixels = np.round(out.numpy() * 255).astype("uint8")
        places = [
            (top, left, flip)
            for flip in (False, True)
            for top in range(30)
            for left in range(30)
            if (pixels[:, ::-1][:3, :3] if flip else pixels[:3, :3]).tobytes()
            == image[top : top + 3, left : left + 3].tobytes()
        ]
        (found,) = places
        seen.add(found[:2])
        mirrored += found[2]
    assert len(seen) > 30
    assert 8 < mirrored < 32


def test_the_resnet_pipeline_leaves_chance_to_the_model():
    image = tf.constant(picture(size=(64, 64)))
    first, second = (
        preprocess_for_training(image, (32, 32), "resnet", (seed, 0)) for seed in (1, 2)
    )
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(
        first, preprocess_for_evaluation(image, (32, 32), "resnet")
    )


def train(prepared, **options):
    return make_train_dataset(
        prepared, "gender", pipeline="caffe", **{**SMALL, "batch_size": 5, **options}
    )


def test_the_same_seed_is_the_same_training(prepared):
    first, second, other = (batches(train(prepared, seed=s)) for s in (1, 1, 2))
    tf.nest.map_structure(np.testing.assert_array_equal, first, second)
    assert any((a[0] != b[0]).any() for a, b in zip(first, other, strict=True))


def test_epochs_differ_and_are_reproducible(prepared):
    dataset = train(prepared, seed=1)
    epochs = [batches(dataset) for _ in range(2)]
    assert (epochs[0][0][0] != epochs[1][0][0]).any()
    again = train(prepared, seed=1)
    for epoch in epochs:
        tf.nest.map_structure(np.testing.assert_array_equal, epoch, batches(again))


def test_augmentation_is_in_the_batches_of_training(prepared):
    """A brightness that only `augment` has; the order stays that of the seed."""
    plain, bright, again = (
        joined(make_train_dataset(prepared, "gender", augment=augment, **SMALL))[0]
        for augment in (None, BRIGHTER, BRIGHTER)
    )
    np.testing.assert_array_equal(bright, again)
    inside = (bright > 0.01) & (bright < 0.99)
    difference = np.where(inside, bright - plain, np.nan)
    per_face = np.nanmean(difference, axis=(1, 2, 3))
    assert np.nanstd(difference, axis=(1, 2, 3)).max() < 1e-5
    assert np.abs(per_face).max() > 0.1 and np.ptp(per_face) > 0.15


@pytest.mark.parametrize("in_memory", [True, False])
def test_caching_changes_nothing(prepared, tmp_path, in_memory):
    cached = train(prepared, cache=True if in_memory else str(tmp_path / "cache"))
    plain = train(prepared)
    for _ in range(2):
        tf.nest.map_structure(
            np.testing.assert_array_equal, batches(cached), batches(plain)
        )


def test_every_face_is_there_once(prepared):
    dataset = train(prepared)
    assert int(dataset.cardinality()) == 5  # 24 faces, 5 a step
    assert sum(len(batch[0]) for batch in batches(dataset)) == 24


def test_labels_are_read_in_the_order_of_the_batches(prepared):
    labels = read_labels(prepared, "fold_4")
    _, targets, weights = joined(
        make_eval_dataset(prepared, "gender", split="fold_4", **SMALL)
    )
    known = weights["gender"] == 1
    np.testing.assert_array_equal(targets["gender"][known, 0], labels["gender"][known])
    assert list(labels["key"]) == [f"{n:03d}.jpg" for n in range(4, 40, 5)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"split": "tset"}, "Invalid `split`"),
        ({"split": "fold_0[:0%]"}, "has no faces"),
        ({"pipeline": "vgg"}, "Invalid `pipeline`"),
        ({"batch_size": 0}, "Invalid `batch_size`"),
        ({"image_size": (32,)}, "Invalid `image_size`"),
        ({"encoding": "attributes"}, "has no column"),
        ({"encoding": "ordnal"}, "ordinal"),
    ],
)
def test_invalid_arguments(prepared, arguments, message):
    encoding = arguments.pop("encoding", "gender")
    with pytest.raises(ValueError, match=message):
        make_eval_dataset(prepared, encoding, **{**SMALL, **arguments})


def test_damaged_pictures_are_errors_not_noise():
    with pytest.raises(tf.errors.InvalidArgumentError):
        decode_image(tf.constant(b"no picture"))


# -- cropping on the fly ---------------------------------------------------------------


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A manifest of drawn faces: a PNG, a gray one and one that lies on its side."""
    folder = tmp_path_factory.mktemp("photos")
    rows = []
    for number in range(6):
        picture = Image.fromarray(draw_face(number, number, number % 2).image)
        file = folder / f"{number}.{'png' if number == 0 else 'jpg'}"
        options = {"quality": 97} if number else {}
        if number == 1:
            picture = picture.convert("L")
        if number == 2:  # EXIF orientation 6: stored on its side
            picture = picture.rotate(90, expand=True)
            exif = Image.Exif()
            exif[0x0112] = 6
            options["exif"] = exif
        picture.save(file, **options)
        rows.append(
            {
                "key": file.name,
                "path": str(file),
                "split": ("train", "train", "validation")[number % 3],
                "age_group": number,
                "gender": number % 2,
            }
        )
    return make_manifest(rows)


@pytest.mark.slow
def test_cropping_on_the_fly_gives_what_prepare_gives(photos, tmp_path):
    options = CropOptions()
    report = prepare(photos, tmp_path / "p", crop_options=options, progress=False)
    assert report.counts == {"ok": 6}
    for split, count in (("train", 4), ("train+validation", 6)):
        expected = joined(
            make_eval_dataset(report.directory, "ordinal", split=split, **SMALL)
        )
        rows = photos.sort_values("split", kind="stable")  # splits lie one by one there
        found = joined(
            make_eval_dataset(rows, "ordinal", split=split, face_crop=options, **SMALL)
        )
        tf.nest.map_structure(np.testing.assert_array_equal, found[1:], expected[1:])
        assert len(found[0]) == count
        assert np.abs(found[0] - expected[0]).max() < 2 / 255
    train_ds = make_train_dataset(photos, "ordinal", face_crop=options, **SMALL)
    assert joined(train_ds)[0].shape == (4, 32, 32, 3)


@pytest.mark.slow
def test_whole_pictures_of_a_dataset_can_be_cropped(photos, tmp_path):
    report = prepare(photos, tmp_path / "p", progress=False)
    cropper = Preprocessing(crop=CropOptions(margin=0.5))
    plain, cropped = (
        joined(make_eval_dataset(report.directory, "gender", face_crop=crop, **SMALL))
        for crop in (None, cropper)
    )
    assert np.abs(plain[0] - cropped[0]).mean() > 0.02
    again = make_eval_dataset(photos, "gender", face_crop=cropper, **SMALL)
    assert np.abs(joined(again)[0] - cropped[0]).mean() < 0.02


def test_crops_that_tf_data_cannot_make(photos):
    for path, message in (
        (CropOptions(fallback="skip"), "Invalid `face_crop`.*fallback"),
        (
            Preprocessing(crop=CropOptions(), detector={"detector": "x"}),
            "detector 'mtcnn'",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            make_train_dataset(photos, "gender", face_crop=path)


def test_manifests_that_do_not_fit(photos, tmp_path):
    with pytest.raises(ValueError, match="Invalid `split`.*'test'"):
        make_eval_dataset(photos, "gender", split="test")
    encoding = get_encoding("gender", heads=[Head("hat")])
    with pytest.raises(ValueError, match="no column \\['hat'\\]"):
        make_eval_dataset(photos, encoding)
    three = photos.assign(hat=2)
    with pytest.raises(ValueError, match=r"`hat` of head 'hat'.*\[0, 2\).*Received: 2"):
        make_eval_dataset(three, encoding)
    three.extra_heads = {"hat": {"kind": "categorical", "classes": [*"abc"]}}
    with pytest.raises(ValueError, match=r"'hat' of the manifest has 3 classes \(a, b"):
        make_eval_dataset(three, encoding)
    with pytest.raises(ValueError, match="Invalid `age_groups`.*the manifest has"):
        make_eval_dataset(photos, get_encoding("joint", age_groups="decades"))
    gone = photos.assign(path=str(tmp_path / "gone.jpg"))
    with pytest.raises(ValueError, match="gone.jpg: no such file"):
        make_eval_dataset(gone, "gender")


def test_damaged_images_are_named_before_the_first_step(photos, tmp_path):
    files = {"html.jpg": b"<html>Quota exceeded</html>", "empty.jpg": b""}
    files["cut.jpg"] = Path(photos["path"].iloc[0]).read_bytes()[:-200]
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    damaged = photos.copy()
    damaged.loc[damaged.index[:3], "path"] = [str(tmp_path / name) for name in files]
    damaged["split"] = "train"
    with pytest.raises(ValueError, match=f"^3 of {len(photos)} images cannot") as error:
        make_train_dataset(damaged, "gender")
    assert all(f"{tmp_path / name}: " in str(error.value) for name in files)


def test_a_given_box_is_cropped_on_the_fly_as_prepare_does(photos, tmp_path):
    # Two faces of one image; the third row has no box and is searched.
    first = photos.iloc[[0, 0, 1]].assign(key=[*"abc"], split="validation")
    boxes = [[4, 6, 30, 40], [40, 20, 90, 70], [np.nan] * 4]
    rows = make_manifest(
        first.assign(**dict(zip(BOX_COLUMNS, np.transpose(boxes), strict=True)))
    )
    options = CropOptions(margin=0.1)
    report = prepare(rows, tmp_path / "p", crop_options=options, progress=False)
    assert report.counts["given_box"] == 2
    expected = joined(make_eval_dataset(report.directory, "gender", **SMALL))
    for more in ({}, {"in_memory": True}):
        found = make_eval_dataset(rows, "gender", face_crop=options, **SMALL, **more)
        assert np.abs(joined(found)[0] - expected[0]).max() < 2 / 255
    assert np.abs(expected[0][0] - expected[0][1]).mean() > 0.02
    with pytest.raises(ValueError, match="several rows with face boxes"):
        make_eval_dataset(rows, "gender")
    far = rows.iloc[:1].assign(face_left=5000, face_right=6000)
    with pytest.raises(
        ValueError, match=r"a: box \[5000.0, .* is outside of the image"
    ):
        make_eval_dataset(far, "gender", face_crop=options)


@pytest.mark.parametrize("value", [2, 4])
def test_ids_beyond_the_classes_are_errors_in_the_graph_too(value):
    """A binary head of a column with five classes."""
    encoding = get_encoding("gender", heads=[Head("race")])
    example = {
        "age_group": tf.constant([0, 1], tf.int64),
        "gender": tf.constant([1, -1], tf.int64),
        "race": tf.constant([1, value], tf.int64),
    }
    dataset = tf.data.Dataset.from_tensors(example)
    with pytest.raises(tf.errors.InvalidArgumentError, match="Invalid race of head"):
        list(dataset.map(lambda e: encode_labels(e, encoding)))


@pytest.mark.parametrize("kind", ["coral", "regression"])
def test_fractions_and_unknown_ages_are_the_same_eagerly_and_in_the_graph(kind):
    """A fraction is no class; -1 is no age, and no number to learn."""
    head = Head("x", kind, 4, column="dose") if kind == "coral" else None
    head = head or Head("x", kind, column="age_years", mean=30.0, scale=10.0)
    encoding = Encoding("one", (head,))
    values = [1.5, 2.0] if kind == "coral" else [-1.0, 40.0]
    example = {"age_group": [-1, -1], "gender": [-1, -1], head.columns[0]: values}
    tensors = {
        name: tf.constant(value, tf.float32 if name == head.columns[0] else tf.int64)
        for name, value in example.items()
    }
    dataset = tf.data.Dataset.from_tensors(tensors)
    encoded = dataset.map(lambda e: encode_labels(e, encoding))
    if kind == "coral":
        with pytest.raises(ValueError, match="1.5"):
            encoding.encode(columns={"dose": values})
        with pytest.raises(tf.errors.InvalidArgumentError, match="Expected class ids"):
            list(encoded)
        return
    targets, weights = next(iter(encoded))
    np.testing.assert_allclose(targets["x"], [[0.0], [1.0]])  # (40 - 30) / 10
    np.testing.assert_allclose(weights["x"], [0.0, 1.0])
    eager = {"age_years": values}
    np.testing.assert_allclose(encoding.encode(columns=eager)["x"], [[0.0], [1.0]])
    np.testing.assert_allclose(encoding.sample_weights(columns=eager)["x"], [0.0, 1.0])


def test_epochs_in_a_row_have_orders_of_their_own(prepared):
    encoding = get_encoding("gender")
    dataset = make_train_dataset(
        prepared, encoding, epochs=range(2), batch_size=24, image_size=(32, 32)
    )
    first, second = (images.numpy() for images, *_ in dataset)
    assert first.shape == second.shape
    assert np.abs(first - second).max() > 0.1
    np.testing.assert_allclose(np.sort(first, 0), np.sort(second, 0), atol=1e-6)


@pytest.mark.parametrize(
    "options", [{}, {"balanced": True}, {"shard": (1, 2)}, {"cache": True}]
)
def test_a_row_of_epochs_is_each_epoch_by_its_number(prepared, options):
    """So that training which is resumed at any epoch goes on the same way."""
    options = {"batch_size": 14, "image_size": (16, 16), "seed": 5, **options}
    whole = make_train_dataset(prepared, "gender", epochs=range(3), **options)
    apart = [
        batch
        for number in range(3)
        for batch in make_train_dataset(
            prepared, "gender", epochs=range(number, number + 1), **options
        )
    ]
    assert int(whole.cardinality()) == len(apart) == 6  # 24 faces in 2 batches
    for batch, expected in zip(whole, apart, strict=True):
        tf.nest.map_structure(np.testing.assert_array_equal, batch, expected)


def test_epochs_are_not_built_one_by_one(prepared, monkeypatch):
    calls = []
    shuffle = tf.data.Dataset.shuffle

    def counted(dataset, *arguments, **options):
        calls.append(dataset)
        return shuffle(dataset, *arguments, **options)

    monkeypatch.setattr(tf.data.Dataset, "shuffle", counted)
    dataset = make_train_dataset(
        prepared, "gender", epochs=range(100_000), batch_size=24, image_size=(16, 16)
    )
    assert len(calls) <= 2  # tracing may be done twice
    assert int(dataset.cardinality()) == 100_000
    next(iter(dataset))


def test_a_cache_outlives_the_first_of_several_epochs(tmp_path):
    manifest = make_manifest(make_rows(tmp_path, 5))
    dataset = make_train_dataset(
        manifest, "gender", split="fold_0+fold_1", epochs=range(3), cache=True,
        batch_size=2, image_size=(16, 16),
    )  # fmt: skip
    batches = iter(dataset)
    next(batches)
    for file in tmp_path.glob("*.jpg"):
        file.unlink()
    assert len(list(batches)) == 2


def test_the_global_seed_does_not_matter(prepared):
    found = []
    for global_seed in (0, 7):
        tf.random.set_seed(global_seed)
        found.append(train(prepared, epochs=range(2)))
    for batch, expected in zip(*found, strict=True):
        tf.nest.map_structure(np.testing.assert_array_equal, batch, expected)


def test_labels_that_no_face_has_are_a_warning(tmp_path):
    rows = make_rows(tmp_path / "images", 12)
    manifest = make_manifest([{**row, "age_group": -1} for row in rows])
    with pytest.warns(UserWarning, match="has a label for age \\(age_group\\)"):
        make_train_dataset(manifest, "categorical", split="fold_0", image_size=(16, 16))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make_train_dataset(manifest, "gender", split="fold_0", image_size=(16, 16))
