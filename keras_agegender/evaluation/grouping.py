"""Which columns faces are grouped by: names as users give them, checked and crossed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from keras_agegender.suggestion import did_you_mean

MAX_GROUPS = 100


def as_groupings(by: str | Sequence[str]) -> list[str]:
    """Returns what to group by as a list; a single name may stand alone."""
    return [by] if isinstance(by, str) else list(by)


def group_columns(by: str | Sequence[str]) -> list[str]:
    """Returns every column that groupings are made of.

    Example:
    >>> group_columns(["race,gender", "race"])
    ['race', 'gender']
    """
    return list(dict.fromkeys(",".join(as_groupings(by)).split(","))) if by else []


def check_columns(by: str | Sequence[str], available: Sequence[str]) -> None:
    """Raises a `ValueError` if a grouping names a column that is not there.

    Args:
        by: Columns to group by, those to cross with a comma between them.
        available: Columns there are. Outputs, answers and keys among them are accepted
            and not proposed.
    """
    others = ("output_", "predicted_", "key")
    proposed = [name for name in available if not name.startswith(others)]
    for name in as_groupings(by):
        for column in name.split(","):
            if column not in available:
                within = "" if column == name else f" in {name!r}"
                raise ValueError(
                    f"Invalid `by`. Expected columns of {proposed}. Received: "
                    f"{column!r}{within}.{did_you_mean(column, proposed)}"
                )


def find_groups(table: pd.DataFrame, columns: list[str]) -> dict[tuple, np.ndarray]:
    """Returns the rows of every combination of values of some columns.

    Raises:
        ValueError: If there are more than 100.
    """
    members = table.groupby(columns, sort=True, observed=True).indices
    if len(members) > MAX_GROUPS:
        raise ValueError(
            f"Invalid `by`. Expected at most {MAX_GROUPS} groups. Received: "
            f"{len(members)} different values of {','.join(columns)!r}."
        )
    return {v if isinstance(v, tuple) else (v,): rows for v, rows in members.items()}
