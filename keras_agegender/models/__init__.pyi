"""Public names of `kag.models`, typed."""

from .augmentation import (
    Augmentation as Augmentation,
)
from .builder import (
    attach_heads as attach_heads,
    build_model as build_model,
    freeze_all_but_last as freeze_all_but_last,
)
from .registry import (
    list_models as list_models,
)
from .weights import (
    WeightTransfer as WeightTransfer,
    load_torch_weights as load_torch_weights,
    stored_encoding as stored_encoding,
    transfer_weights as transfer_weights,
)
