"""Contact sheet: the pictures of a preparation that somebody should look at.

Each tile is a whole picture with the box that was cut out of it; below stand the status
and the key, by which `status.csv` has the rest.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw, ImageFont

from keras_agegender.faces.images import UnreadableImageError, read_image

TILE, CAPTION, GAP, COLUMNS = 160, 30, 8, 8
MAX_TILES = 48
DOUBTFUL_SCORE = 0.95  # among UTKFace's chips, one in fifty is below
PAPER, INK, MUTED, BOX = "#ffffff", "#222222", "#6b6b6b", "#D55E00"


def contact_sheet(
    status: pd.DataFrame, paths: Mapping[str, str], max_tiles: int = MAX_TILES
) -> np.ndarray | None:
    """Draws the doubtful pictures of a preparation.

    Those without a face come first, then those with several faces and those with a low
    score; of more than `max_tiles`, each kind gives its most doubtful ones.

    Args:
        status: Columns `key`, `status`, `score`, `num_faces` and `box` (`bbox_xyxy`).
        paths: Key -> picture file; those that are gone are shown as gray tiles.
        max_tiles: Pictures shown at most. Defaults to 48.

    Returns:
        RGB picture. Shape (height, width, 3), uint8. `None` where nothing is doubtful.
    """
    chosen = doubtful(status, max_tiles)
    if chosen.empty:
        return None
    rows = math.ceil(len(chosen) / COLUMNS)
    columns = min(COLUMNS, len(chosen))
    sheet = Image.new(
        "RGB",
        (columns * (TILE + GAP) + GAP, rows * (TILE + CAPTION + GAP) + GAP),
        PAPER,
    )
    for place, row in enumerate(chosen.itertuples()):
        left = GAP + place % COLUMNS * (TILE + GAP)
        top = GAP + place // COLUMNS * (TILE + CAPTION + GAP)
        sheet.paste(_tile(paths[row.key], row.status, row.box), (left, top))
        _caption(sheet, left, top + TILE, row)
    return np.array(sheet)


def doubtful(status: pd.DataFrame, max_rows: int = MAX_TILES) -> pd.DataFrame:
    """Returns the rows that somebody should look at, the most doubtful first.

    Args:
        status: Columns `status`, `score` and `num_faces`.
        max_rows: Rows at most; a third of them for each kind, if it has as many.
    """
    no_face = status[status["status"].isin(("no_face", "unreadable"))]
    several = status[status["status"] == "several_faces"]
    several = several.sort_values("num_faces", ascending=False, kind="stable")
    low = status[(status["status"] == "ok") & (status["score"] < DOUBTFUL_SCORE)]
    low = low.sort_values("score", kind="stable")
    kinds = [no_face, several, low]
    shares = [min(len(kind), max_rows // 3) for kind in kinds]
    for place, kind in enumerate(kinds):  # what one kind does not need, others get
        shares[place] += min(len(kind) - shares[place], max_rows - sum(shares))
    return pd.concat([k.head(n) for k, n in zip(kinds, shares, strict=True)])


def _tile(path: str, status: str, box: list[float]) -> Image.Image:
    tile = Image.new("RGB", (TILE, TILE), "#e4e4e4")
    try:
        picture = Image.fromarray(read_image(path))
    except UnreadableImageError:
        ImageDraw.Draw(tile).text(
            (TILE / 2, TILE / 2), "unreadable", fill=MUTED, anchor="mm", font=_font(14)
        )
        return tile
    scale = TILE / max(picture.size)
    small = picture.resize(
        (max(1, round(picture.width * scale)), max(1, round(picture.height * scale))),
        Image.Resampling.LANCZOS,
    )
    if status != "not_cropped":
        corners = [x * scale for x in box]
        ImageDraw.Draw(small).rectangle(corners, outline=BOX, width=2)
    tile.paste(small, ((TILE - small.width) // 2, (TILE - small.height) // 2))
    return tile


def _caption(sheet: Image.Image, left: int, top: int, row: Any) -> None:
    draw = ImageDraw.Draw(sheet)
    texts = {
        "ok": f"score {row.score:.2f}",
        "several_faces": f"{row.num_faces} faces",
        "no_face": "no face",
    }
    text = texts.get(row.status, str(row.status))
    draw.text((left, top + 2), text, fill=INK, font=_font(12))
    key = _shortened(str(row.key), _font(10))
    draw.text((left, top + 16), key, fill=MUTED, font=_font(10))


def _shortened(text: str, font: ImageFont.FreeTypeFont) -> str:
    """Cuts a text in its middle until it fits a tile: both ends tell keys apart."""
    kept = text
    length = len(text)
    while font.getlength(kept) > TILE and length > 4:
        length -= 1
        kept = f"{text[: length // 2]}…{text[-(length - length // 2) :]}"
    return kept


def _font(size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size)
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise ImportError("Pillow was built without FreeType, which draws text.")
    return font
