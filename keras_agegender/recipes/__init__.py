"""Experiments as data: one TOML file each, and the code that loads them."""

from keras_agegender.recipes.loading import (
    list_recipes as list_recipes,
    load_recipe as load_recipe,
)
from keras_agegender.recipes.schema import Recipe as Recipe
