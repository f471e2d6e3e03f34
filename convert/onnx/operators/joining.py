"""Parts of tensors: cut out, put together, and filled up at the edges."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from convert.libraries import load_library
from convert.onnx.node import Node
from convert.onnx.operators.shape import shape_tensor
from convert.onnx.problems import Unsupported
from convert.onnx.registry import operator
from convert.onnx.value import Value, identity

__all__ = ["padded", "sliced"]

tf = load_library("tensorflow")

_INT32 = np.iinfo(np.int32)


@operator("Concat")
def concat(node: Node, *values: Value) -> Value:
    """Values one after the other along an axis."""
    values = tuple(value for value in values if 0 not in value.shape) or values[:1]
    if len(values) == 1:
        return values[0]
    computed = [value for value in values if not value.is_constant]
    largest = max(
        computed, key=lambda value: int(np.prod([size or 64 for size in value.shape])), default=values[0]
    )
    order = largest.order
    axis = order.index(node.attribute("axis", 1) % largest.rank)
    return Value.of(tf.concat([value.stored_as(order) for value in values], axis), largest.dtype, order)


@operator("Split")
def split_by_attribute(node: Node, x: Value) -> list[Value]:
    """Parts along an axis, of sizes that the node has."""
    return _split(node, x, node.attribute("split"))


@operator("Split", since=13)
def split(node: Node, x: Value, sizes: Value | None = None) -> list[Value]:
    """Parts along an axis."""
    return _split(node, x, None if sizes is None else node.known(sizes, "sizes"))


def _split(node: Node, x: Value, sizes: list[int] | None) -> list[Value]:
    axis = node.attribute("axis", 0) % x.rank
    total, count = x.shape[axis], node.attribute("num_outputs", len(node.outputs))
    if sizes is None:
        if total is None:
            raise Unsupported("the size of its axis is not known", "fix it with --input NAME:SHAPE")
        each = -(-total // count)
        sizes = [max(min(each, total - each * index), 0) for index in range(count)]
    if x.array is None and len(set(sizes)) == 1 and x.flat.dtype in (tf.float32, tf.int32):
        return [x.like(part) for part in tf.split(x.flat, len(sizes), x.stored_axis(axis))]
    ends = np.cumsum(sizes)
    return [
        sliced(x, [int(end - size)], [int(end)], [axis], [1]) for size, end in zip(sizes, ends, strict=True)
    ]


@operator("Slice")
def slice_by_attributes(node: Node, x: Value) -> Value:
    """A range of each of some axes, given by the node."""
    starts, ends = node.attribute("starts"), node.attribute("ends")
    return sliced(x, starts, ends, node.attribute("axes", list(range(len(starts)))), [1] * len(starts))


@operator("Slice", since=10)
def slice_by_inputs(
    node: Node, x: Value, starts: Value, ends: Value, axes: Value | None = None, steps: Value | None = None
) -> Value:
    """A range of each of some axes, with steps."""
    count = starts.shape[0]
    if count is None:
        node.known(starts, "starts")
    named = list(range(int(count or 0))) if axes is None else node.known(axes, "axes")
    strides = [1] * len(named) if steps is None else node.known(steps, "steps")
    if starts.array is not None and ends.array is not None:
        return sliced(x, starts.ints(), ends.ints(), named, strides)
    return _sliced_computed(x, starts, ends, [axis % x.rank for axis in named], strides)


def sliced(
    x: Value, starts: Sequence[int], ends: Sequence[int], axes: Sequence[int], steps: Sequence[int]
) -> Value:
    """The ranges of some axes, as numpy cuts them."""
    ranges = [slice(None)] * x.rank
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        ranges[axis % x.rank] = _range(start, end, step, x.shape[axis % x.rank])
    if x.array is not None:
        return Value.constant(x.array[tuple(ranges)])
    if all(each == slice(None) for each in ranges):
        return x
    return x.like(x.flat[tuple(ranges[axis] for axis in x.order)])


def _range(start: int, end: int, step: int, size: int | None) -> slice:
    if size is None:
        # Ends beyond any size stand for the end itself.
        first = None if start >= _INT32.max or start <= _INT32.min or (start == 0 and step > 0) else start
        last = None if end >= _INT32.max or end <= _INT32.min else end
        return slice(first, last, step)
    first, last, step = slice(start, end, step).indices(size)
    if (first, last, step) == (0, size, 1):
        return slice(None)
    return slice(first, None if last < 0 else last, step)


def _sliced_computed(x: Value, starts: Value, ends: Value, axes: list[int], steps: list[int]) -> Value:
    sizes = shape_tensor(x)
    begin: list[Any] = [0] * x.rank
    finish: list[Any] = [sizes[axis] for axis in range(x.rank)]
    strides = [1] * x.rank
    for index, (axis, step) in enumerate(zip(axes, steps, strict=True)):
        begin[axis], finish[axis] = (
            # Clipped as 64-bit numbers: an end may be the largest there is.
            tf.cast(
                tf.clip_by_value(
                    each.tensor[index], *map(each.tensor.dtype.as_numpy_dtype, (_INT32.min, _INT32.max))
                ),
                tf.int32,
            )
            for each in (starts, ends)
        )
        strides[axis] = step
    order = identity(x.rank)
    return Value.of(tf.strided_slice(x.stored_as(order), tf.stack(begin), tf.stack(finish), strides), x.dtype)


@operator("Pad")
def pad_by_attributes(node: Node, x: Value) -> Value:
    """The tensor with its edges filled up, as the node says."""
    pads = node.attribute("pads", node.attribute("paddings"))
    widths = list(zip(pads[: x.rank], pads[x.rank :], strict=True))
    return padded(x, widths, node.attribute("mode", "constant"), node.attribute("value", 0.0))


@operator("Pad", since=11)
def pad(node: Node, x: Value, pads: Value, fill: Value | None = None, axes: Value | None = None) -> Value:
    """The tensor with its edges filled up; a negative width cuts off."""
    value: Any = 0 if fill is None else tf.reshape(fill.tensor, [])
    if fill is not None and fill.array is not None:
        value = fill.array.reshape(-1)[0]
    mode = node.attribute("mode", "constant")
    if pads.array is None and axes is None and mode == "constant":
        widths = tf.transpose(tf.reshape(tf.cast(pads.tensor, tf.int32), [2, x.rank]))
        tensor = x.tensor
        return Value.of(tf.pad(tensor, widths, constant_values=tf.cast(value, tensor.dtype)), x.dtype)
    flat = node.known(pads, "pads")
    named = list(range(x.rank)) if axes is None else [axis % x.rank for axis in node.known(axes, "axes")]
    every = [(0, 0)] * x.rank
    for index, axis in enumerate(named):
        every[axis] = (flat[index], flat[index + len(named)])
    return padded(x, every, mode, value)


def padded(x: Value, widths: Sequence[tuple[int, int]], mode: str = "constant", fill: Any = 0) -> Value:
    """A value with its edges filled up.

    Args:
        x: The value.
        widths: How many elements before and after, for each axis; negative ones are cut off.
        mode: `constant`, `reflect`, `edge` or `wrap`, as numpy's.
        fill: What a constant filling consists of.
    """
    cuts = [(max(-low, 0), max(-high, 0)) for low, high in widths]
    if any(map(any, cuts)):
        axes = [axis for axis, cut in enumerate(cuts) if any(cut)]
        starts = [cuts[axis][0] for axis in axes]
        ends = [-cuts[axis][1] or _INT32.max for axis in axes]
        x = sliced(x, starts, ends, axes, [1] * len(axes))
    added = [(max(low, 0), max(high, 0)) for low, high in widths]
    if not any(map(any, added)):
        return x
    tensor, stored = x.flat, [added[axis] for axis in x.order]
    if mode == "constant":
        if isinstance(fill, int | float | np.generic) and fill == 0:
            return x.like(tf.pad(tensor, stored))
        return x.like(tf.pad(tensor, stored, constant_values=tf.cast(fill, tensor.dtype)))
    for axis, (low, high) in enumerate(stored):
        if low or high:
            size = tensor.shape[axis]
            if size is None:
                raise Unsupported("the size of its input is not known", "fix it with --input NAME:SHAPE")
            index = np.pad(np.arange(size, dtype=np.int32), (low, high), mode=mode)  # type: ignore[call-overload]
            tensor = tf.gather(tensor, index, axis=axis)
    return x.like(tensor)


@operator("Gather")
def gather(node: Node, x: Value, indices: Value) -> Value:
    """Slices along an axis, at indices that may count from its end."""
    axis = node.attribute("axis", 0) % x.rank
    size = x.shape[axis]
    if indices.array is not None:
        if size is not None:
            index = np.where(indices.array < 0, indices.array + size, indices.array)
        elif (indices.array >= 0).all():
            index = indices.array
        else:
            index = tf.where(
                indices.array < 0,
                shape_tensor(x)[axis] + indices.array.astype(np.int32),
                indices.array.astype(np.int32),
            )
        if isinstance(index, np.ndarray) and index.ndim == 0 and x.array is None:
            # One slice is cut out, which the converter understands better than a gather.
            at = int(index)
            ranges = tuple(at if each == axis else slice(None) for each in x.order)
            return Value.of(x.flat[ranges], x.dtype, _without(x.order, axis))
        index = tf.constant(index.astype(np.int32)) if isinstance(index, np.ndarray) else index
    else:
        index = indices.tensor
        limit = tf.cast(shape_tensor(x)[axis] if size is None else size, index.dtype)
        index = tf.where(index < 0, index + limit, index)
    if indices.rank == 1:
        return x.like(tf.gather(x.flat, index, axis=x.stored_axis(axis)))
    return Value.of(tf.gather(x.tensor, index, axis=axis), x.dtype)


def _without(order: Sequence[int], axis: int) -> tuple[int, ...]:
    return tuple(each - (each > axis) for each in order if each != axis)


@operator("Trilu")
def trilu(node: Node, x: Value, k: Value | None = None) -> Value:
    """The part of matrices above or below a diagonal, with zeros elsewhere."""
    offset = 0 if k is None else node.known(k, "diagonal")[0]
    rows, columns = x.shape[-2:]
    if rows is None or columns is None:
        raise Unsupported("the size of its input is not known", "fix it with --input NAME:SHAPE")
    kept = np.tri(rows, columns, offset if not node.attribute("upper", 1) else offset - 1, dtype=bool)
    if node.attribute("upper", 1):
        kept = ~kept
    tensor = x.tensor
    return Value.of(tf.where(tf.constant(kept), tensor, tf.zeros((), tensor.dtype)), x.dtype)
