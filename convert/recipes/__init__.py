"""Recipes: the named ways to make a model smaller, and how close to its source each must stay."""

from convert.recipes.named import after_training, find_recipe, post_training, recipe_names, training_time
from convert.recipes.recipe import (
    Calibration,
    Clustering,
    Method,
    ParityBounds,
    Precision,
    Pruning,
    Quantization,
    Recipe,
    Rule,
    Training,
)
from convert.recipes.recipe_file import load_recipe, recipe_toml, save_recipe

__all__ = [
    "Calibration",
    "Clustering",
    "Method",
    "ParityBounds",
    "Precision",
    "Pruning",
    "Quantization",
    "Recipe",
    "Rule",
    "Training",
    "after_training",
    "find_recipe",
    "load_recipe",
    "post_training",
    "recipe_names",
    "recipe_toml",
    "save_recipe",
    "training_time",
]
