"""Public names of `kag.studies`, typed."""

from .compare import (
    AccuracyDifference as AccuracyDifference,
    Comparison as Comparison,
    ReproductionComparison as ReproductionComparison,
    compare_reproduction as compare_reproduction,
)
from .cross import (
    CrossEvaluation as CrossEvaluation,
    CrossRow as CrossRow,
    evaluate_across as evaluate_across,
)
from .finetune import Change as Change, FinetuneResult as FinetuneResult
from .gate import CellDifference as CellDifference
from .quickstart import QuickstartResult as QuickstartResult
from .reproduce import Reproduction as Reproduction
from .reproduction_table import ReproductionRow as ReproductionRow
