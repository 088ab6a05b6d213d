"""Public names of `kag.callbacks`, typed."""

from .balancer import (
    LossWeightBalancer as LossWeightBalancer,
)
from .checkpoints import (
    BestModelCheckpoint as BestModelCheckpoint,
    RunBackup as RunBackup,
)
from .decoded_metrics import (
    DecodedAccuracy as DecodedAccuracy,
    DecodedMetrics as DecodedMetrics,
)
from .epoch_logger import (
    EpochLogger as EpochLogger,
)
from .loss_weights import (
    LossWeightScheduler as LossWeightScheduler,
)
