"""The look of a synthetic face, sampled before it is drawn.

Proportions and textures follow the age: small children have round heads, large low eyes
and little hair; faces lengthen until about 22; wrinkles, gray hair and baldness follow.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from keras_agegender.labels import AGE_GROUPS, CELEBA_ATTRIBUTES

# Years -> depth of wrinkles.
WEAR = ([18, 26, 32, 40, 51, 62, 85], [0, 0.12, 0.22, 0.48, 0.70, 0.92, 1.0])

# Highest age that is drawn; the last age group has no upper bound.
OLDEST = 90

# Skin and hair as RGB in [0, 1]. Skin does not depend on age or gender.
SKIN_TONES = np.array(
    [[0.98, 0.86, 0.77], [0.95, 0.80, 0.69], [0.90, 0.72, 0.58], [0.80, 0.60, 0.45],
     [0.66, 0.47, 0.34], [0.50, 0.34, 0.25], [0.38, 0.26, 0.20]], "float32"
)  # fmt: skip
HAIR_COLORS = {
    "Black_Hair": (0.10, 0.08, 0.08),
    "Brown_Hair": (0.34, 0.21, 0.13),
    "Blond_Hair": (0.83, 0.68, 0.40),
}
IRISES = np.array(
    [[0.25, 0.15, 0.08], [0.35, 0.24, 0.12], [0.30, 0.45, 0.62], [0.35, 0.48, 0.32]],
    "float32",
)
GRAY = np.array([0.80, 0.80, 0.80], "float32")


@dataclass(frozen=True)
class Look:
    """Everything that determines a face apart from pose, light and background.

    Attributes:
        years: Age in years.
        gender: 0 female, 1 male.
        attributes: CelebA's 40 attributes, 0 or 1. All are visible but `Attractive`,
            a judgment.
        skin: RGB in [0, 1]. Shape (3,).
        hair: RGB in [0, 1], gray mixed in. Shape (3,).
        iris: RGB in [0, 1]. Shape (3,).
        growth: From 0, newborn, to 1, adult.
        wear: From 0, smooth skin, to 1, deeply wrinkled.
        build: Small differences between people, standard normal. Shape (12,).
    """

    years: float
    gender: int
    attributes: dict[str, int]
    skin: np.ndarray
    hair: np.ndarray
    iris: np.ndarray
    growth: float
    wear: float
    build: np.ndarray

    def has(self, attribute: str) -> bool:
        """Returns whether an attribute is set."""
        return bool(self.attributes[attribute])


def sample_years(rng: np.random.Generator, age_group: int) -> float:
    """Samples an age within a group, in years."""
    low, high = AGE_GROUPS[age_group]
    return float(rng.uniform(low, min(high, OLDEST) + 0.99))


def sample_attributes(
    rng: np.random.Generator, years: float, gender: int
) -> dict[str, int]:
    """Samples CelebA's 40 attributes, consistent with each other, age and gender."""
    male, adult = gender == 1, years >= 17
    old = float(np.clip((years - 35) / 35, 0, 1))
    beard = male and adult and rng.random() < 0.45
    style = rng.choice(["full", "goatee", "mustache", "stubble"]) if beard else ""
    gray = rng.random() < np.clip((years - 40) / 22, 0, 0.97)
    color = "Gray_Hair" if gray else rng.choice(list(HAIR_COLORS), p=[0.4, 0.4, 0.2])
    bald = male and rng.random() < (0.45 * old if adult else 0)
    makeup = not male and years >= 15 and rng.random() < 0.55
    wavy = rng.random() < 0.4

    def chance(probability: float, possible: bool = True) -> int:
        return int(possible and rng.random() < probability)

    values = dict.fromkeys(CELEBA_ATTRIBUTES, 0)
    values.update(
        {
            "Male": int(male),
            "Young": int(years < 40),
            "Attractive": chance(0.5),
            "5_o_Clock_Shadow": int(style == "stubble"),
            "Goatee": int(style in ("goatee", "full")),
            "Mustache": int(style in ("mustache", "full", "goatee")),
            "Sideburns": int(style == "full") or chance(0.15, male and adult),
            "No_Beard": int(not beard),
            "Arched_Eyebrows": chance(0.5 if not male else 0.1, adult),
            "Bushy_Eyebrows": chance(0.35 if male else 0.05, years > 12),
            "Bags_Under_Eyes": chance(0.15 + 0.6 * old, adult),
            "Bald": int(bald),
            "Receding_Hairline": chance(0.1 + 0.6 * old, adult and not bald and male),
            "Bangs": chance(0.35 if not male else 0.2, not bald and years > 2),
            color: 1,
            "Straight_Hair": int(not wavy),
            "Wavy_Hair": int(wavy),
            "Big_Lips": chance(0.3),
            "Big_Nose": chance(0.35 if male else 0.15, years > 12),
            "Pointy_Nose": chance(0.3),
            "Chubby": chance(0.2),
            "Double_Chin": chance(0.1 + 0.25 * old, adult),
            "Oval_Face": chance(0.3),
            "High_Cheekbones": chance(0.4, adult),
            "Narrow_Eyes": chance(0.15),
            "Eyeglasses": chance(0.1 + 0.25 * old, years > 6),
            "Heavy_Makeup": int(makeup and rng.random() < 0.6),
            "Wearing_Lipstick": int(makeup),
            "Rosy_Cheeks": int((makeup and rng.random() < 0.4) or rng.random() < 0.08),
            "Smiling": chance(0.5),
            "Mouth_Slightly_Open": chance(0.4),
            "Pale_Skin": chance(0.08),
            "Blurry": chance(0.05),
            "Wearing_Earrings": chance(0.4, not male and years > 7),
            "Wearing_Hat": chance(0.06),
            "Wearing_Necklace": chance(0.25, not male and years > 14),
            "Wearing_Necktie": chance(0.2, male and adult),
        }
    )
    return {name: int(values[name]) for name in CELEBA_ATTRIBUTES}


@dataclass(frozen=True)
class Identity:
    """What all images of one person share: `skin`, `iris` and `build` of a `Look`."""

    skin: np.ndarray
    iris: np.ndarray
    build: np.ndarray


def sample_identity(rng: np.random.Generator) -> Identity:
    """Samples a person's skin, eyes and build."""
    tone = rng.uniform(0, len(SKIN_TONES) - 1.001)
    low = int(tone)
    skin = SKIN_TONES[low] + (SKIN_TONES[low + 1] - SKIN_TONES[low]) * (tone - low)
    iris = IRISES[rng.choice(4, p=[0.45, 0.25, 0.18, 0.12])]
    return Identity(skin.astype("float32"), iris, rng.normal(size=12).clip(-2, 2))


def make_look(
    rng: np.random.Generator,
    identity: Identity,
    years: float,
    gender: int,
    attributes: dict[str, int],
) -> Look:
    """Returns the look of a person at an age, with a gender and attributes."""
    skin = identity.skin
    if attributes["Pale_Skin"]:
        skin = skin + (np.float32(1.0) - skin) * 0.35
    hair = _hair_color(rng, years, attributes)
    growth = float(np.clip(years / 22, 0.02, 1) ** 0.75)
    wear = float(np.interp(years, *WEAR))
    wear = float(np.clip(wear + rng.normal(0, 0.02), 0, 1))
    skin = skin.astype("float32")
    return Look(
        years, gender, attributes, skin, hair, identity.iris, growth, wear,
        identity.build,
    )  # fmt: skip


def _hair_color(
    rng: np.random.Generator, years: float, attributes: dict[str, int]
) -> np.ndarray:
    colors = [color for name, color in HAIR_COLORS.items() if attributes[name]]
    base = np.array([*colors, HAIR_COLORS["Brown_Hair"]][0], "float32")
    gray = float(np.clip((years - 32) / 40, 0, 0.55))
    if attributes["Gray_Hair"]:
        gray = float(np.clip((years - 28) / 36, 0.55, 1))
    mixed = base + (GRAY - base) * gray
    return np.clip(mixed * rng.uniform(0.85, 1.15), 0.03, 0.97).astype("float32")
