"""Canvas of a synthetic face: pose, proportions, painting, background and camera."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from keras_agegender.synthetic.look import Look

_SHIFT = 4  # cv2 draws with 1/16 pixel
_ONE = 1 << _SHIFT


def _spline(count: int, per_segment: int = 6) -> np.ndarray:
    """Returns the matrix from points of a closed curve to a Catmull-Rom polygon."""
    rows = []
    for i in range(count):
        for t in np.arange(per_segment) / per_segment:
            weights = (
                -t + 2 * t**2 - t**3,
                2 - 5 * t**2 + 3 * t**3,
                t + 4 * t**2 - 3 * t**3,
                -(t**2) + t**3,
            )
            row = np.zeros(count)
            for offset, weight in zip((-1, 0, 1, 2), weights, strict=True):
                row[(i + offset) % count] += weight / 2
            rows.append(row)
    return np.array(rows)


SPLINES = {count: _spline(count) for count in range(3, 40)}


def smooth(points: Any) -> np.ndarray:
    """Returns a smooth polygon through the points of a closed curve."""
    return SPLINES[len(points)] @ np.asarray(points)


class FaceCanvas:
    """Canvas, pose and face geometry of one image.

    Face coordinates: x to the right, y down, (0, 0) halfway between eyes and mouth. An
    adult face is about 1.5 wide and 2.4 high.
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
        """Returns face coordinates in pixels; depth shifts them when the head turns."""
        points = np.asarray(points, "float64").reshape(-1, 2)
        x = points[:, 0] * (1 - 0.10 * abs(self.yaw)) + self.yaw * depth * 0.42
        y = points[:, 1]
        c, s = np.cos(self.roll), np.sin(self.roll)
        turned = np.stack([c * x - s * y, s * x + c * y], axis=1)
        return turned * self.scale + self.center

    def face_outline(self) -> np.ndarray:
        """Returns the closed outline of the face, in face coordinates."""
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
        return smooth([(0.0, self.top), *right, (0.0, chin), *left])

    def face_box(self) -> np.ndarray:
        """Returns `bbox_xyxy` of the face from hairline to chin, in pixels."""
        outline = self.face_outline()
        pixels = self.pixels(outline[outline[:, 1] > self.hairline], 0.25)
        box = np.concatenate([pixels.min(0), pixels.max(0)])
        return box.clip(0, [self.width, self.height] * 2).astype("float32")

    def mask(
        self, points: np.ndarray, blur: float, line: float = 0.0
    ) -> tuple[tuple[slice, slice], np.ndarray] | None:
        """Returns where a polygon (or line) of pixels lies, and its coverage there."""
        reach = int(3 * blur + line + 2)
        low = np.floor(points.min(0)).astype(int) - reach
        high = np.ceil(points.max(0)).astype(int) + reach
        x0, y0 = np.clip(low, 0, [self.width, self.height])
        x1, y1 = np.clip(high, 0, [self.width, self.height])
        if x1 <= x0 or y1 <= y0:
            return None
        mask = np.zeros((y1 - y0, x1 - x0), "uint8")
        fixed = [np.round((points - [x0, y0]) * _ONE).astype("int32")]
        if line:
            thickness = max(1, round(line))
            cv2.polylines(mask, fixed, False, 255, thickness, cv2.LINE_AA, _SHIFT)
        else:
            cv2.fillPoly(mask, fixed, 255, cv2.LINE_AA, _SHIFT)
        if blur > 0.3:
            mask = cv2.GaussianBlur(mask, (0, 0), blur)
        return (slice(y0, y1), slice(x0, x1)), mask.astype("float32") / 255.0

    def paint(
        self,
        points: Any,
        color: Any,
        alpha: float = 1.0,
        blur: float = 0.0,
        depth: float = 0.25,
        line: float = 0.0,
        multiply: bool = False,
    ) -> None:
        """Paints a polygon, or a line of width `line`, in face coordinates."""
        found = self.mask(
            self.pixels(points, depth), blur * self.scale, line * self.scale
        )
        if found is None:
            return
        where, mask = found
        if line:  # a line thinner than a pixel is paler
            alpha = alpha * min(1.0, line * self.scale)
        mask = (mask * alpha)[..., None]
        part = self.canvas[where]
        color = np.asarray(color, "float32")
        if color.ndim == 3:
            color = color[where]
        part += mask * ((part * color if multiply else color) - part)

    def paint_ellipse(self, shape: Any, *args: Any, **kwargs: Any) -> None:
        """Paints `ellipse(*shape)` like `paint`."""
        self.paint(self.ellipse(*shape), *args, **kwargs)

    def ellipse(
        self, x: float, y: float, rx: float, ry: float, turn: float = 0.0
    ) -> np.ndarray:
        """Returns the polygon of an ellipse, in face coordinates."""
        t = np.linspace(0, 2 * np.pi, 24, endpoint=False)
        px, py = rx * np.cos(t), ry * np.sin(t)
        c, s = np.cos(turn), np.sin(turn)
        return np.stack([x + c * px - s * py, y + s * px + c * py], axis=1)


def draw_background(face: FaceCanvas) -> None:
    """Fills the canvas with soft light and shade."""
    rng = face.rng
    # Mostly brightness and little color, like rooms and skies.
    base = rng.uniform(0.2, 0.85) + rng.normal(0, 0.07, 3)
    light = rng.normal(0, rng.uniform(0.02, 0.14), (5, 5, 1))
    coarse = base + light + rng.normal(0, 0.025, (5, 5, 3))
    face.canvas[:] = cv2.resize(
        coarse.astype("float32"),
        (face.width, face.height),
        interpolation=cv2.INTER_CUBIC,
    )


def photograph(face: FaceCanvas) -> np.ndarray:
    """Returns the image with side light, tint, exposure, blur and noise."""
    rng, image = face.rng, face.canvas
    tint = 1 + rng.normal(0, 0.02, 3).astype("float32")
    across = np.linspace(-1, 1, face.width, dtype="float32") * face.light[0] * 0.13
    image *= (1 + across)[None, :, None] * (tint * np.float32(rng.uniform(0.82, 1.1)))
    sigma = 2.6 if face.look.has("Blurry") else abs(rng.normal(0, 0.45)) + 0.25
    sigma *= min(face.height, face.width) / 256
    if sigma > 0.3:
        image = cv2.GaussianBlur(image, (0, 0), sigma)
    noise = np.empty_like(image)
    cv2.setRNGSeed(int(rng.integers(1 << 31)))
    deviation: Any = float(rng.uniform(0.004, 0.025))
    cv2.randn(noise, 0, deviation)  # type: ignore[call-overload]
    image = cv2.add(image, noise) * np.float32(255)
    return np.clip(image, 0, 255).astype("uint8")
