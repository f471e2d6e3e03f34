"""Confidence: one number in 0..1 for a prediction, from a named score of an output.

Scores are functions of class probabilities, which are the softmax of logits over a temperature (Guo et al., "On
Calibration of Modern Neural Networks", ICML 2017). Maximum softmax probability is the baseline that Hendrycks and
Gimpel ("A Baseline for Detecting Misclassified and Out-of-Distribution Examples", ICLR 2017) set.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from edge_runtime.errors import ErrorCode, HybridgeError
from edge_runtime.tensor_spec import Array

if TYPE_CHECKING:
    from edge_runtime.manifest import Confidence

__all__ = ["SCORES", "Scorer", "probabilities"]


def _max_softmax(rows: Array) -> Array:
    top: Array = rows.max(axis=-1)
    return top


def _margin(rows: Array) -> Array:
    if rows.shape[-1] < 2:
        return _max_softmax(rows)
    largest = np.partition(rows, -2, axis=-1)
    margin: Array = largest[..., -1] - largest[..., -2]
    return margin


def _entropy(rows: Array) -> Array:
    surprise = -np.sum(rows * np.log(np.maximum(rows, np.finfo(np.float32).tiny)), axis=-1)
    certainty: Array = 1.0 - surprise / np.log(max(rows.shape[-1], 2))
    return certainty


def _sequence_mean(rows: Array) -> Array:
    mean: Array = rows.max(axis=-1).mean(axis=-1)
    return mean


def _ctc(rows: Array) -> Array:
    best = rows.argmax(axis=-1)
    kept = best != 0
    kept[..., 1:] &= best[..., 1:] != best[..., :-1]
    read = kept.sum(axis=-1)
    mean: Array = np.where(kept, rows.max(axis=-1), 0).sum(axis=-1) / np.maximum(read, 1)
    return mean


# Each takes probabilities of shape (..., classes) and gives one number a row; the last one a sequence.
SCORES: Mapping[str, Callable[[Array], Array]] = {
    "max-softmax": _max_softmax,
    "margin": _margin,
    "entropy": _entropy,
    "sequence-mean": _sequence_mean,
    "ctc": _ctc,
}


def probabilities(output: Array, *, activation: str = "none", temperature: float = 1.0) -> Array:
    """Class probabilities of an output, float32 of the same shape, along the last axis.

    Args:
        output: Logits, or probabilities when `activation` is ``"softmax"``.
        activation: What the model's last layer already applied: ``"none"`` or ``"softmax"``.
        temperature: What logits are divided by; above one makes every prediction less sure.
    """
    if activation == "softmax":
        if temperature == 1.0:
            return output
        # Probabilities are logits up to a constant, once through the logarithm.
        output = np.log(np.maximum(output, np.finfo(np.float32).tiny))
    scaled = output.astype(np.float32) if temperature == 1.0 else output / np.float32(temperature)
    exponents: Array = np.exp(scaled - scaled.max(axis=-1, keepdims=True))
    exponents /= exponents.sum(axis=-1, keepdims=True)
    return exponents


class Scorer:
    """Reads confidence and class from the outputs of a model, as its manifest says.

    Args:
        spec: Output, score, activation and temperature.
        outputs: Names that the model's outputs have.

    Raises:
        HybridgeError: `confidence-invalid` for a score or output that does not exist.

    Example:
        >>> Scorer(Confidence(output="logits"), ("logits",)).confidence({"logits": np.array([[4.0, 0.0]])})
        0.9820137619972229
    """

    def __init__(self, spec: Confidence, outputs: tuple[str, ...]):
        for what, received, known in (
            ("score", spec.score, tuple(SCORES)),
            ("output", spec.output, outputs),
            ("activation", spec.activation, ("none", "softmax")),
        ):
            if received not in known:
                raise HybridgeError(
                    ErrorCode.CONFIDENCE_INVALID,
                    f"confidence {what}",
                    received=f"'{received}'",
                    expected=f"one of {', '.join(known)}",
                )
        self.spec = spec
        self._score = SCORES[spec.score]

    def confidence(self, outputs: Mapping[str, Array]) -> float:
        """How sure the outputs are, in 0..1; of several rows the least sure, and 0 for outputs that are not finite."""
        output = outputs[self.spec.output]
        if not np.isfinite(output).all():
            return 0.0
        rows = probabilities(output, activation=self.spec.activation, temperature=self.spec.temperature)
        return min(max(float(self._score(rows).min()), 0.0), 1.0)

    def top(self, outputs: Mapping[str, Array]) -> int | None:
        """Index of the most likely class, or None when the output has more than one row."""
        output = outputs[self.spec.output]
        return int(output.argmax()) if output.size == output.shape[-1] else None
