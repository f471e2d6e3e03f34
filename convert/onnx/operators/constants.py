"""Tensors that the graph makes from nothing, and values taken for another type."""

from __future__ import annotations

from typing import Any

import numpy as np

from convert.libraries import load_library
from convert.onnx.carriers import carrier, element_type, is_float, wrapped
from convert.onnx.node import Node
from convert.onnx.problems import Unsupported
from convert.onnx.registry import operator
from convert.onnx.value import Value

__all__ = ["cast_value"]

tf = load_library("tensorflow")


@operator("Constant")
def constant(node: Node) -> Value:
    """A tensor that the node has."""
    if "sparse_value" in node.attributes:
        from convert.onnx.model_file import dense

        return Value.constant(dense(node.attribute("sparse_value")))
    if "value" in node.attributes:
        return Value.constant(node.attribute("value"))
    for name, dtype in (
        ("value_float", np.float32),
        ("value_floats", np.float32),
        ("value_int", np.int64),
        ("value_ints", np.int64),
    ):
        if name in node.attributes:
            return Value.constant(node.attribute(name), dtype)
    raise Unsupported("a constant of text", "leave text to what runs before the model")


@operator("ConstantOfShape")
def constant_of_shape(node: Node, shape: Value) -> Value:
    """A tensor of one value."""
    value = np.asarray(node.attribute("value", np.zeros(1, np.float32))).reshape(())
    if shape.array is not None:
        sizes = shape.ints()
        if int(np.prod(sizes)) <= 1 << 16:
            return Value.constant(np.full(sizes, value))
    element = Value.constant(value)
    return Value.of(tf.fill(tf.cast(shape.tensor, tf.int32), element.tensor), value.dtype)


@operator("Range")
def arange(_node: Node, start: Value, limit: Value, delta: Value) -> Value:
    """Numbers from `start` to before `limit`."""
    tensors = [tf.reshape(each.tensor, []) for each in (start, limit, delta)]
    return Value.of(wrapped(tf.range(*tensors), start.dtype), start.dtype)


@operator("EyeLike")
def eye_like(node: Node, x: Value) -> Value:
    """Ones on a diagonal, in the shape of a matrix."""
    rows, columns = x.shape
    if rows is None or columns is None:
        raise Unsupported("the size of its input is not known", "fix it with --input NAME:SHAPE")
    dtype = element_type(node.attributes["dtype"]) if "dtype" in node.attributes else x.dtype
    return Value.constant(np.eye(rows, columns, k=node.attribute("k", 0)), dtype)


def cast_value(x: Value, dtype: np.dtype[Any]) -> Value:
    """The values in another type: fractions cut off, integers wrapped, everything but zero true."""
    if dtype == x.dtype:
        return x
    if x.array is not None and dtype.kind not in "OU" and x.array.dtype.kind not in "OU":
        with np.errstate(all="ignore"):
            return Value.constant(x.array.astype(dtype))
    if dtype.kind in "OU" or x.dtype.kind in "OU":
        raise Unsupported("text as the model runs", "leave text to what runs before the model")
    if dtype.name not in _KNOWN or x.dtype.name not in _KNOWN:
        raise Unsupported(
            f"values of type {dtype.name if dtype.name not in _KNOWN else x.dtype.name}",
            "export the model in float32",
        )
    tensor = x.flat
    if dtype == np.bool_:
        return x.like(tf.not_equal(tensor, tf.zeros((), tensor.dtype)), np.bool_)
    if is_float(dtype) and x.dtype == np.uint64:
        low = tf.cast(tensor, carrier(dtype))
        return x.like(tf.where(low < 0, low + 2.0**64, low), dtype)
    if carrier(dtype) != tensor.dtype.name:
        tensor = tf.cast(tensor, carrier(dtype))
    return x.like(wrapped(tensor, dtype), dtype)


# Of these the device can hold and convert values; the smaller formats have none.
_KNOWN = frozenset(
    (
        *("bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"),
        *("float16", "float32", "float64", "bfloat16"),
    )
)


@operator("Cast")
def cast(node: Node, x: Value) -> Value:
    """The values in another type."""
    return cast_value(x, element_type(int(node.attribute("to"))))


@operator("CastLike")
def cast_like(_node: Node, x: Value, target: Value) -> Value:
    """The values in the type of another tensor."""
    return cast_value(x, target.dtype)
