"""Files and folders: atomic writes, locks, checksums and safe names."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import platform
import re
import shutil
import uuid
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from filelock import FileLock, Timeout

from keras_agegender.errors import one_line

PACKAGES = (
    *("keras-agegender", "keras", "tensorflow", "jax", "numpy", "mtcnn"),
    "tensorflow-datasets",
)
# TensorFlow's errors about a full or read-only disk.
DISK_ERRORS = {"ResourceExhaustedError", "PermissionDeniedError"}


@contextlib.contextmanager
def atomic_write(file: Path, *, durable: bool = True) -> Iterator[Path]:
    """Yields a temporary file to write, which then replaces `file`.

    If the block raises, `file` stays as it was.

    Example:
    >>> with atomic_write(Path("table.csv")) as partial:  # doctest: +SKIP
    ...     table.to_csv(partial)
    """
    partial = file.with_name(f".{file.stem}.{os.getpid()}.partial{file.suffix}")
    try:
        yield partial
        if durable:
            sync_to_disk(partial)
        os.replace(partial, file)
    except BaseException as error:
        partial.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno and not error.filename:
            error.filename = str(file)  # on a full disk, for the message
        raise


@contextlib.contextmanager
def exclusive_lock(lock: Path, refusal: str) -> Iterator[None]:
    """Keeps other processes from writing the target of a lock file.

    The OS releases the lock of a killed process; a leftover lock file is harmless.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    held = FileLock(lock)
    while True:
        try:
            held.acquire(timeout=0)
        except Timeout:
            raise ValueError(refusal) from None
        if lock.exists():
            break
        held.release()  # of a file that its last owner has just removed
    try:
        yield
    finally:
        # While it is held: behind `release` it may be another process's.
        with contextlib.suppress(OSError):
            lock.unlink()
        held.release()


def write_bytes(file: Path, content: bytes, *, durable: bool = True) -> None:
    """Writes a file atomically."""
    with atomic_write(file, durable=durable) as partial:
        partial.write_bytes(content)


@contextlib.contextmanager
def disk_errors(target: Path) -> Iterator[None]:
    """Turns TensorFlow's errors about a full or read-only disk into an `OSError`.

    TensorFlow does not raise `OSError`, and TensorFlow Datasets may wrap its error.
    """
    try:
        yield
    except Exception as error:
        causes = (error, error.__cause__, error.__context__)
        if not {type(cause).__name__ for cause in causes} & DISK_ERRORS:
            raise
        raise OSError(f"Cannot write {target}: {one_line(error)}") from None


def read_regular(file: str | Path) -> bytes:
    """Reads a regular file; pipes and devices are an error, as they may never end."""
    path = Path(file)
    if not path.is_file() and not path.is_dir() and path.exists():
        raise OSError(errno.EINVAL, "is a pipe or a device, not a file", str(file))
    return path.read_bytes()


def write_text(file: Path, text: str) -> None:
    """Writes a file atomically."""
    write_bytes(file, text.encode("utf-8"))


def write_json(file: Path, content: Any) -> None:
    """Writes a file atomically."""
    write_text(file, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def read_json(file: Path, remedy: str = "Restore it, or remove it.") -> Any:
    """Reads a JSON file; `remedy` is part of the error about a damaged one."""
    if file.exists() and not file.is_file():  # a pipe may block
        raise ValueError(f"{file} is not a regular file. {remedy}")
    try:
        return json.loads(file.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} is damaged ({error}). {remedy}") from None


# Before a pattern of names: Windows opens devices by these names, with any suffix.
# Source: https://learn.microsoft.com/windows/win32/fileio/naming-a-file
RESERVED_NAMES_PATTERN = r"(?!(?i:con|prn|aux|nul|(?:com|lpt)[\d¹²³])(?:[. ]|\Z))"
RESERVED_NAMES_TEXT = (
    "not a device name of Windows ('con', 'prn', 'aux', 'nul', 'com1', 'lpt1' …)"
)
# Letters and digits of any script, and harmless characters between them.
FILE_NAME = re.compile(RESERVED_NAMES_PATTERN + r"[^\W_][\w .+()-]{0,99}(?<![. ])")
FILE_NAME_RULE = (
    "a name of at most 100 letters, digits, spaces and '_', '.', '+', '-', '(' or ')' "
    "that starts with a letter or digit, does not end with a space or '.', and is "
    f"{RESERVED_NAMES_TEXT}"
)


def is_file_name(name: str) -> bool:
    """Returns whether a name is safe as part of a path."""
    return FILE_NAME.fullmatch(name) is not None


def is_text(name: str) -> bool:
    """Returns whether a file name is valid UTF-8; Linux allows any bytes."""
    return not any("\ud800" <= letter <= "\udfff" for letter in name)


def partial_directory(directory: Path) -> Path:
    """Returns where a folder is written before it is complete: `<name>.partial`."""
    return directory.with_name(directory.name + ".partial")


def lock_beside(target: Path) -> Path:
    """Returns the lock file of a file or folder to be written: `.<name>.lock`."""
    return target.with_name(f".{target.name}.lock")


def check_output_dir(
    directory: Path, marker: str, what: str, besides: Collection[str] = ()
) -> bool:
    """Returns whether an output folder already contains an earlier output."""
    if directory.exists() and not directory.is_dir():
        raise ValueError(
            f"Invalid directory. {directory} is a file. Expected a new or existing "
            "folder."
        )
    if (directory / marker).is_file():
        return True
    if directory.is_dir() and any(e.name not in besides for e in directory.iterdir()):
        raise ValueError(
            f"{directory} is not empty and contains no {what}. --overwrite only "
            f"replaces existing {what}s. Choose another directory."
        )
    return False


def replace_directory(new: Path, directory: Path) -> None:
    """Moves a finished folder to its final name, replacing an older one."""
    # Moved aside first and removed last, so that a complete folder always exists.
    aside = directory.with_name(directory.name + ".replaced")
    if os.path.lexists(aside):  # the user's folder, or left by a killed process
        aside = aside.with_suffix(f".replaced-{uuid.uuid4().hex[:8]}")
    if directory.exists():
        os.replace(directory, aside)
    try:
        os.replace(new, directory)
    except OSError:
        if aside.exists():
            os.replace(aside, directory)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def file_hash(file: Path) -> str:
    """Returns the SHA-256 of a file's content."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def directory_hash(directory: Path, pattern: str = "*.tfrecord*") -> str:
    """Returns a SHA-256 over names and contents of files in a folder, recursively."""
    digest = hashlib.sha256()
    for file in sorted(directory.rglob(pattern)):
        digest.update(file.name.encode())
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def versions() -> dict[str, str]:
    """Returns the versions of Python and of the installed packages."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found


def now() -> str:
    """Returns the time in UTC to the second, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def sync_to_disk(file: Path) -> None:
    """Flushes a file to disk."""
    descriptor = os.open(file, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


CHECKSUMS_FILE = "checksums.json"
SIDECAR = ".sha256"  # appended to the full file name
# A line of `sha256sum`; an asterisk marks binary mode.
LINE = re.compile(r"(?P<digest>[0-9a-f]{64}) [ *](?P<name>.+)")


class Difference(NamedTuple):
    """A file that differs from its checksum: path in the folder, expected, received."""

    file: str
    expected: str
    received: str

    def __str__(self) -> str:
        return f"{self.file!r}: expected {self.expected}, received {self.received}"


@dataclass(frozen=True)
class Verification:
    """The result of `verify`.

    Attributes:
        directory: The folder or file.
        num_files: Files that have a checksum.
        differences: Files that differ; empty if none does.
        num_others: Files of a run without a checksum, which later commands write.
    """

    directory: Path
    num_files: int
    differences: tuple[Difference, ...]
    num_others: int = 0

    def __str__(self) -> str:
        if not self.differences:
            text = f"{self.directory}: {self.num_files} files match their checksums"
            if self.num_others:
                text += f"; without a checksum: {self.num_others}"
            return f"{text}."
        lines = [f"{self.directory}: {len(self.differences)} differences."]
        return "\n".join([*lines, *(f"  {line}" for line in self.differences)])


def verify(directory: str | Path) -> Verification:
    """Compares a prepared dataset, an export or a finished run with its checksums.

    Reads every byte and needs no framework. Missing or changed files, links out of the
    folder, and files that checksums.json does not name are differences. In a run, only
    files that training wrote are compared, since later commands add others.

    Args:
        directory: Folder written by `prepare`, `export` or `train`, or an ONNX or
            LiteRT file written by `export`.

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
            f"{file} has no checksum. Expected a checksum file {file.name}{SIDECAR} "
            "next to it, as written by `agegender export` or `sha256sum`."
        )
    received = file_hash(file)
    differences = [Difference(file.name, f"SHA-256 {expected}", received)]
    return Verification(file, 1, tuple(differences if received != expected else ()))


def check_file(file: Path) -> None:
    """Checks that a file matches the checksum file next to it, if there is one."""
    if _sidecar_digest(file) is not None:
        for difference in _verify_file(file).differences:
            raise ValueError(
                f"{file} is damaged. {difference}. Export it again (--overwrite), or "
                f"remove {file.name}{SIDECAR} if you replaced the file intentionally."
            )


def sidecar(file: Path) -> Path:
    """Returns the checksum file of another file."""
    return file.with_name(file.name + SIDECAR)


def write_sidecar(file: Path) -> None:
    """Writes a file's checksum beside it."""
    write_text(sidecar(file), f"{file_hash(file)}  {file.name}\n")


def _sidecar_digest(file: Path) -> str | None:
    """Returns the checksum of the checksum file next to a file, or `None`."""
    beside = sidecar(file)
    if not beside.is_file():
        return None
    found = LINE.fullmatch(beside.read_text("utf-8", errors="replace").rstrip("\r\n"))
    if found is None or found["name"] != file.name:
        raise ValueError(
            f"{beside} is damaged or belongs to another file. Expected a SHA-256, two "
            f"spaces and {file.name!r}. Remove it, or recreate it with `sha256sum`."
        )
    return found["digest"]


def check_sizes(directory: Path, remedy: str, besides: Collection[str] = ()) -> None:
    """Checks that files exist and have the recorded sizes, if checksums exist."""
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
    """Writes checksums.json after all other files."""
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
    """Returns name -> (size, SHA-256), and whether other files count as differences."""
    file = directory / CHECKSUMS_FILE
    if not file.is_file():
        raise ValueError(
            f"{CHECKSUMS_FILE} is missing in {directory}. Expected a prepared dataset, "
            "an export, a finished run, or an ONNX or LiteRT file."
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
            f"{file} is not a checksum file of this library ({type(error).__name__}: "
            f"{error}). Expected 'algorithm' sha256 and 'files'."
        ) from None


def _walk(directory: Path) -> Iterator[tuple[str, Path]]:
    """Yields name and path of all files but the checksums; follows no links."""
    for folder, folders, names in os.walk(directory):
        links = [name for name in folders if (Path(folder) / name).is_symlink()]
        for name in [*names, *links]:
            file = Path(folder) / name
            if file != directory / CHECKSUMS_FILE:
                yield file.relative_to(directory).as_posix(), file


def _unsafe(directory: Path, name: str) -> str:
    """Returns why reading a name in a folder is unsafe, or an empty string."""
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
