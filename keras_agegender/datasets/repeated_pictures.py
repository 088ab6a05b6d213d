"""Pictures that several rows have, and whether those rows agree on their labels."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from keras_agegender.datasets.cleaning_report import CleaningReport
from keras_agegender.files import file_hash
from keras_agegender.labels import MISSING

REPEATED = "repeated pictures, kept"
CONTRADICTED = "repeated pictures with other labels, kept"
_LABELS = {"age_group": "categorical", "age_years": "years", "gender": "binary"}


def report_repeated_pictures(
    rows: Sequence[Mapping[str, Any]],
    heads: Mapping[str, Mapping[str, Any]],
    report: CleaningReport,
) -> None:
    """Counts rows that repeat a picture, and names pictures whose labels contradict.

    Args:
        rows: What a manifest is made of, `key` and `path` at least.
        heads: Further column -> `{"kind": …}`; these are compared too.
        report: Where it is counted. Nothing is added where no picture is repeated.
    """
    kinds = _LABELS | {name: head["kind"] for name, head in heads.items()}
    repeated = repeated_pictures([row["path"] for row in rows])
    contradicted = 0
    for numbers in repeated:
        same = [rows[number] for number in numbers]
        columns = [
            name
            for name, kind in kinds.items()
            if len({row[name] for row in same if _is_known(row.get(name), kind)}) > 1
        ]
        if columns:
            contradicted += 1
            keys = ", ".join(row["key"] for row in same)
            report.items.append((f"{keys} ({', '.join(columns)})", CONTRADICTED))
    if repeated:
        report.totals[REPEATED] = sum(len(numbers) - 1 for numbers in repeated)
    if contradicted:
        report.totals[CONTRADICTED] = contradicted


def repeated_pictures(paths: Sequence[str]) -> list[list[int]]:
    """Returns the positions of files that are one picture, two or more in each list.

    Files are one if their bytes are; only files of one size are read.

    Args:
        paths: The files, which are there. Shape (num_rows,).
    """
    by_size = defaultdict(list)
    for number, path in enumerate(paths):
        by_size[Path(path).stat().st_size].append(number)
    found = []
    for numbers in by_size.values():
        if len(numbers) < 2:
            continue
        files = {paths[number] for number in numbers}
        contents = {file: _content(file) if len(files) > 1 else "" for file in files}
        by_content = defaultdict(list)
        for number in numbers:
            by_content[contents[paths[number]]].append(number)
        found += [same for same in by_content.values() if len(same) > 1]
    return sorted(found)


def _content(file: str) -> str:
    try:
        return file_hash(Path(file))
    except OSError:
        return file  # `prepare` counts it as unreadable


def _is_known(value: float | None, kind: str) -> bool:
    if value is None or math.isnan(value):
        return False
    return kind == "regression" or value != MISSING
