"""Draws predictions onto photos."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from keras_agegender.serving.predictions import PhotoPrediction

SEPARATOR = " · "
GAP = 3  # pixels between a label and its face
FACE_WIDTHS = 1.6  # preferred width of a label's text, in widths of its face
COLORS = ("#ffb000", "#4fc3f7", "#7ddf64", "#ff8a80", "#ce93d8", "#fff176")
CARD, TEXT, NUMBER = (18, 20, 26, 232), (255, 255, 255), (18, 20, 26)
MIN_FONT, MIN_STRIP_FONT = 11, 13
MIN_SIDE, MAX_ENLARGED_SIDE = 240, 2000

Box = Sequence[float]


class Label(NamedTuple):
    """Lines of text in a rectangle, in pixels, with the index of their face."""

    left: float
    top: float
    right: float
    bottom: float
    lines: tuple[str, ...]
    face: int


def annotate_photo(image: np.ndarray, prediction: PhotoPrediction) -> np.ndarray:
    """Draws each face's box and a label with its predictions, as `predict` prints them.

    Labels cover no faces. If there is no room for them, or no face was found, the
    predictions are in a strip below the photo, numbered like the faces.

    Args:
        image: The upright photo, as `read_image` returns it. Shape (height, width, 3),
            uint8.
        prediction: The prediction of `Predictor` for it.

    Returns:
        An annotated copy of the same size, or higher by the strip. An image whose
        shorter side is below 240 pixels is enlarged by an integer factor, so that text
        is readable; a strip is at least 240 pixels wide.

    Raises:
        ValueError: If the prediction is for an image of another size.

    Example:
    >>> annotate_photo(read_image("photo.jpg"), prediction)  # doctest: +SKIP
    """
    size = image.shape[:2]
    if prediction.image_size is not None and tuple(prediction.image_size) != size:
        raise ValueError(
            "Invalid `prediction`. Expected one for an image of (height, width) "
            f"{size}. Received: {tuple(prediction.image_size)}."
        )
    factor = min(math.ceil(MIN_SIDE / min(size)), MAX_ENLARGED_SIDE // max(size))
    factor = max(1, factor)
    photo = Image.fromarray(image).convert("RGB")
    if factor > 1:
        photo = photo.resize(
            (photo.width * factor, photo.height * factor), Image.Resampling.BICUBIC
        )
    texts = [face.words or ("face",) for face in prediction.faces]
    if prediction.status != "ok":
        lines = [prediction.found, *(part for text in texts for part in text)]
        return np.array(_with_strip(photo, [lines], numbered=False))
    # Detected boxes may extend beyond the image.
    limits = np.array([*photo.size, *photo.size]) - 1
    boxes = [
        np.clip(np.array(face.box) * factor, 0, limits).tolist()
        for face in prediction.faces
    ]
    for scale in (1.0, 0.7):
        font = _font(photo.size, scale)
        labels = place_labels(photo.size, boxes, texts, font)
        if labels is not None:
            _draw_faces(photo, boxes, labels, font, numbers=False)
            return np.array(photo)
    font = _font(photo.size)
    labels = place_numbers(photo.size, boxes, font) if len(boxes) > 1 else []
    _draw_faces(photo, boxes, labels, font, numbers=True)
    return np.array(_with_strip(photo, texts, numbered=len(boxes) > 1))


def _font(size: tuple[int, int], scale: float = 1.0) -> Any:
    points = round(0.021 * scale * math.sqrt(size[0] * size[1]))
    return ImageFont.load_default(max(MIN_FONT, points))


# -- placing ---------------------------------------------------------------------------


def place_labels(
    size: tuple[int, int],
    boxes: Sequence[Box],
    texts: Sequence[Sequence[str]],
    font: Any,
) -> list[Label] | None:
    """Places each label above its face, else below or beside it, clear of all faces."""
    labels: list[Label] = []
    for face, (box, parts) in enumerate(zip(boxes, texts, strict=True)):
        longest = max(font.getlength(part) for part in parts)
        width = max(FACE_WIDTHS * (box[2] - box[0]), longest)
        margin = 2 * padding(font) + stripe(font)
        lines = wrap(parts, min(width, size[0] - margin), font)
        taken = [*boxes, *(label[:4] for label in labels)]
        for place in _places(box, extent(lines, font), size):
            if not any(overlap(place, other) for other in taken):
                labels.append(Label(*place, lines, face))
                break
        else:
            return None
    return labels


def place_numbers(
    size: tuple[int, int], boxes: Sequence[Box], font: Any
) -> list[Label]:
    """Places each face's number beside its box, or inside it if there is no room."""
    texts = [(str(face + 1),) for face in range(len(boxes))]
    placed = place_labels(size, boxes, texts, font)
    if placed is not None:
        return placed
    labels = []
    for face, (box, lines) in enumerate(zip(boxes, texts, strict=True)):
        width, height = extent(lines, font)
        left = max(min(box[0], size[0] - width), 0.0)
        top = max(min(box[1], size[1] - height), 0.0)
        labels.append(Label(left, top, left + width, top + height, lines, face))
    return labels


def _places(
    box: Box, extents: tuple[float, float], size: tuple[int, int]
) -> Iterator[tuple[float, float, float, float]]:
    """Yields rectangles above, below, right and left of a face, inside the image."""
    left, top, right, bottom = box
    width, height = extents
    if width > size[0] or height > size[1]:
        return
    for x, y in (
        (left, top - GAP - height),
        (left, bottom + GAP),
        (right + GAP, top),
        (left - GAP - width, top),
    ):
        x, y = min(max(x, 0.0), size[0] - width), min(max(y, 0.0), size[1] - height)
        yield x, y, x + width, y + height


def overlap(a: Box, b: Box) -> float:
    """Returns the common area of two rectangles, in square pixels."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    return max(width, 0.0) * max(height, 0.0)


# -- text ------------------------------------------------------------------------------


def wrap(parts: Sequence[str], width: float, font: Any) -> tuple[str, ...]:
    """Returns lines no wider than `width`, with a `·` between parts that share one.

    Lines break between parts, else at spaces, and inside words wider than a line.
    """
    lines: list[str] = []
    for part in parts:
        joined = f"{lines[-1]}{SEPARATOR}{part}" if lines else part
        if lines and font.getlength(joined) <= width:
            lines[-1] = joined
        else:
            lines += _broken(part, width, font)
    return tuple(lines)


def _broken(text: str, width: float, font: Any) -> list[str]:
    lines = [""]
    for word in text.split():
        joined = f"{lines[-1]} {word}".strip()
        if font.getlength(joined) <= width:
            lines[-1] = joined
            continue
        if lines[-1]:
            lines.append("")
        for letter in word:
            if lines[-1] and font.getlength(lines[-1] + letter) > width:
                lines.append("")
            lines[-1] += letter
    return lines


def padding(font: Any) -> int:
    """Returns the pixels between a text and the edge of its label."""
    return max(3, round(font.size * 0.3))


def stripe(font: Any) -> int:
    """Returns the width of the stripe of the face's color, left of a text."""
    return max(3, round(font.size * 0.25))


def line_height(font: Any) -> int:
    """Returns the pixels from one line to the next."""
    return round(1.25 * font.size)


def extent(lines: Sequence[str], font: Any) -> tuple[float, float]:
    """Returns the width and height of a label."""
    width = max(font.getlength(line) for line in lines)
    edges = 2 * padding(font)
    return width + edges + stripe(font), len(lines) * line_height(font) + edges


# -- drawing ---------------------------------------------------------------------------


def _draw_faces(
    photo: Image.Image,
    boxes: Sequence[Box],
    labels: Sequence[Label],
    font: Any,
    *,
    numbers: bool,
) -> None:
    draw = ImageDraw.Draw(photo, "RGBA")
    width = max(2, round(font.size / 8))
    for face, (left, top, right, bottom) in enumerate(boxes):
        # Dark around the color: visible on light and dark backgrounds.
        around = (left - 1, top - 1, right + 1, bottom + 1)
        draw.rectangle(around, outline=(0, 0, 0, 150), width=width + 2)
        color = COLORS[face % len(COLORS)]
        draw.rectangle((left, top, right, bottom), outline=color, width=width)
    for label in labels:
        _draw_label(draw, label, font, filled=numbers)


def _draw_label(draw: Any, label: Label, font: Any, *, filled: bool) -> None:
    """Draws a text beside a stripe of its face's color, or a number on that color."""
    color, edge = COLORS[label.face % len(COLORS)], stripe(font)
    # Pillow draws the last pixel too.
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
    photo: Image.Image, texts: Sequence[Sequence[str]], *, numbered: bool
) -> Image.Image:
    """Returns the photo above a strip of texts, in as many columns as fit."""
    font = ImageFont.load_default(max(MIN_STRIP_FONT, _font(photo.size).size))
    width, gap = max(photo.width, MIN_SIDE), 2 * padding(font)
    number = extent((str(len(texts)),), font) if numbered else (0.0, 0.0)
    before = number[0] + gap if numbered else 0.0
    widest = max(font.getlength(SEPARATOR.join(parts)) for parts in texts)
    columns = min(max(1, int((width - gap) // (widest + before + gap))), len(texts))
    column = (width - gap) / columns
    entries = [wrap(parts, column - before - gap, font) for parts in texts]
    rows = math.ceil(len(entries) / columns)
    heights = [
        max(len(lines) * line_height(font), number[1]) + padding(font)
        for lines in entries
    ]
    height = max(sum(heights[i : i + rows]) for i in range(0, len(entries), rows))
    whole = Image.new("RGB", (width, photo.height + math.ceil(height) + gap), NUMBER)
    whole.paste(photo, (0, 0))
    draw = ImageDraw.Draw(whole, "RGBA")
    for index, lines in enumerate(entries):
        x = gap + index // rows * column
        y = photo.height + gap - padding(font) / 2
        y += sum(heights[index // rows * rows : index])
        if numbered:
            corners = (x, y, x + number[0], y + number[1])
            label = Label(*corners, (str(index + 1),), index)
            _draw_label(draw, label, font, filled=True)
        middle = max(0.0, (number[1] - line_height(font)) / 2)
        _draw_lines(draw, (x + before, y + middle), lines, font)
    return whole
