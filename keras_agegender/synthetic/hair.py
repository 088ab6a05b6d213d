"""Hair of a synthetic face."""

from __future__ import annotations

import numpy as np

from keras_agegender.synthetic.canvas import SPLINES, FaceCanvas


def _is_long(face: FaceCanvas) -> bool:
    look = face.look
    limit = 0.85 if look.gender == 0 else 0.06
    if look.years < 3:
        limit = 0.0
    return bool(
        (look.build[9] + 2) / 4 < limit + 0.02 * look.build[10]
    ) and not look.has("Bald")


def draw_long_hair(face: FaceCanvas) -> None:
    """Draws hair that falls behind the shoulders."""
    if not _is_long(face):
        return
    look = face.look
    wide, length = (
        face.half_width + 0.24,
        face.chin + 0.25 + 0.25 * abs(look.build[11]),
    )
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
    shape = SPLINES[len(points)] @ points
    face.paint(shape, look.hair * 0.72, blur=0.012, depth=-0.05)
    for k in range(4):  # locks
        for side, lock in ((1, right), (-1, left[::-1])):
            inner = lock - [side * (0.05 + 0.06 * k), 0]
            shine = look.hair * (0.95 if k % 2 else 0.5)
            face.paint(inner[2:], shine, 0.5, 0.012, -0.05, line=0.025)


def draw_hair(face: FaceCanvas) -> None:
    """Draws hair on the head."""
    look = face.look
    if look.has("Bald"):
        for side in (-1, 1):
            face.paint(
                face.ellipse(side * (face.half_width + 0.01), -0.25, 0.09, 0.3),
                look.hair,
                0.75,
                0.03,
                0.0,
            )
        return
    crown = _hair_shape(face)
    thin = 0.45 if look.years < 3 else 1.0
    face.paint(crown, look.hair, thin * 0.97, 0.02 if thin == 1.0 else 0.05, 0.05)
    _strands(face, crown, thin)
    if face.look.gender == 0 and face.look.years < 13 and face.look.build[11] > -0.6:
        _bow(face)


def _hair_shape(face: FaceCanvas) -> np.ndarray:
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
    points = np.array(outside + inside)
    return SPLINES[len(points)] @ points


def _strands(face: FaceCanvas, crown: np.ndarray, thin: float) -> None:
    """A few lighter and darker strands that follow the skull."""
    rng, look = face.rng, face.look
    light = np.clip(look.hair * 1.45 + 0.04, 0, 1)
    wave = 0.03 if look.has("Wavy_Hair") else 0.0
    part = 0.1 * look.build[10]
    for x in np.linspace(-0.78, 0.78, 13) + rng.normal(0, 0.015, 13):
        t = np.linspace(0, 1, 7)
        root, tip = (
            np.array([part + 0.35 * (x - part), face.top - 0.14]),
            np.array([x * 1.06, face.hairline - 0.05 + 0.30 * x**2]),
        )
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


def _bow(face: FaceCanvas) -> None:
    color = np.array([[0.9, 0.25, 0.45], [0.95, 0.5, 0.7], [0.75, 0.2, 0.7]])[
        int(abs(face.look.build[8]) * 10) % 3
    ]
    side = 1 if face.look.build[8] > 0 else -1
    x, y = side * 0.42, face.top - 0.06
    for s in (-1, 1):
        wing = np.array([(x, y), (x + s * 0.26, y - 0.15), (x + s * 0.26, y + 0.15)])
        face.paint(wing, color, depth=0.1)
    face.paint(face.ellipse(x, y, 0.07, 0.07), color * 0.8, depth=0.1)
