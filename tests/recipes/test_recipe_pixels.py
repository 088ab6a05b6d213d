"""What recipes say about pixels and augmentation, and that training listens."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sample_data import make_prepared

from keras_agegender.datasets.prepared import load_prepared
from keras_agegender.encodings.registry import get_encoding
from keras_agegender.faces.detector import MtcnnDetector
from keras_agegender.models.augmentation import is_augmentation
from keras_agegender.recipes.loading import load_recipe, report_recipes
from keras_agegender.training.compile import build_compiled_model
from keras_agegender.training.experiment import (
    check_pixels,
    make_experiment,
    select_prepared,
)
from keras_agegender.training.fit import train_dataset
from keras_agegender.training.resume import recorded_pixels
from keras_agegender.training.train import train

TINY = ("model.backbone=caffe_1conv", "model.image_size=[32,32]", "data.batch_size=8")


@pytest.fixture(scope="module")
def datasets(tmp_path_factory):
    """The same pictures, cropped and whole."""
    cropped, whole = (tmp_path_factory.mktemp(n) for n in ("cropped", "whole"))
    make_prepared(cropped, 20)
    make_prepared(whole, 20, crop_options=None)
    return load_prepared(cropped / "prepared"), load_prepared(whole / "prepared")


def test_images_that_each_model_of_the_report_needs():
    """The report, 1.3: the Caffe models see whole pictures, the ResNets faces."""
    for name in (*report_recipes(), "celeba_attributes"):
        recipe = load_recipe(name)
        expected = "whole" if recipe.model.backbone.startswith("caffe") else "cropped"
        assert recipe.data.faces == expected, name
    assert load_recipe("quickstart").data.faces == "cropped"


def test_training_rejects_the_wrong_images(datasets, tmp_path):
    cropped, whole = datasets
    check_pixels(load_recipe("1"), whole)
    check_pixels(load_recipe("14"), cropped)
    check_pixels(load_recipe("1", ["data.faces=any"]), cropped)
    with pytest.raises(ValueError, match=r"on whole images.*face crops.*--no-crop"):
        train(load_recipe("1"), cropped, tmp_path / "a")
    with pytest.raises(ValueError, match=r"on face crops.*whole images.*without"):
        train(load_recipe("14"), whole, tmp_path / "b")
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match="'data.faces'"):
        load_recipe("1", ["data.faces=both"])


def test_datasets_of_unknown_pixels_require_an_override(datasets):
    from dataclasses import replace

    unknown = replace(datasets[0], info={})
    with pytest.raises(ValueError, match="does not record what its images are"):
        check_pixels(load_recipe("14"), unknown)
    check_pixels(load_recipe("14", ["data.faces=any"]), unknown)
    assert recorded_pixels(load_recipe("14"), unknown)["pixels"] is None


def test_the_right_one_of_several_is_taken(datasets):
    cropped, whole = datasets
    for order in ((cropped, whole), (whole, cropped)):
        assert select_prepared(load_recipe("1"), order) is whole
        assert select_prepared(load_recipe("9"), order) is cropped
    assert select_prepared(load_recipe("9"), [whole]) is whole  # and is refused
    assert select_prepared(load_recipe("9"), []) is None


def test_what_a_run_records(datasets):
    recorded = recorded_pixels(load_recipe("1"), datasets[1])
    assert recorded["pixels"]["image_size"] == [227, 227]
    assert recorded["pixels"]["enlarge"] == pytest.approx(256 / 227)
    assert recorded["pixels"]["crop"] is None
    assert recorded["preparation"]["written"] == 20


AUGMENTATION = "augmentation={{where='{}', contrast=0.0, flip=false, brightness=0.3}}"


def layers_of(recipe):
    model = build_compiled_model(recipe, get_encoding("gender"))
    return [x.name for x in model.layers if is_augmentation(x)]


@pytest.mark.slow
def test_augmentation_runs_where_the_recipe_specifies(datasets):
    prepared = datasets[0]
    shown = {}
    for where in ("model", "data", None):
        settings = [AUGMENTATION.format(where)] if where else []
        recipe = load_recipe(
            "quickstart", [*TINY, "model.encoding=gender", "model.question=", *settings]
        )
        assert layers_of(recipe) == (["random_brightness"] if where == "model" else [])
        recipe = replace(recipe, data=replace(recipe.data, faces="any"))
        batches = train_dataset(make_experiment(recipe, prepared), range(1))
        shown[where] = next(iter(batches))[0].numpy()
    np.testing.assert_array_equal(shown["model"], shown[None])
    assert np.abs(shown["data"] - shown[None]).mean() > 0.05


def test_augmentation_can_be_switched_off():
    settings = [AUGMENTATION.format("model"), "model.augment=false"]
    recipe = load_recipe("14", ["model.image_size=[32,32]", *settings])
    assert layers_of(recipe) == [] and recipe.data_augmentation() is None


def test_augmentation_survives_toml(tmp_path):
    recipe = load_recipe("14", [AUGMENTATION.format("data")])
    (tmp_path / "mine.toml").write_text(recipe.to_toml(), "utf-8")
    again = load_recipe(tmp_path / "mine.toml")
    assert again.augmentation == recipe.augmentation
    assert again.augmentation.brightness == 0.3 and not again.augmentation.flip
    assert "augmentation" not in load_recipe("14").to_toml()


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("augmentation={where='both'}", "augmentation.where"),
        ("augmentation={jpeg_quality=50}", "No Keras layer implements jpeg_quality"),
        ("augmentation={rotation=500}", "Invalid `rotation`"),
        ("augmentation={rotate=5}", "unknown key 'augmentation.rotate'"),
    ],
)
def test_augmentation_that_cannot_be(setting, message):
    with pytest.raises(ValueError, match=message):
        load_recipe("14", [setting])


def test_detector_settings_travel_into_the_run(tmp_path):
    """From prepare over the dataset into what export will read."""
    detector = MtcnnDetector(min_face_size=0.4)
    make_prepared(tmp_path, 20, detector=detector)
    prepared = load_prepared(tmp_path / "prepared")
    recorded = recorded_pixels(load_recipe("14"), prepared)
    assert recorded["pixels"]["detector"] == detector.settings()
