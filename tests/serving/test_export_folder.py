"""Where an export may be made: nothing else is ever removed."""

from __future__ import annotations

import pytest

from keras_agegender.serving.saved_model import check_new_folder, check_saved_model


@pytest.mark.parametrize("overwrite", [False, True])
def test_an_unfinished_folder_of_other_things_is_left_alone(tmp_path, overwrite):
    (tmp_path / "out.partial").mkdir()
    (tmp_path / "out.partial" / "saved_model.pb").touch()
    check_new_folder(tmp_path / "out", overwrite)
    (tmp_path / "out.partial" / "request.json").touch()
    with pytest.raises(ValueError, match=r"out.partial contains other files.*'request"):
        check_new_folder(tmp_path / "out", overwrite)


def test_a_damaged_export_is_noticed_without_a_framework(tmp_path):
    from keras_agegender.files import write_checksums

    (tmp_path / "saved_model.pb").write_bytes(b"12")
    write_checksums(tmp_path)
    check_saved_model(tmp_path)
    (tmp_path / "saved_model.pb").write_bytes(b"1")
    with pytest.raises(ValueError, match=r"expected 2 bytes, received 1 bytes. Export"):
        check_saved_model(tmp_path)


@pytest.mark.parametrize(
    "name",
    [
        ".agegender.4711.partial.json",
        ".checksums.4711.partial.json",
        "saved_model.pb.tmp635595fd",
    ],
)
def test_what_a_killed_export_left_is_in_nobodys_way(tmp_path, name):
    (tmp_path / "out.partial").mkdir()
    (tmp_path / "out.partial" / name).write_text("{", "utf-8")
    check_new_folder(tmp_path / "out", overwrite=False)
    (tmp_path / "out.partial" / ".diary.4711.partial.json").touch()
    with pytest.raises(ValueError, match="contains other files"):
        check_new_folder(tmp_path / "out", overwrite=False)
