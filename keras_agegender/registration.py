"""Registers this package's Keras classes once Keras is imported.

A file of a model that was compiled with them then loads after `import keras_agegender`,
although names of this package are imported lazily.
"""

from __future__ import annotations

import importlib.abc
import importlib.util
import sys
from importlib import import_module
from types import ModuleType
from typing import Any

MODULE = "keras_agegender.metrics.keras_metrics"
CLASSES = (
    *("ExactAccuracy", "OneOffAccuracy", "MeanAbsoluteGroupError", "AgeYearsError"),
    *("CumulativeScore", "AllHeadsAccuracy", "RankViolationRate", "BalancedAccuracy"),
    *("NegativeLogLikelihood", "BrierScore", "QuadraticKappa"),
    *("ExpectedCalibrationError", "TableMetric", "PositiveClassMetric"),
)


class _Unimported:
    """Stands in for a class until a file needs it."""

    def __init__(self, name: str) -> None:
        self.name = name

    def from_config(self, config: dict[str, Any]) -> Any:
        """Imports the class and creates an object of it."""
        return getattr(import_module(MODULE), self.name).from_config(config)


def register_classes() -> None:
    """Registers the classes, now or when Keras is imported."""
    if "keras" in sys.modules:
        _register(sys.modules["keras"])
    elif not any(isinstance(finder, _OnImport) for finder in sys.meta_path):
        sys.meta_path.insert(0, _OnImport())


def _register(keras: ModuleType) -> None:
    if not hasattr(keras, "saving"):  # Keras is being imported
        return
    known = keras.saving.get_custom_objects()
    for name in CLASSES:
        known.setdefault(f"keras_agegender>{name}", _Unimported(name))


class _OnImport(importlib.abc.MetaPathFinder):
    """Registers the classes at the end of Keras' import."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name != "keras":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.loader is not None:
            run = spec.loader.exec_module

            def run_and_register(module: ModuleType) -> None:
                run(module)
                _register(sys.modules.get("keras", module))

            spec.loader.exec_module = run_and_register  # type: ignore[method-assign]
        return spec
