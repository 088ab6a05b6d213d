"""Annotation: a photo and the answers about it become one picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from keras_agegender.serving.answers import PhotoPrediction
from keras_agegender.serving.label_layout import (
    BETWEEN,
    Label,
    extent,
    line_height,
    padding,
    place_labels,
    place_markers,
    stripe,
    wrap,
)

COLORS = ("#ffb000", "#4fc3f7", "#7ddf64", "#ff8a80", "#ce93d8", "#fff176")
CARD, TEXT, NUMBER = (18, 20, 26, 232), (255, 255, 255), (18, 20, 26)
SMALLEST_FONT, SMALLEST_STRIP_FONT = 11, 13
SMALLEST_SIDE, LONGEST_ENLARGED = 240, 2000


def annotate_photo(image: np.ndarray, prediction: PhotoPrediction) -> np.ndarray:
    """Draws every face's box and a label with its answers, in the words of `predict`.

    Labels lie beside the faces and cover none. Where there is no room for that, faces
    have numbers, as in the printed answers, and the answers are in a strip below the
    photo; so they are where no face was found or looked for.

    Args:
        image: The upright photo, as `read_image` gives it. Shape (height, width, 3),
            uint8.
        prediction: What `Predictor` answered about it.

    Returns:
        An annotated copy, of the same size, or higher by the strip. A picture whose
        shorter side is below 240 pixels is enlarged by a whole factor, so that text
        can be read; a strip is at least 240 pixels wide.

    Raises:
        ValueError: If the prediction is of a picture of another size.

    Example:
    >>> annotate_photo(read_image("photo.jpg"), prediction)  # doctest: +SKIP
    """
    size = image.shape[:2]
    if prediction.image_size is not None and tuple(prediction.image_size) != size:
        raise ValueError(
            "Invalid `prediction`. Expected one of a picture of (height, width) "
            f"{size}. Received: {tuple(prediction.image_size)}."
        )
    factor = _enlargement(size)
    picture = Image.fromarray(image).convert("RGB")
    if factor > 1:
        picture = picture.resize(
            (picture.width * factor, picture.height * factor), Image.Resampling.BICUBIC
        )
    texts = [face.words or ("face",) for face in prediction.faces]
    if prediction.status != "ok":
        lines = [prediction.found, *(part for text in texts for part in text)]
        return np.array(_with_strip(picture, [lines], numbered=False))
    boxes = [_inside(face.box, factor, picture.size) for face in prediction.faces]
    font, labels = _labels(picture.size, boxes, texts)
    if labels is None:
        font = _font(picture.size)
        labels = place_markers(picture.size, boxes, font) if len(boxes) > 1 else []
        _draw_faces(picture, boxes, labels, font, numbers=True)
        return np.array(_with_strip(picture, texts, numbered=len(boxes) > 1))
    _draw_faces(picture, boxes, labels, font, numbers=False)
    return np.array(picture)


def _labels(
    size: tuple[int, int], boxes: Sequence[Any], texts: Sequence[Sequence[str]]
) -> tuple[Any, list[Label] | None]:
    """Returns the largest font whose labels have room, and the labels."""
    largest = 1.3 * _font(size).size
    width = float(np.median([box[2] - box[0] for box in boxes]))
    wanted = min(largest, max(0.14 * width, 0.6 * largest))
    # Smaller than that it could not be read when the whole picture is looked at.
    smallest = max(SMALLEST_FONT, round(0.5 * largest))
    for points in range(max(smallest, round(wanted)), smallest - 1, -1):
        font = ImageFont.load_default(points)
        labels = place_labels(size, boxes, texts, font)
        if labels is not None:
            return font, labels
    return font, None


def _enlargement(size: tuple[int, int]) -> int:
    wanted = math.ceil(SMALLEST_SIDE / min(size))
    return max(1, min(wanted, LONGEST_ENLARGED // max(size)))


def _font(size: tuple[int, int]) -> Any:
    """Returns a font that suits the picture."""
    points = round(0.021 * math.sqrt(size[0] * size[1]))
    return ImageFont.load_default(max(SMALLEST_FONT, points))


def _inside(
    box: Sequence[float], factor: int, size: tuple[int, int]
) -> tuple[float, float, float, float]:
    """Returns a face's box in the enlarged picture; detectors go beyond its edges."""
    limits = np.array([*size, *size]) - 1
    left, top, right, bottom = np.clip(np.array(box) * factor, 0, limits).tolist()
    return left, top, right, bottom


# -- drawing ---------------------------------------------------------------------------


def _draw_faces(
    picture: Image.Image,
    boxes: Sequence[Any],
    labels: Sequence[Label],
    font: Any,
    *,
    numbers: bool,
) -> None:
    draw = ImageDraw.Draw(picture, "RGBA")
    width = max(2, round(font.size / 8))
    for face, (left, top, right, bottom) in enumerate(boxes):
        # Dark around the color: seen on light and dark ground.
        around = (left - 1, top - 1, right + 1, bottom + 1)
        draw.rectangle(around, outline=(0, 0, 0, 150), width=width + 2)
        color = COLORS[face % len(COLORS)]
        draw.rectangle((left, top, right, bottom), outline=color, width=width)
    for label in labels:
        _draw_label(draw, label, font, filled=numbers)


def _draw_label(draw: Any, label: Label, font: Any, *, filled: bool) -> None:
    """Draws a text behind a stripe of its face's color, or a number on that color."""
    color, edge = COLORS[label.face % len(COLORS)], stripe(font)
    # What is drawn includes the last pixel; a rectangle ends before it.
    right, bottom = label.right - 1, label.bottom - 1
    if filled:
        draw.rectangle((label.left, label.top, right, bottom), fill=color)
        middle = ((label.left + label.right) / 2, (label.top + label.bottom) / 2)
        draw.text(middle, label.lines[0], font=font, fill=NUMBER, anchor="mm")
        return
    draw.rectangle((label.left, label.top, right, bottom), fill=CARD)
    draw.rectangle((label.left, label.top, label.left + edge - 1, bottom), fill=color)
    start = (label.left + edge + padding(font), label.top + padding(font))
    _draw_lines(draw, start, label.lines, font)


def _draw_lines(
    draw: Any, start: tuple[float, float], lines: Sequence[str], font: Any
) -> None:
    for number, line in enumerate(lines):
        y = start[1] + (number + 0.5) * line_height(font)
        draw.text((start[0], y), line, font=font, fill=TEXT, anchor="lm")


def _with_strip(
    picture: Image.Image, texts: Sequence[Sequence[str]], *, numbered: bool
) -> Image.Image:
    """Returns the picture above a strip of texts, in as many columns as have room."""
    font = ImageFont.load_default(max(SMALLEST_STRIP_FONT, _font(picture.size).size))
    width, gap = max(picture.width, SMALLEST_SIDE), 2 * padding(font)
    marker = extent((str(len(texts)),), font) if numbered else (0.0, 0.0)
    before = marker[0] + gap if numbered else 0.0
    widest = max(font.getlength(BETWEEN.join(parts)) for parts in texts) + before + gap
    columns = min(max(1, int((width - gap) // widest)), len(texts))
    column = (width - gap) / columns
    entries = [wrap(parts, column - before - gap, font) for parts in texts]
    rows = math.ceil(len(entries) / columns)
    heights = [
        max(len(lines) * line_height(font), marker[1]) + padding(font)
        for lines in entries
    ]
    height = max(sum(heights[i : i + rows]) for i in range(0, len(entries), rows))
    whole = Image.new("RGB", (width, picture.height + math.ceil(height) + gap), NUMBER)
    whole.paste(picture, (0, 0))
    draw = ImageDraw.Draw(whole, "RGBA")
    for index, lines in enumerate(entries):
        x = gap + index // rows * column
        y = picture.height + gap - padding(font) / 2
        y += sum(heights[index // rows * rows : index])
        if numbered:
            corners = (x, y, x + marker[0], y + marker[1])
            label = Label(*corners, (str(index + 1),), index)
            _draw_label(draw, label, font, filled=True)
        middle = max(0.0, (marker[1] - line_height(font)) / 2)
        _draw_lines(draw, (x + before, y + middle), lines, font)
    return whole
