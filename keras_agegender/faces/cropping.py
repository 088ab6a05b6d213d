"""How a face box becomes a crop, as a value; `faces.pixel_graph` does it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

KEEP = ("largest", "center")
FALLBACKS = ("center", "full", "skip")
# What became of a picture, in the order in which `prepare` finds out.
STATUSES = ("ok", "no_face", "several_faces", "not_cropped", "unreadable")


@dataclass(frozen=True)
class CropOptions:
    """How a face box becomes a crop; stored with datasets and exported models.

    Args:
        margin: Share of the box added on each side, in [0, 4]. MTCNN's boxes end at
            forehead and chin; 0.25 (default) takes in hair and ears.
        square: Whether the shorter side is lengthened, so that a face is not squeezed.
            Defaults to true. The crop is shifted into the picture before it is cut.
        keep: Which face, where several are found: `"largest"` (default) or `"center"`.
        fallback: Where none is found: `"center"` (default), the central square,
            `"full"`, the whole picture, or `"skip"`, no crop.
        align: Whether the picture is turned about the middle of the crop until the eyes
            are level; what it lacks at the corners is filled with its border. Defaults
            to false.
        pad: Whether a crop may leave the picture, where black fills it up, so that the
            face stays in its middle. Defaults to false.

    Raises:
        ValueError: If an option is out of range.

    Example:
    >>> CropOptions(margin=0.4).to_dict()["margin"]
    0.4
    """

    margin: float = 0.25
    square: bool = True
    keep: str = "largest"
    fallback: str = "center"
    align: bool = False
    pad: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.margin <= 4:
            raise ValueError(
                "Invalid `margin` (--margin). Expected a float in [0, 4]. "
                f"Received: margin={self.margin}."
            )
        for name, allowed in (("keep", KEEP), ("fallback", FALLBACKS)):
            if getattr(self, name) not in allowed:
                raise ValueError(
                    f"Invalid `{name}`. Expected one of {allowed}. "
                    f"Received: {name}={getattr(self, name)!r}."
                )

    def to_dict(self) -> dict[str, Any]:
        """Returns the options as plain values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, options: Mapping[str, Any]) -> CropOptions:
        """Returns the options that `to_dict` wrote, of this version or an older one."""
        return cls(
            **{f.name: options[f.name] for f in fields(cls) if f.name in options}
        )
