"""Published scores of a recipe, next to measured ones of the same kind and data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from keras_agegender.recipes.schema import Published, Recipe

# Column of a reproduction -> (attribute of `Published`, path in metrics.json).
FIGURES: dict[str, tuple[str, tuple[str, str]]] = {
    "gender accuracy": ("gender_accuracy", ("gender", "accuracy")),
    "gender f1": ("gender_f1", ("gender", "f1")),
    "gender precision": ("gender_precision", ("gender", "precision")),
    "gender recall": ("gender_recall", ("gender", "recall")),
    # The report counts an ordinal prediction as right only if all heads are.
    "age accuracy": ("age_accuracy", ("age", "all_heads_accuracy")),
    "age exact": ("", ("age", "accuracy")),
    "age one-off": ("", ("age", "one_off_accuracy")),
    "age error": ("", ("age", "mean_absolute_error")),  # in groups: may be above 1
}


class ScoredData(NamedTuple):
    """The data that a recipe's runs are scored on.

    `sources` are the sources of the faces (such as `"adience"`), `splits` the split of
    each run, and `test_to_train` the mean number of test faces per training face.
    """

    sources: tuple[str, ...]
    splits: tuple[str, ...]
    test_to_train: float | None = None


def why_not_comparable(line: Published, data: ScoredData) -> str:
    """Returns why published and measured scores are not comparable, or `""`."""
    if set(data.sources) != {line.data}:
        others = ", ".join(data.sources) or "no data"
        return f"published scores are for {line.data}, measured ones for {others}"
    other = sorted({split for split in data.splits if split != line.split})
    if other:
        return (
            f"published scores are for {line.data}'s {line.split}, measured ones for "
            f"{', '.join(other)}"
        )
    return ""


def figure(
    scores: Mapping[str, Any], path: tuple[str, str], positive: str
) -> float | None:
    """Returns a score of metrics.json; f1, precision and recall of `positive`."""
    section, key = path
    values = scores.get(section) or {}
    values = {**values, **values.get("by_positive", {}).get(positive, {})}
    value = values.get(key)
    if value is None and key == "all_heads_accuracy":  # a single head
        value = values.get("accuracy")
    return value


def published_scores(
    recipe: Recipe, checkpoint: str, data: ScoredData, metrics: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Returns `title`, `published` and `measured` of each score in the report.

    Empty unless the report has scores of this checkpoint for the same data and split.
    """
    for line in recipe.published:
        same = (line.checkpoint or "best") == checkpoint
        if same and not why_not_comparable(line, data):
            break
    else:
        return []
    several = (metrics.get("age") or {}).get("all_heads_accuracy") is not None
    titles = {
        "gender accuracy": "gender accuracy",
        "gender f1": f"gender F1 ({line.positive})",
        "gender precision": f"precision ({line.positive})",
        "gender recall": f"recall ({line.positive})",
        "age accuracy": "all age heads correct" if several else "age group accuracy",
    }
    found = []
    for name, title in titles.items():
        attribute, path = FIGURES[name]
        published, measured = (
            getattr(line, attribute),
            figure(metrics, path, line.positive),
        )
        if published is not None and measured is not None:
            scores = {"published": published, "measured": measured}
            found.append({"title": title, **scores})
    return found


def published_lines(scores: Sequence[Mapping[str, Any]]) -> list[str]:
    """Formats the result of `published_scores` as lines of text."""
    if not scores:
        return []
    width = max(len(score["title"]) for score in scores)
    lines = [f"{'':<{width}}  published  here"]
    for score in scores:
        values = f"{score['published']:>9.3f}  {score['measured']:.3f}"
        lines.append(f"{score['title']:<{width}}  {values}")
    return lines
