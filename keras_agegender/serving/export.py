"""Exports a model, and compares the file with the Keras model."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from keras_agegender import files
from keras_agegender.faces.images import UnreadableImageError, read_image
from keras_agegender.faces.preprocessing import CropOptions, Preprocessing
from keras_agegender.labels import AGE_GROUPS, MISSING
from keras_agegender.run_directory import RunDirectory, find_checkpoint
from keras_agegender.serving import model_format
from keras_agegender.serving.formats import check_new_export

if TYPE_CHECKING:
    import keras

    from keras_agegender.datasets.prepared import PreparedDataset
    from keras_agegender.encodings.calibration import Calibration
    from keras_agegender.encodings.encoding import Encoding
    from keras_agegender.faces.detector import MtcnnDetector
    from keras_agegender.faces.preprocessing_graph import PreprocessingGraph
    from keras_agegender.serving.bundle import ExportBundle


def export(
    model: RunDirectory | keras.Model | str | Path,
    directory: str | Path,
    *,
    encoding: Encoding | str | None = None,
    pixels: Preprocessing | None = None,
    pipeline: str | None = None,
    crop_options: CropOptions | None = None,
    crop_size: tuple[int, int] | None = None,
    detector: MtcnnDetector | None = None,
    calibration: Calibration | None = None,
    metadata: Mapping[str, Any] | None = None,
    license: str | None = None,
    format: str = "savedmodel",
    input: str | None = None,
    crops: str | Path | None = None,
    batch_size: int | None = None,
    report: Callable[[str], None] | None = None,
    overwrite: bool = False,
) -> Path:
    """Writes a self-contained model that predicts age groups and genders.

    A SavedModel is a folder. An ONNX file (`OnnxModel`) takes a photo and finds its
    faces, or takes face crops as they are stored, as a LiteRT file does
    (`LiteRtModel`). The folder or file appears under its name only when it is complete,
    and a file only if its runtime reproduces the Keras model's predictions.

    Args:
        model: A run or its directory, whose best checkpoint is exported; a `.keras`
            file, which uses the files of its run, if any; or a Keras model.
        directory: Output folder or file.
        encoding: Decodes the outputs. Defaults to that of the run or model.
        pixels: The preprocessing of training, `load_prepared(…).pixels` for instance.
            Defaults to that of the run, else to that of `prepare`, with whole images
            or, with `crop_options`, crops.
        pipeline: `"resnet"` or `"caffe"`: the input pipeline of training. Defaults to
            that of the run, else to `"resnet"`.
        crop_options: Replaces the crop options of `pixels`.
        crop_size: Replaces the stored (height, width) of `pixels`.
        detector: Replaces the face detector of `pixels`.
        calibration: Temperatures and prediction sets. Defaults to the run's
            calibration.json, for its best checkpoint.
        metadata: Stored in agegender.json under `"user"`.
        license: License terms of the weights, stored in agegender.json. Defaults to
            those in the run's terms.json.
        format: `"savedmodel"` (default), `"onnx"`, `"onnx-compact"`, `"litert"` or
            `"litert-int8"`.
        input: `"photo"` or `"crops"`, what a file takes. Defaults to `"photo"` for an
            ONNX file, unless faces were found by another detector than MTCNN, and to
            `"crops"` for others, which cannot find faces.
        crops: A prepared dataset or a folder of face crops to validate a file on.
            Defaults to the run's dataset if it still exists, else to drawn faces.
        batch_size: Fixed number of crops of a LiteRT file. Delegates for GPUs and NPUs
            need it, usually 1. Defaults to any number.
        report: Called with size, speed and agreement of a file, `print` for instance.
        overwrite: Whether to replace an existing export of that name.

    Returns:
        The folder or file. A SavedModel has no signatures `photo` and `photos`, with a
        warning, if faces were found by another detector than MTCNN.

    Raises:
        ValueError: If the backend is not TensorFlow, the folder or file exists or
            another process writes it, model, encoding and pipeline do not fit together,
            or a file's predictions differ from the Keras model's.

    Example:
    >>> export("runs/1", "saved_models/first")  # doctest: +SKIP
    >>> export("runs/1", "first.tflite", format="litert-int8")  # doctest: +SKIP
    """
    target = Path(directory)
    row = check_new_export(target, format, overwrite)
    if batch_size is not None and (not format.startswith("litert") or batch_size < 1):
        raise ValueError(
            "Invalid `batch_size`. Expected a positive integer for a LiteRT file. "
            f"Received: batch_size={batch_size}, format={format!r}."
        )
    if input not in (None, "crops", *(("photo",) if row.finds_faces else ())):
        expected = "'photo' or 'crops'" if row.finds_faces else "'crops'"
        raise ValueError(
            f"Invalid `input` (--input). Expected {expected} for the format "
            f"{format!r}. Received: input={input!r}."
        )
    if isinstance(model, (str, Path, RunDirectory)):
        find_checkpoint(model)
    from keras_agegender.serving.bundle import build_export_bundle

    bundle = build_export_bundle(
        model,
        encoding=encoding,
        pixels=pixels,
        pipeline=pipeline,
        crop_options=crop_options,
        crop_size=crop_size,
        detector=detector,
        calibration=calibration,
        metadata=metadata,
        license=license,
    )
    refusal = f"Another process exports to {target}. Choose another name."
    with files.exclusive_lock(files.lock_beside(target), refusal):
        check_new_export(target, format, overwrite)
        if row.suffix:
            takes_photos = _takes_photos(row, bundle, input)
            comparison = _write_file(
                row, bundle, target, takes_photos, crops, overwrite, batch_size
            )
            if report is not None:
                report(str(comparison))
            return target
        partial = files.partial_directory(target)
        shutil.rmtree(partial, ignore_errors=True)
        _writer(row)(bundle, partial, bundle.metadata)
        files.write_checksums(partial)  # last: without it, an export is unfinished
        check_new_export(target, format, overwrite)  # it may have appeared meanwhile
        files.replace_directory(partial, target)
    return target


def _writer(row: model_format.ModelFormat) -> Callable[..., object]:
    if row.write is None:
        raise ValueError(f"The format {row.name!r} cannot be written.")
    return row.write


def _takes_photos(
    row: model_format.ModelFormat, bundle: ExportBundle, input: str | None
) -> bool:
    possible = row.finds_faces and "photo" in bundle.functions
    if input == "photo" and not possible:
        raise ValueError(
            "Invalid `input` (--input). Expected 'crops': faces were found by "
            f"{bundle.graph.spec.detector}, which a file cannot contain. Received: "
            "input='photo'."
        )
    return possible and input != "crops"


def _write_file(
    row: model_format.ModelFormat,
    bundle: ExportBundle,
    file: Path,
    takes_photos: bool,
    crops: str | Path | None,
    overwrite: bool,
    batch_size: int | None = None,
) -> Comparison:
    """Writes a file if it reproduces the Keras model's predictions."""
    faces = find_faces(bundle.run, crops, bundle.graph)
    tolerance = row.tolerance or model_format.Tolerance(0, 0, 1)
    if takes_photos:
        largest, mean, agreement = tolerance
        tolerance = model_format.Tolerance(
            largest + FACE_TOLERANCE.largest,
            mean + FACE_TOLERANCE.mean,
            min(agreement, FACE_TOLERANCE.agreement),
        )
    any_size = takes_photos or row.any_crop_size
    size = None if any_size else list(bundle.graph.spec.crop_size)
    described = {
        "format": row.name,
        "input": "photo" if takes_photos else "crops",
        "crop_size": size,
        "tolerance": tolerance._asdict(),
        "batch_size": batch_size,
    }
    metadata = {
        **bundle.metadata,
        "signatures": [described["input"]],
        "file": described,
    }
    with files.atomic_write(file) as partial:
        _writer(row)(bundle, partial, metadata)
        num_bytes = partial.stat().st_size
        comparison = compare(bundle, row.open(partial, 1), faces, num_bytes)
        check_tolerance(comparison, tolerance, row.name)
        check_new_export(file, row.name, overwrite)  # it may have appeared meanwhile
        files.sidecar(file).unlink(missing_ok=True)  # of the replaced file
    files.write_sidecar(file)
    return comparison


# -- comparison ------------------------------------------------------------------------

BATCH_SIZE = 32
# Added where faces are found: rounding moves a box, and with it what the network sees.
FACE_TOLERANCE = model_format.Tolerance(largest=0.1, mean=2e-3, agreement=0.98)
LEAST_OVERLAP = 0.98  # of two boxes of one face, on average
TIMED_FACES = 50
MAX_COMPARED = 500  # enough to resolve one percent
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
NUM_DRAWN = 48
# Column of a dataset -> the output that it is the true value of.
LABELS = {"age_group": "age_group", "gender": "gender_id", "age_years": "age_years"}


@dataclass(frozen=True)
class Faces:
    """Crops to compare predictions on."""

    crops: np.ndarray  # RGB, uint8, shape (count, height, width, 3)
    source: str  # as text
    labels: Mapping[str, np.ndarray] = field(default_factory=dict)  # -1: unknown


@dataclass(frozen=True)
class Comparison:
    """A comparison of a model file's predictions with the Keras model's."""

    faces: str  # their number and source
    largest: float  # difference of a probability
    mean: dict[str, float]  # output -> mean difference of its probabilities
    agreement: dict[str, float]  # output -> share of faces with the same class
    scores: dict[str, tuple[float, float]]  # score -> (the Keras model's, the file's)
    num_bytes: int
    milliseconds: float  # median for one face, or photo, on one thread
    overlap: float | None = None  # mean of boxes, intersection over union

    def __str__(self) -> str:
        worst = max(self.mean, key=lambda name: self.mean[name])
        lines = [
            f"{self.num_bytes / 1e6:.2f} MB, {self.milliseconds:.2f} ms "
            f"{'a face' if self.overlap is None else 'an image'} (median, one thread)",
            f"compared with the Keras model on {self.faces}:",
            f"  probabilities: largest difference {self.largest:.2g}, mean "
            f"{self.mean[worst]:.2g} ({worst})",
        ]
        if self.overlap is not None:
            lines.append(f"  boxes: mean intersection over union {self.overlap:.4f}")
        shares = [f"{name} {share:.1%}" for name, share in self.agreement.items()]
        lines += [f"  same prediction: {', '.join(shares)}"] if shares else []
        for name, (before, after) in self.scores.items():
            lines.append(
                f"  {name}: {before:.3f} -> {after:.3f} ({after - before:+.3f})"
            )
        return "\n".join(lines)


def compare(
    bundle: ExportBundle,
    model: model_format.InferenceModel,
    faces: Faces,
    num_bytes: int,
) -> Comparison:
    """Compares a file, opened in its runtime on one thread, with the Keras model."""
    from keras_agegender.encodings.head import ANSWER

    overlap, same_number = None, {}
    if model.takes_photos:
        photos = _predict_photos(bundle, model, faces)
        expected, found, faces = photos.expected, photos.found, photos.faces
        overlap, same_number = photos.overlap, {"number of faces": photos.same_number}
    else:
        expected = _in_batches(_keras_predict(bundle), faces.crops)
        found = _in_batches(model.predict, faces.crops)
    encoding = bundle.encoding
    probabilities = list(encoding.output_names)
    if encoding.age_head is not None:
        probabilities.append("age_group_probabilities")
    if encoding.gender_head is not None:
        probabilities.append("male_probability")
    differences = {name: np.abs(expected[name] - found[name]) for name in probabilities}
    classes = [name for name in expected if expected[name].dtype.kind == "i"]
    classes += [
        head.name + ANSWER for head in encoding.extra_heads if not head.spec.is_number
    ]
    return Comparison(
        faces=f"{len(faces.crops)} {faces.source}",
        largest=_finite(max(np.max(d) for d in differences.values())),
        mean={name: _finite(np.mean(d)) for name, d in differences.items()},
        agreement=same_number
        | {name: float(np.mean(expected[name] == found[name])) for name in classes},
        scores={
            title: (score(expected[name]), score(found[name]))
            for name, labels in faces.labels.items()
            if name in expected and (labels != MISSING).any()
            for title, score in [_score(name, labels)]
        },
        num_bytes=num_bytes,
        milliseconds=_time(model, faces.crops[:TIMED_FACES]),
        overlap=overlap,
    )


def check_tolerance(
    comparison: Comparison, tolerance: model_format.Tolerance, what: str
) -> None:
    """Checks that a file's predictions equal the Keras model's."""
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
    if comparison.overlap is not None and not comparison.overlap >= LEAST_OVERLAP:
        wrong.append(
            f"boxes have a mean intersection over union of {comparison.overlap:.3f} "
            f"(at least {LEAST_OVERLAP})"
        )
    for name, share in comparison.agreement.items():
        if not share >= tolerance.agreement:
            wrong.append(
                f"{name} is the same for {share:.1%} of the faces (at least "
                f"{tolerance.agreement:.0%})"
            )
    if wrong:
        raise ValueError(
            f"The {what} file's predictions differ from the Keras model's, on "
            f"{comparison.faces}: {'; '.join(wrong)}. The file was not written."
        )


def _keras_predict(
    bundle: ExportBundle,
) -> Callable[[np.ndarray], model_format.Outputs]:
    """Returns the signature `faces`, which preprocesses crops as in training."""
    import tensorflow as tf

    function = tf.function(
        bundle.functions["faces"], reduce_retracing=True, autograph=False
    )

    def predict(crops: np.ndarray) -> model_format.Outputs:
        outputs = function(tf.convert_to_tensor(crops))
        return {name: value.numpy() for name, value in outputs.items()}

    return predict


class _Photos(NamedTuple):
    """Predictions for the faces of images, row by row the same face."""

    expected: model_format.Outputs
    found: model_format.Outputs
    faces: Faces  # with a label for each row
    same_number: float  # share of the images with the same number of faces
    overlap: float


def _predict_photos(
    bundle: ExportBundle, model: model_format.InferenceModel, faces: Faces
) -> _Photos:
    """Predicts images as photos; those without a face as a whole."""
    import tensorflow as tf

    from keras_agegender.serving.bundle import photo_function

    keras_predict = tf.function(
        photo_function(bundle), reduce_retracing=True, autograph=False
    )
    pairs, rows, num_equal = [], [], 0
    for place, image in enumerate(faces.crops):
        for whole in (False, True):
            outputs = keras_predict(tf.constant(image), tf.constant(whole))
            expected = {name: value.numpy() for name, value in outputs.items()}
            found = model.predict(image, **({"whole_image": True} if whole else {}))
            count = len(expected["boxes"])
            if not whole:
                num_equal += len(found["boxes"]) == count
            if count:  # else once more as a whole
                break
        if len(found["boxes"]) == count:
            pairs.append((expected, found))
            rows += [place if count == 1 else MISSING] * count
    if not pairs:
        raise ValueError(
            "The file finds another number of faces than the Keras model in all images."
        )
    expected, found = (
        {name: np.concatenate([row[name] for row in outputs]) for name in outputs[0]}
        for outputs in zip(*pairs, strict=True)
    )
    places = np.array(rows)
    labels = {
        name: np.where(places == MISSING, MISSING, values[places])
        for name, values in faces.labels.items()
    }
    return _Photos(
        expected,
        found,
        replace(faces, labels=labels),
        num_equal / len(faces.crops),
        _mean_overlap(expected["boxes"], found["boxes"]),
    )


def _mean_overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Returns the mean intersection over union of boxes, row by row."""
    low, high = np.maximum(a[:, :2], b[:, :2]), np.minimum(a[:, 2:], b[:, 2:])
    shared = np.clip(high - low, 0, None).prod(axis=1)
    areas = [(x[:, 2:] - x[:, :2]).prod(axis=1) for x in (a, b)]
    return _finite(np.mean(shared / (areas[0] + areas[1] - shared)))


def _in_batches(
    predict: Callable[[np.ndarray], model_format.Outputs], crops: np.ndarray
) -> model_format.Outputs:
    batches = range(0, len(crops), BATCH_SIZE)
    parts = [predict(crops[i : i + BATCH_SIZE]) for i in batches]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _score(name: str, labels: np.ndarray) -> tuple[str, Callable[[np.ndarray], float]]:
    known = labels != MISSING
    if name == "age_years":
        return "mean error in years", lambda values: float(
            np.abs(values - labels)[known].mean()
        )
    return f"{name} accuracy", lambda values: float((values == labels)[known].mean())


def _finite(value: Any) -> float:
    """Replaces NaN with infinity, so that it counts as a difference."""
    return float(value) if np.isfinite(value) else float("inf")


def _time(model: model_format.InferenceModel, crops: np.ndarray) -> float:
    """Returns the median duration of one face, in milliseconds."""
    times = []
    images = crops if model.takes_photos else crops[:, np.newaxis]
    model.predict(images[0])
    for image in images:
        start = time.perf_counter()
        model.predict(image)
        times.append(time.perf_counter() - start)
    return 1000 * float(np.median(times))


def find_faces(
    run: RunDirectory | None, crops: str | Path | None, graph: PreprocessingGraph
) -> Faces:
    """Returns faces to compare on: `crops`, the run's dataset, or synthetic ones."""
    from keras_agegender.datasets.prepared import load_prepared

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
    from keras_agegender.datasets.pipeline import read_columns
    from keras_agegender.datasets.prepared import read_rows

    columns = [name for name in LABELS if name in data.builder.info.features]
    examples = read_columns(data, split, {"image", *columns}).take(MAX_COMPARED)
    rows = list(read_rows(data, examples))
    crops = [_stored(graph.decode(row["image"]), graph) for row in rows]
    labels = {LABELS[name]: np.array([r[name] for r in rows]) for name in columns}
    source = f"faces of {data.directory}, split {split}"
    return Faces(np.stack(crops), source, labels)


def _folder_faces(folder: Path, graph: PreprocessingGraph) -> Faces:
    if not folder.is_dir():
        raise ValueError(
            "Invalid `crops`. Expected a prepared dataset or a folder of images. "
            f"Folder not found: {folder}."
        )
    files = [f for f in sorted(folder.rglob("*")) if f.suffix.lower() in IMAGE_SUFFIXES]
    # The first by name may all be alike.
    np.random.default_rng(0).shuffle(files)
    images = []
    for file in files[:MAX_COMPARED]:
        try:
            images.append(_stored(read_image(file), graph))
        except UnreadableImageError:
            continue
    if not images:
        raise ValueError(
            f"Invalid `crops`. No image in {folder} is readable. "
            f"Received: {len(files)} files."
        )
    return Faces(np.stack(images), f"images of {folder}")


def _drawn_faces(graph: PreprocessingGraph) -> Faces:
    from keras_agegender.synthetic.drawing import draw_face

    height, width = (max(side, 32) for side in graph.spec.crop_size)
    images = [
        draw_face(k, k % len(AGE_GROUPS), k // 8 % 2, image_size=(height, width)).image
        for k in range(NUM_DRAWN)
    ]
    crops = np.stack([_stored(image, graph) for image in images])
    return Faces(crops, "drawn faces (real ones: --crops FOLDER)")


def _stored(image: Any, graph: PreprocessingGraph) -> np.ndarray:
    """Returns a crop as it is stored, at the size that a file takes."""
    from keras_agegender.faces.geometry import resize, to_bytes

    size = graph.spec.crop_size
    return np.asarray(
        image if tuple(image.shape[:2]) == size else to_bytes(resize(image, size))
    )
