"""Scores of groups of people, and the gap between the best and worst group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from keras_agegender.errors import counted, did_you_mean
from keras_agegender.metrics import intervals
from keras_agegender.metrics.table import format_value

if TYPE_CHECKING:
    from keras_agegender.encodings.encoding import Encoding

MAX_GROUPS = 100
# With 30 faces the interval of an accuracy of 0.5 is ±0.18; with fewer than 10 people
# single people determine it.
FEW_FACES = 30
FEW_SUBJECTS = 10
TASKS = ("gender", "age_group")
# More do not fit in a printed table, and gaps of forty attributes take two minutes.
MAX_EXTRA_TASKS = 2
CELLS = "age_group,gender"


def as_groupings(by: str | Sequence[str]) -> list[str]:
    """Returns groupings as a list; a single name may be a string."""
    return [by] if isinstance(by, str) else list(by)


def group_columns(by: str | Sequence[str]) -> list[str]:
    """Returns the columns of all groupings, each once."""
    return list(dict.fromkeys(",".join(as_groupings(by)).split(","))) if by else []


def check_columns(by: str | Sequence[str], available: Sequence[str]) -> None:
    """Checks that every column of the groupings is available."""
    others = ("output_", "predicted_", "key")
    suggested = [name for name in available if not name.startswith(others)]
    for name in as_groupings(by):
        for column in name.split(","):
            if column not in available:
                within = "" if column == name else f" in {name!r}"
                raise ValueError(
                    f"Invalid `by`. Expected columns of {suggested}. Received: "
                    f"{column!r}{within}.{did_you_mean(column, suggested)}"
                )


def find_groups(table: pd.DataFrame, columns: list[str]) -> dict[tuple, np.ndarray]:
    """Returns the rows of each combination of values of some columns."""
    members = table.groupby(columns, sort=True, observed=True).indices
    if len(members) > MAX_GROUPS:
        raise ValueError(
            f"Invalid `by`. Expected at most {MAX_GROUPS} groups. Received: "
            f"{len(members)} different values of {','.join(columns)!r}."
        )
    return {v if isinstance(v, tuple) else (v,): rows for v, rows in members.items()}


def score_groups(
    table: pd.DataFrame,
    by: str | Sequence[str] = (),
    extra: Mapping[str, tuple[str, str]] | None = None,
) -> dict[str, dict[str, Any]]:
    """Returns the accuracies of groups of faces, and the gaps between them.

    A group with fewer than 30 faces or 10 subjects is marked `few`: it is listed last
    and ignored by the gap. Since the best and worst group are selected after the fact,
    a part of the gap is due to chance: compare its interval with 0.

    Args:
        table: A row per face, as in predictions.csv: `subject`, the columns to group
            by, `gender`, `age_group` and the predictions `predicted_…`, by name.
        by: Additional columns to group by, such as `"race"`; combine columns with a
            comma: `"race,gender"`. Defaults to none.
        extra: Extra task -> its columns of true and predicted classes. They do not
            change the order of groups if gender or age group is predicted. Gaps are
            computed for at most two. Defaults to none.

    Returns:
        For `"age_group,gender"` (if faces have both) and each of `by`: `num_faces`,
        `num_unlabelled`, `few_faces` and `few_subjects` (the minimum counts),
        `questions` (the tasks), `gaps` (task -> `best`, `worst`, `value`, `interval`)
        and `groups`, the worst first: the values of its columns, `num_faces`,
        `num_subjects`, `largest_share` (of the subject with most faces), `few`, and for
        each task `<task>_accuracy` and `<task>_interval`.

    Raises:
        ValueError: If the table has no such column, or more than 100 groups.

    Example:
    >>> table = pd.DataFrame({"gender": ["male", "female"], "race": ["a", "b"],
    ...                       "predicted_gender": ["male", "male"]})
    >>> [g["gender_accuracy"] for g in score_groups(table, "race")["race"]["groups"]]
    [0.0, 1.0]
    """
    groupings = as_groupings(by)
    check_columns(groupings, list(table))
    tasks = {t: (t, f"predicted_{t}") for t in TASKS if f"predicted_{t}" in table}
    tasks |= extra or {}
    found = {}
    for name in (CELLS, *groupings):
        columns = name.split(",")
        if not set(columns) <= set(table):  # only `CELLS` can be missing by now
            continue
        known = np.all([known_values(table[c]) for c in columns], axis=0)
        if name != CELLS or known.any():
            found[name] = _score(table[known], columns, tasks, int((~known).sum()))
    return found


def extra_tasks(table: pd.DataFrame, encoding: Encoding) -> dict[str, tuple[str, str]]:
    """Returns the extra heads with classes, and their columns of ids in a table."""
    found = {}
    for head in encoding.extra_heads:
        if head.spec.is_number or len(head.columns) > 1:
            continue
        pair = tuple(
            f"{name}_id" if f"{name}_id" in table else name
            for name in (head.columns[0], f"predicted_{head.name}")
        )
        if set(pair) <= set(table):
            found[head.name] = (pair[0], pair[1])
    return found


def shown_tasks(tasks: Sequence[str]) -> list[str]:
    """Returns gender, age group and, if there are at most two, the extra tasks."""
    extra = [task for task in tasks if task not in TASKS]
    return [t for t in tasks if t in TASKS or len(extra) <= MAX_EXTRA_TASKS]


def scored_tasks(found: Mapping[str, Any]) -> list[str]:
    """Returns the tasks for which at least one group has an accuracy."""
    return [
        task
        for task in found.get("questions", TASKS)  # older files have none
        if any(g.get(f"{task}_accuracy") is not None for g in found["groups"])
    ]


def known_values(column: pd.Series) -> np.ndarray:
    """Returns which rows of a column have a value: not `""`, -1 or NaN."""
    known = column.notna()
    if pd.api.types.is_numeric_dtype(column):
        return (known & (column != -1)).to_numpy()
    return (known & (column.astype(str) != "")).to_numpy()


def subjects_of(table: pd.DataFrame) -> intervals.Clusters:
    """Returns the subjects as clusters; faces without a subject ID are one each."""
    subjects = table["subject"] if "subject" in table else np.full(len(table), "")
    return intervals.Clusters.of(subjects)


def is_few(clusters: intervals.Clusters) -> bool:
    """Whether a group has too few faces or people for a reliable accuracy."""
    return len(clusters.ids) < FEW_FACES or clusters.num_clusters < FEW_SUBJECTS


def group_title(group: Mapping[str, Any], columns: Sequence[str]) -> str:
    """Returns the title of a group: the values of its columns."""
    return " ".join(str(group[c]) for c in columns)


def _score(
    table: pd.DataFrame,
    columns: list[str],
    tasks: Mapping[str, tuple[str, str]],
    num_unlabelled: int,
) -> dict[str, Any]:
    groups = []
    for values, rows in find_groups(table, columns).items():
        plain = (v.item() if isinstance(v, np.generic) else v for v in values)
        named = dict(zip(columns, plain, strict=True))
        groups.append(named | _score_group(table.iloc[rows], tasks))
    ranking = [task for task in tasks if task in TASKS] or list(tasks)

    def mean_accuracy(group: Mapping[str, Any]) -> float:
        known = [a for t in ranking if (a := group[f"{t}_accuracy"]) is not None]
        return float(np.mean(known)) if known else 2.0  # after all with a score

    groups.sort(key=lambda g: (g["few"], mean_accuracy(g)))
    return {
        "num_faces": len(table),
        "num_unlabelled": num_unlabelled,
        "few_faces": FEW_FACES,
        "few_subjects": FEW_SUBJECTS,
        "questions": list(tasks),
        "gaps": {
            task: gap
            for task in shown_tasks([*tasks])
            if (gap := _gap(table, columns, groups, task, tasks[task])) is not None
        },
        "groups": groups,
    }


def _known_and_correct(
    table: pd.DataFrame, pair: tuple[str, str]
) -> tuple[np.ndarray, np.ndarray]:
    """Returns which faces have a label, and which are predicted correctly."""
    truth, predicted = pair
    return known_values(table[truth]), (table[predicted] == table[truth]).to_numpy()


def _score_group(
    table: pd.DataFrame, tasks: Mapping[str, tuple[str, str]]
) -> dict[str, Any]:
    clusters = subjects_of(table)
    scores: dict[str, Any] = {
        "num_faces": len(table),
        "num_subjects": clusters.num_clusters,
        "largest_share": clusters.largest_share,
        "few": is_few(clusters),
    }
    for task, pair in tasks.items():
        known, correct = _known_and_correct(table, pair)
        found = intervals.proportion_interval(correct[known], clusters.select(known))
        scores[f"{task}_accuracy"] = found.value
        scores[f"{task}_interval"] = found.interval
    return scores


def _gap(
    table: pd.DataFrame,
    columns: list[str],
    groups: list[dict],
    task: str,
    pair: tuple[str, str],
) -> dict[str, Any] | None:
    """Returns the gap of the worst group to the best; `None` for fewer than two."""
    name = f"{task}_accuracy"
    scored = [g for g in groups if not g["few"] and g[name] is not None]
    if len(scored) < 2:
        return None
    best, worst = (pick(scored, key=lambda g: g[name]) for pick in (max, min))
    known, correct = _known_and_correct(table, pair)
    values = []
    for group in (best, worst):
        faces = known & np.all([table[c] == group[c] for c in columns], axis=0)
        values += [faces & correct, faces]
    either = values[1] | values[3]
    clusters = subjects_of(table).select(either)

    def difference(s: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore"):  # a sample may not contain a group
            return s[:, 0] / s[:, 1] - s[:, 2] / s[:, 3]

    found = intervals.bootstrap_interval(
        np.stack(values, axis=1)[either], difference, clusters, limits=(-1, 1)
    )
    interval = found.interval
    high, low = best[f"{task}_interval"], worst[f"{task}_interval"]
    if interval is None and clusters.num_clusters > 1 and high and low:
        # If a group is all correct or all wrong, all samples may be equal: use the gaps
        # between opposite ends of both intervals.
        interval = high[0] - low[1], high[1] - low[0]
    return {
        "best": group_title(best, columns),
        "worst": group_title(worst, columns),
        "value": found.value,
        "interval": interval,
    }


def group_lines(groups: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
    """Formats the result of `score_groups` as blocks of lines, one per grouping."""
    return [_lines(name.split(","), found) for name, found in groups.items()]


def _ends(interval: Sequence[float] | None) -> str:
    return f" [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else ""


def _lines(columns: list[str], found: Mapping[str, Any]) -> list[str]:
    groups = found["groups"]
    tasks = shown_tasks(scored_tasks(found))
    titles = [group_title(group, columns) for group in groups]
    heading = " × ".join(c.replace("_", " ") for c in columns)
    width = max(map(len, [heading, *titles])) + 2
    # Extra tasks are printed without their intervals.
    widths = {t: 21 if t in TASKS else max(len(t), 5) for t in tasks}
    columns_of_tasks = "".join(
        f"  {t.replace('_', ' '):<{n}}" for t, n in widths.items()
    )
    lines = [f"{heading:<{width}}{'faces':>7}{'people':>8}{columns_of_tasks}".rstrip()]
    for title, group in zip(titles, groups, strict=True):
        line = f"{title:<{width}}{group['num_faces']:>7}{group['num_subjects']:>8}"
        for task, size in widths.items():
            shown = format_value(group[f"{task}_accuracy"])
            if task in TASKS:
                shown += _ends(group[f"{task}_interval"])
            line += f"  {shown:<{size}}"
        lines.append((line + (" few" if group["few"] else "")).rstrip())
    for task in tasks:
        if task in found["gaps"]:
            gap = found["gaps"][task]
            lines.append(
                f"{task.replace('_', ' ')}: {gap['worst']} is {gap['value']:.3f}"
                f"{_ends(gap['interval'])} behind {gap['best']}"
            )
    lines.append(
        "worst first, 95 % intervals over people; few: under "
        f"{found['few_faces']} faces or {found['few_subjects']} people"
    )
    if found["num_unlabelled"]:
        faces = counted(found["num_unlabelled"], "face")
        lines.append(f"ignored: {faces} without these labels")
    return lines
