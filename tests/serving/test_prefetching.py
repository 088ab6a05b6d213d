"""Threads that work ahead: order, bounds, errors, and an end when nobody wants more."""

from __future__ import annotations

import threading
import time

import pytest

from keras_agegender.serving.pipeline import map_ahead, prefetch


def count(stop, made=None, closed=None):
    try:
        for number in range(stop):
            if made is not None:
                made.append(number)
            yield number
    finally:
        if closed is not None:
            closed.set()


def test_all_results_in_order():
    assert list(prefetch(count(100), 3)) == list(range(100))
    assert list(prefetch(count(0), 1)) == []


def test_another_thread_makes_them():
    def names():
        yield threading.current_thread().name

    assert list(prefetch(names(), 1)) != [threading.current_thread().name]


def test_no_more_than_allowed_wait():
    made = []
    results = prefetch(count(100, made), 2)
    assert next(results) == 0
    deadline = time.monotonic() + 5
    while len(made) < 4 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.1)  # what could be made by now is made
    # One was taken, two wait, one is in the thread's hands.
    assert made == [0, 1, 2, 3]
    results.close()


def test_errors_arrive_behind_the_results_before_them():
    def fail():
        yield 1
        raise ValueError("damaged")

    results = prefetch(prefetch(fail(), 1), 1)  # through two threads
    assert next(results) == 1
    with pytest.raises(ValueError, match="damaged"):
        next(results)


def test_who_stops_early_stops_the_threads():
    closed, before = threading.Event(), threading.active_count()
    results = prefetch(prefetch(count(10**9, closed=closed), 1), 1)
    assert next(results) == 0
    results.close()
    assert closed.is_set() and threading.active_count() == before


def test_mapping_keeps_the_order_and_looks_a_little_ahead():
    made = []
    second_is_done = threading.Event()

    def double(number):
        if number == 0:
            assert second_is_done.wait(5)  # the first is the last to be done
        if number == 1:
            second_is_done.set()
        return 2 * number

    results = map_ahead(double, count(50, made), workers=2, ahead=3)
    assert next(results) == 0 and made == [0, 1, 2]
    assert list(results) == [2 * number for number in range(1, 50)]


def test_a_mapped_error_is_raised_in_its_turn():
    def invert(number):
        return 1 / (number - 1)

    results = map_ahead(invert, count(9), workers=2, ahead=4)
    assert next(results) == -1
    with pytest.raises(ZeroDivisionError):
        next(results)
