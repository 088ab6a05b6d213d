"""State dicts of PyTorch, read from a file as NumPy arrays."""

from __future__ import annotations

from pathlib import Path

import numpy as np


def read_state(file: Path) -> dict[str, np.ndarray]:
    """Returns name -> array of a `.safetensors`, `.npz`, `.pth` or `.pt` file.

    Args:
        file: Its path. Others than the first two are read by PyTorch.

    Raises:
        ValueError: If there is no such file, or it is none of these.
        ImportError: If what reads such files is not installed.
    """
    if not file.is_file():
        raise ValueError(f"There is no weights file {file}.")
    if file.suffix == ".safetensors":
        return _read_safetensors(file)
    if file.suffix == ".npz":
        return _read_npz(file)
    return _read_torch(file)


def _read_safetensors(file: Path) -> dict[str, np.ndarray]:
    try:
        from safetensors.numpy import load_file
    except ImportError as error:
        raise ImportError(
            f"{file} needs the package safetensors: "
            "pip install 'keras-agegender[safetensors]'."
        ) from error
    try:
        return dict(load_file(file))
    except Exception as error:
        raise ValueError(f"{file} is no safetensors file: {error}.") from error


def _read_npz(file: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(file, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except Exception as error:
        raise ValueError(f"{file} is no npz file of arrays: {error}.") from error


def _read_torch(file: Path) -> dict[str, np.ndarray]:
    try:
        import torch
    except ImportError as error:
        raise ImportError(
            f"{file} needs PyTorch to be read (pip install torch); a .safetensors or "
            ".npz file does not."
        ) from error
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = " ".join(str(error).split())[:150]
        raise ValueError(f"{file} is no state dict of PyTorch: {reason}.") from error
    state = state.get("state_dict", state)
    return {name.removeprefix("module."): v.numpy() for name, v in state.items()}
