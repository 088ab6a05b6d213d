"""Cleaning reports: what every rule did to how many rows, and what was left out."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any


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
    """

    source: str
    rows_read: int = 0
    rules: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    totals: dict[str, int] = field(default_factory=dict)
    left_out: Counter[str] = field(default_factory=Counter)
    items: list[tuple[str, str]] = field(default_factory=list)
    num_between_groups: int = 0

    def leave_out(self, item: str, reason: str) -> None:
        """Counts a row that is left out, and remembers which."""
        self.left_out[reason] += 1
        self.items.append((item, reason))

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
        }

    def __str__(self) -> str:
        first = f"{self.source}: {self.rows_read} rows read, {self.rows_kept} kept"
        if self.num_between_groups:
            first += (
                f"; {self.num_between_groups} ages lie between two groups (--gaps "
                "mask keeps them without a group, nearest takes the nearer one, omit "
                "leaves them out; --age-groups decades has no gaps)"
            )
        lines = [first]
        rows = [
            (f"{field} {a!r} -> {b}", n)
            for (field, a, b), n in sorted(self.rules.items())
        ]
        rows += list(self.totals.items())
        rows += [(f"left out: {reason}", n) for reason, n in self.left_out.items()]
        width = max((len(text) for text, _ in rows), default=0)
        lines += [f"  {text:<{width}}  {count:>7}" for text, count in rows]
        return "\n".join(lines)
