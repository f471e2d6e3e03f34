"""Training on the device: a trainable model's signatures behind arrays, with nothing but the device runtime."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from edge_runtime.errors import ErrorCode, HybridgeError
from edge_runtime.interpreter import load_interpreter
from federated.samples import Features, Labels, Samples

__all__ = ["Evaluation", "Trainer", "Weights"]

Weights: TypeAlias = dict[str, npt.NDArray[np.float32]]

_SIGNATURES = ("get_weights", "infer", "set_weights", "train")


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Mean loss and top-1 accuracy over `samples` samples."""

    loss: float
    accuracy: float
    samples: int


class Trainer:
    """A trainable model, loaded and ready to train and to infer; not safe from many threads.

    Args:
        content: The bytes that `make_trainable` gave.
        num_threads: Threads that one invocation may use.

    Attributes:
        batch_size: Rows that the model takes at once; more or fewer are split and padded here.
        input_shape: Shape of one sample.
        classes: Number of classes.

    Raises:
        HybridgeError: `model-invalid` for bytes that are no trainable model.

    Example:
        >>> trainer = Trainer(content)
        >>> trainer.train_epoch(x, y, learning_rate=0.1, rng=np.random.default_rng(0)).loss
        2.31
        >>> trainer.infer(x).shape
        (1200, 10)
    """

    def __init__(self, content: bytes, *, num_threads: int = 1):
        interpreter = load_interpreter(content, num_threads=num_threads, name="trainable model")
        signatures = interpreter.get_signature_list()
        if sorted(signatures) != list(_SIGNATURES):
            raise HybridgeError(
                ErrorCode.MODEL_INVALID,
                "trainable model",
                received=f"signatures {', '.join(sorted(signatures)) or 'none'}",
                expected=", ".join(_SIGNATURES),
                fix="make it with federated.make_trainable",
            )
        # The variables belong to the interpreter, so all signatures must be of one. A live runner makes
        # Interpreter.invoke raise; nothing here calls it.
        self._train, self._infer, self._get, self._set = (
            interpreter.get_signature_runner(key) for key in ("train", "infer", "get_weights", "set_weights")
        )
        shape = [int(size) for size in self._train.get_input_details()["x"]["shape"]]
        self.batch_size = shape[0]
        self.input_shape = tuple(shape[1:])
        self.classes = int(self._infer.get_output_details()["logits"]["shape"][-1])

    def get_weights(self) -> Weights:
        """The current weights, copied, by name."""
        weights: Weights = self._get()
        return weights

    def set_weights(self, weights: Mapping[str, npt.NDArray[np.float32]]) -> None:
        """Replaces all weights.

        Raises:
            HybridgeError: `data-invalid` when names, shapes or types are not those that `get_weights` gives; the
                weights are then unchanged.
        """
        expected = {
            name: (tuple(int(size) for size in detail["shape"]), np.dtype(detail["dtype"]))
            for name, detail in self._set.get_input_details().items()
        }
        received = {name: (array.shape, array.dtype) for name, array in weights.items()}
        if received != expected:
            raise HybridgeError(
                ErrorCode.DATA_INVALID,
                "weights",
                received=_described(received),
                expected=_described(expected),
            )
        self._set(**{name: np.ascontiguousarray(array) for name, array in weights.items()})

    def train_epoch(
        self, x: Features, y: Labels, *, learning_rate: float, rng: np.random.Generator
    ) -> Evaluation:
        """Takes one step of gradient descent a batch, over all samples once, in an order drawn from `rng`.

        Args:
            x: Inputs of shape (samples, *input_shape), float32.
            y: Class labels of shape (samples,), in 0..classes-1.
            learning_rate: Step size, above 0.
            rng: Source of the order.

        Returns:
            Loss and accuracy while training, each batch measured before its step.

        Raises:
            HybridgeError: `data-invalid` for samples that do not fit, or for training that diverged.
        """
        samples = self._checked(x, y)[rng.permutation(len(y))]
        loss = accuracy = 0.0
        for rows, valid in _batches(len(samples), self.batch_size):
            result = self._train(
                x=samples.x[rows],
                y=samples.y[rows],
                sample_weight=(np.arange(self.batch_size) < valid).astype(np.float32),
                learning_rate=np.float32(learning_rate),
            )
            loss += float(result["loss"]) * valid
            accuracy += float(result["accuracy"]) * valid
        if not np.isfinite(loss):
            raise HybridgeError(
                ErrorCode.DATA_INVALID,
                f"training with learning rate {learning_rate:g}",
                received=f"a loss of {loss}",
                expected="a finite loss",
                fix="lower the learning rate, or scale the inputs",
            )
        return Evaluation(loss / len(samples), accuracy / len(samples), len(samples))

    def infer(self, x: Features) -> npt.NDArray[np.float32]:
        """Class probabilities of shape (samples, classes) for inputs of shape (samples, *input_shape)."""
        return self._outputs(self._checked_inputs(x), "probabilities")

    def evaluate(self, x: Features, y: Labels) -> Evaluation:
        """Loss and accuracy of the current weights; arguments and errors as of `train_epoch`."""
        samples = self._checked(x, y)
        logits = self._outputs(samples.x, "logits").astype(np.float64)
        top = logits.max(axis=1)
        losses = (
            top + np.log(np.exp(logits - top[:, None]).sum(axis=1)) - logits[np.arange(len(y)), samples.y]
        )
        hits = logits.argmax(axis=1) == samples.y
        return Evaluation(float(losses.mean()), float(hits.mean()), len(samples))

    def _outputs(self, x: Features, name: str) -> npt.NDArray[np.float32]:
        parts = [self._infer(x=x[rows])[name][:valid] for rows, valid in _batches(len(x), self.batch_size)]
        return np.concatenate(parts) if parts else np.empty((0, self.classes), np.float32)

    def _checked_inputs(self, x: Features) -> Features:
        # The runner would resize its tensors to whatever it is given, and compute nonsense.
        if x.dtype != np.float32 or x.shape[1:] != self.input_shape:
            raise HybridgeError(
                ErrorCode.DATA_INVALID,
                "inputs of a trainable model",
                received=f"{x.dtype} of shape {x.shape}",
                expected=f"float32 of shape (samples, {', '.join(map(str, self.input_shape))})",
            )
        return x

    def _checked(self, x: Features, y: Labels) -> Samples:
        labels: npt.NDArray[Any] = np.asarray(y)
        # Out of range, the loss would silently be that of no class at all.
        if not np.issubdtype(labels.dtype, np.integer) or (
            labels.size and not (labels.min() >= 0 and labels.max() < self.classes)
        ):
            received = f"{labels.dtype}" + (f" in {labels.min()}..{labels.max()}" if labels.size else "")
            raise HybridgeError(
                ErrorCode.DATA_INVALID,
                "labels of a trainable model",
                received=received,
                expected=f"integers in 0..{self.classes - 1}",
            )
        return Samples(self._checked_inputs(x), labels.astype(np.int32))


def _batches(samples: int, batch_size: int) -> Iterator[tuple[npt.NDArray[np.int64], int]]:
    """Rows of each batch, and how many of them count: the last batch is padded with its own first row."""
    for start in range(0, samples, batch_size):
        rows = np.arange(start, start + batch_size)
        valid = min(batch_size, samples - start)
        rows[valid:] = start
        yield rows, valid


def _described(weights: Mapping[str, tuple[tuple[int, ...], np.dtype[Any]]]) -> str:
    return (
        ", ".join(f"{name} {dtype}{list(shape)}" for name, (shape, dtype) in sorted(weights.items()))
        or "none"
    )
