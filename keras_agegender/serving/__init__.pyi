"""Public names of `kag.serving`, typed."""

from .annotate import (
    annotate_photo as annotate_photo,
)
from .formats import (
    default_model as default_model,
)
from .litert import (
    LiteRtModel as LiteRtModel,
)
from .onnx_format import (
    OnnxModel as OnnxModel,
)
from .pipeline import (
    PredictionTimes as PredictionTimes,
)
from .predictions import (
    FacePrediction as FacePrediction,
    PersonPrediction as PersonPrediction,
    PhotoPrediction as PhotoPrediction,
    VideoPrediction as VideoPrediction,
)
from .predictor import (
    Predictor as Predictor,
)
from .server import (
    ServerLimits as ServerLimits,
    create_app as create_app,
    run_server as run_server,
)
