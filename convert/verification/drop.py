"""How sure it is that a conversion lost accuracy: an interval around the drop."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from edge_runtime.tensor_spec import Array

__all__ = ["Drop", "measure_drop"]


@dataclass(frozen=True)
class Drop:
    """Accuracy lost in conversion, as a share, with the interval that other samples of the same kind would fall in.

    Attributes:
        value: Accuracy of the source less that of the converted model; negative when it was won.
        low: Lower end of the interval.
        high: Upper end.
        samples: How many were judged.
        lost: How many only the source has right.
        won: How many only the converted model has right.
        confidence: How often such an interval holds the true drop.
    """

    value: float
    low: float
    high: float
    samples: int
    lost: int
    won: int
    confidence: float = 0.95

    @property
    def is_certain(self) -> bool:
        """Whether zero lies outside of the interval: the two models differ."""
        return self.low > 0 or self.high < 0


def measure_drop(source: Array, converted: Array, labels: Array, *, confidence: float = 0.95) -> Drop:
    """The drop and its interval, from the samples on which only one of both models is right.

    Both models judge the same samples, so their errors are not independent and two separate intervals would be far too
    wide. This is the adjusted Wald interval for paired proportions, one added to each of the two discordant counts
    (Bonett and Price, 2012), which keeps its promise also when they are small, as McNemar's plain one does not.

    Args:
        source: Class scores of the source, shape (samples, classes).
        converted: Class scores of the converted model, the same shape.
        labels: Index of the true class for each sample.
        confidence: How often the interval must hold the true drop.
    """
    before, after = source.argmax(-1) == labels, converted.argmax(-1) == labels
    samples = len(labels)
    lost, won = int(np.sum(before & ~after)), int(np.sum(~before & after))
    share_lost, share_won = (lost + 1) / (samples + 2), (won + 1) / (samples + 2)
    middle = share_lost - share_won
    reach = NormalDist().inv_cdf((1 + confidence) / 2) * math.sqrt(
        (share_lost + share_won - middle**2) / (samples + 2)
    )
    return Drop(
        value=(lost - won) / samples,
        low=max(middle - reach, -1.0),
        high=min(middle + reach, 1.0),
        samples=samples,
        lost=lost,
        won=won,
        confidence=confidence,
    )
