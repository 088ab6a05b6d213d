"""The public names: those at the top of `kag`, and those of its namespaces."""

from __future__ import annotations

from types import ModuleType

import keras_agegender as kag


def public_names() -> dict[str, object]:
    """Returns dotted name -> object, as `"metrics.ExactAccuracy"`."""
    found: dict[str, object] = {}
    for name in kag.__all__:
        value = getattr(kag, name)
        if not isinstance(value, ModuleType):
            found[name] = value
            continue
        for inner in getattr(value, "__all__", ()):
            found.setdefault(f"{name}.{inner}", getattr(value, inner))
    for inner in ("plot_groups", "plot_reliability", "reliability_bins"):
        found[f"plots.{inner}"] = getattr(kag.plots, inner)
    for inner in ("AGE_GROUPS", "AGE_GROUP_PRESETS", "GENDERS", "get_age_groups"):
        found[f"labels.{inner}"] = getattr(kag.labels, inner)
    return found
