"""What all pictures share: style, size and how they are written.

Figures are drawn without pyplot: no window, no global state, nothing left open.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from keras_agegender.files import replacing

# Okabe and Ito's colors, told apart by most color-blind people too.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#555555")
INK, MUTED, GRID = "#222222", "#6b6b6b", "#e4e4e4"
STYLE = {
    "font.size": 10.5,
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": GRID,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "legend.frameon": False,
    "legend.fontsize": 9.5,
}


def style() -> Any:
    """Returns the context in which figures are made and drawn."""
    import matplotlib

    return matplotlib.rc_context(dict(STYLE))  # type: ignore[arg-type]


def new_figure(size: tuple[float, float]) -> Any:
    """Returns an empty figure; (width, height) in inches."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained", facecolor="white")
    engine: Any = figure.get_layout_engine()
    engine.set(w_pad=0.12, h_pad=0.12)
    return figure


def save_figure(figure: Any, path: Path) -> Path:
    """Writes a PNG file, whole or not at all, and returns its path."""
    with replacing(path) as partial:
        figure.savefig(partial, format="png", dpi=130)
    return path
