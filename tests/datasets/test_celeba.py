"""CelebA from a folder, and from TensorFlow Datasets by way of the same folder."""

from __future__ import annotations

import pytest
from sample_data import write_picture

import keras_agegender as kag
from keras_agegender.datasets.readers.celeba import read_celeba, write_celeba_from_tfds
from keras_agegender.labels import CELEBA_ATTRIBUTES

NAMES = ("000001.jpg", "000002.jpg", "000003.jpg")


@pytest.fixture
def folder(tmp_path):
    lines = [str(len(NAMES)), " ".join(CELEBA_ATTRIBUTES)]
    for number, name in enumerate(NAMES):
        values = ["-1"] * 40
        values[CELEBA_ATTRIBUTES.index("Male")] = "1" if number == 1 else "-1"
        values[CELEBA_ATTRIBUTES.index("Smiling")] = "1" if number == 2 else "-1"
        lines.append("  ".join([name, *values]))
        write_picture(tmp_path / "img_align_celeba" / name)
    (tmp_path / "list_attr_celeba.txt").write_text("\n".join(lines) + "\n", "utf-8")
    partition = "\n".join(f"{name} {n}" for n, name in enumerate(NAMES)) + "\n"
    (tmp_path / "list_eval_partition.txt").write_text(partition, "utf-8")
    return tmp_path


def test_a_local_folder(folder):
    manifest, report = read_celeba(folder)
    assert list(manifest["split"]) == ["train", "validation", "test"]
    assert list(manifest["gender"]) == [0, 1, 0]
    assert list(manifest["Male"]) == [0, 1, 0]
    assert list(manifest["Smiling"]) == [0, 0, 1]
    assert set(manifest["age_group"]) == {-1}
    assert [c for c in manifest if c in CELEBA_ATTRIBUTES] == list(CELEBA_ATTRIBUTES)
    assert report.rows_kept == 3


def test_identities_become_subjects_and_may_not_leak(folder):
    file = folder / "identity_CelebA.txt"
    file.write_text("".join(f"{name} {n}\n" for n, name in enumerate(NAMES)), "utf-8")
    manifest, _ = read_celeba(folder)
    assert list(manifest["subject"]) == ["0", "1", "2"]
    file.write_text("".join(f"{name} 5\n" for name in NAMES), "utf-8")
    with pytest.raises(ValueError, match="subject '5'"):
        read_celeba(folder)
    found = kag.audit(folder, near_duplicates=False, progress=False)
    assert found.source_type == "celeba" and found.num_faces == 3
    assert found.shared_subjects == {"5": ["test", "train", "validation"]}


def test_absent_pictures_are_counted(folder):
    (folder / "img_align_celeba" / NAMES[0]).unlink()
    manifest, report = read_celeba(folder)
    assert len(manifest) == 2
    assert report.items == [(NAMES[0], "no image file")]


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        (
            "list_attr_celeba.txt",
            ("\n000003", "\n000009"),
            "line 5: '000009.jpg' has no",
        ),
        (
            "list_attr_celeba.txt",
            ("3\n", "4\n"),
            "line 1: announces '4' rows, 3 follow",
        ),
        ("list_attr_celeba.txt", ("Smiling", "Grinning"), "line 2: expected the names"),
        (
            "list_attr_celeba.txt",
            ("000001.jpg  -1", "000001.jpg  0"),
            "line 3: expected",
        ),
        (
            "list_attr_celeba.txt",
            ("000001.jpg", "../01.jpg"),
            "below the image folder",
        ),
        (
            "list_eval_partition.txt",
            ("000001.jpg 0", "000001.jpg"),
            "line 1: expected two",
        ),
        ("list_eval_partition.txt", ("000001.jpg 0", "000001.jpg 3"), "no partition 0"),
    ],
)
def test_damaged_lists(folder, file, change, message):
    path = folder / file
    path.write_text(path.read_text("utf-8").replace(*change), "utf-8")
    with pytest.raises(ValueError, match=message):
        read_celeba(folder)


def test_absent_lists(folder):
    (folder / "list_eval_partition.txt").unlink()
    with pytest.raises(ValueError, match="There is no .*list_eval_partition.txt"):
        read_celeba(folder)
    with pytest.raises(ValueError, match="There is no folder"):
        read_celeba(folder / "nowhere")


def test_tensorflow_datasets_is_written_as_a_folder(tmp_path, monkeypatch):
    tfds = pytest.importorskip("tensorflow_datasets")
    with tfds.testing.mock_data(num_examples=3):
        write_celeba_from_tfds(tmp_path / "celeba", progress=False)
    manifest, report = read_celeba(tmp_path / "celeba")
    assert report.rows_read == 9
    assert manifest["split"].value_counts().to_dict() == {
        "train": 3,
        "validation": 3,
        "test": 3,
    }


def test_a_download_that_fails_says_what_to_do(tmp_path, monkeypatch):
    tfds = pytest.importorskip("tensorflow_datasets")

    def refuse(self, *args, **kwargs):
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", refuse)
    with pytest.raises(ValueError, match="no route to host.*by hand") as caught:
        write_celeba_from_tfds(tmp_path / "celeba", data_dir=tmp_path / "tfds")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "celeba").exists()
    with pytest.raises(ValueError, match="not prepared there"):
        write_celeba_from_tfds(
            tmp_path / "celeba", data_dir=tmp_path / "tfds", download=False
        )
