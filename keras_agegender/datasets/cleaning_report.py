"""Cleaning reports: what every rule did to how many rows, and what was left out."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

# Field and outcomes of the rules about ages that lie between two groups; any other
# outcome is the group that was nearer.
GAP = "age between two groups"
NO_AGE_GROUP = "no age group"
# How many ages or rows a printed report names, and how much of each name.
MOST_NAMES, MOST_LETTERS = 3, 100
WIDEST = 72  # of its first column; a longer text pushes its number to the right
_LEFT_OUT = "left out: "
NOT_TEXT = "name is not UTF-8"  # but bytes: no text file could hold it


def quoted(text: str) -> str:
    """Returns what a wrong cell says, for an error: the beginning of a long one.

    Example:
    >>> quoted("old")
    "'old'"
    """
    return repr(text if len(text) <= MOST_LETTERS else f"{text[:MOST_LETTERS]}…")


@dataclass
class CleaningReport:
    """Counts of everything a reader changed, kept or left out.

    Attributes:
        source: What was read, `"adience"` for instance.
        rows_read: Rows of the label files.
        rules: (field, from, to) -> rows it was applied to.
        totals: Named totals, in the order they were added.
        left_out: Reason -> rows left out.
        items: (item, reason) of rows left out or reported one by one.
        num_between_groups: Ages that no group holds, and that none was found for.
        num_moved: Ages that no group holds, and that became the nearer one.
    """

    source: str
    rows_read: int = 0
    rules: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    totals: dict[str, int] = field(default_factory=dict)
    left_out: Counter[str] = field(default_factory=Counter)
    items: list[tuple[str, str]] = field(default_factory=list)
    num_between_groups: int = 0
    num_moved: int = 0

    def leave_out(self, item: str, reason: str) -> None:
        """Counts a row that is left out, and remembers which."""
        self.left_out[reason] += 1
        self.items.append((item, reason))

    def find_between_groups(self, years: str, group: str | None) -> None:
        """Counts an age that no group holds, of a row that is kept.

        Args:
            years: The age, as it is written.
            group: Name of the nearer group, which it became; `None` if it has none.
        """
        self.rules[GAP, years, group or NO_AGE_GROUP] += 1
        if group is None:
            self.num_between_groups += 1
        else:
            self.num_moved += 1

    @property
    def rows_kept(self) -> int:
        """Rows of the manifest."""
        return self.rows_read - sum(self.left_out.values())

    def to_frame(self) -> Any:
        """Returns the rules as a pandas DataFrame: field, from, to, rows."""
        import pandas as pd

        rows = [(*rule, count) for rule, count in sorted(self.rules.items())]
        return pd.DataFrame(rows, columns=["field", "from", "to", "rows"])

    def to_dict(self) -> dict[str, Any]:
        """Returns everything as plain values, for JSON."""
        return {**self.counts(), "items": [list(item) for item in self.items]}

    def counts(self) -> dict[str, Any]:
        """Returns everything but the rows one by one, as plain values."""
        return {
            "source": self.source,
            "rows_read": self.rows_read,
            "rows_kept": self.rows_kept,
            "rules": [
                {"field": f, "from": a, "to": b, "rows": n}
                for (f, a, b), n in sorted(self.rules.items())
            ],
            "totals": dict(self.totals),
            "left_out": dict(self.left_out),
            "num_between_groups": self.num_between_groups,
            "num_moved": self.num_moved,
        }

    def items_text(self) -> str:
        """Returns the items as CSV: item, reason, and whether the row was left out."""
        import pandas as pd

        rows = [(item, why, why in self.left_out) for item, why in self.items]
        table = pd.DataFrame(rows, columns=["item", "reason", "left_out"])
        return table.to_csv(index=False)

    def __str__(self) -> str:
        first = f"{self.source}: {self.rows_read} rows read, {self.rows_kept} kept"
        if self.num_between_groups:
            first += (
                f"; {self.num_between_groups} ages lie between two groups (--gaps "
                "mask keeps them without a group, nearest takes the nearer one, omit "
                "leaves them out; --age-groups decades has no gaps)"
            )
        if self.num_moved:
            first += (
                f"; {self.num_moved} ages lie between two groups and were moved to the "
                "nearer one (--gaps nearest)"
            )
        rows = cleaning_rows(self.counts())
        width = min(max((len(text) for text, _ in rows), default=0), WIDEST)
        lines = [first]
        for text, count in rows:
            lines.append(f"  {text:<{width}}  {count:>7}")
            reason = text.removeprefix(_LEFT_OUT)
            named = [item for item, why in self.items if why == reason]
            if named:
                apart = "; " if "," in named[0] else ", "
                lines.append(f"    {_first_few(named, apart)}")
        return "\n".join(lines)


def cleaning_rows(counts: Mapping[str, Any]) -> list[tuple[str, int]]:
    """Returns what cleaning did as (text, rows), for a table to print.

    Rules about ages between two groups are one row for each outcome: there may be one
    for every year.

    Args:
        counts: What `CleaningReport.counts` returned.
    """
    rows: list[tuple[str, int]] = []
    gaps: dict[str, list[Mapping[str, Any]]] = {}
    for rule in counts["rules"]:
        if rule["field"] == GAP:
            kept = rule["to"] == NO_AGE_GROUP
            gaps.setdefault(NO_AGE_GROUP if kept else "the nearer group", []).append(
                rule
            )
        else:
            text = f"{rule['field']} {rule['from']!r} -> {rule['to']}"
            rows.append((text, rule["rows"]))
    for to, rules in gaps.items():
        years = sorted({rule["from"] for rule in rules}, key=float)
        text = f"{GAP} ({_first_few(years)}) -> {to}"
        rows.append((text, sum(rule["rows"] for rule in rules)))
    rows += counts["totals"].items()
    return rows + [(f"{_LEFT_OUT}{why}", n) for why, n in counts["left_out"].items()]


def _first_few(names: list[str], apart: str = ", ") -> str:
    short = (n if len(n) <= MOST_LETTERS else n[:MOST_LETTERS] + "…" for n in names)
    text = apart.join(itertools.islice(short, MOST_NAMES))
    more = len(names) - MOST_NAMES
    return f"{text} and {more} more" if more > 0 else text
