"""Where labels go: texts broken into lines, beside faces, off every face.

Rectangles are (left, top, right, bottom) in pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

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
