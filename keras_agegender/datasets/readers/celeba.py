"""CelebA: attribute list, partition and images become a manifest.

Liu et al., "Deep Learning Face Attributes in the Wild", ICCV 2015. It has 40
attributes, `Male` among them, and no age; the report pretrains on it. TensorFlow
Datasets' `celeb_a` is written out in CelebA's own layout first: one reader reads both.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from keras_agegender.console import progress_bar
from keras_agegender.datasets.manifest import CleaningReport, Manifest, make_manifest
from keras_agegender.errors import one_line
from keras_agegender.files import write_bytes
from keras_agegender.labels import CELEBA_ATTRIBUTES, GENDERS

ATTRIBUTES_FILE = "list_attr_celeba.txt"
PARTITION_FILE = "list_eval_partition.txt"
IDENTITY_FILE = "identity_CelebA.txt"
PARTITIONS = {"0": "train", "1": "validation", "2": "test"}
IMAGE_FOLDERS = ("img_align_celeba", "img_celeba", "images")
# Where the lists are: beside the images, as on Google Drive, and in folders above or
# below. Kaggle's copy has the same lists as CSV files.
LIST_FOLDERS = (".", "Anno", "Eval", "celeba", "CelebA", "CelebA/Anno", "CelebA/Eval",
                "../Anno", "../Eval")  # fmt: skip
KAGGLE_FIRST = "image_id"  # the first column of Kaggle's CSV files
GOOGLE_DRIVE = "https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html"


def read_celeba(
    directory: str | Path, *, shared_subjects: bool = False
) -> tuple[Manifest, CleaningReport]:
    """Reads CelebA from a folder.

    Args:
        directory: Folder with `list_attr_celeba.txt`, `list_eval_partition.txt` and the
            images in `img_align_celeba/` (or `img_celeba/`, `images/`, or beside the
            lists), as on Google Drive in `Anno/`, `Eval/` and `Img/`, or as Kaggle's
            CSV files. With `identity_CelebA.txt` subjects are known too.
        shared_subjects: Whether a subject may be in two partitions, which an audit
            reports. Defaults to `False`: that is an error. CelebA's own do not share.

    Returns:
        `(manifest, report)`, with CelebA's own splits, gender from `Male`, no age
        groups, and a column of 0 and 1 for each of the 40 attributes. The encodings
        `"attributes"` and `"gender"` fit it. Images without a file are dropped.

    Raises:
        ValueError: If a list is absent or damaged, or no image is there.

    Example:
    >>> manifest, report = read_celeba("data/celeba")  # doctest: +SKIP
    """
    directory = Path(directory)
    if not directory.is_dir():
        raise ValueError(f"There is no folder {directory} with CelebA.")
    partition = dict(_read_pairs(_find_list(directory, PARTITION_FILE)))
    identities = {}
    if _find_list(directory, IDENTITY_FILE).exists():
        identities = dict(_read_pairs(_find_list(directory, IDENTITY_FILE)))
    listed = [*_read_attributes(_find_list(directory, ATTRIBUTES_FILE))]
    folder = _image_folder(directory, [name for _, name, _ in listed])
    report = CleaningReport("celeba")
    rows = []
    for where, name, attributes in listed:
        report.rows_read += 1
        split = PARTITIONS.get(partition.get(name, ""))
        if split is None:
            raise ValueError(
                f"{where}: {name!r} has no partition 0, 1 or 2 in {PARTITION_FILE}."
            )
        if not (folder / name).is_file():
            report.drop(name, "no image file")
            continue
        rows.append(
            {
                "key": name,
                "path": str(folder / name),
                "subject": identities.get(name, ""),
                "split": split,
                "gender": GENDERS.index("male" if attributes["Male"] else "female"),
                "source": "celeba",
                **attributes,
            }
        )
    if not rows:
        raise ValueError(
            f"None of {report.rows_read} listed images is in {folder}. Expected them "
            f"in {' or '.join(IMAGE_FOLDERS)}, below {directory}."
        )
    manifest = make_manifest(rows, cleaning=report, shared_subjects=shared_subjects)
    return manifest, report


def write_celeba_from_tfds(
    directory: str | Path,
    *,
    data_dir: str | Path | None = None,
    download: bool = True,
    progress: bool = True,
) -> Path:
    """Writes TensorFlow Datasets' `celeb_a` as a folder that `read_celeba` reads.

    Images keep their JPEG bytes. TensorFlow Datasets does not keep their names: they
    are numbered in its order, which is not CelebA's. A second call resumes an
    interrupted one.

    Args:
        directory: Folder to make.
        data_dir: Where TensorFlow Datasets keeps its datasets; `None` is its default.
        download: Whether to download missing data (about 1.4 GB).
        progress: Whether a progress bar is shown on stderr.

    Returns:
        The folder.

    Raises:
        ValueError: If it is missing and cannot be downloaded.

    Example:
    >>> write_celeba_from_tfds("data/celeba")  # doctest: +SKIP
    """
    import tensorflow  # noqa: F401, which the next line loads when it is used
    import tensorflow_datasets as tfds

    directory = Path(directory)
    folder = directory / IMAGE_FOLDERS[0]
    builder = _open_tfds(tfds, data_dir, download)
    folder.mkdir(parents=True, exist_ok=True)
    attributes = []
    partition: list[str] = []
    for code, split in PARTITIONS.items():
        examples = builder.as_dataset(
            split=split, decoders={"image": tfds.decode.SkipDecoding()}
        )
        bar = progress_bar(len(examples), split, "image", shown=progress)
        for example in tfds.as_numpy(examples):
            name = f"{len(partition) + 1:06d}.jpg"
            _write_whole(folder / name, bytes(example["image"]))
            values = (
                ("-1", "1")[bool(example["attributes"][a])] for a in CELEBA_ATTRIBUTES
            )
            attributes.append(" ".join([name, *values]))
            partition.append(f"{name} {code}")
            bar.update()
        bar.close()
    _write_whole(directory / PARTITION_FILE, _text(partition))
    head = [str(len(attributes)), " ".join(CELEBA_ATTRIBUTES)]
    _write_whole(directory / ATTRIBUTES_FILE, _text([*head, *attributes]))
    return directory


def _open_tfds(tfds: Any, data_dir: str | Path | None, download: bool) -> Any:
    try:
        builder = tfds.builder("celeb_a", data_dir=data_dir and str(data_dir))
        if download:
            builder.download_and_prepare()
        elif not builder.is_prepared():
            raise FileNotFoundError("it is not prepared there")
    # Whatever TensorFlow Datasets raises here (offline, quota, checksum, a missing
    # package) has one answer for the user.
    except Exception as error:
        reason = one_line(error, 200)
        raise ValueError(
            "TensorFlow Datasets cannot provide celeb_a "
            f"({type(error).__name__}: {reason}). Google Drive often refuses it: get "
            f"img_align_celeba.zip, {ATTRIBUTES_FILE} and {PARTITION_FILE} from "
            f"{GOOGLE_DRIVE} by hand, unpack them into one folder and read that."
        ) from error
    return builder


def _find_list(directory: Path, name: str) -> Path:
    """Returns a list or Kaggle's CSV file of it; a path without a file if absent."""
    for folder in LIST_FOLDERS:
        file = directory / folder / name
        for found in (file, file.with_suffix(".csv")):
            if found.is_file():
                return found
    return directory / name


def is_celeba(path: Path) -> bool:
    """Returns whether CelebA's attributes are in a folder."""
    return path.is_dir() and _find_list(path, ATTRIBUTES_FILE).is_file()


def _read_attributes(file: Path) -> Iterator[tuple[str, str, dict[str, int]]]:
    """Yields (where, image, attributes) per row of the attribute list."""
    lines = _lines(file)
    is_csv = lines[0].startswith(KAGGLE_FIRST) if lines else False
    first = 1 if is_csv else 2  # the first row
    names = _values(lines[first - 1])[is_csv:] if len(lines) >= first else []
    if sorted(names) != sorted(CELEBA_ATTRIBUTES):
        raise ValueError(
            f"{file}, line {first}: expected the names of CelebA's 40 attributes. "
            f"Received {len(names)}: {' '.join(names)[:60]!r}."
        )
    if not is_csv and lines[0].strip() != str(len(lines) - 2):
        raise ValueError(
            f"{file}, line 1: announces {lines[0].strip()!r} rows, {len(lines) - 2} "
            "follow. Is the file truncated?"
        )
    for number, line in enumerate(lines[first:], start=first + 1):
        name, *values = _values(line)
        where = f"{file}, line {number}"
        _check_name(where, name)
        if len(values) != len(names) or not set(values) <= {"1", "-1"}:
            raise ValueError(
                f"{where}: expected 40 values of 1 or -1. Received {len(values)}: "
                f"{' '.join(values)[:60]!r}."
            )
        yield (
            where,
            name,
            {n: int(v == "1") for n, v in zip(names, values, strict=True)},
        )


def _values(line: str) -> list[str]:
    return line.replace(",", " ").split()


def _read_pairs(file: Path) -> Iterator[tuple[str, str]]:
    for number, line in enumerate(_lines(file), start=1):
        values = _values(line)
        if len(values) != 2:
            raise ValueError(
                f"{file}, line {number}: expected two values. Received: {line[:60]!r}."
            )
        if values[0] != KAGGLE_FIRST:
            yield values[0], values[1]


def _check_name(where: str, name: str) -> None:
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise ValueError(
            f"{where}: expected a path below the image folder. Received: {name!r}."
        )


def _lines(file: Path) -> list[str]:
    if not file.is_file():
        raise ValueError(
            f"There is no {file}. CelebA's lists belong into that folder, see "
            f"{GOOGLE_DRIVE}."
        )
    try:
        lines = file.read_text("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is not a text file: {error.reason}.") from error
    return [line for line in lines if line.strip()]


def _image_folder(directory: Path, names: list[str], sample: int = 20) -> Path:
    """Returns the folder with most of a sample of the images.

    Archives are often unpacked into a folder of the same name: it is there twice.
    """
    inside = ("", *(f"{name}/{name}" for name in IMAGE_FOLDERS), *IMAGE_FOLDERS)
    folders = [
        directory / above / folder
        for above in (".", "Img", "celeba", "CelebA", "CelebA/Img", "../Img")
        for folder in inside
    ]
    some = names[:: max(1, len(names) // sample)]
    folders = [f for f in folders if f.is_dir()]
    counts = [sum((folder / n).is_file() for n in some) for folder in folders]
    if not any(counts):
        named = directory / IMAGE_FOLDERS[0]
        return named if named.is_dir() else directory
    return folders[counts.index(max(counts))]


def _write_whole(file: Path, data: bytes) -> None:
    if not file.is_file():
        write_bytes(file, data, durable=False)


def _text(lines: list[str]) -> bytes:
    return ("\n".join(lines) + "\n").encode()
