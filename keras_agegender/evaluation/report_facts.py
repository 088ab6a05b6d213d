"""Facts of a report: where scores come from, as names and texts."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from keras_agegender.run_directory import RunDirectory


def run_facts(
    run: RunDirectory, checkpoint: str, metrics: Mapping[str, Any], split: str
) -> list[tuple[str, str]]:
    """Returns where scores come from: what was trained on what, and chosen how.

    Args:
        run: A run.
        checkpoint: Which of its models was scored.
        metrics: What metrics.json holds.
        split: The split expression that was scored.

    Returns:
        (name, fact) of everything that is known.
    """
    info, recipe = run.info(), run.recipe()
    model = f"{recipe.model.backbone}, encoding {recipe.model.encoding}"
    if recipe.model.image_size:
        model += ", {} × {} pixels".format(*recipe.model.image_size)
    trained = f"{info.get('data_name') or info.get('data', '')}"
    splits = ", ".join(f"{k}: {v}" for k, v in info.get("splits", {}).items())
    facts = {
        "Recipe": recipe.name,
        "Model": model,
        "Scored on": f"{metrics['data']}, split {split}: "
        f"{metrics['num_faces']:,} faces",
        "Trained on": f"{trained} ({splits})" if splits else trained,
        "Begun with": info.get("begins_with", ""),
        "Seed": info.get("seed", ""),
        "Model kept": _kept(run, checkpoint),
        "Trained": _duration(info),
        "Versions": ", ".join(
            f"{name} {version}"
            for name, version in info.get("versions", {}).items()
            if name in ("keras-agegender", "keras", "tensorflow", "python")
        ),
        "Data": str(info.get("data_sha256") or "")[:12],
        "Experiment": str(run.identity or "")[:12],
    }
    return [(name, str(fact)) for name, fact in facts.items() if fact not in ("", None)]


def _kept(run: RunDirectory, checkpoint: str) -> str:
    epochs = run.recipe().training.epochs
    if checkpoint == "last":
        return f"last, epoch {epochs} of {epochs}"
    try:
        kept = run.checkpoint_info(checkpoint)
    except ValueError:  # of a run that wrote none
        return checkpoint
    sign = {"max": "highest", "min": "lowest"}.get(str(kept.get("mode")), "best")
    value = kept.get("value")
    shown = "" if value is None else f" ({value:.4f})"
    return (
        f"{checkpoint}, epoch {kept['epoch'] + 1} of {epochs}: {sign} "
        f"{kept['monitor']}{shown}"
    )


def _duration(info: Mapping[str, Any]) -> str:
    started, finished = info.get("started"), info.get("finished")
    if not started or not finished:
        return str(started or "")[:10]
    begin, end = map(datetime.fromisoformat, (started, finished))
    minutes = round((end - begin).total_seconds() / 60)
    took = f"{minutes} min" if minutes < 120 else f"{minutes / 60:.1f} h"
    return f"{begin:%Y-%m-%d}, finished after {took}"


def loss_weights_text(run: RunDirectory) -> str:
    """Returns the loss weights that training began with, in words."""
    weights = run.encoding().loss_weights
    if len(set(weights.values())) == 1:
        return f"{next(iter(weights.values())):g} for every output"
    return ", ".join(f"{name} {value:g}" for name, value in weights.items())
