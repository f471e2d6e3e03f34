"""Pruning: weights of small magnitude become zero while the rest learns to do without them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from convert.recipes import Pruning, Training
from convert.training.fitting import Fitting, steps_per_epoch
from convert.training.kernels import Treated, kernels_of
from convert.training.rebuilding import Copy, rewired
from edge_runtime.tensor_spec import Array

__all__ = ["keep_zeros", "prune", "share_of_zeros", "sparsity_of", "tolerance"]

# How far from the wanted share of zeros a kernel may end.
_CLOSE = 0.01
# How often the mask changes on the way.
_UPDATES = 30


def prune(copy: Copy, treated: Treated, pruning: Pruning, fitting: Fitting) -> None:
    """Trains the copy in place; its kernels end with the zeros that were asked for."""
    import tensorflow_model_optimization as tfmot

    options = _options(tfmot.sparsity.keras, pruning, _ramp(pruning, fitting))

    def wrapped(layer: Any) -> Any:
        attributes = treated.attributes.get(id(layer))
        if attributes is None:
            return layer
        # What tfmot asks a layer of one's own for; so each kind of layer is pruned in the same way.
        layer.get_prunable_weights = lambda: kernels_of(layer, attributes)
        return tfmot.sparsity.keras.prune_low_magnitude(layer, **options)

    wanted = sparsity_of(pruning)
    kernels = [copy.variables[place] for place in treated.places]
    fitting.fit(
        rewired(copy.model, wrapped),
        "prune",
        sparsity=lambda: share_of_zeros([kernel.numpy() for kernel in kernels]),
        admissible=lambda: all(
            share_of_zeros([value]) >= wanted - tolerance(value)
            for value in (kernel.numpy() for kernel in kernels)
        ),
        callbacks=(tfmot.sparsity.keras.UpdatePruningStep(),),
    )


def sparsity_of(pruning: Pruning) -> float:
    """Share of zeros at the end."""
    return 0.5 if pruning.pattern == "2:4" else pruning.sparsity


def tolerance(kernel: Array) -> float:
    """How far from the wanted share of zeros it may be: few weights cannot be split exactly."""
    return max(_CLOSE, 1.0 / max(kernel.size, 1))


def keep_zeros(copy: Copy, places: Sequence[int]) -> tuple[Any, ...]:
    """Callbacks by which these kernels, which a later part does not wrap, keep their zeros."""
    import tensorflow as tf
    import tf_keras

    if not places:
        return ()
    masks = [(copy.variables[place], tf.not_equal(copy.variables[place], 0.0)) for place in places]

    @tf.function  # type: ignore[untyped-decorator]
    def apply() -> None:
        for variable, mask in masks:
            variable.assign(tf.where(mask, variable, 0.0))

    return (tf_keras.callbacks.LambdaCallback(on_train_batch_end=lambda _batch, _logs: apply()),)


def share_of_zeros(arrays: list[Array]) -> float:
    """Of all their values."""
    total = sum(array.size for array in arrays)
    return 1.0 - sum(int(np.count_nonzero(array)) for array in arrays) / total if total else 0.0


def _ramp(pruning: Pruning, fitting: Fitting) -> int:
    training: Training = fitting.training
    return max(1, round(pruning.ramp * training.epochs * steps_per_epoch(fitting.samples, training)))


def _options(sparsity: Any, pruning: Pruning, ramp: int) -> dict[str, Any]:
    if pruning.pattern == "2:4":
        # One mask, made before the first step.
        return {
            "pruning_schedule": sparsity.ConstantSparsity(0.5, begin_step=0, frequency=1),
            "sparsity_m_by_n": (2, 4),
        }
    frequency = max(1, ramp // _UPDATES)
    # Step 1 is the first at which tfmot looks; the last update must fall on the end, or the end is never reached.
    updates = max(1, (ramp - 1) // frequency)
    return {
        "pruning_schedule": sparsity.PolynomialDecay(
            initial_sparsity=min(pruning.initial_sparsity, pruning.sparsity),
            final_sparsity=pruning.sparsity,
            begin_step=1,
            end_step=1 + updates * frequency,
            frequency=frequency,
        )
    }
