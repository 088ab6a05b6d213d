"""Published scores: of the same kind, and only for the report's data and split."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import keras_agegender as kag
from keras_agegender.evaluation.published import (
    ScoredData,
    published_lines,
    published_scores,
)
from keras_agegender.evaluation.scores import format_metrics

ADIENCE = ScoredData(("adience",), ("fold_4",))


@pytest.fixture
def scores():
    """Ordinal: all eight groups most probable, but every other face inconsistent."""
    decoded = kag.encodings.Decoded(
        age_group=np.arange(8), median_age_group=np.arange(8),
        heads_agree=np.arange(8) % 2 == 0, gender=np.ones(8, int),
    )  # fmt: skip
    return kag.evaluation.evaluate_predictions(
        np.arange(8), np.ones(8, int), decoded, separate_age_heads=True
    )


def test_age_is_compared_by_all_heads(scores):
    """Published 0.459 is the share of faces with all heads right: here 0.5, not 1."""
    recipe = kag.load_recipe("14")
    found = published_scores(recipe, "best", ADIENCE, scores.to_dict())
    by_title = {s["title"]: (s["published"], s["measured"]) for s in found}
    assert by_title["all age heads correct"] == (0.459, 0.5)
    assert by_title["gender accuracy"] == (0.784, 1.0)
    assert "gender F1 (female)" not in by_title  # undefined without women
    text = format_metrics(replace(scores, published=found))
    assert "published  here" in text and "all age heads correct" in text
    assert "    0.459  0.500" in published_lines(found)[-1]


@pytest.mark.parametrize(
    "data",
    [
        ScoredData(("test",), ("fold_4",)),
        ScoredData(("adience",), ("fold_3",)),
        ScoredData(("adience", "utkface"), ("fold_4",)),
    ],
)
def test_other_data_has_no_published_scores(scores, data):
    recipe = kag.load_recipe("14")
    assert published_scores(recipe, "best", data, scores.to_dict()) == []
    assert published_scores(recipe, "last", ADIENCE, scores.to_dict()) == []


def test_recipes_have_a_cost_of_their_own(tmp_path):
    assert kag.load_recipe("14").cost.two_cores == "7 h"
    assert kag.load_recipe("14", ["model.encoding=categorical"]).cost.two_cores == ""
    file = tmp_path / "mine.toml"
    file.write_text('base = "14_resnet_se_ordinal"\n', "utf-8")
    assert kag.load_recipe(file).cost.two_cores == ""
