"""The search: stages of trials, cheap ones first, until the time is up; then the smallest model within the budget."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from convert.budget import Budget
from convert.search.clock import SearchClock
from convert.search.front import nearest
from convert.search.goal import Goal, goal_of
from convert.search.run import SearchRun
from convert.search.runner import TrialRunner
from convert.search.space import SearchSpace
from convert.search.stages import try_methods, try_mixed, try_precisions
from convert.search.store import TrialStore
from convert.search.trainings import try_trainings
from convert.search.trial import Trial
from edge_runtime.bundle import Bundle
from edge_runtime.errors import ErrorCode, HybridgeError

__all__ = ["SearchResult", "search"]

_STAGES = (try_precisions, try_methods, try_mixed, try_trainings)


@dataclass(frozen=True, kw_only=True)
class SearchResult:
    """What a search found.

    Attributes:
        trials: Everything that was tried, in order.
        front: The trials that no other beats in what they lose, size on disk and latency together, smallest first.
        chosen: The smallest within the budget, if any is.
        nearest: The one least beyond it; the chosen one where there is one, and None when no trial made a model.
        misses: What the nearest has out of budget, a phrase each.
        goal: The limits, with those that were assumed.
        notes: What else a reader must know, such as what there was no time for; a sentence each.
        seconds: How long the search took.
        bundle: Of the nearest, and so of the chosen one.
    """

    trials: tuple[Trial, ...]
    front: tuple[Trial, ...]
    chosen: Trial | None
    nearest: Trial | None
    misses: tuple[str, ...]
    goal: Goal
    notes: tuple[str, ...]
    seconds: float
    bundle: Bundle | None = field(default=None, repr=False)

    def refusal(self) -> HybridgeError:
        """The error to raise when nothing was chosen: `budget-missed`, or why no trial made a model."""
        failures = [trial.failure for trial in self.trials if trial.failure is not None]
        if self.nearest is None and failures:
            first = failures[0]
            return HybridgeError(
                first.code, f"search: none of {len(failures)} recipes made a model; {first.message}"
            )
        if self.nearest is None:
            return HybridgeError(
                ErrorCode.BUDGET_MISSED,
                "search",
                received="no time for a single trial",
                expected="some minutes",
                fix="allow more (--search-minutes)",
            )
        return HybridgeError(
            ErrorCode.BUDGET_MISSED,
            f"search: of {len(self.trials)} recipes the nearest is '{self.nearest.recipe.name}'",
            received=", ".join(self.misses),
            expected="a model within the budget",
            fix="allow more, give more time (--search-minutes) or training data (--train), "
            f"or take it with --recipe {self.nearest.recipe.name}",
        )


def search(
    runner: TrialRunner,
    space: SearchSpace,
    budget: Budget,
    *,
    store: TrialStore,
    context: str,
    deadline_s: float | None = None,
    progress: Callable[[str], None] | None = None,
) -> SearchResult:
    """Tries recipes and picks the smallest within a budget.

    Args:
        runner: Tries recipes.
        space: What may be tried.
        budget: What the model may cost; without a limit on quality one is assumed.
        store: Where trials are kept.
        context: Digest of everything beside the recipe that shapes a bundle.
        deadline_s: Seconds that the search may take; a trial that cannot end by then is not begun.
        progress: Called with a line of text before and after each trial.

    Raises:
        HybridgeError: `file-unwritable` when trials cannot be kept. What goes wrong in a trial is its outcome.
    """
    start = time.monotonic()
    goal = goal_of(budget, labelled=space.labelled, classes=space.classes)
    report = progress or (lambda _: None)
    if goal.assumed:
        report(goal.assumed)
    clock = SearchClock(deadline_s, space.training_seconds)
    run = SearchRun(space, goal, runner, store, context=context, clock=clock, progress=report)
    for stage in _STAGES:
        stage(run)
        if not any(trial.size for trial in run.trials):
            break  # what no precision converts, no training will
    run.compare()
    chosen = run.best
    closest = chosen or nearest(run.trials, goal)
    return SearchResult(
        trials=run.trials,
        front=run.front,
        chosen=chosen,
        nearest=closest,
        misses=() if closest is None else closest.misses,
        goal=goal,
        notes=run.remarks(),
        seconds=time.monotonic() - start,
        bundle=None if closest is None else store.bundle(closest),
    )
