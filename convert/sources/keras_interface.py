"""How a Keras model is called: the names, order and structure of what it takes and returns."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from convert.libraries import load_library
from edge_runtime.errors import ErrorCode, HybridgeError
from edge_runtime.tensor_spec import TensorSpec

__all__ = ["Interface", "find_interface"]


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


def find_interface(model: Any, name: str) -> Interface:
    """The interface of a built Keras model.

    Names of inputs are the keys of a dictionary input, else the names of the input layers, else (a subclassed model)
    the parameter of `call`. Names of outputs are the keys of a dictionary output, else the names of the layers that
    make them, else ``output`` or ``output_0``, ``output_1``...

    Args:
        model: The model.
        name: What to call it in errors.

    Raises:
        HybridgeError: `source-invalid` for inputs or outputs that cannot be named or nest.
    """
    keras = load_library("keras")
    if isinstance(model, keras.Sequential):
        symbolic = {_layer_name(model.inputs[0]): model.inputs[0]}
        return _interface(model, symbolic, _only_positional, lambda _: (model.layers[-1].name,), name)
    if hasattr(model, "output_names"):
        structure = model.input
        symbolic = (
            dict(structure)
            if isinstance(structure, Mapping)
            else {_layer_name(tensor): tensor for tensor in keras.tree.flatten(structure)}
        )
        if len(symbolic) != len(model.inputs):
            raise _unnamed(name, "inputs", "a nested structure, or two of one name")
        pack = _packer(structure, tuple(symbolic))
        return _interface(model, symbolic, pack, lambda _: _layer_names(model), name)
    symbolic, pack = _subclassed_inputs(keras, model, name)
    return _interface(model, symbolic, pack, _numbered, name)


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


def _subclassed_inputs(keras: Any, model: Any, name: str) -> tuple[dict[str, Any], _Pack]:
    # What Keras's own export reads: the shapes that the model was built with, by parameter.
    shapes: dict[str, Any] | None = getattr(model, "_build_shapes_dict", None)
    if not shapes:
        raise _unnamed(name, "inputs", "a subclassed model that records no shapes")

    def tensor(key: str, shape: Any) -> Any:
        if not all(size is None or isinstance(size, int) for size in shape):
            raise _unnamed(name, "inputs", "a nested structure")
        return keras.KerasTensor((None, *shape[1:]), dtype=model.input_dtype or "float32", name=key)

    parameters = [key for key in inspect.signature(model.call).parameters if key not in ("training", "mask")]
    if len(shapes) > 1:
        named = {key.removesuffix("_shape"): shape for key, shape in shapes.items()}
        return {key: tensor(key, shape) for key, shape in named.items()}, lambda tensors: ((), dict(tensors))
    shape = next(iter(shapes.values()))
    if isinstance(shape, Mapping):
        return {key: tensor(key, each) for key, each in shape.items()}, lambda tensors: ((dict(tensors),), {})
    if shape and isinstance(shape[0], list | tuple):
        named = {f"{parameters[0]}_{index}": each for index, each in enumerate(shape)}
        return (
            {key: tensor(key, each) for key, each in named.items()},
            lambda tensors: (([tensors[key] for key in named],), {}),
        )
    return {parameters[0]: tensor(parameters[0], shape)}, _only_positional


def _layer_names(model: Any) -> tuple[str, ...]:
    names = tuple(model.output_names)
    # One layer called twice gives its name twice.
    return names if len(set(names)) == len(names) else tuple(_numbered(len(names)))


def _numbered(count: int) -> list[str]:
    return ["output"] if count == 1 else [f"output_{index}" for index in range(count)]


def _layer_name(tensor: Any) -> str:
    # The tensor of a nameless keras.Input has a name that counts what the process made before; its layer's is saved.
    return str(tensor._keras_history.operation.name)


def _spec(name: str, tensor: Any) -> TensorSpec:
    shape = tuple(
        size if size is not None else ("batch" if axis == 0 else f"dim{axis}")
        for axis, size in enumerate(tensor.shape)
    )
    return TensorSpec(name=name, shape=shape, dtype=str(tensor.dtype))


def _unnamed(name: str, what: str, received: str) -> HybridgeError:
    return HybridgeError(
        ErrorCode.SOURCE_INVALID,
        f"{what} of source model '{name}'",
        received=received,
        expected="one tensor, a list or a dictionary, each with a name of its own",
        fix="name its input and output layers, or wrap it in a keras.Model(inputs, outputs)",
    )
