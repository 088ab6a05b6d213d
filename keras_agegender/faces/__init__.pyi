"""Public names of `kag.faces`, typed."""

from .detector import (
    Detections as Detections,
    FaceDetector as FaceDetector,
    MtcnnDetector as MtcnnDetector,
)
from .images import (
    UnreadableImageError as UnreadableImageError,
    read_image as read_image,
)
from .preprocessing import (
    CropOptions as CropOptions,
    Preprocessing as Preprocessing,
)
from .preprocessing_graph import (
    PhotoFaces as PhotoFaces,
    PreprocessingGraph as PreprocessingGraph,
    StoredFace as StoredFace,
)
