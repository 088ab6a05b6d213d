"""Face boxes and landmarks in label files: the columns that hold them."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from keras_agegender.datasets.manifest import BOX_COLUMNS, LANDMARK_COLUMNS, quoted

# Endings of four columns that are a box, after a prefix such as "face_" or none.
CORNERS = (
    ("x0", "y0", "x1", "y1"),
    ("x1", "y1", "x2", "y2"),
    ("xmin", "ymin", "xmax", "ymax"),
    ("minx", "miny", "maxx", "maxy"),
    ("left", "top", "right", "bottom"),
)
# The third and the fourth are width and height.
WITH_SIZE = tuple(
    (*corner, *size)
    for corner in (("x", "y"), ("left", "top"), ("x0", "y0"), ("x1", "y1"),
                   ("xmin", "ymin"), ("minx", "miny"))
    for size in (("w", "h"), ("width", "height"))
)  # fmt: skip
# Prefixes of boxes of faces, the best first; others are of a person, a car, …
FACE_PREFIXES = ("face", "facebox", "facebbox", "facerect", "", "bbox", "box", "rect")
LANDMARK_ORDERS = (
    ("lefteye", "righteye", "nose", "leftmouth", "rightmouth"),  # as CelebA's
    ("lefteye", "righteye", "nose", "mouthleft", "mouthright"),
)
UNKNOWN_NUMBERS = ("", "na", "nan", "none", "-1", "-1.0")
NO_BOX = "no face box"


@dataclass(frozen=True)
class FaceColumns:
    """Columns of a label file that say where a row's face is.

    Attributes:
        box: Left, top, right and bottom, or left, top, width and height; or empty.
        has_size: Whether `box` ends with width and height.
        landmarks: (x, y) of both eyes, the nose and both mouth corners; or empty.
        others: Further columns of boxes or landmarks, which are no labels.
    """

    box: tuple[str, ...] = ()
    has_size: bool = False
    landmarks: tuple[str, ...] = ()
    others: tuple[str, ...] = ()

    @property
    def used(self) -> tuple[str, ...]:
        """The columns that crops are made by."""
        return (*self.box, *self.landmarks)

    def read(self, row: Mapping[str, str], where: str) -> dict[str, float] | None:
        """Returns a row's box and landmarks by column of a manifest.

        `None` if the box is unknown: all four are empty, -1 or 0. `where` is the
        position of the row, for errors.
        """
        if not self.box:
            return {}
        values = self._numbers(row, self.box, where)
        if values is None or not any(values):
            return None
        left, top, right, bottom = values
        if self.has_size:
            right, bottom = left + right, top + bottom
        if not (left < right and top < bottom):
            hint = "" if self.has_size else (
                " Columns of width and height must end with 'w' and 'h', or 'width' "
                "and 'height'."
            )  # fmt: skip
            raise ValueError(
                f"{where}: expected a box of positive size in the columns "
                f"{', '.join(self.box)}. Received: {[row[name] for name in self.box]}."
                f"{hint}"
            )
        face = dict(zip(BOX_COLUMNS, (left, top, right, bottom), strict=True))
        points = self._numbers(row, self.landmarks, where) or [math.nan] * 10
        if self.landmarks:
            face |= dict(zip(LANDMARK_COLUMNS, points, strict=True))
        return face

    def _numbers(
        self, row: Mapping[str, str], columns: Sequence[str], where: str
    ) -> list[float] | None:
        texts = [row[name].strip() for name in columns]
        if all(text.lower() in UNKNOWN_NUMBERS for text in texts):
            return None
        for name, text in zip(columns, texts, strict=True):
            try:
                finite = math.isfinite(float(text))
            except ValueError:
                finite = False
            if not finite:
                raise ValueError(
                    f"{where}, column {name!r}: expected a number of pixels. "
                    f"Received: {quoted(text)}."
                )
        return [float(text) for text in texts]


def find_face_columns(
    names: Sequence[str],
    box_columns: Sequence[str] | None = None,
    landmark_columns: Sequence[str] | None = None,
) -> FaceColumns:
    """Returns the columns named, or those whose names say that they are a face.

    Example:
    >>> find_face_columns(["file", "face_x", "face_y", "face_w", "face_h"]).box
    ('face_x', 'face_y', 'face_w', 'face_h')
    """
    for columns, count, argument in (
        (box_columns, 4, "box_columns"),
        (landmark_columns, 10, "landmark_columns"),
    ):
        unknown = [name for name in columns or () if name not in names]
        if columns is not None and (len(columns) != count or unknown):
            raise ValueError(
                f"Invalid `{argument}` (--{argument.replace('_', '-')}). Expected "
                f"{count} of the columns {list(names)}. Received: {list(columns)}."
            )
    by_name = {_plain(name): name for name in names}
    found: dict[str, tuple[str, ...]] = {}
    for ends in (*CORNERS, *WITH_SIZE):
        for name in by_name:
            prefix = name.removesuffix(ends[0])
            if name.endswith(ends[0]) and {prefix + e for e in ends} <= set(by_name):
                found.setdefault(prefix, tuple(by_name[prefix + e] for e in ends))
    box = tuple(box_columns or ())
    if box_columns is None:
        box = next((found[p] for p in FACE_PREFIXES if p in found), ())
    points = tuple(landmark_columns or ())
    for parts in LANDMARK_ORDERS if landmark_columns is None else ():
        order = [part + axis for part, axis in itertools.product(parts, "xy")]
        if set(order) <= set(by_name):
            points = tuple(by_name[name] for name in order)
    others = dict.fromkeys(itertools.chain(*found.values(), points))
    if not box:
        return FaceColumns(others=tuple(others))
    width, height = (_plain(name) for name in box[2:])
    return FaceColumns(
        box,
        width.endswith(("w", "width")) and height.endswith(("h", "height")),
        points,
        tuple(name for name in others if name not in (*box, *points)),
    )


def _plain(name: str) -> str:
    return re.sub(r"[\W_]", "", name).lower()
