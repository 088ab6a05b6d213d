"""Experiments as data: one TOML file each, and the code that loads them."""

from keras_agegender.recipes.recipe import Recipe as Recipe
from keras_agegender.recipes.recipe import list_recipes as list_recipes
from keras_agegender.recipes.recipe import load_recipe as load_recipe
