"""Recipes: the named ways to make a model smaller, and how close to its source each must stay."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from edge_runtime.errors import ErrorCode, HybridgeError

__all__ = [
    "ParityBounds",
    "Precision",
    "Recipe",
    "dynamic_int8",
    "find_recipe",
    "float16",
    "float32",
    "full_int8",
    "recipe_names",
]


class Precision(StrEnum):
    """What is stored and computed in fewer bits."""

    FLOAT32 = "float32"
    FLOAT16_WEIGHTS = "float16-weights"
    INT8_WEIGHTS = "int8-weights"
    INT8 = "int8"


@dataclass(frozen=True, kw_only=True)
class ParityBounds:
    """How far a converted model may be from its source; every output must keep within all that are given.

    Attributes:
        max_relative_error: Largest error of any element, over the range of the source's output.
        min_snr_db: Smallest ratio of the source's power to the error's, in decibels.
    """

    max_relative_error: float | None = None
    min_snr_db: float | None = None


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A way to shrink a model.

    Attributes:
        name: What the command and the manifest call it.
        precision: What it makes smaller.
        bounds: What a model it made must keep within.
    """

    name: str
    precision: Precision
    bounds: ParityBounds

    @property
    def needs_representative(self) -> bool:
        """Whether it reads the ranges of activations from a representative dataset."""
        return self.precision is Precision.INT8


def float32() -> Recipe:
    """Nothing is quantised. Bound: rounding in another order, 1e-3 of the output's range."""
    return Recipe(
        name="float32",
        precision=Precision.FLOAT32,
        bounds=ParityBounds(max_relative_error=1e-3),
    )


def float16() -> Recipe:
    """Weights in half precision, computed in float32; half the size. Bound: 40 dB."""
    return Recipe(
        name="float16",
        precision=Precision.FLOAT16_WEIGHTS,
        bounds=ParityBounds(min_snr_db=40.0),
    )


def dynamic_int8() -> Recipe:
    """Weights in int8 a channel, activations quantised as they come; about a quarter of the size. Bound: 20 dB."""
    return Recipe(
        name="dynamic-int8",
        precision=Precision.INT8_WEIGHTS,
        bounds=ParityBounds(min_snr_db=20.0),
    )


def full_int8() -> Recipe:
    """Weights, activations, inputs and outputs in int8, from calibrated ranges; smallest and fastest. Bound: 10 dB.

    The bound only catches conversions that are broken: what int8 costs a sound one shows in its accuracy.
    """
    return Recipe(
        name="int8",
        precision=Precision.INT8,
        bounds=ParityBounds(min_snr_db=10.0),
    )


_RECIPES = {recipe.name: recipe for recipe in (float32(), float16(), dynamic_int8(), full_int8())}


def recipe_names() -> tuple[str, ...]:
    """Names of all recipes, from the mildest to the strongest."""
    return tuple(_RECIPES)


def find_recipe(name: str) -> Recipe:
    """The recipe of that name.

    Raises:
        HybridgeError: `recipe-unknown`, with the names there are.
    """
    if name not in _RECIPES:
        raise HybridgeError(
            ErrorCode.RECIPE_UNKNOWN,
            "recipe",
            received=f"'{name}'",
            expected=f"one of {', '.join(_RECIPES)}",
        )
    return _RECIPES[name]
