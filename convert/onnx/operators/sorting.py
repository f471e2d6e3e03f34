"""The largest elements in order, and the distinct ones."""

from __future__ import annotations

from typing import Any

import numpy as np

from convert.libraries import load_library
from convert.onnx.node import Node
from convert.onnx.operators.gathering import known_sizes
from convert.onnx.operators.reduction import reversed_order
from convert.onnx.problems import Unsupported
from convert.onnx.registry import operator
from convert.onnx.value import Order, Value

__all__: list[str] = []

tf = load_library("tensorflow")

# Rows are compared pairwise, element by element.
_COMPARED_ELEMENTS = 1 << 24


@operator("TopK")
def top_by_attribute(node: Node, x: Value) -> list[Value]:
    """The largest elements along an axis, as many as the node says, and where they are."""
    return _top(x, node.attribute("axis", -1), node.attribute("k"), largest=True)


@operator("TopK", since=10)
def top(node: Node, x: Value, k: Value) -> list[Value]:
    """The largest or smallest elements along an axis, and where they are."""
    count = int(k.array.item()) if k.array is not None else tf.cast(tf.reshape(k.tensor, []), tf.int32)
    return _top(x, node.attribute("axis", -1), count, largest=bool(node.attribute("largest", 1)))


def _top(x: Value, axis: int, count: Any, *, largest: bool) -> list[Value]:
    axis %= x.rank
    order: Order = (*(each for each in x.order if each != axis), axis)
    tensor = x.stored_as(order)
    if x.dtype == np.uint64:
        tensor = tensor + np.int64(-(2**63))
    values, index = tf.math.top_k(tensor if largest else reversed_order(tensor), count)
    values = values if largest else reversed_order(values)
    if x.dtype == np.uint64:
        values = values + np.int64(-(2**63))
    return [Value.of(values, x.dtype, order), Value.of(tf.cast(index, tf.int64), np.int64, order)]


@operator("Unique")
def unique(node: Node, x: Value) -> list[Value]:
    """The distinct elements, or slices along an axis; where each is first, which one each was, and how often it occurs.

    In ascending order, or with `sorted=0` in that of their first occurrence.
    """
    axis = node.attributes.get("axis")
    ascending = bool(node.attribute("sorted", 1))
    if axis is None:
        tensor = tf.reshape(x.tensor, [-1])
        return _as_values(x, *_distinct(tensor, ascending))
    axis %= x.rank
    sizes = known_sizes(x)
    order: Order = (axis, *(each for each in range(x.rank) if each != axis))
    rows = tf.reshape(x.stored_as(order), [sizes[axis], -1])
    first, inverse, counts = _distinct_rows(rows, ascending)
    # Rows keep their shape, so that only the axis they lie along is gathered.
    return _as_values(x, tf.gather(x.flat, first, axis=x.stored_axis(axis)), first, inverse, counts, x.order)


def _as_values(
    x: Value, values: Any, first: Any, inverse: Any, counts: Any, order: Order | None = None
) -> list[Value]:
    numbers = [Value.of(tf.cast(each, tf.int64), np.int64) for each in (first, inverse, counts)]
    return [Value.of(values, x.dtype, order), *numbers]


def _distinct(tensor: Any, ascending: bool) -> tuple[Any, Any, Any, Any]:
    """Distinct elements of one axis, with what `Unique` says of them."""
    kept = tensor.dtype
    values, inverse = tf.unique(tf.cast(tensor, tf.int32) if kept == tf.bool else tensor)
    count = tf.size(values)
    if ascending:
        values, place = tf.math.top_k(reversed_order(values), count)
        values = reversed_order(values)
        # Where the elements in order of occurrence are among the sorted ones.
        inverse = tf.gather(tf.math.top_k(-place, count)[1], inverse)
    positions = tf.range(tf.size(tensor))
    first = tf.math.unsorted_segment_min(positions, inverse, count)
    counts = tf.math.unsorted_segment_sum(tf.ones_like(positions), inverse, count)
    return tf.cast(values, kept), first, inverse, counts


def _distinct_rows(rows: Any, ascending: bool) -> tuple[Any, Any, Any]:
    """First occurrence, index of each row, and counts, of the distinct rows of a matrix."""
    count, width = rows.shape.as_list()
    if count * count * width > _COMPARED_ELEMENTS:
        raise Unsupported(
            f"the distinct ones of {count:,} slices of {width:,} elements",
            "leave that to what runs after the model",
        )
    rows = tf.cast(rows, tf.int32) if rows.dtype == tf.bool else rows
    left, right = rows[:, tf.newaxis], rows[tf.newaxis]
    signs = tf.cast(left > right, tf.float32) - tf.cast(left < right, tf.float32)
    # The first element that differs decides: it weighs more than all that follow.
    while signs.shape[-1] > 1:
        missing = -signs.shape[-1] % 16
        signs = tf.pad(signs, [(0, 0), (0, 0), (0, missing)])
        signs = tf.reshape(signs, [count, count, -1, 16])
        signs = tf.sign(tf.reduce_sum(signs * (0.5 ** np.arange(16, dtype=np.float32)), -1))
    signs = signs[:, :, 0]
    positions = tf.range(count)
    # Of equal rows the first stands for all: where equal, the position; elsewhere more than any.
    leader = tf.reduce_min(tf.where(tf.equal(signs, 0.0), positions[tf.newaxis], count), 1)
    leads = tf.equal(leader, positions)
    if ascending:
        smaller = tf.logical_and(signs > 0, leads[tf.newaxis])
        inverse = tf.reduce_sum(tf.cast(smaller, tf.int32), 1)
    else:
        inverse = tf.gather(tf.cumsum(tf.cast(leads, tf.int32)) - 1, leader)
    total = tf.reduce_sum(tf.cast(leads, tf.int32))
    first = tf.math.unsorted_segment_min(positions, inverse, total)
    counts = tf.math.unsorted_segment_sum(tf.ones_like(positions), inverse, total)
    return first, inverse, counts
