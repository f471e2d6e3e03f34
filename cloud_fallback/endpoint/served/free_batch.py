"""A `.tflite` that takes one row at a time, made to take any number: converters fix the batch at one by default.

Only what has no more to it than that is changed: the first axis of inputs and outputs, and the target shapes between
them that spell it out. Whether rows then still go their own ways is tried, and not concluded.
"""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np

from edge_runtime.alike import alike
from edge_runtime.errors import HybridgeError
from edge_runtime.model import Model
from edge_runtime.tensor_spec import Array, TensorSpec

__all__ = ["free_batch"]

# Of the schema of `.tflite` files.
_RESHAPE = 22
_IDENTIFIER = b"TFL3"
# Kernels read data 16 bytes at once; what is generated for Python does not know that the schema says so.
_ALIGNMENT = 16
# Offsets in a flatbuffer are signed and 32 bits wide; larger files keep data outside of it.
_LARGEST_BYTES = 2**31 - 2**24
_ROWS_TRIED = 3
# Of the largest finite value: rows beside each other may be added up in another order than each alone.
_TOLERANCE = 1e-5


def free_batch(content: bytes, *, num_threads: int = 1) -> bytes | None:
    """The file with a free first axis where it has one of size 1.

    Args:
        content: A `.tflite` file.
        num_threads: For the runs that try it.

    Returns:
        The new file, which for any number of rows gives what the old one gives for each; or None for a model that
        cannot be changed so: it has another batch, carries a state, has a graph within its graph, or mixes its rows.
    """
    if len(content) > _LARGEST_BYTES:
        return None
    try:
        schema = importlib.import_module("ai_edge_litert.schema_py_generated")
    except ModuleNotFoundError:
        # Other packages of the interpreter do not bring it.
        return None
    model = schema.ModelT.InitFromPackedBuf(content, 0)
    if len(model.subgraphs) != 1 or not _free(model):
        return None
    freed = _pack(model)
    try:
        one, many = Model(content, num_threads=num_threads), Model(freed, num_threads=num_threads)
        is_other = any(spec.is_dynamic or spec.dtype == "string" for spec in one.inputs)
        if one.stateful or is_other or not _rows_stay_apart(one, many):
            return None
        return freed
    except HybridgeError:
        return None


def _free(model: Any) -> bool:
    """Frees the first axis of a model's inputs and outputs, and of what is reshaped on the way; whether it could."""
    (graph,) = model.subgraphs
    ends = [graph.tensors[index] for index in (*graph.inputs, *graph.outputs)]
    if not ends or not all(_has_one_row(tensor) for tensor in ends):
        return False
    for tensor in ends:
        tensor.shapeSignature = np.array([-1, *tensor.shape[1:]], np.int32)
    for operator in graph.operators:
        code = model.operatorCodes[operator.opcodeIndex]
        if max(code.builtinCode, code.deprecatedBuiltinCode) != _RESHAPE:
            continue
        result = graph.tensors[operator.outputs[0]]
        if not _has_one_row(graph.tensors[operator.inputs[0]]) or not _has_one_row(result):
            continue
        target = np.array([-1, *result.shape[1:]], np.int32)
        if operator.builtinOptions is not None:
            operator.builtinOptions.newShape = target
        if len(operator.inputs) > 1:
            # Of its own: others may use the same numbers for something else.
            given, shape, *more = operator.inputs
            operator.inputs = [given, _add_constant(model, graph, shape, target), *more]
    return True


def _has_one_row(tensor: Any) -> bool:
    return tensor.shape is not None and len(tensor.shape) > 0 and tensor.shape[0] == 1


def _add_constant(model: Any, graph: Any, index: int, values: Array) -> int:
    """A constant like another, but for its values; a shape that is computed is left as it is."""
    old = graph.tensors[index]
    if model.buffers[old.buffer].data is None:
        return index
    buffer, tensor = type(model.buffers[0])(), type(old)()
    buffer.data = np.frombuffer(values.tobytes(), np.uint8)
    model.buffers.append(buffer)
    tensor.name, tensor.type = (old.name or b"") + b"/free", old.type
    tensor.shape, tensor.buffer = np.array([len(values)], np.int32), len(model.buffers) - 1
    graph.tensors.append(tensor)
    return len(graph.tensors) - 1


def _pack(model: Any) -> bytes:
    flatbuffers = importlib.import_module("flatbuffers")

    class Builder(flatbuffers.Builder):  # type: ignore[misc, name-defined]
        def StartVector(self, size: int, count: int, alignment: int) -> Any:  # noqa: N802
            return super().StartVector(size, count, max(alignment, _ALIGNMENT) if size == 1 else alignment)

    builder = Builder(1 << 20)
    builder.Finish(model.Pack(builder), file_identifier=_IDENTIFIER)
    return bytes(builder.Output())


def _rows_stay_apart(one: Model, many: Model) -> bool:
    """Whether rows of noise that run together come to what each comes to alone."""
    generator = np.random.default_rng(0)
    rows = [{spec.name: _noise(spec, generator) for spec in one.inputs} for _ in range(_ROWS_TRIED)]
    together = many.run({name: np.concatenate([row[name] for row in rows]) for name in rows[0]})
    if any(array.shape[:1] != (_ROWS_TRIED,) for array in together.values()):
        return False
    return all(
        alike(
            one.run(row),
            {name: array[index : index + 1] for name, array in together.items()},
            tolerance=_TOLERANCE,
            others_equal=True,
        )
        for index, row in enumerate(rows)
    )


def _noise(spec: TensorSpec, generator: np.random.Generator) -> Array:
    shape, dtype = tuple(map(int, spec.shape)), np.dtype(spec.dtype)
    if spec.quantization is not None or dtype.itemsize == 1:
        if dtype.kind == "b":
            return generator.integers(0, 2, shape).astype(dtype)
        limits = np.iinfo(dtype)
        return generator.integers(limits.min, limits.max, shape, dtype=dtype, endpoint=True)
    if dtype.kind in "iu":
        # They may be indices, and every table has two rows.
        return generator.integers(0, 2, shape).astype(dtype)
    return generator.standard_normal(shape).astype(dtype)
