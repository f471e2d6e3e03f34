"""How a Keras model is called: the names, order and structure of what it takes and returns."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from edge_runtime.errors import ErrorCode, HybridgeError
from edge_runtime.tensor_spec import TensorSpec

__all__ = ["Interface", "find_interface"]


# Names of a TensorFlow signature; others are changed on the way.
_SIGNATURE_NAME = re.compile(r"[A-Za-z0-9.][A-Za-z0-9_.-]*")


@dataclass(frozen=True)
class Interface:
    """A Keras model as a function of named tensors.

    Attributes:
        inputs: What it takes, in its own order.
        outputs: What it returns, in its own order.
        call: Runs it, as in inference, on a tensor or array for each input.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    call: Callable[[Mapping[str, Any]], dict[str, Any]]


def find_interface(keras: Any, model: Any, name: str) -> Interface:
    """The interface of a built Keras model.

    Names of inputs are the keys of a dictionary input, else the names of the input layers, else (a subclassed model)
    the parameter of `call`. Names of outputs are the keys of a dictionary output, else the names of the layers that
    make them, else ``output`` or ``output_0``, ``output_1``...

    Args:
        keras: The library that made the model, Keras 3 or `tf_keras`.
        model: The model.
        name: What to call it in errors.

    Raises:
        HybridgeError: `source-invalid` for inputs or outputs that cannot be named or nest.
    """
    if isinstance(model, keras.Sequential) and model.inputs:
        symbolic = {_layer_name(model.inputs[0]): model.inputs[0]}
        interface = _interface(model, symbolic, _only_positional, lambda _: (model.layers[-1].name,), name)
    elif getattr(model, "output_names", None):
        structure = model.input
        symbolic = (
            dict(structure)
            if isinstance(structure, Mapping)
            else {_layer_name(tensor): tensor for tensor in model.inputs}
        )
        if len(symbolic) != len(model.inputs):
            raise _unnamed(name, "inputs", "a nested structure, or two of one name")
        pack = _packer(structure, tuple(symbolic))
        interface = _interface(model, symbolic, pack, lambda _: _layer_names(model), name)
    else:
        symbolic, pack = _subclassed_inputs(keras, model, name)
        interface = _interface(model, symbolic, pack, _numbered, name)
    _check_names(interface.inputs, "input", name)
    _check_names(interface.outputs, "output", name)
    return interface


_Pack = Callable[[Mapping[str, Any]], tuple[tuple[Any, ...], dict[str, Any]]]


def _interface(
    model: Any,
    symbolic: Mapping[str, Any],
    pack: _Pack,
    output_names: Callable[[int], Iterable[str]],
    name: str,
) -> Interface:
    def run(tensors: Mapping[str, Any]) -> Any:
        arguments, keywords = pack(tensors)
        return model(*arguments, **keywords, training=False)

    try:
        made = run(symbolic)
    except Exception as error:
        # The model's own code raises what it likes when it is called in another way than it was built.
        raise _unnamed(name, "inputs", f"a model that cannot be called on them ({error})") from error
    if isinstance(made, Mapping):
        names = tuple(made)
        tensors = list(made.values())
    else:
        tensors = list(made) if isinstance(made, list | tuple) else [made]
        names = tuple(output_names(len(tensors)))
    if len(set(names)) != len(tensors) or not all(hasattr(tensor, "shape") for tensor in tensors):
        raise _unnamed(name, "outputs", "a nested structure, or two of one name")

    def call(given: Mapping[str, Any]) -> dict[str, Any]:
        result = run(given)
        if isinstance(result, Mapping):
            return {key: result[key] for key in names}
        return dict(zip(names, result if isinstance(result, list | tuple) else [result], strict=True))

    return Interface(
        tuple(_spec(key, tensor) for key, tensor in symbolic.items()),
        tuple(_spec(key, tensor) for key, tensor in zip(names, tensors, strict=True)),
        call,
    )


def _packer(structure: Any, names: tuple[str, ...]) -> _Pack:
    if isinstance(structure, Mapping):
        return lambda tensors: (({key: tensors[key] for key in names},), {})
    if isinstance(structure, list | tuple):
        return lambda tensors: (([tensors[key] for key in names],), {})
    return _only_positional


def _only_positional(tensors: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return tuple(tensors.values()), {}


@dataclass(frozen=True)
class _Recorded:
    shape: tuple[int | None, ...]
    dtype: str


def _subclassed_inputs(keras: Any, model: Any, name: str) -> tuple[dict[str, Any], _Pack]:
    parameters = [key for key in inspect.signature(model.call).parameters if key not in ("training", "mask")]
    recorded = _recorded(model, parameters)
    if not recorded:
        raise _unnamed(name, "inputs", "a subclassed model that records no shapes")

    def tensor(key: str, spec: Any) -> Any:
        if not isinstance(spec, _Recorded):
            raise _unnamed(name, "inputs", "a nested structure")
        return keras.Input(batch_shape=(None, *spec.shape[1:]), dtype=spec.dtype, name=key)

    if len(recorded) > 1:
        return {key: tensor(key, spec) for key, spec in recorded.items()}, lambda tensors: ((), dict(tensors))
    ((parameter, spec),) = recorded.items()
    if isinstance(spec, Mapping):
        return {key: tensor(key, each) for key, each in spec.items()}, lambda tensors: ((dict(tensors),), {})
    if isinstance(spec, list):
        named = {f"{parameter}_{index}": each for index, each in enumerate(spec)}
        return (
            {key: tensor(key, each) for key, each in named.items()},
            lambda tensors: (([tensors[key] for key in named],), {}),
        )
    return {parameter: tensor(parameter, spec)}, _only_positional


def _recorded(model: Any, parameters: list[str]) -> dict[str, Any]:
    """What a subclassed model was built with, by parameter; it is what Keras's own export reads."""
    shapes: Mapping[str, Any] | None = getattr(model, "_build_shapes_dict", None)
    if shapes:
        dtype = model.input_dtype or "float32"
        found = {key.removesuffix("_shape"): _of_shape(shape, dtype) for key, shape in shapes.items()}
        # A single one goes by a name of Keras's own.
        return found if len(found) > 1 else {parameters[0]: next(iter(found.values()))}
    if callable(getattr(model, "save_spec", None)) and model.save_spec() is not None:
        positional, keywords = model.save_spec()
        given = {**dict(zip(parameters, positional, strict=False)), **keywords}
        return {key: _of_spec(spec) for key, spec in given.items() if key in parameters and spec is not None}
    return {}


def _of_shape(shape: Any, dtype: str) -> Any:
    if isinstance(shape, Mapping):
        return {key: _of_shape(each, dtype) for key, each in shape.items()}
    if any(isinstance(each, list | tuple | Mapping) for each in shape):
        return [_of_shape(each, dtype) for each in shape]
    return _Recorded(tuple(shape), dtype)


def _of_spec(spec: Any) -> Any:
    if isinstance(spec, Mapping):
        return {key: _of_spec(each) for key, each in spec.items()}
    if isinstance(spec, list | tuple):
        return [_of_spec(each) for each in spec]
    return _Recorded(tuple(spec.shape), _dtype_name(spec.dtype))


def _check_names(specs: tuple[TensorSpec, ...], kind: str, name: str) -> None:
    for spec in specs:
        if not _SIGNATURE_NAME.fullmatch(spec.name):
            raise HybridgeError(
                ErrorCode.SOURCE_INVALID,
                f"{kind} '{spec.name}' of source model '{name}'",
                received="a name that a signature cannot have",
                expected="letters, digits and . _ -, beginning with a letter or digit",
                fix=f"rename the {kind} layer",
            )


def _layer_names(model: Any) -> tuple[str, ...]:
    names = tuple(model.output_names)
    # One layer called twice gives its name twice.
    return names if len(set(names)) == len(names) else tuple(_numbered(len(names)))


def _numbered(count: int) -> list[str]:
    return ["output"] if count == 1 else [f"output_{index}" for index in range(count)]


def _layer_name(tensor: Any) -> str:
    # The tensor of a nameless keras.Input has a name that counts what the process made before; its layer's is saved.
    made_by = tensor._keras_history
    return str((made_by.operation if hasattr(made_by, "operation") else made_by.layer).name)


def _spec(name: str, tensor: Any) -> TensorSpec:
    shape = tuple(
        size if size is not None else ("batch" if axis == 0 else f"dim{axis}")
        for axis, size in enumerate(tensor.shape)
    )
    return TensorSpec(name=name, shape=shape, dtype=_dtype_name(tensor.dtype))


def _dtype_name(dtype: Any) -> str:
    # Keras 3 has strings, tf_keras has TensorFlow's types.
    return str(getattr(dtype, "name", dtype))


def _unnamed(name: str, what: str, received: str) -> HybridgeError:
    return HybridgeError(
        ErrorCode.SOURCE_INVALID,
        f"{what} of source model '{name}'",
        received=received,
        expected="one tensor, a list or a dictionary, each with a name of its own",
        fix="name its input and output layers, or wrap it in a keras.Model(inputs, outputs)",
    )
