"""The one place that knows which TFLite interpreter is installed: LiteRT, or its predecessor tflite-runtime.

Everything else in hybridge sees `load_interpreter` and the `Interpreter` protocol.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from edge_runtime.errors import ErrorCode, HybridgeError
from edge_runtime.tensor_spec import Quantization, TensorSpec

try:
    from ai_edge_litert.interpreter import Interpreter as _Interpreter

    _DISTRIBUTION = "ai-edge-litert"
except ModuleNotFoundError:
    # 32-bit Raspberry Pi OS has no LiteRT wheel.
    from tflite_runtime.interpreter import Interpreter as _Interpreter

    _DISTRIBUTION = "tflite-runtime"

if TYPE_CHECKING:
    from edge_runtime.manifest import Signature

__all__ = [
    "Interpreter",
    "Placement",
    "Tensor",
    "has_resources",
    "is_stateful",
    "load_interpreter",
    "operator_counts",
    "placements",
    "runtime_version",
    "signature_tensors",
    "signatures",
]


class Interpreter(Protocol):
    """The part of the TFLite Python interpreter that hybridge uses; both distributions have it."""

    def allocate_tensors(self) -> None: ...  # noqa: D102
    def get_input_details(self) -> list[dict[str, Any]]: ...  # noqa: D102
    def get_output_details(self) -> list[dict[str, Any]]: ...  # noqa: D102
    def get_signature_list(self) -> dict[str, dict[str, list[str]]]: ...  # noqa: D102
    def get_signature_runner(self, signature_key: str | None = None) -> Any: ...  # noqa: D102
    def get_tensor(self, tensor_index: int) -> np.ndarray[Any, Any]: ...  # noqa: D102
    def invoke(self) -> None: ...  # noqa: D102
    def reset_all_variables(self) -> None: ...  # noqa: D102
    def resize_tensor_input(  # noqa: D102
        self, input_index: int, tensor_size: list[int], strict: bool = False
    ) -> None: ...
    def set_tensor(self, tensor_index: int, value: np.ndarray[Any, Any]) -> None: ...  # noqa: D102
    def tensor(self, tensor_index: int) -> Callable[[], np.ndarray[Any, Any]]: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor's description, and where the interpreter keeps it."""

    spec: TensorSpec
    index: int


@dataclass(frozen=True, slots=True)
class Placement:
    """How often an operator occurs in a model, and how many of these a delegate such as XNNPACK took over."""

    operator: str
    count: int
    accelerated: int


def runtime_version() -> str:
    """Distribution and version of the interpreter in use, such as ``"ai-edge-litert 2.3.0"``."""
    # Costs more to import than this whole module, and only reports ask.
    from importlib import metadata

    return f"{_DISTRIBUTION} {metadata.version(_DISTRIBUTION)}"


def load_interpreter(content: bytes, *, num_threads: int = 1, name: str = "model") -> Interpreter:
    """An interpreter for a `.tflite` file's bytes, tensors allocated where their sizes are known.

    Args:
        content: The file's bytes. They must come from a verified bundle or a file that the user named.
        num_threads: Threads that one invocation may use.
        name: What to call the model in an error.

    Raises:
        HybridgeError: `model-invalid` when the bytes are no model, or a model this runtime cannot run.
    """
    # The flatbuffer's file identifier is at a fixed place (TFLite schema, `file_identifier "TFL3"`).
    if content[4:8] != b"TFL3":
        raise HybridgeError(
            ErrorCode.MODEL_INVALID,
            f"model '{name}'",
            received=f"{len(content)} bytes that are no TFLite file",
            expected="a .tflite flatbuffer",
            fix="convert the model with 'hybridge convert'",
        )
    if _DISTRIBUTION == "tflite-runtime":
        _refuse_damaged(content, name)
    try:
        interpreter: Interpreter = _Interpreter(model_content=content, num_threads=num_threads)
        _allocate(interpreter)
    except (ValueError, RuntimeError) as error:
        raise HybridgeError(
            ErrorCode.MODEL_INVALID,
            f"model '{name}'",
            received=str(error).strip() or "a model that the interpreter refuses",
            expected=f"a sound model of builtin operators that {runtime_version()} has",
            fix="convert it again, with builtin operators only",
        ) from error
    return interpreter


def _refuse_damaged(content: bytes, name: str) -> None:
    # tflite-runtime reads a damaged file without looking, and takes the process with it; LiteRT looks itself.
    from edge_runtime.flatbuffer import find_damage

    damage = find_damage(content)
    if damage is not None:
        raise HybridgeError(
            ErrorCode.MODEL_INVALID,
            f"model '{name}'",
            received=f"{len(content)} bytes with {damage}",
            expected="a whole .tflite file",
            fix="copy it again, or convert it again",
        )


def _allocate(interpreter: Interpreter) -> None:
    try:
        interpreter.allocate_tensors()
    except RuntimeError:
        # A network of free height and width may be impossible at the size of one that stands for them; it is
        # allocated when an input brings its size.
        if not any(-1 in detail.get("shape_signature", ()) for detail in interpreter.get_input_details()):
            raise


def signature_tensors(interpreter: Interpreter) -> tuple[str, tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Key, inputs and outputs of a model that has one signature or none.

    A model without signatures has the key ``""`` and its tensors' own names.

    Raises:
        HybridgeError: `model-invalid` for a model with several signatures.
    """
    inputs = {detail["index"]: detail for detail in interpreter.get_input_details()}
    outputs = {detail["index"]: detail for detail in interpreter.get_output_details()}
    # The public list has the names without the indices; the full one is what the signature runner itself reads.
    signatures: Mapping[str, Any] = interpreter._get_full_signature_list()  # type: ignore[attr-defined]
    if len(signatures) > 1:
        raise HybridgeError(
            ErrorCode.MODEL_INVALID,
            "model",
            received=f"the signatures {', '.join(signatures)}",
            expected="one signature",
            fix="a trainable model is run by what trains it, not as a stage",
        )
    for key, signature in signatures.items():
        return (
            key,
            tuple(_tensor(inputs[index], name) for name, index in _in_order(signature["inputs"], inputs)),
            tuple(_tensor(outputs[index], name) for name, index in _in_order(signature["outputs"], outputs)),
        )
    return (
        "",
        tuple(_tensor(detail, detail["name"]) for detail in inputs.values()),
        tuple(_tensor(detail, detail["name"]) for detail in outputs.values()),
    )


def signatures(interpreter: Interpreter) -> dict[str, Signature]:
    """Every signature of a model by key, for showing; a model without any has one with the key ``""``."""
    from edge_runtime.manifest import Signature

    keys = interpreter.get_signature_list()
    if len(keys) < 2:
        key, inputs, outputs = signature_tensors(interpreter)
        return {key: Signature(tuple(t.spec for t in inputs), tuple(t.spec for t in outputs), key)}
    found = {}
    for key in keys:
        runner = interpreter.get_signature_runner(key)
        found[key] = Signature(_specs(runner.get_input_details()), _specs(runner.get_output_details()), key)
    return found


def operator_counts(interpreter: Interpreter) -> dict[str, int]:
    """How often each builtin operator occurs in a model's main graph, by name."""
    details = interpreter._get_ops_details()  # type: ignore[attr-defined]
    # A delegate that took over part of the graph is listed behind the operators it took.
    names = sorted(detail["op_name"] for detail in details if detail["op_name"] != "DELEGATE")
    return {name: names.count(name) for name in dict.fromkeys(names)}


def placements(interpreter: Interpreter) -> tuple[Placement, ...]:
    """Which operators of the main graph run on accelerated kernels, by name.

    The interpreter lists a delegate's node behind those it took. These are what can be reached from the node's outputs
    backwards without leaving through its inputs, and what takes a tensor that is made and never leaves the node.
    """
    details = interpreter._get_ops_details()  # type: ignore[attr-defined]
    nodes = [detail for detail in details if detail["op_name"] != "DELEGATE"]
    makers = {int(out): index for index, node in enumerate(nodes) for out in node["outputs"]}
    users: dict[int, list[int]] = {}
    for index, node in enumerate(nodes):
        for tensor in node["inputs"]:
            users.setdefault(int(tensor), []).append(index)
    taken: set[int] = set()
    for delegate in (detail for detail in details if detail["op_name"] == "DELEGATE"):
        border = {int(tensor) for tensor in delegate["inputs"]}
        leaving = {int(tensor) for tensor in delegate["outputs"]}
        found = [makers[tensor] for tensor in leaving if tensor in makers]
        while found:
            index = found.pop()
            if index in taken:
                continue
            taken.add(index)
            inner = {int(tensor) for tensor in nodes[index]["inputs"]} - border
            made = {int(tensor) for tensor in nodes[index]["outputs"]} - leaving
            found += [makers[tensor] for tensor in inner if tensor in makers]
            found += [user for tensor in made for user in users.get(tensor, ())]
    names = [node["op_name"] for node in nodes]
    fast = [names[index] for index in taken]
    return tuple(Placement(name, names.count(name), fast.count(name)) for name in sorted(set(names)))


# Operators of the TFLite schema that keep something from one invocation to the next.
_STATEFUL = {
    "ASSIGN_VARIABLE",
    "BIDIRECTIONAL_SEQUENCE_LSTM",
    "BIDIRECTIONAL_SEQUENCE_RNN",
    "LSTM",
    "RNN",
    "SVDF",
    "UNIDIRECTIONAL_SEQUENCE_LSTM",
    "UNIDIRECTIONAL_SEQUENCE_RNN",
}


def is_stateful(interpreter: Interpreter) -> bool:
    """Whether a model has operators that carry a state from one invocation to the next."""
    details = interpreter._get_ops_details()  # type: ignore[attr-defined]
    return not _STATEFUL.isdisjoint(detail["op_name"] for detail in details)


def has_resources(interpreter: Interpreter) -> bool:
    """Whether a model has variables that are no tensors, as TensorFlow's are."""
    details = interpreter._get_ops_details()  # type: ignore[attr-defined]
    return any(detail["op_name"] == "VAR_HANDLE" for detail in details)


def _specs(details: Mapping[str, Any]) -> tuple[TensorSpec, ...]:
    return tuple(_tensor(detail, name).spec for name, detail in details.items())


def _in_order(names: Mapping[str, int], details: Mapping[int, Any]) -> list[tuple[str, int]]:
    # Signature maps are sorted by name; the model's own order is that of its inputs and outputs. One tensor may
    # carry two names.
    position = {index: place for place, index in enumerate(details)}
    return sorted(names.items(), key=lambda item: position[item[1]])


def _tensor(detail: Mapping[str, Any], name: str) -> Tensor:
    fixed = [int(size) for size in detail["shape"]]
    # Absent in a model made before TFLite had dynamic shapes.
    signature = [int(size) for size in detail.get("shape_signature", fixed)]
    shape: list[int | str] = list(fixed)
    if len(signature) == len(fixed):
        shape = [
            size if size >= 0 else ("batch" if axis == 0 else f"dim{axis}")
            for axis, size in enumerate(signature)
        ]
    parameters = detail["quantization_parameters"]
    quantization = None
    if len(parameters["scales"]) and np.issubdtype(detail["dtype"], np.integer):
        quantization = Quantization(
            scale=tuple(float(scale) for scale in parameters["scales"]),
            zero_point=tuple(int(point) for point in parameters["zero_points"]),
            axis=int(parameters["quantized_dimension"]) if len(parameters["scales"]) > 1 else None,
        )
    dtype = "string" if detail["dtype"] is np.bytes_ else np.dtype(detail["dtype"]).name
    return Tensor(
        TensorSpec(name=name, shape=tuple(shape), dtype=dtype, quantization=quantization), detail["index"]
    )
