"""An audit as text: tables, the first few examples of each finding, and a last line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pandas as pd

from keras_agegender.datasets.cleaning_report import cleaning_rows
from keras_agegender.datasets.known_cohorts import ALL
from keras_agegender.datasets.near_duplicates import EXACT, NEAR
from keras_agegender.evaluation.duplicates import MANY_YEARS
from keras_agegender.labels import GENDERS, MISSING

if TYPE_CHECKING:
    from keras_agegender.evaluation.audit import Audit

KIND_NAMES = {
    "manifest": "a manifest",
    "csv": "a CSV file",
    "adience": "Adience's label files",
    "prepared": "a prepared dataset",
}
NUM_EXAMPLES = 5
_INDENT = "  "


def audit_text(audit: Audit) -> str:
    """Returns an audit as lines to print."""
    found = audit
    parts = [
        [f"{found.data}: {KIND_NAMES[found.kind]}, {found.num_faces:,} faces"],
        found.counts.to_string().splitlines(),
        _cleaning(found),
        _status(found.status),
        _subjects(found),
        _pictures(found),
        _duplicates(found),
        _cohort(found),
        [
            f"LEAKAGE: in more than one split: {', '.join(found.leaks)}."
            if found.leaks
            else _no_leakage(found)
        ],
    ]
    return "\n\n".join("\n".join(lines) for lines in parts if lines)


def _no_leakage(found: Audit) -> str:
    names = [name for name in found.fingerprints if name != ALL]
    if not names:
        return "Nothing says which faces train and which test: nothing can leak yet."
    if found.exact is None:
        return "No leakage found, but no picture is there to be compared."
    return "No leakage found." + (
        "" if found.near else " Near duplicates were not searched."
    )


def _cleaning(found: Audit) -> list[str]:
    if found.cleaning is None:
        return ["Labels: what was corrected and left out before is not known."]
    cleaning = found.cleaning
    first = (
        f"Labels ({cleaning['source']}): {cleaning['rows_read']:,} rows read, "
        f"{cleaning['rows_kept']:,} kept"
    )
    return [first, *_table(cleaning_rows(cleaning))]


def _status(status: Mapping[str, Mapping[str, int]]) -> list[str]:
    if not status:
        return []
    table = pd.DataFrame(status).T.fillna(0).astype(int)
    return ["Faces found in pictures:", *table.to_string().splitlines()]


def _subjects(found: Audit) -> list[str]:
    if not found.num_subjects:
        return ["Subjects: nobody says who is on the pictures."]
    shared = found.shared_subjects
    lines = [f"Subjects: {found.num_subjects:,}, {len(shared)} in more than one split"]
    for subject, splits in [*shared.items()][:NUM_EXAMPLES]:
        lines.append(f"{_INDENT}{subject!r} in {', '.join(splits)}")
    return lines + _more(len(shared))


def _pictures(found: Audit) -> list[str]:
    counts = ", ".join(
        f"{n:,} {what}" for what, n in found.pictures.items() if n or what == "there"
    )
    lines = [f"Pictures: {counts}"]
    for key, reason in [*found.unreadable.items()][:NUM_EXAMPLES]:
        lines.append(f"{_INDENT}{key}: {reason}")
    return lines + _more(len(found.unreadable))


def _duplicates(found: Audit) -> list[str]:
    if found.exact is None:
        return []
    columns = {
        "pairs": "pairs",
        "num_within": "in one split",
        "num_across": "in two splits",
        "age_groups_differ": "age groups differ",
        "many_years_differ": f"years differ by > {MANY_YEARS}",
        "genders_differ": "genders differ",
    }
    if found.num_subjects:
        columns["subjects_differ"] = "subjects differ"
    kinds = {"same bytes": found.exact, "same look": found.near}
    table = pd.DataFrame(
        {
            name: {title: getattr(counts, key) for key, title in columns.items()}
            for name, counts in kinds.items()
            if counts is not None
        }
    ).T
    lines = ["Pairs of pictures that are one:", *table.to_string().splitlines()]
    listed = found.duplicates
    across = listed[listed["split_1"] != listed["split_2"]]
    for kind, name in ((EXACT, "same bytes"), (NEAR, "same look")):
        lines += _examples(
            across[across["kind"] == kind], f"In two splits, {name}:", found
        )
    # Copies of one file in one split are no news; what only looks the same may be.
    within = listed[(listed["split_1"] == listed["split_2"]) & (listed["kind"] == NEAR)]
    lines += _examples(within, "In one split, same look:", found)
    return lines + _examples(listed[_disagree(listed)], "Labels differ:", found)


def _disagree(pairs: pd.DataFrame) -> pd.Series:
    years = (pairs["age_years_1"] - pairs["age_years_2"]).abs() > MANY_YEARS
    known = (pairs["age_years_1"] != MISSING) & (pairs["age_years_2"] != MISSING)
    differ = years & known
    for column in ("age_group", "gender"):
        first, second = pairs[f"{column}_1"], pairs[f"{column}_2"]
        differ |= (first != second) & (first != MISSING) & (second != MISSING)
    return differ


def _examples(pairs: pd.DataFrame, title: str, found: Audit) -> list[str]:
    if pairs.empty:
        return []
    lines = [title]
    for pair in pairs.head(NUM_EXAMPLES).to_dict("records"):
        sides = [
            f"{pair[f'key_{k}']} ({pair[f'split_{k}']}, {_labels(pair, k, found)})"
            for k in (1, 2)
        ]
        lines.append(f"{_INDENT}{sides[0]} and {sides[1]}")
    return lines + _more(len(pairs))


def _labels(pair: Mapping[str, Any], side: int, found: Audit) -> str:
    years, group = pair[f"age_years_{side}"], pair[f"age_group_{side}"]
    age = f"{years:g} years"
    if years == MISSING:
        age = "age unknown" if group == MISSING else found.age_group_names[group]
    return f"{age}, {[*GENDERS, 'gender unknown'][pair[f'gender_{side}']]}"


def _more(count: int) -> list[str]:
    more = count - NUM_EXAMPLES
    return [f"{_INDENT}and {more:,} more (--json FILE lists all)"] if more > 0 else []


def _cohort(found: Audit) -> list[str]:
    lines = ["Fingerprints of keys and labels:"]
    width = max(len(name) for name in found.fingerprints)
    for name, value in found.fingerprints.items():
        known = f"  {found.cohorts[name]}" if name in found.cohorts else ""
        lines.append(f"{_INDENT}{name:<{width}}  {value}{known}")
    for name, differences in found.nearest.items():
        more = ", ".join(f"{k} {n:+,}" for k, n in differences.items() if n)
        lines.append(
            f"{_INDENT}No known cohort of Adience; the nearest in numbers: {name} "
            f"(more than there: {more or 'none, but other faces or labels'})"
        )
    return lines


def _table(rows: list[tuple[str, int]]) -> list[str]:
    width = max((len(text) for text, _ in rows), default=0)
    return [f"{_INDENT}{text:<{width}}  {count:>7,}" for text, count in rows]
