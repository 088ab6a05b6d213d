"""Duplicates: which rows show one picture, where they lie, and whether labels agree.

Numbers of pairs are worked out from counts, so that one placeholder in 10,000 rows does
not become 50 million pairs in memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from keras_agegender.datasets.near_duplicates import near_contents
from keras_agegender.labels import MISSING

MANY_YEARS = 5  # two ages that differ by more are not one guess twice
_LABELS = ("split", "subject", "age_group", "gender", "age_years")


@dataclass(frozen=True)
class PairCounts:
    """Pairs of rows that show one picture.

    Attributes:
        pairs: How many there are.
        across: `"train, validation"` (two splits) -> pairs with one row in each.
        age_groups_differ: Pairs with two known age groups that differ.
        years_differ: Pairs with two known ages in years that differ.
        many_years_differ: Pairs whose ages differ by more than 5 years.
        genders_differ: Pairs with two known genders that differ.
        subjects_differ: Pairs with two known subjects that differ.
    """

    pairs: int
    across: dict[str, int]
    age_groups_differ: int
    years_differ: int
    many_years_differ: int
    genders_differ: int
    subjects_differ: int

    @property
    def num_across(self) -> int:
        """Pairs in two splits."""
        return sum(self.across.values())

    @property
    def num_within(self) -> int:
        """Pairs in one split."""
        return self.pairs - self.num_across


def exact_pairs(rows: pd.DataFrame) -> tuple[PairCounts, pd.DataFrame]:
    """Returns the pairs of rows of the same content.

    Args:
        rows: `key`, `split`, `subject`, `age_group`, `gender`, `age_years` and
            `content`, `""` where there is none.

    Returns:
        Their counts, and a row for each that is like an earlier one, beside the first
        of its kind: `first`, `second` (row numbers) and `distance`, which is 0.
    """
    known = rows["content"] != ""
    repeated = known & rows["content"].duplicated(keep=False)
    contents = rows["content"][repeated].unique()
    counts = _count(rows[repeated], pd.DataFrame({"a": contents, "b": contents}))
    numbers = pd.Series(np.arange(len(rows)), index=rows.index)[repeated]
    first = numbers.groupby(rows["content"][repeated]).transform("min")
    later = numbers != first
    listed = pd.DataFrame({"first": first[later], "second": numbers[later]})
    return counts, listed.assign(distance=0).reset_index(drop=True)


def near_pairs(
    rows: pd.DataFrame, looks: Mapping[str, bytes]
) -> tuple[PairCounts, pd.DataFrame]:
    """Returns the pairs of rows of other contents that look the same.

    Args:
        rows: As `exact_pairs` takes them.
        looks: Content -> perceptual hash.

    Returns:
        Their counts, and a row for each pair: `first`, `second` and `distance` in bits.
    """
    edges = near_contents(looks)
    counts = _count(rows, edges)
    numbered = pd.DataFrame(
        {"content": rows["content"].to_numpy(), "number": np.arange(len(rows))}
    )
    numbered = numbered[numbered["content"].isin({*edges["a"], *edges["b"]})]
    both = edges.merge(numbered, left_on="a", right_on="content").merge(
        numbered, left_on="b", right_on="content"
    )
    ends = np.sort(both[["number_x", "number_y"]].to_numpy(), axis=1)
    listed = pd.DataFrame(
        {"first": ends[:, 0], "second": ends[:, 1], "distance": both["distance"]}
    )
    return counts, listed.sort_values(["first", "second"], ignore_index=True)


def _count(rows: pd.DataFrame, edges: pd.DataFrame) -> PairCounts:
    """Counts pairs of rows whose contents an edge joins; `a` = `b` joins its own."""
    cells = (
        rows[rows["content"].isin({*edges["a"], *edges["b"]})]
        .groupby(["content", *_LABELS], dropna=False)
        .size()
        .reset_index(name="rows")
    )
    cells["cell"] = np.arange(len(cells))
    both = edges.merge(cells, left_on="a", right_on="content").merge(
        cells, left_on="b", right_on="content"
    )
    own = both["a"] == both["b"]
    weight = both["rows_x"] * (both["rows_y"] - (both["cell_x"] == both["cell_y"]))
    # A content joined to itself gives each pair twice, in either order.
    weight = np.where(own, weight / 2, both["rows_x"] * both["rows_y"])

    def differ(column: str, unknown: object, by_more_than: int = 0) -> int:
        x, y = both[f"{column}_x"], both[f"{column}_y"]
        different = x != y if not by_more_than else (x - y).abs() > by_more_than
        return round(weight[(x != unknown) & (y != unknown) & different].sum())

    apart = (both["split_x"] != both["split_y"]).to_numpy()
    names = np.sort(both[["split_x", "split_y"]].to_numpy(str), axis=1)[apart]
    across = pd.Series(weight[apart]).groupby([", ".join(pair) for pair in names]).sum()
    return PairCounts(
        pairs=round(weight.sum()),
        across={str(name): round(count) for name, count in across.items()},
        age_groups_differ=differ("age_group", MISSING),
        years_differ=differ("age_years", MISSING),
        many_years_differ=differ("age_years", MISSING, MANY_YEARS),
        genders_differ=differ("gender", MISSING),
        subjects_differ=differ("subject", ""),
    )
