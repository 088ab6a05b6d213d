"""Sources, and threads that work ahead."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from PIL import Image

from keras_agegender.serving.pipeline import find_sources, map_ahead, prefetch


@pytest.fixture
def folder(tmp_path):
    names = ("b.jpg", "a.PNG", "c.mp4", "notes.txt", ".hidden.jpg", "scan.tiff",
             "sub/d.jpeg", "sub/deep/e.webp", ".git/f.jpg", "[x].jpg")  # fmt: skip
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def names(found, folder):
    return [str(source.name).removeprefix(f"{folder}/") for source in found]


def test_a_folder_is_searched_in_order_of_names(folder):
    skipped = []
    found = list(find_sources(folder, skipped))
    assert names(found, folder) == [
        "[x].jpg", "a.PNG", "b.jpg", "c.mp4", "scan.tiff", "sub/d.jpeg",
        "sub/deep/e.webp",
    ]  # fmt: skip
    assert [source.is_video for source in found] == [0, 0, 0, 1, 0, 0, 0]
    assert skipped == [folder / "notes.txt"]


def test_globs(folder):
    assert names(find_sources(f"{folder}/*.jpg"), folder) == ["[x].jpg", "b.jpg"]
    found = names(find_sources(str(folder / "**" / "*.*e*g")), folder)
    assert found == ["sub/d.jpeg"]
    # A name that is there is no pattern, and a pattern without a match is a name.
    assert names(find_sources(folder / "[x].jpg"), folder) == ["[x].jpg"]
    assert names(find_sources(f"{folder}/*.bmp"), folder) == ["*.bmp"]


def test_all_else_is_one_photo_each(folder):
    pixels = np.zeros((5, 4, 3), "uint8")
    picture = Image.fromarray(pixels)
    mixed = [b"bytes", pixels, picture, [folder / "b.jpg", "missing.jpg"], 7]
    found = list(find_sources(mixed))
    assert [source.name for source in found] == [
        *["image"] * 3,
        str(folder / "b.jpg"),
        "missing.jpg",
        "image",
    ]
    assert found[1].content is pixels and found[2].content is picture
    assert len(list(find_sources(np.stack([pixels, pixels])))) == 2
    assert len(list(find_sources(pixels))) == 1


def test_sources_are_found_as_they_are_needed(folder):
    def endless():
        while True:
            yield folder / "b.jpg"

    assert next(find_sources(endless())).name == str(folder / "b.jpg")


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
