"""Which trials are worth having: the Pareto front, the smallest within the budget, the nearest without."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

from convert.search.goal import Goal
from convert.search.trial import Trial, TrialStatus

__all__ = ["nearest", "pareto_front", "smaller", "smallest"]

# Fresh processes on a quiet machine differ by so much; less is no reason to prefer one.
_LATENCY_NOISE = 0.05
# Files that differ by less are of one size.
_SIZE_NOISE = 0.01


def pareto_front(trials: Sequence[Trial], *, latency_noise: float = _LATENCY_NOISE) -> tuple[Trial, ...]:
    """The trials that no other beats in what they lose, in bytes on disk and in latency together.

    What is lost is accuracy, without labels agreement, without classes signal to noise. An unknown latency counts as
    the slowest. Trials that are equal in all three all stay.

    Args:
        trials: Any; those without a model are left out.
        latency_noise: Relative difference of latencies that counts as none.

    Returns:
        The front, smallest first.
    """
    costs = [(_loss(trial), trial.size.model, _latency(trial), trial) for trial in trials if trial.size]
    kept: list[tuple[float, int, float, Trial]] = []
    # What beats a trial comes before it in this order, so that looking at those kept is enough.
    for cost in sorted(costs, key=lambda cost: cost[:3]):
        if not any(_beats(other, cost, latency_noise) for other in kept):
            kept.append(cost)
    return tuple(trial for *_, trial in sorted(kept, key=lambda cost: (cost[1], cost[0], cost[2])))


def _beats(
    one: tuple[float, int, float, Trial], other: tuple[float, int, float, Trial], noise: float
) -> bool:
    better = one[0] < other[0] or one[1] < other[1] or one[2] * (1 + noise) < other[2]
    no_worse = one[0] <= other[0] and one[1] <= other[1] and one[2] <= other[2] * (1 + noise)
    return better and no_worse


def smallest(trials: Sequence[Trial]) -> Trial | None:
    """Of trials within the budget the smallest on disk; of files of one size that over the air; then the fastest."""
    found = [trial for trial in trials if trial.status is TrialStatus.OK and trial.size is not None]
    if not found:
        return None

    def on_disk(trial: Trial) -> int:
        return trial.size.model if trial.size else 0

    def over_the_air(trial: Trial) -> int:
        return trial.size.deflated if trial.size else 0

    for measure in (on_disk, over_the_air):
        least = min(map(measure, found))
        found = [trial for trial in found if measure(trial) <= least * (1 + _SIZE_NOISE)]
    return min(found, key=lambda trial: (_latency(trial), _loss(trial), on_disk(trial), trial.recipe.name))


def smaller(trial: Trial, than: Trial) -> bool:
    """Whether a model is smaller on disk than another by more than nothing; one that is missing is not."""
    return (
        trial.size is not None
        and than.size is not None
        and trial.size.model < than.size.model * (1 - _SIZE_NOISE)
    )


def nearest(trials: Sequence[Trial], goal: Goal) -> Trial | None:
    """The trial with a model that is least beyond its limits, judged by the worst of them; then the smallest."""
    found = [(trial, trial.size.model) for trial in trials if trial.size is not None]
    if not found:
        return None
    return min(found, key=lambda pair: (*goal.excess(pair[0]), pair[1], pair[0].recipe.name))[0]


def _loss(trial: Trial) -> float:
    if trial.drop is not None:
        return trial.drop
    if trial.agreement is not None:
        return 1 - trial.agreement
    # Without noise there is no ratio: the outputs are identical.
    return -inf if trial.snr_db is None else -trial.snr_db


def _latency(trial: Trial) -> float:
    return inf if trial.latency_ms is None else trial.latency_ms
