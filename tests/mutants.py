"""Mutants: one line of the package changed at a time; the tests must notice.

    python tests/mutants.py            # all; half an hour on two cores
    python tests/mutants.py decay mode # those whose name holds a word

Each mutant is a row: what is broken, in which file, the text and what replaces it, and
the tests that should fail. Nothing is changed in the checkout: every worker mutates a copy
of its own. The exit code is the number of survivors.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Queue
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
WORKERS = int(os.environ.get("WORKERS", "2"))


class Mutant(NamedTuple):
    name: str
    file: str
    text: str
    instead: str
    tests: str


FIT = "tests/training/test_fit.py"
SETTINGS = "tests/training/test_every_setting.py"
EXPERIMENT = "tests/training/test_experiment.py"
OPTIONS = "tests/training/test_options.py"
ENCODING = "tests/encodings"
PIXELS = "tests/integration/test_one_pixel_path.py"
LABELS = "tests/test_labels.py"
CALIBRATION = "tests/encodings/test_calibration.py tests/evaluation/test_calibration.py"
METRICS = "tests/evaluation/test_scores.py"
OWN_DATA = "tests/evaluation/test_own_data.py"
OF_AGE = "tests/evaluation/test_of_age.py"
RESAMPLING = "tests/metrics/test_intervals.py"
SPLITS = "tests/datasets/test_splits.py"
CALLBACKS = "tests/callbacks"
BUILDER = "tests/models/test_builder.py"
INPUT = "tests/datasets/test_pipeline.py"

MUTANTS = [
    # The sixteen that an earlier version of the tests let pass together.
    Mutant("loss normalization removed", "training/compile.py",
           "if recipe.training.normalize_loss:", "if False:", FIT),
    Mutant("class weights do not reach batches", "training/fit.py",
           "if recipe.training.class_weights is not None:", "if False:", FIT),
    Mutant("AgeLossLogger unweighted", "callbacks/decoded_metrics.py",
           "sum(w * logs", "sum(1.0 * logs", CALLBACKS),
    Mutant("weight decay dropped", "training/compile.py",
           "return add_coupled_weight_decay(optimizer, decay) if decay else optimizer",
           "return optimizer", "tests/training"),
    Mutant("learning rate changes six steps late", "training/compile.py",
           "[step - 1 for step in steps]", "[step + 5 for step in steps]", FIT),
    Mutant("validation_split ignored", "training/experiment.py",
           "if recipe.data.validation_split is not None:", "if False:",
           f"{FIT} {EXPERIMENT}"),
    Mutant("one frozen layer too many", "models/builder.py",
           "len(before) - num_layers", "len(before) - num_layers + 1",
           f"{FIT} tests/models/test_builder.py"),
    Mutant("pretraining image size not forwarded", "recipes/loading.py",
           "return replace(first, model=replace(first.model, image_size=size))",
           "return first", f"tests/recipes {EXPERIMENT}"),
    Mutant("pretrained weights never transferred", "models/weights.py",
           "copy_weights(given[layer.name], layer)", "pass",
           f"{FIT} tests/models/test_weights.py"),
    Mutant("balanced sampling off", "training/fit.py",
           "balanced=recipe.data.balanced_sampling", "balanced=False", FIT),
    Mutant("checkpoints by the highest loss", "training/fit.py",
           'mode = "min" if monitor.endswith("loss") else "max"', 'mode = "max"',
           "tests/training"),
    Mutant("positive class always male", "evaluation/evaluate.py",
           "positive_gender or model.positive_gender", '"male"', EXPERIMENT),
    Mutant("95 % interval is one of 50 %", "metrics/intervals.py",
           "return float(t.ppf((1 + confidence) / 2, degrees))",
           "return float(t.ppf(0.75, degrees))", RESAMPLING),
    Mutant("faces of unknown subject are one person", "metrics/intervals.py",
           "np.arange(alone)", "0", RESAMPLING),
    Mutant("no agreement within people", "metrics/intervals.py",
           "sandwich + modeled", "1 + 1", RESAMPLING),
    Mutant("no correction over cells", "metrics/intervals.py",
           "alpha / (len(p_values) - rank)", "alpha", RESAMPLING),
    Mutant("the stored size is skipped", "faces/preprocessing_graph.py",
           "size = self.spec.stored_size or geometry.own_size(box)",
           "size = geometry.own_size(box)",
           f"tests/faces {PIXELS}"),
    Mutant("exports always prepare as resnet", "serving/bundle.py",
           "enlarge = path.enlarge\n", "enlarge = 1.0\n", f"{PIXELS} tests/integration/test_run.py"),
    Mutant("antialiasing off", "faces/geometry.py",
           "antialias=True", "antialias=False", "tests/faces tests/datasets/test_pipeline.py"),
    # Forty more, over the core.
    Mutant("gaps go to the nearest group", "labels.py",
           'if distances[nearest] == 0 or unmapped_ages == "nearest":', "if True:", LABELS),
    Mutant("very old ages have no group", "labels.py",
           "distances[-1] = max(self.bounds[-1][0] - age, 0)", "pass", LABELS),
    Mutant("overlapping groups pass", "labels.py",
           "all(a < b for a, b in zip(flat[1::2], flat[2::2], strict=False))", "True",
           LABELS),
    Mutant("group centers at the youngest", "labels.py",
           "(low + high) / 2", "float(low)", LABELS),
    Mutant("CORAL targets off by one", "encodings/head_types.py",
           "return (classes > ranks).astype", "return (classes >= ranks).astype",
           ENCODING),
    Mutant("CORN asks everybody", "encodings/head_types.py",
           "np.where(classes >= ranks, classes > ranks, np.nan)", "(classes > ranks)",
           ENCODING),
    Mutant("younger reads as older", "encodings/head_types.py",
           'classes < ranks if younger else', "classes < ranks if False else", ENCODING),
    Mutant("soft labels twice as wide", "encodings/head_types.py",
           "2.0 * head.sigma**2", "8.0 * head.sigma**2", ENCODING),
    Mutant("old people are not clipped", "encodings/head_types.py",
           "truth = np.minimum(truth, head.num_classes - 1)", "pass", ENCODING),
    Mutant("temperatures multiply", "encodings/calibration.py",
           "ops.softmax(logits / temperature", "ops.softmax(logits * temperature",
           CALIBRATION),
    Mutant("a class counts itself", "encodings/calibration.py",
           "scores = scores + joining * ops.minimum(inside, 1.0)",
           "scores = scores + joining * (inside + ops.where(down, below, above))",
           CALIBRATION),
    Mutant("conformal without its finite-sample correction",
           "evaluation/calibration.py",
           "(len(scores) + 1) * (1 - alpha)", "len(scores) * (1 - alpha)", CALIBRATION),
    Mutant("years are fitted beyond the oldest", "evaluation/calibration.py",
           "np.minimum(classes, max(head.num_classes, 2) - 1)", "classes", CALIBRATION),
    Mutant("reserved names pass", "encodings/head.py",
           "if self.name in RESERVED_NAMES:", "if False:", ENCODING),
    Mutant("pairs swap their columns", "encodings/head.py",
           "first, second = values", "second, first = values", ENCODING),
    Mutant("ids beyond the classes pass", "encodings/head.py",
           "if wrong.any():", "if False:", ENCODING),
    Mutant("ids beyond the classes pass in tf.data", "datasets/pipeline.py",
           "(one < head.num_values)", "(one < 10**6)", f"{INPUT} tests/integration/test_age_groups.py"),
    Mutant("regression answers in deviations", "encodings/decoding.py",
           "raw * head.scale + head.mean", "raw", ENCODING),
    Mutant("gender threshold at 0.4", "encodings/decoding.py",
           "male > 0.5", "male > 0.4", ENCODING),
    Mutant("answers are medians", "encodings/decoding.py",
           "group = most_probable(probabilities)", "group = _median(probabilities)",
           ENCODING),
    Mutant("rank probabilities unsorted", "encodings/head_types.py",
           "ops.flip(ops.sort(at_least, axis=-1), axis=-1)", "at_least", ENCODING),
    Mutant("constant output may disagree", "encodings/head_types.py",
           "ops.logical_and(consistent, never)", "consistent", ENCODING),
    Mutant("CORN not multiplied up", "encodings/head_types.py",
           "ops.cumprod(super().at_least(head, outputs), axis=-1)",
           "super().at_least(head, outputs)", ENCODING),
    Mutant("class weights of gender dropped", "encodings/encoding.py",
           "if column in columns\n", 'if column == "age_group"\n', ENCODING),
    Mutant("unknown labels count", "encodings/encoding.py",
           "known_targets(head, ~np.isnan(raw))", "known_targets(head, np.isnan(raw) < 2)",
           ENCODING),
    Mutant("unknown labels count in tf.data", "datasets/pipeline.py",
           "tf.logical_not(unknown)", "tf.ones_like(unknown)", INPUT),
    Mutant("loss weights of outputs ignored", "encodings/encoding.py",
           "return own | dict(self.output_loss_weights)", "return own", ENCODING),
    Mutant("the encoding is not stored", "models/builder.py",
           "features = store_encoding(features, outputs)\n", "\n", f"{ENCODING} {BUILDER}"),
    Mutant("width ignored", "models/registry.py",
           "resnet34_backbone(image, width)", "resnet34_backbone(image, 1.0)", "tests/models"),
    Mutant("heads in 16 bits", "encodings/head_types.py",
           'activation=self.activation, dtype="float32"', "activation=self.activation",
           "tests/models"),
    Mutant("weight decay doubled", "training/compile.py",
           "ops.cast(weight_decay, variable.dtype)",
           "ops.cast(2 * weight_decay, variable.dtype)",
           "tests/training/test_weight_decay.py"),
    Mutant("epochs' order does not change", "datasets/pipeline.py",
           "seed + epoch * SEED_STEP", "seed + 0 * epoch", INPUT),
    Mutant("crops leave the margin out", "faces/preprocessing_graph.py",
           "box = geometry.add_margin(box, options.margin)", "pass", "tests/faces"),
    Mutant("crops are not square", "faces/preprocessing_graph.py",
           "if options.square:", "if False:", "tests/faces"),
    Mutant("stored pictures are not compressed when served", "faces/preprocessing_graph.py",
           "if self.spec.jpeg_quality is None:", "if True:", PIXELS),
    Mutant("Caffe's center is its corner", "faces/preprocessing_graph.py",
           "top, left = (large[0] - height) // 2, (large[1] - width) // 2",
           "top, left = 0, 0", f"tests/faces {INPUT} {PIXELS}"),
    Mutant("one subject in two splits", "datasets/manifest.py",
           "if len(shared):", "if False:", "tests/datasets"),
    Mutant("shares of splits rounded down", "datasets/splits.py",
           "rounding = 1e-9", "rounding = -1e-9", SPLITS),
    Mutant("test fold validates", "datasets/splits.py",
           "validation = (test_fold + 1) % num_folds", "validation = test_fold", SPLITS),
    Mutant("one-off counts two", "metrics/table.py",
           "_within(1)", "_within(2)", METRICS),
    Mutant("CS@5 without the fifth year", "metrics/table.py",
           "_within(CUMULATIVE_SCORE_YEARS)", "_within(CUMULATIVE_SCORE_YEARS - 4)",
           METRICS),
    Mutant("all heads right by the answer", "metrics/table.py",
           "xp.logical_and(xp.equal(p.median, p.truth), p.agree)",
           "xp.equal(p.predicted, p.truth)", METRICS),
    Mutant("majority of all faces", "evaluation/scores.py",
           "np.bincount(predictions.truth).argmax()", "0", METRICS),
    Mutant("own classes by position", "evaluation/own_data.py",
           "lookup = np.array([*(known.get(_plain(c), MISSING) for c in classes), "
           "MISSING])", "lookup = np.array([*range(len(classes)), MISSING])", OWN_DATA),
    Mutant("own data in a release", "evaluation/own_data.py",
           'METRICS in files.read_json(file).get("files", {})', "False", OWN_DATA),
    Mutant("minors up to 18", "evaluation/of_age.py",
           "(age < oldest + 1)", "(age < oldest + 2)", OF_AGE),
    Mutant("a year too young passes", "encodings/of_age.py",
           "expected_age >= self.required", "expected_age + 1 >= self.required",
           OF_AGE),
    Mutant("published of any data", "evaluation/published.py",
           "if same and not why_not_comparable(line, data):", "if same:",
           "tests/evaluation/test_published.py"),
    Mutant("validation losses by batches", "callbacks/decoded_metrics.py",
           'logs[f"val_{name}"] = value', "pass", CALLBACKS),
    Mutant("metrics count unlabelled faces", "metrics/keras_metrics.py",
           "ops.sum(values * weights)", "ops.sum(values)",
           "tests/metrics/test_keras_metrics.py"),
    Mutant("identity without the seed", "training/experiment.py",
           '"seed": self.seed,', '"seed": 0,', EXPERIMENT),
    Mutant("identity without the data", "training/experiment.py",
           '"sha256": self.sha256,', '"sha256": "",', EXPERIMENT),
    Mutant("overlap of splits passes", "training/resume.py",
           "check_overlap(data.prepared.face_index, data.splits, allowed)", "pass",
           EXPERIMENT),
    Mutant("whole pictures pass for crops", "training/experiment.py",
           'if needed in ("any", held):', "if True:",
           "tests/recipes"),
    Mutant("augmentation of the data dropped", "training/fit.py",
           "augment=recipe.data_augmentation()", "augment=None", "tests/recipes"),
    Mutant("setting ignored: model.dropout_rate", "training/compile.py",
           "dropout_rate=recipe.model.dropout_rate,", "", SETTINGS),
    Mutant("setting ignored: training.dtype_policy", "training/compile.py",
           "dtype_policy(recipe.training.dtype_policy)",
           'dtype_policy("float32")', SETTINGS),
    Mutant("setting ignored: training.jit_compile", "training/compile.py",
           '"auto" if (jit := recipe.training.jit_compile) is None else jit', '"auto"',
           SETTINGS),
    Mutant("setting ignored: data.shuffle_buffer", "training/fit.py",
           "shuffle_buffer=recipe.data.shuffle_buffer,", "", SETTINGS),
    Mutant("setting ignored: data.cache", "training/fit.py",
           '"cache": recipe.data.cache,', "", SETTINGS),
    Mutant("early stopping by the lowest accuracy", "training/fit.py",
           '"min" if settings.stop_monitor.endswith("loss") else "max"', '"min"',
           SETTINGS),
    Mutant("wrong settings block the folder", "training/resume.py",
           "run.identity != experiment.identity and not run.has_trained()", "False",
           EXPERIMENT),
    Mutant("another experiment replaces what was trained", "training/resume.py",
           "run.identity != experiment.identity and not run.has_trained()",
           "run.identity != experiment.identity", EXPERIMENT),
    Mutant("setting ignored: data.in_memory", "training/fit.py",
           '"in_memory": recipe.data.in_memory,', "", SETTINGS),
    Mutant("checkpoints without the average", "callbacks/checkpoints.py",
           "weight.assign(ops.convert_to_numpy(average))", "pass", OPTIONS),
    Mutant("mixup ignores missing labels", "datasets/pipeline.py",
           "own = share * weights[name]", "own = share * tf.ones_like(weights[name])",
           OPTIONS),
    Mutant("teachers see no mirror image", "datasets/distillation.py",
           "teacher(seen[:, :, ::-1], training=False)", "teacher(seen, training=False)",
           OPTIONS),
    Mutant("missing labels count in losses", "encodings/masked.py",
           "return y_true, known * weight", "return y_true, weight",
           "tests/encodings/test_masked.py"),
    Mutant("each replica has its own mean", "encodings/masked.py",
           "sum_over_replicas(ops.sum(weight))", "ops.sum(weight)",
           "tests/encodings/test_masked.py"),
    Mutant("classes in another order are copied as they are", "models/weights.py",
           "return [w[..., list(self.order)] for w in weights]", "return weights",
           "tests/models/test_weights.py"),
    Mutant("the initial weights are no checkpoint", "training/fit.py",
           "if recipe.training.initial_checkpoint:", "if False:",
           "tests/studies/test_finetune.py"),
    Mutant("missing weights files pass", "recipes/loading.py",
           'file not in (None, "imagenet") and not Path(str(file)).is_file()', "False",
           "tests/recipes/test_needs.py"),
]  # fmt: skip


def run_mutant(copy: Path, mutant: Mutant) -> tuple[str, str]:
    """Returns "killed", "survived" or "broken", and the last line of the tests."""
    file = copy / "keras_agegender" / mutant.file
    original = file.read_text("utf-8")
    if mutant.text not in original:
        return "broken", f"{mutant.file} does not hold {mutant.text!r}"
    file.write_text(original.replace(mutant.text, mutant.instead), "utf-8")
    try:
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-x", *mutant.tests.split()],
            cwd=copy,
            env={**os.environ, "PYTHONPATH": str(copy)},
            capture_output=True,
            text=True,
            check=False,
        )
    finally:
        file.write_text(original, "utf-8")
    lines = done.stdout.strip().splitlines() or [""]
    return ("survived" if done.returncode == 0 else "killed"), lines[-1]


def main(words: list[str]) -> int:
    """Runs the mutants; prints a line for each."""
    chosen = [
        m
        for m in MUTANTS
        if not words or any(w.lower() in m.name.lower() for w in words)
    ]
    survivors = 0
    with tempfile.TemporaryDirectory() as folder:
        copies: Queue[Path] = Queue()
        for number in range(WORKERS):
            copy = Path(folder) / str(number)
            names = [
                "keras_agegender",
                "tests",
                "pyproject.toml",
                "setup.cfg",
                "README.md",
            ]
            for name in [*names, "pipelines"]:
                source, target = ROOT / name, copy / name
                target.parent.mkdir(parents=True, exist_ok=True)
                if source.is_dir():
                    shutil.copytree(source, target)
                else:
                    shutil.copy(source, target)
            copies.put(copy)

        def run(mutant: Mutant) -> tuple[Mutant, str, str]:
            copy = copies.get()
            try:
                return mutant, *run_mutant(copy, mutant)
            finally:
                copies.put(copy)

        with ThreadPoolExecutor(WORKERS) as pool:
            for mutant, verdict, line in pool.map(run, chosen):
                survivors += verdict != "killed"
                print(f"{verdict:<9} {mutant.name}: {line}", flush=True)
    print(f"{len(chosen)} mutants, {survivors} not killed")
    return survivors


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
