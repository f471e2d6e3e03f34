"""Whether there is time for another trial, judged by those before it."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

from convert.recipes import Recipe, Training

__all__ = ["SearchClock"]

# One measurement in a fresh process.
_LATENCY_SECONDS = 1.5
# Of the time at hand, for comparing the best in turn at the end; and at most so many seconds of it.
_RESERVE, _MAX_RESERVE_SECONDS = 0.05, 30.0
# Trials are not all alike: the slowest so far, and something on top.
_MARGIN = 1.2


class SearchClock:
    """Counts from when it is made.

    Args:
        deadline_s: Seconds that the search may take; None for as long as it likes.
        training_seconds: An estimate of how long a training takes, before any was seen.
    """

    def __init__(self, deadline_s: float | None, training_seconds: Callable[[Training], float] | None = None):
        self._start = time.monotonic()
        self.deadline_s = deadline_s
        self._training_seconds = training_seconds
        self._conversions: list[float] = []
        self._errors: list[float] = []
        self._trainings: list[float] = []
        self._trained: set[Training] = set()

    def learn(self, recipe: Recipe, seconds: float) -> None:
        """Takes note of how long a trial took that was made just now."""
        training = recipe.training
        if training is None or training in self._trained:
            self._conversions.append(seconds)
            return
        self._trained.add(training)
        self._trainings.append(seconds)
        if self._training_seconds is not None:
            self._errors.append(seconds / self._training_seconds(training))

    def estimate(self, recipe: Recipe) -> float:
        """Seconds that a trial will probably take, its latency included; 0 for the very first."""
        conversion = max(self._conversions, default=0.0) * _MARGIN + _LATENCY_SECONDS
        if recipe.training is None or recipe.training in self._trained:
            return conversion if self._conversions else 0.0
        if self._training_seconds is not None:
            correction = median(self._errors) if self._errors else 1.0
            return self._training_seconds(recipe.training) * correction * _MARGIN + conversion
        if self._trainings:
            return max(self._trainings) * _MARGIN + conversion
        # Nothing is known of it: with half the time still there it is worth a try.
        return 0.0 if self.deadline_s is None else self.deadline_s / 2

    def allows(self, recipe: Recipe) -> bool:
        """Whether a trial can probably end in time."""
        return self.remaining >= self.estimate(recipe)

    @property
    def remaining(self) -> float:
        """Seconds left for trials; what comparing the best needs is set aside."""
        if self.deadline_s is None:
            return float("inf")
        return self._left(self.deadline_s) - min(_RESERVE * self.deadline_s, _MAX_RESERVE_SECONDS)

    def rounds_for(self, models: int) -> int:
        """How many rounds of measuring so many models in turn still fit, at most five."""
        if self.deadline_s is None:
            return 5
        return max(0, min(5, int(self._left(self.deadline_s) / (_LATENCY_SECONDS / 2 * max(models, 1)))))

    def _left(self, deadline_s: float) -> float:
        return self._start + deadline_s - time.monotonic()
