"""Recipes: the named ways to make a model smaller, and how close to its source each must stay."""

from convert.recipes.named import find_recipe, post_training, recipe_names, training_time
from convert.recipes.recipe import (
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

__all__ = [
    "Clustering",
    "Method",
    "ParityBounds",
    "Precision",
    "Pruning",
    "Quantization",
    "Recipe",
    "Rule",
    "Training",
    "find_recipe",
    "post_training",
    "recipe_names",
    "training_time",
]
