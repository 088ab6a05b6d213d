"""What the gate says of a comparison, of two runs as of two sets of them."""

from __future__ import annotations

from keras_agegender.studies.gate import CellDifference, gate_lines, worse_cells


class Judged:
    """The verdict on `cells`, and on what else a comparison answers."""

    cells: tuple[CellDifference, ...]
    cluster: str
    unanswered: tuple[str, ...]
    unjudged: tuple[str, ...]

    @property
    def worse(self) -> tuple[CellDifference, ...]:
        """The cells in which the second is worse beyond noise."""
        return worse_cells(self.cells)

    @property
    def failed(self) -> bool:
        """Whether a cell got worse, or a question is no longer answered."""
        return bool(self.worse or self.unanswered)

    def gate(self) -> str:
        """Returns the verdict over the cells, as `agegender compare --gate` prints."""
        lines = gate_lines(
            self.cells,
            self.cluster,
            unanswered=self.unanswered,
            unjudged=self.unjudged,
        )
        return "\n".join(lines)
