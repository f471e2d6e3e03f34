"""What a copy is to learn, as losses: the source's outputs, and the labels where there are any."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from convert.training.samples import Samples
from edge_runtime.errors import ErrorCode, HybridgeError
from edge_runtime.tensor_spec import Array

__all__ = ["Objective"]

# Softens scores so that the order among wrong classes is seen (Hinton et al., 2015).
_TEMPERATURE = 2.0
# How much labels count beside the source.
_LABELS = 0.5
_TINY = 1e-7


class Objective:
    """Aims and losses of each output that can be learned.

    The output with class scores learns the source's softened scores, by their Kullback-Leibler divergence, and the
    labels; any other output of floats learns the source's values, by their mean square error over their variance.

    Args:
        samples: What is learned from.

    Raises:
        HybridgeError: `training-failed` for a model without an output of floats.
    """

    def __init__(self, samples: Samples):
        self._samples = samples
        self.aims: list[Array] = []
        self.losses: list[Callable[[Any, Any], Any]] = []
        if not any(target.dtype.kind == "f" for target in samples.targets.values()):
            raise HybridgeError(
                ErrorCode.TRAINING_FAILED,
                "outputs of the model",
                received=", ".join(f"'{name}' {each.dtype}" for name, each in samples.targets.items()),
                expected="one of floats, which training can move",
                fix="use a recipe that does not train",
            )
        for name, target in samples.targets.items():
            values = np.asarray(target)
            if name == samples.scores:
                aim, loss = self._classes(values)
            elif values.dtype.kind == "f":
                aim, loss = values, _value_loss(float(values.var()) or 1.0)
            else:
                # A class index or the like: nothing to follow downhill.
                aim, loss = np.zeros(len(values), np.float32), _no_loss
            self.aims.append(aim)
            self.losses.append(loss)

    def of(self, index: Array, outputs: list[Array]) -> float:
        """The loss of these outputs for these samples."""
        return float(
            sum(
                np.mean(np.asarray(loss(aim[index], output)))
                for aim, loss, output in zip(self.aims, self.losses, outputs, strict=True)
            )
        )

    def _classes(self, scores: Array) -> tuple[Array, Callable[[Any, Any], Any]]:
        import tensorflow as tf

        probable = bool((scores >= 0).all() and np.allclose(scores.sum(-1), 1.0, atol=1e-3))
        logits = np.log(scores + _TINY) if probable else scores
        softened = np.exp((logits - logits.max(-1, keepdims=True)) / _TEMPERATURE)
        softened /= softened.sum(-1, keepdims=True)
        # Both aims of a sample travel as one array: a loss sees one an output.
        labels = self._samples.labels
        hard = softened if labels is None else np.eye(scores.shape[-1])[labels]
        classes = scores.shape[-1]

        def loss(aim: Any, predicted: Any) -> Any:
            own = tf.math.log(predicted + _TINY) if probable else predicted
            soft = tf.nn.softmax_cross_entropy_with_logits(aim[..., :classes], own / _TEMPERATURE)
            soft *= _TEMPERATURE**2
            if labels is None:
                return soft
            hard = tf.nn.softmax_cross_entropy_with_logits(aim[..., classes:], own)
            return _LABELS * hard + (1 - _LABELS) * soft

        return np.concatenate([softened, hard], axis=-1).astype(np.float32), loss


def _value_loss(variance: float) -> Callable[[Any, Any], Any]:
    import tensorflow as tf

    def loss(aim: Any, predicted: Any) -> Any:
        return tf.reduce_mean(tf.square(tf.cast(predicted, tf.float32) - tf.cast(aim, tf.float32))) / variance

    return loss


def _no_loss(_aim: Any, predicted: Any) -> Any:
    import tensorflow as tf

    return 0.0 * tf.reduce_sum(tf.cast(predicted, tf.float32))
