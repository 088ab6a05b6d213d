"""Draws predictions onto photos."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from keras_agegender.serving.predictions import PhotoPrediction

BETWEEN = " · "
# Between a label and what it must not touch, in pixels.
DISTANCE = 2.0
# Widths to break a text at, as multiples of its face's, the preferred first. Parts stay
# whole where the longest is no wider than the second.
FACE_WIDTHS = (1.6, 2.5, 4.0)


class Label(NamedTuple):
    """A text of several lines and the rectangle it is written into.

    Attributes:
        left: In pixels; so are `top`, `right` and `bottom`.
        lines: The text.
        face: Index of the face that it is about.
    """

    left: float
    top: float
    right: float
    bottom: float
    lines: tuple[str, ...]
    face: int


def wrap(parts: Sequence[str], width: float, font: Any) -> tuple[str, ...]:
    """Returns lines no wider than `width`, a `·` between parts that share one.

    Lines break between parts, else at spaces, and inside a word that is longer than a
    line.
    """
    lines: list[str] = []
    for part in parts:
        joined = f"{lines[-1]}{BETWEEN}{part}" if lines else part
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
    """Returns pixels between a text and the edge of its label."""
    return max(3, round(font.size * 0.3))


def stripe(font: Any) -> int:
    """Returns the width of the stripe of the face's color, left of a text."""
    return max(3, round(font.size * 0.25))


def line_height(font: Any) -> int:
    """Returns pixels from one line to the next."""
    return round(1.25 * font.size)


def extent(lines: Sequence[str], font: Any) -> tuple[float, float]:
    """Returns width and height of a label."""
    width = max(font.getlength(line) for line in lines)
    edges = 2 * padding(font)
    return width + edges + stripe(font), len(lines) * line_height(font) + edges


def place_labels(
    size: tuple[int, int],
    boxes: Sequence[Sequence[float]],
    texts: Sequence[Sequence[str]],
    font: Any,
) -> list[Label] | None:
    """Places a label beside each face, off all faces and off each other.

    Args:
        size: (width, height) of the picture.
        boxes: The faces.
        texts: The parts of each face's text.
        font: A font of Pillow.

    Returns:
        A label for each face, inside the picture, or `None` where there is no room.
    """
    options = []
    for face, (box, parts) in enumerate(zip(boxes, texts, strict=True)):
        options.append(
            [
                Label(*corners, lines, face)
                for lines in _ways_to_wrap(parts, box[2] - box[0], size[0], font)
                for corners in _beside(box, extent(lines, font), size)
            ]
        )
    return _choose(options, boxes)


def place_markers(
    size: tuple[int, int], boxes: Sequence[Sequence[float]], font: Any
) -> list[Label]:
    """Places the number of each face at its box, outside it where there is room."""
    options = []
    for face, box in enumerate(boxes):
        lines = (str(face + 1),)
        corners = _beside(box, extent(lines, font), size)
        options.append([Label(*c, lines, face) for c in corners])
    placed = _choose(options, boxes)
    if placed is not None:
        return placed
    placed = []
    for face, (box, labels) in enumerate(zip(boxes, options, strict=True)):
        width, height = extent((str(face + 1),), font)
        inside = [
            Label(*place, (str(face + 1),), face)
            for x in (box[0], box[2] - width)
            for y in (box[1], box[3] - height)
            if (place := _clamped(x, y, width, height, size))
        ]
        labels = labels + inside or [Label(0, 0, width, height, (str(face + 1),), face)]
        areas = _common_areas(labels, [*boxes, *(label[:4] for label in placed)])
        placed.append(labels[int(areas.sum(axis=1).argmin())])
    return placed


def overlap(a: Sequence[float], b: Sequence[float]) -> float:
    """Returns the area that two rectangles have in common, in square pixels."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    return max(width, 0.0) * max(height, 0.0)


def _ways_to_wrap(
    parts: Sequence[str], face_width: float, picture_width: int, font: Any
) -> list[tuple[str, ...]]:
    """Returns a text in lines, in several ways, the preferred first."""
    edges = 2 * padding(font) + stripe(font)
    widths = [share * face_width - edges for share in FACE_WIDTHS]
    longest = max(font.getlength(part) for part in parts)
    if longest <= widths[1]:
        widths = [max(longest, face_width - edges), *widths]
    words = set(" ".join(parts).split())
    ways = []
    for width in widths:
        lines = wrap(parts, min(width, picture_width - edges), font)
        # A word cut in the middle is worse than a wider label.
        if words <= set(" ".join(lines).split()):
            ways.append(lines)
    return list(dict.fromkeys([*ways, wrap(parts, picture_width - edges, font)]))


def _clamped(
    x: float, y: float, width: float, height: float, size: tuple[int, int]
) -> tuple[float, float, float, float] | None:
    """Returns a rectangle moved into the picture; `None` if it is too large for it."""
    if width > size[0] or height > size[1]:
        return None
    x, y = min(max(x, 0.0), size[0] - width), min(max(y, 0.0), size[1] - height)
    return x, y, x + width, y + height


def _beside(
    box: Sequence[float], extents: tuple[float, float], size: tuple[int, int]
) -> Iterator[tuple[float, float, float, float]]:
    """Yields rectangles at the four sides of a face, the preferred ones first."""
    left, top, right, bottom = box
    width, height = extents
    columns = [left, right - width, (left + right - width) / 2]
    columns += [left - width / 2, right - width / 2]
    rows = (top, (top + bottom - height) / 2, bottom - height)
    gap = DISTANCE + 1
    places = [(x, top - gap - height) for x in columns]
    places += [(x, bottom + gap) for x in columns]
    places += [(right + gap, y) for y in rows] + [(left - gap - width, y) for y in rows]
    for x, y in places:
        found = _clamped(x, y, width, height, size)
        if found is not None:
            yield found


def _common_areas(labels: Sequence[Label], others: Sequence[Any]) -> np.ndarray:
    """Returns the areas that labels share with others, a little distance included.

    Shape (num_labels, num_others).
    """
    a = np.array([label[:4] for label in labels], "float64").reshape(-1, 1, 4)
    b = np.array(others, "float64").reshape(1, -1, 4)
    ends = np.minimum(a[..., 2:], b[..., 2:] + DISTANCE)
    sides = ends - np.maximum(a[..., :2], b[..., :2] - DISTANCE)
    return np.maximum(sides, 0).prod(axis=-1)


def _clear(labels: Sequence[Label], others: Sequence[Any]) -> list[Label]:
    """Returns the labels that touch none of the others."""
    areas = _common_areas(labels, others).sum(axis=1)
    return [labels[int(index)] for index in np.flatnonzero(areas == 0)]


def _choose(
    options: Sequence[Sequence[Label]], boxes: Sequence[Any]
) -> list[Label] | None:
    """Returns one label of each face's, none touching another or a face.

    The face with the fewest places left chooses first.
    """
    free = {}
    for face, labels in enumerate(options):
        free[face] = _clear(labels, boxes)
    placed = {}
    while free:
        face = min(free, key=lambda f: len(free[f]))
        labels = free.pop(face)
        if not labels:
            return None
        placed[face] = labels[0]
        for other, rest in free.items():
            free[other] = _clear(rest, [labels[0][:4]])
    return [placed[face] for face in sorted(placed)]


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
