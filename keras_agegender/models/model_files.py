"""Model files: `.keras` files, loaded without carrying out anything that is in them."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

# In Keras' messages about what its safe mode refuses.
UNSAFE = ("safe_mode", "unsafe", "arbitrary code", "not a modeling function")


def load_model(file: str | Path, *, compile: bool = True) -> Any:
    """Returns the model of a `.keras` file, loaded in Keras' safe mode.

    Only `keras.config.enable_unsafe_deserialization()`, which you would have to call
    yourself, turns that off.

    Args:
        file: The file.
        compile: Whether it is compiled as it was saved. Defaults to `True`.

    Raises:
        ValueError: If there is no such file, it is damaged, or it holds what only
            Python code of its own can make: Lambda layers, or classes that are not
            imported.

    Example:
    >>> load_model("runs/1/best.keras")  # doctest: +SKIP
    """
    import keras

    file = Path(file)
    if not file.is_file():
        raise ValueError(f"There is no model file {file}.")
    if not zipfile.is_zipfile(file):
        raise ValueError(
            f"{file} is damaged, or no Keras model: it is no zip file. Expected what "
            "`model.save('….keras')` wrote."
        )
    try:
        return keras.saving.load_model(file, compile=compile, safe_mode=True)
    except (ValueError, TypeError, KeyError, OSError, zipfile.BadZipFile) as error:
        reason = " ".join(str(error).split())
        if any(word in reason for word in UNSAFE):
            raise ValueError(
                f"{file} holds Python code (a Lambda layer, for instance), which is "
                "never carried out. Expected a model of Keras' layers and of classes "
                f"that you have imported. Keras: {reason[:150]}"
            ) from error
        if "Could not locate" in reason or "Could not deserialize" in reason:
            raise ValueError(
                f"{file} holds a class that is not there. Import the module that "
                f"registers it, if you trust it. Keras: {reason[:150]}"
            ) from error
        raise ValueError(f"{file} is damaged: {reason[:200]}") from error
