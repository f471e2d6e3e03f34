"""A Keras 3 model built again in `tf_keras` from its configuration, layer for layer.

What a translation changes, the comparison of outputs finds before anything is trained.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from convert.training.activations import operation, operation_names
from convert.training.layer_settings import NotCarriedError, make_layer
from edge_runtime.errors import ErrorCode, HybridgeError

__all__ = ["translate"]

# A model's tensor: the name of the layer that makes it, which call of that layer, which of its outputs.
_Key = tuple[str, int, int]


def translate(serialized: Mapping[str, Any]) -> tuple[Any, tuple[Any, ...]]:
    """Builds the model.

    Args:
        serialized: What `keras.saving.serialize_keras_object` gives of a functional or sequential model.

    Returns:
        The model, which takes and returns lists in the order of the source's inputs and outputs, its batch size free;
        and its variables in the order of the source's `get_weights()`.

    Raises:
        HybridgeError: `training-failed`, naming each layer that cannot be carried over, and why.
    """
    problems = dict(_problems(serialized))
    if problems:
        raise HybridgeError(
            ErrorCode.TRAINING_FAILED,
            "copy of the model for training",
            received="; ".join(f"layer '{name}' ({reason})" for name, reason in problems.items()),
            expected="layers that tf_keras has too",
            fix="use a recipe that does not train, or build the model from other layers",
        )
    built = _Translation(serialized)
    return built.model, tuple(built.variables())


def _problems(serialized: Mapping[str, Any], prefix: str | None = None) -> Iterator[tuple[str, str]]:
    config = serialized.get("config") or {}
    name = f"{prefix or ''}{config.get('name', serialized['class_name'])}"
    if _is_model(serialized):
        for each in config["layers"]:
            yield from _problems(each, "" if prefix is None else f"{name}/")
    elif _is_operation(serialized):
        if serialized["class_name"] not in operation_names():
            yield name, f"the operation {serialized['class_name']}"
    elif serialized["class_name"] != "InputLayer":
        try:
            make_layer(serialized)
        except NotCarriedError as error:
            yield name, str(error)


def _is_model(serialized: Mapping[str, Any]) -> bool:
    # A class of its own that was built as a functional model has the configuration of one.
    return serialized["class_name"] == "Sequential" or "input_layers" in (serialized.get("config") or {})


def _is_operation(serialized: Mapping[str, Any]) -> bool:
    return str(serialized.get("module") or "").startswith("keras.src.ops")


class _Translation:
    """One model, its parts by name, and the translations of models inside it."""

    def __init__(self, serialized: Mapping[str, Any]):
        self._config = serialized["config"]
        self._parts: dict[str, Any] = {}
        self._nested: dict[str, _Translation] = {}
        self.functional = "input_layers" in self._config
        self.model = self._functional() if self.functional else self._sequential()

    def variables(self) -> Iterator[Any]:
        """As Keras 3 lists them: layer by layer in the order of the configuration, which is not that of `tf_keras`."""
        for each in self._config["layers"]:
            name = each["config"]["name"]
            if name in self._nested:
                yield from self._nested[name].variables()
            elif name in self._parts:
                yield from _variables(self._parts[name])

    def _part(self, each: Mapping[str, Any]) -> Callable[..., Any]:
        name = each["config"]["name"]
        if _is_operation(each):
            return operation(each["class_name"], each["config"])
        if _is_model(each):
            self._nested[name] = _Translation(each)
            nested = self._nested[name].model
            self._parts[name] = nested
            # Inputs of a model are a list here, whatever structure the source gave them.
            return lambda *values, **_: nested(_flat(values))
        layer = make_layer(each)
        self._parts[name] = layer
        return layer  # type: ignore[no-any-return]

    def _sequential(self) -> Any:
        import tf_keras

        first, *others = self._config["layers"]
        if first["class_name"] == "InputLayer":
            value = _input(first["config"])
        else:
            others = [first, *others]
            shape = self._config.get("build_input_shape") or first["build_config"]["input_shape"]
            value = tf_keras.Input(tuple(shape[1:]))
        start = value
        for each in others:
            value = self._part(each)(value)
        return tf_keras.Model([start], [value], name=self._config["name"])

    def _functional(self) -> Any:
        import tf_keras

        known: dict[_Key, Any] = {}
        waiting: list[tuple[str, int, Mapping[str, Any]]] = []
        calls: dict[str, Callable[..., Any]] = {}
        for each in self._config["layers"]:
            name = each["config"]["name"]
            if each["class_name"] == "InputLayer":
                known[name, 0, 0] = _input(each["config"])
                continue
            calls[name] = self._part(each)
            waiting += [(name, number, node) for number, node in enumerate(each["inbound_nodes"])]
        while waiting:
            ready = [call for call in waiting if all(key in known for key in _needed(call[2]))]
            if not ready:
                raise HybridgeError(
                    ErrorCode.TRAINING_FAILED,
                    "copy of the model for training",
                    received=f"layer '{waiting[0][0]}', whose input no layer makes",
                    expected="a graph that begins at the model's inputs",
                )
            for name, number, node in ready:
                arguments, keywords = _arguments(self._parts.get(name), node, known)
                for index, tensor in enumerate(_flat(calls[name](*arguments, **keywords))):
                    known[name, number, index] = tensor
            waiting = [call for call in waiting if call not in ready]
        inputs = [known[key] for key in _history(self._config["input_layers"])]
        outputs = [
            # Here, and only here, Keras counts the making of a functional model as its first call.
            known[name, number - (name in self._nested and self._nested[name].functional), index]
            for name, number, index in _history(self._config["output_layers"])
        ]
        return tf_keras.Model(inputs, outputs, name=self._config["name"])


def _input(config: Mapping[str, Any]) -> Any:
    import tf_keras

    # Whatever batch the source fixed, it is trained on larger ones.
    return tf_keras.Input(tuple(config["batch_shape"][1:]), dtype=config.get("dtype"), name=config["name"])


def _variables(layer: Any) -> Iterator[Any]:
    # Keras 3 lists a wrapper's layer as a whole; tf_keras all that is trainable in it first.
    inner = getattr(layer, "layer", None)
    if inner is not None and type(layer).__name__ == "TimeDistributed":
        yield from _variables(inner)
    else:
        yield from layer.weights


def _arguments(
    layer: Any, node: Mapping[str, Any], known: Mapping[_Key, Any]
) -> tuple[list[Any], dict[str, Any]]:
    arguments = [_value(each, known) for each in node["args"]]
    keywords = {key: _value(each, known) for key, each in node["kwargs"].items()}
    # What is trained decides that itself, and a mask that is none is none.
    keywords = {key: each for key, each in keywords.items() if key != "training" and each is not None}
    if type(layer).__name__ == "MultiHeadAttention":
        # tfmot's wrappers take one positional tensor.
        named = dict(zip(("query", "value", "key"), arguments, strict=False))
        arguments = [named.pop("query")] if "query" in named else [keywords.pop("query")]
        keywords = {**named, **keywords}
    return arguments, keywords


def _needed(value: Any) -> Iterator[_Key]:
    if isinstance(value, Mapping):
        if value.get("class_name") == "__keras_tensor__":
            yield tuple(value["config"]["keras_history"])
        else:
            for each in value.values():
                yield from _needed(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _needed(each)


def _value(value: Any, known: Mapping[_Key, Any]) -> Any:
    if isinstance(value, list | tuple):
        return [_value(each, known) for each in value]
    if not isinstance(value, Mapping):
        return value
    match value.get("class_name"):
        case "__keras_tensor__":
            return known[tuple(value["config"]["keras_history"])]
        case "__slice__":
            return slice(*(value["config"][end] for end in ("start", "stop", "step")))
        case "__tuple__":
            return [_value(each, known) for each in value["items"]]
        case "__ellipsis__":
            return Ellipsis
    return {key: _value(each, known) for key, each in value.items()}


def _history(structure: Any) -> list[_Key]:
    """Keys of a model's inputs or outputs, whose structure may be a list or a dictionary."""
    if isinstance(structure, Mapping):
        return [key for each in structure.values() for key in _history(each)]
    if len(structure) == 3 and isinstance(structure[0], str):
        return [(structure[0], structure[1], structure[2])]
    return [key for each in structure for key in _history(each)]


def _flat(value: Any) -> list[Any]:
    if isinstance(value, Mapping):
        return [tensor for each in value.values() for tensor in _flat(each)]
    if isinstance(value, list | tuple):
        return [tensor for each in value for tensor in _flat(each)]
    return [value]
