"""What is tried without training: each stage looks at the trials before it and skips what cannot improve on them."""

from __future__ import annotations

from convert.recipes import Calibration, Method, Precision
from convert.search.front import smaller
from convert.search.run import SearchRun
from convert.search.trial import Trial
from edge_runtime.errors import HybridgeError

__all__ = ["promising", "try_methods", "try_mixed", "try_precisions"]

# Beyond so many times the loss that is allowed, on top of it, a better choice of scales will not help.
_NEAR = 5.0
# Bases of mixed precision that are looked into, the smallest first.
_BASES = 2
# Of the time that is left, for ranking the layers of one of them.
_RANKING_SHARE = 0.3
_EIGHT_BITS = (Precision.INT8, Precision.DYNAMIC_INT8, Precision.WEIGHT_ONLY_INT8)
_UNROUNDED = (Precision.FLOAT32, Precision.FLOAT16)


def promising(run: SearchRun) -> list[Trial]:
    """Plain precisions that lose too much and would be smaller than the best, the smallest first."""
    plain = {run.space.plain(precision) for precision in run.space.precisions()}
    found = [
        (trial.size.model, trial)
        for trial in run.trials
        if trial.recipe in plain
        and trial.size is not None
        and trial.recipe.quantization.precision not in _UNROUNDED
        and not run.goal.keeps_quality(trial)
        and (run.best is None or smaller(trial, run.best))
    ]
    return [trial for _, trial in sorted(found, key=lambda pair: pair[0])]


def try_precisions(run: SearchRun) -> None:
    """Every precision that the data allows, alone."""
    precisions = run.space.precisions()
    tried = run.run([run.space.plain(each) for each in precisions if each is not Precision.INT16X8])
    # No smaller than the other forms of eight bits and many times as slow, it is for models that none of them suits.
    eight_bits = [trial for trial in tried if trial.recipe.name in _EIGHT_BITS]
    if Precision.INT16X8 in precisions and not any(map(run.goal.keeps_quality, eight_bits)):
        run.run([run.space.plain(Precision.INT16X8)])
    if not run.space.representative:
        run.notes.append("int8 and int16x8 were not tried: no representative data (--representative)")


def try_methods(run: SearchRun) -> None:
    """Other choices of scales for precisions that nearly keep the limits."""
    for trial in promising(run):
        if run.goal.quality.excess(trial)[0] > _NEAR:
            continue
        precision = trial.recipe.quantization.precision
        recipes = [
            run.space.with_method(precision, method)
            for method in (Method.OCTAV, Method.GPTQ, Method.OSCAR, Method.MSE)
            if method is not precision.usual_method
            and (run.space.representative or not method.needs_representative)
        ]
        if precision.needs_representative:
            recipes.insert(0, run.space.with_calibration(precision, Calibration.MSE))
        for start in range(0, len(recipes), run.slots):
            tried = run.run(recipes[start : start + run.slots])
            if any(map(run.goal.keeps_quality, tried)):
                return  # those that follow are larger
            if not tried:
                return  # no time


def try_mixed(run: SearchRun) -> None:
    """Mixed precision: as few of the most sensitive layers spared as the limits allow, found by bisection."""
    layers = run.space.layers
    if layers is None:
        return
    for trial in promising(run)[:_BASES]:
        precision = trial.recipe.quantization.precision
        if run.best is not None and not smaller(trial, run.best):
            return  # the base before was enough
        try:
            count = layers.count(precision, seconds=_RANKING_SHARE * run.clock.remaining)
        except HybridgeError as error:
            run.notes.append(f"the layers could not be ranked for {precision}: {error.message}")
            continue
        if count is None:
            run.notes.append(
                f"no time was left to rank the layers for {precision}; allow more (--search-minutes)"
            )
            return
        if not _bisect(run, _best_of(run, precision), count):
            return


def _bisect(run: SearchRun, base: Trial, layers: int) -> bool:
    """Looks for the fewest layers to spare; returns whether there was time to."""
    best, least, most = run.best, 1, layers - 1
    while least <= most:
        keep = (least + most) // 2
        tried = run.run([run.space.mixed(base.recipe, keep)])
        if not tried:
            return False
        (trial,) = tried
        # Sparing more layers makes the model larger still.
        too_large = best is not None and trial.size is not None and not smaller(trial, best)
        if too_large or run.goal.keeps_quality(trial):
            most = keep - 1
        else:
            least = keep + 1
    return True


def _best_of(run: SearchRun, precision: Precision) -> Trial:
    """The trial that loses least among those of one precision, whatever the choice of scales."""
    plain = run.space.plain(precision)
    found = [
        trial
        for trial in run.trials
        if trial.size is not None
        and trial.recipe.training is None
        and trial.recipe.quantization.precision is precision
        and trial.recipe.quantization.rules == plain.quantization.rules
    ]
    return min(found, key=lambda trial: run.goal.quality.excess(trial))
