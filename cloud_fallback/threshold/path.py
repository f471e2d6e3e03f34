"""The path through the thresholds of all tiers along which less and less is offloaded, learned from some examples.

For every share offloaded some combination of thresholds is the most accurate, and most of that is chance: where many
are compared on few examples, the best of them is lucky. Two things leave the chance out. Only the corners of the
concave hull over accuracy and cost are kept: each is the best at some price of an error, and those in between, which
stand out for no price, are not. And between two corners the thresholds go evenly from one to the other. On other
examples such a path needs fewer questions for the same accuracy than the best combinations themselves do.

Cost is the share offloaded and, as a small part of it, the work of the device: many combinations offload as much,
and those are best whose first tiers answer most.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from cloud_fallback.threshold.examples import Examples
from cloud_fallback.threshold.grid import Grid

__all__ = ["learn_path"]

_Floats = npt.NDArray[np.float64]
_Index = npt.NDArray[np.intp]

# What asking the device's next tier costs, where asking the cloud costs 1.
_NEXT_TIER = 0.02
# Standard errors by which a combination may be less accurate than the best, for the path to begin there.
_AS_GOOD = 0.5


def learn_path(examples: Examples, *, steps: int) -> _Floats:
    """Thresholds from one of the most accurate combinations to the one that costs least.

    It begins beyond the most accurate one, where that costs more and is hardly worse: the best of few examples offloads
    too little as often as too much, and too much of what the cloud knows as well does no harm.

    Args:
        examples: To learn from; what is measured on them is better than what other examples will show.
        steps: How many combinations, closer together where they cost little.

    Returns:
        Thresholds of shape (steps, tiers); the first row offloads most, or nearly.
    """
    grid = Grid.count(examples)
    cost = grid.offloaded + _NEXT_TIER * grid.asked
    rising, falling = grid.front(cost), grid.front(-cost)[::-1]
    # What costs less than the most accurate, and what costs more.
    shown = np.concatenate([rising, falling[cost.ravel()[falling] > cost.ravel()[rising[-1]]]])
    corners = shown[_hull(cost.ravel()[shown], grid.right.ravel()[shown])]
    at = cost.ravel()[corners[: _beginning(grid, corners) + 1]]
    costs = at[0] + (at[-1] - at[0]) * np.linspace(1, 0, steps) ** 2
    path = np.empty((steps, examples.tiers))
    for tier, places in enumerate(grid.places(corners[: len(at)])):
        thresholds, below = grid.thresholds[tier], grid.below[tier].astype(np.float64)
        # Evenly by the examples below, not by the threshold itself: confidences crowd near 1.
        path[:, tier] = np.interp(np.interp(costs, at, below[places]), below, thresholds)
    return path


def _beginning(grid: Grid, corners: _Index) -> int:
    """The last of the corners, by rising cost, that is not told apart from the most accurate."""
    right = grid.right.ravel()[corners]
    top = int(right.argmax())
    answered, _ = grid.examples.outcome(grid.at(int(corners[top])))
    for corner in range(len(corners) - 1, top, -1):
        other, _ = grid.examples.outcome(grid.at(int(corners[corner])))
        # Of what only one of the two answers rightly, either has half, give or take (McNemar, Psychometrika 12, 1947).
        if right[top] - right[corner] <= _AS_GOOD * np.sqrt(np.count_nonzero(answered != other)):
            return corner
    return top


def _hull(cost: _Floats, right: npt.NDArray[np.int64]) -> list[int]:
    """Which points, by rising cost, are corners of their upper concave hull (Andrew's monotone chain)."""
    corners: list[int] = []
    for index in range(len(cost)):
        while len(corners) > 1:
            first, last = corners[-2:]
            gained, paid = right[last] - right[first], cost[last] - cost[first]
            if gained * (cost[index] - cost[last]) > (right[index] - right[last]) * paid:
                break
            corners.pop()
        corners.append(index)
    return corners
