"""Running sums and products along an axis."""

from __future__ import annotations

from typing import Any

from convert.libraries import load_library
from convert.onnx.carriers import wrapped
from convert.onnx.node import Node
from convert.onnx.problems import Unsupported
from convert.onnx.registry import operator
from convert.onnx.value import Value

__all__: list[str] = []

tf = load_library("tensorflow")


@operator("CumSum")
def cumulative_sum(node: Node, x: Value, axis: Value) -> Value:
    """The sum of all elements up to each, along an axis."""
    kind = {name: bool(node.attribute(name, 0)) for name in ("exclusive", "reverse")}
    if axis.array is None:
        place = tf.cast(tf.reshape(axis.tensor, []), tf.int32)
        place = tf.where(place < 0, place + x.rank, place)
        return Value.of(wrapped(tf.cumsum(x.tensor, place, **kind), x.dtype), x.dtype)
    stored = x.stored_axis(int(axis.array.item()))
    return x.like(wrapped(tf.cumsum(x.flat, stored, **kind), x.dtype))


@operator("CumProd")
def cumulative_product(node: Node, x: Value, axis: Value) -> Value:
    """The product of all elements up to each, along an axis."""
    stored = x.stored_axis(node.known(axis, "axis")[0])
    tensor = x.flat
    if tensor.shape[stored] is None:
        raise Unsupported("the size of its axis is not known", "fix it with --input NAME:SHAPE")
    backwards = bool(node.attribute("reverse", 0))
    if node.attribute("exclusive", 0):
        tensor = _shifted(tensor, stored, 1, backwards)
    # Each step multiplies what covers n elements with what covers the n before them (Hillis and Steele 1986).
    reach = 1
    while reach < tensor.shape[stored]:
        tensor = tensor * _shifted(tensor, stored, reach, backwards)
        reach *= 2
    return x.like(wrapped(tensor, x.dtype))


def _shifted(tensor: Any, axis: int, by: int, backwards: bool) -> Any:
    """The tensor moved along an axis, ones following."""
    sizes = tensor.shape.as_list()
    kept = [slice(None)] * len(sizes)
    kept[axis] = slice(by, None) if backwards else slice(None, sizes[axis] - by)
    widths = [(0, 0)] * len(sizes)
    widths[axis] = (0, by) if backwards else (by, 0)
    return tf.pad(tensor[tuple(kept)], widths, constant_values=tf.ones((), tensor.dtype))
