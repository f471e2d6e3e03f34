"""Elements and slices put into a tensor at indices.

All forms come down to rows: the tensor as (rows, elements), indices that name rows, and one row for each of them. On a
device SCATTER_ND can only add, and TensorFlow's own way around that multiplies with zeros, which leaves not a number
where an infinity is overwritten. Instead each row looks up where it comes from: the tensor itself or the updates.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from convert.libraries import load_library
from convert.onnx.carriers import wrapped
from convert.onnx.node import Node
from convert.onnx.operators.elementwise import broadcast
from convert.onnx.operators.gathering import from_the_end, known_sizes
from convert.onnx.operators.joining import sliced
from convert.onnx.problems import Unsupported
from convert.onnx.registry import operator
from convert.onnx.value import Value
from edge_runtime.tensor_spec import Array

__all__: list[str] = []

tf = load_library("tensorflow")

# A look-up table of rows that is made at conversion is part of the file.
_TABLE_ROWS = 1 << 16


def _scattered(tensor: Any, rows: Array | Any, updates: Any, reduction: str, value: Value) -> Any:
    """Rows of a tensor, (rows, elements), replaced by or combined with updates, (indices, elements)."""
    if reduction == "none":
        return _replaced(tensor, rows, updates)
    rows = tf.cast(rows, tf.int32)
    if reduction == "add" and tensor.dtype != tf.bool:
        added = tf.scatter_nd(rows[:, tf.newaxis], updates, tf.shape(tensor))
        return wrapped(tensor + added, value.dtype)
    if tensor.dtype == tf.bool:
        # False and true as numbers: a sum is or, a product is and.
        kind = {"add": "max", "mul": "min"}.get(reduction, reduction)
        numbers = [tf.cast(each, tf.int32) for each in (tensor, updates)]
        return tf.cast(_combined(numbers[0], rows, numbers[1], kind), tf.bool)
    if tensor.dtype == tf.int64:
        raise Unsupported(
            f"the reduction '{reduction}' of 64-bit integers", "cast them to int32 before, and back after it"
        )
    return wrapped(_combined(tensor, rows, updates, reduction), value.dtype)


def _combined(tensor: Any, rows: Any, updates: Any, reduction: str) -> Any:
    segments = {
        "mul": tf.math.unsorted_segment_prod,
        "max": tf.math.unsorted_segment_max,
        "min": tf.math.unsorted_segment_min,
    }
    count = tensor.shape[0]
    # The tensor's own rows are the first of each segment, so that none is empty.
    named = tf.concat([tf.range(count), rows], 0)
    every = tf.concat([tensor, updates], 0)
    if reduction == "mul" or tensor.dtype != tf.float32:
        return segments[reduction](every, named, count)
    # A device begins at the largest finite number, and would lose infinities; as integers none is lost.
    return tf.bitcast(
        _ordered(segments[reduction](_ordered(tf.bitcast(every, tf.int32)), named, count)), tf.float32
    )


def _ordered(bits: Any) -> Any:
    """The bits of real numbers as integers of the same order, and back."""
    return tf.where(bits < 0, tf.bitwise.bitwise_xor(bits, np.int32(0x7FFFFFFF)), bits)


def _replaced(tensor: Any, rows: Array | Any, updates: Any) -> Any:
    count, given = int(tensor.shape[0]), int(updates.shape[0])
    if isinstance(rows, np.ndarray) and count <= max(_TABLE_ROWS, 2 * given):
        source = np.arange(count, dtype=np.int32)
        source[rows] = count + np.arange(given, dtype=np.int32)
    else:
        # Of updates to the same row the last one counts.
        last = tf.math.unsorted_segment_max(tf.range(count, count + given), tf.cast(rows, tf.int32), count)
        source = tf.where(last >= count, last, tf.range(count))
    return tf.gather(tf.concat([tensor, updates], 0), source)


@operator("ScatterND")
def scatter_nd(node: Node, x: Value, indices: Value, updates: Value) -> Value:
    """Parts of the tensor replaced at indices of several axes, which are the last axis of the indices."""
    sizes, index_sizes = known_sizes(x), known_sizes(indices)
    count, given = index_sizes[-1], int(np.prod(index_sizes[:-1]))
    reduction = node.attribute("reduction", "none")
    if not given or not all(sizes):
        return x
    if reduction == "none" and indices.array is not None:
        starts = _box(indices.array.reshape(given, count), sizes[:count])
        if starts is not None:
            return _put_block(x, updates, starts)
    inner, outer = int(np.prod(sizes[count:])), int(np.prod(sizes[:count]))
    strides = np.array([int(np.prod(sizes[axis + 1 : count])) for axis in range(count)], np.int32)
    index = from_the_end(indices, sizes[:count])
    if indices.array is not None:
        array = np.where(indices.array < 0, indices.array + np.array(sizes[:count]), indices.array)
        rows = (array.reshape(given, count) * strides).sum(-1)
    else:
        rows = tf.reduce_sum(tf.reshape(index, [given, count]) * strides, -1)
    tensor = _scattered(
        tf.reshape(x.tensor, [outer, inner]), rows, tf.reshape(updates.tensor, [given, inner]), reduction, x
    )
    return Value.of(tf.reshape(tensor, sizes), x.dtype)


def _box(indices: Array, sizes: Sequence[int]) -> list[tuple[int, int]] | None:
    """The range of each axis if indices name every place of a block, in order; None if they do not.

    Assigning to a slice is exported so.
    """
    places = np.where(indices < 0, indices + np.array(sizes), indices)
    ranges = [(int(low), int(high) + 1) for low, high in zip(places.min(0), places.max(0), strict=True)]
    if int(np.prod([high - low for low, high in ranges])) != len(places):
        return None
    grid = np.meshgrid(*(np.arange(low, high) for low, high in ranges), indexing="ij")
    return ranges if np.array_equal(np.stack(grid, -1).reshape(places.shape), places) else None


def _put_block(x: Value, updates: Value, ranges: list[tuple[int, int]]) -> Value:
    sizes = known_sizes(x)
    block_sizes = [high - low for low, high in ranges] + sizes[len(ranges) :]
    order = x.order
    block = tf.reshape(updates.tensor, block_sizes)
    block = Value.of(block, x.dtype).stored_as(order)
    partial = [axis for axis, (low, high) in enumerate(ranges) if (low, high) != (0, sizes[axis])]
    for index, axis in reversed(list(enumerate(partial))):
        within = partial[:index]
        sides = []
        for low, high in ((0, ranges[axis][0]), (ranges[axis][1], sizes[axis])):
            starts, ends = [ranges[each][0] for each in within], [ranges[each][1] for each in within]
            side = sliced(x, [*starts, low], [*ends, high], [*within, axis], [1] * (index + 1))
            sides.append(None if low == high else side.stored_as(order))
        parts = [each for each in (sides[0], block, sides[1]) if each is not None]
        block = tf.concat(parts, x.stored_axis(axis))
    return x.like(block)


@operator("ScatterElements", "Scatter")
def scatter_elements(node: Node, x: Value, indices: Value, updates: Value) -> Value:
    """Along an axis, one element for each index replaced; the other axes are those of the indices."""
    axis = node.attribute("axis", 0) % x.rank
    sizes, wanted = known_sizes(x), known_sizes(indices)
    if 0 in sizes or 0 in wanted:
        return x
    order = x.order
    stored = [sizes[each] for each in order]
    strides = [int(np.prod(stored[place + 1 :])) for place in range(x.rank)]
    # Where each index would be if its own were zero.
    own = np.zeros([wanted[each] for each in order], np.int32)
    for place, each in enumerate(order):
        if each != axis:
            shape = [-1 if other == place else 1 for other in range(x.rank)]
            own = own + (np.arange(wanted[each], dtype=np.int32) * strides[place]).reshape(shape)
    stride = strides[order.index(axis)]
    if indices.array is not None:
        array = np.where(indices.array < 0, indices.array + sizes[axis], indices.array)
        rows = (np.transpose(array, order) * stride + own).reshape(-1)
    else:
        rows = tf.reshape(from_the_end(indices, sizes[axis], order) * stride + own, [-1])
    tensor = _scattered(
        tf.reshape(x.flat, [-1, 1]),
        rows,
        tf.reshape(updates.stored_as(order), [-1, 1]),
        node.attribute("reduction", "none"),
        x,
    )
    return Value.of(tf.reshape(tensor, stored), x.dtype, order)


@operator("TensorScatter")
def tensor_scatter(node: Node, cache: Value, update: Value, write_indices: Value | None = None) -> Value:
    """A cache with a part of an axis replaced, from an index on that each sample of the batch has its own of."""
    axis = node.attribute("axis", -2) % cache.rank
    sizes, given = known_sizes(cache), known_sizes(update)
    if write_indices is None:
        write_indices = Value.constant(np.zeros(sizes[0], np.int64))
    length, count = sizes[axis], given[axis]
    # Each place of the cache looks up which of the update it takes, or that it takes none.
    index = np.arange(length, dtype=np.int32) - tf.cast(write_indices.tensor, tf.int32)[:, tf.newaxis]
    if node.attribute("mode", "linear") == "circular":
        index = tf.math.floormod(index, length)
    taken = tf.logical_and(index >= 0, index < count)
    new = tf.gather(update.tensor, tf.clip_by_value(index, 0, count - 1), axis=axis, batch_dims=1)
    shape = [sizes[0] if each == 0 else length if each == axis else 1 for each in range(cache.rank)]
    choose: Callable[..., Any] = tf.where
    return broadcast(
        choose,
        Value.of(tf.reshape(taken, shape), np.bool_),
        Value.of(new, cache.dtype),
        cache,
        dtype=cache.dtype,
    )
