"""Annotation: a photo and the answers about it become one picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from keras_agegender.serving.answers import FacePrediction, PhotoPrediction

COLORS = ("#ffb000", "#4fc3f7", "#7ddf64", "#ff8a80", "#ce93d8", "#fff176")
CARD, CARD_TEXT = (18, 20, 26, 222), (255, 255, 255, 255)
SMALLEST_FONT = 13
SMALLEST_SIDE, LONGEST_ENLARGED = 240, 2000


class _Card(NamedTuple):
    left: float
    top: float
    right: float
    bottom: float


def annotate_photo(image: np.ndarray, prediction: PhotoPrediction) -> np.ndarray:
    """Draws every face's box and a card with its answers: `25-32 · female 93 %`.

    The per cent are the probability of the gender answered. A question mark behind the
    age group says that the age outputs contradict each other.

    Args:
        image: The upright photo, as `read_image` gives it. Shape (height, width, 3),
            uint8.
        prediction: What `Predictor` answered about it.

    Returns:
        An annotated copy, of the same size; one whose shorter side is below 240 pixels
        is enlarged by a whole factor, so that text can be read.

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
    picture = Image.fromarray(image).convert("RGBA")
    if factor > 1:
        picture = picture.resize(
            (picture.width * factor, picture.height * factor), Image.Resampling.BICUBIC
        )
    layer = Image.new("RGBA", picture.size, (0, 0, 0, 0))
    draw = ImageDraw.Draw(layer)
    faces = [np.array(face.box) * factor for face in prediction.faces]
    font_size = _font_size(picture.size, faces)
    for place, box in enumerate(faces):
        _draw_box(draw, box, COLORS[place % len(COLORS)], max(2, font_size // 8))
    if not faces:
        text = {"unreadable": "unreadable"}.get(prediction.status, "no face found")
        _draw_cards(draw, picture.size, [_corner(picture.size)], [text], font_size)
    else:
        texts = [_text(face) for face in prediction.faces]
        _draw_cards(draw, picture.size, faces, texts, font_size)
    return np.array(Image.alpha_composite(picture, layer).convert("RGB"))


def _text(face: FacePrediction) -> str:
    """Returns a face's answers, at most two parts with `·` between them."""
    parts = []
    if face.age_group is not None:
        parts.append(face.age_group + ("" if face.heads_agree else "?"))
    if face.gender is not None and face.gender_confidence is not None:
        parts.append(f"{face.gender} {100 * face.gender_confidence:.0f} %")
    if not parts:
        parts = [
            f"{name} {value if isinstance(value, str) else format(value, '.2f')}"
            for name, value in list(face.extra.items())[:2]
        ]
    return " · ".join(parts) or "face"


def _enlargement(size: tuple[int, int]) -> int:
    wanted = math.ceil(SMALLEST_SIDE / min(size))
    return max(1, min(wanted, LONGEST_ENLARGED // max(size)))


def _font_size(size: tuple[int, int], faces: Sequence[np.ndarray]) -> int:
    """Returns pixels of text that suits the picture, smaller where faces are."""
    wanted = 0.032 * math.sqrt(size[0] * size[1])
    if faces:
        width = float(np.median([box[2] - box[0] for box in faces]))
        wanted = min(wanted, max(0.24 * width, 0.6 * wanted))
    return max(SMALLEST_FONT, round(wanted))


def _corner(size: tuple[int, int]) -> np.ndarray:
    return np.array([0, size[1], size[0] * 0.5, size[1]], "float32")


def _draw_box(draw: Any, box: np.ndarray, color: str, width: int) -> None:
    """Draws an outline that is seen on light and dark ground."""
    left, top, right, bottom = (float(x) for x in box)
    draw.rectangle(
        (left - 1, top - 1, right + 1, bottom + 1),
        outline=(0, 0, 0, 150),
        width=width + 2,
    )
    draw.rectangle((left, top, right, bottom), outline=color, width=width)


# -- cards -----------------------------------------------------------------------------


def _draw_cards(
    draw: Any,
    size: tuple[int, int],
    faces: Sequence[np.ndarray],
    texts: Sequence[str],
    font_size: int,
) -> None:
    placed: list[_Card] = []
    # From the top of the picture down: a card above its face rarely has one above it.
    for index in sorted(range(len(faces)), key=lambda i: float(faces[i][1])):
        box, text = faces[index], texts[index]
        others = [face for i, face in enumerate(faces) if i != index]
        font, text, extent = _fit(draw, text, box, size, font_size)
        pad = max(3, round(font.size * 0.35))
        stripe = max(2, round(font.size * 0.2))
        card = _place(
            box,
            (extent[0] + 2 * pad + stripe, extent[1] + 2 * pad),
            size,
            placed,
            others,
        )
        placed.append(card)
        radius = round(font.size * 0.2)
        draw.rounded_rectangle(card, radius, fill=CARD)
        draw.rectangle(
            (card.left, card.top, card.left + stripe, card.bottom),
            fill=COLORS[index % len(COLORS)],
        )
        draw.multiline_text(
            (card.left + stripe + pad, card.top + pad),
            text,
            font=font,
            fill=CARD_TEXT,
            spacing=round(font.size * 0.25),
            anchor="la",
        )


def _fit(
    draw: Any, text: str, box: np.ndarray, size: tuple[int, int], font_size: int
) -> tuple[Any, str, tuple[float, float]]:
    """Returns font, text and its extent; narrow faces get two lines."""
    while True:
        font = ImageFont.load_default(font_size)
        width, height = _extent(draw, text, font)
        if "·" in text and width > 1.4 * (box[2] - box[0]):
            stacked = text.replace(" · ", "\n")
            width, height = _extent(draw, stacked, font)
        else:
            stacked = text
        if width + font_size <= size[0] or font_size <= 6:
            return font, stacked, (width, height)
        font_size -= 1


def _extent(draw: Any, text: str, font: Any) -> tuple[float, float]:
    _, _, right, bottom = draw.multiline_textbbox(
        (0, 0), text, font=font, spacing=round(font.size * 0.25), anchor="la"
    )
    return right, bottom


def _place(
    box: np.ndarray,
    extent: tuple[float, float],
    size: tuple[int, int],
    placed: Sequence[_Card],
    others: Sequence[np.ndarray],
) -> _Card:
    """Returns the best place for a card: inside the picture, off faces and cards."""
    left, top, right, bottom = (float(x) for x in box)
    width, height = extent
    gap = height * 0.08
    columns = (left, (left + right - width) / 2, right - width)
    rows = (top - height - gap, bottom + gap, top + gap, bottom - height - gap)
    best, least = _Card(0, 0, width, height), math.inf
    for rank, (y, x) in enumerate((y, x) for y in rows for x in columns):
        x = min(max(x, 0.0), max(size[0] - width - 1, 0.0))
        y = min(max(y, 0.0), max(size[1] - height - 1, 0.0))
        card = _Card(x, y, x + width, y + height)
        cost = 8.0 * sum(_overlap(card, other) for other in placed)
        cost += 3 * sum(_overlap(card, other) for other in others)
        cost += _overlap(card, box) + rank * 0.01 * width * height
        if cost < least:
            best, least = card, cost
    return best


def _overlap(a: Any, b: Any) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    return float(max(width, 0) * max(height, 0))
