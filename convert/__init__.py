"""A trained model in, a verified bundle out; TensorFlow is imported only when a model is converted.

Example:
    >>> from convert import convert
    >>> conversion = convert("digits.keras", recipe="int8", representative="train.npz", evaluation="test.npz")
    >>> conversion.save("digits-1.edge")
"""

from convert.conversion import Conversion, convert, default_name
from convert.data import Dataset, load_dataset
from convert.sources.keras_source import KerasSource
from convert.native_logs import hide_native_logs
from convert.preprocessing_file import load_preprocessing
from convert.quantization.quantize import Coverage
from convert.recipes import ParityBounds, Precision, Recipe, find_recipe, recipe_names
from convert.sources.source import Source, open_source

__all__ = [
    "Conversion",
    "Coverage",
    "Dataset",
    "KerasSource",
    "ParityBounds",
    "Precision",
    "Recipe",
    "Source",
    "convert",
    "default_name",
    "find_recipe",
    "hide_native_logs",
    "load_dataset",
    "load_preprocessing",
    "open_source",
    "recipe_names",
]
