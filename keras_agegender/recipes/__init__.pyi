"""Public names of `kag.recipes`, typed."""

from .loading import (
    list_recipes as list_recipes,
    load_recipe as load_recipe,
)
from .schema import (
    DataSettings as DataSettings,
    LossWeightChange as LossWeightChange,
    ModelSettings as ModelSettings,
    Published as Published,
    Recipe as Recipe,
    TrainingSettings as TrainingSettings,
)
