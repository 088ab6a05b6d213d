"""
Title: Train in the accelerator's memory
Description: All faces on the device, an epoch in one compiled loop, on JAX.

    python pipelines/train_in_memory.py pack data/utkface faces.npz
    KERAS_BACKEND=jax python pipelines/train_in_memory.py train utkface_compact \
        faces.npz runs/fast --seed 0

`pack` writes a prepared dataset's pictures and labels into one file and needs
TensorFlow; `train` needs JAX and not TensorFlow. It follows a recipe: network,
encoding, loss weights, optimizer, epochs and augmentation; batches that are not full
are left out. It writes `last.keras`, with the averaged weights if asked for, figures of
every epoch and the answers for the validation and test faces. `finish` makes a run of
it, on TensorFlow, which is scored, calibrated and exported like any other.

On an H200 a step of ResNet34 at 112 px takes 6.5 ms for 128 faces, an epoch of 17,910
faces 0.9 s (bfloat16).
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

import keras_agegender as kag
from keras_agegender.cli.console import add_set_option
from keras_agegender.encodings.encoding import Encoding
from keras_agegender.encodings.head import Head
from keras_agegender.files import file_hash, write_json
from keras_agegender.labels import AgeGroups
from keras_agegender.recipes.schema import Recipe

QUALITY = 90  # of the packed WebP files
PREDICTED_TOGETHER = 256


class Split(NamedTuple):
    """Pictures and labels of a split.

    Attributes:
        images: Shape (num_faces, side, side, 3), uint8.
        labels: Column -> value of every face.
    """

    images: np.ndarray
    labels: dict[str, np.ndarray]


class Faces(NamedTuple):
    """What `pack` wrote."""

    splits: dict[str, Split]
    heads: tuple[Head, ...]
    age_groups: AgeGroups


def pack(data: Path, target: Path) -> None:
    """Writes pictures and labels of a prepared dataset into one file."""
    from keras_agegender.datasets.pipeline import read_labels
    from keras_agegender.datasets.prepared import (
        load_prepared,
        read_columns,
        read_rows,
    )

    prepared = load_prepared(data)
    heads = prepared.extra_heads()
    arrays: dict[str, np.ndarray] = {}
    for split in ("train", "validation", "test"):
        columns = read_labels(prepared, split, [head.columns[0] for head in heads])
        arrays |= {f"{split}/{name}": values for name, values in columns.items()}
        pictures = read_rows(prepared, read_columns(prepared, split, {"image"}))
        files = [_webp(picture["image"]) for picture in pictures]
        arrays[f"{split}/sizes"] = np.array([len(file) for file in files])
        arrays[f"{split}/files"] = np.frombuffer(b"".join(files), "uint8")
        print(f"{split}: {len(files)} faces, {sum(map(len, files)) / 1e6:.1f} MB")
    facts = {
        "heads": [head.to_dict() for head in heads],
        "age_groups": prepared.age_groups.to_list(),
    }
    np.savez(target, facts=np.array(json.dumps(facts)), **arrays)


def _webp(file: bytes) -> bytes:
    out = io.BytesIO()
    Image.open(io.BytesIO(file)).save(out, "WEBP", quality=QUALITY, method=4)
    return out.getvalue()


def load_faces(file: Path, side: int) -> Faces:
    """Reads what `pack` wrote, all pictures of one side in pixels."""
    with np.load(file) as arrays:
        facts = json.loads(str(arrays["facts"]))
        splits = {}
        for split in ("train", "validation", "test"):
            ends = np.cumsum(arrays[f"{split}/sizes"])
            data = arrays[f"{split}/files"].tobytes()
            files = [data[a:b] for a, b in zip([0, *ends], ends, strict=False)]
            with ThreadPoolExecutor() as pool:
                images = np.stack([*pool.map(lambda f: _pixels(f, side), files)])
            labels = {
                name.partition("/")[2]: arrays[name]
                for name in arrays.files
                if name.startswith(f"{split}/")
                and not name.endswith(("sizes", "files"))
            }
            splits[split] = Split(images, labels)
    heads = tuple(Head.from_dict(head) for head in facts["heads"])
    return Faces(splits, heads, AgeGroups.from_list(facts["age_groups"]))


def _pixels(file: bytes, side: int) -> np.ndarray:
    image = Image.open(io.BytesIO(file)).convert("RGB")
    if image.size != (side, side):
        image = image.resize((side, side), Image.Resampling.BILINEAR)
    return np.asarray(image)


def encode(encoding: Encoding, labels: Mapping[str, np.ndarray]) -> tuple[dict, dict]:
    """Returns targets and sample weights of all faces."""
    given = (labels["age_group"], labels["gender"], labels)
    return encoding.encode(*given), encoding.sample_weights(*given)


class Trained(NamedTuple):
    """What `train` made.

    Attributes:
        model: With the last weights, or the averaged ones.
        outputs: Split -> output name -> predictions.
        history: Figures of each epoch.
    """

    model: Any
    outputs: dict[str, dict[str, np.ndarray]]
    history: list[dict[str, float]]


def train(
    recipe: Recipe,
    faces: Faces,
    *,
    seed: int = 0,
    teachers: Sequence[Any] = (),
    teaching: float = 0.5,
    average: float | None = None,
    mixup: float = 0.0,
    bfloat16: bool = False,
    report: Callable[[str], None] = print,
) -> Trained:
    """Trains a recipe on faces in the device's memory.

    Args:
        recipe: What to train.
        faces: What `load_faces` read, at the recipe's image size.
        seed: Of weights, order and augmentation.
        teachers: Models whose answers, averaged over them and over a flip, are mixed
            into the targets.
        teaching: Share of the teachers' answers in the targets, in (0, 1].
        average: Momentum of an exponential mean of the weights, which is what is
            returned then, in (0, 1); `None` for none.
        mixup: Parameter of the beta distribution by which pairs of pictures are mixed
            (Zhang et al. 2018); 0 for none.
        bfloat16: Whether to compute in bfloat16; weights stay float32.
        report: Is given a line per epoch.
    """
    import jax
    import keras

    from keras_agegender.callbacks.decoded_metrics import decoded_accuracies
    from keras_agegender.training.compile import build_compiled_model

    keras.utils.set_random_seed(seed)
    encoding = recipe.make_encoding(faces.heads, faces.age_groups)
    images, labels = faces.splits["train"]
    batch = recipe.data.batch_size
    steps = len(images) // batch
    policy = "mixed_bfloat16" if bfloat16 else None
    model = build_compiled_model(recipe, encoding, steps, policy)
    arrays = jax.device_put((images, *encode(encoding, labels)))
    first = jax.tree.map(lambda values: values[:2], arrays)
    # As `fit` does before its first step: metrics have variables from here on.
    model._symbolic_build(data_batch=(first[0].astype("float32"), *first[1:]))
    state = tuple(
        [variable.value for variable in variables]
        for variables in (
            model.trainable_variables,
            model.non_trainable_variables,
            model.optimizer.variables,
            model.metrics_variables,
        )
    )
    epoch = _compiled_epoch(model, recipe, teachers, teaching, average, mixup)
    predict = Prediction(model)
    mean = state[:2]
    order = np.random.default_rng(seed)
    history: list[dict[str, float]] = []
    for number in range(recipe.training.epochs):
        start = time.perf_counter()
        places = order.permutation(len(images))[: steps * batch].reshape(steps, batch)
        key = jax.random.fold_in(jax.random.key(seed), number)
        state, mean, loss = epoch(state, mean, arrays, places, key)
        figures = {"epoch": number, "loss": float(loss)}
        validation = faces.splits["validation"]
        kept = {"val": state} if average is None else {"val": mean, "last_val": state}
        for prefix, weights in kept.items():
            outputs = predict(weights, validation)
            found = decoded_accuracies(outputs, validation.labels, encoding)
            figures |= {f"{prefix}_{name}": value for name, value in found.items()}
        figures["seconds"] = time.perf_counter() - start
        history.append(figures)
        report("  ".join(f"{name} {value:.4g}" for name, value in figures.items()))
    final = state if average is None else mean
    for variable, value in zip(
        (*model.trainable_variables, *model.non_trainable_variables),
        (*final[0], *final[1]),
        strict=True,
    ):
        variable.assign(value)
    outputs = {
        name: predict(final, faces.splits[name]) for name in ("validation", "test")
    }
    return Trained(model, outputs, history)


def _compiled_epoch(
    model: Any,
    recipe: Recipe,
    teachers: Sequence[Any],
    share: float,
    average: float | None,
    mixup: float,
) -> Callable:
    """Returns one epoch as a compiled function: a loop over the rows of `places`."""
    import jax
    import jax.numpy as jnp
    from augment_on_device import augment_batch

    augmentation = recipe.data_augmentation()

    def one_step(carry: tuple, row: tuple, arrays: tuple) -> tuple:
        (state, mean), (places, key) = carry, row
        images, targets, weights = arrays
        x = images[places].astype("float32") / 255.0
        of_augmentation, of_mixing = jax.random.split(key)
        if augmentation is not None:
            x = augment_batch(x, augmentation, of_augmentation)
        y = {name: target[places] for name, target in targets.items()}
        w = {name: weight[places] for name, weight in weights.items()}
        if mixup:
            # One share for all pictures; the second is the batch in reverse.
            kept = jax.random.beta(of_mixing, mixup, mixup)
            kept = jnp.maximum(kept, 1.0 - kept)
            x = kept * x + (1.0 - kept) * x[::-1]
            both = {name: kept * w[name] + (1.0 - kept) * w[name][::-1] for name in w}
            for name, target in y.items():
                if not jnp.issubdtype(target.dtype, jnp.floating):
                    continue  # the id of the picture that is seen most
                one = (kept * w[name]).reshape(-1, *[1] * (target.ndim - 1))
                sum_of = jnp.maximum(both[name], 1e-6).reshape(one.shape)
                mixed = one * target + (sum_of - one) * target[::-1]
                y[name], w[name] = mixed / sum_of, both[name]
        if teachers:
            answers = _answers(teachers, x)
            y = {
                name: (1 - share) * target + share * answers[name]
                if jnp.issubdtype(target.dtype, jnp.floating)
                else target
                for name, target in y.items()
            }
        logs, state = model.train_step(state, (x, y, w))
        if average is not None:
            mean = jax.tree.map(
                lambda m, new: (
                    m + (1 - average) * (new - m)
                    if jnp.issubdtype(new.dtype, jnp.floating)
                    else new
                ),
                mean,
                state[:2],
            )
        return (state, mean), logs["loss"]

    @jax.jit
    def epoch(state: tuple, mean: tuple, arrays: tuple, places: Any, key: Any) -> tuple:
        state = (*state[:3], [jnp.zeros_like(value) for value in state[3]])
        (state, mean), losses = jax.lax.scan(
            lambda carry, row: one_step(carry, row, arrays),
            (state, mean),
            (places, jax.random.split(key, len(places))),
        )
        return state, mean, losses[-1]  # Keras' own running mean

    return epoch


def _answers(teachers: Sequence[Any], x: Any) -> dict[str, Any]:
    """Returns the mean answer of models, for pictures and their mirror images."""
    import jax

    found = []
    for teacher in teachers:
        size = teacher.input_shape[1:3]
        seen = x
        if seen.shape[1:3] != size:
            seen = jax.image.resize(x, (len(x), *size, 3), "linear")
        values = (
            [v.value for v in teacher.trainable_variables],
            [v.value for v in teacher.non_trainable_variables],
        )
        for view in (seen, seen[:, :, ::-1]):
            found.append(teacher.stateless_call(*values, view, training=False)[0])
    return {name: sum(f[name] for f in found) / len(found) for name in found[0]}


class Prediction:
    """Answers for a split by weights that no model holds."""

    def __init__(self, model: Any) -> None:
        import jax

        self._call = jax.jit(
            lambda weights, x: model.stateless_call(
                *weights, x.astype("float32") / 255.0, training=False
            )[0]
        )

    def __call__(self, state: tuple, split: Split) -> dict[str, np.ndarray]:
        parts = []
        for start in range(0, len(split.images), PREDICTED_TOGETHER):
            images = split.images[start : start + PREDICTED_TOGETHER]
            # One shape, so that it is compiled once.
            filled = np.pad(
                images, [(0, PREDICTED_TOGETHER - len(images)), *[(0, 0)] * 3]
            )
            found = self._call(state[:2], filled)
            parts.append({k: np.asarray(v)[: len(images)] for k, v in found.items()})
        return {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}


def save(trained: Trained, folder: Path) -> None:
    """Writes model, history and answers into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    trained.model.optimizer, trained.model.compiled = None, False  # not into the file
    trained.model.save(folder / "last.keras")
    with (folder / "history.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, trained.history[0])
        writer.writeheader()
        writer.writerows(trained.history)
    np.savez_compressed(
        folder / "outputs.npz",
        **{
            f"{split}/{name}": values
            for split, outputs in trained.outputs.items()
            for name, values in outputs.items()
        },
    )


def finish(recipe: Recipe, data: Path, folder: Path, run_directory: Path) -> None:
    """Makes a run of what `save` wrote, scored on the test faces."""
    import keras

    from keras_agegender.callbacks.checkpoints import record_file
    from keras_agegender.evaluation.evaluate import evaluate
    from keras_agegender.evaluation.plots import plot_history
    from keras_agegender.run_directory import RunDirectory
    from keras_agegender.training.compile import build_compiled_model
    from keras_agegender.training.experiment import make_experiment
    from keras_agegender.training.resume import finish_run, open_run, run_folder

    facts = json.loads((folder / "training.json").read_text("utf-8"))
    experiment = make_experiment(recipe, data, seed=facts["seed"])
    run = RunDirectory(run_directory)
    with run_folder(run):
        open_run(run, experiment, overwrite=True)
        model = build_compiled_model(recipe, experiment.encoding)
        trained = keras.saving.load_model(folder / "last.keras", compile=False)
        model.set_weights(trained.get_weights())
        model.optimizer, model.compiled = None, False
        for file in (run.best_model, run.last_model):
            model.save(file)
        with (folder / "history.csv").open() as file:
            history = [*csv.DictReader(file)]
        run.history_file.write_bytes((folder / "history.csv").read_bytes())
        last = history[-1]
        record = {"epoch": len(history) - 1, "monitor": "last epoch", "mode": "max"}
        record["value"] = float(last["val_mean_accuracy"])
        write_json(record_file(run.best_model), record)
        series = {k: [float(row[k]) for row in history] for k in last if k != "epoch"}
        plot_history(
            series,
            run.path / "curves.png",
            outputs=experiment.encoding.output_names,
            kept_epoch=run.kept_epoch,
        )
        run.update_info(
            encoding=experiment.encoding.to_dict(),
            outputs=list(experiment.encoding.output_names),
            trained_in_memory=facts,
        )
        finish_run(run)
        evaluate(run, data)
    print(f"{run.path}: finished")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[2].partition(": ")[2]
    )
    commands = parser.add_subparsers(dest="command", required=True)
    packing = commands.add_parser("pack", help="a prepared dataset becomes one file")
    packing.add_argument("data", type=Path)
    packing.add_argument("file", type=Path)
    training = commands.add_parser("train", help="train a recipe on that file")
    training.add_argument("recipe")
    training.add_argument("file", type=Path)
    training.add_argument("folder", type=Path)
    training.add_argument("--seed", type=int, default=0)
    training.add_argument("--teachers", type=Path, nargs="*", default=[])
    training.add_argument("--teaching", type=float, default=0.5, help="their share")
    training.add_argument("--bfloat16", action="store_true")
    training.add_argument("--average", type=float, help="momentum of mean weights")
    training.add_argument("--mixup", type=float, default=0.0)
    add_set_option(training)
    finishing = commands.add_parser("finish", help="make a run of what was trained")
    finishing.add_argument("recipe")
    finishing.add_argument("data", type=Path, help="the prepared dataset")
    finishing.add_argument("folder", type=Path, help="what `train` wrote")
    finishing.add_argument("run", type=Path)
    add_set_option(finishing)
    arguments = parser.parse_args()
    if arguments.command == "pack":
        pack(arguments.data, arguments.file)
        return
    recipe = kag.load_recipe(arguments.recipe, arguments.set)
    if arguments.command == "finish":
        finish(recipe, arguments.data, arguments.folder, arguments.run)
        return
    import jax
    import keras

    settings = {
        name: getattr(arguments, name)
        for name in ("seed", "average", "mixup", "teaching", "bfloat16")
    }
    start = time.perf_counter()
    trained = train(
        recipe,
        load_faces(arguments.file, recipe.model.image_size[0]),
        teachers=[
            keras.saving.load_model(file, compile=False) for file in arguments.teachers
        ],
        **settings,
    )
    save(trained, arguments.folder)
    facts = {
        **settings,
        "teachers": [file_hash(file) for file in arguments.teachers],
        "device": jax.devices()[0].device_kind,
        "seconds": round(time.perf_counter() - start, 1),
    }
    write_json(arguments.folder / "training.json", facts)


if __name__ == "__main__":
    main()
