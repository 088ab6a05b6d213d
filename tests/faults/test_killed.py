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
# Verb -> how many kills.
MOMENTS = {"prepare": 12, "train": 12, "export": 8, "predict": 10, "reproduce": 8}

# What the same command says of what is whole, instead of replacing it.
MADE = ("is finished", "already exists")


@pytest.mark.parametrize("verb", MOMENTS)
def test_killed_at_any_moment(workshop, verb, capsys):
    whole, _ = undisturbed(workshop, verb)
    expected = content(verb, whole)
    draw, counts, wrong = random.Random(f"killed {verb}"), Counter(), []
    out = workshop.root / "disturbed"
    clear(out)
    measured = workshop.run(*workshop.command(verb, out))
    assert differing(expected, content(verb, out)) == []
    while counts["killed"] < MOMENTS[verb] and counts["ended before"] < MOMENTS[verb]:
        clear(out)
        command = workshop.command(verb, out)
        stop = {"at_change": draw.randrange(measured.changes)}
        if counts.total() % 2:
            stop = {"after": measured.seconds * draw.uniform(0.02, 0.95)}
        first = workshop.run(*command, **stop)
        if first.code != -9:  # it was faster than before
            counts["ended before"] += 1
            wrong += [] if first.code == 0 else [(stop, first.text[-500:])]
            continue
        counts["killed"] += 1
        again = workshop.run(*command)
        # All was made when it was killed, but for what it would have said.
        made = again.code == 1 and any(words in again.text for words in MADE)
        if again.code and not made:
            counts["fails"] += 1
            wrong.append((stop, again.code, again.text[-500:]))
            continue
        names = differing(expected, content(verb, out))
        names += [] if made else [str(path) for path in out.rglob("backup")]
        counts["different" if names else "made before" if made else "goes on"] += 1
        wrong += [(stop, names)] if names else []
    with capsys.disabled():
        print(f"\n{verb}: {dict(counts)}")
    assert not wrong
    assert counts["killed"] == MOMENTS[verb]
