"""Following a training while it runs."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import keras

TENSORBOARD_FOLDER = "tensorboard"


def tensorboard_callback(run_directory: str | Path) -> keras.callbacks.Callback:
    """Returns a callback that writes a run's curves for TensorBoard.

    Look at several runs with `tensorboard --logdir runs`.

    Args:
        run_directory: Folder of the run; the events go to `tensorboard/` in it.

    Raises:
        ValueError: If TensorBoard is not installed.

    Example:
    >>> board = tensorboard_callback("runs/14")  # doctest: +SKIP
    >>> train("14", "data/adience", "runs/14", callbacks=[board])  # doctest: +SKIP
    """
    if importlib.util.find_spec("tensorboard") is None:
        raise ValueError(
            "TensorBoard is not installed: pip install 'keras-agegender[tensorboard]'."
        )
    folder = Path(run_directory) / TENSORBOARD_FOLDER
    return keras.callbacks.TensorBoard(folder, write_graph=False)
