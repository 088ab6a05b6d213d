"""A run whose recipe a power cut emptied."""

import pytest

from keras_agegender.run_directory import RunDirectory


def test_an_empty_recipe_is_no_recipe_of_defaults(tmp_path):
    run = RunDirectory(tmp_path)
    run.recipe_file.write_text("\n")
    with pytest.raises(ValueError, match=r"recipe\.toml is empty\. Restore it"):
        run.recipe()
