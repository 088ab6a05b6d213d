"""Descriptions of datasets: data is all that they may ask for."""

from __future__ import annotations

import json
import sys

import pytest

from keras_agegender.datasets.prepared import check_prepared

OWN = {
    "pythonClassName": "tensorflow_datasets.core.features.features_dict.FeaturesDict",
    "featuresDict": {
        "features": {
            "key": {
                "pythonClassName": "tensorflow_datasets.core.features.text_feature.Text"
            }
        }
    },
}


def write(folder, features, info):
    (folder / "features.json").write_text(json.dumps(features), "utf-8")
    (folder / "dataset_info.json").write_text(json.dumps(info), "utf-8")


def test_what_prepare_writes_is_opened(tmp_path):
    write(tmp_path, OWN, {"splits": [{"filepathTemplate": "{DATASET}-{SPLIT}"}]})
    assert check_prepared(tmp_path) == tmp_path


@pytest.mark.parametrize(
    "features",
    [
        {"pythonClassName": "antigravity.Feature"},
        {"featuresDict": {"features": {"x": {"pythonClassName": "os.path.Feature"}}}},
        {"type": "antigravity.Feature", "content": {}},
        {"a": [{"pythonClassName": "tensorflow_datasets_evil.Feature"}]},
    ],
)
def test_no_module_is_imported_that_a_dataset_names(tmp_path, features):
    """TensorFlow Datasets would import it, and `antigravity` start a browser."""
    write(tmp_path, features, {})
    with pytest.raises(ValueError, match=r"features.json asks for more than data"):
        check_prepared(tmp_path)
    assert "antigravity" not in sys.modules


@pytest.mark.parametrize("template", ["../{SPLIT}", "/etc/passwd", "..\\x"])
def test_no_shard_is_read_from_elsewhere(tmp_path, template):
    write(tmp_path, OWN, {"splits": [{"filepathTemplate": template}]})
    with pytest.raises(
        ValueError, match=r"dataset_info.json asks.*files of the folder"
    ):
        check_prepared(tmp_path)


@pytest.mark.parametrize("name", ["features.json", "dataset_info.json"])
def test_a_half_written_description(tmp_path, name):
    write(tmp_path, OWN, {})
    (tmp_path / name).write_text('{"a":', "utf-8")
    with pytest.raises(ValueError, match=rf"{name} is damaged.*Prepare it again"):
        check_prepared(tmp_path)
