"""Rows that show one picture: kept in one split, or left out of training.

In: the picture files of rows. Out: what each file holds, which of them look the same,
the groups that makes, and a manifest whose training rows repeat no other split's.
"""

from __future__ import annotations

import contextlib
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from keras_agegender.datasets.cleaning_report import CleaningReport
from keras_agegender.datasets.hash_cache import HashCache
from keras_agegender.datasets.manifest import keep_cleaning
from keras_agegender.datasets.near_duplicates import (
    EXACT,
    METHOD,
    NEAR,
    check_imagehash,
    hash_pictures,
    near_contents,
)
from keras_agegender.files import file_hash, read_regular

UNREADABLE = "pictures that cannot be decoded, compared by their bytes only"
LEFT_OUT = {
    EXACT: "same bytes as a picture of another split, left out of training",
    NEAR: "looks like a picture of another split, left out of training",
}


@dataclass(frozen=True)
class SamePictures:
    """Which rows show the same.

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

        A picture that looks like two others makes one group of all three.
        """
        ids, unique = pd.factorize(np.array(self.contents, dtype=object))
        number = pd.Series(np.arange(len(unique)), index=unique)
        ends = (number[self.near[end]].to_numpy() for end in ("a", "b"))
        return connected(len(unique), [tuple(ends)])[ids]


_NO_PAIRS = pd.DataFrame({"a": [], "b": []}, dtype="object")


def find_same_pictures(
    paths: Sequence[str],
    duplicates: str = EXACT,
    *,
    cache: str | Path | None = None,
) -> SamePictures:
    """Returns which picture files hold or show the same.

    Args:
        paths: The file of each row; two rows may have one. Files may be absent.
        duplicates: `"exact"` (default) compares bytes, of files of one size only;
            `"near"` compares looks too, and decodes every picture.
        cache: File in which perceptual hashes are kept; `None` keeps none.

    Raises:
        ValueError: If `duplicates` is something else.
        ImportError: If near duplicates are searched and `imagehash` is absent.
    """
    check_duplicates(duplicates)
    if duplicates == EXACT:
        return SamePictures(_twins(paths), _NO_PAIRS)
    with _opened(cache) as hashes:
        found = hash_pictures(
            map(_read, paths), len(paths), cache=hashes, progress=True
        )
    contents = [
        content or path for content, path in zip(found.contents, paths, strict=True)
    ]
    return SamePictures(contents, near_contents(found.looks), len(found.unreadable))


def check_duplicates(duplicates: str | None) -> None:
    """Raises unless duplicates can be searched so: ValueError, ImportError."""
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
    """Returns a number for each of `count` things, the same where edges join them.

    Args:
        count: How many there are.
        edges: Starts and ends, numbers in [0, count). Shape (num_edges,) each.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    starts, ends = (np.concatenate(part) for part in zip(*edges, strict=True))
    graph = coo_matrix((np.ones(len(ends)), (starts, ends)), shape=(count, count))
    return connected_components(graph, directed=False)[1]


def leave_out_duplicates(
    manifest: pd.DataFrame,
    report: CleaningReport,
    duplicates: str = NEAR,
    *,
    splits: Sequence[str] = ("train",),
    cache: str | Path | None = None,
) -> pd.DataFrame:
    """Returns a manifest whose training pictures are in no other split.

    For splits that are declared, which cannot be drawn anew: what is scored on stays
    as it is, so that scores compare with other people's.

    Args:
        manifest: A manifest.
        report: Where rows are counted and named; the manifest keeps what it says.
        duplicates: `"exact"` looks for pictures of the same bytes, `"near"` (default)
            for those that look the same too.
        splits: Splits that rows are taken from. Defaults to `train` alone.
        cache: File in which perceptual hashes are kept; `None` (default) keeps none.

    Raises:
        ValueError: If `duplicates` is something else, or no training row would stay.
        ImportError: If near duplicates are searched and `imagehash` is absent.

    Example:
    >>> manifest, report = read_csv("labels.csv")  # doctest: +SKIP
    >>> manifest = leave_out_duplicates(manifest, report)  # doctest: +SKIP
    """
    same = find_same_pictures(list(manifest["path"]), duplicates, cache=cache)
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
            f"No picture of {', '.join(splits)} is left to train on: all "
            f"{out.sum()} are in another split too."
        )
    for key, content in zip(manifest["key"][out], contents[out], strict=True):
        kind = EXACT if content in held else NEAR
        report.leave_out(
            f"{key} ({held.get(content, alike.get(content))})", LEFT_OUT[kind]
        )
    if not out.any():
        report.totals[f"{duplicates} duplicates of other splits in training"] = 0
    if same.num_unreadable:
        report.totals[UNREADABLE] = same.num_unreadable
    kept = manifest[~out].copy()
    kept.attrs = dict(manifest.attrs)
    keep_cleaning(kept, report)
    return kept
