"""Recipes load strictly and round-trip through their own files."""

from __future__ import annotations

import dataclasses
import tomllib
from dataclasses import replace

import pytest

from keras_agegender.recipes import loading
from keras_agegender.recipes.loading import (
    list_recipes,
    load_recipe,
    override_recipe,
)
from keras_agegender.recipes.schema import LossWeightBalancing, ModelSettings


@pytest.mark.parametrize("name", list_recipes())
def test_every_recipe_round_trips_through_its_resolved_file(name, tmp_path):
    recipe = load_recipe(name)
    assert recipe.title
    path = tmp_path / f"{name}.toml"
    path.write_text(recipe.to_toml(), "utf-8")
    assert load_recipe(path) == recipe


def test_a_base_is_overlaid_key_by_key():
    recipe = load_recipe("resnet_se_ordinal")
    assert recipe.model.backbone == "resnet_se"  # its own
    assert recipe.training.patience == 5  # the base's
    assert recipe.loss_weights["age5"] == 1.8


def test_overrides():
    recipe = load_recipe(
        "resnet_se_ordinal",
        [
            "training.epochs=3",
            "model.encoding=joint",
            "model.image_size=[64, 48]",
            "loss_weights.gender=7",
        ],
    )
    assert recipe.training.epochs == 3
    assert recipe.model.encoding == "joint"
    assert recipe.model.image_size == (64, 48)
    assert recipe.loss_weights["gender"] == 7.0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[training]\nepoch = 3", r"my\.toml.*'training\.epoch'.*epochs'"),
        ("[training]\nepochs = '3'", r"my\.toml.*'training\.epochs'.*integer.*'3'"),
        ("[model]\naugment = 1", r"'model\.augment'.*bool"),
        ("[model]\nimage_size = [3]", r"'model\.image_size\[1\]'.*a value.*\[3\]"),
        ("[loss_weights]\ngender = true", r"'loss_weights\.gender'.*number.*True"),
        ("model = 3", "'model'"),
        ("[model", "not valid TOML"),
        ("base = 'nowhere'", "Unknown recipe 'nowhere'"),
        ("base = 'my'", "its own base"),
        ("unset = ['training.epoch']\nbase = 'base_resnet'", "invalid `unset`"),
        # A choice: the message lists all.
        ("[model]\nquestion = 'elder'", r"'model\.question'.*'older' or 'younger'"),
        ("[model]\nquestion = ''", r"'model\.question'.*'older' or 'younger'.*''"),
        ("[data]\npipeline = 'vgg'", r"'data\.pipeline'.*'resnet' or 'caffe'"),
        ("[data]\nrole = 'source'", r"'data\.role'.*'pretrain' or 'target'"),
        ("[training]\nclass_weights = 'equal'", r"'training\.class_weights'.*balanced"),
        ("[evaluation]\npositive_gender = 'm'", r"positive_gender.*'male' or 'female'"),
        # A range.
        ("[training]\nepochs = 0", r"'training\.epochs'.*greater than or equal to 1"),
        (
            "[training]\npatience = 0",
            r"'training\.patience'.*greater than or equal to 1",
        ),
        (
            "[training]\nlearning_rate = 0.0",
            r"'training\.learning_rate'.*greater than 0",
        ),
        (
            "[training]\nweight_decay = -1e-4",
            r"'training\.weight_decay'.*greater than or equal to 0",
        ),
        (
            "[training.learning_rate_changes]\nten = 1.0",
            r"learning_rate_changes.*'ten'",
        ),
        ("[training.learning_rate_changes]\n10 = 0.0", r"changes\.10'.*greater than 0"),
        (
            "[training]\ncosine_decay = true\nlearning_rate_changes = {9 = 0.1}",
            "either learning_rate_changes or",
        ),
        (
            "[training]\nextra_checkpoints = {best = 'val_loss'}",
            r"'training\.extra_checkpoints'.*'best'",
        ),
        (
            "[training]\ncheckpoint_monitor = ''",
            r"'training\.checkpoint_monitor'.*at least 1 char",
        ),
        ("[training]\nlearning_rate = inf", r"'training\.learning_rate'.*finite.*inf"),
        ("[training]\nlearning_rate = nan", r"'training\.learning_rate'.*finite.*nan"),
        ("[training]\nweight_decay = inf", r"'training\.weight_decay'.*finite.*inf"),
        ("[training]\nweight_decay = nan", r"'training\.weight_decay'.*finite.*nan"),
        ("[training]\nlearning_rate_changes = {9 = inf}", r"changes\.9'.*finite.*inf"),
        ("[loss_weights]\nage = inf", r"'loss_weights\.age'.*finite.*inf"),
        (
            "[[loss_weight_changes]]\nepoch = 1\nset = {age = inf}",
            r"\[0\]\.set\.age'.*inf",
        ),
        # A network and its input.
        (
            "[model]\nbackbone = 'resnet43'",
            r"'model\.backbone'.*'caffe'.*module:function.*Did you mean 'resnet34'\?",
        ),
        (
            "[model]\nbackbone = 'keras.applications:EfficientNetB9'",
            r"'model\.backbone'.*Did you mean 'keras\.applications:EfficientNetB",
        ),
        ("[model]\nbackbone = ''", r"'model\.backbone'.*Received: ''\.$"),
        (
            "[model]\ninput_scaling = '-1..2'",
            r"'model\.input_scaling'.*'0\.\.255'.*no such key.*Did you mean '-1\.\.1'",
        ),
        # How losses are balanced.
        (
            "[loss_weight_balancing]\nmethod = 'gradnorm'",
            r"'loss_weight_balancing\.method'.*'dwa' or 'uncertainty'.*'gradnorm'",
        ),
        (
            "[loss_weight_balancing]\nby = 'batch'",
            r"'loss_weight_balancing\.by'.*'epoch' or 'step'.*'batch'",
        ),
        (
            "[loss_weight_balancing]\nby = 'step'",
            r"'loss_weight_balancing\.by'.*with method 'uncertainty'",
        ),
        ("[loss_weight_balancing]\ntemperature = 0", r"\.temperature'.*greater than 0"),
        ("[loss_weight_balancing]\ntemperature = inf", r"\.temperature'.*finite.*inf"),
        ("[loss_weight_balancing]\nmomentum = 0.5", r"\.momentum'.*with method"),
        (
            "[loss_weight_balancing]\nmethod = 'uncertainty'\nmomentum = 1",
            r"\.momentum'.*less than 1",
        ),
        ("[loss_weight_balancing]\noutputs = ['age']", r"\.outputs'.*two or more"),
        ("[loss_weight_balancing]\noutputs = ['age', 'age']", r"\.outputs'.*different"),
        ("[model]\ndropout_rate = 1.0", r"'model\.dropout_rate'.*less than 1"),
        ("[model]\nwidth = 0.0", r"'model\.width'.*greater than 0"),
        ("[model]\nencoding = 'x'", r"'model\.encoding'.*'joint', 'categorical'"),
        (
            "[model]\nencoding = 'coral'\nquestion = 'older'",
            r"'model\.question'.*no such key with the encoding 'coral'",
        ),
        (
            "[model]\nimage_size = [0, 9]",
            r"'model\.image_size\[0\]'.*greater than or equal to 1",
        ),
        (
            "[model]\ntrainable_layers = -1",
            r"'model\.trainable_layers'.*greater than or equal to 0",
        ),
        ("[data]\nbatch_size = 0", r"'data\.batch_size'.*greater than or equal to 1"),
        (
            "[data]\nshuffle_buffer = 0",
            r"'data\.shuffle_buffer'.*greater than or equal to 1",
        ),
        (
            "[data]\nvalidation_split = ''",
            r"'data\.validation_split'.*at least 1 character",
        ),
        (
            "[loss_weights]\nage = -1",
            r"'loss_weights\.age'.*greater than or equal to 0",
        ),
        ("[[loss_weight_changes]]\nset = {age = 1}", "exactly one of epoch"),
        (
            "[[loss_weight_changes]]\nset = {age = 1}\nepoch = 1\nstep = 9",
            "exactly one of epoch",
        ),
        (
            "[[loss_weight_changes]]\nset = {age = 1}\nmonitor = 'val_loss'",
            "one of above and below",
        ),
        ("[[loss_weight_changes]]\nepoch = -1\nset = {age = 1}", "than or equal to 0"),
        ("[[loss_weight_changes]]\nepoch = 1", r"\[0\]\.set'"),
        (
            "[[published]]\ngender_f1 = 82.2",
            r"published\[0\]\.gender_f1'.*or equal to 1",
        ),
        ("pretraining = 'nowhere'", "Unknown recipe 'nowhere'"),
    ],
)
def test_mistakes_name_file_and_key(tmp_path, text, message):
    path = tmp_path / "my.toml"
    path.write_text(text, "utf-8")
    with pytest.raises(ValueError, match=message):
        load_recipe(path)


def test_methods_of_balancing_are_those_of_the_library():
    import typing

    from keras_agegender.callbacks.balancer import METHODS

    hints = typing.get_type_hints(LossWeightBalancing)
    assert typing.get_args(hints["method"]) == METHODS


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.dropout_rate=false", "'model.dropout_rate'.*valid number.*False"),
        ("training.weight_decay=false", "'training.weight_decay'.*number.*False"),
        ("loss_weights.gender=false", "'loss_weights.gender'.*valid number.*False"),
        ("augmentation.rotation=true", "'augmentation.rotation'.*number.*True"),
        ("training.epochs=3.0", "'training.epochs'.*valid integer.*3.0"),
        ("title=2026-01-01", "'title'.*valid string.*2026-01-01"),
    ],
)
def test_types_are_strict(override, message):
    with pytest.raises(ValueError, match=message):
        load_recipe("7", [override])


def test_recipes_built_in_python_are_validated():
    recipe = load_recipe("7")
    with pytest.raises(ValueError, match="dropout_rate\n.*less than 1"):
        replace(recipe.model, dropout_rate=1.0)
    with pytest.raises(ValueError, match="epochs\n.*valid integer"):
        replace(recipe, training=replace(recipe.training, epochs="3"))
    with pytest.raises(ValueError, match="Did you mean 'resnet34'"):
        ModelSettings(backbone="resnet43")
    with pytest.raises(dataclasses.FrozenInstanceError):
        recipe.name = "mine"


def test_patience_is_none_to_train_all_epochs():
    """What the docstring says is what is accepted."""
    settings = load_recipe("14").training
    assert replace(settings, patience=None).patience is None
    assert "`None` trains all epochs" in type(settings).__doc__
    with pytest.raises(ValueError, match="'training.patience'.*Received: 0"):
        load_recipe("14", ["training.patience=0"])


def test_each_file_is_parsed_once(monkeypatch):
    """Model 9, what it starts from, and their common base."""
    parsed = []
    loads = tomllib.loads
    monkeypatch.setattr(
        "tomllib.loads", lambda text: parsed.append(text) or loads(text)
    )
    loading._read_packaged.cache_clear()
    recipe = load_recipe("9", ["training.epochs=3"])
    assert recipe.pretraining_recipe is recipe.pretraining_recipe
    files = [text for text in parsed if not text.startswith("value = ")]
    assert len(files) == len(set(files)) == 3


@pytest.mark.parametrize(
    "settings",
    [
        "model.backbone=keras.applications:ResNet50V2",
        "model.backbone=any.module:of_your_own",
        "model.input_scaling=-1..1",
        "model.backbone_weights=not_there.pth",  # recipes are shown without it
        "training.optimizer=AdamW",
        "loss_weight_balancing={method='uncertainty', by='step', momentum=0.0}",
        "loss_weight_balancing={temperature=0.5, outputs=['gender', 'age']}",
    ],
)
def test_what_may_be_right_is_let_through(settings):
    assert load_recipe("7", ["training.normalize_loss=false", settings])


def test_overriding_the_encoding_drops_settings_of_missing_outputs():
    before = load_recipe("14", ["loss_weights.race=0.3"])
    assert before.loss_weights["age5"] == 1.8 and before.published
    recipe = load_recipe("14", ["model.encoding=years", "loss_weights.race=0.3"])
    assert recipe.loss_weights == {"gender": 2.0, "race": 0.3}
    assert recipe.published == ()  # of another model
    assert recipe.loss_weight_changes == before.loss_weight_changes  # of gender
    change = "loss_weight_changes=[{epoch=1, set={age9=2.0}}]"
    named = load_recipe("14", ["model.encoding=years", change, "loss_weights.age9=1"])
    assert named.loss_weights["age9"] == 1.0  # told when it meets the data
    assert named.loss_weight_changes[0].set == {"age9": 2.0}
    assert load_recipe("14", ["loss_weights="]).loss_weights == {}


def test_another_encoding_by_override_leaves_the_question():
    for encoding in ("coral", "categorical", "years"):
        recipe = load_recipe("14", [f"model.encoding={encoding}"])
        assert (recipe.model.encoding, recipe.model.question) == (encoding, None)
    assert load_recipe("14", ["model.encoding=ordinal"]).model.question == "older"
    with pytest.raises(ValueError, match="no such key with the encoding 'coral'"):
        load_recipe("14", ["model.encoding=coral", "model.question=older"])


def test_unknown_recipe_suggests():
    with pytest.raises(ValueError, match="Did you mean 'quickstart'"):
        load_recipe("quikstart")


@pytest.mark.parametrize("override", ["training.epochs", "=3", "title.x=3"])
def test_malformed_overrides(override):
    with pytest.raises(ValueError, match="Invalid override"):
        load_recipe("quickstart", [override])


def test_an_empty_value_unsets():
    overrides = ["training.patience=", "model.question="]
    recipe = load_recipe("14", overrides)
    assert recipe.training.patience is None and recipe.model.question is None
    assert load_recipe("14").training.patience == 5
    with pytest.raises(ValueError, match=r"'training\.epochs'.*integer.*None"):
        load_recipe("14", ["training.epochs="])


def test_a_file_takes_a_setting_of_its_base_away(tmp_path):
    path = tmp_path / "my.toml"
    path.write_text("base = 'base_resnet'\nunset = ['training.patience']", "utf-8")
    assert load_recipe(path).training.patience is None
    assert load_recipe("quickstart").training.patience is None


@pytest.mark.parametrize("name", list_recipes())
def test_what_is_not_set_is_not_printed(name):
    text = load_recipe(name).to_toml()
    assert '""' not in text and "-1" not in text and "= []" not in text


# -- overrides and the recipe that another one begins with -----------------------------


def test_overrides_reach_the_pretraining_where_they_apply():
    """Network, batches and optimizer do; outputs, data and name do not."""
    recipe = load_recipe(
        "9",
        [
            "training.epochs=3",
            "data.batch_size=8",
            "model.image_size=[64, 64]",
            "model.encoding=ordinal",
            "training.checkpoint_monitor=val_gender_accuracy",
            "evaluation.positive_gender=male",
            "loss_weights.gender=2",
            "pretraining.training.learning_rate=1e-3",
        ],
    )
    assert (recipe.training.epochs, recipe.training.learning_rate) == (3, 1e-4)
    first = recipe.pretraining_recipe
    assert first.training.epochs == 3 and first.data.batch_size == 8
    assert first.training.learning_rate == 1e-3
    assert first.model.image_size == (64, 64)
    assert first.model.encoding == "attributes" and first.loss_weights == {}
    assert first.training.checkpoint_monitor == "val_loss"
    assert first.evaluation.positive_gender == "female"


def test_a_pretraining_override_takes_precedence(tmp_path):
    recipe = load_recipe("9", ["pretraining.training.epochs=1", "training.epochs=3"])
    assert recipe.training.epochs == 3
    assert recipe.pretraining_recipe.training.epochs == 1
    path = tmp_path / "my.toml"
    path.write_text(recipe.to_toml(), "utf-8")  # what a run leaves behind
    assert load_recipe(path).pretraining_recipe.training.epochs == 1


def test_overrides_of_a_missing_pretraining_recipe():
    with pytest.raises(ValueError, match="has no pretraining recipe"):
        load_recipe("7", ["pretraining.training.epochs=1"])
    with pytest.raises(ValueError, match="'training.epoch'"):
        load_recipe("9", ["pretraining.training.epoch=1"])
    with pytest.raises(ValueError, match=r"pretraining\.model\.image_size"):
        load_recipe("9", ["pretraining.model.image_size=[64, 64]"])


def test_overriding_a_recipe_is_overriding_its_file():
    overrides = ["training.epochs=3", "pretraining.training.epochs=1"]
    assert override_recipe(load_recipe("9"), overrides) == load_recipe("9", overrides)


@pytest.mark.parametrize(("verb", "out"), [("train", "--run"), ("reproduce", "--out")])
def test_mistakes_surface_before_frameworks_load(verb, out):
    """Neither Keras nor TensorFlow is imported to refuse a recipe."""
    import subprocess
    import sys

    code = f"""
import sys
from keras_agegender.cli import main as cli
code = cli.main(["{verb}", "my.toml", "--data", "d", "{out}", "r"])
print(code, [m for m in ("keras", "tensorflow", "jax") if m in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "1 []\n"
    assert done.stderr == "agegender: Recipe file not found: my.toml.\n"


def test_pretraining_is_of_the_size_of_what_it_is_for():
    """Weights of dense layers fit only then."""
    recipe = load_recipe("9")
    small = replace(recipe, model=replace(recipe.model, image_size=(96, 80)))
    assert small.pretraining_recipe.model.image_size == (96, 80)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('base = "quickstart"\nunset = 0', "invalid `unset`. Expected a list of keys"),
        ('base = "quickstart"\nunset = [0]', "invalid `unset`"),
        ('base = "quickstart"\nunset = ["title.x"]', "Expected keys that its base"),
        ('pretraining = "5"\npretraining_overrides = 0', "Expected an array"),
        ("[model]\nencoding = []", "invalid value of 'model.encoding'"),
    ],
)
def test_values_of_wrong_types_are_errors(tmp_path, text, message):
    """Found by fuzzing; each of them was an error of no one's making."""
    file = tmp_path / "mine.toml"
    file.write_text(text, "utf-8")
    with pytest.raises(ValueError, match=message):
        load_recipe(file)


@pytest.mark.parametrize("changes", ["3", "[1]", "[{epoch = 1, set = 1}]"])
def test_damaged_changes_beside_another_encoding(tmp_path, changes):
    file = tmp_path / "mine.toml"
    file.write_text(f'base = "quickstart"\nloss_weight_changes = {changes}\n', "utf-8")
    with pytest.raises(ValueError, match="invalid value of 'loss_weight_changes"):
        load_recipe(file, ["model.encoding=joint"])


def test_overrides_of_all_of_the_model():
    with pytest.raises(
        ValueError, match="invalid value of 'model'. Expected a table. Received: 0"
    ):
        load_recipe("quickstart", ["model=0"])
    assert load_recipe("quickstart", ["model="]).model == ModelSettings()


def test_an_encoding_that_is_no_name():
    with pytest.raises(ValueError, match="invalid value of 'model.encoding'"):
        load_recipe("quickstart", ["model.encoding=[]"])


def test_a_recipe_that_is_no_text(tmp_path):
    (tmp_path / "mine.toml").write_bytes(b"\x80title")
    with pytest.raises(ValueError, match="mine.toml is not UTF-8 text"):
        load_recipe(tmp_path / "mine.toml")


@pytest.mark.parametrize(
    ("setting", "meant"),
    [
        ("epochs=1", "training.epochs"),
        ("learning_rat=0.1", "training.learning_rate"),
        ("backbone=caffe", "model.backbone"),
        ("batch_size=8", "data.batch_size"),
        ("rotation=5", "augmentation.rotation"),
    ],
)
def test_a_key_without_its_section_is_found(setting, meant):
    with pytest.raises(ValueError, match=f"unknown key .* Did you mean '{meant}'"):
        load_recipe("quickstart", [setting])
