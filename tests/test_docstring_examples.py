"""The examples of docstrings run, module by module, and print what they say.

An example may use `kag`, `np`, `Path`, the names of its own module, and every public
name without its namespace. What needs files or a trained model is
marked `# doctest: +SKIP`.
"""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import numpy as np
import pytest
from public_names import public_names

import keras_agegender as kag

PACKAGE = Path(kag.__file__).parent
MODULES = sorted(
    ".".join(file.relative_to(PACKAGE.parent).with_suffix("").parts)
    for file in PACKAGE.rglob("*.py")
    if ">>>" in file.read_text("utf-8")
)
PUBLIC = {name.rpartition(".")[2]: value for name, value in public_names().items()}
OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


@pytest.mark.parametrize("module", MODULES)
def test_examples(module):
    shared = {"kag": kag, "np": np, "Path": Path, **PUBLIC}
    runner = doctest.DocTestRunner(optionflags=OPTIONS)
    output: list[str] = []
    imported = importlib.import_module(module.removesuffix(".__init__"))
    for test in doctest.DocTestFinder().find(
        imported, globs={**shared, **vars(imported)}
    ):
        runner.run(test, out=output.append)
    assert not runner.summarize(verbose=False).failed, "\n".join(output)
