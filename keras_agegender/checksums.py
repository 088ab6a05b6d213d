"""Checksums: whether a folder or file still holds what was written, byte by byte.

`checksums.json`, written last into prepared datasets, exports and finished runs, has
the size and the SHA-256 of every file; of a run those that no later command writes.
Sizes are compared whenever a dataset or an export is opened, contents by `verify`.
Beside a model file, ONNX or LiteRT, lies `<file>.sha256`, which `sha256sum -c` reads
too; the file is compared with it whenever it is opened. Whoever changes a file may
change its checksum too: they find damage, not deceit.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from keras_agegender.files import file_hash, read_json, write_json, write_text

CHECKSUMS_FILE = "checksums.json"
SIDECAR = ".sha256"  # behind the whole name of a file
# A line as `sha256sum` writes it; an asterisk says that the file was read as bytes.
LINE = re.compile(r"(?P<digest>[0-9a-f]{64}) [ *](?P<name>.+)")


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
        directory: The folder or file.
        num_files: Files that have a checksum.
        differences: What is not as it was written; empty if all is.
        num_others: Files of a run that have none: later commands write them.
    """

    directory: Path
    num_files: int
    differences: tuple[Difference, ...]
    num_others: int = 0

    def __str__(self) -> str:
        if not self.differences:
            text = f"{self.directory}: {self.num_files} files are as they were written"
            if self.num_others:
                text += f"; without a checksum: {self.num_others}"
            return f"{text}."
        lines = [f"{self.directory}: {len(self.differences)} differences."]
        return "\n".join([*lines, *(f"  {line}" for line in self.differences)])


def verify(directory: str | Path) -> Verification:
    """Compares a prepared dataset, an export or a finished run with its checksums.

    Reads every byte of it, and needs no framework. Files that are missing, changed,
    links out of the folder, or that checksums.json does not name are differences; in a
    run just those that training wrote, as later commands write others.

    Args:
        directory: Folder that `prepare`, `export` or `train` made, or an ONNX or LiteRT
            file that `export` wrote.

    Returns:
        Every difference: file, expected and received.

    Raises:
        ValueError: If there are no checksums, or damaged ones.

    Example:
    >>> verify("data/adience").differences  # doctest: +SKIP
    ()
    """
    directory = Path(directory)
    if directory.is_file():
        return _verify_file(directory)
    known, is_complete = _read(directory)
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
    others = sorted(set(found) - set(known))
    for name in others if is_complete else ():
        what = _unsafe(directory, name) or f"{found[name].stat().st_size} bytes"
        differences.append(Difference(name, "no such file", what))
    num_others = 0 if is_complete else len(others)
    return Verification(directory, len(known), tuple(differences), num_others)


def _verify_file(file: Path) -> Verification:
    expected = _sidecar_digest(file)
    if expected is None:
        raise ValueError(
            f"{file} has no checksum. Expected {file.name}{SIDECAR} beside it, as "
            "`agegender export` writes it, and `sha256sum`."
        )
    received = file_hash(file)
    differences = [Difference(file.name, f"SHA-256 {expected}", received)]
    return Verification(file, 1, tuple(differences if received != expected else ()))


def check_file(file: Path) -> None:
    """Makes sure that a file is as it was written, if a checksum lies beside it.

    Raises:
        ValueError: If it is another one.
    """
    if _sidecar_digest(file) is not None:
        for difference in _verify_file(file).differences:
            raise ValueError(
                f"{file} is damaged. {difference}. Export it again (--overwrite), or "
                f"remove {file.name}{SIDECAR} if the file is another one on purpose."
            )


def sidecar(file: Path) -> Path:
    """Returns the file that holds another file's checksum."""
    return file.with_name(file.name + SIDECAR)


def write_sidecar(file: Path) -> None:
    """Writes a file's checksum beside it."""
    write_text(sidecar(file), f"{file_hash(file)}  {file.name}\n")


def _sidecar_digest(file: Path) -> str | None:
    """Returns what the checksum beside a file says; `None` where there is none."""
    beside = sidecar(file)
    if not beside.is_file():
        return None
    found = LINE.fullmatch(beside.read_text("utf-8", errors="replace").rstrip("\r\n"))
    if found is None or found["name"] != file.name:
        raise ValueError(
            f"{beside} is damaged, or of another file. Expected a SHA-256, two spaces "
            f"and {file.name!r}. Remove it, or write it anew with `sha256sum`."
        )
    return found["digest"]


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
    for name, (size, _) in _read(directory)[0].items():
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


def write_checksums(directory: Path, names: Collection[str] | None = None) -> None:
    """Writes checksums.json; call it when all files are there.

    Args:
        directory: The folder.
        names: Which files of it have checksums, where others may come and go. `None`
            (default): all, and no other one may be there.
    """
    files = {
        name: {"bytes": file.stat().st_size, "sha256": file_hash(file)}
        for name, file in sorted(_walk(directory))
        if names is None or name in names
    }
    content: dict[str, Any] = {"algorithm": "sha256", "files": files}
    if names is not None:
        content["complete"] = False
    write_json(directory / CHECKSUMS_FILE, content)


def _read(directory: Path) -> tuple[dict[str, tuple[int, str]], bool]:
    """Returns name -> (size, SHA-256), and whether no other file may be there."""
    file = directory / CHECKSUMS_FILE
    if not file.is_file():
        raise ValueError(
            f"{directory} holds no {CHECKSUMS_FILE}. Expected a prepared dataset, an "
            "export, or a run that is finished, made by this version or a later one; "
            "or an ONNX or LiteRT file."
        )
    content: Any = read_json(file)
    try:
        if content["algorithm"] != "sha256":
            raise ValueError(f"algorithm {content['algorithm']!r}")
        files = {
            str(name): (int(entry["bytes"]), str(entry["sha256"]))
            for name, entry in content["files"].items()
        }
        return files, content.get("complete", True) is not False
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
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
    try:
        target = file.resolve()
    except (OSError, RuntimeError):  # Python 3.11 and 3.12 raise the second
        return "a link to itself"
    if not target.is_relative_to(directory.resolve()):
        return f"a link out of the folder, to {target}"
    if file.is_symlink() and not file.is_file():
        return "a link to a folder, or to nothing"
    if file.exists() and not file.is_file():
        return "a folder, a pipe or a device"
    return ""
