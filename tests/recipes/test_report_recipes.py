"""The fourteen models: what the report says of each, number by number."""

from __future__ import annotations

import pytest

from keras_agegender.recipes.loading import list_recipes, load_recipe, report_recipes

# Section 4: recipe, checkpoint -> gender accuracy, f1, precision, recall, age accuracy.
PUBLISHED = {
    ("1", None): (0.827, 0.822, 0.784, 0.864, None),
    ("2", None): (0.770, 0.769, 0.718, 0.829, None),
    ("3", None): (0.809, 0.800, 0.771, 0.823, None),
    ("4", None): (0.761, 0.761, 0.707, 0.823, None),
    ("5", None): (0.978, 0.973, 0.971, 0.976, None),
    ("05_caffe_finetuned", None): (0.792, 0.771, 0.785, 0.756, None),
    ("6", None): (0.760, 0.745, 0.734, 0.756, 0.384),
    ("7", "age"): (0.779, 0.759, 0.765, 0.752, 0.399),
    ("7", "gender"): (0.806, 0.800, 0.764, 0.840, 0.406),
    ("7", "both"): (0.779, 0.759, 0.765, 0.753, 0.399),
    ("8", "age"): (0.838, 0.818, 0.849, 0.789, 0.458),
    ("8", "gender"): (0.831, 0.819, 0.811, 0.828, 0.454),
    ("8", "both"): (0.836, 0.829, 0.802, 0.858, 0.448),
    ("9", None): (0.738, 0.766, 0.732, 0.805, 0.354),
    ("10", None): (0.721, 0.753, 0.715, 0.794, 0.352),
    ("11", None): (0.742, 0.765, 0.743, 0.788, 0.383),
    ("12", None): (0.733, 0.749, 0.752, 0.746, 0.366),
    ("13", None): (0.808, 0.825, 0.804, 0.847, 0.422),
    ("14", None): (0.784, 0.793, 0.812, 0.775, 0.459),
}


@pytest.mark.parametrize(("name", "checkpoint"), PUBLISHED)
def test_published_scores(name, checkpoint):
    (row,) = [p for p in load_recipe(name).published if p.checkpoint == checkpoint]
    assert PUBLISHED[name, checkpoint] == (
        row.gender_accuracy,
        row.gender_f1,
        row.gender_precision,
        row.gender_recall,
        row.age_accuracy,
    )
    # The triples imply it: Caffe rows count male, ResNet rows female.
    resnet = load_recipe(name).model.backbone.startswith("resnet")
    assert row.positive == ("female" if resnet else "male")
    assert load_recipe(name).evaluation.positive_gender == row.positive
    # Its section 4: of Adience's fold 4, model 5's first half of CelebA's test data.
    celeba = name == "5"
    assert (row.data, row.split) == (
        ("celeba", "test") if celeba else ("adience", "fold_4")
    )
    assert load_recipe(name).data.role == ("pretrain" if celeba else "target")


def test_every_model_has_a_recipe_and_every_recipe_its_row():
    numbers = {int(name.partition("_")[0]) for name in report_recipes()}
    assert numbers == set(range(1, 15))
    rows = {
        (name, p.checkpoint)
        for name in report_recipes()
        for p in load_recipe(name).published
    }
    assert len(rows) == len(PUBLISHED) == 19
    for name in report_recipes():
        assert {p.checkpoint for p in load_recipe(name).published} in (
            {None},
            set(load_recipe(name).training.extra_checkpoints),
        )


@pytest.mark.parametrize(
    ("name", "start", "rest"),
    [("11", 4.0, 0.9), ("13", 4.0, 0.9), ("12", 2.0, 0.5), ("14", 2.0, 0.5)],
)
def test_table_14(name, start, rest):
    recipe = load_recipe(name)
    ages = [recipe.loss_weights[f"age{k}"] for k in range(1, 9)]
    assert ages == [1, 1, 1, 1.3, 1.8, 1.8, 1.3, 1]
    assert recipe.loss_weights["gender"] == start
    (change,) = recipe.loss_weight_changes
    assert change.set == {"gender": rest}
    assert recipe.model.question == "older" and recipe.model.encoding == "ordinal"


def test_model_8_weighs_gender_like_all_of_age():
    weights = dict(load_recipe("8").loss_weights)
    assert weights.pop("gender") == pytest.approx(sum(weights.values())) == 9.6


def test_training_of_section_3():
    for name in ("1", "2", "3", "4", "6", "7", "8"):
        training = load_recipe(name).training
        assert training.epochs == (10 if int(name) < 5 else 20)
        assert training.learning_rate == 1e-4 and training.weight_decay == 1e-4
        assert training.learning_rate_changes == {"10000": 1e-5}
        assert load_recipe(name).data.batch_size == 64
    for name in ("9", "10", "11", "12", "13", "14"):
        recipe = load_recipe(name)
        assert recipe.training.patience == 5 and recipe.training.epochs == 20
        assert recipe.training.checkpoint_monitor == "val_mean_accuracy"
        frozen = int(name) < 13
        assert recipe.model.trainable_layers == (10 if frozen else None)
        assert recipe.pretraining == ("celeba_attributes" if frozen else None)
        assert recipe.model.attribute_features == (name in ("9", "11"))
        se = int(name) % 2 == 0
        assert recipe.model.backbone == ("resnet_se" if se else "resnet34")
    assert load_recipe("celeba_attributes").training.patience == 3


@pytest.mark.parametrize("name", list_recipes())
def test_heads_of_files_say_what_it_is_the_command_and_the_cost(name):
    from importlib import resources

    text = (resources.files("keras_agegender.recipes") / f"{name}.toml").read_text()
    head = [line for line in text.splitlines() if line.startswith("#")]
    assert any("agegender " in line for line in head), name
    if name != "quickstart":
        assert any(line.startswith("# Cost: ") for line in head), name
    assert "@" not in text


def test_choices_that_the_report_does_not_state_are_documented():
    """Where a reader of a file could take our choice for the report's."""
    from importlib import resources

    def comments(name):
        text = (resources.files("keras_agegender.recipes") / f"{name}.toml").read_text()
        return " ".join(
            line.removeprefix("#").strip()
            for line in text.splitlines()
            if line.startswith("#")
        )

    assert 20 * -(-10_797 // 64) == 3_380 < 10_000
    assert "That never comes" in comments("base_caffe")
    assert "20 epochs are 3,380" in comments("base_caffe")
    for number in ("11", "12", "13", "14"):
        name = load_recipe(number).name
        assert "The threshold is ours" in comments(name)


def test_the_pretraining_learning_rate_is_not_overridden():
    """2,544 steps an epoch would reach step 10,000 in the fourth."""
    assert load_recipe("5").training.learning_rate_changes == {}
    assert load_recipe("5").training.epochs == 10
