"""Public names of `kag.evaluation`, typed."""

from .audit import Audit as Audit, PairCounts as PairCounts
from .calibration import (
    calibration_scores as calibration_scores,
    fit_calibration as fit_calibration,
)
from .evaluate import calibrate as calibrate
from .groups import score_groups as score_groups
from .occlusion import occlusion_map as occlusion_map
from .of_age import score_of_age as score_of_age
from .report import write_report as write_report
from .scores import (
    AgeScores as AgeScores,
    Evaluation as Evaluation,
    GenderScores as GenderScores,
    evaluate_predictions as evaluate_predictions,
    format_metrics as format_metrics,
)
