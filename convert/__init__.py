"""A trained model in, a verified bundle out; TensorFlow is imported only when a model is converted.

Example:
    >>> from convert import convert
    >>> conversion = convert("digits.keras", recipe="int8", representative="train.npz", evaluation="test.npz")
    >>> conversion.save("digits-1.edge")
"""

from convert.budget import Budget, parse_size
from convert.conversion import Conversion, apply_recipe, convert, default_name
from convert.data import Dataset, load_dataset
from convert.native_logs import hide_native_logs
from convert.preprocessing_file import load_preprocessing
from convert.quantization import Coverage
from convert.recipes import (
    Clustering,
    Method,
    ParityBounds,
    Precision,
    Pruning,
    Quantization,
    Recipe,
    Rule,
    Training,
    find_recipe,
    load_recipe,
    recipe_names,
)
from convert.sources import KerasSource, Source, open_source
from convert.workbench import Workbench, open_workbench

__all__ = [
    "Budget",
    "Clustering",
    "Conversion",
    "Coverage",
    "Dataset",
    "KerasSource",
    "Method",
    "ParityBounds",
    "Precision",
    "Pruning",
    "Quantization",
    "Recipe",
    "Rule",
    "Source",
    "Training",
    "Workbench",
    "apply_recipe",
    "convert",
    "default_name",
    "find_recipe",
    "hide_native_logs",
    "load_dataset",
    "load_preprocessing",
    "load_recipe",
    "open_source",
    "open_workbench",
    "parse_size",
    "recipe_names",
]
