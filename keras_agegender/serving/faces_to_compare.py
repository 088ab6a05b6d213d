"""Which faces a model file is compared on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tensorflow as tf

from keras_agegender.datasets.prepared import PreparedDataset, load_prepared
from keras_agegender.datasets.shards import read_rows
from keras_agegender.faces.images import UnreadableImageError, read_image
from keras_agegender.faces.pixel_graph import PixelGraph, crop_size
from keras_agegender.faces.resampling import resize, to_bytes
from keras_agegender.input_pipeline.reading import read_columns
from keras_agegender.labels import AGE_GROUPS
from keras_agegender.run_directory import RunDirectory
from keras_agegender.serving.comparison import Faces
from keras_agegender.synthetic.drawing import draw_face

COMPARED = 500  # enough to tell a per cent apart
PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
DRAWN = 48
# Column of a dataset -> the answer that it is the truth of.
LABELS = {"age_group": "age_group", "gender": "gender_id", "age_years": "age_years"}


def find_faces(
    run: RunDirectory | None, crops: str | Path | None, graph: PixelGraph
) -> Faces:
    """Returns the faces to compare on.

    Args:
        run: The run, whose dataset has faces if it is still there.
        crops: A prepared dataset or a folder of face crops; goes before the run's.
        graph: What is done to the pixels.

    Raises:
        ValueError: If `crops` is neither, or no picture in it can be read.
    """
    if crops is None:
        info = run.info() if run else {}
        data = info.get("data")
        if data is None or not (Path(data) / "dataset_info.json").is_file():
            return _drawn_faces(graph)
        prepared, splits = load_prepared(data), info.get("splits") or {}
    elif (Path(crops) / "dataset_info.json").is_file():
        prepared, splits = load_prepared(crops), {}
    else:
        return _folder_faces(Path(crops), graph)
    names = {**{name: name for name in prepared.splits}, **splits}
    together = "+".join(prepared.builder.info.splits)
    return _dataset_faces(prepared, names.get("validation", together), graph)


def _dataset_faces(data: PreparedDataset, split: str, graph: PixelGraph) -> Faces:
    columns = [name for name in LABELS if name in data.builder.info.features]
    examples = read_columns(data, split, {"image", *columns}).take(COMPARED)
    rows = list(read_rows(data, examples))
    crops = [_stored(graph.decode(row["image"]), graph) for row in rows]
    labels = {LABELS[name]: np.array([r[name] for r in rows]) for name in columns}
    source = f"faces of {data.directory}, split {split}"
    return Faces(np.stack(crops), source, labels)


def _folder_faces(folder: Path, graph: PixelGraph) -> Faces:
    if not folder.is_dir():
        raise ValueError(
            f"Invalid `crops`. There is no folder {folder}. Expected a prepared "
            "dataset or a folder of pictures."
        )
    files = [f for f in sorted(folder.rglob("*")) if f.suffix.lower() in PICTURES]
    # The first by name may all be of one kind.
    np.random.default_rng(0).shuffle(files)
    pictures = []
    for file in files[:COMPARED]:
        try:
            pictures.append(_stored(read_image(file), graph))
        except UnreadableImageError:
            continue
    if not pictures:
        raise ValueError(
            f"Invalid `crops`. Expected a picture in {folder} that can be read. "
            f"Received: 0 of {len(files)}."
        )
    return Faces(np.stack(pictures), f"pictures of {folder}")


def _drawn_faces(graph: PixelGraph) -> Faces:
    size = [max(side, 32) for side in crop_size(graph.path)]
    pictures = [
        draw_face(
            k, k % len(AGE_GROUPS), k // 8 % 2, image_size=(size[0], size[1])
        ).image
        for k in range(DRAWN)
    ]
    crops = np.stack([_stored(picture, graph) for picture in pictures])
    return Faces(crops, "drawn faces (real ones: --crops FOLDER)")


def _stored(picture: np.ndarray, graph: PixelGraph) -> np.ndarray:
    """Returns a crop as it is stored, at the size that a file takes."""
    size = crop_size(graph.path)
    if tuple(picture.shape[:2]) != size:
        picture = to_bytes(resize(tf.convert_to_tensor(picture), size))
    return np.asarray(picture)
