"""Preprocessing: from the bytes of an image to the input of a model."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

import numpy as np

FACE_SELECTIONS = ("largest", "center")
FALLBACKS = ("center", "full", "skip")
_STORED = {"face_selection": "keep"}  # field -> its key in files


@dataclass(frozen=True)
class CropOptions:
    """How a face box becomes a crop; stored with datasets and exported models.

    Args:
        margin: Share of the box added on each side, in [0, 4]. MTCNN's boxes end at
            forehead and chin; 0.25 (default) takes in hair and ears.
        square: Whether the shorter side is lengthened, so that a face is not squeezed.
            Defaults to true. The crop is shifted into the image before it is cut.
        face_selection: Which of several faces: `"largest"` (default) or `"center"`.
        fallback: Where none is found: `"center"` (default), the central square,
            `"full"`, the whole image, or `"skip"`, no crop.
        align: Whether the image is turned about the middle of the crop until the eyes
            are level; what it lacks at the corners is filled with its border. Defaults
            to false.
        pad: Whether a crop may leave the image, where black fills it up, so that the
            face stays in its middle. Defaults to false.
        region: Where the face box lies in the crop: x and y of its center, its width
            and its height, as shares of the crop, and the width of the crop over its
            height. It takes the place of `margin` and `square`. `prepare` measures it
            for crops that were made elsewhere. Defaults to `None`.

    Raises:
        ValueError: If an option is out of range.

    Example:
    >>> CropOptions(margin=0.4).to_dict()["margin"]
    0.4
    """

    margin: float = 0.25
    square: bool = True
    face_selection: str = "largest"
    fallback: str = "center"
    align: bool = False
    pad: bool = False
    region: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "region", _checked_region(self.region))
        if not 0 <= self.margin <= 4:
            raise ValueError(
                "Invalid `margin` (--margin). Expected a float in [0, 4]. "
                f"Received: margin={self.margin}."
            )
        for name, allowed in (
            ("face_selection", FACE_SELECTIONS),
            ("fallback", FALLBACKS),
        ):
            if getattr(self, name) not in allowed:
                raise ValueError(
                    f"Invalid `{name}`. Expected one of {allowed}. "
                    f"Received: {name}={getattr(self, name)!r}."
                )

    def crop_box(self, box: Any, image_size: tuple[int, int]) -> np.ndarray:
        """Returns the box to crop around a face, as `PreprocessingGraph.crop_box` does.

        Args:
            box: Face, `bbox_xyxy` in pixels. Shape (4,).
            image_size: (height, width) of the image, in pixels.

        Example:
        >>> CropOptions().crop_box([10, 10, 30, 50], (100, 100)).tolist()
        [0.0, 0.0, 60.0, 60.0]
        """
        corners = np.asarray(box, "float32").reshape(2, 2)
        sides, place = corners[1] - corners[0], np.array((0.5, 0.5), "float32")
        if self.region is not None:
            place, share, aspect = np.split(np.array(self.region, "float32"), [2, 4])
            height = np.sqrt((sides / share).prod() / aspect)
            sides = np.concatenate([height * aspect, height])
        else:
            sides = sides * (1 + 2 * self.margin)
            if self.square:
                sides = np.repeat(sides.max(), 2)
        start = corners.mean(axis=0) - sides * place
        if not self.pad:  # shifted into the image, then clipped
            limits = np.array(image_size[::-1], "float32")
            sides = np.minimum(sides, limits)
            start = np.clip(start, 0.0, limits - sides)
        return np.concatenate([start, start + sides])

    def to_dict(self) -> dict[str, Any]:
        """Returns the options as plain values, by the names they are stored with."""
        values = {_STORED.get(k, k): value for k, value in asdict(self).items()}
        region = values.pop("region")
        return values if region is None else {**values, "region": list(region)}

    @classmethod
    def from_dict(cls, options: Mapping[str, Any]) -> CropOptions:
        """Returns the options that `to_dict` wrote, of this version or an older one."""
        names = {_STORED.get(f.name, f.name): f.name for f in fields(cls)}
        return cls(**{names[k]: value for k, value in options.items() if k in names})


# Increased when the same settings give other pixels.
VERSION = 1


@dataclass(frozen=True)
class Preprocessing:
    """How an image file becomes the input of a model.

    The steps, in this order: decode to upright RGB (EXIF orientation applied,
    transparency put on white); find the faces and choose one; cut it out, or take the
    whole image; resize it to the stored size and compress it, as `prepare` stores it;
    resize it to the model's input; cut the center, if it was made larger; scale to
    [0, 1].

    It is plain data, comparable and hashable. `prepare` writes its `to_dict` into the
    dataset, `train` into the run and `export` beside the model. `PreprocessingGraph`
    applies it, the same graph everywhere.

    Args:
        crop: How a face is cut out; `None` (default) takes whole images.
        detector: `settings()` of the detector; `None` with `crop` is those of
            `MtcnnDetector()`.
        stored_size: (height, width) in pixels that `prepare` stores images with;
            `None` leaves them their own. Defaults to 256 x 256.
        jpeg_quality: Quality of the stored JPEG files, 1 to 100; `None` compresses
            nothing. Prediction compresses faces too, as training saw them: at quality
            95 a saturated pixel may move by 20 of 255. Defaults to 95.
        image_size: (height, width) of the model's input, in pixels; `None` (default) as
            long as no model is known.
        enlarge: Side of the image before its center is cut out, over that of the
            input, at least 1. Defaults to 1: nothing is cut.
        region: Where faces lie in whole images that are ready-made crops, as in
            `CropOptions`; `None` (default) if unknown. Stored pixels do not depend on
            it; `for_photos` does. Not compared.

    Raises:
        ValueError: If a setting is out of range.

    Example:
    >>> path = Preprocessing(crop=CropOptions()).with_input((96, 96))
    >>> Preprocessing.from_dict(path.to_dict()) == path
    True
    >>> print(path.describe())
    upright RGB; mtcnn face, margin 0.25, square; 256 x 256, JPEG 95; 96 x 96 in [0, 1]
    """

    crop: CropOptions | None = None
    detector: Mapping[str, Any] | None = None
    stored_size: tuple[int, int] | None = (256, 256)
    jpeg_quality: int | None = 95
    image_size: tuple[int, int] | None = None
    enlarge: float = 1.0
    region: tuple[float, ...] | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "region", _checked_region(self.region))
        for name in ("stored_size", "image_size"):
            object.__setattr__(self, name, _checked_size(name, getattr(self, name)))
        quality = self.jpeg_quality
        if quality is not None and not 1 <= quality <= 100:
            raise ValueError(
                "Invalid `jpeg_quality`. Expected None or an int in [1, 100]. "
                f"Received: jpeg_quality={quality!r}."
            )
        if not self.enlarge >= 1:
            raise ValueError(
                "Invalid `enlarge`. Expected a float of at least 1. "
                f"Received: enlarge={self.enlarge!r}."
            )
        if self.crop is None:
            object.__setattr__(self, "detector", None)
        elif self.detector is None:
            from keras_agegender.faces.detector import MtcnnDetector

            object.__setattr__(self, "detector", MtcnnDetector().settings())
        else:
            object.__setattr__(self, "detector", dict(self.detector))

    def __hash__(self) -> int:
        values = replace(self, region=None).to_dict()
        return hash(json.dumps(values, sort_keys=True))

    @property
    def faces(self) -> str:
        """`"cropped"` where faces are cut out, `"whole"` where images stay whole."""
        return "whole" if self.crop is None else "cropped"

    @property
    def uses_mtcnn(self) -> bool:
        """Whether faces are found by `MtcnnDetector`, which a graph can contain."""
        return self.detector is not None and self.detector.get("detector") == "mtcnn"

    @property
    def crop_size(self) -> tuple[int, int]:
        """(height, width) of the crops that a file of one crop size takes.

        It is the stored size; if images are stored at their own sizes, it is the size
        that the input is cut out of.
        """
        if self.stored_size is not None:
            return self.stored_size
        if self.image_size is None:
            raise ValueError(
                "Invalid preprocessing. Expected `image_size`, the model's input. "
                f"Received: {self.describe()}."
            )
        height, width = self.image_size
        return round(height * self.enlarge), round(width * self.enlarge)

    def with_input(
        self, image_size: tuple[int, int], enlarge: float = 1.0
    ) -> Preprocessing:
        """Returns the preprocessing up to a model's input.

        Args:
            image_size: (height, width) of the input, in pixels.
            enlarge: As in the class.
        """
        return replace(self, image_size=image_size, enlarge=enlarge)

    def stored(self) -> Preprocessing:
        """Returns the preprocessing up to the stored image, as a dataset has it."""
        return replace(self, image_size=None, enlarge=1.0)

    def for_photos(self) -> Preprocessing:
        """Returns the preprocessing for photos of a model of ready-made crops.

        It finds faces and cuts them out as they lie in those crops. All others are
        returned unchanged.
        """
        if self.crop is not None or self.region is None:
            return self
        crop = CropOptions(region=self.region, fallback="full")
        return replace(self, crop=crop)

    def for_crops(self) -> Preprocessing:
        """Returns the preprocessing of whole images that `for_photos` was made from."""
        if self.crop is None or self.crop.region is None:
            return self
        return replace(self, crop=None, region=self.crop.region)

    def differences(self, other: Preprocessing) -> list[str]:
        """Returns the names of the settings in which two of them differ."""
        mine, others = (replace(p, region=None).to_dict() for p in (self, other))
        return [name for name in mine if mine[name] != others[name]]

    def describe(self) -> str:
        """Returns the preprocessing in one line."""
        steps = ["upright RGB"]
        if self.crop is None:
            steps.append("whole image")
        else:
            name = (self.detector or {}).get("detector", "unknown detector")
            words = [f"{name} face", f"margin {self.crop.margin:g}"]
            if self.crop.region is not None:
                words[1] = region_text(self.crop.region)
            words += [
                word for word in ("square", "align", "pad") if getattr(self.crop, word)
            ]
            steps.append(", ".join(words))
        stored = [_text(self.stored_size)] if self.stored_size else []
        stored += [f"JPEG {self.jpeg_quality}"] if self.jpeg_quality else []
        steps += [", ".join(stored)] if stored else []
        if self.image_size:
            text = f"{_text(self.image_size)} in [0, 1]"
            if self.enlarge > 1:
                text = f"center of {self.enlarge:.4g} times {text}"
            steps.append(text)
        return "; ".join(steps)

    def to_dict(self) -> dict[str, Any]:
        """Returns the preprocessing as plain values, ready for JSON."""
        values = {
            "version": VERSION,
            "crop": self.crop.to_dict() if self.crop else None,
            "detector": dict(self.detector) if self.detector else None,
            "stored_size": list(self.stored_size) if self.stored_size else None,
            "jpeg_quality": self.jpeg_quality,
            "image_size": list(self.image_size) if self.image_size else None,
            "enlarge": self.enlarge,
        }
        return values | ({"region": list(self.region)} if self.region else {})

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Preprocessing:
        """Returns the preprocessing that `to_dict` wrote.

        Raises:
            ValueError: If it was written by another version, or lacks something.
        """
        names = {field.name for field in fields(cls)}
        if values.get("version") != VERSION or names - {"region", *values}:
            raise ValueError(
                "Invalid preprocessing. Expected what `to_dict` of version "
                f"{VERSION} returns. Received: {dict(values)}."
            )
        arguments: dict[str, Any] = {name: values.get(name) for name in names}
        if arguments["crop"] is not None:
            arguments["crop"] = CropOptions.from_dict(arguments["crop"])
        return cls(**arguments)


def region_text(region: Sequence[float]) -> str:
    """Returns a region as text.

    Example:
    >>> region_text((0.49, 0.43, 0.8, 1.03, 1))
    'box 0.80 x 1.03 of the crop around (0.49, 0.43)'
    """
    x, y, width, height = region[:4]
    return f"box {width:.2f} x {height:.2f} of the crop around ({x:.2f}, {y:.2f})"


def _checked_region(region: Any) -> tuple[float, ...] | None:
    if region is None:
        return None
    region = tuple(map(float, region))
    if len(region) != 5 or not all(0 < x < 10 for x in region):
        raise ValueError(
            "Invalid `region`. Expected x, y, width and height of the face box as "
            "shares of the crop, and its aspect ratio, in (0, 10). "
            f"Received: region={region!r}."
        )
    return region


def _checked_size(name: str, size: Any) -> tuple[int, int] | None:
    if size is None:
        return None
    size = tuple(size)
    if len(size) != 2 or not all(type(side) is int and side > 0 for side in size):
        raise ValueError(
            f"Invalid `{name}`. Expected None or (height, width) in pixels. "
            f"Received: {name}={size!r}."
        )
    return size


def _text(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"
