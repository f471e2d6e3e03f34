"""Right answers and offloaded examples at every combination of the tiers' thresholds, counted at once.

For tiers of L thresholds each there are as many combinations as L to the power of the tiers. Each example is counted
once into a cell of a histogram, and cumulative sums along its axes then hold the count of every combination.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cloud_fallback.threshold.examples import Examples, JointPoint

__all__ = ["Grid"]

_Floats = npt.NDArray[np.float64]
_Ints = npt.NDArray[np.int64]

# Of two tiers 256 thresholds each, of three 40.
_COMBINATIONS = 1 << 16


@dataclass(frozen=True, slots=True)
class Grid:
    """Counts for every combination of thresholds.

    Attributes:
        examples: Those that were counted.
        thresholds: Of each tier, rising from 0, where only what is sure at no threshold is passed on.
        below: How many examples are below each of them, whoever is asked before.
        right: Right answers at each combination; an axis for each tier.
        offloaded: Examples that reach the cloud, likewise.
        asked: Runs of the device's further tiers, likewise.
    """

    examples: Examples
    thresholds: tuple[_Floats, ...]
    below: tuple[_Ints, ...]
    right: _Ints
    offloaded: _Ints
    asked: _Ints

    @classmethod
    def count(cls, examples: Examples, *, combinations: int = _COMBINATIONS) -> Grid:
        """Counts the examples.

        Each threshold lies halfway between two confidences that occur, so that rounding on another machine moves no
        example across it, and examples of one confidence go together. A confidence of exactly 1 is below no threshold.

        Args:
            examples: To count.
            combinations: At most about so many: where the tiers have more, each keeps some thresholds, evenly by
                examples.
        """
        most = max(int(combinations ** (1 / examples.tiers)), 4)
        scales = [_scale(confidence, most) for confidence in examples.confidence]
        thresholds, below = zip(*scales, strict=True)
        shape = [len(each) for each in thresholds]
        # How many of its thresholds a tier is sure at: an example passes the tier at all later ones.
        passed = [
            np.searchsorted(scale, confidence, side="right")
            for scale, confidence in zip(thresholds, examples.confidence, strict=True)
        ]
        every = np.ones(len(examples), bool)
        right, asked = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        for tier in range(examples.tiers):
            counted = _histogram(passed[: tier + 1], shape, examples.device_correct[tier])
            reaching = _passed_on(counted, tier)
            kept = reaching.sum(axis=tier, keepdims=True) - np.cumsum(reaching, axis=tier)
            right += _along(kept[(slice(None),) * tier + (slice(-1),)], examples.tiers)
            if tier:
                reached = _passed_on(_histogram(passed[:tier], shape, every), tier)
                asked += _along(reached, examples.tiers)
        right += _passed_on(_histogram(passed, shape, examples.cloud_correct), examples.tiers)
        offloaded = _passed_on(_histogram(passed, shape, every), examples.tiers)
        return cls(examples, tuple(thresholds), tuple(below), right, offloaded, asked)

    def places(self, index: npt.NDArray[np.intp]) -> tuple[npt.NDArray[np.intp], ...]:
        """Which threshold each tier has at combinations that are named by their place in the flattened grid."""
        return np.unravel_index(index, self.right.shape)

    def at(self, index: int) -> list[float]:
        """The thresholds of one combination."""
        places = self.places(np.array(index))
        return [float(scale[place]) for scale, place in zip(self.thresholds, places, strict=True)]

    def point(self, index: int) -> JointPoint:
        """What one combination comes to."""
        return self.examples.point(self.at(index))

    def front(self, cost: npt.NDArray[np.float64]) -> npt.NDArray[np.intp]:
        """The combinations that are more accurate than all that cost less, by rising cost.

        Args:
            cost: Of each combination, of the grid's shape. Of equal ones it is the one whose first tiers answer most.
        """
        right = self.right.ravel()
        order = np.lexsort((-right, cost.ravel()))
        best = np.maximum.accumulate(right[order])
        front: npt.NDArray[np.intp] = order[np.diff(best, prepend=-1) > 0]
        return front


def _scale(confidence: _Floats, most: int) -> tuple[_Floats, _Ints]:
    """At most `most` thresholds of a tier, evenly by examples, and how many examples are below each."""
    levels, counts = np.unique(confidence, return_counts=True)
    above = np.append(levels[1:], 1.0)
    middle = (levels + above) / 2
    # Between neighbouring floats there is no middle.
    middle = np.where(middle > levels, middle, above)
    usable = (levels >= 0) & (levels < 1)
    thresholds = np.concatenate([[0.0], middle[usable]])
    below = np.concatenate([[counts[levels < 0].sum()], np.cumsum(counts)[usable]]).astype(np.int64)
    if len(thresholds) > most:
        chosen = np.unique(np.searchsorted(below, np.linspace(below[0], below[-1], most)))
        thresholds, below = thresholds[chosen], below[chosen]
    return thresholds, below


def _histogram(passed: list[npt.NDArray[np.intp]], shape: list[int], counted: npt.NDArray[np.bool_]) -> _Ints:
    sizes = [size + 1 for size in shape[: len(passed)]]
    cells = np.ravel_multi_index([each[counted] for each in passed], sizes)
    histogram: _Ints = np.bincount(cells, minlength=int(np.prod(sizes))).reshape(sizes).astype(np.int64)
    return histogram


def _along(counts: _Ints, axes: int) -> _Ints:
    """Counts by the thresholds of the first tiers, the same at all thresholds of the others."""
    return counts.reshape(counts.shape + (1,) * (axes - counts.ndim))


def _passed_on(histogram: _Ints, tiers: int) -> _Ints:
    """Counts of what the first `tiers` tiers pass on, at each of their thresholds."""
    for axis in range(tiers):
        histogram = np.cumsum(histogram, axis=axis)[(slice(None),) * axis + (slice(-1),)]
    return histogram
