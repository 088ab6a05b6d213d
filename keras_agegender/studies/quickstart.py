"""The quickstart: from label files to an answer about a photo, in minutes.

In: nothing. Out: a folder with synthetic faces in Adience's layout, a prepared dataset,
a training run, an exported model and an annotated picture.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from keras_agegender.recipes.schema import LossWeightChange, Recipe


# The model says by itself what it is: in its export, the server and `predict`.
TERMS = {
    "license": "Apache-2.0",
    "limits": "Learned from drawn faces; what it says of people means nothing.",
}


@dataclass(frozen=True)
class QuickstartResult:
    """Where the quickstart's results lie, and how long it took.

    Attributes:
        directory: Folder of everything.
        run: Run directory.
        saved_model: Exported model.
        annotated: The photo with its answer drawn in.
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
    """Runs the whole way on synthetic faces, and says what it does.

    Every step is the public function that a real project calls. A second call goes on
    where the first was interrupted.

    Args:
        directory: Folder for everything it makes. Defaults to `"quickstart"`.
        num_faces: Synthetic faces to draw. Defaults to 2400.
        seed: Seed of the faces and the training. Defaults to 0.
        overrides: Settings that replace the recipe's, `"training.epochs=3"`.
        report: Takes the lines it says; `print` by default.

    Returns:
        Where everything lies.

    Example:
    >>> quickstart("quickstart", num_faces=400)  # doctest: +SKIP
    """
    began = time.monotonic()
    root = Path(directory)
    steps = _Steps(report, 6)

    from keras_agegender.datasets.splits import report_splits
    from keras_agegender.synthetic.faces import (
        read_synthetic,
        write_synthetic_faces,
        write_synthetic_photo,
    )

    steps.begin(f"Drawing {num_faces} synthetic faces in Adience's layout")
    write_synthetic_faces(root / "faces", num_faces, seed=seed, progress=True)
    manifest, cleaning = read_synthetic(root / "faces")
    report(_indented(str(cleaning)))

    from keras_agegender.datasets.prepare import prepare
    from keras_agegender.faces.preprocessing import CropOptions

    steps.begin("Finding and cropping the faces (MTCNN)")
    labels = manifest[
        ["key", "path", "subject", "fold", "split", "age_group", "gender", "source"]
    ]
    prepared = prepare(
        labels,
        root / "prepared",
        crop_options=CropOptions(),
        output_size=(128, 128),
        splits=report_splits(),
        name="synthetic_faces",
        description="Synthetic faces, drawn by keras_agegender. No real people.",
    )
    report(_indented(str(prepared)))

    from keras_agegender.recipes.loading import load_recipe
    from keras_agegender.run_directory import RunDirectory
    from keras_agegender.training.experiment import make_experiment
    from keras_agegender.training.resume import check_place
    from keras_agegender.training.train import train_unless_finished

    recipe = load_recipe("quickstart", overrides)
    experiment = make_experiment(recipe, root / "prepared", seed=seed)
    check_place(RunDirectory(root / "run"), experiment, " (--directory)")
    steps.begin(training_title(recipe, experiment.encoding.output_names))
    run = train_unless_finished(experiment, root / "run")

    from keras_agegender.evaluation.evaluate import evaluate
    from keras_agegender.evaluation.scores import format_metrics

    steps.begin("Evaluating on held-out synthetic faces (fold 4)")
    scores = evaluate(run)
    report(_indented(format_metrics(scores)))

    from keras_agegender.files import write_json
    from keras_agegender.serving.export import export

    write_json(run.terms_file, TERMS)
    steps.begin("Exporting one self-contained SavedModel")
    saved_model = export(run, root / "saved_model", overwrite=True)

    steps.begin("Predicting a photo of four people drawn anew")
    annotated = root / "annotated.png"
    photo = write_synthetic_photo(root / "photo.jpg", seed=seed)
    report(_indented(_predict(saved_model, photo, annotated)))

    seconds = time.monotonic() - began
    report(_closing(root, run.path, saved_model, annotated, photo, num_faces, seconds))
    return QuickstartResult(root, run.path, saved_model, annotated, scores, seconds)


def training_title(recipe: Recipe, outputs: Sequence[str]) -> str:
    """Returns what a recipe trains, and a line for each change of loss weights to come.

    Changes that the run is too short for are left out.

    Args:
        recipe: The recipe.
        outputs: Names of the model's outputs.

    Example:
    >>> training_title(load_recipe("14", ["loss_weight_changes=[]"]), ["gender", "age"])
    'Training 2 outputs (gender, age)'
    """
    names = ", ".join(outputs)
    if len(outputs) > 3:
        names = f"{outputs[0]}, {outputs[1]} … {outputs[-1]}"
    what = "1 output" if len(outputs) == 1 else f"{len(outputs)} outputs"
    lines = [f"Training {what} ({names})"]
    for change in recipe.loss_weight_changes:
        when = _moment(change, recipe.training.epochs)
        if when:
            weights = ", ".join(f"{n} {w:g}" for n, w in change.set.items())
            lines.append(f"      loss weights change {when}: {weights}")
    return "\n".join(lines)


def _moment(change: LossWeightChange, epochs: int) -> str:
    """Returns when weights change; nothing if training ends before they could."""
    if change.step is not None:
        return f"at step {change.step + 1}, if there are as many"
    if change.epoch is not None:
        return f"in epoch {change.epoch + 1}" if change.epoch < epochs else ""
    if epochs == 1:  # a metric is looked at behind an epoch, for the next one
        return ""
    if change.above is not None:
        return f"if {change.monitor} reaches {change.above:g} before the last epoch"
    return f"if {change.monitor} falls to {change.below:g} before the last epoch"


def check_quickstart(directory: str | Path, num_faces: int, seed: int) -> None:
    """Makes sure that a quickstart can begin, or go on, in a folder.

    Raises:
        ValueError: If it is a file, there are too few faces, or the folder holds those
            of another one.
    """
    from keras_agegender.synthetic.faces import check_synthetic_faces

    if Path(directory).is_file():
        raise ValueError(f"Invalid directory (--directory). {directory} is a file.")
    check_synthetic_faces(Path(directory) / "faces", num_faces, seed=seed)


def _predict(saved_model: Path, photo: Path, annotated: Path) -> str:
    from PIL import Image

    from keras_agegender.faces.images import read_image
    from keras_agegender.files import atomic_write
    from keras_agegender.serving.annotate import annotate_photo
    from keras_agegender.serving.predictor import Predictor

    prediction = Predictor(saved_model).predict(photo)
    with atomic_write(annotated) as partial:
        Image.fromarray(annotate_photo(read_image(photo), prediction)).save(partial)
    return str(prediction)


class _Steps:
    def __init__(self, report: Callable[[str], None], total: int) -> None:
        self.report, self.total, self.count = report, total, 0

    def begin(self, what: str) -> None:
        self.count += 1
        self.report(f"\n[{self.count}/{self.total}] {what}")


def _indented(text: str) -> str:
    return "\n".join(f"      {line}" if line else "" for line in text.splitlines())


def _closing(
    root: Path,
    run: Path,
    saved_model: Path,
    annotated: Path,
    photo: Path,
    num_faces: int,
    seconds: float,
) -> str:
    return f"""
Done in {seconds:.0f} s. All of it was learned from, and scored on, synthetic faces.

  the annotated photo     {annotated}
  curves, confusion       {run / "curves.png"}, {run / "confusion.png"}
  scores, one row a face  {run / "metrics.json"}, {run / "predictions.csv"}
  the exported model      {saved_model}
  the faces               {root / "faces"}

Next:
  agegender predict {saved_model} {photo} --json
  agegender quickstart --faces {4 * num_faces} --directory {root}_{4 * num_faces}
  agegender prepare csv my_labels.csv --age-column age --out data/mine
  agegender train resnet_se_ordinal --data data/mine --run runs/mine
"""
