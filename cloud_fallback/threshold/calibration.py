"""The temperature that makes a model's confidence the chance that it is right."""

from __future__ import annotations

import math

import numpy as np

from edge_runtime.confidence import probabilities
from edge_runtime.errors import ErrorCode, HybridgeError
from edge_runtime.tensor_spec import Array

__all__ = ["calibrate"]

_LOWEST, _HIGHEST = 0.02, 50.0
_TRIED = 25
_GOLDEN = (math.sqrt(5) - 1) / 2
# A mistake counts as one of a million to one at most: a quantised softmax has zeros, whose logarithm says nothing.
_LEAST = 1e-6


def calibrate(outputs: Array, labels: Array, *, activation: str = "none") -> float | None:
    """The temperature at which the true classes are likeliest.

    Temperature scaling (Guo et al., "On Calibration of Modern Neural Networks", ICML 2017): the mean negative
    log-likelihood has one minimum over the inverse of the temperature, which a golden-section search finds. As no
    mistake counts for more than one of a million to one, low temperatures may have a minimum of their own: the search
    is around the best of a few.

    Args:
        outputs: Scores of shape (examples, classes).
        labels: True classes, integers of shape (examples,).
        activation: ``"none"`` for logits, ``"softmax"`` for probabilities.

    Returns:
        The temperature, to four digits; None where the examples do not say: all of them right or nearly so, or no
        better than chance, the likeliest one is as low or as high as may be.

    Raises:
        HybridgeError: `data-invalid` for no examples, lengths that differ, or labels of classes that there are not.
    """
    if outputs.ndim != 2 or labels.shape != outputs.shape[:1] or not labels.size:
        raise _invalid(
            f"scores of shape {outputs.shape} and labels of shape {labels.shape}",
            "shapes (examples, classes) and (examples,)",
        )
    if labels.min() < 0 or labels.max() >= outputs.shape[1]:
        raise _invalid(
            f"labels from {labels.min()} to {labels.max()}", f"classes from 0 to {outputs.shape[1] - 1}"
        )
    rows = np.arange(len(labels))

    def loss(logarithm: float) -> float:
        likely = probabilities(outputs, activation=activation, temperature=math.exp(logarithm))[rows, labels]
        return -float(np.log(np.maximum(likely, _LEAST), dtype=np.float64).mean())

    # Equal losses are those of examples that no low temperature tells apart: the lower end is where they are.
    tried = np.linspace(math.log(_LOWEST), math.log(_HIGHEST), _TRIED)
    best = int(np.argmin([loss(each) for each in tried]))
    low, high = float(tried[max(best - 1, 0)]), float(tried[min(best + 1, _TRIED - 1)])
    inner, outer = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
    inner_loss, outer_loss = loss(inner), loss(outer)
    while high - low > 1e-5:
        if inner_loss <= outer_loss:
            high, outer, outer_loss = outer, inner, inner_loss
            inner = high - _GOLDEN * (high - low)
            inner_loss = loss(inner)
        else:
            low, inner, inner_loss = inner, outer, outer_loss
            outer = low + _GOLDEN * (high - low)
            outer_loss = loss(outer)
    temperature = math.exp((low + high) / 2)
    if not 1.01 * _LOWEST < temperature < _HIGHEST / 1.01:
        return None
    return float(f"{temperature:.4g}")


def _invalid(received: str, expected: str) -> HybridgeError:
    return HybridgeError(ErrorCode.DATA_INVALID, "data to calibrate on", received=received, expected=expected)
