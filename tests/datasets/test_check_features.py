"""Descriptions of datasets: data is all that they may ask for."""

from __future__ import annotations

import json
import sys

import pytest

from keras_agegender.datasets.prepared import check_prepared

CORE = "tensorflow_datasets.core.features."
OWN = {
    "pythonClassName": "tensorflow_datasets.core.features.features_dict.FeaturesDict",
    "featuresDict": {
        "features": {
            "key": {
                "pythonClassName": CORE + "text_feature.Text",
                "text": {},
            }
        }
    },
}


SEQUENCE = CORE + "sequence_feature.Sequence"
LEGACY = '{"feature": {"type": "antigravity.Feature", "content": {}}}'


def inside(feature, name="x"):
    """A dict of one feature."""
    return {**OWN, "featuresDict": {"features": {name: feature}}}


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
        {"python_class_name": "antigravity.Feature", "text": {}},
        inside({"python_class_name": "antigravity.Feature", "text": {}}),
        inside({"pythonClassName": SEQUENCE, "jsonFeature": {"json": LEGACY}}),
        inside({"pythonClassName": SEQUENCE, "sequence": {"feature": {"text": {}}}}),
        inside({"pythonClassName": CORE + "text_feature.Text", "jsonFeature": {}}),
        inside(
            {
                "pythonClassName": CORE + "class_label_feature.ClassLabel",
                "classLabel": {"numClasses": 2},
            },
            name="../x",
        ),
    ],
)
def test_no_module_is_imported_that_a_dataset_names(tmp_path, features):
    """TensorFlow Datasets would import it, and `antigravity` start a browser."""
    write(tmp_path, features, {})
    with pytest.raises(ValueError, match=r"features.json asks for more than data"):
        check_prepared(tmp_path)
    assert "antigravity" not in sys.modules


def test_no_module_is_imported_that_dataset_info_names(tmp_path):
    write(tmp_path, OWN, {"features": {"python_class_name": "antigravity.Feature"}})
    with pytest.raises(ValueError, match=r"dataset_info.json.*antigravity.Feature"):
        check_prepared(tmp_path)


@pytest.mark.parametrize(
    "template", ["../{SPLIT}", "/etc/passwd", "..\\x", "..", "{SHARD_INDEX:c}"]
)
def test_no_shard_is_read_from_elsewhere(tmp_path, template):
    write(tmp_path, OWN, {"splits": [{"filepathTemplate": template}]})
    with pytest.raises(
        ValueError, match=r"dataset_info.json asks.*files of the folder"
    ):
        check_prepared(tmp_path)


@pytest.mark.parametrize(
    "info",
    [
        {"splits": [{"filepath_template": "../{SPLIT}"}]},
        {"splits": [{"name": "../other"}]},
        {"name": "../other"},
        {"file_format": "x/../../y"},
    ],
)
def test_no_name_leads_elsewhere(tmp_path, info):
    write(tmp_path, OWN, info)
    with pytest.raises(ValueError, match=r"dataset_info.json .*folder.*\.\./"):
        check_prepared(tmp_path)


def test_a_shard_is_no_link_to_elsewhere(tmp_path):
    folder = tmp_path / "prepared"
    folder.mkdir()
    write(folder, OWN, {})
    (folder / "inner").symlink_to("features.json")
    assert check_prepared(folder) == folder
    (tmp_path / "secret").write_text("", "utf-8")
    (folder / "faces-train.tfrecord-00000-of-00001").symlink_to("../secret")
    with pytest.raises(ValueError, match=r"tfrecord-00000-of-00001 is a link.*secret"):
        check_prepared(folder)


@pytest.mark.parametrize("name", ["features.json", "dataset_info.json"])
def test_a_half_written_description(tmp_path, name):
    write(tmp_path, OWN, {})
    (tmp_path / name).write_text('{"a":', "utf-8")
    with pytest.raises(ValueError, match=rf"{name} is damaged.*Prepare it again"):
        check_prepared(tmp_path)
