"""Draws synthetic faces."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from keras_agegender.synthetic import canvas
from keras_agegender.synthetic.look import (
    Identity,
    make_look,
    sample_attributes,
    sample_identity,
    sample_years,
)


def draw_eye(face: canvas.FaceCanvas, side: int) -> None:
    """Draws one eye; side -1 is on the left of the image, 1 on the right."""
    look, x, y = face.look, side * face.eye_x, face.eye_y
    w, h = face.eye_w, face.eye_h
    t = np.linspace(0, np.pi, 10)
    droop = 0.03 * look.wear * side
    upper = np.stack([x - w * np.cos(t), y - h * np.sin(t)], 1)
    lower = np.stack([x + w * np.cos(t), y + 0.75 * h * np.sin(t)], 1)
    upper[:, 1] += droop * (upper[:, 0] - x) / w
    opening = np.concatenate([upper, lower])
    if look.has("Heavy_Makeup"):
        face.paint_ellipse(
            (x, y - 0.05, w * 1.15, h + 0.09), [0.35, 0.2, 0.42], 0.55, 0.03, 0.3
        )
    face.paint(opening, [0.94, 0.93, 0.91], depth=0.3)
    gaze = 0.02 * face.yaw
    radius = min(0.105, h * 1.25 + 0.02)
    found = face.mask(face.pixels(opening, 0.3), 0)
    before = face.canvas[found[0]].copy() if found else None
    face.paint_ellipse((x + gaze, y - 0.01, radius, radius), look.iris, depth=0.3)
    face.paint_ellipse(
        (x + gaze, y - 0.01, radius * 0.5, radius * 0.5), [0.03, 0.03, 0.03], depth=0.3
    )
    face.paint_ellipse((x + gaze - 0.03, y - 0.045, 0.022, 0.022), [1, 1, 1], depth=0.3)
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
            face.paint([upper[k], end], [0.08, 0.06, 0.06], 0.9, depth=0.3, line=0.022)


def draw_brow(face: canvas.FaceCanvas, side: int) -> None:
    """Draws one eyebrow."""
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


def draw_nose(face: canvas.FaceCanvas) -> None:
    """Draws the nose through its shading."""
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
        face.paint_ellipse(
            (s * w * 0.7, y - 0.22, w * 0.35, 0.24), look.skin * 0.7, 0.4, 0.05, 0.4
        )
    face.paint_ellipse((0, y - 0.3, w * 0.28, 0.3), look.skin * 1.15, 0.4, 0.04, 0.5)
    face.paint_ellipse((0, y - 0.07, w * 0.42, 0.09), look.skin * 1.2, 0.5, 0.05, 0.6)
    face.paint_ellipse(
        (0, y + 0.03, w * 0.95, 0.05), look.skin * 0.55, 0.65, 0.03, 0.45
    )
    for s in (-1, 1):
        shape = (s * w * 0.5, y + 0.015, w * 0.22, 0.026)
        face.paint_ellipse(shape, look.skin * 0.25, 0.75, 0.010, 0.5)
        wing = np.array(
            [(s * w, y - 0.08), (s * w * 1.12, y - 0.01), (s * w * 0.9, y + 0.035)]
        )
        face.paint(wing, look.skin * 0.55, 0.5, 0.005, 0.42, line=0.022)


def draw_beard(face: canvas.FaceCanvas) -> None:
    """Draws beard, stubble and sideburns."""
    look = face.look
    color = look.hair * 0.85
    if look.gender == 1 and look.years >= 17 and look.has("No_Beard"):
        # Shaved skin is still a shade darker.
        face.paint(_beard_area(face), look.skin * 0.72, 0.22, 0.06, 0.25)
    if look.has("5_o_Clock_Shadow"):
        face.paint(_beard_area(face), look.skin * 0.42, 0.45, 0.05, 0.25)
    if look.has("Sideburns"):
        for side in (-1, 1):
            x = side * (face.half_width - 0.05)
            shape = [
                (x - 0.07, -0.25),
                (x + 0.07, -0.25),
                (x + 0.04 - side * 0.05, 0.42),
                (x - 0.05 - side * 0.05, 0.42),
            ]
            face.paint(shape, color, 0.85, 0.02, 0.1)
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
        face.paint(canvas.smooth(shape), color, 0.9, 0.025, 0.25)
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
        face.paint(canvas.smooth(shape), color, 0.9, 0.015, 0.4)


def _beard_area(face: canvas.FaceCanvas) -> np.ndarray:
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
    return canvas.smooth(points)


def draw_mouth(face: canvas.FaceCanvas) -> None:
    """Draws lips, teeth and their shading."""
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
            np.concatenate([inner_up, inner_low[::-1]]), [0.22, 0.06, 0.06], depth=0.4
        )
        teeth = inner_low.copy()
        teeth[:, 1] = inner_up[:, 1] + (inner_low[:, 1] - inner_up[:, 1]) * 0.55
        face.paint(
            np.concatenate([inner_up, teeth[::-1]]), [0.93, 0.91, 0.87], 0.95, depth=0.4
        )
    face.paint(np.concatenate([upper, inner_up[::-1]]), color * 0.88, depth=0.4)
    face.paint(np.concatenate([inner_low, lower[::-1]]), color, depth=0.4)
    face.paint_ellipse(
        (0, y + gap + lip * 0.75, w * 0.35, lip * 0.3), color * 1.3, 0.4, 0.02, 0.4
    )
    face.paint(inner_up, [0.25, 0.1, 0.1], 0.7, depth=0.4, line=0.02)
    shape = (0, y + gap + lip * 1.6 + 0.05, w * 0.6, 0.035)
    face.paint_ellipse(shape, look.skin * 0.6, 0.4, 0.03, 0.35)


def _is_long(face: canvas.FaceCanvas) -> bool:
    look = face.look
    limit = 0.85 if look.gender == 0 else 0.06
    if look.years < 3:
        limit = 0.0
    length = (look.build[9] + 2) / 4
    return bool(length < limit + 0.02 * look.build[10]) and not look.has("Bald")


def draw_long_hair(face: canvas.FaceCanvas) -> None:
    """Draws hair that falls behind the shoulders."""
    if not _is_long(face):
        return
    look = face.look
    wide = face.half_width + 0.24
    length = face.chin + 0.25 + 0.25 * abs(look.build[11])
    wave = 0.07 if look.has("Wavy_Hair") else 0.0
    y = np.linspace(face.top * 0.6, length, 9)
    x = wide + wave * np.sin(y * 7) + 0.05 * np.linspace(0, 1, 9)
    right = np.stack([x, y], 1)
    left = np.stack([-x, y], 1)[::-1]
    top = np.array(
        [
            (-0.6 * wide, face.top - 0.12),
            (0.0, face.top - 0.22),
            (0.6 * wide, face.top - 0.12),
        ]
    )
    points = np.concatenate([right, left, top])
    shape = canvas.smooth(points)
    face.paint(shape, look.hair * 0.72, blur=0.012, depth=-0.05)
    for k in range(4):  # locks
        for side, lock in ((1, right), (-1, left[::-1])):
            inner = lock - [side * (0.05 + 0.06 * k), 0]
            shine = look.hair * (0.95 if k % 2 else 0.5)
            face.paint(inner[2:], shine, 0.5, 0.012, -0.05, line=0.025)


def draw_hair(face: canvas.FaceCanvas) -> None:
    """Draws hair on the head."""
    look = face.look
    if look.has("Bald"):
        for side in (-1, 1):
            shape = (side * (face.half_width + 0.01), -0.25, 0.09, 0.3)
            face.paint_ellipse(shape, look.hair, 0.75, 0.03, 0.0)
        return
    crown = _hair_shape(face)
    thin = 0.45 if look.years < 3 else 1.0
    face.paint(crown, look.hair, thin * 0.97, 0.02 if thin == 1.0 else 0.05, 0.05)
    _strands(face, crown, thin)
    if face.look.gender == 0 and face.look.years < 13 and face.look.build[11] > -0.6:
        _bow(face)


def _hair_shape(face: canvas.FaceCanvas) -> np.ndarray:
    look = face.look
    out = face.half_width + (0.15 if look.years > 3 else 0.04)
    if look.gender == 1:
        out -= 0.05
    up = face.top - (0.20 if look.years > 3 else 0.03)
    low = -0.10 if look.years > 3 else -0.45
    line = face.hairline
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
    w = face.half_width
    if look.has("Bangs"):
        fringe = face.brow_y - 0.10
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
    return canvas.smooth(outside + inside)


def _strands(face: canvas.FaceCanvas, crown: np.ndarray, thin: float) -> None:
    """Draws a few lighter and darker strands that follow the skull."""
    rng, look = face.rng, face.look
    light = np.clip(look.hair * 1.45 + 0.04, 0, 1)
    wave = 0.03 if look.has("Wavy_Hair") else 0.0
    part = 0.1 * look.build[10]
    for x in np.linspace(-0.78, 0.78, 13) + rng.normal(0, 0.015, 13):
        t = np.linspace(0, 1, 7)
        root = np.array([part + 0.35 * (x - part), face.top - 0.14])
        tip = np.array([x * 1.06, face.hairline - 0.05 + 0.30 * x**2])
        points = root + (tip - root) * t[:, None]
        points[:, 0] += 0.18 * np.sin(np.pi * t) * x + wave * np.sin(9 * t)
        dark = rng.random() < 0.5
        face.paint(
            points,
            look.hair * 0.6 if dark else light,
            (0.35 if dark else 0.22) * thin,
            0.012,
            0.05,
            line=0.03,
        )


def _bow(face: canvas.FaceCanvas) -> None:
    color = np.array([[0.9, 0.25, 0.45], [0.95, 0.5, 0.7], [0.75, 0.2, 0.7]])[
        int(abs(face.look.build[8]) * 10) % 3
    ]
    side = 1 if face.look.build[8] > 0 else -1
    x, y = side * 0.42, face.top - 0.06
    for s in (-1, 1):
        wing = np.array([(x, y), (x + s * 0.26, y - 0.15), (x + s * 0.26, y + 0.15)])
        face.paint(wing, color, depth=0.1)
    face.paint_ellipse((x, y, 0.07, 0.07), color * 0.8, depth=0.1)


def draw_body(face: canvas.FaceCanvas) -> None:
    """Draws neck, clothes, tie and necklace."""
    look, rng = face.look, face.rng
    neck = 0.30 + 0.12 * look.growth + 0.08 * look.gender * look.growth
    shade = look.skin * 0.78
    bottom = face.chin + 0.9
    face.paint(
        [(-neck, 0.3), (neck, 0.3), (neck * 1.15, bottom), (-neck * 1.15, bottom)],
        shade,
        depth=0,
    )
    if look.has("Double_Chin"):
        face.paint_ellipse(
            (0, face.chin + 0.05, 0.42, 0.16), look.skin * 0.9, blur=0.02, depth=0.1
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
            [(-0.09, top + 0.16), (0.09, top + 0.16), (0.14, 3.0), (-0.14, 3.0)],
            tie,
            depth=0,
        )
        inner, outer = (0, top + 0.2), [(0.3, top), (0.2, top + 0.4)]
        collar = [(-0.3, top), inner, *outer, inner, (-0.2, top + 0.4)]
        face.paint(collar, np.array([0.95, 0.95, 0.96]), depth=0)
    if look.has("Wearing_Necklace"):
        t = np.linspace(0.15, np.pi - 0.15, 16)
        chain = np.stack([np.cos(t) * (neck + 0.02), top - 0.12 + 0.3 * np.sin(t)], 1)
        face.paint(chain, np.array([0.9, 0.78, 0.35]), line=0.035, depth=0)


def draw_ears(face: canvas.FaceCanvas) -> None:
    """Draws both ears."""
    for side in (-1, 1):
        x = side * (face.half_width + 0.02)
        skin = face.look.skin
        face.paint_ellipse((x, 0.12, 0.12, 0.24), skin * 0.86, depth=-0.1)
        face.paint_ellipse((x, 0.14, 0.06, 0.15), skin * 0.66, 0.7, 0.02, -0.1)


def draw_skin(face: canvas.FaceCanvas) -> None:
    """Draws the shaded face with sockets and cheeks."""
    look = face.look
    face.paint(face.face_outline(), _shaded_skin(face), depth=0.12)
    dark = look.skin * 0.72
    for side in (-1, 1):
        x = side * face.eye_x
        # Sockets: MTCNN responds to dark areas below the brows more than to outlines.
        shape = (x, face.eye_y - 0.02, face.eye_w * 1.5, face.eye_h * 1.9 + 0.04)
        face.paint_ellipse(shape, dark, 0.42, 0.06)
        shape = (0.98 * x, face.eye_y - 0.03, face.eye_w * 1.35, face.eye_h + 0.12)
        face.paint_ellipse(shape, look.skin * 0.6, 0.4, 0.06, 0.3)
        cheek = (side * 0.45, face.nose_y + 0.02, 0.24, 0.2)
        chub = 0.35 * (1 - look.growth) + 0.12
        rosy = 0.75 * chub + 0.35 * look.has("Rosy_Cheeks")
        face.paint_ellipse(cheek, [0.92, 0.45, 0.42], rosy, 0.12)
        if look.has("High_Cheekbones"):
            bone = (side * 0.5, face.eye_y + 0.27, 0.2, 0.06, side * -0.4)
            face.paint_ellipse(bone, look.skin * 1.18, 0.5, 0.05)
        hollow = 0.3 * look.growth * (0.3 + look.wear)
        hollow = hollow + 0.25 * look.has("High_Cheekbones")
        jaw = (side * 0.56, face.mouth_y - 0.08, 0.12, 0.26, side * 0.3)
        face.paint_ellipse(jaw, dark, hollow, 0.08)


def _shaded_skin(face: canvas.FaceCanvas) -> np.ndarray:
    """Returns skin lit like an ellipsoid, its pores and spots stronger with age."""
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


def draw_lines_of_age(face: canvas.FaceCanvas) -> None:
    """Draws wrinkles and folds, deeper with age."""
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
        nose = (side * (face.nose_w + 0.05), face.nose_y - 0.03)
        mouth = (side * (face.mouth_w + 0.07), face.mouth_y + 0.03 + 0.12 * wear)
        middle = (side * (face.nose_w + 0.19), (nose[1] + mouth[1]) / 2 - 0.02)
        fold = np.array([nose, middle, mouth])
        strokes.append((fold, 0.12 * look.growth + 0.75 * wear, 0.022 + 0.03 * wear))
        corner = side * (face.eye_x + face.eye_w * 1.15)
        for k in range(3 if wear > 0.35 else 0):
            end = (corner + side * 0.17, face.eye_y - 0.07 + 0.085 * k)
            line = np.array([(corner, face.eye_y + 0.01), end])
            strokes.append((line, 0.75 * wear, 0.018 + 0.01 * wear))
        bags = 0.45 * wear + 0.45 * look.has("Bags_Under_Eyes")
        below = face.eye_y + face.eye_h + 0.075 - 0.045 * t**2
        arc = np.stack([side * face.eye_x + face.eye_w * t, below], axis=1)
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


def draw_wearables(face: canvas.FaceCanvas) -> None:
    """Draws earrings, glasses and a hat."""
    look, rng = face.look, face.rng
    if look.has("Wearing_Earrings"):
        for side in (-1, 1):
            shape = (side * (face.half_width + 0.05), 0.43, 0.05, 0.06)
            face.paint_ellipse(shape, [0.95, 0.85, 0.4], depth=-0.1)
    if look.has("Eyeglasses"):
        color = rng.uniform(0.02, 0.35) * np.ones(3)
        for side in (-1, 1):
            size = (face.eye_w + 0.075, face.eye_h + 0.11)
            rim = face.ellipse(side * face.eye_x, face.eye_y + 0.02, *size)
            face.paint(rim, [0.9, 0.95, 1.0], 0.10, depth=0.35)
            face.paint(np.concatenate([rim, rim[:1]]), color, depth=0.35, line=0.035)
            edge = side * (face.eye_x + face.eye_w + 0.075)
            ear = (side * (face.half_width + 0.02), face.eye_y - 0.02)
            face.paint([(edge, face.eye_y), ear], color, depth=0.2, line=0.035)
        gap = face.eye_x - face.eye_w - 0.075
        face.paint(
            [(-gap, face.eye_y), (gap, face.eye_y)], color, depth=0.4, line=0.035
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
        face.paint(points, color, depth=0.1)
        band = np.array(
            [
                (-wide - 0.12, brim - 0.06),
                (wide + 0.12, brim - 0.06),
                (wide + 0.12, brim + 0.07),
                (-wide - 0.12, brim + 0.07),
            ]
        )
        face.paint(band, color * 0.7, depth=0.2)


@dataclass(frozen=True)
class SyntheticFace:
    """A drawn face and its labels.

    Attributes:
        image: RGB. Shape (height, width, 3), uint8.
        age_group: Id in [0, 8).
        years: Age in years.
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

    Example:
    >>> draw_face(0, age_group=4, gender=1).image.shape
    (256, 256, 3)
    """
    if age_group not in range(8) or gender not in (0, 1):
        raise ValueError(
            "Invalid labels. Expected age_group in [0, 8) and gender 0 or 1. "
            f"Received: age_group={age_group}, gender={gender}."
        )
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
    face = canvas.FaceCanvas(rng, look, image_size)
    canvas.draw_background(face)
    draw_long_hair(face)
    draw_body(face)
    draw_ears(face)
    draw_skin(face)
    draw_lines_of_age(face)
    for side in (-1, 1):
        draw_eye(face, side)
        draw_brow(face, side)
    draw_nose(face)
    draw_beard(face)
    draw_mouth(face)
    draw_hair(face)
    draw_wearables(face)
    image = canvas.photograph(face)
    return SyntheticFace(image, age_group, years, gender, sampled, face.face_box())
