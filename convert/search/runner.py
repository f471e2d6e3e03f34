"""Where trials run: one after the other in this process; `convert.search.ray_runner` spreads them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from convert.recipes import Recipe
from convert.search.trial import Attempt, TryRecipe, attempt

__all__ = ["SequentialRunner", "TrialRunner"]


class TrialRunner(Protocol):
    """Tries recipes.

    Attributes:
        slots: How many at once.
    """

    @property
    def slots(self) -> int: ...  # noqa: D102

    def run(self, recipes: Sequence[Recipe], may_start: Callable[[Recipe], bool]) -> Iterator[Attempt]:
        """What came of each, as they end; those that may not start are left out.

        Args:
            recipes: What to try.
            may_start: Asked just before each starts.
        """


class SequentialRunner:
    """One trial after the other: training and calibration use every core as it is.

    Args:
        try_recipe: Converts with a recipe, or raises.
    """

    slots = 1

    def __init__(self, try_recipe: TryRecipe):
        self._try_recipe = try_recipe

    def run(self, recipes: Sequence[Recipe], may_start: Callable[[Recipe], bool]) -> Iterator[Attempt]:
        """See `TrialRunner`."""
        for recipe in recipes:
            if may_start(recipe):
                yield attempt(self._try_recipe, recipe)
