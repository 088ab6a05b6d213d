"""Annotated pictures of `agegender predict`: their files, and writing them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from keras_agegender.serving.photo_sources import Source

PICTURE_ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp")


def annotation_files(sources: Sequence[Source], target: Path) -> list[Path]:
    """Returns where each source's picture with its answers goes.

    Raises:
        ValueError: If that is no picture file or folder, or a source itself.
    """
    several = len(sources) > 1
    is_picture = target.suffix.lower() in PICTURE_ENDINGS and not target.is_dir()
    if several and (is_picture or target.is_file()):
        raise ValueError(
            "Invalid --annotate. Expected a folder for several photos. Received: "
            f"{target}, the name of one file, for {len(sources)} photos."
        )
    is_folder = target.is_dir() or several or not (target.suffix or target.is_file())
    if not (is_picture or is_folder):
        raise ValueError(
            "Invalid --annotate. Expected a folder, or a file that ends in "
            f"{', '.join(PICTURE_ENDINGS)}. Received: {target}."
        )
    files = [target] if is_picture else _named_after(sources, target)
    photos = {Path(source.name).resolve() for source in sources}
    same = photos & {file.resolve() for file in files}
    if same:
        raise ValueError(
            "Invalid --annotate. Expected another file or folder than the photo's. "
            f"Received: {target}; {same.pop()} would be overwritten."
        )
    return files


def _named_after(sources: Sequence[Source], folder: Path) -> list[Path]:
    """Returns a file for each source; a name that comes again gets an index."""
    files: dict[Path, None] = {}
    for source in sources:
        stem = Path(source.name).stem
        file = folder / f"{stem}.png"
        index = 1
        while file in files:
            index += 1
            file = folder / f"{stem}_{index}.png"
        files[file] = None
    return list(files)


def annotate(source: Source, file: Path, prediction: Any) -> None:
    """Writes a photo's picture with its answers; of a video one for each person.

    One that has vanished since it was answered is said, and stops no others.
    """
    if prediction.status == "unreadable":
        return
    from keras_agegender.faces.images import UnreadableImageError, read_image

    try:
        if source.is_video:
            _annotate_people(source, file, prediction)
        else:
            _write(file, read_image(source.content), prediction)
    except UnreadableImageError as error:
        print(f"agegender: not annotated: {error}", file=sys.stderr)


def _annotate_people(source: Source, file: Path, video: Any) -> None:
    """Writes everybody's surest frame: NAME_1.png, NAME_2.png and so on."""
    from keras_agegender.faces.video import VideoReader
    from keras_agegender.serving.answers import PhotoPrediction

    wanted = dict(enumerate(video.faces, 1))
    reader = VideoReader(source.content, video.frames_per_second)
    for second, image in reader:
        for index, person in list(wanted.items()):
            if second >= person.best_second - 5e-4:  # written to a thousandth
                photo = PhotoPrediction(video.source, "ok", (person,), image.shape[:2])
                name = f"{file.stem}_{index}{file.suffix}"
                _write(file.with_name(name), image, photo)
                del wanted[index]
        if not wanted:
            return


def _write(file: Path, image: Any, prediction: Any) -> None:
    from PIL import Image

    from keras_agegender.files import replacing
    from keras_agegender.serving.annotation import annotate_photo

    file.parent.mkdir(parents=True, exist_ok=True)
    picture = annotate_photo(image, prediction)
    with replacing(file) as partial:
        Image.fromarray(picture).save(partial)
    print(f"Annotated: {file}", file=sys.stderr)
