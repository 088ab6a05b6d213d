"""Evaluates and calibrates a run on the faces of a split."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from keras_agegender.datasets import face_index
from keras_agegender.datasets.prepared import (
    PreparedDataset,
    check_prepared,
    load_prepared,
    read_rows,
)
from keras_agegender.encodings.encoding import Encoding
from keras_agegender.errors import counted
from keras_agegender.evaluation import (
    calibration as calibrations,
    groups,
    own_data,
    predictions,
)
from keras_agegender.evaluation.of_age import score_of_age
from keras_agegender.evaluation.plots import plot_confusion_matrices
from keras_agegender.evaluation.published import ScoredData, published_scores
from keras_agegender.evaluation.scores import Evaluation, evaluate_predictions
from keras_agegender.files import file_hash, write_json
from keras_agegender.run_directory import RunDirectory

if TYPE_CHECKING:
    from keras_agegender.encodings.calibration import Calibration

METADATA = ("subject", "fold", "album", "source")
# What preparation adds, and the labels.
_NO_METADATA = (
    "image", "key", "age_group", "gender", "age_years", "face_box", "face_score",
    "face_status", "num_faces",
)  # fmt: skip
_USES = {"train": "training", "validation": "validation"}


def evaluate(
    run: RunDirectory | str | Path,
    data: PreparedDataset | pd.DataFrame | str | Path | None = None,
    *,
    split: str | None = None,
    checkpoint: str = "best",
    positive_gender: str | None = None,
    by: str | Sequence[str] = (),
    out: str | Path | None = None,
    progress: bool = True,
    **options: Any,
) -> Evaluation:
    """Scores a model on held-out faces, of its own or of any data, and writes results.

    It writes metrics.json, confusion.png and predictions.csv (one row per face). For a
    prepared dataset, they are in the run directory, and their names end in dataset and
    split, except for the run's own test split. Any other data (label files, a manifest,
    a dataset that was prepared differently) is prepared first as the model needs it;
    then the prepared faces and the results are in a new folder next to the data. The
    same is true for released models, whose folders are not changed.

    Classes of the data are matched to the model's by name: the order may differ, and
    labels of other classes are ignored, with a note. Faces whose image or person the
    model was trained or selected on are counted (`num_seen_in_training`,
    `num_seen_in_validation`); if the run has no record of its faces,
    `possibly_seen_in` compares the names of splits. After `calibrate`, the calibrated
    predictions of the best checkpoint are scored, as its export returns them;
    `scores.calibration` has the effect.

    Args:
        run: A run or its directory, a `.keras` file, an export of any format, or the
            name of a released model.
        data: A prepared dataset, a manifest, or the file or folder of any reader: a CSV
            file, or Adience, UTKFace or CelebA. `None` takes the training dataset.
        split: A split name or expression. For the training dataset, names are the run's
            splits. Defaults to `"test"`; for label files without a test split, to all
            faces.
        checkpoint: `"best"` (default), `"last"` or one of the recipe's extra
            checkpoints; file names contain it, except for the best.
        positive_gender: Positive class of precision, recall and f1, `"male"` or
            `"female"`. `None` (default) takes the recipe's
            `evaluation.positive_gender`.
        by: Columns of the dataset to score groups by, beside age group and gender:
            `"race"`, or `"race,gender"` for both crossed. Defaults to none.
        out: Folder for the results. Defaults to the run directory or, as described
            above, to a folder next to the data.
        progress: Whether to show the progress of a preparation on stderr.
        options: Keyword arguments of the data's reader, such as `age_column` of
            `read_csv`.

    Returns:
        The scores; `scores.folder` is where the results are.

    Raises:
        ValueError: If the model, the dataset, the split or a column does not exist, or
            the training dataset has changed.

    Example:
    >>> evaluate("runs/1", split="fold_4")  # doctest: +SKIP
    >>> evaluate("utkface-compact", "labels.csv")  # doctest: +SKIP
    """
    if isinstance(data, (str, Path)) and _is_prepared(data):
        check_prepared(data)  # before a framework is imported
    model = own_data.open_model(run, checkpoint)
    opened, folder, suffix = _open_data(model, data, split, out, progress, options)
    data, split, notes = opened.data, opened.split, [*opened.notes]
    metadata = read_face_metadata(data, split)
    labels, encoding, found_notes = read_matched_labels(data, split, model.encoding)
    notes += found_notes
    # Prediction sets were fitted for the run's age groups.
    same_groups = encoding.age_groups.bounds == model.encoding.age_groups.bounds
    calibration = model.calibration() if same_groups else None
    coded = [name for name in metadata if f"{name}_id" in metadata and name in labels]
    metadata |= {f"{name}_id": labels[name] for name in coded}
    check_groupings(by, metadata, encoding)
    if model.takes_photos:
        files = [(opened.photos or {})[key] for key in labels["key"]]
        raw, has_face = own_data.predict_photos(model, files)
        if not has_face.all():
            count = counted(int((~has_face).sum()), "photo")
            notes.append(f"no face found in {count}, not scored")
            labels = {name: values[has_face] for name, values in labels.items()}
            metadata = {name: values[has_face] for name, values in metadata.items()}
    else:
        raw = model.predict(data, split)
    outputs = calibration.apply(raw, encoding) if calibration else raw
    table = predictions.prediction_table(outputs, labels, encoding, metadata)
    scores = score(
        outputs,
        labels,
        encoding,
        positive_gender or model.positive_gender,
        metadata.get("subject", np.full(len(labels["key"]), "")),
    )
    scores = replace(
        scores,
        notes=notes,
        of_age=score_of_age(table),
        groups=groups.score_groups(table, by, groups.extra_tasks(table, encoding)),
    )
    if model.run is not None:
        scores = replace(
            scores,
            **count_seen(model.run, data, split),
            possibly_seen_in=possibly_seen(model.run, data, split, opened.whole_source),
            model=model.run.describe_model(model.checkpoint),
        )
    if calibration is not None:
        found = calibrations.calibration_scores(raw, labels, encoding, calibration)
        scores = replace(scores, calibration=found)
    if model.run is not None and same_groups:
        sources = tuple(sorted(set(metadata.get("source", ()))))
        scored = ScoredData(sources, (split,))
        recipe = model.run.recipe()
        compared = published_scores(recipe, model.checkpoint, scored, scores.to_dict())
        scores = replace(scores, published=compared)
    facts = {
        "split": split,
        "data": data_name(data),
        "recipe": model.run.recipe().name if model.run else model.name,
        "identity": model.run.identity if model.run else None,
        "checkpoint": model.checkpoint,
    }
    if model.run is None or folder != model.run.path:  # for the report
        paths = {"model_path": model.path, "data_path": data.directory}
        facts |= {name: str(path.absolute()) for name, path in paths.items()}
    write_json(folder / f"metrics{suffix}.json", facts | scores.to_dict())
    plot_confusion_matrices(scores, folder / f"confusion{suffix}.png")
    predictions.write_predictions(folder / f"predictions{suffix}.csv", table)
    return replace(scores, folder=folder)


def _open_data(
    model: own_data.EvaluatedModel,
    data: Any,
    split: str | None,
    out: str | Path | None,
    progress: bool,
    options: dict[str, Any],
) -> tuple[own_data.OpenedData, Path, str]:
    """Returns the data, the folder of the results, and the suffix of their names."""
    if not _is_prepared(data):
        folder = own_data.results_folder(model, data, out)
        opened = own_data.prepare_like(
            model, data, folder, split=split, progress=progress, **options
        )
        return opened, folder, _checkpoint_suffix(model)
    if model.takes_photos:
        raise ValueError(
            f"{model.path} finds the faces of photos. Expected label files or a "
            "manifest. Received: a prepared dataset; evaluate the run with it."
        )
    if options:
        raise ValueError(
            "Invalid options. Expected none for a prepared dataset. "
            f"Received: {', '.join(sorted(options))}."
        )
    if model.run is None:
        if data is None:
            raise ValueError("Missing `data` (--data). Expected the data to score.")
        prepared, same = _load(data), False
        expression = prepared.splits.get(split or "test", split or "test")
    else:
        prepared, same, expression = open_split(model.run, data, split or "test")
    pixels, stored = model.pixels, prepared.pixels
    if pixels and stored and pixels.stored() != stored:
        folder = own_data.results_folder(model, prepared.directory, out)
        opened = own_data.prepare_like(
            model, prepared.directory, folder, split=split, progress=progress
        )
        return opened, folder, _checkpoint_suffix(model)
    opened = own_data.OpenedData(prepared, expression, None)
    if model.run is None or model.is_release or out is not None:
        folder = own_data.results_folder(model, prepared.directory, out)
        return opened, folder, _checkpoint_suffix(model)
    other = None if same else prepared
    suffix = file_suffix(model.run, expression, model.checkpoint, other)
    return opened, model.run.path, suffix


def _is_prepared(data: Any) -> bool:
    if data is None or isinstance(data, PreparedDataset):
        return True
    if isinstance(data, pd.DataFrame):
        return False
    path = Path(data)
    # A missing folder is an error of `load_prepared`.
    is_folder = not path.exists() and not path.suffix
    return is_folder or (path / "dataset_info.json").exists()


def _load(data: PreparedDataset | str | Path) -> PreparedDataset:
    return data if isinstance(data, PreparedDataset) else load_prepared(data)


def _checkpoint_suffix(model: own_data.EvaluatedModel) -> str:
    return "" if model.checkpoint == "best" else f"_{model.checkpoint}"


def read_matched_labels(
    data: PreparedDataset, split: str, encoding: Encoding
) -> tuple[dict[str, np.ndarray], Encoding, list[str]]:
    """Returns a split's labels by the encoding's classes; see `match_labels`."""
    from keras_agegender.datasets.pipeline import read_labels

    columns = set(encoding.columns) & set(data.builder.info.features)
    return own_data.match_labels(read_labels(data, split, columns), data, encoding)


def calibrate(
    run: RunDirectory | str | Path,
    data: PreparedDataset | str | Path | None = None,
    *,
    split: str = "validation",
    alpha: float = 0.1,
    by: str | None = None,
) -> Calibration:
    """Fits a run's calibration and writes it to the run directory.

    `evaluate`, `export` and predictors of the export use it. A weakness, such as
    too few faces, is a `UserWarning`.

    Args:
        run: A run or its directory; its best checkpoint is calibrated.
        data: A prepared dataset or its directory; `None` takes the training dataset.
        split: A split name or expression; not the split that scores are reported for.
            Defaults to `"validation"`.
        alpha: As in `fit_calibration`. Defaults to 0.1.
        by: As in `fit_calibration`.

    Raises:
        ValueError: If the run, the dataset or the split does not exist, an option is
            invalid, or no face has a label.

    Example:
    >>> print(calibrate("runs/1"))  # doctest: +SKIP
    gender: temperature 1.213 (over 949 faces)
    """
    from keras_agegender.encodings.calibration import check_options

    check_options(alpha, by)
    if not isinstance(run, RunDirectory):
        run = RunDirectory.open(run)
    encoding = run.encoding()
    calibrations.check_predicted(by, encoding)
    data, _, split = open_split(run, data, split)
    fitted_on = {
        "split": split,
        "data_sha256": data.data_sha256,
        "model_sha256": file_hash(run.best_model),
    }
    outputs, labels = predict_split(run, data, split)
    calibration = calibrations.fit_calibration(
        outputs, labels, encoding, alpha=alpha, by=by, fitted_on=fitted_on
    )
    write_json(run.calibration_file, calibration.to_dict())
    for line in calibrations.calibration_warnings(calibration, encoding):
        warnings.warn(line, stacklevel=2)
    return calibration


# -- data and predictions --------------------------------------------------------------


def open_split(
    run: RunDirectory, data: PreparedDataset | str | Path | None, split: str
) -> tuple[PreparedDataset, bool, str]:
    """Returns a dataset, whether the run was trained on it, and the split expression.

    `data=None` opens the training dataset, whose split names are the run's.
    """
    info = run.info()
    prepared = _load(info["data"] if data is None else data)
    same = prepared.data_sha256 == info.get("data_sha256")
    if data is None and not same:
        raise ValueError(
            f"The dataset in {prepared.directory} is not the one that the run in "
            f"{run.path} was trained on: it was prepared again, or is damaged "
            "(`agegender verify`). Pass the dataset with `data` (--data)."
        )
    splits = info["splits"] if same else prepared.splits
    return prepared, same, splits.get(split, split)


def data_name(data: PreparedDataset) -> str:
    """Returns the name of a dataset."""
    return data.info.get("name", data.builder.name)


def file_suffix(
    run: RunDirectory,
    split: str,
    checkpoint: str = "best",
    data: PreparedDataset | None = None,
) -> str:
    """Returns the suffix of an evaluation's files; `None` is the training dataset."""

    def slug(text: str) -> str:
        return "".join(c if c.isalnum() or c == "_" else "-" for c in text)

    suffix = "" if checkpoint == "best" else f"_{checkpoint}"
    if data is not None:
        suffix += f"_{slug(data_name(data))}"
    if data is not None or split != run.info()["splits"].get("test"):
        suffix += f"_{slug(split)}"
    return suffix


def predict_split(
    run: RunDirectory, data: PreparedDataset, split: str, checkpoint: str = "best"
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Returns a model's outputs for the faces of a split, and their labels."""
    from keras_agegender.datasets.pipeline import read_labels

    trained, stored = run.pixels(), data.pixels
    if trained is not None and stored is not None and trained.stored() != stored:
        raise ValueError(
            f"The images in {data.directory} were preprocessed differently from those "
            f"that the run in {run.path} was trained on. They differ in "
            f"{trained.stored().differences(stored)}. "
            f"Expected: {trained.stored().describe()}. Received: {stored.describe()}."
        )
    encoding = run.encoding()
    data.check_encoding(encoding)
    labels = read_labels(data, split, columns=encoding.columns)
    return own_data.open_model(run, checkpoint).predict(data, split), labels


def score(
    outputs: Mapping[str, Any],
    labels: Mapping[str, np.ndarray],
    encoding: Encoding,
    positive_gender: str = "male",
    subjects: Any = None,
) -> Evaluation:
    """Returns the scores of a model's outputs."""
    from keras import ops

    decoded = encoding.decode(outputs)
    return evaluate_predictions(
        labels["age_group"],
        labels["gender"],
        type(decoded)(
            *(None if x is None else ops.convert_to_numpy(x) for x in decoded)
        ),
        positive_gender=positive_gender,
        separate_age_heads=encoding.age_head is not None
        and encoding.age_head.spec.ranks,
        extra={
            head.name: (
                head.head_type,
                labels[head.columns[0]],
                ops.convert_to_numpy(encoding.decode_head(head.name, outputs).values),
            )
            for head in encoding.extra_heads
        },
        age_groups=encoding.age_groups,
        age_years_true=labels.get("age_years"),
        subjects=subjects,
    )


# -- metadata of faces -----------------------------------------------------------------


def read_face_metadata(data: PreparedDataset, split: str) -> dict[str, np.ndarray]:
    """Reads the columns of a split's faces that are neither pixels nor main labels."""
    from keras_agegender.datasets.pipeline import read_columns

    features = data.builder.info.features
    extra = [
        name
        for name, feature in features.items()
        if name not in (*_NO_METADATA, *METADATA) and feature.shape == ()
    ]
    names = [*(name for name in METADATA if name in features), *extra]
    if not names:
        return {}
    rows = [*read_rows(data, read_columns(data, split, set(names)))]
    found: dict[str, np.ndarray] = {}
    for name in names:
        values = np.array([row[name] for row in rows])
        if values.dtype.kind in "SO":
            values = np.array([row[name].decode() for row in rows])
        classes = data.info.get("extra_heads", {}).get(name, {}).get("classes", ())
        found |= predictions.class_columns(name, values, classes)
    return found


def check_groupings(
    by: str | Sequence[str], metadata: Mapping[str, np.ndarray], encoding: Encoding
) -> None:
    """Checks before predicting that faces can be grouped by `by`."""
    heads = {"gender": encoding.gender_head, "age_group": encoding.age_head}
    predicted = [name for name, head in heads.items() if head is not None]
    predicted += [head.name for head in encoding.extra_heads]
    named = ["age_group", "gender", *(f"predicted_{name}" for name in predicted)]
    available = [*metadata, *named, *(f"{name}_id" for name in named)]
    if encoding.age_head is not None and encoding.age_head.spec.ranks:
        available.append("heads_agree")
    groups.check_columns(by, available)
    table = pd.DataFrame(dict(metadata))
    for name in groups.as_groupings(by):
        columns = name.split(",")
        if set(columns) <= set(table):
            known = np.all([groups.known_values(table[c]) for c in columns], axis=0)
            groups.find_groups(table[known], columns)


# -- faces that the model was trained on -----------------------------------------------


def count_seen(run: RunDirectory, data: PreparedDataset, split: str) -> dict[str, Any]:
    """Counts faces of a split that a run, or its initial runs, were trained on."""
    seen: dict[str, Any] = dict.fromkeys(_USES)
    runs, missing = _initialized_from(run)
    unknown = missing is not None
    if missing:
        warnings.warn(
            f"{run.path} was initialized from {missing}, which is not in a run "
            "directory. The faces that it was trained on are unknown and not counted.",
            stacklevel=2,
        )
    faces = None
    for one in (run, *runs):
        info = one.info()
        same = info.get("data_sha256") == data.data_sha256
        if one.faces_file.is_file():
            known = face_index.FaceIndex.read(one.faces_file)
        elif same:
            known = data.face_index
        else:
            unknown = True
            continue
        if faces is None:
            faces = (known if same else data.face_index).faces(split)
        same |= _same_manifest(info, data)
        for name in _USES:
            before = known.faces(info["splits"][name])
            found = face_index.seen_before(faces, before, same_dataset=same)
            seen[name] = found if seen[name] is None else seen[name] | found
    counts = {
        name: 0 if found is None else int(found.sum()) for name, found in seen.items()
    }
    return {
        f"num_seen_in_{_USES[name]}": None if unknown and not count else count
        for name, count in counts.items()
    }


def _initialized_from(run: RunDirectory) -> tuple[list[RunDirectory], Path | None]:
    """Returns the runs that a run was initialized from, most recent first.

    The second value is the path of the first weights, if that is not a run.
    """
    runs: list[RunDirectory] = []
    while info := run.info():
        path = run.path / (info.get("initialized_from") or "pretraining")
        run = RunDirectory(path.parent if path.suffix == ".keras" else path)
        if run.info():
            runs.append(run)
        elif info.get("initialized_from"):
            return runs, path
    return runs, None


def possibly_seen(
    run: RunDirectory, data: PreparedDataset, split: str, whole_source: str = ""
) -> list[str]:
    """Returns the uses that a run without face records may have made of a split.

    `whole_source` is the name of a dataset of which all faces are scored.
    """
    info = run.info()
    if run.faces_file.is_file() or not info.get("splits"):
        return []
    if whole_source and whole_source == info.get("data_name"):
        return [*_USES.values()]
    if info.get("data_sha256") == data.data_sha256:
        return []
    if info.get("data_name") != data_name(data) and not _same_manifest(info, data):
        return []
    ours = _row_ranges(data, split)
    return [
        use
        for name, use in _USES.items()
        if any(
            part == other and max(first, start) < min(last, end)
            for part, first, last in _row_ranges(data, info["splits"][name])
            for other, start, end in ours
        )
    ]


def _same_manifest(info: Mapping[str, Any], data: PreparedDataset) -> bool:
    """Whether run and dataset were prepared from one list of faces."""
    manifest = (info.get("preparation") or {}).get("manifest_sha256")
    return manifest is not None and manifest == data.info.get("manifest_sha256")


def _row_ranges(data: PreparedDataset, expression: str) -> list[tuple[str, int, int]]:
    """Returns name, first row and end of each part; `[]` if a name does not exist."""
    import tensorflow_datasets as tfds

    splits = data.builder.info.splits
    names = {part.split("[")[0].strip() for part in expression.split("+")}
    if not names <= set(splits):
        return []
    return [
        (
            part.splitname,
            part.from_ or 0,
            splits[part.splitname].num_examples if part.to is None else part.to,
        )
        for part in tfds.core.ReadInstruction.from_spec(expression).to_absolute(splits)
    ]
