"""Targets between labels and a teacher's answers."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from sample_data import make_prepared

import keras_agegender as kag
from keras_agegender.datasets.distillation import distill
from keras_agegender.encodings.head import Head
from keras_agegender.encodings.registry import get_encoding
from keras_agegender.evaluation.plots import read_history
from keras_agegender.models.builder import build_model
from keras_agegender.recipes.loading import load_recipe
from keras_agegender.training.experiment import make_experiment
from keras_agegender.training.fit import train_dataset
from keras_agegender.training.train import train

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="models run inside tf.data"
)
RECIPE = """
[model]
backbone = "sample_data:small_backbone"
image_size = [32, 32]
encoding = "years"
[data]
batch_size = 16
[training]
epochs = 1
checkpoint_monitor = "val_loss"
"""


def constant_teacher(size=(32, 32), **answers):
    """A model that gives the same answer about every picture."""
    image = keras.Input((*size, 3))
    mean = keras.layers.GlobalAveragePooling2D()(image)
    outputs = {}
    for name, answer in answers.items():
        answer = np.asarray(answer, "float32")
        layer = keras.layers.Dense(
            answer.size,
            kernel_initializer="zeros",
            bias_initializer=keras.initializers.Constant(answer.ravel()),
        )
        outputs[name] = keras.layers.Reshape(answer.shape, name=name)(layer(mean))
    return keras.Model(image, outputs)


def batches_of(targets, weights=None, size=32):
    picture = np.full((2, size, size, 3), 0.5, "float32")
    weights = weights or {name: np.ones(2, "float32") for name in targets}
    return tf.data.Dataset.from_tensors((picture, targets, weights))


def test_targets_lie_between_label_and_answer():
    targets = {
        "gender": np.array([[1.0], [0.0]], "float32"),
        "age": np.array([[[1.0], [0.0]], [[1.0], [1.0]]], "float32"),
    }
    encoding = get_encoding("coral", age_groups=[(0, 9), (10, 19), (20, 29)])
    teacher = constant_teacher(gender=[0.6], age=[[0.8], [0.2]])
    mixed = distill(batches_of(targets), teacher, encoding, weight=0.25)
    ((picture, found, weights),) = mixed
    # 0.75 · 1 + 0.25 · 0.6 and 0.75 · 0 + 0.25 · 0.6
    np.testing.assert_allclose(found["gender"], [[0.9], [0.15]], atol=1e-6)
    np.testing.assert_allclose(
        found["age"], [[[0.95], [0.05]], [[0.95], [0.8]]], atol=1e-6
    )
    assert picture.shape == (2, 32, 32, 3)
    np.testing.assert_array_equal(weights["gender"], [1, 1])


def test_only_outputs_named_are_mixed_and_ids_never():
    encoding = get_encoding(
        "ordinal",
        age_groups=[(0, 9), (10, 19)],
        heads=[Head("hair", head_type="categorical", num_classes=3)],
    )
    targets = {
        name: np.zeros((2, 1), "float32") for name in ("gender", "age1", "age2")
    } | {"hair": np.array([2, 0], "int32")}
    teacher = constant_teacher(gender=[1.0], age1=[1.0], age2=[1.0], hair=[0, 0, 1])
    ((_, found, _),) = distill(batches_of(targets), teacher, encoding)
    assert {name: float(np.max(found[name])) for name in targets} == {
        "gender": 0.5, "age1": 0.5, "age2": 0.5, "hair": 2.0,
    }  # fmt: skip
    ((_, found, _),) = distill(batches_of(targets), teacher, encoding, outputs=["age2"])
    assert float(np.max(found["gender"])) == float(np.max(found["age1"])) == 0
    with pytest.raises(ValueError, match="Unknown output 'hair'"):
        distill(batches_of(targets), teacher, encoding, outputs=["hair"])


def hat_teacher(*classes):
    teacher = build_model(
        lambda x: keras.layers.Flatten()(x), None, heads=[Head("hat", classes=classes)],
        image_size=(32, 32), augment=False,
    )  # fmt: skip
    bias = np.log([0.8 / 0.2])  # P(second class) = 0.8
    teacher.get_layer("hat").set_weights([np.zeros((32 * 32 * 3, 1)), bias])
    return teacher


def test_classes_of_a_teacher_are_matched_by_name():
    student = kag.Encoding("custom", (Head("hat", classes=("bare", "hat")),))
    batches = batches_of({"hat": np.array([[1.0], [0.0]], "float32")})
    for teacher, expected in (
        (hat_teacher("bare", "hat"), 0.8),
        (hat_teacher("Hat", "bare"), 0.2),
    ):
        ((_, found, _),) = distill(batches, teacher, student, weight=1.0, flip=True)
        np.testing.assert_allclose(found["hat"], [[expected]] * 2, atol=1e-6)
    with pytest.raises(ValueError, match="'hat' of 'custom' predicts something else"):
        distill(batches, hat_teacher("cap", "bare"), student)


def test_a_teacher_of_another_size_sees_the_picture_resized():
    image = keras.Input((16, 8, 3))
    kernel = keras.initializers.Constant(1 / 3)
    mean = keras.layers.GlobalAveragePooling2D()(image)
    gender = keras.layers.Dense(1, kernel_initializer=kernel, name="gender")(mean)
    teacher = keras.Model(image, {"gender": gender})
    targets = {"gender": np.zeros((2, 1), "float32")}
    ((picture, found, _),) = distill(batches_of(targets), teacher, "gender", weight=1)
    np.testing.assert_allclose(found["gender"], [[0.5], [0.5]], atol=1e-6)
    assert picture.shape[1:3] == (32, 32)


@pytest.mark.parametrize(
    ("encoding", "teacher", "arguments", "message"),
    [
        ("gender", {"gender": [1.0]}, {"weight": 0.0}, r"number in \(0, 1\]"),
        ("gender", {"gender": [1.0, 2.0]}, {}, r"'gender' of shape \(1,\)"),
        ("gender", {"sex": [1.0]}, {}, r"'gender' of shape \(1,\)"),
        ("joint", {"gender_age": [1.0]}, {}, "target is a probability"),
    ],
)
def test_what_cannot_be_mixed_is_an_error(encoding, teacher, arguments, message):
    targets = {"gender": np.zeros((2, 1), "float32")}
    with pytest.raises(ValueError, match=message):
        distill(batches_of(targets), constant_teacher(**teacher), encoding, **arguments)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_prepared(tmp_path_factory.mktemp("data"))


@pytest.fixture
def recipe(tmp_path):
    file = tmp_path / "small.toml"
    file.write_text(RECIPE, "utf-8")
    return file


def teacher_file(folder, seed):
    keras.utils.set_random_seed(seed)
    file = folder / f"teacher{seed}.keras"
    build_model("sample_data:small_backbone", "years", image_size=(32, 32)).save(file)
    return file


def test_a_recipe_learns_from_its_teacher(data, recipe, tmp_path):
    first, second = teacher_file(tmp_path, 1), teacher_file(tmp_path, 2)

    def loaded_with(file):
        settings = [f"distillation.teachers=['{file}']", "distillation.weight=1.0"]
        return load_recipe(recipe, settings)

    loaded = loaded_with(first)
    run = train(loaded, data, tmp_path / "run", verbose=0)
    history = read_history(run.history_file)
    assert np.isfinite(history["loss"]).all()
    # At weight 1 targets are the teacher's answers about the very same pictures.
    image, targets, _ = next(
        iter(train_dataset(make_experiment(loaded, data), range(1)))
    )
    answers = keras.saving.load_model(first)(image, training=False)
    for output in ("gender", "age"):
        np.testing.assert_allclose(targets[output], answers[output], atol=1e-6)

    # Which teacher it was is part of the run's identity, where it lies is not.
    moved = first.rename(tmp_path / "moved.keras")
    identities = [
        make_experiment(loaded_with(file), data).identity for file in (moved, second)
    ]
    assert identities[0] == run.info()["identity"] != identities[1]
    with pytest.raises(ValueError, match="Model file not found"):
        make_experiment(loaded_with(first), data)


def test_settings_out_of_range_are_errors(recipe):
    with pytest.raises(ValueError, match=r"'distillation\.weight'"):
        load_recipe(recipe, ["distillation.teachers=['a']", "distillation.weight=0"])
    for missing in ("distillation.weight=0.5", "distillation.teachers=[]"):
        with pytest.raises(ValueError, match=r"distillation.*teachers"):
            load_recipe(recipe, [missing])
