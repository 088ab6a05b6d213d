"""Drawing synthetic faces: a `Look`, a pose and a light become pixels.

Not people: pictures made of polygons and soft shades, for trying the library out and
for testing it. What a network learns from them is how they were drawn.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from keras_agegender.synthetic.canvas import FaceCanvas, draw_background, photograph
from keras_agegender.synthetic.features import (
    draw_beard,
    draw_brow,
    draw_eye,
    draw_mouth,
    draw_nose,
)
from keras_agegender.synthetic.hair import draw_hair, draw_long_hair
from keras_agegender.synthetic.head import (
    draw_body,
    draw_ears,
    draw_lines_of_age,
    draw_skin,
    draw_wearables,
)
from keras_agegender.synthetic.look import (
    Identity,
    make_look,
    sample_attributes,
    sample_identity,
    sample_years,
)


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
    face = FaceCanvas(rng, look, image_size)
    draw_background(face)
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
    image = photograph(face)
    return SyntheticFace(image, age_group, years, gender, sampled, face.face_box())
