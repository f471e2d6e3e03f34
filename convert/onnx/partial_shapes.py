"""Arithmetic on shapes of which some sizes are known only as the model runs.

Exporters leave chains such as Shape, Slice, Concat, Reshape behind. Where a dimension stays free these cannot be
computed at conversion, but most of their elements are known all the same; element by element the known ones stay
numbers, so that later operators know all sizes but the free one.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from convert.libraries import load_library
from convert.onnx.node import Node
from convert.onnx.value import Value
from edge_runtime.tensor_spec import Array

__all__ = ["array_of", "elements_of", "from_elements", "propagated"]


def from_elements(elements: Array) -> Value:
    """A value of integers from an array of numbers and of scalar int64 tensors; a constant if all are numbers."""
    tensorflow = load_library("tensorflow")
    flat = list(elements.reshape(-1))
    if all(_is_known(each) for each in flat):
        return Value.constant(elements.astype(np.int64))
    scalars = [tensorflow.cast(each, tensorflow.int64) for each in flat]
    tensor = (
        scalars[0] if elements.ndim == 0 else tensorflow.reshape(tensorflow.stack(scalars), elements.shape)
    )
    value = Value.of(tensor, np.int64)
    value.elements = elements
    return value


def elements_of(value: Value | None) -> Array | None:
    """The elements of a value of integers as far as they are known one by one."""
    if value is None:
        return None
    if value.array is not None:
        return value.array.astype(object) if value.dtype.kind == "i" else None
    return value.elements


def propagated(node: Node, inputs: Sequence[Value | None]) -> Value | None:
    """The result of an operator on partly known integers; None where nothing is gained, or it is not of that kind."""
    rule = _RULES.get(node.operator)
    if (
        rule is None
        or node.domain
        or not any(value is not None and value.elements is not None for value in inputs)
    ):
        return None
    operands = [elements_of(value) for value in inputs]
    if any(value is not None and each is None for value, each in zip(inputs, operands, strict=True)):
        return None
    result = rule(node, *operands)
    if result is None:
        return None
    return from_elements(result if isinstance(result, np.ndarray) else array_of([result]).reshape(()))


def array_of(elements: Sequence[Any]) -> Array:
    """An array of numbers and tensors; numpy itself would look into the tensors."""
    array = np.empty(len(elements), object)
    for index, element in enumerate(elements):
        array[index] = element
    return array


def _is_known(element: Any) -> bool:
    return isinstance(element, int | np.integer)


def _gather(node: Node, x: Array, indices: Array) -> Array | None:
    if not all(map(_is_known, indices.reshape(-1))):
        return None
    taken: Array = np.take(x, indices.astype(np.int64), axis=node.attribute("axis", 0))
    return taken


def _slice(
    x: Array, starts: Array, ends: Array, _axes: Array | None = None, steps: Array | None = None
) -> Array | None:
    if x.ndim != 1 or len(starts) != 1:
        return None
    step = 1 if steps is None else steps[0]
    if not all(map(_is_known, (starts[0], ends[0], step))):
        return None
    sliced: Array = x[int(starts[0]) : int(ends[0]) : int(step)]
    return sliced


def _slice_by_attributes(node: Node, x: Array, *inputs: Array) -> Array | None:
    if inputs:
        return _slice(x, *inputs)
    return _slice(x, np.array(node.attribute("starts"), object), np.array(node.attribute("ends"), object))


def _concat(node: Node, *parts: Array) -> Array:
    joined: Array = np.concatenate(parts, axis=node.attribute("axis", 0))
    return joined


def _cast(node: Node, x: Array) -> Array | None:
    onnx = load_library("onnx")
    return x if node.attribute("to") in (onnx.TensorProto.INT64, onnx.TensorProto.INT32) else None


def _axes(node: Node, axes: Array | None) -> tuple[int, ...] | None:
    given = node.attribute("axes") if axes is None else axes.reshape(-1)
    return None if given is None else tuple(int(each) for each in given)


def _squeeze(node: Node, x: Array, axes: Array | None = None) -> Array:
    return np.squeeze(x, _axes(node, axes))


def _unsqueeze(node: Node, x: Array, axes: Array | None = None) -> Array:
    return np.expand_dims(x, _axes(node, axes) or (0,))


def _divide(_node: Node, a: Array, b: Array) -> Array:
    # Of sizes, which are not negative, the quotient is cut off as ONNX wants it.
    quotient: Array = np.frompyfunc(operator.floordiv, 2, 1)(a, b)
    return quotient


_RULES: dict[str, Callable[..., Any]] = {
    "Add": lambda _node, a, b: a + b,
    "Cast": _cast,
    "Concat": _concat,
    "Div": _divide,
    "Gather": _gather,
    "Identity": lambda _node, x: x,
    "Mul": lambda _node, a, b: a * b,
    "Slice": _slice_by_attributes,
    "Squeeze": _squeeze,
    "Sub": lambda _node, a, b: a - b,
    "Unsqueeze": _unsqueeze,
}
