"""What all pictures share: style, size and how they are written.

Figures are drawn without pyplot: no window, no global state, nothing left open.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from keras_agegender.files import replacing

# Okabe and Ito's colors, told apart by most color-blind people too.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#555555")
INK, MUTED, GRID, PALE = "#222222", "#6b6b6b", "#e4e4e4", "#b9b9b9"
# As many outputs are told apart: every color solid, then every color dashed.
MOST_OUTPUTS = 2 * len(COLORS)
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
    "hatch.linewidth": 0.6,
}


def style() -> Any:
    """Returns the context in which figures are made and drawn."""
    import matplotlib

    return matplotlib.rc_context(dict(STYLE))  # type: ignore[arg-type]


def output_style(index: int) -> dict[str, Any]:
    """Returns how the curve of an encoding's output looks; 0 is the first output.

    It depends on nothing else, so an output looks the same in every run. From
    `MOST_OUTPUTS` on, all are pale and thin.

    Example:
    >>> output_style(0) == output_style(7) | {"linestyle": "-"}
    True
    """
    if index >= MOST_OUTPUTS:
        return {"color": PALE, "linestyle": "-", "linewidth": 1, "zorder": 1}
    return {
        "color": COLORS[index % len(COLORS)],
        "linestyle": "-" if index < len(COLORS) else "--",
    }


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
