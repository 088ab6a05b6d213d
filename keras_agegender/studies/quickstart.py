"""The quickstart: from label files to a prediction for a photo, in minutes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_agegender.errors import counted

if TYPE_CHECKING:
    from keras_agegender.recipes.schema import LossWeightChange, Recipe

# Stored in the export; the server and `predict` show them.
TERMS = {
    "license": "Apache-2.0",
    "limits": "Trained on drawn faces; its predictions for people mean nothing.",
}


@dataclass(frozen=True)
class QuickstartResult:
    """The paths of the quickstart's results and its duration.

    Attributes:
        directory: Folder of all files.
        run: Run directory.
        saved_model: Exported model.
        annotated: The photo with the predictions drawn on it.
        scores: Scores on the held-out synthetic faces.
        seconds: Wall time.
    """

    directory: Path
    run: Path
    saved_model: Path
    annotated: Path
    scores: Any
    seconds: float


def quickstart(
    directory: str | Path = "quickstart",
    *,
    num_faces: int = 2400,
    seed: int = 0,
    overrides: tuple[str, ...] = (),
    report: Callable[[str], None] = print,
) -> QuickstartResult:
    """Runs the whole workflow on synthetic faces, from labels to a prediction.

    Every step is the public function that a real project calls. A second call resumes
    an interrupted one.

    Args:
        directory: Folder for all files. Defaults to `"quickstart"`.
        num_faces: Number of synthetic faces. Defaults to 2400.
        seed: Random seed of the faces and the training. Defaults to 0.
        overrides: Recipe settings to override, such as `"training.epochs=3"`.
        report: Function that receives progress messages. Defaults to `print`.

    Example:
    >>> quickstart("quickstart", num_faces=400)  # doctest: +SKIP
    """
    from keras_agegender.recipes.loading import check_weights_file, load_recipe

    began = time.monotonic()
    root = Path(directory)
    recipe = load_recipe("quickstart", overrides)
    check_weights_file(recipe)
    check_quickstart(root, num_faces, seed)
    number = 0

    def begin(step: str) -> None:
        nonlocal number
        number += 1
        report(f"\n[{number}/6] {step}")

    begin(f"Drawing {num_faces} synthetic faces in Adience's layout")

    import keras_agegender as kag
    from keras_agegender.files import write_json
    from keras_agegender.synthetic import faces
    from keras_agegender.training import experiment as experiments, resume, train

    faces.write_synthetic_faces(root / "faces", num_faces, seed=seed, progress=True)
    manifest, cleaning = faces.read_synthetic(root / "faces")
    report(_indented(str(cleaning)))

    begin("Finding and cropping the faces (MTCNN)")
    columns = "key path subject fold split age_group gender source".split()
    prepared = kag.prepare(
        manifest[columns],
        root / "prepared",
        crop_options=kag.faces.CropOptions(),
        output_size=(128, 128),
        splits=kag.datasets.report_splits(),
        name="synthetic_faces",
        description="Synthetic faces, drawn by keras_agegender. No real people.",
    )
    report(_indented(str(prepared)))

    experiment = experiments.make_experiment(recipe, root / "prepared", seed=seed)
    resume.check_place(kag.RunDirectory(root / "run"), experiment, " (--directory)")
    begin(training_title(recipe, experiment.encoding.output_names))
    run = train.train_unless_finished(experiment, root / "run")

    begin("Evaluating on held-out synthetic faces (fold 4)")
    scores = kag.evaluate(run)
    report(_indented(kag.evaluation.format_metrics(scores)))

    begin("Exporting one self-contained SavedModel")
    write_json(run.terms_file, TERMS)
    saved_model = kag.export(run, root / "saved_model", overwrite=True)

    begin("Predicting a new photo of four people")
    photo = faces.write_synthetic_photo(root / "photo.jpg", seed=seed)
    annotated = root / "annotated.png"
    report(_indented(_predict(saved_model, photo, annotated)))

    seconds = time.monotonic() - began
    report(
        f"""
Done in {seconds:.0f} s. Everything was trained and scored on synthetic faces.

  the annotated photo     {annotated}
  curves, confusion       {run.path / "curves.png"}, {run.path / "confusion.png"}
  scores, one row a face  {run.path / "metrics.json"}, {run.path / "predictions.csv"}
  the exported model      {saved_model}
  the faces               {root / "faces"}

Next:
  agegender predict {saved_model} {photo} --json
  agegender quickstart --faces {4 * num_faces} --directory {root}_{4 * num_faces}
  agegender prepare csv my_labels.csv --age-column age --out data/mine
  agegender train resnet_se_ordinal --data data/mine --run runs/mine
"""
    )
    return QuickstartResult(root, run.path, saved_model, annotated, scores, seconds)


def training_title(recipe: Recipe, outputs: Sequence[str]) -> str:
    """Returns the outputs that a recipe trains, and its changes of loss weights.

    Changes after the last epoch are skipped.
    """
    names = ", ".join(outputs)
    if len(outputs) > 3:
        names = f"{outputs[0]}, {outputs[1]} … {outputs[-1]}"
    lines = [f"Training {counted(len(outputs), 'output')} ({names})"]
    for change in recipe.loss_weight_changes:
        when = _moment(change, recipe.training.epochs)
        if when:
            weights = ", ".join(f"{n} {w:g}" for n, w in change.set.items())
            lines.append(f"      loss weights change {when}: {weights}")
    return "\n".join(lines)


def _moment(change: LossWeightChange, epochs: int) -> str:
    """Returns when weights change; `""` if training ends before."""
    if change.step is not None:
        return f"at step {change.step + 1}, if there are as many"
    if change.epoch is not None:
        return f"in epoch {change.epoch + 1}" if change.epoch < epochs else ""
    if epochs == 1:  # metrics are checked after an epoch, for the next one
        return ""
    if change.above is not None:
        return f"if {change.monitor} reaches {change.above:g} before the last epoch"
    return f"if {change.monitor} falls to {change.below:g} before the last epoch"


def check_quickstart(directory: str | Path, num_faces: int, seed: int) -> None:
    """Checks that a quickstart can start or resume in a folder."""
    from keras_agegender.synthetic.faces import check_synthetic_faces

    if Path(directory).is_file():
        raise ValueError(
            f"Invalid directory (--directory). Expected a folder. Received a file: "
            f"{directory}."
        )
    check_synthetic_faces(Path(directory) / "faces", num_faces, seed=seed)


def _predict(saved_model: Path, photo: Path, annotated: Path) -> str:
    from PIL import Image

    from keras_agegender.faces.images import read_image
    from keras_agegender.files import atomic_write
    from keras_agegender.serving import annotate, predictor

    prediction = predictor.Predictor(saved_model).predict(photo)
    with atomic_write(annotated) as partial:
        Image.fromarray(annotate.annotate_photo(read_image(photo), prediction)).save(
            partial
        )
    return str(prediction)


def _indented(text: str) -> str:
    return "\n".join(f"      {line}" if line else "" for line in text.splitlines())
