"""A time that varies from request to request, known by its mean and its coefficient of variation."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_runtime.errors import ErrorCode, HybridgeError

__all__ = ["Cells", "GammaTime"]

Times = npt.NDArray[np.float64]

# Below this a time is taken as constant: nothing that follows could tell.
_CONSTANT = 0.01
_MAX_CV = 10.0
_CELLS = 1024


@dataclass(frozen=True, slots=True)
class Cells:
    """A time's distribution up to a limit, in pieces narrow enough to stand for their middles.

    Attributes:
        middles_s: The pieces; shape (pieces,), seconds.
        masses: Probability of each; shape (pieces,).
        beyond: Probability of more than the limit.
    """

    middles_s: Times
    masses: Times
    beyond: float


@dataclass(frozen=True, slots=True)
class GammaTime:
    """A gamma distribution by its first two moments, the usual choice when no more is known of a service time.

    Tijms, "A First Course in Stochastic Models", Wiley 2003, appendix B: a coefficient of variation of 1 is the
    exponential distribution, 0 a constant.

    Args:
        mean_s: Mean in seconds, more than 0.
        cv: Standard deviation over mean, in 0..10.

    Raises:
        HybridgeError: `usage` for other numbers.
    """

    mean_s: float
    cv: float = 1.0

    def __post_init__(self) -> None:
        if not (0 < self.mean_s < math.inf and 0 <= self.cv <= _MAX_CV):
            raise HybridgeError(
                ErrorCode.USAGE,
                "a time that varies",
                received=f"a mean of {self.mean_s:g} s and a coefficient of variation of {self.cv:g}",
                expected=f"a mean of more than 0 and a coefficient of variation in 0..{_MAX_CV:g}",
            )

    def above(self, times_s: npt.ArrayLike) -> Times:
        """Probability that it takes longer than each of `times_s` seconds, in their shape; 1 for negative ones."""
        times = np.asarray(times_s, np.float64)
        if self.cv < _CONSTANT:
            return np.where(times < self.mean_s, 1.0, 0.0)
        shape = 1 / self.cv**2
        return _upper_gamma(shape, np.maximum(times, 0.0) * (shape / self.mean_s))

    def cells(self, limit_s: float) -> Cells:
        """The distribution up to `limit_s` seconds, which is not negative."""
        return _cells(self, limit_s)


@lru_cache(maxsize=8)
def _cells(time: GammaTime, limit_s: float) -> Cells:
    spread = time.cv * time.mean_s
    low = min(limit_s, max(0.0, time.mean_s - 8 * spread))
    edges = np.linspace(low, max(low, min(limit_s, time.mean_s + 40 * spread)), _CELLS + 1)
    above = time.above(edges)
    # What is below the pieces is as good as at the first edge: all of it for a constant, hardly any otherwise.
    middles = np.concatenate([edges[:1], (edges[:-1] + edges[1:]) / 2])
    masses = np.concatenate([[1 - above[0]], above[:-1] - above[1:]])
    return Cells(middles, masses, float(above[-1]))


def _upper_gamma(shape: float, x: Times) -> Times:
    """The regularised upper incomplete gamma function, to about 1e-12 (DLMF 8.7.1, the series of the lower one)."""
    # Beyond this the probability is below 1e-17, and the series would overflow.
    far = x > shape + 12 * math.sqrt(shape) + 40
    inside: Any = np.where(far, 0.0, x)
    term, total, index = np.ones_like(inside), np.ones_like(inside), 0
    while (term > 1e-17 * total).any():
        index += 1
        term = term * inside / (shape + index)
        total = total + term
    with np.errstate(divide="ignore"):
        lower = total * np.exp(shape * np.log(inside) - inside - math.lgamma(shape + 1))
    return np.where(far, 0.0, np.clip(1 - lower, 0.0, 1.0))
