"""Commands that are killed at any moment: the same command again ends the same.

A moment is a time, or the n-th time that something changes on the disk; either is drawn
anew, with a seed, for every case.
"""

from __future__ import annotations

import random
from collections import Counter

import pytest
from fault_results import clear, content, differing, undisturbed

pytestmark = pytest.mark.slow
# Verb -> how many moments; the slow ones have fewer.
MOMENTS = {"prepare": 12, "train": 12, "export": 8, "predict": 10, "reproduce": 8}


@pytest.mark.parametrize("verb", MOMENTS)
def test_killed_at_any_moment(workshop, verb, capsys):
    whole, _ = undisturbed(workshop, verb)
    expected = content(verb, whole)
    draw, counts, wrong = random.Random(f"killed {verb}"), Counter(), []
    out = workshop.root / "disturbed"
    measured = workshop.run(*workshop.command(verb, out))
    assert differing(expected, content(verb, out)) == []
    for case in range(MOMENTS[verb]):
        clear(out)
        command = workshop.command(verb, out)
        stop = {"at_change": draw.randrange(measured.changes)}
        if case % 2:
            stop = {"after": measured.seconds * draw.uniform(0.02, 0.95)}
        first = workshop.run(*command, **stop)
        if first.code != -9:  # it was faster than before
            counts["ended before"] += first.code == 0
            wrong += [] if first.code == 0 else [(stop, first.text[-500:])]
            continue
        counts["killed"] += 1
        again = workshop.run(*command)
        if again.code == 0:
            names = differing(expected, content(verb, out))
            counts["goes on, equal" if not names else "different"] += 1
            wrong += [(stop, names)] if names else []
        elif again.code == 1 and again.calm:
            counts["one line says what to do"] += 1
            wrong.append((stop, again.text[-500:]))
        else:
            counts["fails"] += 1
            wrong.append((stop, again.code, again.text[-500:]))
    with capsys.disabled():
        print(f"\n{verb}: {dict(counts)}")
    assert not wrong
