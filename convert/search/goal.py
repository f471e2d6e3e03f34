"""What a search looks for: the limits that a model must keep, and how far one is from them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf

from convert.budget import Budget
from convert.search.trial import Trial

__all__ = ["Goal", "goal_of"]

_MAX_DROP = 0.01
_MIN_AGREEMENT = 0.98
_MIN_SNR_DB = 20.0
# A model that loses a point too much is as far off as one that is twice as large as it may be.
_DROP_SCALE = 0.01


@dataclass(frozen=True)
class Goal:
    """The limits of one search, one of them always on what the model may lose.

    Attributes:
        budget: The user's limits, and the default where none was on quality.
        min_snr_db: For a model without classes, whose quality no budget can name.
        assumed: What was not asked for, as a sentence; empty if nothing.
    """

    budget: Budget
    min_snr_db: float | None = None
    assumed: str = ""

    def misses(self, trial: Trial) -> tuple[str, ...]:
        """What a trial has out of bounds, a phrase each; nothing for one without a model."""
        if trial.size is None or trial.parity is None:
            return ()
        found = self.budget.misses(
            size=trial.size, accuracy=trial.accuracy, parity=trial.parity, latency_ms=trial.latency_ms
        )
        snr = trial.snr_db
        if self.min_snr_db is not None and snr is not None and snr < self.min_snr_db:
            found = (*found, f"signal-to-noise ratio {snr:.1f} dB (at least {self.min_snr_db:g})")
        return found

    def excess(self, trial: Trial) -> tuple[float, float]:
        """How far beyond its limits a trial is: the worst relative excess, and the sum; 0 if within."""
        if trial.size is None:
            return inf, inf
        budget, found = self.budget, [0.0]
        if budget.max_drop is not None:
            found.append(_above(trial.drop, budget.max_drop, max(budget.max_drop, _DROP_SCALE)))
        if budget.max_size is not None:
            found.append(_above(trial.size.model, budget.max_size, budget.max_size))
        if budget.max_latency_ms is not None:
            found.append(_above(trial.latency_ms, budget.max_latency_ms, budget.max_latency_ms))
        if budget.min_agreement is not None:
            lost = None if trial.agreement is None else 1 - trial.agreement
            allowed = 1 - budget.min_agreement
            found.append(_above(lost, allowed, max(allowed, _DROP_SCALE)))
        if self.min_snr_db is not None and trial.snr_db is not None:
            found.append(_above(-trial.snr_db, -self.min_snr_db, self.min_snr_db))
        return max(found), sum(found)

    @property
    def quality(self) -> Goal:
        """The limits on what the model may lose, without those on size and latency."""
        return replace(self, budget=replace(self.budget, max_size=None, max_latency_ms=None))

    def keeps_quality(self, trial: Trial) -> bool:
        """Whether a trial has a model that loses no more than it may, whatever its size and latency."""
        return trial.size is not None and not self.quality.misses(trial)


def goal_of(budget: Budget, *, labelled: bool, classes: bool) -> Goal:
    """The goal of a search within a budget; without a limit on quality the smallest model would be the worst one.

    Args:
        budget: What the user allows.
        labelled: Whether accuracy is measured.
        classes: Whether the model has an output of class scores.
    """
    if budget.max_drop is not None or budget.min_agreement is not None:
        return Goal(budget)
    if labelled:
        assumed = f"no limit on accuracy was given: at most {_MAX_DROP:g} may be lost"
        return Goal(replace(budget, max_drop=_MAX_DROP), assumed=assumed)
    if classes:
        assumed = f"no limit on accuracy was given: {_MIN_AGREEMENT:.0%} of the samples must keep their class"
        return Goal(replace(budget, min_agreement=_MIN_AGREEMENT), assumed=assumed)
    assumed = f"no limit on accuracy was given: outputs must keep {_MIN_SNR_DB:g} dB of signal to noise"
    return Goal(budget, min_snr_db=_MIN_SNR_DB, assumed=assumed)


def _above(value: float | None, limit: float, scale: float) -> float:
    return inf if value is None else max(0.0, (value - limit) / scale)
