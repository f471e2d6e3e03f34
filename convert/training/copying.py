"""A Keras 3 model built again in `tf_keras`, layer for layer, from its configuration.

Nested models are laid flat, as tfmot wraps single layers. Layers that `tf_keras` has under the same name take over
their configuration, less the settings that it does not know; what that changes, the comparison of outputs finds.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from convert.training.messages import Request
from edge_runtime.errors import ErrorCode, HybridgeError
from edge_runtime.tensor_spec import Array

__all__ = ["CopiedModel", "copy_model", "short_name"]

_MODELS = ("Functional", "Sequential", "Model")
# The weights are given, and what they learn is the source's outputs.
_UNUSED = ("_initializer", "_regularizer", "_constraint")
# Settings of every layer, which constructors take among their keywords.
_COMMON = ("name", "trainable", "dtype")


@dataclass(frozen=True)
class CopiedModel:
    """The model in `tf_keras`.

    Attributes:
        model: A functional model whose layers have names of their own.
        weights: The layer and the short name of each weight, in the source's order. What tfmot wraps it takes apart, so
            that layers themselves are no lasting record.
    """

    model: Any
    weights: tuple[tuple[str, str], ...]


def copy_model(request: Request, weights: Sequence[Array]) -> CopiedModel:
    """Builds the model and gives it the source's weights.

    Raises:
        HybridgeError: `training-failed`, naming every layer that cannot be carried over.
    """
    import tf_keras

    if request.library == "tf_keras":
        model = tf_keras.models.model_from_json(json.dumps(request.config))
        order = tuple(model.layers)
        # As lists, whatever structure they had; Sequential becomes functional, as which tfmot takes it too.
        model = tf_keras.Model(model.inputs, model.outputs, name="copy")
    else:
        builder = _Builder(tf_keras)
        model = builder.build(request.config)
        order = tuple(builder.layers)
    remaining = list(weights)
    for layer in order:
        count = len(layer.weights)
        own, remaining = remaining[:count], remaining[count:]
        if [tuple(each.shape) for each in own] != [tuple(each.shape) for each in layer.weights]:
            raise _failed(
                received=f"layer '{layer.name}' with weights of shapes "
                f"{', '.join(str(tuple(each.shape)) for each in own)}",
                expected=", ".join(str(tuple(each.shape)) for each in layer.weights),
            )
        layer.set_weights([np.array(each) for each in own])
    if remaining:
        raise _failed(
            received=f"{len(remaining)} weights that belong to no layer",
            expected="layers that own all weights",
        )
    return CopiedModel(
        model, tuple((layer.name, short_name(weight)) for layer in order for weight in layer.weights)
    )


def short_name(weight: Any) -> str:
    """The name of a weight within its layer, such as ``kernel``."""
    return str(weight.name).rpartition("/")[2].partition(":")[0]


class _Builder:
    """Builds one model; `layers` then lists what it is made of, in order."""

    def __init__(self, keras: Any):
        self._keras = keras
        self.layers: list[Any] = []
        self._names: set[str] = set()

    def build(self, serialized: Mapping[str, Any]) -> Any:
        """The model as a functional one of single layers."""
        if problems := dict(_uncarried(self._keras, serialized)):
            named = "; ".join(f"'{name}' ({why})" for name, why in problems.items())
            raise _failed(
                received=f"layers that cannot be carried over: {named}",
                expected="layers that tf_keras has too",
                fix="use a recipe that does not train, or build the model from other layers",
            )
        inputs = self._inputs(serialized)
        called = self._blueprint(serialized, prefix="")
        given = list(inputs.values())
        outputs = called(given)
        return self._keras.Model(given, outputs, name="copy")

    def _inputs(self, serialized: Mapping[str, Any]) -> dict[str, Any]:
        config = serialized["config"]
        if serialized["class_name"] == "Sequential":
            first = config["layers"][0]
            shape = (
                first["config"]["batch_shape"]
                if first["class_name"] == "InputLayer"
                else config["build_input_shape"]
            )
            dtype = _dtype(first["config"].get("dtype")) if first["class_name"] == "InputLayer" else "float32"
            return {"input": self._keras.Input(tuple(shape[1:]), dtype=dtype, name="copied_input")}
        by_name = {each["config"]["name"]: each["config"] for each in config["layers"]}
        names = [name for name, _, _ in _flat(config["input_layers"])]
        return {
            name: self._keras.Input(
                tuple(by_name[name]["batch_shape"][1:]), dtype=_dtype(by_name[name].get("dtype")), name=name
            )
            for name in names
        }

    def _blueprint(self, serialized: Mapping[str, Any], *, prefix: str) -> Any:
        """A function from a list of tensors to the list of the model's outputs; layers are made once."""
        config = serialized["config"]
        if serialized["class_name"] == "Sequential":
            parts = [
                self._part(each, prefix) for each in config["layers"] if each["class_name"] != "InputLayer"
            ]

            def chain(tensors: list[Any]) -> list[Any]:
                value: Any = tensors[0]
                for part in parts:
                    value = part(value)
                return [value]

            return chain
        made = {
            each["config"]["name"]: self._part(each, prefix)
            for each in config["layers"]
            if each["class_name"] != "InputLayer"
        }

        def graph(tensors: list[Any]) -> list[Any]:
            known: dict[tuple[str, int, int], Any] = dict(
                zip(_flat(config["input_layers"]), tensors, strict=True)
            )
            waiting = [
                (each["config"]["name"], number, node)
                for each in config["layers"]
                for number, node in enumerate(each.get("inbound_nodes", []))
                if each["class_name"] != "InputLayer"
            ]
            while waiting:
                later = []
                for name, number, node in waiting:
                    if not all(key in known for key in _keys(node)):
                        later.append((name, number, node))
                        continue
                    arguments = [_filled(each, known) for each in node.get("args", [])]
                    keywords = {
                        key: _filled(each, known)
                        for key, each in node.get("kwargs", {}).items()
                        if each is not None and key != "training"
                    }
                    result = made[name](*arguments, **keywords)
                    for index, tensor in enumerate(_listed(result)):
                        known[name, number, index] = tensor
                if len(later) == len(waiting):
                    raise _failed(
                        received="a graph whose nodes wait for each other", expected="a model's graph"
                    )
                waiting = later
            return [known[key] for key in _flat(config["output_layers"])]

        return graph

    def _part(self, each: Mapping[str, Any], prefix: str) -> Any:
        name = each["config"]["name"]
        if each["class_name"] in _MODELS:
            inner = self._blueprint(each, prefix=f"{prefix}{name}__")

            def nested(*arguments: Any, **_: Any) -> Any:
                given = [tensor for argument in arguments for tensor in _listed(argument)]
                outputs = inner(given)
                return outputs[0] if len(outputs) == 1 else outputs

            return nested
        layer = _layer(self._keras, each, name=f"{prefix}{name}")
        self.layers.append(layer)
        return layer


def _uncarried(keras: Any, serialized: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if serialized["class_name"] not in _MODELS:
        # A subclassed model hides its graph in code.
        yield str(serialized["config"].get("name", serialized["class_name"])), "a model of a class of its own"
        return
    for each in serialized["config"]["layers"]:
        name = str(each["config"].get("name", each["class_name"]))
        if each["class_name"] == "InputLayer":
            continue
        if each["class_name"] in _MODELS:
            yield from _uncarried(keras, each)
        elif not str(each.get("module", "")).startswith("keras.layers"):
            yield name, f"{each.get('module')}.{each['class_name']}"
        else:
            try:
                _layer(keras, each, name=name)
            except Exception as error:
                # Whatever a constructor makes of settings that it does not know.
                yield name, f"{each['class_name']}: {str(error).strip().partition(chr(10))[0][:120]}"


def _layer(keras: Any, each: Mapping[str, Any], *, name: str) -> Any:
    kind = getattr(keras.layers, each["class_name"])
    config = {**_translated(each["config"]), "name": name}
    known = _settings(kind)
    if known is not None:
        config = {key: value for key, value in config.items() if key in known}
    if "rate" in config and "Dropout" in each["class_name"]:
        # It would hide from the small model what the source knows.
        config["rate"] = 0.0
    return kind.from_config(config)


def _settings(kind: Any) -> set[str] | None:
    """What a layer's constructor and those below it take; None where wrappers read more from their configuration."""
    names = set(_COMMON)
    for each in inspect.getmro(kind):
        if each.__name__ in ("Wrapper", "RNN"):
            return None if kind.__name__ in ("Bidirectional", "TimeDistributed", "RNN") else names
        if "__init__" in vars(each) and each.__module__.startswith("tf_keras"):
            names |= set(inspect.signature(vars(each)["__init__"]).parameters)
        if each.__name__ == "Layer":
            break
    return names


def _translated(value: Any) -> Any:
    """A configuration in terms of `tf_keras`: dtype policies by name, layers inside of layers without what it lacks."""
    if isinstance(value, Mapping):
        if value.get("class_name") == "DTypePolicy":
            return value["config"]["name"]
        inner = {key: _translated(each) for key, each in value.items() if not key.endswith(_UNUSED)}
        if str(value.get("module", "")).startswith("keras.layers") and isinstance(inner.get("config"), dict):
            import tf_keras

            known = _settings(getattr(tf_keras.layers, value["class_name"]))
            if known is not None:
                inner["config"] = {key: each for key, each in inner["config"].items() if key in known}
            inner.pop("build_config", None)
        return inner
    if isinstance(value, list | tuple):
        return [_translated(each) for each in value]
    return value


def _dtype(value: Any) -> str:
    translated = _translated(value)
    return translated if isinstance(translated, str) else "float32"


def _keys(value: Any) -> Iterator[tuple[str, int, int]]:
    if isinstance(value, Mapping):
        if value.get("class_name") == "__keras_tensor__":
            name, node, index = value["config"]["keras_history"]
            yield name, node, index
            return
        for each in value.values():
            yield from _keys(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _keys(each)


def _filled(value: Any, known: Mapping[tuple[str, int, int], Any]) -> Any:
    if isinstance(value, Mapping):
        if value.get("class_name") == "__keras_tensor__":
            return known[tuple(value["config"]["keras_history"])]
        return {key: _filled(each, known) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_filled(each, known) for each in value]
    return value


def _flat(structure: Any) -> list[tuple[str, int, int]]:
    """Names, nodes and indices of a model's inputs or outputs, in the order in which Keras keeps them."""
    if isinstance(structure, Mapping):
        return [key for name in structure for key in _flat(structure[name])]
    if isinstance(structure, list | tuple) and len(structure) == 3 and isinstance(structure[0], str):
        return [(structure[0], structure[1], structure[2])]
    return [key for each in structure for key in _flat(each)]


def _listed(value: Any) -> list[Any]:
    if isinstance(value, Mapping):
        return list(value.values())
    return list(value) if isinstance(value, list | tuple) else [value]


def _failed(*, received: str, expected: str, fix: str = "use a recipe that does not train") -> HybridgeError:
    return HybridgeError(
        ErrorCode.TRAINING_FAILED,
        "copy of the model for training",
        received=received,
        expected=expected,
        fix=fix,
    )
