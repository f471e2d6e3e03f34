"""The operators by name: what each takes, gives and can be set to."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edge_runtime.errors import ErrorCode, HybridgeError
from edge_runtime.tensor_spec import Value
from edge_runtime.tensor_type import ANYTHING, TensorType

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

__all__ = ["Operator", "find_operator", "operator", "operator_names"]

_GROUP = "hybridge.operators"
_BUILTIN = (
    *("anchors", "audio", "crop", "detection", "drawing", "image", "image_file", "regions"),
    *("tensor", "text", "text_boxes", "tokens"),
)
_registered: dict[str, Operator] = {}


@dataclass(frozen=True, slots=True)
class Operator:
    """A function with the names and types of what it takes and gives.

    Attributes:
        name: What a chain calls it.
        function: The function itself.
        takes: Type of each of its tensors, in the order of the positional parameters.
        gives: Type of each of its results; one that returns a bare value has one.
    """

    name: str
    function: Callable[..., Any]
    takes: Mapping[str, TensorType]
    gives: Mapping[str, TensorType]

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of its tensors."""
        return tuple(self.takes)

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of its results."""
        return tuple(self.gives)

    @property
    def settings(self) -> dict[str, Any]:
        """Its settings and their defaults; one that must be given has `inspect.Parameter.empty`."""
        return {
            parameter.name: parameter.default
            for parameter in inspect.signature(self.function).parameters.values()
            if parameter.kind is inspect.Parameter.KEYWORD_ONLY
        }

    def check_params(self, params: Mapping[str, Any]) -> None:
        """Refuses settings that the operator does not have, and missing ones that have no default.

        Raises:
            HybridgeError: `chain-invalid`.
        """
        known = self.settings
        required = {name for name, default in known.items() if default is inspect.Parameter.empty}
        if not (required <= params.keys() <= known.keys()):
            raise HybridgeError(
                ErrorCode.CHAIN_INVALID,
                f"settings of operator '{self.name}'",
                received=", ".join(sorted(params)) or "none",
                expected=", ".join(name if name in required else f"[{name}]" for name in sorted(known))
                or "none",
            )

    def run(self, inputs: Mapping[str, Value], params: Mapping[str, Any]) -> Mapping[str, Value]:
        """Applies the operator.

        Raises:
            HybridgeError: `operator-failed` for whatever the function raises, or for a result that is not what it
                declares; its own `HybridgeError` as it is.
        """
        try:
            result = self.function(*[inputs[name] for name in self.takes], **params)
        except HybridgeError:
            raise
        except Exception as error:
            # The function may be anyone's; whatever it raises is one failed stage, not the end of the program.
            shapes = ", ".join(f"{name} {_shown(value)}" for name, value in inputs.items())
            raise HybridgeError(
                ErrorCode.OPERATOR_FAILED,
                f"operator '{self.name}'",
                received=f"{type(error).__name__}: {error} (on {shapes})",
                fix="check its inputs and settings",
            ) from error
        # What is an array is quickly told; what is no mapping at all, slowly.
        is_bare = isinstance(result, np.ndarray) or not isinstance(result, Mapping)
        named: Mapping[str, Value] = {next(iter(self.gives)): result} if is_bare else result
        if named.keys() != self.gives.keys():
            raise HybridgeError(
                ErrorCode.OPERATOR_FAILED,
                f"operator '{self.name}'",
                received=f"results {', '.join(named)}",
                expected=", ".join(self.outputs),
            )
        return named


def operator(
    name: str, *, takes: Mapping[str, str] | None = None, gives: Mapping[str, str] | None = None
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Registers a function as an operator.

    Args:
        name: What chains call it, in kebab-case.
        takes: Types of its tensors, as `edge_runtime.tensor_type` writes them; a chain that cannot meet them is refused
            when it is loaded. The name of a setting in a type is that setting's value.
        gives: Names and types of what it returns; without it, one value named and typed like its first tensor.

    Raises:
        HybridgeError: `chain-invalid` for a type that is none, or for a second operator of that name.
    """

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        inputs = [
            parameter.name
            for parameter in inspect.signature(function).parameters.values()
            if parameter.kind in (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        ]
        types = {key: TensorType.parse(text) for key, text in (takes or {}).items()}
        taken = {key: types.get(key, ANYTHING) for key in inputs}
        given = {key: TensorType.parse(text) for key, text in (gives or {}).items()} or dict(
            list(taken.items())[:1]
        )
        if unknown := sorted(types.keys() - taken.keys()):
            raise HybridgeError(
                ErrorCode.CHAIN_INVALID,
                f"operator '{name}'",
                received=f"a type for {', '.join(unknown)}",
                expected=f"types for {', '.join(inputs)}",
            )
        known = _registered.get(name)
        if known is not None and known.function.__module__ != function.__module__:
            raise HybridgeError(
                ErrorCode.CHAIN_INVALID,
                f"operator '{name}'",
                received=f"a second one, from {function.__module__}",
                expected=f"one, which {known.function.__module__} has",
                fix="name it differently",
            )
        _registered[name] = Operator(name, function, taken, given)
        return function

    return register


def find_operator(name: str) -> Operator:
    """The operator of that name, built in or from an installed package.

    Raises:
        HybridgeError: `operator-unknown`, with the names there are, or with what is wrong with the plug-in.
    """
    _load_builtin()
    if name not in _registered:
        _load_plugin(name)
    if name not in _registered:
        raise HybridgeError(
            ErrorCode.OPERATOR_UNKNOWN,
            "operator",
            received=f"'{name}'",
            expected=f"one of {', '.join(operator_names())}",
            fix="check its name, or install the package that has it",
        )
    return _registered[name]


def operator_names() -> list[str]:
    """Names of all operators, built in and from installed packages, sorted."""
    _load_builtin()
    return sorted({*_registered, *(point.name for point in _plugins())})


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return f"{len(value)} items"
    return f"{np.asarray(value).dtype}{np.shape(value)}"


def _load_builtin() -> None:
    for module in _BUILTIN:
        importlib.import_module(f"edge_runtime.operators.{module}")


def _load_plugin(name: str) -> None:
    for point in _plugins():
        if point.name != name:
            continue
        try:
            point.load()
        except Exception as error:
            # A package of anyone's; importing it may raise anything.
            raise HybridgeError(
                ErrorCode.OPERATOR_UNKNOWN,
                f"operator '{name}'",
                received=f"{point.value}, which cannot be loaded ({type(error).__name__}: {error})",
                expected="a function made with edge_runtime.operator",
                fix="mend or remove the package that has it",
            ) from error


def _plugins() -> Iterable[EntryPoint]:
    # Costs more to import than the rest of this package together, and only plug-ins need it.
    from importlib.metadata import entry_points

    return entry_points(group=_GROUP)
