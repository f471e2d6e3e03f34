"""A layer of Keras 3 as a layer of `tf_keras`, from its configuration."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import numpy as np

from convert.training.activations import activation

__all__ = ["NotCarriedError", "make_layer"]

# Values are given, and what is learned are the source's outputs.
_UNUSED_ENDS = ("_initializer", "_regularizer", "_constraint")
# Settings without effect on what a layer computes.
_UNUSED = frozenset(
    {"seed", "synchronized", "quantization_config", "use_cudnn", "flash_attention", "autocast"}
)
# Values that say what is so without the setting.
_NEUTRAL: tuple[Any, ...] = (None, False, 0, "auto", "channels_last", [], {})
# The same setting under another name.
_RENAMED = {"LeakyReLU": {"negative_slope": "alpha"}}
# Noise: it would hide from the small model what the source knows, and the source gave its outputs without it.
_NOISE = ("Dropout", "SpatialDropout", "AlphaDropout", "Gaussian", "Random")
# Read from keywords that no signature shows.
_ALSO = {name: {"zero_output_for_mask"} for name in ("RNN", "LSTM", "GRU", "SimpleRNN")}
_NOISE_SETTINGS = ("dropout", "recurrent_dropout")
_ACTIVATIONS = ("activation", "recurrent_activation")


class NotCarriedError(Exception):
    """Why a layer cannot be carried over, in a few words; never leaves the room."""


def make_layer(serialized: Mapping[str, Any]) -> Any:
    """The layer, new and not yet built, with its own name.

    Args:
        serialized: As `keras.saving.serialize_keras_object` gives it.

    Raises:
        NotCarriedError: For a class or a setting that `tf_keras` does not have.
    """
    import tf_keras

    name = str(serialized["class_name"])
    config = dict(serialized["config"])
    if not str(serialized.get("module") or "").startswith("keras.layers"):
        raise NotCarriedError(f"{serialized.get('registered_name') or name}, a class of its own")
    if name.startswith(_NOISE):
        return tf_keras.layers.Activation("linear", name=config["name"])
    kind = getattr(tf_keras.layers, name, None)
    if kind is None:
        raise NotCarriedError(f"{name}, which tf_keras does not have")
    if config.get("stateful"):
        raise NotCarriedError(f"{name} that keeps its state from batch to batch")
    try:
        return kind(**_settings(kind, {**config, "trainable": True}, _RENAMED.get(name, {})))
    except NotCarriedError as error:
        raise NotCarriedError(f"{name} with {error}") from error
    except Exception as error:
        # Constructors raise what they like for values that they do not know.
        raise NotCarriedError(f"{name}: {_first_line(error)}") from error


def _settings(kind: Any, config: Mapping[str, Any], renamed: Mapping[str, str]) -> dict[str, Any]:
    accepted = _accepted(kind) | _ALSO.get(kind.__name__, set())
    settings: dict[str, Any] = {}
    for key, value in config.items():
        if key.endswith(_UNUSED_ENDS) or key == "activity_regularizer":
            continue
        key = renamed.get(key, key)
        if key in accepted:
            settings[key] = _setting(key, value)
        elif key not in _UNUSED and value not in _NEUTRAL:
            raise NotCarriedError(f"{key}={value!r}, which tf_keras does not have")
    return settings


def _setting(key: str, value: Any) -> Any:
    if key in _NOISE_SETTINGS and isinstance(value, int | float):
        return 0.0
    if key in _ACTIVATIONS:
        if isinstance(value, Mapping):
            raise NotCarriedError(f"the function {value.get('registered_name') or value.get('config')}")
        return activation(value) if isinstance(value, str) else value
    return _plain(value)


def _plain(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if not isinstance(value, Mapping):
        return value
    kind = value.get("class_name")
    if kind == "DTypePolicy":
        return value["config"]["name"]
    if kind == "__tuple__":
        return tuple(_plain(each) for each in value["items"])
    if kind in ("__numpy__", "__tensor__"):
        return np.asarray(value["config"]["value"], value["config"]["dtype"])
    if str(value.get("module") or "").startswith("keras.layers"):
        return make_layer(value)
    if kind is not None:
        raise NotCarriedError(
            f"a {kind} of its own" if kind.startswith("__") else str(value.get("registered_name") or kind)
        )
    return {key: _plain(each) for key, each in value.items()}


def _accepted(kind: Any) -> set[str]:
    """What its constructor takes; keywords that it hands on are those of the classes below."""
    names = {"name", "trainable", "dtype"}
    for each in inspect.getmro(kind):
        if each.__name__ == "Layer":
            break
        if "__init__" in vars(each):
            parameters = inspect.signature(vars(each)["__init__"]).parameters
            names |= set(parameters)
            if not any(each.kind is inspect.Parameter.VAR_KEYWORD for each in parameters.values()):
                break
    return names - {"self", "args", "kwargs"}


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
