"""Elements gathered at indices, chosen by conditions, and turned round in sequences."""

from __future__ import annotations

from typing import Any

import numpy as np

from convert.libraries import load_library
from convert.onnx.node import Node
from convert.onnx.operators.elementwise import is_nonzero
from convert.onnx.operators.shape import shape_tensor
from convert.onnx.problems import Unsupported
from convert.onnx.registry import operator
from convert.onnx.value import Order, Value

__all__ = ["from_the_end", "known_sizes"]

tf = load_library("tensorflow")


def from_the_end(indices: Value, sizes: Any, order: Order | None = None) -> Any:
    """Indices as an int32 tensor, in which those that count from the end count from the start.

    Args:
        indices: The indices.
        sizes: Size of the axis that they index, or one for each of their last axis; numbers or a tensor.
        order: In which order their axes shall be stored; as they are named without it.
    """
    if indices.array is not None and not tf.is_tensor(sizes):
        array = np.where(indices.array < 0, indices.array + np.asarray(sizes), indices.array)
        return Value.constant(array.astype(np.int32)).stored_as(order or tuple(range(array.ndim)))
    tensor = indices.tensor if order is None else indices.stored_as(order)
    tensor = tf.cast(tensor, tf.int32)
    return tf.where(tensor < 0, tensor + tf.cast(sizes, tf.int32), tensor)


def known_sizes(x: Value) -> list[int]:
    """The sizes of a value's axes.

    Raises:
        Unsupported: Where one is not known.
    """
    if None in x.shape:
        raise Unsupported("the size of its input is not known", "fix it with --input NAME:SHAPE")
    return [int(size) for size in x.shape if size is not None]


@operator("GatherElements")
def gather_elements(node: Node, x: Value, indices: Value) -> Value:
    """Along an axis, one element for each index; the other axes are those of the indices."""
    axis = node.attribute("axis", 0) % x.rank
    sizes, wanted = known_sizes(x), known_sizes(indices)
    order: Order = (*(each for each in x.order if each != axis), axis)
    index = from_the_end(indices, sizes[axis], order)
    tensor = x.stored_as(order)
    begun = [wanted[each] if each != axis else sizes[axis] for each in order]
    if begun != [sizes[each] for each in order]:
        tensor = tf.slice(tensor, [0] * x.rank, begun)
    rows = int(np.prod(begun[:-1]))
    flat = tf.gather(
        tf.reshape(tensor, [rows, begun[-1]]), tf.reshape(index, [rows, wanted[axis]]), axis=1, batch_dims=1
    )
    return Value.of(tf.reshape(flat, [wanted[each] for each in order]), x.dtype, order)


@operator("GatherND")
def gather_nd(node: Node, x: Value, indices: Value) -> Value:
    """Parts of the tensor at indices of several axes, which are the last axis of the indices."""
    batch = node.attribute("batch_dims", 0)
    count = indices.shape[-1]
    if count is None:
        raise Unsupported("the size of its indices is not known", "fix it with --input NAME:SHAPE")
    indexed = x.shape[batch : batch + count]
    sizes = shape_tensor(x)[batch : batch + count] if None in indexed else list(indexed)
    return Value.of(tf.gather_nd(x.tensor, from_the_end(indices, sizes), batch_dims=batch), x.dtype)


@operator("Compress")
def compress(node: Node, x: Value, condition: Value) -> Value:
    """The slices along an axis, or the elements without one, for which a condition holds."""
    axis = node.attributes.get("axis")
    tensor, stored = (x.flat, x.stored_axis(axis)) if axis is not None else (tf.reshape(x.tensor, [-1]), 0)
    if condition.array is not None:
        index = tf.constant(np.flatnonzero(condition.array).astype(np.int32))
    else:
        index = tf.reshape(tf.cast(tf.where(condition.tensor), tf.int32), [-1])
    result = tf.gather(tensor, index, axis=stored)
    return Value.of(result, x.dtype) if axis is None else x.like(result)


@operator("NonZero")
def non_zero(_node: Node, x: Value) -> Value:
    """The indices of elements that are not zero, (axes, elements)."""
    if x.rank == 0:
        raise Unsupported("the elements of a scalar that are not zero", "give it an axis with Unsqueeze")
    return Value.of(tf.where(is_nonzero(x.tensor)), np.int64).transposed([1, 0])


@operator("OneHot")
def one_hot(node: Node, indices: Value, depth: Value, values: Value) -> Value:
    """A new axis that is on where its index is, and off elsewhere; indices out of range are on nowhere."""
    axis = node.attribute("axis", -1) % (indices.rank + 1)
    count = (
        int(depth.array.item())
        if depth.array is not None
        else tf.cast(tf.reshape(depth.tensor, []), tf.int32)
    )
    # Not by `unstack`, of which a device has no form for int64.
    pair = values.tensor
    off, on = pair[0], pair[1]
    result = tf.one_hot(
        from_the_end(indices, count), count, on_value=on, off_value=off, axis=axis, dtype=on.dtype
    )
    return Value.of(result, values.dtype)


@operator("ReverseSequence")
def reverse_sequence(node: Node, x: Value, lengths: Value) -> Value:
    """Each sequence of a batch backwards, up to its length."""
    tensor = x.flat
    held = tf.cast(tensor, tf.int32) if tensor.dtype == tf.bool else tensor
    result = tf.reverse_sequence(
        held,
        lengths.tensor,
        seq_axis=x.stored_axis(node.attribute("time_axis", 0)),
        batch_axis=x.stored_axis(node.attribute("batch_axis", 1)),
    )
    return x.like(tf.cast(result, tensor.dtype))
