"""Training by a function of the user's own, in place of the built-in loop."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from edge_runtime.errors import ErrorCode, HybridgeError
from edge_runtime.tensor_spec import Array

__all__ = ["TrainingData", "train_with"]


@dataclass(frozen=True)
class TrainingData:
    """What a function of the user's own is given beside the model.

    Attributes:
        inputs: For each input an array of shape (samples, ...).
        targets: The source model's outputs on them.
        labels: Index of the true class for each sample, if known.
        epochs: Passes that the recipe allows.
        batch_size: Samples a step, as the recipe says.
        learning_rate: The first one, as the recipe says.
        callbacks: To hand to `model.fit`: pruning happens in them.
    """

    inputs: Mapping[str, Array]
    targets: Mapping[str, Array]
    labels: Array | None
    epochs: int
    batch_size: int
    learning_rate: float
    callbacks: tuple[Any, ...]


def train_with(function: str, model: Any, data: TrainingData) -> None:
    """Calls ``module:function`` with a `tf_keras` model, which it compiles and fits in place.

    Raises:
        HybridgeError: `training-failed` for a function that is not there or raises.
    """
    module, _, name = function.partition(":")
    try:
        found = getattr(import_module(module), name)
        found(model, data)
    except Exception as error:
        # The user's code raises what it likes.
        raise HybridgeError(
            ErrorCode.TRAINING_FAILED,
            f"training function '{function}'",
            received=f"{type(error).__name__}: {error}",
            expected="a function that takes a tf_keras model and TrainingData, and fits the model in place",
            fix="run it in Python on its own",
        ) from error
