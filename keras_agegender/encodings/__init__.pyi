"""Public names of `kag.encodings`, typed."""

from .calibration import (
    Calibration as Calibration,
    PredictionSets as PredictionSets,
)
from .decoding import (
    Decoded as Decoded,
    HeadPrediction as HeadPrediction,
)
from .encoding import (
    Encoding as Encoding,
    balanced_class_weights as balanced_class_weights,
)
from .head import (
    Head as Head,
)
from .head_types import HEAD_TYPES as HEAD_TYPES, HeadType as HeadType
from .of_age import AgeCheck as AgeCheck
from .registry import (
    get_encoding as get_encoding,
    list_encodings as list_encodings,
)
