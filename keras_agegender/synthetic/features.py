"""Features of a synthetic face: eyes, brows, nose, beard and mouth."""

from __future__ import annotations

import numpy as np

from keras_agegender.synthetic.canvas import SPLINES, FaceCanvas


def draw_eye(face: FaceCanvas, side: int) -> None:
    """Draws one eye; side -1 is left in the picture, 1 right."""
    look, x, y = face.look, side * face.eye_x, face.eye_y
    w, h = face.eye_w, face.eye_h
    t = np.linspace(0, np.pi, 10)
    droop = 0.03 * look.wear * side
    upper = np.stack([x - w * np.cos(t), y - h * np.sin(t)], 1)
    lower = np.stack([x + w * np.cos(t), y + 0.75 * h * np.sin(t)], 1)
    upper[:, 1] += droop * (upper[:, 0] - x) / w
    opening = np.concatenate([upper, lower])
    if look.has("Heavy_Makeup"):
        face.paint(
            face.ellipse(x, y - 0.05, w * 1.15, h + 0.09),
            [0.35, 0.2, 0.42],
            0.55,
            0.03,
            0.3,
        )
    face.paint(opening, [0.94, 0.93, 0.91], depth=0.3)
    gaze = 0.02 * face.yaw
    radius = min(0.105, h * 1.25 + 0.02)
    found = face.mask([face.pixels(opening, 0.3)], 0)
    before = face.canvas[found[0]].copy() if found else None
    face.paint(face.ellipse(x + gaze, y - 0.01, radius, radius), look.iris, depth=0.3)
    face.paint(
        face.ellipse(x + gaze, y - 0.01, radius * 0.5, radius * 0.5),
        [0.03, 0.03, 0.03],
        depth=0.3,
    )
    face.paint(
        face.ellipse(x + gaze - 0.03, y - 0.045, 0.022, 0.022), [1, 1, 1], depth=0.3
    )
    if found and before is not None:  # the iris ends where the lids begin
        where, inside = found
        inside = inside[..., None]
        face.canvas[where] = inside * face.canvas[where] + (1 - inside) * before
    face.paint(
        upper,
        [0.12, 0.08, 0.07],
        0.9,
        depth=0.3,
        line=0.030 + 0.022 * (1 - look.gender) + 0.02 * look.has("Heavy_Makeup"),
    )
    face.paint(lower, look.skin * 0.5, 0.5, depth=0.3, line=0.015)
    crease = upper + [0, -0.045 - 0.02 * look.growth]
    face.paint(crease, look.skin * 0.55, 0.45 + 0.3 * look.wear, depth=0.3, line=0.016)
    if look.gender == 0:
        for k in (1, 2, 3) if side < 0 else (8, 7, 6):
            end = upper[k] + [side * 0.075, -0.06]
            face.paint(
                np.array([upper[k], end]),
                [0.08, 0.06, 0.06],
                0.9,
                depth=0.3,
                line=0.022,
            )


def draw_brow(face: FaceCanvas, side: int) -> None:
    """Draws one brow."""
    look = face.look
    thick = (
        0.030 + 0.030 * look.gender * look.growth + 0.03 * look.has("Bushy_Eyebrows")
    )
    thick = thick * (0.5 + 0.5 * look.growth)
    arch = 0.05 + 0.06 * look.has("Arched_Eyebrows") - 0.01 * look.gender
    t = np.linspace(0, 1, 8)
    x = side * (face.eye_x - 0.19 + 0.40 * t)
    y = face.brow_y + 0.03 - arch * np.sin(np.pi * np.minimum(t * 0.85, 1)) * 1.2
    y += 0.02 * look.gender
    upper = np.stack([x, y - thick * (1 - 0.6 * t)], 1)
    lower = np.stack([x, y + thick * (1 - 0.8 * t)], 1)[::-1]
    color = look.hair * 0.75 + 0.02
    alpha = 0.45 + 0.45 * look.growth
    face.paint(np.concatenate([upper, lower]), color, alpha, 0.012, 0.3)


def draw_nose(face: FaceCanvas) -> None:
    """Draws the nose by its shades."""
    look, w, y = face.look, face.nose_w, face.nose_y
    side = -1 if face.light[0] > 0 else 1
    ridge = np.array(
        [
            (0.0, face.eye_y + 0.02),
            (side * 0.05, face.eye_y),
            (side * (w * 0.75), y - 0.06),
            (side * w * 0.4, y + 0.02),
        ]
    )
    face.paint(ridge, look.skin * 0.6, 0.45 * look.growth + 0.12, 0.04, 0.45)
    for s in (-1, 1):
        face.paint(
            face.ellipse(s * w * 0.7, y - 0.22, w * 0.35, 0.24),
            look.skin * 0.7,
            0.4,
            0.05,
            0.4,
        )
    face.paint(
        face.ellipse(0, y - 0.3, w * 0.28, 0.3), look.skin * 1.15, 0.4, 0.04, 0.5
    )
    face.paint(
        face.ellipse(0, y - 0.07, w * 0.42, 0.09), look.skin * 1.2, 0.5, 0.05, 0.6
    )
    face.paint(
        face.ellipse(0, y + 0.03, w * 0.95, 0.05),
        look.skin * 0.55,
        0.65,
        0.03,
        0.45,
    )
    for s in (-1, 1):
        face.paint(
            face.ellipse(s * w * 0.5, y + 0.015, w * 0.22, 0.026),
            look.skin * 0.25,
            0.75,
            0.010,
            0.5,
        )
        wing = np.array(
            [(s * w, y - 0.08), (s * w * 1.12, y - 0.01), (s * w * 0.9, y + 0.035)]
        )
        face.paint(wing, look.skin * 0.55, 0.5, 0.005, 0.42, line=0.022)


def draw_beard(face: FaceCanvas) -> None:
    """Draws beard, stubble and sideburns."""
    look = face.look
    color = look.hair * 0.85
    if look.gender == 1 and look.years >= 17 and look.has("No_Beard"):
        # Shaved skin is a shade darker all the same.
        face.paint(_beard_area(face), look.skin * 0.72, 0.22, 0.06, 0.25)
    if look.has("5_o_Clock_Shadow"):
        face.paint(_beard_area(face), look.skin * 0.42, 0.45, 0.05, 0.25)
    if look.has("Sideburns"):
        for side in (-1, 1):
            x = side * (face.half_width - 0.05)
            face.paint(
                np.array(
                    [
                        (x - 0.07, -0.25),
                        (x + 0.07, -0.25),
                        (x + 0.04 - side * 0.05, 0.42),
                        (x - 0.05 - side * 0.05, 0.42),
                    ]
                ),
                color,
                0.85,
                0.02,
                0.1,
            )
    if look.has("Goatee"):
        top = face.mouth_y + face.lip * 1.5
        wide = face.mouth_w + 0.1
        shape = [
            (-wide, face.mouth_y),
            (0, top + 0.02),
            (wide, face.mouth_y),
            (wide * 0.9, face.chin - 0.02),
            (0, face.chin + 0.1),
            (-wide * 0.9, face.chin - 0.02),
        ]
        face.paint(SPLINES[6] @ np.array(shape), color, 0.9, 0.025, 0.25)
    if look.has("Mustache"):
        y = (face.nose_y + face.mouth_y) / 2 + 0.05
        wide = face.mouth_w + 0.05
        shape = [
            (0, y - 0.06),
            (wide, y + 0.06),
            (wide * 0.6, y + 0.09),
            (0, y + 0.05),
            (-wide * 0.6, y + 0.09),
            (-wide, y + 0.06),
        ]
        face.paint(SPLINES[6] @ np.array(shape), color, 0.9, 0.015, 0.4)


def _beard_area(face: FaceCanvas) -> np.ndarray:
    jaw = face.jaw * 0.95
    points = [
        (-jaw, 0.35),
        (-face.mouth_w - 0.1, face.nose_y + 0.1),
        (0, face.nose_y + 0.08),
        (face.mouth_w + 0.1, face.nose_y + 0.1),
        (jaw, 0.35),
        (0.72 * jaw, 0.82 * face.chin),
        (0, face.chin - 0.02),
        (-0.72 * jaw, 0.82 * face.chin),
    ]
    return SPLINES[8] @ np.array(points)


def draw_mouth(face: FaceCanvas) -> None:
    """Draws lips, teeth and their shades."""
    look, y, w, lip = face.look, face.mouth_y, face.mouth_w, face.lip
    smile = 0.075 if look.has("Smiling") else -0.005 - 0.02 * look.wear
    gap = (
        (0.05 + 0.03 * look.has("Smiling")) if look.has("Mouth_Slightly_Open") else 0.0
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
    color = natural + (red - natural) * (
        0.8 if look.has("Wearing_Lipstick") else 0.2 * (1 - look.gender)
    )
    if gap:
        face.paint(
            np.concatenate([inner_up, inner_low[::-1]]),
            [0.22, 0.06, 0.06],
            depth=0.4,
        )
        teeth = inner_low.copy()
        teeth[:, 1] = inner_up[:, 1] + (inner_low[:, 1] - inner_up[:, 1]) * 0.55
        face.paint(
            np.concatenate([inner_up, teeth[::-1]]),
            [0.93, 0.91, 0.87],
            0.95,
            depth=0.4,
        )
    face.paint(np.concatenate([upper, inner_up[::-1]]), color * 0.88, depth=0.4)
    face.paint(np.concatenate([inner_low, lower[::-1]]), color, depth=0.4)
    face.paint(
        face.ellipse(0, y + gap + lip * 0.75, w * 0.35, lip * 0.3),
        color * 1.3,
        0.4,
        0.02,
        0.4,
    )
    face.paint(inner_up, [0.25, 0.1, 0.1], 0.7, depth=0.4, line=0.02)
    face.paint(
        face.ellipse(0, y + gap + lip * 1.6 + 0.05, w * 0.6, 0.035),
        look.skin * 0.6,
        0.4,
        0.03,
        0.35,
    )
