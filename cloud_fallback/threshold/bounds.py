"""Exact binomial bounds: what a count of successes says of the share behind it, at any number of trials.

A bound by Hoeffding's inequality, which the general form of risk control uses, is several times as wide where the share
is near one, as accuracies are. NumPy suffices for the exact one: a tail is a sum of at most `trials` + 1 terms.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

__all__ = ["lower_bound", "needed_successes", "needed_trials"]

_Floats = npt.NDArray[np.float64]

# How likely it is that as many trials as `needed_trials` says are enough.
_POWER = 0.9
_MOST_TRIALS = 1 << 20


def lower_bound(successes: int, trials: int, confidence: float) -> float:
    """The one-sided Clopper-Pearson bound: the share behind the successes is at least this.

    The bound is exact: whatever the share, it is above it with a probability of at most 1 - `confidence` (Clopper and
    Pearson, "The Use of Confidence or Fiducial Limits Illustrated in the Case of the Binomial", Biometrika 26, 1934).

    Args:
        successes: Of the trials, 0 to `trials`.
        trials: Independent ones with the same share, 1 or more.
        confidence: In 0..1, both excluded.

    Example:
        >>> round(lower_bound(95, 100, 0.95), 4)
        0.8977
    """
    if successes == 0:
        return 0.0
    coefficients, rest = _log_coefficients(trials), 1.0 - confidence
    low, high = 0.0, successes / trials
    # The tail grows with the share; halving 60 times leaves less than a double can tell apart.
    for _ in range(60):
        middle = (low + high) / 2
        if _tail(coefficients, middle, successes) <= rest:
            low = middle
        else:
            high = middle
    return low


def needed_successes(trials: int, share: float, confidence: float) -> int:
    """The fewest successes that show a share of at least `share`: a binomial test at level 1 - `confidence`.

    So many have a `lower_bound` that reaches the share, and one fewer has not. No number of successes shows a share of
    1: it is then one more than the trials.

    Args:
        trials: 0 or more.
        share: To be shown, in 0..1.
        confidence: In 0..1, both excluded.
    """
    if share <= 0:
        return 0
    if share >= 1:
        return trials + 1
    tails = np.cumsum(_probabilities(_log_coefficients(trials), share)[::-1])[::-1]
    # Tails fall with the count; those within the level are the last ones.
    return trials + 1 - int(np.count_nonzero(tails <= 1.0 - confidence))


def needed_trials(actual: float, share: float, confidence: float) -> int | None:
    """About how many trials show a share of at least `share` nine times in ten, if `actual` is the true one.

    None where no number would, because the true one is no larger, or more than a million, because it hardly is.
    """
    if actual <= share:
        return None

    def suffice(trials: int) -> bool:
        needed = needed_successes(trials, share, confidence)
        return needed <= trials and (
            actual >= 1 or _tail(_log_coefficients(trials), actual, needed) >= _POWER
        )

    most = 1
    while not suffice(most):
        most *= 2
        if most > _MOST_TRIALS:
            return None
    least = most // 2
    while most - least > max(most // 100, 1):
        middle = (least + most) // 2
        least, most = (least, middle) if suffice(middle) else (middle, most)
    return most


def _log_coefficients(trials: int) -> _Floats:
    """Logarithms of the binomial coefficients of 0 to `trials` successes."""
    factorials = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, trials + 1, dtype=np.float64)))])
    coefficients: _Floats = factorials[-1] - factorials - factorials[::-1]
    return coefficients


def _probabilities(coefficients: _Floats, share: float) -> _Floats:
    counts = np.arange(len(coefficients))
    logs = coefficients + counts * math.log(share) + counts[::-1] * math.log1p(-share)
    probabilities: _Floats = np.exp(logs)
    return probabilities


def _tail(coefficients: _Floats, share: float, successes: int) -> float:
    """The probability of at least so many successes."""
    return float(_probabilities(coefficients, share)[successes:].sum()) if share > 0 else 0.0
