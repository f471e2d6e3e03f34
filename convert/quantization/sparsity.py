"""Weights with many zeros stored without them, for the runtime to unpack when it loads a model.

A weight is written as the places and values of what is not zero, in the form that the schema calls sparsity
parameters (compressed rows, one dimension sparse), and an operator ``DENSIFY`` unpacks it. LiteRT does so once, when
tensors are allocated: nothing changes in what a run computes or how long it takes. Without XNNPACK, half-precision and
weight-only models are dequantised anew in each run, which takes them some three times as long.

Weights that kernels read as int8 stay dense. XNNPACK refuses a model that unpacks them, and reads sparse ones that are
not unpacked as if they were dense: wrong results, without an error.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from convert.quantization.flatbuffer import builtin_names, schema, type_names
from convert.quantization.packing import pack, unpack
from edge_runtime.tensor_spec import Array

__all__ = ["SparseWeight", "SparsityReport", "encode_sparse"]

# Smaller weights and those with fewer zeros are not worth a line in a report.
_SMALLEST = 1024
_FEWEST_ZEROS = 0.3
# What an operator, a second tensor and the descriptions of its dimensions take beside the values.
_OVERHEAD = 400
# What the schema has vectors of, by their width in bytes.
_INDEX_TYPES = {1: np.uint8, 2: np.uint16, 4: np.int32}
_NUMPY_TYPES = {"FLOAT32": np.float32, "FLOAT16": np.float16, "INT8": np.int8}


@dataclass(frozen=True)
class SparseWeight:
    """A weight with many zeros.

    Attributes:
        name: Of its tensor.
        dtype: The type it is stored in.
        zeros: Share of its elements that are zero.
        before: Bytes of its data when dense.
        after: Bytes now.
        reason: Why it stayed dense; empty where it did not.
    """

    name: str
    dtype: str
    zeros: float
    before: int
    after: int
    reason: str = ""


@dataclass(frozen=True)
class SparsityReport:
    """What storing weights without their zeros did to a file.

    Attributes:
        before: Bytes of the file.
        after: Bytes of it now.
        weights: Those with many zeros, in the order of the file.
    """

    before: int
    after: int
    weights: tuple[SparseWeight, ...] = ()

    def sentences(self) -> list[str]:
        """What happened and what did not, for a person; empty for a model without zeros."""
        stored = [each for each in self.weights if not each.reason]
        lines = []
        if stored:
            lines.append(
                f"{len(stored)} weights stored without their zeros: {self.before:,} to {self.after:,} bytes"
            )
        reasons: dict[str, list[SparseWeight]] = {}
        for each in self.weights:
            if each.reason:
                reasons.setdefault(each.reason, []).append(each)
        lines += [
            f"{len(dense)} weights of up to {max(each.zeros for each in dense):.0%} zeros stored dense: {reason}"
            for reason, dense in reasons.items()
        ]
        return lines


def encode_sparse(content: bytes) -> tuple[bytes, SparsityReport]:
    """Stores those weights of a `.tflite` without their zeros that get smaller by it.

    Args:
        content: The file.

    Returns:
        The file, with the same names, order, signature and results, or `content` itself where nothing gets smaller;
        and what was done. The same file gives the same bytes.
    """
    report = SparsityReport(len(content), len(content))
    candidates = _candidates(content)
    if not candidates:
        return content, report
    read_as_int8 = _read_as_int8(content)
    encoded = {
        key: None if key in read_as_int8 else _encoded(values) for key, (_, values) in candidates.items()
    }
    chosen = {
        key: encoding
        for key, encoding in encoded.items()
        if encoding is not None and encoding.size + _OVERHEAD < candidates[key][1].nbytes
    }
    after = content
    if chosen:
        packed = _with_sparse(content, {key: (candidates[key][1], each) for key, each in chosen.items()})
        if len(packed) < len(content):
            after = packed
        else:
            chosen = {}
    weights = tuple(
        _described(name, values, encoded[key], stored=key in chosen)
        for key, (name, values) in candidates.items()
    )
    return after, SparsityReport(len(content), len(after), weights)


@dataclass(frozen=True)
class _Encoding:
    """A weight in compressed rows: every dimension dense but one, which comes last."""

    order: tuple[int, ...]
    segments: Array
    indices: Array
    values: Array

    @property
    def size(self) -> int:
        return int(self.segments.nbytes + self.indices.nbytes + self.values.nbytes)


def _candidates(content: bytes) -> dict[tuple[int, int], tuple[str, Array]]:
    """Names and values of constants with many zeros, by graph and index of their tensor."""
    model = schema().Model.GetRootAs(content, 0)
    if any(model.Buffers(index).Size() for index in range(model.BuffersLength())):
        return {}  # data outside of the flatbuffer, at offsets that packing anew would break
    found = {}
    shared = _shared_buffers(model)
    for graph_index in range(model.SubgraphsLength()):
        graph = model.Subgraphs(graph_index)
        for index in range(graph.TensorsLength()):
            tensor = graph.Tensors(index)
            buffer, dtype = model.Buffers(tensor.Buffer()), type_names()[tensor.Type()]
            if dtype not in _NUMPY_TYPES or tensor.ShapeLength() < 2 or buffer.DataLength() < _SMALLEST:
                continue
            if tensor.Sparsity() is not None or tensor.IsVariable() or tensor.Buffer() in shared:
                continue
            values = buffer.DataAsNumpy().view(_NUMPY_TYPES[dtype]).reshape(tensor.ShapeAsNumpy())
            if 1 - np.count_nonzero(values) / values.size >= _FEWEST_ZEROS:
                found[graph_index, index] = (tensor.Name().decode(), values)
    return found


def _shared_buffers(model: Any) -> set[int]:
    """Buffers of more than one tensor: a sparse copy would come on top."""
    seen: set[int] = set()
    shared: set[int] = set()
    for graph in map(model.Subgraphs, range(model.SubgraphsLength())):
        for index in range(graph.TensorsLength()):
            buffer = graph.Tensors(index).Buffer()
            (shared if buffer in seen else seen).add(buffer)
    return shared


def _read_as_int8(content: bytes) -> set[tuple[int, int]]:
    """Graph and index of int8 tensors that another operator than `DEQUANTIZE` reads."""
    model = schema().Model.GetRootAs(content, 0)
    casts = {
        index
        for index in range(model.OperatorCodesLength())
        if builtin_names()[model.OperatorCodes(index).BuiltinCode()] == "DEQUANTIZE"
    }
    found = set()
    for graph_index in range(model.SubgraphsLength()):
        graph = model.Subgraphs(graph_index)
        for operator in map(graph.Operators, range(graph.OperatorsLength())):
            if operator.OpcodeIndex() not in casts and operator.InputsLength():
                found |= {(graph_index, index) for index in operator.InputsAsNumpy().tolist()}
    return {
        (graph_index, index)
        for graph_index, index in found
        if index >= 0 and type_names()[model.Subgraphs(graph_index).Tensors(index).Type()] == "INT8"
    }


def _encoded(values: Array) -> _Encoding:
    """The smallest of the encodings with one sparse dimension."""
    total = int(np.count_nonzero(values))

    def size(axis: int) -> int:
        length = values.shape[axis]
        rows = values.size // length
        return int(total * _width(length - 1) + (rows + 1) * _width(total))

    axis = min(range(values.ndim), key=lambda each: (size(each), -each))
    order = (*(each for each in range(values.ndim) if each != axis), axis)
    rows = np.ascontiguousarray(values.transpose(order)).reshape(-1, values.shape[axis])
    present = rows != 0
    segments = np.concatenate([[0], np.cumsum(np.count_nonzero(present, axis=1))])
    return _Encoding(
        order,
        segments=segments.astype(_INDEX_TYPES[_width(total)]),
        indices=np.nonzero(present)[1].astype(_INDEX_TYPES[_width(values.shape[axis] - 1)]),
        values=rows[present],
    )


def _width(largest: int) -> int:
    """Bytes of the narrowest index vector that holds a number."""
    return 1 if largest < 1 << 8 else 2 if largest < 1 << 16 else 4


def _described(name: str, values: Array, encoding: _Encoding | None, *, stored: bool) -> SparseWeight:
    zeros = 1 - float(np.count_nonzero(values)) / values.size
    reason = ""
    if encoding is None:
        reason = "the runtime's int8 kernels take no sparse weights; over the air the zeros still deflate"
    elif not stored:
        reason = "places and values of what is not zero would take more than the zeros do"
    after = encoding.size if stored and encoding is not None else values.nbytes
    dtype = next(key for key, kind in _NUMPY_TYPES.items() if kind == values.dtype)
    return SparseWeight(name, dtype, zeros, values.nbytes, after, reason)


def _with_sparse(content: bytes, chosen: dict[tuple[int, int], tuple[Array, _Encoding]]) -> bytes:
    types = schema()
    model = unpack(content)
    code = types.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = types.BuiltinOperator.DENSIFY
    code.version = 1
    model.operatorCodes.append(code)
    unpacking: dict[int, list[Any]] = {}
    for (graph_index, index), (values, encoding) in chosen.items():
        graph = model.subgraphs[graph_index]
        dense = graph.tensors[index]
        sparse = types.TensorT()
        sparse.name, sparse.shape, sparse.type = dense.name + b"/sparse", dense.shape, dense.type
        sparse.quantization = dense.quantization
        # The dense one's buffer has no other owner and takes the values; an empty one marks what is computed.
        sparse.buffer, dense.buffer = dense.buffer, 0
        sparse.sparsity = _parameters(values, encoding)
        model.buffers[sparse.buffer].data = encoding.values.view(np.uint8)
        graph.tensors.append(sparse)
        operator = types.OperatorT()
        operator.opcodeIndex = len(model.operatorCodes) - 1
        operator.inputs, operator.outputs = [len(graph.tensors) - 1], [index]
        operator.builtinOptionsType = types.BuiltinOptions.DensifyOptions
        operator.builtinOptions = types.DensifyOptionsT()
        unpacking.setdefault(graph_index, []).append(operator)
    for graph_index, operators in unpacking.items():
        graph = model.subgraphs[graph_index]
        graph.operators = operators + list(graph.operators)
    return pack(model)


def _parameters(values: Array, encoding: _Encoding) -> Any:
    types = schema()
    parameters = types.SparsityParametersT()
    parameters.traversalOrder = np.array(encoding.order, np.int32)
    parameters.dimMetadata = []
    for axis in encoding.order[:-1]:
        dimension = types.DimensionMetadataT()
        dimension.format, dimension.denseSize = types.DimensionType.DENSE, values.shape[axis]
        parameters.dimMetadata.append(dimension)
    dimension = types.DimensionMetadataT()
    dimension.format = types.DimensionType.SPARSE_CSR
    dimension.arraySegmentsType, dimension.arraySegments = _index_vector(encoding.segments)
    dimension.arrayIndicesType, dimension.arrayIndices = _index_vector(encoding.indices)
    parameters.dimMetadata.append(dimension)
    return parameters


def _index_vector(numbers: Array) -> tuple[int, Any]:
    types = schema()
    name = {1: "Uint8Vector", 2: "Uint16Vector", 4: "Int32Vector"}[numbers.itemsize]
    vector = getattr(types, f"{name}T")()
    vector.values = numbers
    return getattr(types.SparseIndexVector, name), vector
