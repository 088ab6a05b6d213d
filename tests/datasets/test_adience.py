"""The Adience reader: cleaning by rules, both trees, errors with file and line."""

from __future__ import annotations

import pytest
from sample_data import ALL_AGE_TEXTS, adience_row, write_adience

from keras_agegender.datasets.readers.adience import COLUMNS, read_adience
from keras_agegender.datasets.splits import check_subject_exclusive, report_splits
from keras_agegender.labels import AGE_GROUP_NAMES, GENDERS

# number, fold, age, gender
ROWS = {
    0: [
        adience_row(0, 0, "(25, 32)", "f"),
        adience_row(1, 0, "(25, 23)", "m"),
        adience_row(2, 0, "None", "m"),
        adience_row(3, 0, "(0, 2)", "u"),
    ],
    1: [adience_row(4, 1, "(8, 23)", ""), adience_row(5, 1, "35", "m")],
    2: [adience_row(6, 2, "None", "u")],
    3: [adience_row(7, 3, "(60, 100)", "f")],
    4: [adience_row(8, 4, "(4, 6)", "m")],
}


def test_rows_with_both_labels(tmp_path):
    manifest, report = read_adience(write_adience(tmp_path, ROWS), tmp_path)
    assert list(manifest["age_group"]) == [4, 4, 5, 7, 1]
    assert [GENDERS[g] for g in manifest["gender"]] == [
        "female", "male", "male", "female", "male"
    ]  # fmt: skip
    assert list(manifest["split"]) == ["fold_0", "fold_0", "fold_1", "fold_3", "fold_4"]
    assert manifest["subject"][0] == "0"
    assert manifest["album"][0] == "user0@N00"
    assert report.rows_read == 9
    assert report.rows_kept == 5
    assert dict(report.dropped) == {
        "no age": 1,
        "no gender": 2,
        "neither age nor gender": 1,
    }
    assert report.rules["age", "(25, 23)", "(25, 32)"] == 1
    assert report.rules["age", "(8, 23)", "(8, 12)"] == 1
    assert report.rules["age", "35", "(38, 43)"] == 1
    assert report.rules["age", "None", "no age"] == 2
    assert report.rules["gender", "u", "no gender"] == 2
    assert report.rules["gender", "", "no gender"] == 1
    assert report.totals == {"usable gender": 6, "usable age": 7, "both usable": 5}
    assert "9 rows read, 5 kept" in str(report)


def test_strict_is_table_0_only(tmp_path):
    manifest, report = read_adience(
        write_adience(tmp_path, ROWS), tmp_path, strict=True
    )
    assert len(manifest) == 4
    assert report.rules["age", "(25, 23)", "no age"] == 1


def test_keep_any_masks_and_never_guesses(tmp_path):
    directory = write_adience(tmp_path, ROWS)
    manifest, report = read_adience(directory, tmp_path, require_labels="any")
    assert len(manifest) == 8
    assert list(manifest["age_group"][:4]) == [4, 4, -1, 0]
    assert list(manifest["gender"][:4]) == [0, 1, 1, -1]
    assert dict(report.dropped) == {"neither age nor gender": 1}


@pytest.mark.parametrize("tree", ["faces", "aligned"])
def test_either_tree(tmp_path, tree):
    write_adience(tmp_path, ROWS, tree=tree)
    manifest, _ = read_adience(tmp_path, tmp_path)
    assert all(path.startswith(str(tmp_path / tree)) for path in manifest["path"])
    other = {"faces": "aligned", "aligned": "faces"}[tree]
    with pytest.raises(ValueError, match=f"no {other}/"):
        read_adience(tmp_path, tmp_path, tree=other)


def test_all_31_age_texts_are_read(tmp_path):
    rows = [adience_row(n, 0, text, "m") for n, text in enumerate(ALL_AGE_TEXTS)]
    directory = write_adience(tmp_path, {0: rows}, tree=None)
    manifest, report = read_adience(directory, require_labels="any")
    expected = [
        -1 if name is None else AGE_GROUP_NAMES.index(name)
        for name in ALL_AGE_TEXTS.values()
    ]
    assert list(manifest["age_group"]) == expected
    assert len(report.rules) == 23  # all but the eight groups themselves


def test_repeated_rows_are_kept_and_counted(tmp_path):
    row = adience_row(0)
    directory = write_adience(tmp_path, {0: [row, row, row]}, tree=None)
    manifest, report = read_adience(directory)
    assert [key.rpartition("#")[2] for key in manifest["key"][1:]] == ["2", "3"]
    assert report.totals["repeated rows, kept"] == 2


def test_absent_pictures_are_left_out_and_named(tmp_path):
    directory = write_adience(tmp_path, ROWS)
    manifest, _ = read_adience(directory, directory)
    (directory / manifest["key"][0]).unlink()
    manifest, report = read_adience(directory, directory)
    assert report.dropped["no image file"] == 1
    assert ("no image file") in [reason for _, reason in report.items]
    assert len(manifest) == 4


def test_subject_in_two_splits_is_an_error(tmp_path):
    rows = {0: [adience_row(0, 0, subject=7)], 3: [adience_row(1, 3, subject=7)],
            4: [adience_row(2, 4, subject=9)]}  # fmt: skip
    directory = write_adience(tmp_path, rows, tree=None)
    with pytest.raises(ValueError, match="subject '7' in"):
        manifest, _ = read_adience(directory)
        check_subject_exclusive(manifest, report_splits())


@pytest.mark.parametrize("name", ["../evil.jpg", "a/b.jpg", "..", "", "c\\d.jpg"])
@pytest.mark.parametrize("column", ["user_id", "original_image", "face_id"])
def test_names_are_names_and_not_paths(tmp_path, name, column):
    row = adience_row(0, **{column: name})
    directory = write_adience(tmp_path, {1: [row]}, tree=None)
    with pytest.raises(ValueError, match=r"fold_1_data.txt, line 2: .*plain name"):
        read_adience(directory)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"age": "(1, 99)"}, r"line 2: unknown age label '\(1, 99\)'"),
        ({"gender": "x"}, "line 2: unknown gender label 'x'"),
    ],
)
def test_unknown_labels_are_errors(tmp_path, changes, message):
    directory = write_adience(tmp_path, {2: [adience_row(0, **changes)]}, tree=None)
    with pytest.raises(ValueError, match=message):
        read_adience(directory)


def test_damaged_files(tmp_path):
    directory = write_adience(tmp_path, ROWS, tree=None)
    file = directory / "fold_3_data.txt"
    whole = file.read_text("utf-8")
    file.write_text(whole[:-20], "utf-8")
    with pytest.raises(ValueError, match=r"fold_3_data.txt, line 2: expected 12"):
        read_adience(directory)
    file.write_text("", "utf-8")
    with pytest.raises(ValueError, match="line 1: expected the tab-separated columns"):
        read_adience(directory)
    file.write_text(whole.replace(COLUMNS[0], "user"), "utf-8")
    with pytest.raises(ValueError, match="line 1: expected"):
        read_adience(directory)
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="not a text file"):
        read_adience(directory)
    file.unlink()
    with pytest.raises(ValueError, match="lacks fold_3_data.txt"):
        read_adience(directory)
    file.mkdir()
    with pytest.raises(ValueError, match="is not a file"):
        read_adience(directory)
    with pytest.raises(ValueError, match="There is no folder"):
        read_adience(tmp_path / "nowhere")


def test_what_editors_and_copies_do_to_a_fold_file(tmp_path):
    """A mark before the first letter, ends of lines of Windows, none at the end."""
    rows = {fold: [adience_row(n, fold) for n in range(2)] for fold in range(5)}
    whole, _ = read_adience(write_adience(tmp_path, rows, tree=None))
    file = tmp_path / "fold_0_data.txt"
    text = file.read_bytes().replace(b"\n", b"\r\n").removesuffix(b"\r\n")
    file.write_bytes(b"\xef\xbb\xbf" + text)
    manifest, _ = read_adience(tmp_path)
    assert manifest.equals(whole)


@pytest.mark.parametrize("name", ["x" * 300, "a\u2028b.jpg", "a\x85b.jpg", "{0}"])
def test_odd_names_are_rows_like_others(tmp_path, name):
    rows = {fold: [adience_row(1, fold)] for fold in range(5)}
    write_adience(tmp_path, rows)
    rows[0].append(adience_row(2, 0, original_image=name))
    write_adience(tmp_path, rows, tree=None)
    manifest, report = read_adience(tmp_path, tmp_path)
    assert len(manifest) == 5 and report.dropped == {"no image file": 1}


def test_no_usable_row(tmp_path):
    rows = {0: [adience_row(0, 0, "None", "u")]}
    with pytest.raises(ValueError, match="No image of 1 rows"):
        read_adience(write_adience(tmp_path, rows, tree=None))


def test_unknown_options(tmp_path):
    with pytest.raises(ValueError, match="require_labels='all'"):
        read_adience(tmp_path, require_labels="all")
    with pytest.raises(ValueError, match="tree='raw'"):
        read_adience(tmp_path, tree="raw")
