"""What a copy learns, and how well: the source's outputs, the labels where there are any, on samples kept apart."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from convert.training.messages import Request, read_arrays
from edge_runtime.errors import ErrorCode, HybridgeError
from edge_runtime.tensor_spec import Array

__all__ = ["Learning"]

# Softens the teacher's scores so that the order among wrong classes is seen (Hinton et al., 2015).
_TEMPERATURE = 2.0
# Weight of the labels beside the teacher.
_LABELS = 0.5
_HELD_BACK, _MOST_HELD_BACK = 0.1, 5000
_COMPARED = 32
_CLOSE = 1e-3
_BATCH = 256
_TINY = 1e-7


@dataclass(frozen=True)
class Learning:
    """Samples to learn from and to judge by.

    Attributes:
        names: Of the outputs.
        inputs: For each input an array of shape (samples, ...).
        targets: For each output the source's values.
        labels: Index of the true class for each sample, if known.
        scores: Place of the output with class scores.
        learned: Indices of the samples to learn from.
        held_back: Indices of those to judge by.
        seed: Of the order.
    """

    names: tuple[str, ...]
    inputs: tuple[Array, ...]
    targets: tuple[Array, ...]
    labels: Array | None
    scores: int | None
    learned: Array
    held_back: Array
    seed: int

    @classmethod
    def from_folder(cls, request: Request, folder: Path) -> Learning:
        """Reads what `fine_tune` wrote."""
        inputs, targets = read_arrays(folder, "inputs"), read_arrays(folder, "targets")
        labels = read_arrays(folder, "labels")
        samples = len(inputs[0])
        order = np.random.default_rng(request.training.seed).permutation(samples)
        held = min(max(1, round(_HELD_BACK * samples)), _MOST_HELD_BACK)
        if samples < 2:
            raise HybridgeError(
                ErrorCode.TRAINING_FAILED,
                "samples to train on",
                received=str(samples),
                expected="some thousand",
                fix="give more (--train)",
            )
        return cls(
            names=request.outputs,
            inputs=tuple(inputs),
            targets=tuple(np.asarray(each, np.float32) for each in targets),
            labels=np.asarray(labels[0]).astype(np.int32) if labels else None,
            scores=None if request.scores is None else request.outputs.index(request.scores),
            learned=np.sort(order[held:]),
            held_back=np.sort(order[:held]),
            seed=request.training.seed,
        )

    def check_copy(self, model: Any) -> None:
        """Refuses a copy that computes something else than the source.

        Raises:
            HybridgeError: `training-failed`.
        """
        index = self.held_back[:_COMPARED]
        for name, expected, received in zip(
            self.names, self._targets_of(index), self._predicted(model, index), strict=True
        ):
            span = float(np.ptp(expected)) or 1.0
            error = float("inf")
            if received.shape == expected.shape:
                error = float(np.abs(received - expected).max()) / span
            # Not `error > _CLOSE`, which is false for a NaN.
            if not error <= _CLOSE:
                raise HybridgeError(
                    ErrorCode.TRAINING_FAILED,
                    f"output '{name}' of the copy for training",
                    received=f"an error of {error:.2g} of the source's range",
                    expected=f"at most {_CLOSE:g}, before anything is trained",
                    fix="use a recipe that does not train",
                )

    def quality(self, model: Any) -> float | None:
        """Share of samples held back whose class is right, or the source's where there are no labels."""
        if self.scores is None:
            return None
        predicted = self._predicted(model, self.held_back)[self.scores].argmax(-1)
        return float((predicted == self._truth).mean())

    @property
    def source_quality(self) -> float | None:
        """The same of the source: one where it is itself the measure."""
        if self.scores is None:
            return None
        return float((self._targets_of(self.held_back)[self.scores].argmax(-1) == self._truth).mean())

    @property
    def _truth(self) -> Array:
        if self.labels is not None:
            return self.labels[self.held_back]
        assert self.scores is not None  # noqa: S101 - asked by both callers
        truth: Array = self._targets_of(self.held_back)[self.scores].argmax(-1)
        return truth

    def loss_held_back(self, model: Any) -> float:
        """Mean square error of all outputs over their variance, on the samples held back."""
        errors = [
            float(np.square(received - expected).mean()) / (float(expected.var()) or 1.0)
            for received, expected in zip(
                self._predicted(model, self.held_back), self._targets_of(self.held_back), strict=True
            )
        ]
        return float(np.mean(errors))

    def batches(self, size: int) -> Any:
        """An endless `tf.data` stream of (inputs, targets) in random order."""
        import tensorflow as tf

        inputs = [tf.constant(np.asarray(each)[self.learned]) for each in self.inputs]
        targets = [tf.constant(each) for each in self._aims()]

        def gather(index: Any) -> Any:
            taken = tuple(tf.gather(each, index) for each in inputs)
            aims = tuple(tf.gather(each, index) for each in targets)
            return (taken if len(taken) > 1 else taken[0]), (aims if len(aims) > 1 else aims[0])

        count = len(self.learned)
        indices = tf.data.Dataset.range(count).shuffle(count, seed=self.seed).repeat()
        return indices.batch(size, drop_remainder=True).map(gather).prefetch(2)

    def losses(self) -> list[Callable[[Any, Any], Any]]:
        """The loss of each output."""
        return [
            self._class_loss() if place == self.scores else _value_loss(float(target.var()) or 1.0)
            for place, target in enumerate(self.targets)
        ]

    def _aims(self) -> list[Array]:
        # The label travels in front of the teacher's scores: a loss sees one tensor an output.
        aims = self._targets_of(self.learned)
        if self.labels is not None and self.scores is not None:
            labels = self.labels[self.learned][:, np.newaxis].astype(np.float32)
            aims[self.scores] = np.concatenate([labels, aims[self.scores]], axis=1)
        return aims

    def _class_loss(self) -> Callable[[Any, Any], Any]:
        import tensorflow as tf

        assert self.scores is not None  # noqa: S101 - asked by the caller
        scores = self.targets[self.scores]
        probable = bool((scores >= 0).all() and np.allclose(scores.sum(-1), 1.0, atol=1e-3))
        labelled = self.labels is not None

        def logits(values: Any) -> Any:
            return tf.math.log(values + _TINY) if probable else values

        def loss(aim: Any, predicted: Any) -> Any:
            own = logits(predicted)
            teacher = logits(aim[:, 1:] if labelled else aim)
            soft = tf.nn.softmax_cross_entropy_with_logits(
                tf.nn.softmax(teacher / _TEMPERATURE), own / _TEMPERATURE
            ) * (_TEMPERATURE**2)
            if not labelled:
                return soft
            hard = tf.nn.sparse_softmax_cross_entropy_with_logits(tf.cast(aim[:, 0], tf.int32), own)
            return _LABELS * hard + (1 - _LABELS) * soft

        return loss

    def _targets_of(self, index: Array) -> list[Array]:
        return [each[index] for each in self.targets]

    def _predicted(self, model: Any, index: Array) -> list[Array]:
        inputs = [np.asarray(each[index]) for each in self.inputs]
        outputs = model.predict(inputs if len(inputs) > 1 else inputs[0], batch_size=_BATCH, verbose=0)
        listed = outputs if isinstance(outputs, list | tuple) else [outputs]
        return [np.asarray(each) for each in listed]


def _value_loss(variance: float) -> Callable[[Any, Any], Any]:
    import tensorflow as tf

    def loss(aim: Any, predicted: Any) -> Any:
        return tf.reduce_mean(tf.square(tf.cast(predicted, tf.float32) - aim)) / variance

    return loss
