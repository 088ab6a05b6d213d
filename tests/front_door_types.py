"""What a type checker knows of `import keras_agegender`: `make lint` runs mypy on this.

Nothing here runs. Were the front door untyped, `kag.get_encoding` would be `Any`: the
first lines would fail, and the last comments would be reported as unused.
"""

from __future__ import annotations

from typing import assert_type

import keras
import pandas as pd

import keras_agegender as kag


def of_what_type() -> None:
    """Functions keep their signatures, classes are classes."""
    encoding = kag.get_encoding("ordinal", question="older")
    assert_type(encoding, kag.Encoding)
    assert_type(kag.load_recipe("quickstart"), kag.Recipe)
    assert_type(kag.list_models(), list[str])
    assert_type(kag.train("14", "data", "run"), kag.RunDirectory)
    model: keras.Model = kag.build_model("resnet_se", encoding)
    labels: pd.DataFrame = kag.read_csv("labels.csv")[0]
    del model, labels


def errors() -> None:
    """Wrong names and arguments are errors, or mypy reports an unused comment."""
    kag.nonsense  # type: ignore[attr-defined] # noqa: B018
    kag.get_encoding(1)  # type: ignore[arg-type]
    kag.build_model("resnet_se", image_sise=(64, 64))  # type: ignore[call-arg]
