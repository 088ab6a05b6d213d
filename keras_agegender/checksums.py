"""Checksums: whether a folder still holds what was written, byte by byte.

`checksums.json`, written last into prepared datasets and exports, has the size and the
SHA-256 of every file. Sizes are compared whenever such a folder is opened, contents by
`verify`. Whoever changes a file may change its checksum too: they find damage, not
deceit.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from keras_agegender.files import file_hash, read_json, write_json

CHECKSUMS_FILE = "checksums.json"


class Difference(NamedTuple):
    """A file that is not as it was written.

    Attributes:
        file: Its path below the folder.
        expected: What checksums.json says of it.
        received: What is there.
    """

    file: str
    expected: str
    received: str

    def __str__(self) -> str:
        return f"{self.file!r}: expected {self.expected}, received {self.received}"


@dataclass(frozen=True)
class Verification:
    """What `verify` found.

    Attributes:
        directory: The folder.
        num_files: Files that checksums.json names.
        differences: What is not as it was written; empty if all is.
    """

    directory: Path
    num_files: int
    differences: tuple[Difference, ...]

    def __str__(self) -> str:
        if not self.differences:
            return f"{self.directory}: {self.num_files} files are as they were written."
        lines = [f"{self.directory}: {len(self.differences)} differences."]
        return "\n".join([*lines, *(f"  {line}" for line in self.differences)])


def verify(directory: str | Path) -> Verification:
    """Compares a prepared dataset or an export with its checksums.

    Reads every byte of it, and needs no framework. Files that are missing, changed,
    links out of the folder, or that checksums.json does not name are differences.

    Args:
        directory: Folder that `prepare` or `export` made.

    Returns:
        Every difference: file, expected and received.

    Raises:
        ValueError: If the folder holds no checksums, or damaged ones.

    Example:
    >>> verify("data/adience").differences  # doctest: +SKIP
    ()
    """
    directory = Path(directory)
    known = _read(directory)
    found = dict(_walk(directory))
    differences = []
    for name, (size, digest) in known.items():
        problem = _unsafe(directory, name)
        if problem:
            differences.append(Difference(name, "a file of the folder", problem))
        elif name not in found:
            differences.append(Difference(name, f"{size} bytes", "no such file"))
        elif (received := found[name].stat().st_size) != size:
            differences.append(Difference(name, f"{size} bytes", f"{received} bytes"))
        elif (received_hash := file_hash(found[name])) != digest:
            what = f"SHA-256 {digest}"
            differences.append(Difference(name, what, received_hash))
    for name in sorted(set(found) - set(known)):
        what = _unsafe(directory, name) or f"{found[name].stat().st_size} bytes"
        differences.append(Difference(name, "no such file", what))
    return Verification(directory, len(known), tuple(differences))


def check_sizes(directory: Path, remedy: str, besides: Collection[str] = ()) -> None:
    """Makes sure that files are there, and as long as they were written.

    Folders without checksums pass: others than this library make them too.

    Args:
        directory: A prepared dataset or an export.
        remedy: What to do about a damaged one, as a sentence.
        besides: Names of files that nothing is read from; they may be gone.

    Raises:
        ValueError: If a file is missing, or of another size.
    """
    if not (directory / CHECKSUMS_FILE).is_file():
        return
    for name, (size, _) in _read(directory).items():
        if name in besides:
            continue
        problem, file = _unsafe(directory, name), directory / name
        if not problem and not file.is_file():
            problem = "no such file"
        if not problem and file.stat().st_size != size:
            problem = f"{file.stat().st_size} bytes"
        if problem:
            raise ValueError(
                f"{directory} is damaged. {name!r}: expected {size} bytes, received "
                f"{problem}. {remedy}"
            )


def write_checksums(directory: Path) -> None:
    """Writes checksums.json for all files of a folder; call it when all are there."""
    files = {
        name: {"bytes": file.stat().st_size, "sha256": file_hash(file)}
        for name, file in sorted(_walk(directory))
    }
    write_json(directory / CHECKSUMS_FILE, {"algorithm": "sha256", "files": files})


def _what_it_is(directory: Path) -> str:
    """Says why there are no checksums: a folder of a run never has any."""
    if (directory / "recipe.toml").is_file():
        return "is a run; runs have no checksums, their exports do: it holds no"
    return "holds no"


def _read(directory: Path) -> dict[str, tuple[int, str]]:
    """Returns name -> (size, SHA-256)."""
    file = directory / CHECKSUMS_FILE
    if not file.is_file():
        raise ValueError(
            f"{directory} {_what_it_is(directory)} {CHECKSUMS_FILE}. Expected "
            "a prepared dataset or an export that was made by this version or a later "
            "one."
        )
    content: Any = read_json(file)
    try:
        if content["algorithm"] != "sha256":
            raise ValueError(f"algorithm {content['algorithm']!r}")
        return {
            str(name): (int(entry["bytes"]), str(entry["sha256"]))
            for name, entry in content["files"].items()
        }
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(
            f"{file} holds no checksums of this library ({type(error).__name__}: "
            f"{error}). Expected 'algorithm' sha256 and 'files'."
        ) from None


def _walk(directory: Path) -> Iterator[tuple[str, Path]]:
    """Yields name and file of all there is but the checksums; follows no folder."""
    for folder, folders, names in os.walk(directory):
        links = [name for name in folders if (Path(folder) / name).is_symlink()]
        for name in [*names, *links]:
            file = Path(folder) / name
            if file != directory / CHECKSUMS_FILE:
                yield file.relative_to(directory).as_posix(), file


def _unsafe(directory: Path, name: str) -> str:
    """Returns how a name leads out of a folder; empty if it does not."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name:
        return "a path out of the folder"
    file = directory / path
    if not file.resolve().is_relative_to(directory.resolve()):
        return f"a link out of the folder, to {file.resolve()}"
    if file.is_symlink() and not file.is_file():
        return "a link to a folder, or to nothing"
    return ""
