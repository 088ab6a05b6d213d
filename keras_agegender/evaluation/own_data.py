"""Own data: prepared the way a model needs it, with labels matched by name."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from keras_agegender import files
from keras_agegender.datasets import manifest as manifests, prepared as prepared_data
from keras_agegender.datasets.readers import READERS
from keras_agegender.encodings.encoding import Encoding
from keras_agegender.encodings.head import Head
from keras_agegender.errors import counted
from keras_agegender.faces.preprocessing import Preprocessing
from keras_agegender.labels import MISSING, AgeGroups
from keras_agegender.run_directory import RunDirectory, find_checkpoint

if TYPE_CHECKING:
    from keras_agegender.encodings.calibration import Calibration

BATCH_SIZE = 64
JPEG_QUALITY = 95  # for a model without a record of one
PREPARED, IMAGES = "prepared", "images"  # folders of a results folder
METRICS = "metrics.json"


@dataclass(frozen=True)
class EvaluatedModel:
    """A model to evaluate: a run's checkpoint, or an export of any format."""

    path: Path
    encoding: Encoding
    pixels: Preprocessing | None  # None if there is no record
    checkpoint: str = "best"
    run: RunDirectory | None = None
    inference: Any = None  # an InferenceModel, without a run

    @property
    def name(self) -> str:
        """Name in results: that of the run's folder or of the file."""
        return self.run.path.resolve().name if self.run else self.path.stem

    @property
    def is_release(self) -> bool:
        """Whether results must not be written next to it.

        The checksums of a run do not cover its evaluations, those of a release do.
        """
        if self.run is None:
            return True
        file = self.run.path / files.CHECKSUMS_FILE
        return file.is_file() and METRICS in files.read_json(file).get("files", {})

    @property
    def positive_gender(self) -> str:
        """Positive class of precision, recall and f1."""
        return self.run.recipe().evaluation.positive_gender if self.run else "male"

    @property
    def takes_photos(self) -> bool:
        """Whether it is a file that finds the faces itself, in original photos."""
        return self.inference is not None and self.inference.takes_photos

    def calibration(self) -> Calibration | None:
        """The calibration of a run's best checkpoint; exports contain theirs."""
        if self.run is None or self.checkpoint != "best":
            return None
        return self.run.calibration()

    def predict(
        self, data: prepared_data.PreparedDataset, split: str
    ) -> dict[str, np.ndarray]:
        """Returns the outputs for the faces of a split, uncalibrated for a run."""
        from keras_agegender.datasets import pipeline

        read = pipeline.image_decoder(data)
        images = pipeline.read_columns(data, split, {"image"})
        with prepared_data.naming_damage(data):
            if self.run is None:
                crops = images.map(lambda face: read(face["image"]))
                return _predict_crops(self.inference, crops.as_numpy_iterator())
            recipe = self.run.recipe()
            preset = recipe.data.pipeline
            size = pipeline.checked_image_size(recipe.model.image_size, preset)
            inputs = images.map(
                lambda face: pipeline.preprocess_for_evaluation(
                    read(face["image"]), size, preset
                )
            ).batch(recipe.data.batch_size)
            return self.run.load_model(self.checkpoint).predict(inputs, verbose=0)


def predict_photos(
    model: EvaluatedModel, photos: Sequence[str]
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Returns the outputs for one face of each photo, and which photos have one."""
    from keras_agegender.faces.images import read_image

    names, faces, found = model.inference.metadata["outputs"], [], []
    crop = model.pixels.crop if model.pixels else None
    for photo in photos:
        image = read_image(photo)
        outputs = model.inference.predict(image)
        boxes = np.asarray(outputs["boxes"], "float64").reshape(-1, 4)
        found.append(len(boxes) > 0)
        if len(boxes):
            size = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
            if crop is not None and crop.face_selection == "center":
                middle = np.array(image.shape[1::-1]) / 2
                centers = (boxes[:, :2] + boxes[:, 2:]) / 2
                size = -np.linalg.norm(centers - middle, axis=1)
            face = int(size.argmax())
            faces.append({name: np.asarray(outputs[name])[face] for name in names})
    if not faces:
        raise ValueError(
            f"{model.path} found no face in {counted(len(found), 'photo')}."
        )
    return {n: np.stack([face[n] for face in faces]) for n in names}, np.array(found)


def _predict_crops(model: Any, crops: Any) -> dict[str, np.ndarray]:
    """Returns an export's outputs for stored crops."""
    from keras_agegender.faces.preprocessing_graph import PreprocessingGraph

    graph = PreprocessingGraph(Preprocessing.from_dict(model.metadata["pixels"]))
    batches: list[dict[str, np.ndarray]] = []
    faces: list[np.ndarray] = []

    def predict() -> None:
        found = model.predict(np.stack(faces))
        names = model.metadata["outputs"]
        batches.append({name: np.asarray(found[name]) for name in names})
        faces.clear()

    for crop in crops:
        faces.append(crop if model.takes_crops else graph.to_input(crop).numpy())
        if len(faces) == BATCH_SIZE:
            predict()
    if faces:
        predict()
    return {name: np.concatenate([b[name] for b in batches]) for name in batches[0]}


def open_model(
    model: RunDirectory | str | Path, checkpoint: str = "best"
) -> EvaluatedModel:
    """Returns a run, one of its `.keras` files, or an export of any format."""
    path = model.path if isinstance(model, RunDirectory) else Path(model)
    is_file = path.suffix == ".keras" and not path.is_dir()
    is_run = RunDirectory(path).recipe_file.is_file() or not path.exists()
    from keras_agegender.serving import formats

    if not path.exists():
        path = formats.find_model(path)  # by the name of a released model
        is_run = is_run and not path.exists()
    if is_file or is_run or isinstance(model, RunDirectory):
        if path.exists():
            formats.check_model(path)
        found = find_checkpoint(model)
        if found.run is not None:
            if is_file:
                checkpoint = path.stem.removeprefix("best_")
            run = found.run
            return EvaluatedModel(path, run.encoding(), run.pixels(), checkpoint, run)
    loaded = formats.load_model(path)
    pixels = Preprocessing.from_dict(loaded.metadata["pixels"]).for_crops()
    encoding = Encoding.from_dict(loaded.metadata["encoding"])
    return EvaluatedModel(path, encoding, pixels, inference=loaded)


# -- preparation -----------------------------------------------------------------------


class OpenedData(NamedTuple):
    """A dataset that a model can read, and the split to score."""

    data: prepared_data.PreparedDataset
    split: str
    source: Path | None  # label files or dataset that it was prepared from
    whole_source: str = ""  # name of a source of which all faces are scored
    notes: tuple[str, ...] = ()
    photos: Mapping[str, str] | None = None  # key -> original image file


def prepare_like(
    model: EvaluatedModel,
    data: str | Path | pd.DataFrame,
    folder: Path,
    *,
    split: str | None = None,
    progress: bool = True,
    **options: Any,
) -> OpenedData:
    """Prepares label files, a manifest or a dataset as a model needs it.

    An unchanged dataset is not prepared again. Without `split`, the test split is used
    if the data has one, and all faces otherwise.
    """
    from keras_agegender.datasets.prepare import prepare

    pixels, notes = _required_pixels(model), []
    name = "faces"
    source = None if isinstance(data, pd.DataFrame) else Path(data)
    manifest, reader = _read(model, data, folder, split, options)
    if source is not None and _is_prepared(source):
        split = None  # its images were read from that split
    if source is not None:
        name = reader or _slug(source.stem)
    known = sorted(manifest["split"].unique())
    if split is None:
        split = "test" if "test" in known else "+".join(known)
    absent = sorted(set(split.split("+")) - set(known))
    if absent:
        raise ValueError(
            f"Invalid `split`. Expected names from {known}, joined by '+'. "
            f"Received: split={split!r}."
        )
    chosen = manifest[manifest["split"].isin(split.split("+"))]
    whole = (reader or "") if len(chosen) == len(manifest) else ""
    chosen = manifest.with_rows(chosen.assign(split="test"))
    if _is_crop_of_crop(data, pixels):
        notes.append(
            "the faces were cropped again from stored crops; for exact scores, prepare "
            "the original images with `agegender prepare … --like MODEL`"
        )
    target = folder / PREPARED
    prepare(
        chosen,
        target,
        name=name,
        progress=progress,
        overwrite=_is_outdated(target, chosen, pixels),
        **preparation_arguments(model),
    )
    opened = prepared_data.load_prepared(target)
    counts = opened.info["counts"]
    expected = ("ok", "given_box", "not_cropped")
    failed = {k: n for k, n in counts.items() if k not in expected}
    if failed:
        shown = ", ".join(f"{n} {status}" for status, n in sorted(failed.items()))
        file = f"{PREPARED}/{prepared_data.STATUS_FILE}"
        notes.append(f"preparation: {shown} ({file})")
    photos = dict(chosen[["key", "path"]].to_numpy())
    return OpenedData(opened, "test", source, whole, tuple(notes), photos)


def preparation_arguments(model: EvaluatedModel) -> dict[str, Any]:
    """Returns the arguments of `prepare` that make the images that a model needs."""
    pixels = _required_pixels(model)
    arguments: dict[str, Any] = {
        "crop_options": pixels.crop,
        "output_size": pixels.crop_size,
        "jpeg_quality": pixels.jpeg_quality or JPEG_QUALITY,
    }
    if pixels.crop is not None:
        from keras_agegender.faces.detector import MtcnnDetector

        arguments["detector"] = MtcnnDetector.from_settings(pixels.detector or {})
    return arguments


def _required_pixels(model: EvaluatedModel) -> Preprocessing:
    pixels = model.pixels
    if pixels is None:
        raise ValueError(
            f"{model.path} has no record of its preprocessing. Prepare the data as the "
            "training data was prepared, and pass the prepared dataset."
        )
    if pixels.crop is not None and not pixels.uses_mtcnn:
        raise ValueError(
            f"{model.path} was trained on faces found by {pixels.detector}. Prepare "
            "the data with that detector, and pass the prepared dataset."
        )
    return pixels


def _read(
    model: EvaluatedModel,
    data: str | Path | pd.DataFrame,
    folder: Path,
    split: str | None,
    options: dict[str, Any],
) -> tuple[manifests.Manifest, str | None]:
    """Returns the manifest of any data, and its reader if its name is a dataset's."""
    from keras_agegender.evaluation.audit import check_options, source_type

    if isinstance(data, pd.DataFrame):
        check_options("The manifest", "manifest", options)
        manifests.validate_manifest(data, shared_subjects=True)
        return data, None
    kind = source_type(data)
    check_options(data, kind, options)
    if kind == "manifest":
        return manifests.read_manifest(data, shared_subjects=True), None
    if kind == "prepared":
        opened = prepared_data.load_prepared(data)
        return _stored_images(opened, split or "test", folder / IMAGES), None
    reader = READERS[kind]
    taken = {option.keyword for option in reader.options}
    # Faces of an age between two groups still have a gender and an age in years.
    defaults = {"age_groups": model.encoding.age_groups, "unmapped_ages": "mask"}
    options = {**{k: v for k, v in defaults.items() if k in taken}, **options}
    manifest, _ = (reader.read_as_is or reader.read)(data, **options)
    return manifest, None if kind == "csv" else kind


def _is_prepared(data: str | Path) -> bool:
    return (Path(data) / "dataset_info.json").exists()


def _is_crop_of_crop(data: Any, pixels: Preprocessing) -> bool:
    """Checks a prepared dataset of crops; returns whether data is one."""
    if (
        isinstance(data, pd.DataFrame)
        or not (Path(data) / "dataset_info.json").exists()
    ):
        return False
    found = prepared_data.load_prepared(data).pixels
    if found is None or found.crop is None:
        return False
    if pixels.crop is None:
        raise ValueError(
            f"The model takes whole images. {data} contains face crops. Prepare the "
            "original images: `agegender prepare … --like MODEL`."
        )
    return True


def _stored_images(
    data: prepared_data.PreparedDataset, split: str, folder: Path
) -> manifests.Manifest:
    """Writes a dataset's images to files; returns their manifest, of one split."""
    features = data.builder.info.features
    heads = data.info.get("extra_heads", {})
    names = {"image", "key", "age_group", "gender", *({"subject", "age_years", "album"}
             & set(features)), *(set(heads) & set(features))}  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    images = prepared_data.read_columns(data, split, names)
    for number, face in enumerate(prepared_data.read_rows(data, images)):
        file = folder / f"{number:07d}.jpg"
        files.write_bytes(file, face.pop("image"))
        row = {k: v.decode() if isinstance(v, bytes) else v for k, v in face.items()}
        rows.append({**row, "path": str(file), "split": "test", "source": "prepared"})
    return manifests.make_manifest(rows, heads, data.age_groups, shared_subjects=True)


def _is_outdated(
    target: Path, manifest: manifests.Manifest, pixels: Preprocessing
) -> bool:
    """Returns whether a folder has, or begins, a dataset of other rows or pixels."""
    from keras_agegender.datasets.prepare import manifest_hash

    for file in (
        target / prepared_data.PREPARATION_FILE,
        target.with_name(f"{target.name}.partial") / "request.json",
    ):
        if file.is_file():
            made = files.read_json(file)
            same = made.get("manifest_sha256") == manifest_hash(manifest)
            found = Preprocessing.from_dict(made["pixels"])
            quality = pixels.jpeg_quality or JPEG_QUALITY
            expected = replace(
                pixels.stored(), stored_size=pixels.crop_size, jpeg_quality=quality
            )
            if not same or found != expected:
                return True
    return False


def _slug(text: str) -> str:
    slug = "".join(c if c.isascii() and c.isalnum() else "_" for c in text)[:80]
    return slug if slug.strip("_") else hashlib.sha256(text.encode()).hexdigest()[:12]


def is_results_folder(path: Path) -> bool:
    """Returns whether a folder has results that are not in a run."""
    is_run = RunDirectory(path).recipe_file.is_file()
    return not is_run and any(path.glob("metrics*.json"))


def results_folder(
    model: EvaluatedModel, data: str | Path | pd.DataFrame, out: str | Path | None
) -> Path:
    """Returns the folder of results on own data: `out`, or one next to the data."""
    if out is None:
        if isinstance(data, pd.DataFrame):
            raise ValueError("Missing `out`. Expected a folder for the results.")
        path = Path(data).absolute()
        out = path.parent / f"{path.stem}_{model.name}"
    own = (PREPARED, f"{PREPARED}.partial", f".{PREPARED}.lock", IMAGES)
    folder = Path(out)
    if model.run is not None and folder.resolve() == model.run.path.resolve():
        raise ValueError(f"Invalid `out`. {folder} is the model's own folder.")
    files.check_output_dir(folder, METRICS, "evaluation", own)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


# -- labels ----------------------------------------------------------------------------


def match_labels(
    labels: Mapping[str, np.ndarray],
    data: prepared_data.PreparedDataset,
    encoding: Encoding,
) -> tuple[dict[str, np.ndarray], Encoding, list[str]]:
    """Returns labels as class ids of an encoding, the encoding, and notes.

    Classes are matched by name. A years head predicts the age groups of any data, so
    its encoding takes them over.
    """
    matched, notes = dict(labels), []
    encoding = with_age_groups(encoding, data.age_groups)
    if encoding.age_groups.bounds != data.age_groups.bounds:
        ids = _match_age_groups(labels, data.age_groups, encoding.age_groups)
        lost = int(((ids == MISSING) & (labels["age_group"] != MISSING)).sum())
        text = f"age groups {data.age_groups} matched to {encoding.age_groups}"
        notes.append(
            f"{text}; {counted(lost, 'face')} of no such group" if lost else text
        )
        matched["age_group"] = ids
    declared = data.info.get("extra_heads", {})
    for head in encoding.extra_heads:
        for column in head.columns:
            if column in ("age_group", "gender", "age_years"):
                continue
            if column not in labels:
                unknown = np.nan if head.spec.continuous else MISSING
                matched[column] = np.full(len(labels["key"]), unknown)
                if not head.spec.continuous:
                    matched[column] = matched[column].astype("int64")
                notes.append(f"{head.name}: no such column in the data, not scored")
                continue
            classes = tuple((declared.get(column) or {}).get("classes") or ())
            ids, note = _match_classes(labels[column], classes, head)
            matched[column] = ids
            if note:
                notes.append(note)
    return matched, encoding, notes


def with_age_groups(encoding: Encoding, age_groups: AgeGroups) -> Encoding:
    """Returns an encoding with other age groups if its age head predicts years."""
    if encoding.age_groups.bounds == age_groups.bounds:
        return encoding
    if encoding.age_head is None or encoding.age_head.spec.in_years:
        return replace(encoding, age_groups=age_groups)
    return encoding


def _match_classes(
    ids: np.ndarray, classes: Sequence[str], head: Head
) -> tuple[np.ndarray, str]:
    """Returns ids in the order of a head's classes, and a note on other classes."""
    if head.spec.continuous or not (classes and head.classes):
        return ids, ""
    known = {_plain(name): index for index, name in enumerate(head.classes)}
    lookup = np.array([*(known.get(_plain(c), MISSING) for c in classes), MISSING])
    found = lookup[np.asarray(ids, "int64")]
    lost = [c for c in classes if _plain(c) not in known]
    if not lost:
        return found, ""
    count = int(((found == MISSING) & (ids != MISSING)).sum())
    text = ", ".join(lost)
    return (
        found,
        f"{head.name}: {text} not among its classes: {counted(count, 'face')} ignored",
    )


def _plain(name: str) -> str:
    """Returns a class name without case, spaces and punctuation."""
    return "".join(c for c in name.casefold() if c.isalnum()) or name


def _match_age_groups(
    labels: Mapping[str, np.ndarray], given: AgeGroups, groups: AgeGroups
) -> np.ndarray:
    """Returns group ids from ages in years, or from groups within one of `groups`."""
    last = len(groups) - 1

    def within(low: int, high: int, is_last: bool) -> int:
        for index, (first, end) in enumerate(groups.bounds):
            if first <= low and (high <= end or (index == last and is_last)):
                return index
        return MISSING

    ends = [
        within(low, high, index == len(given) - 1)
        for index, (low, high) in enumerate(given.bounds)
    ]
    ids = np.array([*ends, MISSING])[np.asarray(labels["age_group"], "int64")]
    years = labels.get("age_years")
    if years is not None:
        of_years = [groups.from_years(y) if y >= 0 else MISSING for y in years]
        ids = np.where(np.asarray(years) >= 0, of_years, ids)
    return ids
