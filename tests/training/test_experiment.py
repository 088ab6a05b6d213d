"""Experiments: one identity for what training depends on, and for nothing else."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import replace

import pytest
from sample_data import (
    EXTRA_HEADS,
    MiddleDetector,
    make_prepared,
    make_rows,
)

from keras_agegender.datasets.manifest import make_manifest
from keras_agegender.datasets.prepare import prepare
from keras_agegender.datasets.prepared import load_prepared
from keras_agegender.datasets.splits import report_splits
from keras_agegender.encodings.head import Head
from keras_agegender.evaluation.evaluate import (
    count_seen,
    data_name,
    evaluate,
    possibly_seen,
)
from keras_agegender.evaluation.scores import format_metrics
from keras_agegender.faces.preprocessing import CropOptions
from keras_agegender.recipes.loading import load_recipe
from keras_agegender.recipes.schema import LossWeightChange, Published
from keras_agegender.run_directory import RunDirectory
from keras_agegender.training.experiment import (
    differences,
    identity_of,
    make_experiment,
)
from keras_agegender.training.resume import check_place, open_run, run_folder
from keras_agegender.training.train import train, train_unless_finished

SMALL = ("model.image_size=[32, 32]", "data.batch_size=8", "training.epochs=1",
         "model.backbone=sample_data:small_backbone", "data.faces=any")  # fmt: skip


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    directory = tmp_path_factory.mktemp("data")
    return load_prepared(make_prepared(directory, extra_heads=EXTRA_HEADS))


@pytest.fixture(scope="module")
def experiment(prepared):
    return make_experiment(load_recipe("7", SMALL), prepared)


def test_an_identity_by_hand():
    """The hash of the text {"a":1,"b":[2]}, whatever the order of keys."""
    expected = hashlib.sha256(b'{"a":1,"b":[2]}').hexdigest()
    assert identity_of({"a": 1, "b": [2]}) == expected
    assert identity_of({"b": [2], "a": 1}) == expected
    assert identity_of({"a": 1, "b": [3]}) != expected


def test_what_training_depends_on_is_identity(prepared, experiment, tmp_path):
    recipe = load_recipe("7", SMALL)
    weights = tmp_path / "some.keras"
    weights.write_bytes(b"weights")
    others = {
        "recipe.training.learning_rate": make_experiment(
            load_recipe("7", [*SMALL, "training.learning_rate=0.5"]), prepared
        ),
        "seed": make_experiment(recipe, prepared, seed=1),
        "data.splits.test": make_experiment(
            recipe, prepared, splits={"test": "fold_4[:3]"}
        ),
        "encoding.heads": make_experiment(recipe, prepared, extra_heads=()),
        "initialized_from": make_experiment(recipe, prepared, pretrained=weights),
        "data.pixels.pixels.stored_size": make_experiment(
            recipe,
            replace(
                prepared,
                info={
                    **prepared.info,
                    "pixels": {**prepared.info["pixels"], "stored_size": [9, 9]},
                },
            ),
        ),
    }
    for key, other in others.items():
        assert other.identity != experiment.identity and other != experiment
        found = differences(experiment.to_dict(), other.to_dict())
        assert any(line.startswith(f"{key} is ") for line in found), (key, found)
    assert len({other.identity for other in others.values()}) == len(others)


def test_data_of_other_content_is_another_experiment(experiment, tmp_path):
    """One face more or less, under the same names of splits."""
    again = make_prepared(tmp_path, count=39, extra_heads=EXTRA_HEADS)
    other = make_experiment(experiment.recipe, again)
    (line,) = differences(experiment.to_dict(), other.to_dict())
    assert line.startswith("data.sha256 is ")


def test_weights_of_the_backbone_count_by_their_content(prepared, tmp_path):
    def made(name, content):
        (tmp_path / name).write_bytes(content)
        weights = f"model.backbone_weights={tmp_path / name}"
        return make_experiment(load_recipe("7", [*SMALL, weights]), prepared)

    first, moved = made("a.keras", b"one"), made("b.keras", b"one")
    assert first.identity == moved.identity
    assert made("a.keras", b"two").identity != first.identity


def test_the_location_and_evaluation_of_data_are_not_part_of_the_identity(
    prepared, experiment, tmp_path
):
    moved = shutil.copytree(prepared.directory, tmp_path / "moved")
    recipe = experiment.recipe
    said = replace(
        recipe, name="mine", title="Mine", published=(Published(),),
        evaluation=replace(recipe.evaluation, positive_gender="female"),
    )  # fmt: skip
    for other in (make_experiment(recipe, moved), make_experiment(said, prepared)):
        assert other.identity == experiment.identity and other == experiment
        assert hash(other) == hash(experiment)


def test_the_pretraining_is_part_of_it(prepared):
    """Its recipe, at the image size of the recipe that begins with it, and its data."""
    recipe = load_recipe("05_caffe_finetuned", SMALL)
    one = make_experiment(recipe, prepared, pretraining_data=prepared)
    first = one.initialized_from
    assert first.recipe.name == "05_caffe_celeba"
    assert first.recipe.model.image_size == (32, 32)
    assert first.recipe.data.role == first.data.role == "pretrain"
    assert first.data.splits["validation"] == "fold_3+fold_4"  # validation and test
    assert set(one.datasets) == {"pretrain", "target"}
    settings = [*SMALL, "pretraining.training.learning_rate=0.5"]
    other = make_experiment(
        load_recipe("05_caffe_finetuned", settings), prepared, pretraining_data=prepared
    )
    found = differences(one.to_dict(), other.to_dict())
    assert found == [
        "initialized_from.recipe.training.learning_rate is 0.0001 in the existing run "
        "and 0.5 in this one"
    ]
    with pytest.raises(ValueError, match="initialized from '05_caffe_celeba'"):
        make_experiment(recipe, prepared)


def test_an_experiment_can_be_initialized_from_another_one(prepared):
    """Two stages have one identity: what changes the first changes the second."""
    heads = load_recipe("1", [*SMALL, "model.trainable_layers=0"])
    recipe = load_recipe("1", SMALL)
    first = make_experiment(heads, prepared)
    both = make_experiment(recipe, prepared, pretrained=first)
    assert both.initialized_from is first
    other = make_experiment(heads, prepared, seed=3)
    found = differences(
        both.to_dict(), make_experiment(recipe, prepared, pretrained=other).to_dict()
    )
    assert found == ["initialized_from.seed is 0 in the existing run and 3 in this one"]
    alone = make_experiment(recipe, prepared).to_dict()
    (line,) = differences(both.to_dict(), alone, ("in A", "in B"))
    assert line == "initialized_from is 'other weights' in A and 'random weights' in B"
    (line,) = differences(alone, both.to_dict(), ("in A", "in B"))
    assert line == "initialized_from is 'random weights' in A and 'other weights' in B"


def test_values_out_of_range_surface_when_a_recipe_is_built():
    recipe = load_recipe("1", SMALL)
    with pytest.raises(ValueError, match=r"epochs\n.*greater than or equal to 1"):
        replace(recipe.training, epochs=0)


def test_a_recipe_takes_the_data_of_its_role(prepared, tmp_path):
    """`pretraining_data` for model 5's first half, where it is given."""
    other = load_prepared(make_prepared(tmp_path, count=39))
    recipe = load_recipe("5", SMALL)
    both = make_experiment(recipe, other, pretraining_data=prepared)
    assert both.data.sha256 == make_experiment(recipe, prepared).data.sha256
    target = make_experiment(load_recipe("1", SMALL), other, pretraining_data=prepared)
    assert target.data.sha256 == make_experiment(recipe, other).data.sha256
    with pytest.raises(ValueError, match="trains on target data"):
        make_experiment(load_recipe("1", SMALL), None, pretraining_data=prepared)
    with pytest.raises(ValueError, match="Invalid `pretraining_data`"):
        train(load_recipe("1", SMALL), other, tmp_path, pretraining_data=prepared)


def test_splits_are_spelled_out(prepared):
    recipe = load_recipe("7", [*SMALL, "data.validation_split=test+fold_3[:2]"])
    splits = make_experiment(recipe, prepared, splits={"test": "train"}).data.splits
    assert splits == {
        "train": "fold_0+fold_1+fold_2",
        "validation": "fold_0+fold_1+fold_2+fold_3[:2]",
        "test": "fold_0+fold_1+fold_2",
    }
    with pytest.raises(ValueError, match="Invalid `split`"):
        make_experiment(recipe, prepared, splits={"train": "fold_9"})


def test_steps_of_an_epoch(prepared):
    """24 training faces in batches of 7: three whole ones and the rest."""
    recipe = load_recipe("7", [*SMALL, "data.batch_size=7"])
    assert make_experiment(recipe, prepared).steps_per_epoch == 4


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("training.checkpoint_monitor=val_agee_loss",
         "checkpoint_monitor.*Did you mean 'val_age_"),
        ("training.extra_checkpoints={a='val_age1_loss'}",
         r"training\.extra_checkpoints\.a"),
        ("training.checkpoint_monitor=val_age_all_heads_accuracy",
         "checkpoint_monitor"),
        ("loss_weight_changes=[{monitor='gendr', above=1, set={age=1}}]",
         r"loss_weight_changes\[0\]\.monitor"),
        ("loss_weight_changes=[{epoch=1, set={agee=1}}]", "'age'"),
        ("loss_weights={agee=1}", "'age'"),
        ("model.encoding=categoricl", "categorical"),
        ("model.backbone_weights=no.pth", r"not found: no\.pth"),
    ],
)  # fmt: skip
def test_names_that_do_not_exist_surface_before_work(prepared, settings, message):
    plain = [*SMALL, "training.normalize_loss=false"]
    with pytest.raises(ValueError, match=message):
        make_experiment(load_recipe("7", [*plain, settings]), prepared)


def test_early_stopping_s_monitor_counts_only_if_it_stops(prepared):
    settings = [*SMALL, "training.stop_monitor=val_nothing"]
    make_experiment(load_recipe("7", settings), prepared)
    with pytest.raises(ValueError, match="stop_monitor"):
        make_experiment(load_recipe("7", [*settings, "training.patience=2"]), prepared)


# -- run directories -------------------------------------------------------------------


def opened(path, experiment, overwrite=False):
    run = RunDirectory(path)
    with run_folder(run):
        open_run(run, experiment, overwrite)
    return run


def test_another_experiment_is_not_resumed(prepared, experiment, tmp_path):
    run = opened(tmp_path / "run", experiment)
    assert run.identity == experiment.identity
    assert run.info()["experiment"] == experiment.to_dict()
    moved = shutil.copytree(prepared.directory, tmp_path / "moved")
    opened(run.path, make_experiment(experiment.recipe, moved))  # the same one
    assert run.info()["data"] == str(moved)
    run.backup.mkdir()  # an epoch was trained
    other = make_experiment(experiment.recipe, prepared, seed=3)
    with pytest.raises(
        ValueError, match=r"another experiment: seed is 0 in the existing run and 3"
    ):
        opened(run.path, other)
    assert opened(run.path, other, overwrite=True).identity == other.identity
    run.update_info(status="finished")
    with pytest.raises(ValueError, match="is finished"):
        opened(run.path, other)


@pytest.mark.parametrize(
    "trained", ["backup", "best_age.keras", "pretraining/backup", ""]
)
def test_a_run_without_a_trained_epoch_is_replaced(
    prepared, experiment, tmp_path, trained
):
    """By another experiment; what one epoch made, of the pretraining too, is kept."""
    run = opened(tmp_path / "run", experiment)
    opened(run.path / "pretraining", experiment)
    other = make_experiment(experiment.recipe, prepared, seed=3)
    if trained:
        (run.path / trained).mkdir()
        with pytest.raises(ValueError, match="unfinished run of another experiment"):
            opened(run.path, other)
        with pytest.raises(ValueError, match="contains a run of another"):
            check_place(run, other)
        assert run.identity == experiment.identity
    else:
        check_place(run, other)
        assert opened(run.path, other).identity == other.identity
        assert not (run.path / "pretraining").exists()


@pytest.mark.slow
def test_a_wrong_setting_leaves_no_run_that_blocks_the_right_one(prepared, tmp_path):
    """The layer that refuses it is made when the run's folder is there already."""
    missing = "model.backbone=sample_data:no_such_function"
    with pytest.raises(ValueError, match="no_such_function"):
        train("7", prepared, tmp_path / "run", overrides=[*SMALL, missing], verbose=0)
    assert RunDirectory(tmp_path / "run").info()["status"] == "running"
    run = train("7", prepared, tmp_path / "run", overrides=SMALL, verbose=0)
    assert run.info()["status"] == "finished"
    assert run.recipe().model.backbone == "sample_data:small_backbone"


def test_a_finished_run_is_taken_for_its_own_experiment_only(
    prepared, experiment, tmp_path, monkeypatch
):
    run = opened(tmp_path / "run", experiment)
    run.update_info(status="finished")
    run.backup.mkdir()  # as of a process that was killed before it removed it
    monkeypatch.setattr("keras_agegender.training.train.train_experiment", None)
    assert train_unless_finished(experiment, run.path).path == run.path
    assert not run.backup.exists()
    other = make_experiment(experiment.recipe, prepared, seed=3)
    with pytest.raises(
        ValueError, match=r"another experiment: seed is 0 in the existing run and 3"
    ):
        train_unless_finished(other, run.path)


@pytest.mark.parametrize("name", ["validation", "test"])
def test_faces_in_two_splits_are_not_trained_on(experiment, prepared, tmp_path, name):
    """As `--split test=fold_0` with train fold_0+fold_1+fold_2 would."""
    other = make_experiment(experiment.recipe, prepared, splits={name: "fold_0"})
    with pytest.raises(ValueError, match=rf"8 faces are in 'train' .* and in '{name}'"):
        opened(tmp_path / "run", other)
    assert not RunDirectory(tmp_path / "run").info()
    opened(tmp_path / "run", experiment)  # nothing stands in its way


def test_overlap_can_be_allowed(prepared, tmp_path):
    recipe = load_recipe("7", [*SMALL, "data.allow_overlap=true"])
    same = make_experiment(recipe, prepared, splits={"test": "fold_0"})
    opened(tmp_path / "run", same)
    assert RunDirectory(tmp_path / "run").info()["identity"] == same.identity


def test_only_a_recipe_lets_validation_and_test_share_faces(prepared, tmp_path):
    """As the report's pretraining does; the option `--split` is a slip."""
    opened(tmp_path / "a", make_experiment(load_recipe("5", SMALL), prepared))
    plain = load_recipe("1", SMALL)
    slip = make_experiment(plain, prepared, splits={"validation": "fold_3+fold_4"})
    with pytest.raises(ValueError, match="8 faces are in 'validation'"):
        opened(tmp_path / "b", slip)
    named = load_recipe("5", [*SMALL, "data.validation_split=train"])
    with pytest.raises(ValueError, match="24 faces are in 'train'"):
        opened(tmp_path / "c", make_experiment(named, prepared))


# -- a small run: what it was scored on ------------------------------------------------


@pytest.fixture(scope="module")
def run(prepared, tmp_path_factory):
    recipe = load_recipe("5", [*SMALL, "evaluation.positive_gender=female"])
    return train(recipe, prepared, tmp_path_factory.mktemp("runs") / "run", verbose=0)


def test_the_positive_class_is_the_recipe_s(run):
    scores = evaluate(run)
    assert scores.gender.positive == "female"
    scores = evaluate(run, positive_gender="male")
    assert scores.gender.positive == "male"


def test_scores_of_faces_seen_before_say_so(run, prepared, tmp_path):
    """Fold 4 selected the model; folds 0 to 2 trained it; copies are the same faces."""
    counted = {
        split: (found.num_seen_in_training, found.num_seen_in_validation)
        for split in ("test", "fold_2+fold_3[:2]")
        for found in [evaluate(run, split=split)]
    }
    assert counted == {"test": (0, 8), "fold_2+fold_3[:2]": (8, 2)}
    text = (run.path / "metrics_fold_2-fold_3--2-.json").read_text("utf-8")
    assert '"num_seen_in_training": 8' in text
    # Another dataset of the same pictures, under a name of its own.
    other = make_prepared(tmp_path, count=39, name="copies")
    found = evaluate(run, other, split="fold_0[:5]")
    assert (found.num_seen_in_training, found.num_seen_in_validation) == (5, 0)
    assert (run.path / "metrics_copies_fold_0--5-.json").is_file()


def test_faces_of_the_pretraining_are_seen_too(prepared, experiment, tmp_path):
    """Whether it lies in the run's folder or elsewhere."""
    splits = {"train": "fold_4", "validation": "fold_3", "test": "fold_0"}
    first = make_experiment(load_recipe("1", SMALL), prepared, splits=splits)
    first = opened(tmp_path / "first", first)
    run = opened(tmp_path / "run", experiment)
    assert count_seen(run, prepared, "fold_4") == {
        "num_seen_in_training": 0, "num_seen_in_validation": 0,
    }  # fmt: skip
    run.update_info(initialized_from=str(first.path))
    assert count_seen(run, prepared, "fold_4")["num_seen_in_training"] == 8
    run.update_info(initialized_from="")
    shutil.move(first.path, run.path / "pretraining")
    assert count_seen(run, prepared, "fold_4")["num_seen_in_training"] == 8
    run.faces_file.unlink()
    shutil.rmtree(run.path / "pretraining")
    # The dataset itself says what it was trained on; another one does not.
    assert count_seen(run, prepared, "fold_3+fold_0") == {
        "num_seen_in_training": 8, "num_seen_in_validation": 8,
    }  # fmt: skip
    run.update_info(data_sha256="of other files")
    assert count_seen(run, prepared, "fold_4")["num_seen_in_training"] is None


def test_names_are_what_a_folder_that_was_passed_on_has_left(run, prepared, tmp_path):
    """No record of faces, and data prepared anew; 8 faces a fold."""
    folder = tmp_path / "released"
    shutil.copytree(run.path, folder)
    released = RunDirectory(folder)
    released.faces_file.unlink()
    splits = {
        "train": "fold_0+fold_1[:4]",
        "validation": "fold_1[4:]",
        "test": "fold_2",
    }
    released.update_info(data_sha256="of other files", splits=splits)
    expected = {
        "fold_0": ["training"], "fold_1": ["training", "validation"], "fold_2": [],
        "fold_1[:50%]": ["training"], "fold_1[4:]+fold_3": ["validation"],
    }  # fmt: skip
    found = {split: possibly_seen(released, prepared, split) for split in expected}
    assert found == expected
    scores = evaluate(folder, prepared, split="fold_1[4:]")
    assert scores.num_seen_in_validation is None
    text = " ".join(format_metrics(scores).split())
    assert "WARNING: the model was selected on a split of this name" in text
    assert "WARNING: the model was trained" not in text
    assert "Cannot check whether the model was trained on some of these" in text
    text = format_metrics(evaluate(folder, prepared, split="fold_2"))
    assert "WARNING: the model was" not in text and "Cannot check" in text
    assert possibly_seen(run, prepared, "fold_0") == []  # those are counted
    released.update_info(data_name="another", preparation={})
    assert possibly_seen(released, prepared, "fold_0") == []
    released.update_info(splits={**splits, "train": "x"}, data_name=data_name(prepared))
    assert possibly_seen(released, prepared, "fold_1") == ["validation"]


def test_data_prepared_again_is_not_what_was_trained_on(run, tmp_path):
    other = make_prepared(tmp_path, count=39)
    info = run.info()
    run.update_info(data=str(other))
    with pytest.raises(ValueError, match="it was prepared again"):
        evaluate(run)
    run.update_info(data=info["data"])


def test_an_extra_head_is_part_of_the_experiment(prepared, experiment):
    head = Head("glasses", loss_weight=2.0, column="glasses")
    other = make_experiment(experiment.recipe, prepared, extra_heads=[head])
    assert other.encoding.output_names[-1] == "glasses"
    assert other != experiment


def test_an_output_without_labels_is_dropped(tmp_path, capsys):
    """It would answer with what it began with, and its score would read 0."""
    rows = [
        {**row, "gender": -1, "age_group": -1}
        for row in make_rows(tmp_path / "pictures", 40)
    ]
    manifest = make_manifest(rows, EXTRA_HEADS)
    data = prepare(
        manifest,
        tmp_path / "prepared",
        detector=MiddleDetector(),
        crop_options=CropOptions(),
        output_size=(48, 48),
        splits=report_splits(),
        progress=False,
    ).directory
    # It keeps a model by val_age_loss.
    recipe = load_recipe("7", [*SMALL, "training.normalize_loss=false"])
    changes = (
        LossWeightChange(set={"gender": 0.5}, epoch=0),
        LossWeightChange(set={"gender": 0.5, "colour": 2.0}, epoch=0),
    )
    recipe = replace(recipe, loss_weight_changes=changes)
    run = train(recipe, data, tmp_path / "run", verbose=1)
    assert run.recipe().training.extra_checkpoints == {"both": "val_loss"}
    assert run.recipe().loss_weight_changes == (
        LossWeightChange(set={"colour": 2.0}, epoch=0),
    )
    own = tuple(EXTRA_HEADS)
    assert run.encoding().output_names == own
    assert (
        "face has a label for gender, age: outputs dropped" in capsys.readouterr().out
    )
    assert all(name in format_metrics(evaluate(run)) for name in own)
    with pytest.raises(ValueError, match="Expected labels of gender or age_group"):
        make_experiment(recipe, data, extra_heads=[])
