"""Annotated photos: where labels lie, and that they say what is printed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import ImageColor, ImageFont

from keras_agegender.serving import annotate as annotation
from keras_agegender.serving.annotate import (
    annotate_photo,
    extent,
    overlap,
    place_labels,
    place_numbers,
    wrap,
)
from keras_agegender.serving.predictions import FacePrediction, PhotoPrediction

FACE = FacePrediction(
    box=(0.0, 0.0, 1.0, 1.0),
    crop_box=(0.0, 0.0, 1.0, 1.0),
    score=0.9,
    age_group="25-32",
    age_probabilities={"25-32": 0.6, "38-43": 0.4},
    age_years=30.0,
    gender="male",
    male_probability=0.8,
    heads_agree=True,
    heads={},
    extra={"glasses": 0.54, "race": "Asian", "kilos": 71.0},
    age_set=("25-32", "38-43"),
    gender_set=("female", "male"),
    binary={"glasses": "yes"},
)
FONT = ImageFont.load_default(11)
BLACK = np.zeros((300, 400, 3), "uint8")


def answered(boxes, size=(300, 400), status="ok"):
    faces = tuple(replace(FACE, box=tuple(map(float, box))) for box in boxes)
    return PhotoPrediction("x.jpg", status, faces, size)


@pytest.fixture
def drawn(monkeypatch):
    """What is written into pictures: labels, and lines of the strip."""
    found = {"labels": [], "lines": []}
    draw_label, draw_lines = annotation._draw_label, annotation._draw_lines

    def label(draw, label, font, *, filled):
        found["labels"].append(label)
        draw_label(draw, label, font, filled=filled)

    def lines(draw, start, lines, font):
        found["lines"].append((start, lines, font))
        draw_lines(draw, start, lines, font)

    monkeypatch.setattr(annotation, "_draw_label", label)
    monkeypatch.setattr(annotation, "_draw_lines", lines)
    return found


def check_free(labels, boxes, size):
    """Labels are in the picture and touch no face and no other label."""
    for place, label in enumerate(labels):
        assert 0 <= label.left < label.right <= size[0]
        assert 0 <= label.top < label.bottom <= size[1]
        assert not any(overlap(label, box) for box in boxes)
        assert not any(overlap(label, other) for other in labels[:place])


def test_overlap():
    assert overlap((0, 0, 4, 4), (2, 3, 9, 9)) == 2
    assert overlap((0, 0, 4, 4), (4, 0, 9, 9)) == 0


@pytest.mark.parametrize("seed", range(20))
def test_labels_cover_no_face(seed):
    draw = np.random.default_rng(seed)
    size, boxes = (900, 700), []
    while len(boxes) < 6:
        left, top = draw.uniform(0, 800), draw.uniform(0, 600)
        side = draw.uniform(40, 100)
        box = (left, top, left + side, top + side)
        if not any(overlap(box, other) for other in boxes):
            boxes.append(box)
    labels = place_labels(size, boxes, [FACE.words] * 6, FONT)
    if labels is not None:
        assert [label.face for label in labels] == list(range(6))
        check_free(labels, boxes, size)
        for label, box in zip(labels, boxes, strict=True):
            wider = (box[0] - 4, box[1] - 4, box[2] + 4, box[3] + 4)
            near = overlap(label, wider) > 0
            at_edge = label.left == 0 or label.right == size[0]
            assert near or at_edge or label.top == 0 or label.bottom == size[1]
            assert " ".join(label.lines).replace(" · ", " ") == " ".join(FACE.words)
    markers = place_numbers(size, boxes, FONT)
    assert [marker.lines for marker in markers] == [(f"{k}",) for k in range(1, 7)]
    check_free(markers, boxes, size)


def test_there_is_mostly_room():
    boxes = [(100 + 250 * k, 300, 180 + 250 * k, 400) for k in range(3)]
    assert place_labels((900, 700), boxes, [FACE.words] * 3, FONT) is not None


@pytest.mark.parametrize("corner", [(0, 0), (320, 0), (0, 220), (320, 220)])
def test_a_label_of_a_face_in_a_corner(corner):
    box = (*corner, corner[0] + 80, corner[1] + 80)
    (label,) = place_labels((400, 300), [box], [FACE.words], FONT)
    check_free([label], [box], (400, 300))


def test_faces_that_fill_the_picture_leave_no_room():
    boxes = [(0, 0, 200, 300), (200, 0, 400, 300)]
    assert place_labels((400, 300), boxes, [FACE.words] * 2, FONT) is None
    one, two = place_numbers((400, 300), boxes, FONT)
    # Within their own faces then, not on the other.
    assert overlap(one, boxes[1]) == overlap(two, boxes[0]) == 0
    assert overlap(one, (0, 0, 400, 300)) == pytest.approx(
        np.prod(extent(("1",), FONT))
    )


def test_lines_break_between_parts_then_at_spaces_then_in_words():
    length = FONT.getlength
    assert wrap(("aa", "bb"), length("aa · bb"), FONT) == ("aa · bb",)
    assert wrap(("aa", "bb"), length("aa · b"), FONT) == ("aa", "bb")
    assert wrap(("aa bb cc",), length("aa bb"), FONT) == ("aa bb", "cc")
    assert wrap(("aaaaa",), length("aa"), FONT) == ("aa", "aa", "a")
    assert wrap(("b aaa",), length("aa"), FONT) == ("b", "aa", "a")


def test_labels_say_what_is_printed(drawn):
    prediction = answered([(150, 100, 250, 200)])
    picture = annotate_photo(BLACK, prediction)
    (label,) = drawn["labels"]
    said = " ".join(label.lines).replace(" · ", " ")
    assert said == (
        "25-32 or 38-43 (25-32: 60%) female or male (male: 80%) glasses yes (54%) "
        "race Asian kilos 71"
    )
    assert " ".join(prediction.faces[0].words) == said
    check_free([label], [prediction.faces[0].box], (400, 300))
    assert picture.shape == BLACK.shape
    assert not picture[110:190, 160:240].any()  # the face is as it was


def test_without_room_faces_have_numbers_and_the_answers_are_below(drawn):
    boxes = [(0, 0, 200, 300), (200, 0, 400, 300)]
    picture = annotate_photo(BLACK, answered(boxes))
    assert picture.shape[0] > 300 and picture.shape[1] == 400
    numbers = [label.lines for label in drawn["labels"]]
    assert numbers == [("1",), ("2",)] * 2  # at the faces, in the strip
    assert all(label.top >= 300 for label in drawn["labels"][2:])
    for start, lines, font in drawn["lines"]:
        assert start[1] >= 300 and font.size >= 11
        assert start[0] + max(map(font.getlength, lines)) <= 400
        assert " ".join(lines).replace(" · ", " ") == " ".join(FACE.words)


@pytest.mark.parametrize("count", [1, 7, 60])
@pytest.mark.parametrize("size", [(40, 60), (300, 400), (1500, 2000)])
def test_everything_is_said_in_any_picture(drawn, size, count):
    """60 faces, or a picture of 40 pixels: all is inside, in 11 pixels at least."""
    columns = int(np.ceil(np.sqrt(count)))
    step = np.array([size[1], size[0]]) / columns
    cells = [np.array([k % columns, k // columns]) * step for k in range(count)]
    boxes = [(*(cell + 0.2 * step), *(cell + 0.8 * step)) for cell in cells]
    picture = annotate_photo(np.zeros((*size, 3), "uint8"), answered(boxes, size))
    height, width = picture.shape[:2]
    assert len(drawn["lines"]) == count
    for start, lines, font in drawn["lines"]:
        assert font.size >= 11
        assert 0 <= start[0] and start[0] + max(map(font.getlength, lines)) <= width
        assert start[1] + 1.2 * font.size * len(lines) <= height
        assert " ".join(lines).replace(" · ", " ") == " ".join(FACE.words)


def test_text_grows_with_the_picture(drawn):
    for factor in (1, 4):
        boxes = [np.array([150, 100, 250, 200]) * factor]
        size = (300 * factor, 400 * factor)
        annotate_photo(np.zeros((*size, 3), "uint8"), answered(boxes, size))
    small, large = (font.size for _, _, font in drawn["lines"])
    assert large > 2.5 * small


@pytest.mark.parametrize("status", ["whole_image", "not_cropped"])
def test_whole_pictures_stay_free(drawn, status):
    picture = annotate_photo(BLACK, answered([(0, 0, 400, 300)], status=status))
    assert not picture[:300].any() and picture[300:].any()
    ((_, lines, _),) = drawn["lines"]
    said = " ".join(lines).replace(" · ", " ")
    assert said.startswith(("no face found; the whole", "the whole image, as"))
    assert said.endswith(" ".join(FACE.words))


def test_no_face(drawn):
    picture = annotate_photo(BLACK, answered([], status="no_face"))
    assert not picture[:300].any() and picture[300:].any()
    assert drawn["lines"][0][1] == ("no face found",)


def test_boxes_beyond_the_picture(drawn):
    picture = annotate_photo(BLACK, answered([(-40, -30, 60, 70)]))
    assert picture.shape == BLACK.shape
    check_free(drawn["labels"], [(0, 0, 60, 70)], (400, 300))


def test_another_picture_is_an_error():
    with pytest.raises(ValueError, match=r"\(300, 400\). Received: \(5, 5\)"):
        annotate_photo(BLACK, answered([], size=(5, 5)))


@pytest.mark.parametrize(("size", "factor"), [((300, 400), 1), ((80, 100), 3)])
def test_boxes_are_drawn_around_the_faces(size, factor):
    """A photo whose shorter side is below 240 pixels is enlarged by an integer."""
    box = (20, 30, 60, 70)
    image = np.zeros((*size, 3), "uint8")
    drawn = annotate_photo(image, answered([box], size)).astype(int)
    assert drawn.shape[1] == factor * size[1]
    color = np.array(ImageColor.getrgb(annotation.COLORS[0]))
    edge = np.abs(drawn - color).sum(axis=2) < 30
    for side, place in (("column", box[0]), ("column", box[2])):
        line = edge[factor * 40 : factor * 60, factor * place - 3 : factor * place + 4]
        assert line.any(axis=1).all(), side
    for place in (box[1], box[3]):
        line = edge[factor * place - 3 : factor * place + 4, factor * 25 : factor * 55]
        assert line.any(axis=0).all()
