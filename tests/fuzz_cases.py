"""Cases of the fuzz tests: how many, and what each of them must keep to.

`AGEGENDER_FUZZ=3000 pytest tests/fuzz -s` runs 3,000 of every kind, drawn anew each
time, and prints what became of them; by default there are a few, always the same.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import resource
import signal
from collections import Counter

from hypothesis import HealthCheck, settings

LIMIT = 20  # seconds of a case
MEMORY = 1500  # MB that a kind may need beside what the process had
LONGEST = 2000  # letters of an error: it does not repeat what it was given
FEW = 25
CASES = int(os.environ.get("AGEGENDER_FUZZ", "0"))
OUTCOMES: dict[str, Counter] = {}


def cases(share=1.0):
    """Settings of a test; some kinds are slow and take a share of the cases."""
    return settings(
        max_examples=max(1, int(share * (CASES or FEW))),
        derandomize=not CASES,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


def peak():
    """Returns the most memory that this process has had, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


@contextlib.contextmanager
def declared(kind, *errors):
    """Work that does it, or raises one of these errors with a message, in time.

    Errors that only derive from a declared one, such as of codecs, are not declared.
    """
    outcomes, before = OUTCOMES.setdefault(kind, Counter()), peak()
    outcomes["cases"] += 1
    signal.signal(signal.SIGALRM, _too_slow)
    signal.setitimer(signal.ITIMER_REAL, LIMIT)
    try:
        yield
        outcomes["done"] += 1
    except errors as error:
        assert str(error).strip(), f"{type(error).__name__} says nothing"
        assert not isinstance(error, UnicodeError), repr(error)
        assert len(str(error)) < LONGEST, repr(error)
        outcomes[type(error).__name__] += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    outcomes["MB"] += peak() - before
    assert outcomes["MB"] < MEMORY


def _too_slow(number, frame):
    raise TimeoutError(f"a case took more than {LIMIT} s")


def _show():
    for kind, outcomes in OUTCOMES.items():
        print(f"{kind}: {dict(outcomes)}")


if CASES:
    atexit.register(_show)
