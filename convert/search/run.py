"""One search under way: what was tried, what is known of it, and the time that is left."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from convert.progress import Progress
from convert.recipes import Recipe, Training
from convert.search.clock import SearchClock
from convert.search.front import pareto_front, smallest
from convert.search.goal import Goal
from convert.search.runner import TrialRunner
from convert.search.space import SearchSpace
from convert.search.store import TrialStore, trial_key
from convert.search.trial import Trial, TrialStatus
from edge_runtime.errors import ErrorCode, HybridgeError
from edge_runtime.latency import measure_in_turn, measure_latency

__all__ = ["SearchRun"]


class SearchRun:
    """One search under way: runs trials, keeps them, and knows which are good.

    Attributes:
        space: What may be tried.
        goal: The limits.
        clock: The time.
        slots: How many trials run at once.
        notes: What a reader must know of what was not tried.
    """

    def __init__(
        self,
        space: SearchSpace,
        goal: Goal,
        runner: TrialRunner,
        store: TrialStore,
        *,
        context: str,
        clock: SearchClock,
        progress: Callable[[str], None],
    ):
        self.space = space
        self.goal = goal
        self.clock = clock
        self.slots = runner.slots
        self.notes: list[str] = []
        self._runner = runner
        self._store = store
        self._context = context
        self._progress = progress
        self._trials: dict[str, Trial] = {}
        self._planned: set[str] = set()
        self._untried: list[str] = []
        self._compared: set[str] = set()
        self._untrainable: set[Training] = set()

    @property
    def trials(self) -> tuple[Trial, ...]:
        """Those that ended, in order."""
        return tuple(self._trials.values())

    @property
    def best(self) -> Trial | None:
        """The smallest within the budget so far."""
        return smallest(self.trials)

    def run(self, recipes: Sequence[Recipe]) -> list[Trial]:
        """Tries recipes, those for which there is time; an earlier search's trials cost none."""
        keys = {recipe: self._key(recipe) for recipe in recipes}
        self._planned.update(keys.values())
        known = {recipe: self._store.get(key, recipe) for recipe, key in keys.items()}
        ended = [self._judged(self._measured(trial)) for trial in known.values() if trial is not None]
        todo = [recipe for recipe, trial in known.items() if trial is None]
        made: list[Trial] = []
        for attempt in self._runner.run(todo, self._may_start):
            self.clock.learn(attempt.recipe, attempt.seconds)
            failure, training = attempt.failure, attempt.recipe.training
            if failure is not None and failure.code is ErrorCode.TRAINING_FAILED and training is not None:
                self._untrainable.add(training)
            trial = self._store.put(keys[attempt.recipe], attempt)
            made.append(trial)
            if self.slots == 1:
                ended.append(self._judged(self._measured(trial)))
        if self.slots > 1:
            # Trials side by side would slow each other's measurements down.
            ended += [self._judged(self._measured(trial)) for trial in made]
        begun = {trial.recipe for trial in made}
        self._untried += [
            recipe.name for recipe in todo if recipe not in begun and recipe.training not in self._untrainable
        ]
        return ended

    def knows(self, recipe: Recipe) -> bool:
        """Whether it was tried before, in this search or an earlier one."""
        return self._store.holds(self._key(recipe))

    def leave_out(self, recipe: Recipe) -> None:
        """Takes note of a recipe for which there was no time."""
        self._untried.append(recipe.name)

    @property
    def front(self) -> tuple[Trial, ...]:
        """The Pareto front; where latencies were compared in turn, of those trials alone."""
        compared = [trial for trial in self.trials if trial.key in self._compared]
        return pareto_front(compared or self.trials)

    def compare(self) -> None:
        """Measures the latency of the best again, in turn, so that it can be compared; as often as time allows."""
        rivals = {trial.key: trial for trial in (*pareto_front(self.trials), self.best) if trial is not None}
        settled = {trial.key for trial in self.trials if self._store.compared(trial)}
        if settled and all(trial.cached for trial in self.trials):
            # An earlier search has; measuring it again would only make another bundle of it.
            self._compared = settled
            return
        paths = {
            self._store.path(key): trial for key, trial in rivals.items() if trial.latency_ms is not None
        }
        rounds = self.clock.rounds_for(len(paths))
        if len(paths) < 2 or rounds < 2:
            return
        self._progress(f"measuring the latency of the {len(paths)} best in turn")
        try:
            for path, probes in measure_in_turn(paths, rounds=rounds).items():
                self._judged(self._store.put_latency(paths[path], probes, compared=True), shown=False)
        except HybridgeError as error:
            # Each was measured before, alone; a search of minutes does not end with nothing for this.
            self.notes.append(f"latencies were not compared in turn: {error.message}")
            return
        self._compared = set(rivals)

    def remarks(self) -> tuple[str, ...]:
        """The notes, with what there was no time for."""
        untried = list(dict.fromkeys(self._untried))
        late = (
            [f"no time was left for {', '.join(untried)}; allow more (--search-minutes)"] if untried else []
        )
        assumed = [self.goal.assumed] if self.goal.assumed else []
        return (*assumed, *self.notes, *late)

    def _may_start(self, recipe: Recipe) -> bool:
        # Another ending does not make a training work.
        allowed = recipe.training not in self._untrainable and self.clock.allows(recipe)
        if allowed:
            self._progress(f"trying {recipe.name}")
        return allowed

    def _key(self, recipe: Recipe) -> str:
        return trial_key(self._context, recipe, max_drop=self.goal.budget.max_drop)

    def _measured(self, trial: Trial) -> Trial:
        if trial.failure is not None or trial.latency_ms is not None:
            return trial
        try:
            # Few runs at least, as a large model takes long; a small one runs thousands of times.
            probes = measure_latency(self._store.path(trial.key), runs=5, warmup=2, min_seconds=0.3)
            return self._store.put_latency(trial, probes, compared=False)
        except HybridgeError as error:
            if error.code is ErrorCode.FILE_UNWRITABLE:
                raise
            self._progress(f"{trial.recipe.name}: latency unknown: {error.message}")
            return trial

    def _judged(self, trial: Trial, *, shown: bool = True) -> Trial:
        judged = replace(trial, misses=self.goal.misses(trial))
        self._trials[trial.key] = judged
        if shown:
            self._progress(_line(judged))
            self._advance()
        return judged

    def _advance(self) -> None:
        if isinstance(self._progress, Progress):
            self._progress.advance(len(self._trials), len(self._planned), "trials")


def _line(trial: Trial) -> str:
    name = trial.recipe.name
    if trial.size is None:
        return f"{name}: failed: {trial.failure.message if trial.failure else ''}"
    figures = [f"{trial.size.model:,} bytes"]
    if trial.drop is not None:
        figures.append(f"drop {trial.drop:+.4f}")
    elif trial.agreement is not None:
        figures.append(f"agreement {trial.agreement:.4f}")
    if trial.latency_ms is not None:
        figures.append(f"{trial.latency_ms:.3f} ms")
    figures.append("kept from before" if trial.cached else f"{trial.seconds:.1f} s")
    verdict = "" if trial.status is TrialStatus.OK else ", out of budget"
    return f"{name}: {', '.join(figures)}{verdict}"
