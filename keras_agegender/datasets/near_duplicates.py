"""Near duplicates: one photo in two files, saved again, resized or slightly cropped.

In: the bytes of pictures. Out: a hash of each content, a perceptual hash of each look,
and the pairs of looks that differ in few bits.

The perceptual hash is two of the `imagehash` package, side by side: its DCT hash and
its gradient hash, 256 bits each. Chips of aligned faces look alike to a hash of 64
bits: of UTKFace's 21,334 chips, 16,474 pairs are within 8 bits of those, but 936 within
84 bits of these 512. Chosen by looking at pairs of UTKFace: all 132 looked at up to
84 bits were one photo twice; of the next four, at 85 to 88 bits, two were not. Copies
in JPEG quality 30, at a quarter of the size, or in gray are within 20 bits; cropped by
1 % on all sides within 52; cropped by 2 %, 96 of 100 are within 84. Mirrored copies are
not found.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib.util import find_spec
from itertools import islice
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image, ImageOps, UnidentifiedImageError

from keras_agegender.datasets.hash_cache import HashCache
from keras_agegender.faces.images import PILLOW_FORMATS, open_picture, pillow_to_rgb
from keras_agegender.progress import progress_bar

EXACT, NEAR = "exact", "near"
METHOD = "phash16_dhash16"
HASH_BITS = 512
MAX_DISTANCE = 84  # bits of HASH_BITS
_SIDE = 16  # of either hash
_ENOUGH_PIXELS = (256, 256)  # a JPEG is decoded at the smallest size above this

# The index: tables of sampled bits. A pair is compared if it agrees in all bits of one.
# Of UTKFace's pairs it finds all that comparing everything finds.
NUM_TABLES = 256
_BALANCED_BITS = 384  # bits that are the same in nearly all pictures tell nothing apart
_CHUNK = 256
# Byte -> its bits that are set; NumPy counts them itself from 2.0 on.
_BITS_SET = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).sum(1)


@dataclass
class PictureHashes:
    """What pictures are, by content and by look.

    Attributes:
        contents: SHA-256 of each picture's bytes, `""` where there is no picture. Shape
            (num_pictures,).
        looks: Content -> perceptual hash, `HASH_BITS` / 8 bytes; of pictures of one
            color, which all look alike, there is none.
        unreadable: Content -> why it cannot be decoded.
    """

    contents: list[str] = field(default_factory=list)
    looks: dict[str, bytes] = field(default_factory=dict)
    unreadable: dict[str, str] = field(default_factory=dict)


def check_imagehash() -> None:
    """Raises ImportError unless the package `imagehash` is there."""
    if find_spec("imagehash") is None:
        raise ImportError(
            "Near duplicates need the package imagehash. Install it with "
            "`pip install 'keras-agegender[audit]'`, or search for exact duplicates "
            "only (audit: near_duplicates=False, --no-near; readers: "
            "duplicates='exact', --duplicates exact)."
        )


def hash_pictures(
    pictures: Iterable[bytes | None],
    total: int | None = None,
    *,
    looks: bool = True,
    cache: HashCache | None = None,
    progress: bool = False,
) -> PictureHashes:
    """Hashes pictures by content and by look.

    Args:
        pictures: Files' bytes; `None` stands for a picture that is not there.
        total: How many there are, for the progress bar.
        looks: Whether perceptual hashes are made. Defaults to `True`.
        cache: Where perceptual hashes are kept by content; what is in it is not
            decoded again.
        progress: Whether a progress bar is shown on stderr.

    Raises:
        ImportError: If looks are asked for and `imagehash` is absent.
    """
    if looks:
        check_imagehash()
    found = PictureHashes()
    bar = progress_bar(total, "pictures", "image", shown=progress)
    waiting = iter(pictures)
    with bar, ThreadPoolExecutor() as threads:
        while chunk := list(islice(waiting, _CHUNK)):
            contents = [_content(picture) for picture in chunk]
            found.contents += contents
            if looks:
                new = {
                    content: picture
                    for content, picture in zip(contents, chunk, strict=True)
                    if picture is not None
                    and content not in found.looks
                    and content not in found.unreadable
                }
                _add_looks(found, new, cache, threads)
            bar.update(len(chunk))
    found.looks = {content: look for content, look in found.looks.items() if look}
    return found


def _add_looks(
    found: PictureHashes,
    pictures: dict[str, bytes],
    cache: HashCache | None,
    threads: ThreadPoolExecutor,
) -> None:
    known = cache.read(pictures) if cache is not None else {}
    missing = [content for content in pictures if content not in known]
    made = threads.map(_hash_or_reason, [pictures[content] for content in missing])
    new = {}
    for content, look in zip(missing, made, strict=True):
        if isinstance(look, str):
            found.unreadable[content] = look
        else:
            new[content] = look
    if cache is not None:
        cache.write(new)
    found.looks |= known | new


def _content(picture: bytes | None) -> str:
    return hashlib.sha256(picture).hexdigest() if picture is not None else ""


def _hash_or_reason(picture: bytes) -> bytes | str:
    try:
        return perceptual_hash(picture)
    except UnidentifiedImageError:
        return f"not a picture of {', '.join(PILLOW_FORMATS)}"
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        return " ".join(str(error).split()) or type(error).__name__


def perceptual_hash(picture: bytes) -> bytes:
    """Returns 512 bits that are nearly the same for pictures that look the same.

    Args:
        picture: The bytes of a picture file.

    Returns:
        64 bytes; none for a picture of one color.

    Raises:
        OSError: If it is no picture, or a damaged one.
    """
    import imagehash

    with open_picture(picture) as image:
        image.draft("RGB", _ENOUGH_PIXELS)
        gray = Image.fromarray(pillow_to_rgb(ImageOps.exif_transpose(image)))
        gray = gray.convert("L")
    darkest, brightest = gray.getextrema()
    if darkest == brightest:
        return b""
    bits = [imagehash.phash(gray, _SIDE).hash, imagehash.dhash(gray, _SIDE).hash]
    return np.packbits(np.concatenate(bits, axis=None)).tobytes()


def find_near_pairs(
    looks: np.ndarray, max_distance: int = MAX_DISTANCE, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the pairs of perceptual hashes that differ in few bits.

    Time grows nearly as the number of hashes does: hashes are sorted by samples of
    their bits, `NUM_TABLES` times, and only those that agree in a whole sample are
    compared (bit sampling, Indyk & Motwani, STOC 1998). The fewer bits differ, the
    surer a pair is found: by chance one of 400 is missed at 84 bits among 100,000
    hashes, and practically none up to 60.

    Args:
        looks: Hashes, each of them once. Shape (num_hashes, 64), uint8.
        max_distance: Most bits that differ. Defaults to 84 of 512.
        seed: Seed of the samples. Defaults to 0.

    Returns:
        `(pairs, distances)`: rows of `looks`, the lower first, in ascending order, and
        the number of bits that differ. Shapes (num_pairs, 2) and (num_pairs,).
    """
    found = np.zeros((0, 2), np.int64)
    if len(looks) < 2:
        return found, np.zeros(0, np.int64)
    bits = np.unpackbits(looks, axis=1)
    balanced = np.argsort(np.abs(bits.mean(0) - 0.5), kind="stable")[:_BALANCED_BITS]
    # As many values as pictures and 16 times more: a sample that two pictures share
    # by chance is rare, whatever their number.
    num_bits = math.ceil(math.log2(len(looks))) + 4
    powers = 1 << np.arange(num_bits, dtype=np.int64)
    rng = np.random.default_rng(seed)
    kept = [found]
    for _ in range(NUM_TABLES):
        sample = rng.choice(balanced, num_bits, replace=False)
        for pairs in _equal_pairs(bits[:, sample] @ powers):
            distance = _distances(looks, pairs)
            kept.append(pairs[distance <= max_distance])
    found = np.unique(np.concatenate(kept), axis=0)
    return found, _distances(looks, found)


def _distances(looks: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    different = looks[pairs[:, 0]] ^ looks[pairs[:, 1]]
    return _BITS_SET[different].sum(axis=1, dtype=np.int64)


def _equal_pairs(values: np.ndarray) -> Iterator[np.ndarray]:
    """Yields arrays of pairs of rows that have the same value."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    for offset in range(1, len(values)):
        first = np.flatnonzero(ordered[offset:] == ordered[:-offset])
        if not len(first):
            return
        yield np.stack([order[first], order[first + offset]], axis=1)


def rows_of(looks: Iterable[bytes]) -> Any:
    """Returns perceptual hashes as rows of an array. Shape (num_hashes, 64), uint8."""
    joined = np.frombuffer(b"".join(looks), np.uint8)
    return joined.reshape(-1, HASH_BITS // 8)


def near_contents(looks: Mapping[str, bytes]) -> pd.DataFrame:
    """Returns pairs of contents `a`, `b` whose looks are `distance` bits apart.

    Args:
        looks: Content -> perceptual hash.
    """
    table = pd.DataFrame(
        {"content": [*looks], "look": [*looks.values()]}, dtype="object"
    )
    table["number"], unique = pd.factorize(table["look"])
    pairs, distances = find_near_pairs(rows_of(unique))
    same = np.flatnonzero(np.bincount(table["number"], minlength=1) > 1)
    ends = pd.DataFrame(
        {
            "x": [*same, *pairs[:, 0]],
            "y": [*same, *pairs[:, 1]],
            "distance": [*np.zeros(len(same), int), *distances],
        },
        dtype="int64",
    )
    numbers = table[["number", "content"]]
    both = ends.merge(numbers, left_on="x", right_on="number").merge(
        numbers, left_on="y", right_on="number"
    )
    once = (both["x"] != both["y"]) | (both["content_x"] < both["content_y"])
    return pd.DataFrame(
        {
            "a": both["content_x"][once],
            "b": both["content_y"][once],
            "distance": both["distance"][once],
        }
    ).reset_index(drop=True)
