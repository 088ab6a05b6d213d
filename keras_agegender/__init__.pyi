"""The public API, typed; `__init__.py` imports each name when it is first used."""

from .callbacks.best_model import BestModel as BestModel
from .callbacks.decoded_accuracy import DecodedAccuracy as DecodedAccuracy
from .callbacks.epoch_lines import EpochLines as EpochLines
from .callbacks.loss_weight_balancer import LossWeightBalancer as LossWeightBalancer
from .callbacks.loss_weight_scheduler import LossWeightScheduler as LossWeightScheduler
from .callbacks.run_backup import RunBackup as RunBackup
from .checksums import Verification as Verification, verify as verify
from .datasets.adience import read_adience as read_adience
from .datasets.beam_preparation import prepare_with_beam as prepare_with_beam
from .datasets.celeba import (
    read_celeba as read_celeba,
    write_celeba_from_tfds as write_celeba_from_tfds,
)
from .datasets.cleaning_report import CleaningReport as CleaningReport
from .datasets.csv import read_csv as read_csv
from .datasets.manifest import (
    read_manifest as read_manifest,
    write_manifest as write_manifest,
)
from .datasets.preparation import (
    PreparationReport as PreparationReport,
    prepare as prepare,
)
from .datasets.prepared import (
    PreparedDataset as PreparedDataset,
    load_prepared as load_prepared,
)
from .datasets.same_pictures import leave_out_duplicates as leave_out_duplicates
from .datasets.splits import (
    cross_validation_splits as cross_validation_splits,
    report_splits as report_splits,
)
from .datasets.utkface import read_utkface as read_utkface
from .encodings.calibration import (
    AnswerSets as AnswerSets,
    Calibration as Calibration,
)
from .encodings.catalogue import (
    get_encoding as get_encoding,
    list_encodings as list_encodings,
)
from .encodings.class_weights import balanced_class_weights as balanced_class_weights
from .encodings.decoding import Decoded as Decoded, HeadAnswer as HeadAnswer
from .encodings.encoding import Encoding as Encoding
from .encodings.head import Head as Head
from .evaluation.audit import Audit as Audit, audit as audit
from .evaluation.bootstrap import bootstrap_interval as bootstrap_interval
from .evaluation.calibrate import calibrate as calibrate
from .evaluation.calibration_scores import calibration_scores as calibration_scores
from .evaluation.clusters import Clusters as Clusters, Estimate as Estimate
from .evaluation.decoded_metrics import DecodedMetrics as DecodedMetrics
from .evaluation.detailed_metrics import detailed_metrics as detailed_metrics
from .evaluation.duplicates import PairCounts as PairCounts
from .evaluation.evaluate import evaluate as evaluate
from .evaluation.fit_calibration import fit_calibration as fit_calibration
from .evaluation.group_plot import plot_groups as plot_groups
from .evaluation.groups import score_groups as score_groups
from .evaluation.keras_count_metrics import (
    BalancedAccuracy as BalancedAccuracy,
    ExpectedCalibrationError as ExpectedCalibrationError,
    PositiveClassMetric as PositiveClassMetric,
    QuadraticKappa as QuadraticKappa,
)
from .evaluation.keras_metrics import (
    AgeYearsError as AgeYearsError,
    AllHeadsAccuracy as AllHeadsAccuracy,
    BrierScore as BrierScore,
    CumulativeScore as CumulativeScore,
    ExactAccuracy as ExactAccuracy,
    MeanAbsoluteGroupError as MeanAbsoluteGroupError,
    NegativeLogLikelihood as NegativeLogLikelihood,
    OneOffAccuracy as OneOffAccuracy,
    RankViolationRate as RankViolationRate,
)
from .evaluation.metrics import (
    evaluate_predictions as evaluate_predictions,
    format_metrics as format_metrics,
)
from .evaluation.occlusion import occlusion_map as occlusion_map
from .evaluation.paired_test import (
    holm_levels as holm_levels,
    paired_test as paired_test,
)
from .evaluation.reliability_plot import (
    plot_reliability as plot_reliability,
    reliability_bins as reliability_bins,
)
from .evaluation.report import write_report as write_report
from .evaluation.resampling import (
    mean_interval as mean_interval,
    proportion_interval as proportion_interval,
)
from .evaluation.run_intervals import interval_over_runs as interval_over_runs
from .evaluation.scores import (
    AgeScores as AgeScores,
    Evaluation as Evaluation,
    GenderScores as GenderScores,
)
from .faces.cropping import (
    CropOptions as CropOptions,
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
from .faces.pixel_graph import (
    PhotoFaces as PhotoFaces,
    PixelGraph as PixelGraph,
    StoredFace as StoredFace,
)
from .faces.pixel_path import PixelPath as PixelPath
from .input_pipeline.distillation import distill as distill
from .input_pipeline.eval_dataset import make_eval_dataset as make_eval_dataset
from .input_pipeline.labels import read_labels as read_labels
from .input_pipeline.train_dataset import make_train_dataset as make_train_dataset
from .labels import (
    AGE_GROUP_NAMES as AGE_GROUP_NAMES,
    AGE_GROUP_PRESETS as AGE_GROUP_PRESETS,
    AGE_GROUPS as AGE_GROUPS,
    GENDERS as GENDERS,
    AgeGroups as AgeGroups,
    get_age_groups as get_age_groups,
)
from .models.augmentation_options import Augmentation as Augmentation
from .models.builder import (
    attach_heads as attach_heads,
    build_model as build_model,
)
from .models.freezing import freeze_all_but_last as freeze_all_but_last
from .models.heads import stored_encoding as stored_encoding
from .models.networks import list_models as list_models
from .models.torch_weights import load_torch_weights as load_torch_weights
from .models.weights import (
    WeightTransfer as WeightTransfer,
    transfer_weights as transfer_weights,
)
from .recipes.loading import (
    list_recipes as list_recipes,
    load_recipe as load_recipe,
)
from .recipes.recipe import (
    DataSettings as DataSettings,
    LossWeightChange as LossWeightChange,
    ModelSettings as ModelSettings,
    Published as Published,
    Recipe as Recipe,
    TrainingSettings as TrainingSettings,
)
from .run_directory import RunDirectory as RunDirectory
from .serving.annotation import annotate_photo as annotate_photo
from .serving.answering_model import default_model as default_model
from .serving.answers import (
    FacePrediction as FacePrediction,
    PersonPrediction as PersonPrediction,
    PhotoPrediction as PhotoPrediction,
    VideoPrediction as VideoPrediction,
)
from .serving.export import export as export
from .serving.litert_model import LiteRtModel as LiteRtModel
from .serving.onnx_model import OnnxModel as OnnxModel
from .serving.photo_answering import ServerLimits as ServerLimits
from .serving.prediction_times import PredictionTimes as PredictionTimes
from .serving.predictor import Predictor as Predictor
from .serving.server import (
    create_app as create_app,
    run_server as run_server,
)
from .studies.compare import (
    Comparison as Comparison,
    PairedDifference as PairedDifference,
    compare as compare,
)
from .studies.compare_reproduction import (
    ReproductionComparison as ReproductionComparison,
    compare_reproduction as compare_reproduction,
)
from .studies.compare_sets import (
    SetComparison as SetComparison,
    compare_sets as compare_sets,
)
from .studies.gate import CellDifference as CellDifference
from .studies.pooling import PooledDifference as PooledDifference
from .studies.quickstart import (
    QuickstartResult as QuickstartResult,
    quickstart as quickstart,
)
from .studies.reproduce import (
    Reproduction as Reproduction,
    Row as Row,
    reproduce as reproduce,
)
from .synthetic.faces import (
    read_synthetic as read_synthetic,
    write_synthetic_faces as write_synthetic_faces,
    write_synthetic_photo as write_synthetic_photo,
)
from .training.experiment import (
    Experiment as Experiment,
    ExperimentData as ExperimentData,
    make_experiment as make_experiment,
)
from .training.train import train as train
from .training.weight_decay import add_coupled_weight_decay as add_coupled_weight_decay

__version__: str
