"""What commands of the fault tests make, and whether two of them made the same."""

from __future__ import annotations

import json
import shutil

import numpy as np
import tensorflow as tf

from keras_agegender.files import verify
from keras_agegender.models.weights import load_model

# Verb -> where its undisturbed result lies.
PLACES = {
    "prepare": "data",
    "train": "run",
    "export": "model",
    "predict": "answers",
    "reproduce": "reproduced",
}
VOLATILE = {"started", "finished", "data", "seconds"}


def content(verb, out):
    """Returns what must be equal: name -> bytes, arrays or text."""
    if verb == "predict":
        return {"answers": out.with_suffix(".jsonl").read_bytes()}
    if verb == "train":
        return _run_content(out)
    if verb == "reproduce":
        found = {f: (out / f).read_bytes() for f in ("table.csv", "table.md")}
        for run in sorted((out / "runs").glob("*/*")):
            found |= {f"{run.name}/{k}": v for k, v in _run_content(run).items()}
        return found
    assert not verify(out).differences
    if verb == "export":
        return _answers(out)
    files = [file for file in sorted(out.rglob("*")) if file.is_file()]
    return {str(file.relative_to(out)): file.read_bytes() for file in files}


def _answers(export):
    """Returns what an export says; TensorFlow writes the same in varying order."""
    faces = np.linspace(0, 1, 32 * 32 * 3, dtype="float32").reshape(1, 32, 32, 3)
    answers = tf.saved_model.load(str(export)).signatures["faces"](faces=faces)
    metadata = json.loads((export / "agegender.json").read_text("utf-8"))
    metadata.pop("created")
    return {name: a.numpy() for name, a in answers.items()} | {"": metadata}


def _run_content(run):
    found = {}
    for file in sorted(run.glob("*.keras")):
        model = load_model(file)
        found |= {f"{file.name}/{w.path}": w.numpy() for w in model.weights}
    info = json.loads((run / "run.json").read_text("utf-8"))
    assert info["status"] == "finished"
    found["run.json"] = {k: v for k, v in info.items() if k not in VOLATILE}
    for name in ("metrics.json", "predictions.csv", "recipe.toml", "history.csv"):
        found[name] = (run / name).read_bytes()
    return found


def differing(first, second):
    """Returns the names of what is not equal."""
    names = set(first) ^ set(second)
    for name in set(first) & set(second):
        same = first[name] == second[name]
        if isinstance(first[name], np.ndarray):
            same = np.array_equal(first[name], second[name])
        if not same:
            names.add(name)
    return sorted(names)


def undisturbed(workshop, verb):
    """Returns the result of a command that nothing disturbs, made before if need be."""
    needs = {"train": "prepare", "export": "train", "reproduce": "prepare"}
    needs["predict"] = "export"
    if verb in needs:
        undisturbed(workshop, needs[verb])
    out = workshop.root / PLACES[verb]
    if not (out.exists() or out.with_suffix(".jsonl").exists()):
        result = workshop.run(*workshop.command(verb, out))
        assert result.code == 0, result.text
        return out, result
    return out, None


def clear(out):
    shutil.rmtree(out, ignore_errors=True)
    for file in out.parent.glob(f"*{out.name}*"):
        shutil.rmtree(file) if file.is_dir() else file.unlink()
