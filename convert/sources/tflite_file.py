"""What a `.tflite` file must be to be a source, and the changes that make it one: one signature, fixed sizes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from convert.quantization.flatbuffer import builtin_names, schema, type_names
from convert.sources.export import SIGNATURE_KEY
from edge_runtime.errors import ErrorCode, HybridgeError
from edge_runtime.interpreter import Interpreter
from edge_runtime.tensor_spec import Array

__all__ = [
    "check_source",
    "fix_sizes",
    "keep_signature",
    "signature_keys",
    "weight_bytes",
    "widen",
    "with_wide_codes",
]

_QUANTISED = ("INT4", "INT2", "INT8", "UINT8", "INT16")
_HALF = ("FLOAT16", "BFLOAT16")
_STATEFUL = ("VAR_HANDLE", "READ_VARIABLE", "ASSIGN_VARIABLE")


def signature_keys(model: Any) -> tuple[str, ...]:
    """Names of its signatures."""
    return tuple(signature.signatureKey.decode() for signature in model.signatureDefs or ())


def keep_signature(model: Any, key: str | None) -> bool:
    """Leaves one signature and the graphs that it runs, its own first.

    Args:
        model: The file, changed in place.
        key: Which; None for a file that has none, which gets one of its tensors' names.

    Returns:
        Whether anything changed.
    """
    if key is None:
        model.signatureDefs = [_named_by_tensors(model.subgraphs[0])]
        return True
    (kept,) = (each for each in model.signatureDefs if each.signatureKey.decode() == key)
    if len(model.signatureDefs) == 1 and kept.subgraphIndex == 0:
        return False
    order = _reachable(model, kept.subgraphIndex)
    place = {old: new for new, old in enumerate(order)}
    model.subgraphs = [model.subgraphs[old] for old in order]
    for options, field in _graph_references(model.subgraphs):
        setattr(options, field, place[getattr(options, field)])
    kept.subgraphIndex = 0
    model.signatureDefs = [kept]
    _drop_unused_data(model)
    return True


def with_wide_codes(model: Any) -> bool:
    """Names operators in the field that today's tools read, too.

    Converters before the end of 2020 wrote a field of eight bits alone, and what reads the other one takes every
    operator for an addition: litert-quantizer quantises such a file to nonsense.

    Args:
        model: The file, changed in place.

    Returns:
        Whether anything changed.
    """
    old = [code for code in model.operatorCodes if code.builtinCode < code.deprecatedBuiltinCode]
    for code in old:
        code.builtinCode = code.deprecatedBuiltinCode
    return bool(old)


def widen(model: Any) -> bool:
    """Stores weights of half precision, which are widened before each use, as the float32 that they become.

    Nothing changes in what is computed.

    Args:
        model: The file, changed in place.

    Returns:
        Whether there were any.
    """
    names = builtin_names()
    dequantize = {
        index
        for index, code in enumerate(model.operatorCodes)
        if names[max(code.builtinCode, code.deprecatedBuiltinCode)] == "DEQUANTIZE"
    }
    halves: list[Any] = []
    for graph in model.subgraphs:
        kept = []
        for operator in graph.operators or ():
            source = graph.tensors[operator.inputs[0]] if operator.opcodeIndex in dequantize else None
            data = _data(model, source) if source and type_names()[source.type] == "FLOAT16" else None
            if data is None:
                kept.append(operator)
                continue
            buffer = schema().BufferT()
            buffer.data = np.frombuffer(data.tobytes(), np.float16).astype(np.float32).view(np.uint8)
            graph.tensors[operator.outputs[0]].buffer = len(model.buffers)
            model.buffers.append(buffer)
            halves.append(source)
        graph.operators = kept
    for tensor in halves:
        # Nothing reads it any more; it stays, without its data, so that tensors keep their indices.
        tensor.type, tensor.buffer = schema().TensorType.FLOAT32, 0
    if halves:
        _drop_unused_data(model)
    return bool(halves)


def check_source(model: Any, name: str) -> None:
    """Refuses a file that cannot be shrunk, or whose outputs depend on more than its inputs.

    Raises:
        HybridgeError: `source-invalid`.
    """
    types = type_names()
    for graph in model.subgraphs:
        for tensor in graph.tensors:
            dtype, quantization = types[tensor.type], tensor.quantization
            scaled = quantization is not None and quantization.scale is not None and len(quantization.scale)
            if (dtype in _QUANTISED and scaled) or (dtype in _HALF and _data(model, tensor) is not None):
                raise _invalid(
                    name,
                    received=f"a file that is already quantised ({dtype.lower()} tensor '{tensor.name.decode()}')",
                    expected="a float32 .tflite",
                    fix="convert the float model that it was made from",
                )
    names = {
        builtin_names()[max(code.builtinCode, code.deprecatedBuiltinCode)] for code in _used_codes(model)
    }
    stateful = sorted(names.intersection(_STATEFUL))
    stateful += [
        tensor.name.decode() for graph in model.subgraphs for tensor in graph.tensors if tensor.isVariable
    ]
    if stateful:
        raise _invalid(
            name,
            received=f"a model that keeps state from run to run ({', '.join(stateful[:3])})",
            expected="a model whose outputs depend on its inputs alone",
            fix="export it with its variables frozen, or its state as inputs and outputs",
        )


def weight_bytes(model: Any, name: str) -> int:
    """Bytes of its float constants.

    Raises:
        HybridgeError: `source-invalid` for values that are not finite.
    """
    total = 0
    for graph in model.subgraphs:
        for tensor in graph.tensors:
            data = _data(model, tensor)
            if data is None or type_names()[tensor.type] != "FLOAT32":
                continue
            values = np.frombuffer(data.tobytes(), np.float32)
            # A lone infinity is a bound that a mask or a padding uses.
            if np.isnan(values).any() or (values.size > 1 and not np.isfinite(values).all()):
                raise _invalid(
                    name,
                    received=f"weight '{tensor.name.decode()}' with values that are not finite",
                    expected="finite weights",
                    fix="train it again; its training diverged",
                )
            total += values.nbytes
    return total


def fix_sizes(model: Any, interpreter: Interpreter, sizes: Mapping[int, Sequence[int]]) -> None:
    """Fixes the sizes of inputs, and of all that follows from them.

    Args:
        model: The file, changed in place.
        interpreter: One for the same file.
        sizes: Shape of each input, by index of its tensor.

    Raises:
        RuntimeError, ValueError: From the interpreter, for sizes that the model cannot have.
    """
    for index, shape in sizes.items():
        interpreter.resize_tensor_input(index, list(shape))
    interpreter.allocate_tensors()
    details = {detail["index"]: detail for detail in interpreter.get_tensor_details()}  # type: ignore[attr-defined]
    for index, tensor in enumerate(model.subgraphs[0].tensors):
        free = tensor.shapeSignature is not None and -1 in tensor.shapeSignature
        if not free or index not in details:
            continue
        if index in sizes or _is_allocated(interpreter, index):
            tensor.shape = np.array(details[index]["shape"], np.int32)
            tensor.shapeSignature = None


def _is_allocated(interpreter: Interpreter, index: int) -> bool:
    # A tensor whose size depends on values has no memory before it is computed.
    try:
        interpreter.get_tensor(index)
    except ValueError:
        return False
    return True


def _named_by_tensors(graph: Any) -> Any:
    types = schema()
    signature = types.SignatureDefT()
    signature.signatureKey = SIGNATURE_KEY.encode()
    signature.subgraphIndex = 0
    signature.inputs = _tensor_map(graph, graph.inputs, "input")
    signature.outputs = _tensor_map(graph, graph.outputs, "output")
    return signature


def _tensor_map(graph: Any, indices: Sequence[int], kind: str) -> list[Any]:
    names = [graph.tensors[index].name or b"" for index in indices]
    if len(set(names)) != len(names) or b"" in names:
        names = [f"{kind}_{place}".encode() for place in range(len(names))]
    mapped = []
    for name, index in zip(names, indices, strict=True):
        entry = schema().TensorMapT()
        entry.name, entry.tensorIndex = name, int(index)
        mapped.append(entry)
    return mapped


def _graph_references(graphs: Sequence[Any]) -> Iterator[tuple[Any, str]]:
    """Where operators such as WHILE and IF say which graphs they run: options, and the field in them."""
    for graph in graphs:
        for operator in graph.operators or ():
            for options in (operator.builtinOptions, operator.builtinOptions2):
                for field in vars(options) if options is not None else ():
                    if field.endswith("SubgraphIndex") or field == "subgraph":
                        yield options, field


def _reachable(model: Any, first: int) -> list[int]:
    order = [first]
    for index in order:  # grows as it goes
        for options, field in _graph_references([model.subgraphs[index]]):
            if (target := getattr(options, field)) not in order:
                order.append(target)
    return order


def _drop_unused_data(model: Any) -> None:
    used = {tensor.buffer for graph in model.subgraphs for tensor in graph.tensors}
    used |= {entry.buffer for entry in model.metadata or ()}
    for index, buffer in enumerate(model.buffers):
        if index not in used:
            buffer.data = None


def _used_codes(model: Any) -> list[Any]:
    used = {operator.opcodeIndex for graph in model.subgraphs for operator in graph.operators or ()}
    return [model.operatorCodes[index] for index in sorted(used)]


def _data(model: Any, tensor: Any) -> Array | None:
    data: Array | None = model.buffers[tensor.buffer].data
    return data if data is not None and len(data) else None


def _invalid(name: str, *, received: str, expected: str, fix: str) -> HybridgeError:
    return HybridgeError(
        ErrorCode.SOURCE_INVALID, f"source model '{name}'", received=received, expected=expected, fix=fix
    )
