"""Groups as lines of text.

In: what `score_groups` found. Out: the tables that `agegender evaluate` prints.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from keras_agegender.evaluation.groups import QUESTIONS, few_further, group_title


def group_lines(groups: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
    """Returns what `score_groups` found as blocks of lines, one for each grouping."""
    return [_lines(name.split(","), found) for name, found in groups.items()]


def scored_questions(found: Mapping[str, Any]) -> list[str]:
    """Returns the questions of one grouping that any of its groups was scored on."""
    return [
        question
        for question in found.get("questions", QUESTIONS)  # older files name none
        if any(g.get(f"{question}_accuracy") is not None for g in found["groups"])
    ]


def _lines(columns: list[str], found: Mapping[str, Any]) -> list[str]:
    groups = found["groups"]
    questions = few_further(scored_questions(found))
    titles = [group_title(group, columns) for group in groups]
    heading = " × ".join(c.replace("_", " ") for c in columns)
    width = max(map(len, [heading, *titles])) + 2
    # Further questions are narrow: without their intervals.
    widths = {q: 21 if q in QUESTIONS else max(len(q), 5) for q in questions}
    line = f"{heading:<{width}}{'faces':>7}{'people':>8}"
    line += "".join(f"  {q.replace('_', ' '):<{n}}" for q, n in widths.items())
    lines = [line.rstrip()]
    for title, group in zip(titles, groups, strict=True):
        line = f"{title:<{width}}{group['num_faces']:>7}{group['num_subjects']:>8}"
        for question, size in widths.items():
            line += f"  {_figures(group, question):<{size}}"
        lines.append((line + (" few" if group["few"] else "")).rstrip())
    for question in questions:
        if question not in found["gaps"]:
            continue
        gap = found["gaps"][question]
        interval = gap["interval"]
        ends = f" [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else ""
        lines.append(
            f"{question.replace('_', ' ')}: {gap['worst']} is {gap['value']:.3f}{ends} "
            f"behind {gap['best']}"
        )
    lines.append(
        "worst first, 95 % intervals over people; few: under "
        f"{found['few_faces']} faces or {found['few_subjects']} people"
    )
    if found["num_unlabelled"]:
        lines.append(f"{found['num_unlabelled']} faces without these do not count")
    return lines


def _figures(group: Mapping[str, Any], question: str) -> str:
    value, interval = group[f"{question}_accuracy"], group[f"{question}_interval"]
    if value is None:
        return "-"
    if not interval or question not in QUESTIONS:
        return f"{value:.3f}"
    return f"{value:.3f} [{interval[0]:.3f}, {interval[1]:.3f}]"
