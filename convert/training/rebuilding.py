"""The source model again, in `tf_keras`, as every part of a training starts from it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from convert.sources.custom_modules import import_custom
from convert.sources.source import Architecture
from convert.training.translator import translate
from edge_runtime.errors import ErrorCode, HybridgeError
from edge_runtime.tensor_spec import Array

__all__ = ["Copy", "rebuild", "rewired"]


@dataclass(frozen=True)
class Copy:
    """A model of `tf_keras` that computes what the source computes.

    Attributes:
        model: Takes and returns lists, in the source's order.
        variables: In the order of the source's weights. They stay the same objects whatever wraps their layers.
    """

    model: Any
    variables: tuple[Any, ...]

    @property
    def weights(self) -> tuple[Array, ...]:
        """Values of the variables."""
        return tuple(variable.numpy() for variable in self.variables)


def rebuild(architecture: Architecture, weights: Sequence[Array]) -> Copy:
    """Builds a copy with these weights.

    Raises:
        HybridgeError: `training-failed`, naming each layer that cannot be carried over; `usage` for a custom module
            that cannot be imported.
    """
    if architecture.library == "keras":
        model, variables = translate(architecture.config)
    else:
        model = _legacy(architecture)
        variables = tuple(model.weights)
    expected = [tuple(variable.shape) for variable in variables]
    received = [tuple(weight.shape) for weight in weights]
    if expected != received:
        at = next(
            (place for place, pair in enumerate(zip(expected, received, strict=False)) if pair[0] != pair[1]),
            min(len(expected), len(received)),
        )
        raise HybridgeError(
            ErrorCode.TRAINING_FAILED,
            "copy of the model for training",
            received=f"{len(received)} weights, {received[at] if at < len(received) else 'none'} in place {at}",
            expected=f"{len(expected)}, {variables[at].name if at < len(expected) else 'none'} there",
            fix="use a recipe that does not train",
        )
    for variable, weight in zip(variables, weights, strict=True):
        variable.assign(np.asarray(weight))
    for layer in _layers(model):
        if type(layer).__name__ == "BatchNormalization":
            # Computes as in inference: with statistics of a batch the copy would not begin as the source, and on data
            # other than what the source was trained on it would never get back there.
            layer.trainable = False
        # What Normalization computes with follows from its weights when it is told so.
        if callable(finalize := getattr(layer, "finalize_state", None)):
            finalize()
    return Copy(model, variables)


def rewired(model: Any, replace: Callable[[Any], Any]) -> Any:
    """The same graph over the same layers, each as `replace` gives it; models inside are gone through too."""
    import tf_keras

    done: dict[int, Any] = {}

    def replaced(layer: Any) -> Any:
        if id(layer) not in done:
            inside = isinstance(layer, tf_keras.Model)
            done[id(layer)] = rewired(layer, replace) if inside else replace(layer)
        return done[id(layer)]

    return tf_keras.models.clone_model(model, clone_function=replaced)


def _legacy(architecture: Architecture) -> Any:
    import tf_keras

    try:
        model = tf_keras.models.model_from_json(
            json.dumps(_trainable(architecture.config)), import_custom(architecture.custom)
        )
    except HybridgeError:
        raise
    except Exception as error:
        # A user's own layers raise what they like.
        raise HybridgeError(
            ErrorCode.TRAINING_FAILED,
            "copy of the model for training",
            received=f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}",
            expected="a model that its configuration builds again",
            fix="name the modules of its own layers (--custom)",
        ) from error
    # Sequential models become functional ones, and structures lists.
    return tf_keras.Model(list(model.inputs), list(model.outputs), name=model.name)


def _trainable(value: Any) -> Any:
    """A configuration of `tf_keras` whose layers train, on batches of any size, without noise."""
    if isinstance(value, list):
        return [_trainable(each) for each in value]
    if not isinstance(value, dict):
        return value
    changed = {key: _trainable(each) for key, each in value.items()}
    for key in ("batch_input_shape", "batch_shape"):
        if isinstance(changed.get(key), list):
            changed[key] = [None, *changed[key][1:]]
    if "trainable" in changed:
        changed["trainable"] = True
    for key in changed:
        if key.endswith(("_regularizer", "_constraint")):
            changed[key] = None
        elif key in ("dropout", "recurrent_dropout") and isinstance(changed[key], int | float):
            changed[key] = 0.0
    if "Dropout" in str(changed.get("class_name")) and "rate" in (changed.get("config") or {}):
        changed["config"]["rate"] = 0.0
    # Keywords of a call: what is trained decides itself whether it trains.
    changed.pop("training", None)
    return changed


def _layers(model: Any) -> Sequence[Any]:
    return tuple(model._flatten_layers(include_self=False))
