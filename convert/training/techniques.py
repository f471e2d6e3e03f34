"""Pruning, clustering and training with rounding in place, in turn, each keeping what the one before did."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from convert.recipes import Pruning, Training
from convert.training.copying import CopiedModel, short_name
from convert.training.fitting import Part, fit
from convert.training.learning import Learning
from convert.training.messages import Epoch, Request
from convert.training.rounding import with_rounding
from edge_runtime.errors import ErrorCode, HybridgeError
from edge_runtime.tensor_spec import Array

__all__ = ["Tuned", "train_parts"]

# Smaller kernels save nothing that a file would show, and a model has little to spare in them.
_SMALLEST_KERNEL = 1024
_PRUNED_KINDS = ("Dense", "Conv1D", "Conv2D", "Conv3D", "SeparableConv2D", "Embedding")
_CLUSTERED_KINDS = ("Dense", "Conv1D", "Conv2D", "Conv3D", "Embedding")
# 2:4 looks along the inputs of a neuron, which come in fours.
_STRUCTURED_KINDS = ("Dense", "Conv2D")
# tfmot updates masks so often in a training.
_MASK_UPDATES = 40
_CLOSE = 0.01
# Rounding only adjusts what is trained already.
_SLOWER = 0.3


@dataclass(frozen=True)
class Tuned:
    """The weights after all parts, in the source's order.

    Attributes:
        weights: Their values.
        sparsity: Share of zeros in all kernels.
        skipped: Layers that a part left as they were, and why.
    """

    weights: list[Array]
    sparsity: float
    skipped: dict[str, str]


@dataclass
class _State:
    """The model as it goes from part to part; `rounded` are its weights after the last one, if that rounds."""

    model: Any
    copied: CopiedModel
    learning: Learning
    request: Request
    report: Callable[[Epoch], None]
    skipped: dict[str, str] = field(default_factory=dict)
    rounded: dict[str, dict[str, Array]] | None = None

    @property
    def training(self) -> Training:
        return self.request.training

    def treated(self, part: str, kinds: tuple[str, ...], *, multiple: int = 1) -> set[str]:
        """Names of the layers that a part treats; notes why others are left out."""
        found = set()
        for layer in self.model.layers:
            reason = self._reason(layer, part, kinds, multiple)
            if reason is None:
                found.add(layer.name)
            elif reason:
                self.skipped[f"{part}: {layer.name}"] = reason
        if not found:
            raise HybridgeError(
                ErrorCode.TRAINING_FAILED,
                part,
                received=f"no layer to {part} ({'; '.join(self.skipped.values()) or 'no layer with weights'})",
                expected=f"a layer of kind {', '.join(kinds)} with {_SMALLEST_KERNEL:,} weights or more",
                fix="use a recipe that does without",
            )
        return found

    def _reason(self, layer: Any, part: str, kinds: tuple[str, ...], multiple: int) -> str | None:
        kernels = [each for each in layer.weights if len(each.shape) >= 2]
        if not kernels:
            return ""
        kind = type(layer).__name__
        if any(re.search(pattern, layer.name) for pattern in self.training.skip):
            return "named by skip"
        if kind not in kinds:
            return f"tfmot does not {part} {kind}"
        largest = max(int(np.prod(each.shape)) for each in kernels)
        if largest < _SMALLEST_KERNEL:
            return f"a kernel of {largest} weights"
        if multiple > 1 and kernels[0].shape[-2] % multiple:
            return f"{kernels[0].shape[-2]} inputs, which {multiple} does not divide"
        return None


def train_parts(
    copied: CopiedModel, learning: Learning, request: Request, *, report: Callable[[Epoch], None]
) -> Tuned:
    """Trains each part that the request asks for.

    Raises:
        HybridgeError: `training-failed` for a part with nothing to do, or one that does not reach what it promises.
    """
    state = _State(copied.model, copied, learning, request, report)
    training = request.training
    pruned = _prune(state, training.prune) if training.prune is not None else set()
    clustered = _cluster(state, sparse=bool(pruned)) if training.cluster is not None else set()
    if training.qat:
        _round(state, pruned, clustered)
    values = state.rounded or _values(state.model)
    weights = [values[layer][weight] for layer, weight in copied.weights]
    _check(state, values, pruned, clustered)
    kernels = [each for each in weights if each.ndim >= 2]
    zeros = sum(int((each == 0).sum()) for each in kernels)
    return Tuned(weights, zeros / max(sum(each.size for each in kernels), 1), state.skipped)


def _prune(state: _State, pruning: Pruning) -> set[str]:
    import tensorflow_model_optimization as tfmot

    sparsity = tfmot.sparsity.keras
    structured = pruning.pattern == "2:4"
    names = state.treated(
        "prune", _STRUCTURED_KINDS if structured else _PRUNED_KINDS, multiple=4 if structured else 1
    )
    steps = state.training.epochs * _steps(state)
    ramp = max(1, round(pruning.ramp * steps))
    frequency = max(1, ramp // _MASK_UPDATES)
    if structured:
        options: dict[str, Any] = {
            "pruning_schedule": sparsity.ConstantSparsity(0.5, begin_step=0, frequency=frequency),
            "sparsity_m_by_n": (2, 4),
        }
    else:
        options = {
            "pruning_schedule": sparsity.PolynomialDecay(
                initial_sparsity=min(pruning.initial_sparsity, pruning.sparsity),
                final_sparsity=pruning.sparsity,
                begin_step=0,
                end_step=ramp,
                frequency=frequency,
            )
        }

    def wrapped(layer: Any) -> Any:
        return sparsity.prune_low_magnitude(layer, **options) if layer.name in names else layer

    model = _cloned(state.model, wrapped)
    part = Part(
        "prune",
        admissible_after=0 if structured else ramp + frequency,
        callbacks=(sparsity.UpdatePruningStep(),),
        sparsity=lambda: _zeros(model, names),
    )
    fit(model, part, state.learning, state.request, report=state.report)
    state.model = sparsity.strip_pruning(model)
    return names


def _cluster(state: _State, *, sparse: bool) -> set[str]:
    import tensorflow_model_optimization as tfmot
    from tensorflow_model_optimization.python.core.clustering.keras.experimental import cluster

    names = state.treated("cluster", _CLUSTERED_KINDS)
    assert state.training.cluster is not None  # noqa: S101 - asked by the caller
    options = {
        "number_of_clusters": state.training.cluster.clusters,
        "cluster_centroids_init": tfmot.clustering.keras.CentroidInitialization.KMEANS_PLUS_PLUS,
        "preserve_sparsity": sparse,
    }

    def wrapped(layer: Any) -> Any:
        return cluster.cluster_weights(layer, **options) if layer.name in names else layer

    model = _cloned(state.model, wrapped)
    part = Part("cluster", sparsity=lambda: _zeros(model, names))
    fit(model, part, state.learning, state.request, report=state.report)
    state.model = tfmot.clustering.keras.strip_clustering(model)
    return names


def _round(state: _State, pruned: set[str], clustered: set[str]) -> None:
    before = _values(state.model)
    model, skipped = with_rounding(
        state.model,
        bits=state.request.weight_bits,
        skip=state.training.skip,
        sparse=bool(pruned),
        clustered=clustered,
    )
    state.skipped.update({f"qat: {name}": why for name, why in skipped.items()})
    # The schemes keep zeros by masks of their own, which the weights do not show before the end.
    zeros = _zeros(state.model, pruned)
    part = Part("qat", sparsity=lambda: zeros, slower=_SLOWER)
    fit(model, part, state.learning, state.request, report=state.report)
    if clustered:
        from tensorflow_model_optimization.python.core.quantization.keras.collab_opts.cluster_preserve import (
            cluster_utils,
        )

        model = cluster_utils.strip_clustering_cqat(model)
    after = _values(model)
    for name in pruned:
        for key, values in after[name].items():
            if values.ndim >= 2:
                # The scheme multiplies by the mask in the forward pass; what is kept must have it too.
                values *= before[name][key] != 0
    state.rounded = after


def _check(
    state: _State, values: Mapping[str, Mapping[str, Array]], pruned: set[str], clustered: set[str]
) -> None:
    training = state.training
    for name in pruned | clustered:
        for kernel in (each for each in values[name].values() if each.ndim >= 2):
            zeros = float((kernel == 0).mean())
            wanted = 0.0
            if name in pruned and training.prune is not None:
                wanted = 0.5 if training.prune.pattern == "2:4" else training.prune.sparsity
            if zeros < wanted - _CLOSE:
                raise _broken(f"{zeros:.1%} zeros in layer '{name}'", f"{wanted:.1%}")
            distinct = len(np.unique(kernel))
            limit = training.cluster.clusters + 1 if training.cluster is not None else 0
            if name in clustered and distinct > limit:
                raise _broken(f"{distinct} distinct weights in layer '{name}'", f"at most {limit}")


def _cloned(model: Any, wrap: Callable[[Any], Any]) -> Any:
    import tf_keras

    # Wrappers take the very layers that they are given apart: they get fresh ones.
    fresh = tf_keras.models.clone_model(model)
    fresh.set_weights(model.get_weights())
    return tf_keras.models.clone_model(fresh, clone_function=wrap)


def _steps(state: _State) -> int:
    from convert.training.fitting import steps_per_epoch

    return steps_per_epoch(len(state.learning.learned), state.training.batch_size)


def _values(model: Any) -> dict[str, dict[str, Array]]:
    """Weights by the name of their layer, seen through wrappers, and by their own short name."""
    found: dict[str, dict[str, Array]] = {}
    for layer in model.layers:
        inner = getattr(layer, "layer", None) if _is_wrapper(layer) else None
        name = layer.name if inner is None else inner.name
        found[name] = {short_name(weight): np.array(weight.numpy()) for weight in layer.weights}
    return found


def _is_wrapper(layer: Any) -> bool:
    return type(layer).__name__ in (
        "QuantizeWrapperV2",
        "QuantizeWrapper",
        "PruneLowMagnitude",
        "ClusterWeights",
    )


def _zeros(model: Any, names: set[str]) -> float:
    kernels = [
        weight.numpy()
        for layer in model.layers
        if (layer.layer.name if _is_wrapper(layer) else layer.name) in names
        for weight in layer.weights
        if short_name(weight) in ("kernel", "depthwise_kernel", "pointwise_kernel", "embeddings")
    ]
    total = sum(kernel.size for kernel in kernels)
    return sum(int((kernel == 0).sum()) for kernel in kernels) / total if total else 0.0


def _broken(received: str, expected: str) -> HybridgeError:
    return HybridgeError(
        ErrorCode.TRAINING_FAILED,
        "trained model",
        received=received,
        expected=expected,
        fix="train for more epochs (--epochs)",
    )
