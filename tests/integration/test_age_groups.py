"""Age groups and kinds of one's own, from the reader to the answer about a photo."""

from __future__ import annotations

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
from sample_data import MiddleDetector, picture, write_picture

from keras_agegender.cli.main import main
from keras_agegender.datasets.prepare import prepare
from keras_agegender.datasets.prepared import load_prepared
from keras_agegender.datasets.readers.csv import read_csv
from keras_agegender.encodings.head import Head
from keras_agegender.evaluation.evaluate import evaluate
from keras_agegender.labels import ADIENCE_AGE_GROUPS
from keras_agegender.models.weights import stored_encoding
from keras_agegender.recipes.loading import load_recipe
from keras_agegender.serving.export import export
from keras_agegender.serving.predictor import Predictor
from keras_agegender.training.train import train

GROUPS = "0-17,18-64,65+"
SIZES = ("small", "medium", "large")
TINY = [
    'model.backbone="sample_data:small_backbone"',
    "model.image_size=[32,32]",
    "training.epochs=1",
    "data.batch_size=8",
    "data.faces=any",
]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Pictures with years, sizes and weights in a CSV, prepared by the command."""
    folder = tmp_path_factory.mktemp("ages")
    lines = ["image,age,sex,size,kilos"]
    for number in range(36):
        write_picture(folder / f"{number:02d}.jpg", value=30 + 5 * number)
        years = [5, 30, 70][number % 3]
        lines.append(
            f"{number:02d}.jpg,{years},{'fm'[number % 2]},"
            f"{SIZES[number % 3]},{40.5 + number}"
        )
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    code = main(
        ["prepare", "csv", str(folder / "labels.csv"), "--age-groups", GROUPS,
         "--extra", "size:coral", "kilos:regression", "--no-crop", "--size", "48",
         "--validation", "0.2", "--test", "0.2", "--out", str(folder / "prepared")]
    )  # fmt: skip
    assert code == 0
    return folder / "prepared"


def test_the_prepared_dataset_knows_its_groups_and_kinds(prepared):
    data = load_prepared(prepared)
    assert data.age_groups.names == ("0-17", "18-64", "65+")
    assert data.builder.info.features["age_group"].names == ["0-17", "18-64", "65+"]
    heads = {head.name: head for head in data.extra_heads()}
    assert heads["size"].head_type == "coral"
    assert set(heads["size"].classes) == set(SIZES)


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["ordinal", "years"])
def test_groups_reach_the_prediction(prepared, encoding, tmp_path):
    recipe = load_recipe("quickstart", [*TINY, "loss_weight_changes=[]"])
    model = replace(recipe.model, encoding=encoding, question=None)
    recipe = replace(recipe, model=model)
    run = train(recipe, prepared, tmp_path / "run", verbose=0)
    model = run.load_model()
    assert stored_encoding(model).age_groups.names == ("0-17", "18-64", "65+")
    kilos = run.encoding().head("kilos")
    assert 40 < kilos.mean < 80 and kilos.scale > 3
    scores = json.loads((run.path / "metrics.json").read_text("utf-8"))
    assert [group["name"] for group in scores["age"]["groups"]] == [
        "0-17", "18-64", "65+"
    ]  # fmt: skip
    assert scores["age"]["mean_absolute_error_years"] > 0
    # An answer in kilos, not in standard deviations: the mean is a fair guess.
    assert scores["extra"]["kilos"]["mean_absolute_error"] < 40
    predictor = Predictor(export(run, tmp_path / "model"), MiddleDetector())
    face = predictor.predict(picture(size=(80, 80))).faces[0]
    assert face.age_group in ("0-17", "18-64", "65+")
    assert face.age_probabilities[face.age_group] == max(
        face.age_probabilities.values()
    )
    assert face.extra["size"] in SIZES
    assert 0 <= face.age_years <= 100
    assert np.isfinite(face.extra["kilos"])


def test_a_kind_that_contradicts_its_column_is_an_error(prepared, tmp_path):
    recipe = load_recipe("quickstart", TINY)
    cases = (
        (Head("size"), "'size' of .* has 3 classes.*head_type='binary'"),
        (
            Head("size", "regression"),
            "'size' of .* has 3 classes.*head_type='regression'",
        ),
        (
            Head("size", "coral", classes=SIZES),  # the column's are in the alphabet's
            r"3 classes \(large, medium, small\).*classes=\('small', 'medium', 'large'",
        ),
        (Head("kilos", "coral", 90), "'kilos' of .* has numbers, no classes.*'coral'"),
    )
    for head, message in cases:
        with pytest.raises(ValueError, match=message):
            train(recipe, prepared, tmp_path / "run", extra_heads=[head], verbose=0)


def test_years_are_scored_in_the_groups_of_the_data(tmp_path):
    """Trained with three groups, scored on Adience's eight, by years it knows."""
    folders = {}
    for groups in (GROUPS, "adience"):
        lines = ["image,age,split"]
        for number in range(12):
            name = f"{number:02d}.jpg"
            write_picture(tmp_path / name, value=20 * number)
            split = ("train", "validation", "test")[number // 4]
            lines.append(f"{name},{[1, 5, 30, 70][number % 4]},{split}")
        (tmp_path / "labels.csv").write_text("\n".join(lines) + "\n")
        manifest, _ = read_csv(tmp_path / "labels.csv", age_groups=groups)
        folder = tmp_path / groups[:3]
        folders[groups] = prepare(manifest, folder, output_size=(48, 48)).directory
    recipe = load_recipe("quickstart", [*TINY, "model.encoding=years"])
    run = train(recipe, folders[GROUPS], tmp_path / "run", verbose=0)
    scores = evaluate(run, folders["adience"], split="test")
    assert [group["name"] for group in scores.age.groups][:2] == ["0-2", "4-6"]
    with open(run.path / "predictions_faces_test.csv", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["age_group"] for row in rows] == ["0-2", "4-6", "25-32", "60-100"]
    for row in rows:
        years = float(row["predicted_age_years"])
        near = ADIENCE_AGE_GROUPS.from_years(round(years), unmapped_ages="nearest")
        assert abs(near - int(row["predicted_age_group_id"])) <= 2


def test_adience_s_groups_do_not_fit_a_dataset_of_others(prepared):
    from keras_agegender.datasets.pipeline import make_eval_dataset

    with pytest.raises(ValueError, match="Invalid `age_groups`.*0-17, 18-64, 65"):
        make_eval_dataset(prepared, "categorical", split="test")


def test_a_csv_says_how_ages_between_groups_are_kept(tmp_path):
    for name in ("a", "b", "c"):
        write_picture(tmp_path / f"{name}.jpg")
    (tmp_path / "labels.csv").write_text("image,age\na.jpg,3\nb.jpg,27\nc.jpg,13\n")
    _, report = read_csv(tmp_path / "labels.csv", validation=0, test=0)
    assert (
        "2 ages lie between two groups (--unmapped-ages" in str(report).splitlines()[0]
    )
