"""`finetune`: trains a finished run further on your own faces, and compares both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tabulate import tabulate

from keras_agegender import files
from keras_agegender.datasets import prepared as datasets
from keras_agegender.evaluation import own_data
from keras_agegender.recipes import loading, schema
from keras_agegender.run_directory import RunDirectory, find_checkpoint

if TYPE_CHECKING:
    from keras_agegender.datasets.manifest import Manifest
    from keras_agegender.encodings.encoding import Encoding
    from keras_agegender.training.experiment import Experiment

EPOCHS = (5, 30)  # of new heads, and of the whole network
PATIENCE = 5
LARGEST_BATCH = 32
LEARNING_RATE = 1e-3  # of new heads
# The whole network trains with this share of the pretrained run's learning rate.
RATE_SHARE, HIGHEST_RATE = 0.1, 1e-4


@dataclass(frozen=True)
class Change:
    """A score before and after fine-tuning, on the same test faces.

    Attributes:
        name: What is scored, `"gender accuracy"` for example.
        num_faces: Number of labeled test faces.
        before: Score of the pretrained model; `None` for a new head.
        after: Score of the fine-tuned model.
        interval: 95 % interval of after minus before, paired by face and clustered by
            subject; `None` without one.
        lower_is_better: Whether the score is an error.
    """

    name: str
    num_faces: int
    before: float | None
    after: float
    interval: tuple[float, float] | None = None
    lower_is_better: bool = False

    @property
    def verdict(self) -> str:
        """`"better"`, `"worse"`, `"equal within noise"` or `"new"`."""
        if self.before is None:
            return "new"
        low, high = self.interval or (-np.inf, np.inf)
        if self.lower_is_better:
            low, high = -high, -low
        return "worse" if high < 0 else "better" if low > 0 else "equal within noise"


@dataclass(frozen=True)
class FinetuneResult:
    """The result of `finetune`.

    Attributes:
        run: The fine-tuned run.
        heads: Head -> `"kept"`, `"new"`, `"dropped"` and so on, as in `WeightTransfer`.
        epoch: Epoch of the saved model; 0 is the pretrained model itself.
        changes: Scores before and after on the test split; empty without one.
    """

    run: RunDirectory
    heads: Mapping[str, str]
    epoch: int
    changes: tuple[Change, ...] = ()

    @property
    def worse(self) -> tuple[Change, ...]:
        """The scores that are worse beyond noise."""
        return tuple(change for change in self.changes if change.verdict == "worse")

    def __str__(self) -> str:
        lines = [f"head {name}: {state}" for name, state in self.heads.items()]
        if self.epoch == 0:
            lines.append(
                "No epoch was better on the validation faces: the pretrained weights "
                "stay."
            )
        rows = [
            (
                *(change.name, change.num_faces),
                "" if change.before is None else f"{change.before:.3f}",
                f"{change.after:.3f}",
                "[{:+.3f}, {:+.3f}]".format(*change.interval)
                if change.interval
                else "",
                change.verdict,
            )
            for change in self.changes
        ]
        headers = ("test faces", "faces", "before", "after", "95 % interval", "")
        if rows:
            lines += ["", tabulate(rows, headers, "plain", disable_numparse=True)]
        for change in self.worse:
            lines.append(f"worse: {change.name}. Use the pretrained model for it.")
        return "\n".join(lines)


def finetune(
    data: datasets.PreparedDataset | Manifest | str | Path,
    pretrained: RunDirectory | str | Path,
    run_directory: str | Path,
    *,
    overrides: Sequence[str] = (),
    seed: int = 0,
    overwrite: bool = False,
    verbose: int | str = "auto",
    **reader_options: Any,
) -> FinetuneResult:
    """Fine-tunes a finished run on other faces, and compares both on test faces.

    Network, encoding, image size, preprocessing and recipe are those of the pretrained
    run. Its heads are kept if the data has labels of the same classes, in any order;
    other extra columns of the data become new heads, which are trained first, on the
    frozen network. Then the whole network is trained with a low learning rate. The
    pretrained weights count as epoch 0: they stay unless the validation loss improves.

    Args:
        data: A prepared dataset or its directory, with the preprocessing of the run; or
            a CSV file, or the manifest of a reader, which is prepared like the run's
            data, in `<run_directory>_data`.
        pretrained: A finished run, its directory, or a `.keras` file in it.
        run_directory: Folder for the fine-tuned run. The same call resumes.
        overrides: Settings that replace those derived from the pretrained run, such as
            `"training.epochs=10"`; see `load_recipe`.
        seed: Seed of new heads, order, augmentation and drawn splits. Defaults to 0.
        overwrite: Whether to replace a run in that folder. Defaults to `False`.
        verbose: As in `train`.
        reader_options: Arguments of `read_csv`, for a CSV file. `age_groups` and the
            classes of `extra` columns default to those of the run.

    Returns:
        The run, what became of each head, and the scores before and after.

    Raises:
        ValueError: If the run has no recipe or preprocessing, or the data has another
            preprocessing, no label of any head, or no training and validation faces.

    Example:
    >>> print(finetune("labels.csv", "saved_models/utkface-compact",
    ...                "runs/mine"))  # doctest: +SKIP
    """
    source = find_checkpoint(pretrained).run
    if source is None:
        raise ValueError(
            f"{pretrained} is not part of a run. Expected a run directory: fine-tuning "
            "requires its recipe and preprocessing."
        )
    run = RunDirectory(Path(run_directory))
    run.check_folder()
    prepared = _prepare(data, source, run.path, overwrite, seed, reader_options)
    experiment = _experiment(source, prepared, overrides, seed)

    from keras_agegender.training import train

    if overwrite:
        train.train_experiment(experiment, run.path, overwrite=True, verbose=verbose)
    else:
        train.train_unless_finished(experiment, run.path, verbose=verbose)
    epoch = run.best_epoch
    changes = _changes(source, run, prepared) if "test" in prepared.splits else ()
    result = FinetuneResult(
        run,
        _heads(source.encoding(), experiment.encoding),
        0 if epoch is None else epoch + 1,
        changes,
    )
    files.write_text(run.path / "finetune.txt", f"from {source.path}\n{result}\n")
    return result


# -- data ------------------------------------------------------------------------------


def _prepare(
    data: Any,
    source: RunDirectory,
    run: Path,
    overwrite: bool,
    seed: int,
    reader_options: Mapping[str, Any],
) -> datasets.PreparedDataset:
    """Returns the prepared dataset, prepared like the run's data if necessary."""
    pixels = source.pixels()
    if isinstance(data, datasets.PreparedDataset):
        prepared = data
    elif isinstance(data, (str, Path)) and Path(data).is_dir():
        prepared = datasets.load_prepared(data)
    else:
        from keras_agegender.datasets.prepare import prepare

        arguments = own_data.preparation_arguments(own_data.open_model(source))
        if isinstance(data, (str, Path)):
            options = {"seed": seed, **reader_options}
            data = _read(Path(data), source.encoding(), options)
        report = prepare(
            data,
            run.with_name(f"{run.name}_data"),
            overwrite=overwrite,
            **arguments,
        )
        print(report)
        prepared = datasets.load_prepared(report.directory)
    if pixels is not None and prepared.pixels != pixels.stored():
        found = prepared.pixels.describe() if prepared.pixels else "unknown"
        raise ValueError(
            f"The images in {prepared.directory} were preprocessed differently from "
            f"those of the run in {source.path}. Expected: "
            f"{pixels.stored().describe()}. Received: {found}. Pass the CSV file or "
            f"manifest, or prepare the data with --like {source.path}."
        )
    return prepared


def _read(file: Path, encoding: Encoding, options: Mapping[str, Any]) -> Manifest:
    """Reads a CSV file with the age groups and classes of an encoding."""
    from keras_agegender.datasets.readers.csv import read_csv

    options = {"age_groups": encoding.age_groups, **options}
    manifest, report = read_csv(file, **options)
    known = {h.columns[0]: h for h in encoding.extra_heads if h.classes}
    found = manifest.extra_heads
    same = [
        name
        for name, head in known.items()
        if name in found and set(found[name].get("classes", ())) <= set(head.classes)
    ]
    if same and options.get("extra", "auto") == "auto":
        # The classes of the run, also those that no row has.
        extra: dict[str, Any] = {
            name: {"kind": c["kind"], "classes": list(c.get("classes", ()))}
            for name, c in found.items()
        }
        for name in same:
            head = known[name]
            extra[name] = {"kind": head.head_type, "classes": list(head.classes)}
        manifest, report = read_csv(file, **options, extra=extra)
    print(report)
    return manifest


# -- experiment ------------------------------------------------------------------------


def _experiment(
    source: RunDirectory,
    prepared: datasets.PreparedDataset,
    overrides: Sequence[str],
    seed: int,
) -> Experiment:
    """Returns the experiment: new heads first if there are any, then everything."""
    from keras_agegender.training.experiment import make_experiment

    old, base = source.encoding(), source.recipe()
    extra = prepared.extra_heads()
    own = [head for head in old.heads if head not in old.extra_heads]
    names = {name for head in (*own, *extra) for name in head.output_names}
    recipe = schema.Recipe(
        name="finetuned",
        title=f"{base.name}, fine-tuned",
        model=replace(base.model, backbone_weights=None, trainable_layers=None),
        data=replace(
            base.data,
            role="target",
            batch_size=min(base.data.batch_size, LARGEST_BATCH),
            validation_split=None,
        ),
        training=schema.TrainingSettings(
            epochs=EPOCHS[1],
            optimizer=base.training.optimizer,
            learning_rate=min(base.training.learning_rate * RATE_SHARE, HIGHEST_RATE),
            weight_decay=base.training.weight_decay,
            patience=PATIENCE,
            checkpoint_monitor="val_loss",
            class_weights=base.training.class_weights,
            dtype_policy=base.training.dtype_policy,
            initial_checkpoint=True,
        ),
        evaluation=base.evaluation,
        augmentation=base.augmentation,
        loss_weights={k: v for k, v in base.loss_weights.items() if k in names},
    )
    recipe = loading.override_recipe(recipe, overrides)
    options: dict[str, Any] = {"seed": seed}
    plain = make_experiment(recipe, prepared, pretrained=source.path, **options)
    heads = _heads(old, plain.encoding)
    new = [h for h in plain.encoding.heads if not heads[h.name].startswith("kept")]
    if not new:
        return plain
    frozen = [
        name
        for head in plain.encoding.heads
        for name in (head.output_names if head not in new else ())
    ]
    first = replace(
        recipe,
        name="new_heads",
        title=f"new heads of {base.name}: {', '.join(head.name for head in new)}",
        model=replace(recipe.model, trainable_layers=0, frozen_outputs=tuple(frozen)),
        training=replace(
            recipe.training,
            epochs=EPOCHS[0],
            learning_rate=LEARNING_RATE,
            patience=None,
            initial_checkpoint=None,
        ),
    )
    stage = make_experiment(first, prepared, pretrained=source.path, **options)
    return make_experiment(recipe, prepared, pretrained=stage, **options)


def _heads(old: Encoding, new: Encoding) -> dict[str, str]:
    """Returns what becomes of each head."""
    from keras_agegender.models.weights import match_heads

    return {name: match.state({}) for name, match in match_heads(old, new).items()}


# -- before and after ------------------------------------------------------------------


def _changes(
    source: RunDirectory, run: RunDirectory, prepared: datasets.PreparedDataset
) -> tuple[Change, ...]:
    """Returns the scores of both models on the test split."""
    from keras_agegender.datasets.pipeline import make_eval_dataset, read_labels
    from keras_agegender.evaluation.evaluate import read_face_metadata
    from keras_agegender.metrics import intervals
    from keras_agegender.models.weights import match_heads

    old, new, recipe = source.encoding(), run.encoding(), run.recipe()
    split = run.info()["splits"]["test"]
    images = make_eval_dataset(
        prepared,
        new,
        split=split,
        pipeline=recipe.data.pipeline,
        image_size=recipe.model.image_size,
        batch_size=recipe.data.batch_size,
    ).map(lambda image, targets, weights: image)
    labels = read_labels(prepared, split, columns=new.columns)
    subjects = read_face_metadata(prepared, split).get("subject")
    matches = match_heads(old, new)
    if old.age_head is not None and old.age_head.spec.in_years:
        old = replace(old, age_groups=new.age_groups)  # years fall into any groups
    both = {name: m for name, m in matches.items() if m.old and m.new}
    kept = {name: m.order for name, m in both.items() if not m.reason}
    before = _per_face(source.load_model(), images, labels, old, kept)
    everything: dict[str, tuple[int, ...]] = {head.name: () for head in new.heads}
    changes = []
    after = _per_face(run.load_model(), images, labels, new, everything)
    for name, values in after.items():
        known = ~np.isnan(values)
        if not known.any():
            continue
        mean, is_error = float(values[known].mean()), name.endswith(ERROR)
        if name not in before:
            changes.append(Change(name, int(known.sum()), None, mean, None, is_error))
            continue
        first = before[name][known]
        people = None if subjects is None else np.asarray(subjects)[known]
        clusters = intervals.Clusters.of(
            np.full(known.sum(), "") if people is None else people
        )
        found = intervals.mean_interval(values[known] - first, clusters)
        changes.append(
            Change(
                name,
                int(known.sum()),
                float(first.mean()),
                mean,
                found.interval,
                is_error,
            )
        )
    return tuple(changes)


ERROR = "mean absolute error"


def _per_face(
    model: Any,
    images: Any,
    labels: Mapping[str, np.ndarray],
    encoding: Encoding,
    heads: Mapping[str, tuple[int, ...]],
) -> dict[str, np.ndarray]:
    """Returns score -> 1 if a face is correct or 0, or its error; NaN without a label.

    `heads` are the scored ones, with the old class of each new class if reordered.
    """
    from keras import ops

    outputs = model.predict(images, verbose=0)
    decoded = encoding.decode(outputs)
    found: dict[str, np.ndarray] = {}

    def add(name: str, predicted: Any, truth: Any, is_number: bool) -> None:
        predicted, truth = ops.convert_to_numpy(predicted), np.asarray(truth, float)
        known = ~np.isnan(truth) & (is_number | (truth >= 0))
        error = np.abs(predicted - truth)
        values = error if is_number else (error == 0).astype(float)
        title = f"{name} {ERROR if is_number else 'accuracy'}"
        found[title] = np.where(known, values, np.nan)

    gender, age = encoding.gender_head, encoding.age_head
    if gender is not None and gender.name in heads:
        add("gender", decoded.gender, labels["gender"], False)
    if age is not None and age.name in heads:
        add("age group", decoded.age_group, labels["age_group"], False)
        years = np.asarray(labels.get("age_years", np.nan), float)
        if decoded.age_years is not None and years.ndim:
            years = np.where(years >= 0, years, np.nan)
            add("age in years", decoded.age_years, years, True)
    for head in encoding.extra_heads:
        if head.name not in heads:
            continue
        values = ops.convert_to_numpy(encoding.decode_head(head.name, outputs).values)
        if heads[head.name]:
            values = np.argsort(heads[head.name])[values]
        add(head.name, values, labels[head.columns[0]], head.spec.is_number)
    return found
