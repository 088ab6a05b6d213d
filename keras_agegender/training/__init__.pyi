"""Public names of `kag.training`, typed."""

from .compile import (
    add_coupled_weight_decay as add_coupled_weight_decay,
)
from .experiment import (
    Experiment as Experiment,
    ExperimentData as ExperimentData,
    make_experiment as make_experiment,
)
