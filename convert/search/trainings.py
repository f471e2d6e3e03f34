"""What is tried with training: pruning as far as the limits allow, rounding in training, values that are shared.

Zeros make a file smaller where weights are stored sparse, which those that kernels read as int8 cannot be. There they
make it lighter over the air, as shared values do everywhere.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from convert.recipes import Precision, Recipe
from convert.search.front import smaller
from convert.search.run import SearchRun
from convert.search.stages import promising
from convert.search.trial import Trial

__all__ = ["try_trainings"]

# Shares of weights to prune: what usually works first, then more or less of it.
_SPARSITIES = (0.8, 0.9, 0.7, 0.95, 0.5, 0.975)
# A training may take so much of the time that is left; else it gets fewer epochs.
_SHARE = 0.4
_ROUNDED_IN_TRAINING = (Precision.INT8, Precision.INT4)

_Choice: TypeAlias = Callable[[int], list[Recipe]]


def try_trainings(run: SearchRun) -> None:
    """Fine-tuning, each kind where it can improve on the best, as long as there is time."""
    if not run.space.trainable:
        run.notes.append(
            "nothing was trained: no samples to train on (--train), or a source that cannot be trained"
        )
        return
    sparsity = _prune(run)
    if sparsity is None:
        run.notes.append("no other training was tried, as pruning failed")
        return
    for precision in dict.fromkeys(trial.recipe.quantization.precision for trial in promising(run)):
        if precision in _ROUNDED_IN_TRAINING:
            _train(run, _recipes(run, (precision,), qat=True))
    _lighten(run, sparsity)


def _prune(run: SearchRun) -> float | None:
    """Prunes as far as the limits allow.

    Returns:
        The largest share of zeros that keeps them, 0 if none does, None when this model cannot be trained.
    """
    endings = _endings(run)
    dense = run.best
    kept, too_much = 0.0, 1.0
    while between := [share for share in _SPARSITIES if kept < share < too_much]:
        wanted = between[: run.slots]
        tried = _train(run, *(_recipes(run, endings, sparsity=share) for share in wanted))
        if tried and all(trial.failure is not None for trial in tried):
            return None
        for share in sorted({_sparsity(trial) for trial in tried}):
            if any(run.goal.keeps_quality(trial) for trial in tried if _sparsity(trial) == share):
                kept = max(kept, share)
            else:
                too_much = min(too_much, share)
        in_vain = dense is not None and not any(smaller(trial, dense) for trial in tried)
        if not tried or (kept and in_vain):
            break  # no time, or zeros that do not make the file smaller
    return kept


def _endings(run: SearchRun) -> tuple[Precision, ...]:
    """What may follow pruning: the form that is stored sparse, and the smallest that runs in int8.

    Both come from one training.
    """
    found = [
        (trial.size.model, trial.recipe.quantization.precision)
        for trial in run.trials
        if trial.size is not None
        and trial.recipe.name in (Precision.INT8, Precision.DYNAMIC_INT8)
        and run.goal.keeps_quality(trial)
    ]
    return (Precision.WEIGHT_ONLY_INT8, *(precision for _, precision in sorted(found)[:1]))


def _lighten(run: SearchRun, sparsity: float) -> None:
    """Makes the best lighter over the air, which decides between files of one size: zeros, then shared values."""
    best = run.best
    if best is None:
        return
    ending = best.recipe.quantization.precision
    training = best.recipe.training
    pruned = sparsity if training is None else _sparsity(best)
    if training is None and pruned:
        _train(run, _recipes(run, (ending,), sparsity=pruned))
    qat = ending in _ROUNDED_IN_TRAINING
    _train(run, _recipes(run, (ending,), sparsity=pruned or None, clusters=True, qat=qat))


def _sparsity(trial: Trial) -> float:
    training = trial.recipe.training
    return training.prune.sparsity if training is not None and training.prune is not None else 0.0


def _recipes(
    run: SearchRun,
    endings: tuple[Precision, ...],
    *,
    sparsity: float | None = None,
    clusters: bool = False,
    qat: bool = False,
) -> _Choice:
    """The recipes of one training with its endings, by epochs."""
    return lambda epochs: [
        run.space.trained(ending, sparsity=sparsity, clusters=clusters, qat=qat, epochs=epochs)
        for ending in endings
    ]


def _train(run: SearchRun, *choices: _Choice) -> list[Trial]:
    """Tries trainings, each with as many epochs as there is time for."""
    recipes = [recipe for choice in choices for recipe in _affordable(run, choice)]
    return run.run(recipes) if recipes else []


def _affordable(run: SearchRun, choice: _Choice) -> list[Recipe]:
    full = run.space.training.epochs
    choices = [choice(epochs) for epochs in sorted({full, -(-full // 2), 1}, reverse=True)]
    # What an earlier search had time for costs none now.
    for recipes in choices:
        if run.knows(recipes[0]):
            return recipes
    for recipes in choices:
        if run.clock.estimate(recipes[0]) <= _SHARE * run.clock.remaining:
            return recipes
    if run.clock.allows(choices[-1][0]):
        return choices[-1]
    run.leave_out(choices[0][0])
    return []
