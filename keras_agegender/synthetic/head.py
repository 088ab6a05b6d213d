"""Head and shoulders of a synthetic face: skin, its age, and what is worn."""

from __future__ import annotations

import cv2
import numpy as np

from keras_agegender.synthetic.canvas import FaceCanvas


def draw_body(face: FaceCanvas) -> None:
    """Draws neck, clothes and what is worn on them."""
    look, rng = face.look, face.rng
    neck = 0.30 + 0.12 * look.growth + 0.08 * look.gender * look.growth
    shade = look.skin * 0.78
    bottom = face.chin + 0.9
    face.paint(
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
        face.paint(
            face.ellipse(0, face.chin + 0.05, 0.42, 0.16),
            look.skin * 0.9,
            blur=0.02,
            depth=0.1,
        )
    cloth = rng.uniform(0.1, 0.9, 3)
    wide = 0.9 + 0.5 * look.growth + 0.2 * look.gender * look.growth
    top = face.chin + 0.22
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
    face.paint(points, cloth, depth=0)
    if look.has("Wearing_Necktie"):
        tie = rng.uniform(0.05, 0.8, 3)
        face.paint(
            np.array(
                [(-0.09, top + 0.16), (0.09, top + 0.16), (0.14, 3.0), (-0.14, 3.0)]
            ),
            tie,
            depth=0,
        )
        face.paint(
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
        chain = np.stack([np.cos(t) * (neck + 0.02), top - 0.12 + 0.3 * np.sin(t)], 1)
        face.paint(chain, np.array([0.9, 0.78, 0.35]), line=0.035, depth=0)


def draw_ears(face: FaceCanvas) -> None:
    """Draws both ears."""
    for side in (-1, 1):
        x = side * (face.half_width + 0.02)
        face.paint(face.ellipse(x, 0.12, 0.12, 0.24), face.look.skin * 0.86, depth=-0.1)
        face.paint(
            face.ellipse(x, 0.14, 0.06, 0.15),
            face.look.skin * 0.66,
            blur=0.02,
            depth=-0.1,
            alpha=0.7,
        )


def draw_skin(face: FaceCanvas) -> None:
    """Draws the shaded face with sockets and cheeks."""
    look = face.look
    face.paint(face.face_outline(), _shaded_skin(face), depth=0.12)
    dark = look.skin * 0.72
    for side in (-1, 1):
        x = side * face.eye_x
        # Sockets: MTCNN looks for dark eyes under brows more than for their lines.
        face.paint(
            face.ellipse(
                x, face.eye_y - 0.02, face.eye_w * 1.5, face.eye_h * 1.9 + 0.04
            ),
            dark,
            0.42,
            0.06,
        )
        face.paint(
            face.ellipse(
                0.98 * x, face.eye_y - 0.03, face.eye_w * 1.35, face.eye_h + 0.12
            ),
            look.skin * 0.6,
            0.4,
            0.06,
            0.3,
        )
        cheek = (side * 0.45, face.nose_y + 0.02)
        chub = 0.35 * (1 - look.growth) + 0.12
        face.paint(
            face.ellipse(*cheek, 0.24, 0.2),
            [0.92, 0.45, 0.42],
            0.75 * chub + 0.35 * look.has("Rosy_Cheeks"),
            0.12,
        )
        if look.has("High_Cheekbones"):
            face.paint(
                face.ellipse(side * 0.5, face.eye_y + 0.27, 0.2, 0.06, side * -0.4),
                look.skin * 1.18,
                0.5,
                0.05,
            )
        hollow = 0.3 * look.growth * (0.3 + look.wear) + 0.25 * look.has(
            "High_Cheekbones"
        )
        face.paint(
            face.ellipse(side * 0.56, face.mouth_y - 0.08, 0.12, 0.26, side * 0.3),
            dark,
            hollow,
            0.08,
        )


def _shaded_skin(face: FaceCanvas) -> np.ndarray:
    """Skin lit as an ellipsoid, with pores and spots that grow with age."""
    look = face.look
    rows, columns = face.height // 2 + 1, face.width // 2 + 1
    x, y = np.meshgrid(np.arange(columns) * 2.0, np.arange(rows) * 2.0)
    dx, dy = (x - face.center[0]) / face.scale, (y - face.center[1]) / face.scale
    c, s = np.cos(face.roll), np.sin(face.roll)
    u = ((c * dx + s * dy) - 0.1 * face.yaw) / (face.half_width * 1.15)
    v = (c * dy - s * dx + 0.05) / 1.45
    nz = np.sqrt(np.clip(1 - u * u - v * v, 0.02, 1))
    lit = np.clip(u * face.light[0] + v * face.light[1] + nz * face.light[2], 0, 1)
    shade = (0.55 + 0.52 * lit).astype("float32")
    rough = 0.010 + 0.05 * look.wear
    noise = face.rng.normal(0, rough, (rows // 2 + 1, columns // 2 + 1))
    spots = cv2.resize(noise.astype("float32"), (columns, rows))
    shade = cv2.resize(shade * (1 + spots), (face.width, face.height))
    return shade[..., None] * look.skin


def draw_lines_of_age(face: FaceCanvas) -> None:
    """Draws lines, folds and spots, as deep as the look is worn."""
    look = face.look
    wear = look.wear
    dark = np.array([0.55, 0.45, 0.42], "float32")
    strokes: list[tuple[np.ndarray, float, float]] = []
    t = np.linspace(-1, 1, 9)
    for k in range(int(round(1 + 3.4 * wear)) if wear > 0.15 else 0):
        y = face.hairline * 0.62 + 0.13 * k - 0.02
        bow = np.stack([0.42 * t, y + 0.03 * t**2 - 0.02], axis=1)
        strokes.append((bow, 0.85 * wear, 0.020 + 0.014 * wear))
    for side in (-1, 1):
        nose, mouth = (
            (side * (face.nose_w + 0.05), face.nose_y - 0.03),
            (side * (face.mouth_w + 0.07), face.mouth_y + 0.03 + 0.12 * wear),
        )
        middle = (side * (face.nose_w + 0.19), (nose[1] + mouth[1]) / 2 - 0.02)
        fold = np.array([nose, middle, mouth])
        strokes.append((fold, 0.12 * look.growth + 0.75 * wear, 0.022 + 0.03 * wear))
        corner = side * (face.eye_x + face.eye_w * 1.15)
        for k in range(3 if wear > 0.35 else 0):
            end = (corner + side * 0.17, face.eye_y - 0.07 + 0.085 * k)
            strokes.append(
                (
                    np.array([(corner, face.eye_y + 0.01), end]),
                    0.75 * wear,
                    0.018 + 0.01 * wear,
                )
            )
        bags = 0.45 * wear + 0.45 * look.has("Bags_Under_Eyes")
        arc = np.stack(
            [
                side * face.eye_x + face.eye_w * t,
                face.eye_y + face.eye_h + 0.075 - 0.045 * t**2,
            ],
            axis=1,
        )
        strokes.append((arc, bags, 0.035))
        if wear > 0.6:
            jowl = np.array(
                [
                    (side * (face.mouth_w + 0.08), face.mouth_y + 0.12),
                    (side * 0.42, face.chin - 0.2),
                    (side * 0.38, face.chin - 0.08),
                ]
            )
            strokes.append((jowl, 0.6 * wear, 0.035))
    for points, alpha, width in strokes:
        face.paint(points, dark, min(alpha, 0.9), 0.012, 0.3, line=width, multiply=True)


def draw_wearables(face: FaceCanvas) -> None:
    """Draws earrings, glasses and hat."""
    look, rng = face.look, face.rng
    if look.has("Wearing_Earrings"):
        for side in (-1, 1):
            face.paint(
                face.ellipse(side * (face.half_width + 0.05), 0.43, 0.05, 0.06),
                [0.95, 0.85, 0.4],
                depth=-0.1,
            )
    if look.has("Eyeglasses"):
        color = rng.uniform(0.02, 0.35) * np.ones(3)
        for side in (-1, 1):
            rim = face.ellipse(
                side * face.eye_x,
                face.eye_y + 0.02,
                face.eye_w + 0.075,
                face.eye_h + 0.11,
            )
            face.paint(rim, [0.9, 0.95, 1.0], 0.10, depth=0.35)
            face.paint(np.concatenate([rim, rim[:1]]), color, depth=0.35, line=0.035)
            edge = side * (face.eye_x + face.eye_w + 0.075)
            face.paint(
                np.array(
                    [
                        (edge, face.eye_y),
                        (side * (face.half_width + 0.02), face.eye_y - 0.02),
                    ]
                ),
                color,
                depth=0.2,
                line=0.035,
            )
        gap = face.eye_x - face.eye_w - 0.075
        face.paint(
            np.array([(-gap, face.eye_y), (gap, face.eye_y)]),
            color,
            depth=0.4,
            line=0.035,
        )
    if look.has("Wearing_Hat"):
        color = rng.uniform(0.08, 0.85, 3)
        wide, brim = face.half_width + 0.17, face.hairline + 0.05
        points = [
            (-wide, brim),
            (-0.95 * wide, face.top - 0.1),
            (-0.4, face.top - 0.36),
            (0.4, face.top - 0.36),
            (0.95 * wide, face.top - 0.1),
            (wide, brim),
        ]
        face.paint(np.array(points), color, depth=0.1)
        band = np.array(
            [
                (-wide - 0.12, brim - 0.06),
                (wide + 0.12, brim - 0.06),
                (wide + 0.12, brim + 0.07),
                (-wide - 0.12, brim + 0.07),
            ]
        )
        face.paint(band, color * 0.7, depth=0.2)
