"""What a copy learns from and is judged by: inputs, the source's outputs on them, and labels where there are any."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from convert.training.messages import Request, read_arrays
from edge_runtime.errors import ErrorCode, HybridgeError
from edge_runtime.tensor_spec import Array

__all__ = ["Samples"]

_HELD_BACK, _MOST_HELD_BACK = 0.1, 5000
# Of these a copy must compute what the source does.
_COMPARED = 32
_CLOSE = 1e-4
_BATCH = 256


@dataclass(frozen=True)
class Samples:
    """Samples, split into those to learn from and those to judge by.

    Attributes:
        inputs: For each input, in the model's order, an array of shape (samples, ...).
        targets: For each output the source's values.
        labels: Index of the true class for each sample, if known and of use.
        scores: Name of the output with class scores.
        learned: Indices of the samples to learn from, in random order.
        held_back: Indices of those to judge by.
    """

    inputs: Mapping[str, Array]
    targets: Mapping[str, Array]
    labels: Array | None
    scores: str | None
    learned: Array
    held_back: Array

    @classmethod
    def read(cls, folder: Path, request: Request) -> Samples:
        """What the conversion wrote.

        Raises:
            HybridgeError: `training-failed` for too few samples, or labels that are no classes.
        """
        inputs = dict(zip(request.inputs, read_arrays(folder, "inputs"), strict=True))
        targets = dict(zip(request.outputs, read_arrays(folder, "targets"), strict=True))
        labels = read_arrays(folder, "labels")
        count = len(next(iter(inputs.values())))
        if count < 2:
            raise _refused(f"{count} samples", "some thousand, or at the very least 2")
        order = np.random.default_rng(request.training.seed).permutation(count)
        held = min(max(1, round(_HELD_BACK * count)), _MOST_HELD_BACK)
        classes = None
        if labels and request.scores is not None:
            classes = np.asarray(labels[0]).astype(np.int32)
            limit = targets[request.scores].shape[-1]
            if classes.shape != (count,) or classes.min() < 0 or classes.max() >= limit:
                raise _refused(
                    f"labels of shape {classes.shape} from {classes.min()} to {classes.max()}",
                    f"one of 0 to {limit - 1} for each of {count} samples",
                )
        return cls(inputs, targets, classes, request.scores, order[held:], order[:held])

    def check_copy(self, model: Any) -> None:
        """Refuses a copy that computes something else than the source.

        Raises:
            HybridgeError: `training-failed`.
        """
        index = np.sort(self.held_back[:_COMPARED])
        received = self.predict(model, index)
        for (name, target), output in zip(self.targets.items(), received, strict=True):
            expected = np.asarray(target[index])
            error = float("inf")
            if output.shape == expected.shape:
                # Where an output hardly varies, what it is itself measures an error.
                span = float(max(np.ptp(expected), np.abs(expected).max())) or 1.0
                difference = np.abs(output.astype(np.float64) - expected.astype(np.float64))
                error = float(difference.max(initial=0.0)) / span
            # Not `error > _CLOSE`, which is false for NaN.
            if not error <= _CLOSE:
                raise HybridgeError(
                    ErrorCode.TRAINING_FAILED,
                    f"output '{name}' of the copy for training",
                    received=f"an error of {error:.2g} of the source's range, shape {output.shape}",
                    expected=f"at most {_CLOSE:g}, shape {expected.shape}, before anything is trained",
                    fix="use a recipe that does not train",
                )

    def predict(self, model: Any, index: Array) -> list[Array]:
        """What a model computes of these samples, in inference."""
        inputs = [
            np.asarray(each[index], tensor.dtype.as_numpy_dtype)
            for each, tensor in zip(self.inputs.values(), model.inputs, strict=True)
        ]
        outputs = model.predict(inputs, batch_size=_BATCH, verbose=0)
        return [np.asarray(each) for each in (outputs if isinstance(outputs, list) else [outputs])]

    def quality(self, outputs: list[Array]) -> float | None:
        """Share of the samples held back whose class is right, or the source's where there are no labels.

        Args:
            outputs: Of the samples held back.
        """
        if self.scores is None:
            return None
        predicted = outputs[list(self.targets).index(self.scores)].argmax(-1)
        return float((predicted == self._truth).mean())

    @cached_property
    def source_quality(self) -> float | None:
        """The same of the source: one where it is itself the measure."""
        return None if self.scores is None else float((self._source_classes == self._truth).mean())

    @property
    def _source_classes(self) -> Array:
        assert self.scores is not None  # noqa: S101 - asked by the callers
        classes: Array = self.targets[self.scores][self.held_back].argmax(-1)
        return classes

    @cached_property
    def _truth(self) -> Array:
        return self._source_classes if self.labels is None else self.labels[self.held_back]


def _refused(received: str, expected: str) -> HybridgeError:
    return HybridgeError(
        ErrorCode.TRAINING_FAILED,
        "samples to train on",
        received=received,
        expected=expected,
        fix="give other training data (training=, or --train data.npz)",
    )
