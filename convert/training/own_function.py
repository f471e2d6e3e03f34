"""Training by a function of the user's own, in place of the built-in loop."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from convert.training.messages import Part
from edge_runtime.errors import ErrorCode, HybridgeError
from edge_runtime.tensor_spec import Array

__all__ = ["TrainingData", "train_with"]


@dataclass(frozen=True)
class TrainingData:
    """What a function of the user's own is given beside the model.

    Attributes:
        part: What the model is wrapped for: ``prune``, ``cluster`` or ``qat``; the function is called for each in turn.
        inputs: For each input an array of shape (samples, ...), in the model's order.
        targets: The source model's outputs on them, in the model's order.
        labels: Index of the true class for each sample, if known.
        epochs: Passes that the recipe allows; pruning is paced for these.
        steps_per_epoch: Steps of one of them.
        batch_size: Samples a step.
        learning_rate: The first one.
        callbacks: To hand to `model.fit`: pruning happens in them, and the best epoch is kept by them.

    Example:
        >>> def train(model, data):
        ...     model.compile("adam", tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        ...     model.fit(list(data.inputs.values()), data.labels, batch_size=data.batch_size, epochs=data.epochs,
        ...               steps_per_epoch=data.steps_per_epoch, callbacks=list(data.callbacks), verbose=0)
    """

    part: Part
    inputs: Mapping[str, Array]
    targets: Mapping[str, Array]
    labels: Array | None
    epochs: int
    steps_per_epoch: int
    batch_size: int
    learning_rate: float
    callbacks: tuple[Any, ...]


def train_with(function: str, model: Any, data: TrainingData) -> None:
    """Calls ``module:function`` with a `tf_keras` model, which it compiles and fits in place.

    Raises:
        HybridgeError: `training-failed` for a function that is not there, raises, or returns something.
    """
    module, _, name = function.partition(":")
    # As for modules of a user's own layers: what lies in the current directory can be named.
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        returned = getattr(import_module(module), name)(model, data)
    except HybridgeError:
        raise
    except Exception as error:
        # The user's code raises what it likes.
        raise _failed(function, f"{type(error).__name__}: {str(error).strip()[:500]}") from error
    if returned is not None:
        raise _failed(function, f"a function that returns {type(returned).__name__}")


def _failed(function: str, received: str) -> HybridgeError:
    return HybridgeError(
        ErrorCode.TRAINING_FAILED,
        f"training function '{function}'",
        received=received,
        expected="a function that takes a tf_keras model and TrainingData, fits the model in place and returns nothing",
        fix="pass data.callbacks to model.fit, and run the function in Python on its own",
    )
