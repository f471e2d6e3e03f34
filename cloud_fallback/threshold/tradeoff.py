"""Accuracy against share offloaded on examples, beside what chance and what foresight make of the same models."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cloud_fallback.threshold.examples import Examples, JointPoint
from cloud_fallback.threshold.grid import Grid

__all__ = ["Line", "Tradeoff", "measure_tradeoff"]

Line = tuple[tuple[float, float], ...]
"""Corners of a line, each a share offloaded and the accuracy there."""

_POINTS = 200


@dataclass(frozen=True, slots=True)
class Tradeoff:
    """The curve of some examples, and two lines to hold it against.

    Areas are under the best accuracy that is reached with at most the share that is offloaded, over shares of 0 to 1.

    Attributes:
        points: By rising share offloaded, at most 200. Of one tier they are at thresholds from 0 to 1; of several they
            are the front, those combinations that no other beats.
        random: Examples are offloaded by chance.
        oracle: It is known which of a device's tiers are right, and whether the cloud will be.
        area: Under the curve.
        area_random: Under the random line.
        area_oracle: Under the oracle's.
    """

    points: tuple[JointPoint, ...]
    random: Line
    oracle: Line
    area: float
    area_random: float
    area_oracle: float

    @property
    def captured(self) -> float:
        """How much of the area between the random line and the oracle's the curve takes; 1 is the oracle."""
        between = self.area_oracle - self.area_random
        return (self.area - self.area_random) / between if between > 0 else 1.0


def measure_tradeoff(examples: Examples) -> Tradeoff:
    """The curve of some examples; what it shows of them is better than what others will show."""
    grid = Grid.count(examples)
    index = (
        np.arange(len(grid.right)) if examples.tiers == 1 else grid.front(grid.offloaded.astype(np.float64))
    )
    offloaded, right = grid.offloaded.ravel()[index], grid.right.ravel()[index]
    count = len(examples)
    best = np.maximum.accumulate(right) / count
    curve = tuple(zip((offloaded / count).tolist(), best.tolist(), strict=True))
    alone, cloud = curve[0][1], float(examples.cloud_correct.mean())
    device = examples.device_correct.any(axis=0)
    known, possible = float(device.mean()), float((device | examples.cloud_correct).mean())
    random: Line = ((0.0, alone), (1.0, cloud))
    oracle: Line = ((0.0, known), (possible - known, possible), (1.0, possible))
    return Tradeoff(
        tuple(grid.point(int(each)) for each in index[_evenly(offloaded, right)]),
        random,
        oracle,
        area=_area(curve),
        area_random=_area(((0.0, alone), (1.0, max(alone, cloud)))),
        area_oracle=_area(oracle),
    )


def _evenly(offloaded: npt.NDArray[np.int64], right: npt.NDArray[np.int64]) -> npt.NDArray[np.intp]:
    """Which points to keep: evenly by share offloaded, and the best."""
    steps = np.searchsorted(offloaded, np.linspace(offloaded[0], offloaded[-1], _POINTS - 1))
    return np.unique([*steps, int(right.argmax())])


def _area(line: Line) -> float:
    shares, accuracies = np.array([(0.0, line[0][1]), *line, (1.0, line[-1][1])]).T
    return float(np.sum(np.diff(shares) * (accuracies[1:] + accuracies[:-1]) / 2))
