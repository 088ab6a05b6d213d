"""Compares an exported file with its model."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from keras_agegender.datasets.pipeline import read_columns
from keras_agegender.datasets.prepared import PreparedDataset, load_prepared, read_rows
from keras_agegender.encodings.head import ANSWER
from keras_agegender.faces.geometry import resize, to_bytes
from keras_agegender.faces.images import UnreadableImageError, read_image
from keras_agegender.faces.preprocessing_graph import PreprocessingGraph, crop_size
from keras_agegender.labels import AGE_GROUPS, MISSING
from keras_agegender.run_directory import RunDirectory
from keras_agegender.serving.bundle import ExportBundle
from keras_agegender.serving.formats import ModelFile
from keras_agegender.synthetic.drawing import draw_face

BATCH_SIZE = 32
TIMED_FACES = 50


class Tolerance(NamedTuple):
    """What a file's answers may differ by.

    Attributes:
        largest: Difference of any probability of any face.
        mean: Mean difference of an output's probabilities.
        agreement: Least share of faces with the same answer, for every question.
    """

    largest: float
    mean: float
    agreement: float


TOLERANCES = {
    "onnx": Tolerance(largest=1e-3, mean=1e-4, agreement=0.99),
    "litert": Tolerance(largest=1e-3, mean=1e-4, agreement=0.99),
    "litert-int8": Tolerance(largest=1.0, mean=0.03, agreement=0.9),
}


@dataclass(frozen=True)
class Faces:
    """Crops to compare answers about.

    Attributes:
        crops: RGB. Shape (count, height, width, 3), uint8.
        source: Where they are from, in words.
        labels: `"age_group"`, `"gender_id"` or `"age_years"` -> the truth, -1 where it
            is unknown. Shape (count,).
    """

    crops: np.ndarray
    source: str
    labels: Mapping[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class Comparison:
    """How a model file answers beside the Keras model.

    Attributes:
        faces: How many, and where from.
        largest: Largest difference of a probability.
        mean: Output -> mean difference of its probabilities.
        agreement: Question -> share of faces with the same answer.
        scores: Figure on labelled faces -> (the Keras model's, the file's).
        num_bytes: Size of the file.
        milliseconds: Median time for one face, alone, on one thread.
    """

    faces: str
    largest: float
    mean: dict[str, float]
    agreement: dict[str, float]
    scores: dict[str, tuple[float, float]]
    num_bytes: int
    milliseconds: float

    def __str__(self) -> str:
        worst = max(self.mean, key=lambda name: self.mean[name])
        lines = [
            f"{self.num_bytes / 1e6:.2f} MB, {self.milliseconds:.2f} ms a face "
            "(median, one thread)",
            f"compared with the Keras model on {self.faces}:",
            f"  probabilities: largest difference {self.largest:.2g}, mean "
            f"{self.mean[worst]:.2g} ({worst})",
        ]
        shares = [f"{name} {share:.1%}" for name, share in self.agreement.items()]
        lines += [f"  same answer: {', '.join(shares)}"] if shares else []
        for name, (before, after) in self.scores.items():
            lines.append(
                f"  {name}: {before:.3f} -> {after:.3f} ({after - before:+.3f})"
            )
        return "\n".join(lines)


def compare_answers(
    served: ExportBundle, model: ModelFile, faces: Faces, num_bytes: int
) -> Comparison:
    """Asks a Keras model and a file about the same faces.

    Args:
        served: The Keras model.
        model: The file, opened in its own runtime, on one thread.
        faces: Whom to ask about.
        num_bytes: Size of the file.
    """
    expected = keras_answers(served, faces.crops)
    batches = range(0, len(faces.crops), BATCH_SIZE)
    parts = [model.answer(faces.crops[i : i + BATCH_SIZE]) for i in batches]
    found = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    differences = {
        name: np.abs(expected[name] - found[name]) for name in _probabilities(served)
    }
    questions = [name for name in expected if expected[name].dtype.kind == "i"]
    questions += [
        head.name + ANSWER
        for head in served_encoding(served).extra_heads
        if not head.spec.is_number
    ]
    return Comparison(
        faces=f"{len(faces.crops)} {faces.source}",
        # NaN must not pass for a small difference.
        largest=_number(max(np.max(d) for d in differences.values())),
        mean={name: _number(np.mean(d)) for name, d in differences.items()},
        agreement={
            name: float(np.mean(expected[name] == found[name])) for name in questions
        },
        scores={
            figure: (score(truth, expected[name]), score(truth, found[name]))
            for name, truth in faces.labels.items()
            if name in expected and (truth != MISSING).any()
            for figure, score in [_score(name)]
        },
        num_bytes=num_bytes,
        milliseconds=_time(model, faces.crops[:TIMED_FACES]),
    )


def check_drift(comparison: Comparison, tolerance: Tolerance, what: str) -> None:
    """Raises ValueError if a file answers otherwise than the Keras model."""
    wrong = []
    if not comparison.largest <= tolerance.largest:
        wrong.append(
            f"a probability differs by {comparison.largest:.3g} (at most "
            f"{tolerance.largest:g})"
        )
    for name, mean in comparison.mean.items():
        if not mean <= tolerance.mean:
            wrong.append(
                f"probabilities of {name} differ by {mean:.3g} on average (at most "
                f"{tolerance.mean:g})"
            )
    for name, share in comparison.agreement.items():
        if not share >= tolerance.agreement:
            wrong.append(
                f"{name} is the same for {share:.1%} of the faces (at least "
                f"{tolerance.agreement:.0%})"
            )
    if wrong:
        raise ValueError(
            f"The {what} file answers otherwise than the Keras model, on "
            f"{comparison.faces}: {'; '.join(wrong)}. It was not put in place."
        )


def keras_answers(served: ExportBundle, crops: np.ndarray) -> dict[str, np.ndarray]:
    """Returns the Keras model's answers, its pixels prepared as in training."""

    @tf.function(reduce_retracing=True, autograph=False)
    def answer(batch: tf.Tensor) -> dict[str, tf.Tensor]:
        return served.functions["faces"](batch)

    parts = []
    for start in range(0, len(crops), BATCH_SIZE):
        answers = answer(tf.convert_to_tensor(crops[start : start + BATCH_SIZE]))
        parts.append({name: value.numpy() for name, value in answers.items()})
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def served_encoding(served: ExportBundle) -> Any:
    """Returns the encoding of what is served."""
    from keras_agegender.encodings.encoding import Encoding

    return Encoding.from_dict(served.metadata["encoding"])


def _probabilities(served: ExportBundle) -> list[str]:
    """Returns the names of outputs and answers that are probabilities."""
    encoding = served_encoding(served)
    names = list(encoding.output_names)
    if encoding.age_head is not None:
        names.append("age_group_probabilities")
    if encoding.gender_head is not None:
        names.append("male_probability")
    return names


def _score(name: str) -> tuple[str, Any]:
    if name == "age_years":
        return "mean error in years", lambda truth, answer: float(
            np.abs(answer - truth)[truth != MISSING].mean()
        )
    return f"{name} accuracy", lambda truth, answer: float(
        (answer == truth)[truth != MISSING].mean()
    )


def _number(value: Any) -> float:
    return float(value) if np.isfinite(value) else float("inf")


def _time(model: ModelFile, crops: np.ndarray) -> float:
    """Returns the median of the milliseconds that a face takes."""
    times = []
    model.answer(crops[:1])
    for crop in crops:
        start = time.perf_counter()
        model.answer(crop[np.newaxis])
        times.append(time.perf_counter() - start)
    return 1000 * float(np.median(times))


COMPARED = 500  # enough to tell a per cent apart
PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
DRAWN = 48
# Column of a dataset -> the answer that it is the truth of.
LABELS = {"age_group": "age_group", "gender": "gender_id", "age_years": "age_years"}


def find_faces(
    run: RunDirectory | None, crops: str | Path | None, graph: PreprocessingGraph
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


def _dataset_faces(
    data: PreparedDataset, split: str, graph: PreprocessingGraph
) -> Faces:
    columns = [name for name in LABELS if name in data.builder.info.features]
    examples = read_columns(data, split, {"image", *columns}).take(COMPARED)
    rows = list(read_rows(data, examples))
    crops = [_stored(graph.decode(row["image"]), graph) for row in rows]
    labels = {LABELS[name]: np.array([r[name] for r in rows]) for name in columns}
    source = f"faces of {data.directory}, split {split}"
    return Faces(np.stack(crops), source, labels)


def _folder_faces(folder: Path, graph: PreprocessingGraph) -> Faces:
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


def _drawn_faces(graph: PreprocessingGraph) -> Faces:
    size = [max(side, 32) for side in crop_size(graph.path)]
    pictures = [
        draw_face(
            k, k % len(AGE_GROUPS), k // 8 % 2, image_size=(size[0], size[1])
        ).image
        for k in range(DRAWN)
    ]
    crops = np.stack([_stored(picture, graph) for picture in pictures])
    return Faces(crops, "drawn faces (real ones: --crops FOLDER)")


def _stored(picture: np.ndarray, graph: PreprocessingGraph) -> np.ndarray:
    """Returns a crop as it is stored, at the size that a file takes."""
    size = crop_size(graph.path)
    if tuple(picture.shape[:2]) != size:
        picture = to_bytes(resize(tf.convert_to_tensor(picture), size))
    return np.asarray(picture)
