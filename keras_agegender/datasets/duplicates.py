"""Exact and near duplicates of images."""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import sqlite3
import stat
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image, ImageOps, UnidentifiedImageError

from keras_agegender.console import progress_bar
from keras_agegender.datasets.manifest import CleaningReport, Manifest, keep_cleaning
from keras_agegender.errors import one_line
from keras_agegender.faces.images import PILLOW_FORMATS, open_image, pillow_to_rgb
from keras_agegender.files import file_hash, read_regular

_AT_ONCE = 500  # SQLite takes no more than 999 values in one question, in old versions


def default_cache_file() -> Path:
    """Returns the default file of the cache of perceptual hashes."""
    folder = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(folder) / "keras_agegender" / "picture_hashes.sqlite"


class HashCache:
    """A cache of hashes by content, in an SQLite file.

    An interrupted run resumes after the last hashes written; several processes may use
    one file.

    Args:
        file: The file; created, with its folder, if it does not exist.
        method: Name of the hash; each has a table of its own.

    Raises:
        ValueError: If the file is something else, or cannot be written.
    """

    def __init__(self, file: str | Path, method: str) -> None:
        self.file = Path(file)
        self._table = f'"{method}"'
        with contextlib.ExitStack() as undo:
            self._open = self._connect(undo)
            undo.pop_all()

    def _connect(self, undo: contextlib.ExitStack) -> sqlite3.Connection:
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            connection = undo.enter_context(
                contextlib.closing(sqlite3.connect(self.file, timeout=60))
            )
            with connection:
                connection.execute(
                    f"CREATE TABLE IF NOT EXISTS {self._table} "
                    "(content TEXT PRIMARY KEY, hash BLOB) WITHOUT ROWID"
                )
        except (sqlite3.Error, OSError) as error:
            raise ValueError(
                f"Invalid hash cache {self.file}: {error}. Expected a file that an "
                "audit wrote, or a new one. Choose another (--cache FILE), or none "
                "(--no-cache)."
            ) from error
        return connection

    def read(self, contents: Collection[str]) -> dict[str, bytes]:
        """Returns the hashes of those contents that are known."""
        wanted = list(contents)
        found: dict[str, bytes] = {}
        for start in range(0, len(wanted), _AT_ONCE):
            part = wanted[start : start + _AT_ONCE]
            marks = ", ".join("?" * len(part))
            found |= self._open.execute(
                f"SELECT content, hash FROM {self._table} WHERE content IN ({marks})",
                part,
            ).fetchall()
        return found

    def write(self, hashes: Mapping[str, bytes]) -> None:
        """Adds hashes by content."""
        with self._open:
            self._open.executemany(
                f"INSERT OR REPLACE INTO {self._table} VALUES (?, ?)", hashes.items()
            )

    def close(self) -> None:
        """Closes the file."""
        self._open.close()


EXACT, NEAR = "exact", "near"
METHOD = "phash16_dhash16"
HASH_BITS = 512
MAX_DISTANCE = 84  # bits of HASH_BITS
_SIDE = 16  # of either hash
_ENOUGH_PIXELS = (256, 256)  # a JPEG is decoded at the smallest size above this

# The index: tables of sampled bits. A pair is compared if it agrees in all bits of one.
# Of UTKFace's pairs it finds all that comparing everything finds.
NUM_TABLES = 256
_BALANCED_BITS = 384  # bits that are the same in nearly all images tell nothing apart
_CHUNK = 256
# Byte -> its bits that are set; NumPy counts them itself from 2.0 on.
_BITS_SET = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).sum(1)


@dataclass
class ImageHashes:
    """What images are, by content and by look.

    Attributes:
        contents: SHA-256 of each image's bytes, `""` where there is no image. Shape
            (num_images,).
        looks: Content -> perceptual hash, `HASH_BITS` / 8 bytes; of images of one
            color, which all look alike, there is none.
        unreadable: Content -> why it cannot be decoded.
    """

    contents: list[str] = field(default_factory=list)
    looks: dict[str, bytes] = field(default_factory=dict)
    unreadable: dict[str, str] = field(default_factory=dict)


def check_imagehash() -> None:
    """Raises ImportError unless the package `imagehash` is installed."""
    if find_spec("imagehash") is None:
        raise ImportError(
            "Near duplicates need the package imagehash. Install it with "
            "`pip install 'keras-agegender[audit]'`, or search for exact duplicates "
            "only (audit: near_duplicates=False, --no-near; readers: "
            "duplicates='exact', --duplicates exact)."
        )


def hash_images(
    images: Iterable[bytes | None],
    total: int | None = None,
    *,
    looks: bool = True,
    cache: HashCache | None = None,
    progress: bool = False,
) -> ImageHashes:
    """Hashes images by content and by look."""
    if looks:
        check_imagehash()
    found = ImageHashes()
    bar = progress_bar(total, "images", "image", shown=progress)
    waiting = iter(images)
    with bar, ThreadPoolExecutor() as threads:
        while chunk := list(islice(waiting, _CHUNK)):
            contents = [_content(image) for image in chunk]
            found.contents += contents
            if looks:
                new = {
                    content: image
                    for content, image in zip(contents, chunk, strict=True)
                    if image is not None
                    and content not in found.looks
                    and content not in found.unreadable
                }
                _add_looks(found, new, cache, threads)
            bar.update(len(chunk))
    found.looks = {content: look for content, look in found.looks.items() if look}
    return found


def _add_looks(
    found: ImageHashes,
    images: dict[str, bytes],
    cache: HashCache | None,
    threads: ThreadPoolExecutor,
) -> None:
    known = cache.read(images) if cache is not None else {}
    missing = [content for content in images if content not in known]
    made = threads.map(_hash_or_reason, [images[content] for content in missing])
    new = {}
    for content, look in zip(missing, made, strict=True):
        if isinstance(look, str):
            found.unreadable[content] = look
        else:
            new[content] = look
    if cache is not None:
        cache.write(new)
    found.looks |= known | new


def _content(image: bytes | None) -> str:
    return hashlib.sha256(image).hexdigest() if image is not None else ""


def _hash_or_reason(image: bytes) -> bytes | str:
    try:
        return perceptual_hash(image)
    except UnidentifiedImageError:
        return f"not an image of {', '.join(PILLOW_FORMATS)}"
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        return one_line(error)


def perceptual_hash(data: bytes) -> bytes:
    """Returns 512 bits that are nearly the same for images that look the same."""
    import imagehash

    with open_image(data) as image:
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
    """
    found = np.zeros((0, 2), np.int64)
    if len(looks) < 2:
        return found, np.zeros(0, np.int64)
    bits = np.unpackbits(looks, axis=1)
    balanced = np.argsort(np.abs(bits.mean(0) - 0.5), kind="stable")[:_BALANCED_BITS]
    # As many values as images and 16 times more: a sample that two images share
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
    """Returns pairs of contents `a`, `b` whose looks are `distance` bits apart."""
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


UNREADABLE = "images that cannot be decoded, compared by their bytes only"
DROPPED = {
    EXACT: "same bytes as an image of another split, dropped from training",
    NEAR: "looks like an image of another split, dropped from training",
}


@dataclass(frozen=True)
class SameImages:
    """Groups of rows with the same image.

    Attributes:
        contents: What each row's file holds: a hash of its bytes, or its path where
            nothing is known to be like it. Shape (num_rows,).
        near: Pairs of contents, columns `a` and `b`, that look the same.
        num_unreadable: Contents whose look is not known.
    """

    contents: list[str]
    near: pd.DataFrame
    num_unreadable: int = 0

    def groups(self) -> np.ndarray:
        """Returns a number for each row, the same for rows that show the same.

        An image that looks like two others makes one group of all three.
        """
        ids, unique = pd.factorize(np.array(self.contents, dtype=object))
        number = pd.Series(np.arange(len(unique)), index=unique)
        ends = (number[self.near[end]].to_numpy() for end in ("a", "b"))
        return connected(len(unique), [tuple(ends)])[ids]


_NO_PAIRS = pd.DataFrame({"a": [], "b": []}, dtype="object")


def find_same_images(
    paths: Sequence[str],
    duplicates: str = EXACT,
    *,
    cache: str | Path | None = None,
) -> SameImages:
    """Returns which image files hold or show the same."""
    check_duplicates(duplicates)
    if duplicates == EXACT:
        return SameImages(_twins(paths), _NO_PAIRS)
    with _opened(cache) as hashes:
        found = hash_images(map(_read, paths), len(paths), cache=hashes, progress=True)
    contents = [
        content or path for content, path in zip(found.contents, paths, strict=True)
    ]
    return SameImages(contents, near_contents(found.looks), len(found.unreadable))


def check_duplicates(duplicates: str | None) -> None:
    """Checks the `duplicates` option."""
    if duplicates not in (None, EXACT, NEAR):
        raise ValueError(
            f"Invalid `duplicates` (--duplicates). Expected {EXACT!r}, {NEAR!r} or "
            f"None. Received: {duplicates!r}."
        )
    if duplicates == NEAR:
        check_imagehash()


@contextlib.contextmanager
def _opened(cache: str | Path | None) -> Iterator[HashCache | None]:
    if cache is None:
        yield None
        return
    with contextlib.closing(HashCache(cache, METHOD)) as hashes:
        yield hashes


def _read(path: str) -> bytes | None:
    try:
        return read_regular(path)
    except OSError:
        return None  # `prepare` counts it as unreadable


def _twins(paths: Sequence[str]) -> list[str]:
    """Returns a hash of each file that has a twin in size, the path of all others."""
    files = pd.Series(list(dict.fromkeys(paths)), dtype="object")
    sizes = files.map(_size)
    twins = sizes.duplicated(keep=False) & (sizes >= 0)
    contents = dict(zip(files, files, strict=True))
    for path in files[twins]:
        with contextlib.suppress(OSError):  # it may vanish meanwhile
            contents[path] = file_hash(Path(path))
    return [contents[path] for path in paths]


def _size(path: str) -> int:
    with contextlib.suppress(OSError):
        found = Path(path).stat()
        if stat.S_ISREG(found.st_mode):
            return found.st_size
    return -1


def connected(count: int, edges: Iterable[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Returns the connected component of each of `count` nodes."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    starts, ends = (np.concatenate(part) for part in zip(*edges, strict=True))
    graph = coo_matrix((np.ones(len(ends)), (starts, ends)), shape=(count, count))
    return connected_components(graph, directed=False)[1]


def drop_duplicates(
    manifest: Manifest,
    report: CleaningReport,
    duplicates: str = NEAR,
    *,
    splits: Sequence[str] = ("train",),
    cache: str | Path | None = None,
) -> Manifest:
    """Returns a manifest whose training images are in no other split.

    For published splits: evaluation images stay, so that scores remain comparable.

    Args:
        manifest: A manifest.
        report: Where rows are counted and named; the manifest keeps what it says.
        duplicates: `"exact"` looks for images of the same bytes, `"near"` (default)
            for those that look the same too.
        splits: Splits that rows are taken from. Defaults to `train` alone.
        cache: File that stores perceptual hashes; `None` (default) stores none.

    Raises:
        ValueError: If `duplicates` is something else, or no training row would stay.
        ImportError: If near duplicates are searched and `imagehash` is absent.

    Example:
    >>> manifest, report = read_csv("labels.csv")  # doctest: +SKIP
    >>> manifest = drop_duplicates(manifest, report)  # doctest: +SKIP
    """
    same = find_same_images(list(manifest["path"]), duplicates, cache=cache)
    contents = pd.Series(same.contents, index=manifest.index)
    learned = manifest["split"].isin(splits)
    # Content -> a row of another split that has it; the first one is named.
    others = manifest["key"] + ", " + manifest["split"]
    held = dict(zip(contents[~learned][::-1], others[~learned][::-1], strict=True))
    alike: dict[str, str] = {}
    for a, b in zip(same.near["a"], same.near["b"], strict=True):
        alike |= {x: held[y] for x, y in ((a, b), (b, a)) if y in held}
    out = learned & contents.isin([*held, *alike])
    if learned.any() and not (learned & ~out).any():
        raise ValueError(
            f"No image of {', '.join(splits)} is left to train on: all "
            f"{out.sum()} are in another split too."
        )
    for key, content in zip(manifest["key"][out], contents[out], strict=True):
        kind = EXACT if content in held else NEAR
        report.drop(f"{key} ({held.get(content, alike.get(content))})", DROPPED[kind])
    if not out.any():
        report.totals[f"{duplicates} duplicates of other splits in training"] = 0
    if same.num_unreadable:
        report.totals[UNREADABLE] = same.num_unreadable
    kept = manifest[~out].copy()
    keep_cleaning(kept, report)
    return kept
