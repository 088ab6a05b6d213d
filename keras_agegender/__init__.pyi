"""The public API, typed; `__init__.py` imports each name when it is first used."""

from .callbacks.balancer import LossWeightBalancer as LossWeightBalancer
from .callbacks.checkpoints import (
    BestModelCheckpoint as BestModelCheckpoint,
    RunBackup as RunBackup,
)
from .callbacks.decoded_metrics import (
    DecodedAccuracy as DecodedAccuracy,
    DecodedMetrics as DecodedMetrics,
)
from .callbacks.epoch_logger import EpochLogger as EpochLogger
from .callbacks.loss_weights import LossWeightScheduler as LossWeightScheduler
from .datasets.beam import prepare_with_beam as prepare_with_beam
from .datasets.distillation import distill as distill
from .datasets.duplicates import drop_duplicates as drop_duplicates
from .datasets.manifest import (
    CleaningReport as CleaningReport,
    Manifest as Manifest,
    read_manifest as read_manifest,
    write_manifest as write_manifest,
)
from .datasets.pipeline import (
    make_eval_dataset as make_eval_dataset,
    make_train_dataset as make_train_dataset,
    read_labels as read_labels,
)
from .datasets.prepare import (
    PreparationReport as PreparationReport,
    prepare as prepare,
)
from .datasets.prepared import (
    PreparedDataset as PreparedDataset,
    load_prepared as load_prepared,
)
from .datasets.readers.adience import read_adience as read_adience
from .datasets.readers.celeba import (
    read_celeba as read_celeba,
    write_celeba_from_tfds as write_celeba_from_tfds,
)
from .datasets.readers.csv import read_csv as read_csv
from .datasets.readers.utkface import read_utkface as read_utkface
from .datasets.splits import (
    cross_validation_splits as cross_validation_splits,
    report_splits as report_splits,
)
from .encodings.calibration import (
    Calibration as Calibration,
    PredictionSets as PredictionSets,
)
from .encodings.decoding import Decoded as Decoded, HeadPrediction as HeadPrediction
from .encodings.encoding import (
    Encoding as Encoding,
    balanced_class_weights as balanced_class_weights,
)
from .encodings.head import Head as Head
from .encodings.registry import (
    get_encoding as get_encoding,
    list_encodings as list_encodings,
)
from .evaluation.audit import Audit as Audit, PairCounts as PairCounts, audit as audit
from .evaluation.calibration import (
    calibration_scores as calibration_scores,
    fit_calibration as fit_calibration,
)
from .evaluation.evaluate import calibrate as calibrate, evaluate as evaluate
from .evaluation.groups import score_groups as score_groups
from .evaluation.occlusion import occlusion_map as occlusion_map
from .evaluation.plots import (
    plot_groups as plot_groups,
    plot_reliability as plot_reliability,
    reliability_bins as reliability_bins,
)
from .evaluation.report import write_report as write_report
from .evaluation.scores import (
    AgeScores as AgeScores,
    Evaluation as Evaluation,
    GenderScores as GenderScores,
    evaluate_predictions as evaluate_predictions,
    format_metrics as format_metrics,
)
from .faces.detector import (
    Detections as Detections,
    FaceDetector as FaceDetector,
    MtcnnDetector as MtcnnDetector,
)
from .faces.images import (
    UnreadableImageError as UnreadableImageError,
    read_image as read_image,
)
from .faces.preprocessing import (
    CropOptions as CropOptions,
    Preprocessing as Preprocessing,
)
from .faces.preprocessing_graph import (
    PhotoFaces as PhotoFaces,
    PreprocessingGraph as PreprocessingGraph,
    StoredFace as StoredFace,
)
from .files import Verification as Verification, verify as verify
from .labels import (
    AGE_GROUP_NAMES as AGE_GROUP_NAMES,
    AGE_GROUP_PRESETS as AGE_GROUP_PRESETS,
    AGE_GROUPS as AGE_GROUPS,
    GENDERS as GENDERS,
    AgeGroups as AgeGroups,
    get_age_groups as get_age_groups,
)
from .metrics.intervals import (
    Clusters as Clusters,
    Estimate as Estimate,
    bootstrap_interval as bootstrap_interval,
    holm_levels as holm_levels,
    interval_over_runs as interval_over_runs,
    mean_interval as mean_interval,
    paired_test as paired_test,
    proportion_interval as proportion_interval,
)
from .metrics.keras_metrics import (
    AgeYearsError as AgeYearsError,
    AllHeadsAccuracy as AllHeadsAccuracy,
    BalancedAccuracy as BalancedAccuracy,
    BrierScore as BrierScore,
    CumulativeScore as CumulativeScore,
    ExactAccuracy as ExactAccuracy,
    ExpectedCalibrationError as ExpectedCalibrationError,
    MeanAbsoluteGroupError as MeanAbsoluteGroupError,
    NegativeLogLikelihood as NegativeLogLikelihood,
    OneOffAccuracy as OneOffAccuracy,
    PositiveClassMetric as PositiveClassMetric,
    QuadraticKappa as QuadraticKappa,
    RankViolationRate as RankViolationRate,
    detailed_metrics as detailed_metrics,
)
from .models.augmentation import Augmentation as Augmentation
from .models.builder import (
    attach_heads as attach_heads,
    build_model as build_model,
    freeze_all_but_last as freeze_all_but_last,
    stored_encoding as stored_encoding,
)
from .models.registry import list_models as list_models
from .models.weights import (
    WeightTransfer as WeightTransfer,
    load_torch_weights as load_torch_weights,
    transfer_weights as transfer_weights,
)
from .recipes.loading import (
    list_recipes as list_recipes,
    load_recipe as load_recipe,
)
from .recipes.schema import (
    DataSettings as DataSettings,
    LossWeightChange as LossWeightChange,
    ModelSettings as ModelSettings,
    Published as Published,
    Recipe as Recipe,
    TrainingSettings as TrainingSettings,
)
from .run_directory import RunDirectory as RunDirectory
from .serving.annotate import annotate_photo as annotate_photo
from .serving.export import export as export
from .serving.formats import default_model as default_model
from .serving.litert import LiteRtModel as LiteRtModel
from .serving.onnx_format import OnnxModel as OnnxModel
from .serving.pipeline import PredictionTimes as PredictionTimes
from .serving.predictions import (
    FacePrediction as FacePrediction,
    PersonPrediction as PersonPrediction,
    PhotoPrediction as PhotoPrediction,
    VideoPrediction as VideoPrediction,
)
from .serving.predictor import Predictor as Predictor
from .serving.server import (
    ServerLimits as ServerLimits,
    create_app as create_app,
    run_server as run_server,
)
from .studies.compare import (
    AccuracyDifference as AccuracyDifference,
    Comparison as Comparison,
    ReproductionComparison as ReproductionComparison,
    compare as compare,
    compare_reproduction as compare_reproduction,
)
from .studies.gate import CellDifference as CellDifference
from .studies.quickstart import (
    QuickstartResult as QuickstartResult,
    quickstart as quickstart,
)
from .studies.reproduce import (
    Reproduction as Reproduction,
    reproduce as reproduce,
)
from .studies.reproduction_table import ReproductionRow as ReproductionRow
from .synthetic.faces import (
    read_synthetic as read_synthetic,
    write_synthetic_faces as write_synthetic_faces,
    write_synthetic_photo as write_synthetic_photo,
)
from .training.compile import add_coupled_weight_decay as add_coupled_weight_decay
from .training.experiment import (
    Experiment as Experiment,
    ExperimentData as ExperimentData,
    make_experiment as make_experiment,
)
from .training.train import train as train

__version__: str
