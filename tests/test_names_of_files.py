"""Names that become paths: none leads out of the folder that was asked for."""

from __future__ import annotations

import json

import pytest
from sample_data import make_rows

from keras_agegender.datasets.manifest import make_manifest
from keras_agegender.datasets.prepare import prepare
from keras_agegender.encodings.head import NAME, Head
from keras_agegender.evaluation.report import file_name
from keras_agegender.files import is_file_name
from keras_agegender.recipes.loading import load_recipe

BAD = ["../../../escaped", "/etc/x", "a/b", "..", ".", ".hidden", "a\\b", "a\nb",
       "a\0b", "C:x", "x" * 101, " x", "-x", "x.", "x "]  # fmt: skip
# What Windows takes for a device, in any folder, with any ending, in any case.
RESERVED_NAMES_TEXT = ["con", "NUL", "Aux", "prn", "com1", "LPT9", "COM¹"]


@pytest.mark.parametrize(
    "name", [*RESERVED_NAMES_TEXT, "con.txt", "nul.a.b", "aux .x", "com1 (2)"]
)
def test_devices(name):
    assert not is_file_name(name)
    assert not is_file_name(name.upper())


@pytest.mark.parametrize(
    "name", ["console", "null", "com", "com10", "auxiliary", "a.con"]
)
def test_no_devices(name):
    assert is_file_name(name)
    assert NAME.fullmatch(name) and Head(name).name == name


@pytest.mark.parametrize("name", BAD)
def test_bad_names(name):
    assert not is_file_name(name)
    assert not {"/", "\\", "\n", "\0", ":"} & {*file_name(name)}


def test_columns_share_no_file():
    names = ["a.b", "a_b", "a-b", "a,b", "a+b", "a b", "a%b", "a%2b%b", "ab", "é", "e"]
    assert len({*map(file_name, names)}) == len(names)
    assert file_name("age_group,gender") == "age_group+gender"
    assert file_name("a.b-c_1") == "a.b-c_1" and file_name("a/b") == "a%2f%b"


@pytest.mark.parametrize(
    "name", ["a", "14_resnet", "mein Rezept (2)", "é.v1+b", "x" * 100]
)
def test_good_names(name):
    assert is_file_name(name)


@pytest.mark.parametrize("name", [*BAD, *RESERVED_NAMES_TEXT])
def test_recipes(tmp_path, name):
    file = tmp_path / "mine.toml"
    # JSON's escapes are TOML's.

    file.write_text(f'name = {json.dumps(name)}\nbase = "quickstart"\n', "utf-8")
    with pytest.raises(ValueError, match=r"invalid value of 'name'. Expected a name"):
        load_recipe(file)


def test_a_recipe_is_called_as_its_file():
    assert load_recipe("quickstart").name == "quickstart"
    with pytest.raises(ValueError, match="training.extra_checkpoints"):
        load_recipe("quickstart", ["training.extra_checkpoints={'../x'='val_loss'}"])
    with pytest.raises(ValueError, match="training.extra_checkpoints"):
        load_recipe(
            "quickstart", [f"training.extra_checkpoints={{{'x' * 300}='val_loss'}}"]
        )


@pytest.mark.parametrize(
    "split", ["../x", "a/b", "", "a+b", "a b", "x" * 101, "a[1:]", *RESERVED_NAMES_TEXT]
)
def test_splits(tmp_path, split):
    rows = [{"key": "1.jpg", "path": "1.jpg", "split": split}]
    with pytest.raises(ValueError, match="Expected names of splits"):
        make_manifest(rows)


@pytest.mark.parametrize(
    "name", ["../x", "", "a/b", "a b", "x" * 101, *RESERVED_NAMES_TEXT]
)
def test_datasets(tmp_path, name):
    manifest = make_manifest(make_rows(tmp_path / "pictures", 2))
    with pytest.raises(ValueError, match="Invalid `name`"):
        prepare(manifest, tmp_path / "out", name=name)
    assert [entry.name for entry in tmp_path.iterdir()] == ["pictures"]


@pytest.mark.parametrize(
    "name", ["../x", "a/b", "", ".x", "a\n", "x" * 101, "con.a", *RESERVED_NAMES_TEXT]
)
def test_heads(name):
    assert not NAME.fullmatch(name)
    with pytest.raises(ValueError, match="Invalid head `name`"):
        Head(name)
