"""Drawing synthetic faces: a `Look`, a pose and a light become pixels.

Not people: pictures made of polygons and soft shades, for trying the library out and
for testing it. What a network learns from them is how they were drawn.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from keras_agegender.datasets.synthetic_look import (
    Identity,
    Look,
    make_look,
    sample_attributes,
    sample_identity,
    sample_years,
)

_SHIFT = 4  # cv2 draws with 1/16 pixel
_ONE = 1 << _SHIFT


@dataclass(frozen=True)
class SyntheticFace:
    """A drawn face and what it was drawn from.

    Attributes:
        image: RGB. Shape (height, width, 3), uint8.
        age_group: Id in [0, 8).
        years: The age it was drawn with.
        gender: 0 female, 1 male.
        attributes: CelebA's 40 attributes, 0 or 1.
        face_box: `bbox_xyxy` of the face in pixels. Shape (4,).
    """

    image: np.ndarray
    age_group: int
    years: float
    gender: int
    attributes: dict[str, int]
    face_box: np.ndarray


def draw_face(
    seed: int | np.random.Generator,
    age_group: int,
    gender: int,
    attributes: dict[str, int] | None = None,
    image_size: tuple[int, int] = (256, 256),
    identity: Identity | None = None,
    years: float | None = None,
) -> SyntheticFace:
    """Draws one synthetic face.

    Args:
        seed: Seed or generator; the same seed draws the same picture.
        age_group: Id in [0, 8).
        gender: 0 female, 1 male.
        attributes: Attributes to draw instead of sampled ones, all 40 or some.
        image_size: (height, width) in pixels, at least 32. Defaults to 256 × 256.
        identity: A person to draw; `None` draws a new one.
        years: Age inside the group; `None` draws one.

    Returns:
        Picture and labels.

    Example:
    >>> draw_face(0, age_group=4, gender=1).image.shape
    (256, 256, 3)
    """
    if min(image_size) < 32:
        raise ValueError(
            "Invalid `image_size`. Expected at least 32 pixels a side. "
            f"Received: image_size={image_size}."
        )
    rng = np.random.default_rng(seed)
    identity = identity or sample_identity(rng)
    years = sample_years(rng, age_group) if years is None else years
    sampled = sample_attributes(rng, years, gender)
    sampled.update(attributes or {})
    look = make_look(rng, identity, years, gender, sampled)
    painter = _Painter(rng, look, image_size)
    image = painter.draw()
    return SyntheticFace(image, age_group, years, gender, sampled, painter.face_box())


def _spline(count: int, per_segment: int = 6) -> np.ndarray:
    """Matrix from `count` points of a closed curve to a smooth Catmull-Rom polygon."""
    rows = []
    for i in range(count):
        for t in np.arange(per_segment) / per_segment:
            weights = (
                np.array(
                    [
                        -t + 2 * t**2 - t**3,
                        2 - 5 * t**2 + 3 * t**3,
                        t + 4 * t**2 - 3 * t**3,
                        -(t**2) + t**3,
                    ]
                )
                / 2
            )
            row = np.zeros(count)
            for offset, weight in zip((-1, 0, 1, 2), weights, strict=True):
                row[(i + offset) % count] += weight
            rows.append(row)
    return np.array(rows)


_SPLINES = {count: _spline(count) for count in range(3, 40)}


class _Painter:
    """Canvas, pose and face geometry of one picture.

    Face coordinates: x to the right, y down, the middle of the eyes' and mouth's span
    at (0, 0), a grown face about 1.5 wide and 2.4 high.
    """

    def __init__(
        self, rng: np.random.Generator, look: Look, image_size: tuple[int, int]
    ) -> None:
        self.rng, self.look = rng, look
        self.height, self.width = image_size
        unit = min(image_size)
        self.scale = unit * rng.uniform(0.235, 0.28)
        self.roll = np.deg2rad(rng.normal(0, 6))
        self.yaw = float(np.clip(rng.normal(0, 0.3), -0.7, 0.7))
        self.center = np.array(
            [
                self.width / 2 + rng.normal(0, 0.03) * unit,
                self.height * 0.54 + rng.normal(0, 0.02) * unit,
            ]
        )
        self.light = np.array([rng.uniform(-0.8, 0.8), rng.uniform(-0.8, 0.0), 0.9])
        self.light /= np.linalg.norm(self.light)
        self.canvas = np.empty((self.height, self.width, 3), "float32")
        self._proportions()

    # -- geometry ----------------------------------------------------------------------

    def _proportions(self) -> None:
        look, b = self.look, self.look.build
        g, male = look.growth, look.gender * look.growth
        self.half_width = 0.80 - 0.02 * g + 0.02 * b[0] + 0.05 * look.has("Chubby")
        jaw = 0.80 - 0.17 * g + 0.10 * male + 0.02 * b[1] + 0.08 * look.wear * g
        self.jaw = jaw * (1 + 0.10 * look.has("Chubby") - 0.08 * look.has("Oval_Face"))
        self.chin = 0.82 + 0.36 * g + 0.03 * male + 0.02 * b[2]
        self.chin += 0.06 * look.has("Oval_Face")
        self.chin_width = 0.30 - 0.06 * g + 0.08 * male
        self.top = -1.22 - 0.03 * b[3]
        self.eye_y = 0.16 - 0.24 * g + 0.015 * b[4]
        self.eye_x = 0.345 - 0.01 * g + 0.012 * b[5]
        self.eye_w = (0.205 - 0.055 * g) * (1 + 0.03 * b[6])
        opening = (0.145 - 0.065 * g) * (1 - 0.20 * look.wear)
        self.eye_h = opening * (0.6 if look.has("Narrow_Eyes") else 1.0)
        self.brow_y = self.eye_y - self.eye_h - 0.13 + 0.03 * look.wear - 0.02 * g
        self.nose_y = self.eye_y + 0.30 + 0.20 * g + 0.03 * look.has("Big_Nose")
        width = 0.12 + 0.045 * g + 0.03 * male + 0.02 * look.wear
        factor = 1 + 0.25 * look.has("Big_Nose") - 0.2 * look.has("Pointy_Nose")
        self.nose_w = width * factor
        self.mouth_y = self.nose_y + (self.chin - self.nose_y) * 0.40
        self.mouth_w = 0.20 + 0.10 * g + 0.05 * look.has("Smiling") + 0.01 * b[7]
        lips = 0.075 * (1.0 - 0.45 * look.wear) + 0.02 * (1 - look.gender)
        self.lip = lips * (1.35 if look.has("Big_Lips") else 1.0)
        self.hairline = -0.70 + 0.06 * b[8] - 0.16 * look.has("Receding_Hairline")
        if look.years < 3:
            self.hairline = -0.92

    def pixels(self, points: np.ndarray, depth: float = 0.0) -> np.ndarray:
        """Face coordinates to pixels; what is nearer moves more when the head turns."""
        points = np.asarray(points, "float64").reshape(-1, 2)
        x = points[:, 0] * (1 - 0.10 * abs(self.yaw)) + self.yaw * depth * 0.42
        y = points[:, 1]
        c, s = np.cos(self.roll), np.sin(self.roll)
        turned = np.stack([c * x - s * y, s * x + c * y], axis=1)
        return turned * self.scale + self.center

    def face_outline(self) -> np.ndarray:
        """Closed outline of the face, in face coordinates."""
        w, jaw, chin = self.half_width, self.jaw, self.chin
        right = [
            (0.42 * w, self.top * 0.97),
            (0.86 * w, self.top * 0.72),
            (1.0 * w, -0.30),
            (0.99 * w, 0.10),
            (0.92 * jaw + 0.05, 0.52 * chin),
            (0.70 * jaw, 0.80 * chin),
            (self.chin_width, 0.975 * chin),
        ]
        left = [(-x, y) for x, y in reversed(right)]
        points = np.array([(0.0, self.top), *right, (0.0, chin), *left])
        return _SPLINES[len(points)] @ points

    def face_box(self) -> np.ndarray:
        """`bbox_xyxy` of the face from hairline to chin, in pixels."""
        outline = self.face_outline()
        pixels = self.pixels(outline[outline[:, 1] > self.hairline], 0.25)
        box = np.concatenate([pixels.min(0), pixels.max(0)])
        return box.clip(0, [self.width, self.height] * 2).astype("float32")

    # -- paint -------------------------------------------------------------------------

    def mask(
        self, polygons: list[np.ndarray], blur: float, line: float = 0.0
    ) -> tuple[tuple[slice, slice], np.ndarray] | None:
        """Antialiased coverage of pixel polygons (or lines) in the part they touch."""
        reach = int(3 * blur + line + 2)
        low = np.floor(np.min([p.min(0) for p in polygons], 0)).astype(int) - reach
        high = np.ceil(np.max([p.max(0) for p in polygons], 0)).astype(int) + reach
        x0, y0 = np.clip(low, 0, [self.width, self.height])
        x1, y1 = np.clip(high, 0, [self.width, self.height])
        if x1 <= x0 or y1 <= y0:
            return None
        mask = np.zeros((y1 - y0, x1 - x0), "uint8")
        points = [np.round((p - [x0, y0]) * _ONE).astype("int32") for p in polygons]
        if line:
            thickness = max(1, round(line))
            cv2.polylines(mask, points, False, 255, thickness, cv2.LINE_AA, _SHIFT)
        else:
            cv2.fillPoly(mask, points, 255, cv2.LINE_AA, _SHIFT)
        if blur > 0.3:
            mask = cv2.GaussianBlur(mask, (0, 0), blur)
        return (slice(y0, y1), slice(x0, x1)), mask.astype("float32") / 255.0

    def paint(
        self,
        polygons: np.ndarray | list[np.ndarray],
        colour: np.ndarray,
        alpha: float = 1.0,
        blur: float = 0.0,
        depth: float = 0.25,
        line: float = 0.0,
        multiply: bool = False,
    ) -> None:
        """Lays a colour over polygons; all lengths are in face coordinates."""
        if not isinstance(polygons, list):
            polygons = [polygons]
        found = self.mask(
            [self.pixels(p, depth) for p in polygons],
            blur * self.scale,
            line * self.scale,
        )
        if found is None:
            return
        where, mask = found
        if line:  # thinner than a pixel is paler
            alpha = alpha * min(1.0, line * self.scale)
        mask = (mask * alpha)[..., None]
        part = self.canvas[where]
        colour = np.asarray(colour, "float32")
        if colour.ndim == 3:
            colour = colour[where]
        part += mask * ((part * colour if multiply else colour) - part)

    def ellipse(
        self, x: float, y: float, rx: float, ry: float, turn: float = 0.0
    ) -> np.ndarray:
        """Polygon of an ellipse, in face coordinates."""
        t = np.linspace(0, 2 * np.pi, 24, endpoint=False)
        px, py = rx * np.cos(t), ry * np.sin(t)
        c, s = np.cos(turn), np.sin(turn)
        return np.stack([x + c * px - s * py, y + s * px + c * py], axis=1)

    # -- the picture -------------------------------------------------------------------

    def draw(self) -> np.ndarray:
        """Returns the finished picture, RGB uint8."""
        self._background()
        self._long_hair()
        self._body()
        self._ears()
        self._skin()
        self._lines_of_age()
        for side in (-1, 1):
            self._eye(side)
            self._brow(side)
        self._nose()
        self._beard()
        self._mouth()
        self._hair()
        self._wearables()
        return self._photograph()

    def _background(self) -> None:
        rng = self.rng
        # Mostly light and dark, a little colour: rooms and skies rather than paint.
        base = rng.uniform(0.2, 0.85) + rng.normal(0, 0.07, 3)
        light = rng.normal(0, rng.uniform(0.02, 0.14), (5, 5, 1))
        coarse = base + light + rng.normal(0, 0.025, (5, 5, 3))
        self.canvas[:] = cv2.resize(
            coarse.astype("float32"),
            (self.width, self.height),
            interpolation=cv2.INTER_CUBIC,
        )

    def _body(self) -> None:
        look, rng = self.look, self.rng
        neck = 0.30 + 0.12 * look.growth + 0.08 * look.gender * look.growth
        shade = look.skin * 0.78
        bottom = self.chin + 0.9
        self.paint(
            np.array(
                [
                    (-neck, 0.3),
                    (neck, 0.3),
                    (neck * 1.15, bottom),
                    (-neck * 1.15, bottom),
                ]
            ),
            shade,
            depth=0,
        )
        if look.has("Double_Chin"):
            self.paint(
                self.ellipse(0, self.chin + 0.05, 0.42, 0.16),
                look.skin * 0.9,
                blur=0.02,
                depth=0.1,
            )
        cloth = rng.uniform(0.1, 0.9, 3)
        wide = 0.9 + 0.5 * look.growth + 0.2 * look.gender * look.growth
        top = self.chin + 0.22
        points = np.array(
            [
                (-neck - 0.1, top),
                (0, top + 0.22),
                (neck + 0.1, top),
                (wide, top + 0.35),
                (wide + 0.3, 3.0),
                (-wide - 0.3, 3.0),
                (-wide, top + 0.35),
            ]
        )
        self.paint(points, cloth, depth=0)
        if look.has("Wearing_Necktie"):
            tie = rng.uniform(0.05, 0.8, 3)
            self.paint(
                np.array(
                    [(-0.09, top + 0.16), (0.09, top + 0.16), (0.14, 3.0), (-0.14, 3.0)]
                ),
                tie,
                depth=0,
            )
            self.paint(
                np.array(
                    [
                        (-0.3, top),
                        (0, top + 0.2),
                        (0.3, top),
                        (0.2, top + 0.4),
                        (0, top + 0.2),
                        (-0.2, top + 0.4),
                    ]
                ),
                np.array([0.95, 0.95, 0.96]),
                depth=0,
            )
        if look.has("Wearing_Necklace"):
            t = np.linspace(0.15, np.pi - 0.15, 16)
            chain = np.stack(
                [np.cos(t) * (neck + 0.02), top - 0.12 + 0.3 * np.sin(t)], 1
            )
            self.paint(chain, np.array([0.9, 0.78, 0.35]), line=0.035, depth=0)

    def _ears(self) -> None:
        for side in (-1, 1):
            x = side * (self.half_width + 0.02)
            self.paint(
                self.ellipse(x, 0.12, 0.12, 0.24), self.look.skin * 0.86, depth=-0.1
            )
            self.paint(
                self.ellipse(x, 0.14, 0.06, 0.15),
                self.look.skin * 0.66,
                blur=0.02,
                depth=-0.1,
                alpha=0.7,
            )

    def _skin(self) -> None:
        look = self.look
        self.paint(self.face_outline(), self._shaded_skin(), depth=0.12)
        dark = look.skin * 0.72
        for side in (-1, 1):
            x = side * self.eye_x
            # Sockets: MTCNN looks for dark eyes under brows more than for their lines.
            self.paint(
                self.ellipse(
                    x, self.eye_y - 0.02, self.eye_w * 1.5, self.eye_h * 1.9 + 0.04
                ),
                dark,
                0.42,
                0.06,
            )
            self.paint(
                self.ellipse(
                    0.98 * x, self.eye_y - 0.03, self.eye_w * 1.35, self.eye_h + 0.12
                ),
                look.skin * 0.6,
                0.4,
                0.06,
                0.3,
            )
            cheek = (side * 0.45, self.nose_y + 0.02)
            chub = 0.35 * (1 - look.growth) + 0.12
            self.paint(
                self.ellipse(*cheek, 0.24, 0.2),
                [0.92, 0.45, 0.42],
                0.75 * chub + 0.35 * look.has("Rosy_Cheeks"),
                0.12,
            )
            if look.has("High_Cheekbones"):
                self.paint(
                    self.ellipse(side * 0.5, self.eye_y + 0.27, 0.2, 0.06, side * -0.4),
                    look.skin * 1.18,
                    0.5,
                    0.05,
                )
            hollow = 0.3 * look.growth * (0.3 + look.wear) + 0.25 * look.has(
                "High_Cheekbones"
            )
            self.paint(
                self.ellipse(side * 0.56, self.mouth_y - 0.08, 0.12, 0.26, side * 0.3),
                dark,
                hollow,
                0.08,
            )

    def _shaded_skin(self) -> np.ndarray:
        """Skin lit as an ellipsoid, with pores and spots that grow with age."""
        look = self.look
        rows, columns = self.height // 2 + 1, self.width // 2 + 1
        x, y = np.meshgrid(np.arange(columns) * 2.0, np.arange(rows) * 2.0)
        dx, dy = (x - self.center[0]) / self.scale, (y - self.center[1]) / self.scale
        c, s = np.cos(self.roll), np.sin(self.roll)
        u = ((c * dx + s * dy) - 0.1 * self.yaw) / (self.half_width * 1.15)
        v = (c * dy - s * dx + 0.05) / 1.45
        nz = np.sqrt(np.clip(1 - u * u - v * v, 0.02, 1))
        lit = np.clip(u * self.light[0] + v * self.light[1] + nz * self.light[2], 0, 1)
        shade = (0.55 + 0.52 * lit).astype("float32")
        rough = 0.010 + 0.05 * look.wear
        noise = self.rng.normal(0, rough, (rows // 2 + 1, columns // 2 + 1))
        spots = cv2.resize(noise.astype("float32"), (columns, rows))
        shade = cv2.resize(shade * (1 + spots), (self.width, self.height))
        return shade[..., None] * look.skin

    def _lines_of_age(self) -> None:
        look = self.look
        wear = look.wear
        dark = np.array([0.55, 0.45, 0.42], "float32")
        strokes: list[tuple[np.ndarray, float, float]] = []
        t = np.linspace(-1, 1, 9)
        for k in range(int(round(1 + 3.4 * wear)) if wear > 0.15 else 0):
            y = self.hairline * 0.62 + 0.13 * k - 0.02
            bow = np.stack([0.42 * t, y + 0.03 * t**2 - 0.02], axis=1)
            strokes.append((bow, 0.85 * wear, 0.020 + 0.014 * wear))
        for side in (-1, 1):
            nose, mouth = (
                (side * (self.nose_w + 0.05), self.nose_y - 0.03),
                (side * (self.mouth_w + 0.07), self.mouth_y + 0.03 + 0.12 * wear),
            )
            middle = (side * (self.nose_w + 0.19), (nose[1] + mouth[1]) / 2 - 0.02)
            fold = np.array([nose, middle, mouth])
            strokes.append(
                (fold, 0.12 * look.growth + 0.75 * wear, 0.022 + 0.03 * wear)
            )
            corner = side * (self.eye_x + self.eye_w * 1.15)
            for k in range(3 if wear > 0.35 else 0):
                end = (corner + side * 0.17, self.eye_y - 0.07 + 0.085 * k)
                strokes.append(
                    (
                        np.array([(corner, self.eye_y + 0.01), end]),
                        0.75 * wear,
                        0.018 + 0.01 * wear,
                    )
                )
            bags = 0.45 * wear + 0.45 * look.has("Bags_Under_Eyes")
            arc = np.stack(
                [
                    side * self.eye_x + self.eye_w * t,
                    self.eye_y + self.eye_h + 0.075 - 0.045 * t**2,
                ],
                axis=1,
            )
            strokes.append((arc, bags, 0.035))
            if wear > 0.6:
                jowl = np.array(
                    [
                        (side * (self.mouth_w + 0.08), self.mouth_y + 0.12),
                        (side * 0.42, self.chin - 0.2),
                        (side * 0.38, self.chin - 0.08),
                    ]
                )
                strokes.append((jowl, 0.6 * wear, 0.035))
        for points, alpha, width in strokes:
            self.paint(
                points, dark, min(alpha, 0.9), 0.012, 0.3, line=width, multiply=True
            )

    def _eye(self, side: int) -> None:
        look, x, y = self.look, side * self.eye_x, self.eye_y
        w, h = self.eye_w, self.eye_h
        t = np.linspace(0, np.pi, 10)
        droop = 0.03 * look.wear * side
        upper = np.stack([x - w * np.cos(t), y - h * np.sin(t)], 1)
        lower = np.stack([x + w * np.cos(t), y + 0.75 * h * np.sin(t)], 1)
        upper[:, 1] += droop * (upper[:, 0] - x) / w
        opening = np.concatenate([upper, lower])
        if look.has("Heavy_Makeup"):
            self.paint(
                self.ellipse(x, y - 0.05, w * 1.15, h + 0.09),
                [0.35, 0.2, 0.42],
                0.55,
                0.03,
                0.3,
            )
        self.paint(opening, [0.94, 0.93, 0.91], depth=0.3)
        gaze = 0.02 * self.yaw
        radius = min(0.105, h * 1.25 + 0.02)
        found = self.mask([self.pixels(opening, 0.3)], 0)
        before = self.canvas[found[0]].copy() if found else None
        self.paint(
            self.ellipse(x + gaze, y - 0.01, radius, radius), look.iris, depth=0.3
        )
        self.paint(
            self.ellipse(x + gaze, y - 0.01, radius * 0.5, radius * 0.5),
            [0.03, 0.03, 0.03],
            depth=0.3,
        )
        self.paint(
            self.ellipse(x + gaze - 0.03, y - 0.045, 0.022, 0.022), [1, 1, 1], depth=0.3
        )
        if found and before is not None:  # the iris ends where the lids begin
            where, inside = found
            inside = inside[..., None]
            self.canvas[where] = inside * self.canvas[where] + (1 - inside) * before
        self.paint(
            upper,
            [0.12, 0.08, 0.07],
            0.9,
            depth=0.3,
            line=0.030 + 0.022 * (1 - look.gender) + 0.02 * look.has("Heavy_Makeup"),
        )
        self.paint(lower, look.skin * 0.5, 0.5, depth=0.3, line=0.015)
        crease = upper + [0, -0.045 - 0.02 * look.growth]
        self.paint(
            crease, look.skin * 0.55, 0.45 + 0.3 * look.wear, depth=0.3, line=0.016
        )
        if look.gender == 0:
            for k in (1, 2, 3) if side < 0 else (8, 7, 6):
                end = upper[k] + [side * 0.075, -0.06]
                self.paint(
                    np.array([upper[k], end]),
                    [0.08, 0.06, 0.06],
                    0.9,
                    depth=0.3,
                    line=0.022,
                )

    def _brow(self, side: int) -> None:
        look = self.look
        thick = (
            0.030
            + 0.030 * look.gender * look.growth
            + 0.03 * look.has("Bushy_Eyebrows")
        )
        thick = thick * (0.5 + 0.5 * look.growth)
        arch = 0.05 + 0.06 * look.has("Arched_Eyebrows") - 0.01 * look.gender
        t = np.linspace(0, 1, 8)
        x = side * (self.eye_x - 0.19 + 0.40 * t)
        y = self.brow_y + 0.03 - arch * np.sin(np.pi * np.minimum(t * 0.85, 1)) * 1.2
        y += 0.02 * look.gender
        upper = np.stack([x, y - thick * (1 - 0.6 * t)], 1)
        lower = np.stack([x, y + thick * (1 - 0.8 * t)], 1)[::-1]
        colour = look.hair * 0.75 + 0.02
        alpha = 0.45 + 0.45 * look.growth
        self.paint(np.concatenate([upper, lower]), colour, alpha, 0.012, 0.3)

    def _nose(self) -> None:
        look, w, y = self.look, self.nose_w, self.nose_y
        side = -1 if self.light[0] > 0 else 1
        ridge = np.array(
            [
                (0.0, self.eye_y + 0.02),
                (side * 0.05, self.eye_y),
                (side * (w * 0.75), y - 0.06),
                (side * w * 0.4, y + 0.02),
            ]
        )
        self.paint(ridge, look.skin * 0.6, 0.45 * look.growth + 0.12, 0.04, 0.45)
        for s in (-1, 1):
            self.paint(
                self.ellipse(s * w * 0.7, y - 0.22, w * 0.35, 0.24),
                look.skin * 0.7,
                0.4,
                0.05,
                0.4,
            )
        self.paint(
            self.ellipse(0, y - 0.3, w * 0.28, 0.3), look.skin * 1.15, 0.4, 0.04, 0.5
        )
        self.paint(
            self.ellipse(0, y - 0.07, w * 0.42, 0.09), look.skin * 1.2, 0.5, 0.05, 0.6
        )
        self.paint(
            self.ellipse(0, y + 0.03, w * 0.95, 0.05),
            look.skin * 0.55,
            0.65,
            0.03,
            0.45,
        )
        for s in (-1, 1):
            self.paint(
                self.ellipse(s * w * 0.5, y + 0.015, w * 0.22, 0.026),
                look.skin * 0.25,
                0.75,
                0.010,
                0.5,
            )
            wing = np.array(
                [(s * w, y - 0.08), (s * w * 1.12, y - 0.01), (s * w * 0.9, y + 0.035)]
            )
            self.paint(wing, look.skin * 0.55, 0.5, 0.005, 0.42, line=0.022)

    def _beard(self) -> None:
        look = self.look
        colour = look.hair * 0.85
        if look.gender == 1 and look.years >= 17 and look.has("No_Beard"):
            # Shaved skin is a shade darker all the same.
            self.paint(self._beard_area(), look.skin * 0.72, 0.22, 0.06, 0.25)
        if look.has("5_o_Clock_Shadow"):
            self.paint(self._beard_area(), look.skin * 0.42, 0.45, 0.05, 0.25)
        if look.has("Sideburns"):
            for side in (-1, 1):
                x = side * (self.half_width - 0.05)
                self.paint(
                    np.array(
                        [
                            (x - 0.07, -0.25),
                            (x + 0.07, -0.25),
                            (x + 0.04 - side * 0.05, 0.42),
                            (x - 0.05 - side * 0.05, 0.42),
                        ]
                    ),
                    colour,
                    0.85,
                    0.02,
                    0.1,
                )
        if look.has("Goatee"):
            top = self.mouth_y + self.lip * 1.5
            wide = self.mouth_w + 0.1
            shape = [
                (-wide, self.mouth_y),
                (0, top + 0.02),
                (wide, self.mouth_y),
                (wide * 0.9, self.chin - 0.02),
                (0, self.chin + 0.1),
                (-wide * 0.9, self.chin - 0.02),
            ]
            self.paint(_SPLINES[6] @ np.array(shape), colour, 0.9, 0.025, 0.25)
        if look.has("Mustache"):
            y = (self.nose_y + self.mouth_y) / 2 + 0.05
            wide = self.mouth_w + 0.05
            shape = [
                (0, y - 0.06),
                (wide, y + 0.06),
                (wide * 0.6, y + 0.09),
                (0, y + 0.05),
                (-wide * 0.6, y + 0.09),
                (-wide, y + 0.06),
            ]
            self.paint(_SPLINES[6] @ np.array(shape), colour, 0.9, 0.015, 0.4)

    def _beard_area(self) -> np.ndarray:
        jaw = self.jaw * 0.95
        points = [
            (-jaw, 0.35),
            (-self.mouth_w - 0.1, self.nose_y + 0.1),
            (0, self.nose_y + 0.08),
            (self.mouth_w + 0.1, self.nose_y + 0.1),
            (jaw, 0.35),
            (0.72 * jaw, 0.82 * self.chin),
            (0, self.chin - 0.02),
            (-0.72 * jaw, 0.82 * self.chin),
        ]
        return _SPLINES[8] @ np.array(points)

    def _mouth(self) -> None:
        look, y, w, lip = self.look, self.mouth_y, self.mouth_w, self.lip
        smile = 0.075 if look.has("Smiling") else -0.005 - 0.02 * look.wear
        gap = (
            (0.05 + 0.03 * look.has("Smiling"))
            if look.has("Mouth_Slightly_Open")
            else 0.0
        )
        t = np.linspace(-1, 1, 13)
        corner = y - smile * (t**2 - 0.35)
        bow = lip * (1 - t**2) * (1 - 0.22 * np.exp(-((t / 0.18) ** 2)))
        upper = np.stack([w * t, corner - bow - gap * 0.4 * (1 - t**2)], 1)
        inner_up = np.stack([w * t, corner - gap * 0.4 * (1 - t**2)], 1)
        inner_low = np.stack([w * t, corner + gap * (1 - t**2)], 1)
        lower = np.stack([w * t, corner + (gap + lip * 1.35) * (1 - t**2) ** 0.8], 1)
        natural = look.skin * [0.90, 0.62, 0.60]
        red = np.array([0.78, 0.12, 0.18], "float32")
        colour = natural + (red - natural) * (
            0.8 if look.has("Wearing_Lipstick") else 0.12 * (1 - look.gender)
        )
        if gap:
            self.paint(
                np.concatenate([inner_up, inner_low[::-1]]),
                [0.22, 0.06, 0.06],
                depth=0.4,
            )
            teeth = inner_low.copy()
            teeth[:, 1] = inner_up[:, 1] + (inner_low[:, 1] - inner_up[:, 1]) * 0.55
            self.paint(
                np.concatenate([inner_up, teeth[::-1]]),
                [0.93, 0.91, 0.87],
                0.95,
                depth=0.4,
            )
        self.paint(np.concatenate([upper, inner_up[::-1]]), colour * 0.88, depth=0.4)
        self.paint(np.concatenate([inner_low, lower[::-1]]), colour, depth=0.4)
        self.paint(
            self.ellipse(0, y + gap + lip * 0.75, w * 0.35, lip * 0.3),
            colour * 1.3,
            0.4,
            0.02,
            0.4,
        )
        self.paint(inner_up, [0.25, 0.1, 0.1], 0.7, depth=0.4, line=0.02)
        self.paint(
            self.ellipse(0, y + gap + lip * 1.6 + 0.05, w * 0.6, 0.035),
            look.skin * 0.6,
            0.4,
            0.03,
            0.35,
        )

    # -- hair --------------------------------------------------------------------------

    def _is_long(self) -> bool:
        look = self.look
        limit = 0.85 if look.gender == 0 else 0.06
        if look.years < 3:
            limit = 0.0
        return bool(
            (look.build[9] + 2) / 4 < limit + 0.02 * look.build[10]
        ) and not look.has("Bald")

    def _long_hair(self) -> None:
        if not self._is_long():
            return
        look = self.look
        wide, length = (
            self.half_width + 0.24,
            self.chin + 0.25 + 0.25 * abs(look.build[11]),
        )
        wave = 0.07 if look.has("Wavy_Hair") else 0.0
        y = np.linspace(self.top * 0.6, length, 9)
        x = wide + wave * np.sin(y * 7) + 0.05 * np.linspace(0, 1, 9)
        right = np.stack([x, y], 1)
        left = np.stack([-x, y], 1)[::-1]
        top = np.array(
            [
                (-0.6 * wide, self.top - 0.12),
                (0.0, self.top - 0.22),
                (0.6 * wide, self.top - 0.12),
            ]
        )
        points = np.concatenate([right, left, top])
        shape = _SPLINES[len(points)] @ points
        self.paint(shape, look.hair * 0.72, blur=0.012, depth=-0.05)
        for k in range(4):  # locks
            for side, lock in ((1, right), (-1, left[::-1])):
                inner = lock - [side * (0.05 + 0.06 * k), 0]
                shine = look.hair * (0.95 if k % 2 else 0.5)
                self.paint(inner[2:], shine, 0.5, 0.012, -0.05, line=0.025)

    def _hair(self) -> None:
        look = self.look
        if look.has("Bald"):
            for side in (-1, 1):
                self.paint(
                    self.ellipse(side * (self.half_width + 0.01), -0.25, 0.09, 0.3),
                    look.hair,
                    0.75,
                    0.03,
                    0.0,
                )
            return
        crown = self._hair_shape()
        thin = 0.45 if look.years < 3 else 1.0
        self.paint(crown, look.hair, thin * 0.97, 0.02 if thin == 1.0 else 0.05, 0.05)
        self._strands(crown, thin)
        if (
            self.look.gender == 0
            and self.look.years < 13
            and self.look.build[11] > -0.6
        ):
            self._bow()

    def _hair_shape(self) -> np.ndarray:
        look = self.look
        out = self.half_width + (0.15 if look.years > 3 else 0.04)
        if look.gender == 1:
            out -= 0.05
        up = self.top - (0.20 if look.years > 3 else 0.03)
        low = -0.10 if look.years > 3 else -0.45
        line = self.hairline
        wave = 0.05 if look.has("Wavy_Hair") else 0.0
        outside = [
            (-out, low),
            (-out - wave, -0.55),
            (-0.80 * out, up * 0.83),
            (-0.35 * out, up + wave),
            (0.05, up - 0.02),
            (0.4 * out, up + wave * 0.5),
            (0.82 * out, up * 0.83),
            (out + wave, -0.55),
            (out, low),
        ]
        w = self.half_width
        if look.has("Bangs"):
            fringe = self.brow_y - 0.10
            inside = [
                (0.95 * w, -0.2),
                (0.80 * w, fringe),
                (0.4 * w, fringe + 0.03),
                (0.0, fringe),
                (-0.4 * w, fringe + 0.04),
                (-0.80 * w, fringe),
                (-0.95 * w, -0.2),
            ]
        else:
            deep = 0.22 if look.has("Receding_Hairline") else 0.06
            part = 0.1 * look.build[10]
            inside = [
                (0.96 * w, -0.15),
                (0.88 * w, line + 0.10 - deep),
                (0.5 * w, line - deep),
                (part, line - 0.02),
                (-0.5 * w, line - deep),
                (-0.88 * w, line + 0.10 - deep),
                (-0.96 * w, -0.15),
            ]
        points = np.array(outside + inside)
        return _SPLINES[len(points)] @ points

    def _strands(self, crown: np.ndarray, thin: float) -> None:
        """A few lighter and darker strands that follow the skull."""
        rng, look = self.rng, self.look
        light = np.clip(look.hair * 1.45 + 0.04, 0, 1)
        wave = 0.03 if look.has("Wavy_Hair") else 0.0
        part = 0.1 * look.build[10]
        for x in np.linspace(-0.78, 0.78, 13) + rng.normal(0, 0.015, 13):
            t = np.linspace(0, 1, 7)
            root, tip = (
                np.array([part + 0.35 * (x - part), self.top - 0.14]),
                np.array([x * 1.06, self.hairline - 0.05 + 0.30 * x**2]),
            )
            points = root + (tip - root) * t[:, None]
            points[:, 0] += 0.18 * np.sin(np.pi * t) * x + wave * np.sin(9 * t)
            dark = rng.random() < 0.5
            self.paint(
                points,
                look.hair * 0.6 if dark else light,
                (0.35 if dark else 0.22) * thin,
                0.012,
                0.05,
                line=0.03,
            )

    def _bow(self) -> None:
        colour = np.array([[0.9, 0.25, 0.45], [0.95, 0.5, 0.7], [0.75, 0.2, 0.7]])[
            int(abs(self.look.build[8]) * 10) % 3
        ]
        side = 1 if self.look.build[8] > 0 else -1
        x, y = side * 0.42, self.top - 0.06
        for s in (-1, 1):
            wing = np.array(
                [(x, y), (x + s * 0.26, y - 0.15), (x + s * 0.26, y + 0.15)]
            )
            self.paint(wing, colour, depth=0.1)
        self.paint(self.ellipse(x, y, 0.07, 0.07), colour * 0.8, depth=0.1)

    # -- things worn -------------------------------------------------------------------

    def _wearables(self) -> None:
        look, rng = self.look, self.rng
        if look.has("Wearing_Earrings"):
            for side in (-1, 1):
                self.paint(
                    self.ellipse(side * (self.half_width + 0.05), 0.43, 0.05, 0.06),
                    [0.95, 0.85, 0.4],
                    depth=-0.1,
                )
        if look.has("Eyeglasses"):
            colour = rng.uniform(0.02, 0.35) * np.ones(3)
            for side in (-1, 1):
                rim = self.ellipse(
                    side * self.eye_x,
                    self.eye_y + 0.02,
                    self.eye_w + 0.075,
                    self.eye_h + 0.11,
                )
                self.paint(rim, [0.9, 0.95, 1.0], 0.10, depth=0.35)
                self.paint(
                    np.concatenate([rim, rim[:1]]), colour, depth=0.35, line=0.035
                )
                edge = side * (self.eye_x + self.eye_w + 0.075)
                self.paint(
                    np.array(
                        [
                            (edge, self.eye_y),
                            (side * (self.half_width + 0.02), self.eye_y - 0.02),
                        ]
                    ),
                    colour,
                    depth=0.2,
                    line=0.035,
                )
            gap = self.eye_x - self.eye_w - 0.075
            self.paint(
                np.array([(-gap, self.eye_y), (gap, self.eye_y)]),
                colour,
                depth=0.4,
                line=0.035,
            )
        if look.has("Wearing_Hat"):
            colour = rng.uniform(0.08, 0.85, 3)
            wide, brim = self.half_width + 0.17, self.hairline + 0.05
            points = [
                (-wide, brim),
                (-0.95 * wide, self.top - 0.1),
                (-0.4, self.top - 0.36),
                (0.4, self.top - 0.36),
                (0.95 * wide, self.top - 0.1),
                (wide, brim),
            ]
            self.paint(np.array(points), colour, depth=0.1)
            band = np.array(
                [
                    (-wide - 0.12, brim - 0.06),
                    (wide + 0.12, brim - 0.06),
                    (wide + 0.12, brim + 0.07),
                    (-wide - 0.12, brim + 0.07),
                ]
            )
            self.paint(band, colour * 0.7, depth=0.2)

    # -- the camera --------------------------------------------------------------------

    def _photograph(self) -> np.ndarray:
        """Side light, colour of the light, blur, exposure and noise."""
        rng, image = self.rng, self.canvas
        tint = 1 + rng.normal(0, 0.02, 3).astype("float32")
        across = np.linspace(-1, 1, self.width, dtype="float32") * self.light[0] * 0.13
        image *= (1 + across)[None, :, None] * (
            tint * np.float32(rng.uniform(0.82, 1.1))
        )
        sigma = 2.6 if self.look.has("Blurry") else abs(rng.normal(0, 0.45)) + 0.25
        sigma *= min(self.height, self.width) / 256
        if sigma > 0.3:
            image = cv2.GaussianBlur(image, (0, 0), sigma)
        noise = np.empty_like(image)
        cv2.setRNGSeed(int(rng.integers(1 << 31)))
        cv2.randn(noise, 0, float(rng.uniform(0.004, 0.025)))
        image = cv2.multiply(cv2.add(image, noise), (255.0, 255.0, 255.0, 0))
        return np.clip(image, 0, 255).astype("uint8")
