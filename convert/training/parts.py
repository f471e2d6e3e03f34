"""The parts of a training in turn: each begins with the weights that the one before left, and keeps what it did."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from convert.recipes import Training
from convert.sources.source import Architecture
from convert.training.clustering import cluster
from convert.training.fitting import Fitting
from convert.training.kernels import Treated, find_kernels
from convert.training.messages import Part
from convert.training.pruning import is_sparse, prune, share_of_zeros, sparsity_of
from convert.training.rebuilding import Copy, rebuild
from convert.training.rounding import train_rounded
from edge_runtime.errors import ErrorCode, HybridgeError
from edge_runtime.tensor_spec import Array

__all__ = ["Tuned", "train_parts"]


@dataclass(frozen=True)
class Tuned:
    """A model after all parts.

    Attributes:
        weights: In the source's order.
        sparsity: Share of zeros in the kernels that were treated.
        skipped: Layers that a part left as they were, and why.
    """

    weights: tuple[Array, ...]
    sparsity: float
    skipped: dict[str, str]


def train_parts(architecture: Architecture, fitting: Fitting, *, weight_bits: int) -> Tuned:
    """Trains each part that the recipe asks for.

    Raises:
        HybridgeError: `training-failed` for a part with nothing to do, or one that does not reach what it promises.
    """
    training = fitting.training
    weights = architecture.weights
    skipped: dict[str, str] = {}
    pruned: Mapping[int, str] = {}
    clustered: Mapping[int, str] = {}
    rounded: Mapping[int, str] = {}

    def begin(part: Part, *, structured: bool = False) -> tuple[Copy, Treated]:
        copy = rebuild(architecture, weights)
        treated = find_kernels(copy, part, skip=training.skip, structured=structured)
        skipped.update({f"{part}: {name}": reason for name, reason in treated.skipped.items()})
        if not treated.places:
            raise _idle(part, treated)
        return copy, treated

    if training.prune is not None:
        copy, treated = begin("prune", structured=training.prune.pattern == "2:4")
        prune(copy, treated, training.prune, fitting)
        weights, pruned = copy.weights, treated.places
    if training.cluster is not None:
        copy, treated = begin("cluster")
        cluster(copy, treated, training.cluster, fitting, pruned=pruned)
        weights, clustered = copy.weights, treated.places
    if training.qat:
        copy, treated = begin("qat")
        train_rounded(copy, treated, fitting, bits=weight_bits, pruned=pruned, clustered=clustered)
        weights, rounded = copy.weights, treated.places
    _check(training, weights, pruned, clustered)
    kernels = [weights[place] for place in (pruned or clustered or rounded)]
    return Tuned(weights, share_of_zeros(kernels), skipped)


def _check(
    training: Training, weights: tuple[Array, ...], pruned: Mapping[int, str], clustered: Mapping[int, str]
) -> None:
    for place, weight in enumerate(weights):
        if weight.dtype.kind == "f" and not np.isfinite(weight).all():
            raise _broken(f"weights in place {place} that are not finite", "finite weights", "lower")
    kernels = [weights[place] for place in pruned]
    if training.prune is not None and not is_sparse(training.prune, kernels):
        raise _broken(f"{share_of_zeros(kernels):.1%} zeros", f"{sparsity_of(training.prune):.1%}", "more")
    for place, name in clustered.items():
        assert training.cluster is not None  # noqa: S101 - it made them
        values = len(np.unique(weights[place]))
        # One more is the zero of pruning.
        if values > training.cluster.clusters + 1:
            raise _broken(
                f"{values} distinct weights in layer '{name}'", f"at most {training.cluster.clusters}", "more"
            )


def _idle(part: Part, treated: Treated) -> HybridgeError:
    reasons = "; ".join(f"layer '{name}': {reason}" for name, reason in treated.skipped.items())
    return HybridgeError(
        ErrorCode.TRAINING_FAILED,
        f"part {part} of the training",
        received=reasons or "a model without kernels",
        expected="a layer that it can treat",
        fix="use a recipe without this part",
    )


def _broken(received: str, expected: str, epochs: str) -> HybridgeError:
    fix = "train longer (--epochs)" if epochs == "more" else "lower the learning rate (--learning-rate)"
    return HybridgeError(
        ErrorCode.TRAINING_FAILED, "trained model", received=received, expected=expected, fix=fix
    )
