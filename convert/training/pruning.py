"""Pruning: weights of small magnitude become zero while the rest learns to do without them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from convert.recipes import Pruning, Training
from convert.training.fitting import Fitting, steps_per_epoch
from convert.training.kernels import Treated, kernels_of, layers_of
from convert.training.rebuilding import Copy, rewired
from edge_runtime.tensor_spec import Array

__all__ = ["allocate", "is_sparse", "keep_zeros", "prune", "share_of_zeros", "sparsity_of"]

# How far from the wanted share of zeros a kernel may end.
_CLOSE = 0.01
# How often the mask changes on the way.
_UPDATES = 30


def prune(copy: Copy, treated: Treated, pruning: Pruning, fitting: Fitting) -> None:
    """Trains the copy in place; its kernels end with the zeros that were asked for."""
    import tensorflow_model_optimization as tfmot

    layers = {
        identity: kernels_of(layer, treated.attributes[identity])
        for _, layer in layers_of(copy.model)
        if (identity := id(layer)) in treated.attributes
    }
    shares = dict(zip(layers, allocate(pruning, [_values(each) for each in layers.values()]), strict=True))
    ramp = _ramp(pruning, fitting)

    def wrapped(layer: Any) -> Any:
        attributes = treated.attributes.get(id(layer))
        if attributes is None:
            return layer
        # What tfmot asks a layer of one's own for; so each kind of layer is pruned in the same way.
        layer.get_prunable_weights = lambda: layers[id(layer)]
        options = _options(tfmot.sparsity.keras, pruning, shares[id(layer)], ramp)
        return tfmot.sparsity.keras.prune_low_magnitude(layer, **options)

    kernels = [copy.variables[place] for place in treated.places]
    fitting.fit(
        rewired(copy.model, wrapped),
        "prune",
        sparsity=lambda: share_of_zeros([kernel.numpy() for kernel in kernels]),
        admissible=lambda: is_sparse(pruning, [kernel.numpy() for kernel in kernels]),
        callbacks=(tfmot.sparsity.keras.UpdatePruningStep(),),
    )


def sparsity_of(pruning: Pruning) -> float:
    """Share of zeros at the end."""
    return 0.5 if pruning.pattern == "2:4" else pruning.sparsity


def is_sparse(pruning: Pruning, kernels: Sequence[Array]) -> bool:
    """Whether kernels have the zeros that were asked for; few weights cannot be split exactly."""
    total = sum(kernel.size for kernel in kernels)
    return share_of_zeros(kernels) >= sparsity_of(pruning) - max(_CLOSE, len(kernels) / max(total, 1))


def allocate(pruning: Pruning, layers: Sequence[Array]) -> list[float]:
    """The share of zeros of each layer, so that all together have the pruning's.

    A weight's score is its square over those of its layer that are no smaller, itself included: its part of what is
    left once the smaller ones are gone. The weights of the lowest scores go, wherever they are (Lee et al., 2021).

    Args:
        pruning: What is asked for.
        layers: The weights of each, flat.
    """
    if pruning.pattern == "2:4" or pruning.allocation == "uniform":
        return [sparsity_of(pruning)] * len(layers)
    scores = []
    for weights in layers:
        squares = np.sort(np.square(weights.astype(np.float64)))
        left = np.cumsum(squares[::-1])[::-1]
        scores.append(squares / np.maximum(left, np.finfo(np.float64).tiny))
    ordered = np.sort(np.concatenate(scores))
    threshold = ordered[min(round(pruning.sparsity * len(ordered)), len(ordered) - 1)]
    return [float((each < threshold).mean()) for each in scores]


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


def share_of_zeros(arrays: Sequence[Array]) -> float:
    """Of all their values."""
    total = sum(array.size for array in arrays)
    return 1.0 - sum(int(np.count_nonzero(array)) for array in arrays) / total if total else 0.0


def _ramp(pruning: Pruning, fitting: Fitting) -> int:
    training: Training = fitting.training
    return max(1, round(pruning.ramp * training.epochs * steps_per_epoch(fitting.samples, training)))


def _values(kernels: Sequence[Any]) -> Array:
    return np.concatenate([kernel.numpy().reshape(-1) for kernel in kernels])


def _options(sparsity: Any, pruning: Pruning, share: float, ramp: int) -> dict[str, Any]:
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
            initial_sparsity=min(pruning.initial_sparsity, share),
            final_sparsity=share,
            begin_step=1,
            end_step=1 + updates * frequency,
            frequency=frequency,
        )
    }
