"""Reading a `.tflite` file itself: its operators in all graphs, its signature's order, what stayed float.

The interpreter shows only the main graph, with delegates in place; loops such as those of recurrent layers are graphs
of their own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from convert.libraries import load_library

__all__ = ["Operation", "in_order", "operations"]


@dataclass(frozen=True)
class Operation:
    """One operator in a graph.

    Attributes:
        name: The builtin operator's name, such as ``CONV_2D``.
        weights: Types of its constant inputs of two or more dimensions, seen through a `DEQUANTIZE` of constants.
        computes_float: Whether any tensor it reads or makes is float.
    """

    name: str
    weights: tuple[str, ...]
    computes_float: bool


def operations(content: bytes) -> list[Operation]:
    """The operators of every graph in a `.tflite` file, in order."""
    model = _schema().Model.GetRootAs(content, 0)
    return [
        operation
        for index in range(model.SubgraphsLength())
        for operation in _graph_operations(model, model.Subgraphs(index))
    ]


def in_order(content: bytes, inputs: tuple[str, ...], outputs: tuple[str, ...]) -> bytes:
    """The file with the main graph's inputs and outputs in the order of these signature names.

    TensorFlow sorts the names of a signature; the model's own order is put back. A file whose signature does not have
    exactly these names, each a tensor of its own, is returned as it is.
    """
    changed = bytearray(content)
    model = _schema().Model.GetRootAs(changed, 0)
    if model.SignatureDefsLength() != 1:
        return content
    signature = model.SignatureDefs(0)
    graph = model.Subgraphs(signature.SubgraphIndex())
    for names, tensor_map, length, places in (
        (inputs, signature.Inputs, signature.InputsLength(), graph.InputsAsNumpy()),
        (outputs, signature.Outputs, signature.OutputsLength(), graph.OutputsAsNumpy()),
    ):
        index_of = {tensor_map(i).Name().decode(): tensor_map(i).TensorIndex() for i in range(length)}
        wanted = [index_of[name] for name in names if name in index_of]
        if Counter(wanted) != Counter(places.tolist()) or len(set(wanted)) != len(names):
            return content
        places[:] = wanted  # a view of `changed`
    return bytes(changed)


def _graph_operations(model: Any, graph: Any) -> Iterator[Operation]:
    type_names, operator_names = _names("TensorType"), _names("BuiltinOperator")
    # Constants, and what a DEQUANTIZE makes of constants, by tensor index: the type they are stored in.
    stored: dict[int, str] = {}
    for index in range(graph.TensorsLength()):
        tensor = graph.Tensors(index)
        buffer = model.Buffers(tensor.Buffer())
        if tensor.ShapeLength() >= 2 and (buffer.DataLength() > 0 or buffer.Size() > 0):
            stored[index] = type_names[tensor.Type()]
    for place in range(graph.OperatorsLength()):
        operator = graph.Operators(place)
        code = model.OperatorCodes(operator.OpcodeIndex())
        name = operator_names[max(code.BuiltinCode(), code.DeprecatedBuiltinCode())]
        reads = (
            [index for index in operator.InputsAsNumpy().tolist() if index >= 0]
            if operator.InputsLength()
            else []
        )
        makes = operator.OutputsAsNumpy().tolist() if operator.OutputsLength() else []
        if name == "DEQUANTIZE" and reads[0] in stored:
            stored[makes[0]] = stored[reads[0]]
        types = {type_names[graph.Tensors(index).Type()] for index in (*reads, *makes)}
        yield Operation(name, tuple(stored[index] for index in reads if index in stored), "FLOAT32" in types)


@cache
def _schema() -> Any:
    return load_library("ai_edge_litert.schema_py_generated")


@cache
def _names(enumeration: str) -> dict[int, str]:
    return {
        value: name
        for name, value in vars(getattr(_schema(), enumeration)).items()
        if isinstance(value, int) and not name.startswith("_")
    }
