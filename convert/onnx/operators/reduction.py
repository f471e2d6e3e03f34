"""Reductions over axes, and the positions of the largest and smallest elements.

Axes are translated to where they are stored: the mean over the spatial axes of an image needs no transposition.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from convert.libraries import load_library
from convert.onnx.carriers import carrier, is_float, wrapped
from convert.onnx.node import Node
from convert.onnx.operators.elementwise import magnitude
from convert.onnx.registry import operator
from convert.onnx.value import Order, Value

__all__ = ["largest_of", "reduce_over", "reversed_order"]

tf = load_library("tensorflow")

# Added to the carried bits of a uint64, this makes signed comparison order them as unsigned; twice, it is undone.
_SIGN_BIT = np.int64(-(2**63))
_FLOAT_MAX = np.finfo(np.float32).max

# Takes a tensor, its stored axes (or a tensor of them) and whether they are kept.
_Reducer = Callable[[Any, Any, bool], Any]


def _sum(x: Any, axes: Any, keepdims: bool) -> Any:
    return tf.reduce_sum(x, axes, keepdims=keepdims)


def _mean(x: Any, axes: Any, keepdims: bool) -> Any:
    return tf.reduce_mean(x, axes, keepdims=keepdims)


def _max(x: Any, axes: Any, keepdims: bool) -> Any:
    return (tf.reduce_any if x.dtype == tf.bool else tf.reduce_max)(x, axes, keepdims=keepdims)


def _min(x: Any, axes: Any, keepdims: bool) -> Any:
    return (tf.reduce_all if x.dtype == tf.bool else tf.reduce_min)(x, axes, keepdims=keepdims)


def _product(x: Any, axes: Any, keepdims: bool) -> Any:
    return tf.reduce_prod(x, axes, keepdims=keepdims)


def _log_sum_exp(x: Any, axes: Any, keepdims: bool) -> Any:
    # Shifted by the largest element, so that none overflows; infinities stay what they are.
    largest = tf.clip_by_value(tf.reduce_max(x, axes, keepdims=True), -_FLOAT_MAX, _FLOAT_MAX)
    total = tf.math.log(tf.reduce_sum(tf.exp(x - largest), axes, keepdims=keepdims))
    return total + (largest if keepdims else tf.reshape(largest, tf.shape(total)))


@dataclass(frozen=True)
class _Reduction:
    """What a reduction computes, and what it gives for no elements at all.

    Attributes:
        reduce: The reduction itself.
        empty: Its result for an empty set; infinities stand for the limits of an integer type.
        real: Whether integers are computed as real numbers.
    """

    reduce: _Reducer
    empty: float
    real: bool = False


_REDUCTIONS = {
    "ReduceL1": _Reduction(lambda x, axes, keepdims: _sum(magnitude(x), axes, keepdims), 0.0),
    "ReduceL2": _Reduction(lambda x, axes, keepdims: tf.sqrt(_sum(x * x, axes, keepdims)), 0.0, real=True),
    "ReduceLogSum": _Reduction(
        lambda x, axes, keepdims: tf.math.log(_sum(x, axes, keepdims)), -np.inf, real=True
    ),
    "ReduceLogSumExp": _Reduction(_log_sum_exp, -np.inf, real=True),
    "ReduceMax": _Reduction(_max, -np.inf),
    "ReduceMean": _Reduction(_mean, np.nan),
    "ReduceMin": _Reduction(_min, np.inf),
    "ReduceProd": _Reduction(_product, 1.0),
    "ReduceSum": _Reduction(_sum, 0.0),
    "ReduceSumSquare": _Reduction(lambda x, axes, keepdims: _sum(x * x, axes, keepdims), 0.0),
}


def reduce_over(name: str, x: Value, axes: Sequence[int], *, keepdims: bool) -> Value:
    """A reduction over axes that are known.

    Args:
        name: ONNX's name of the reduction, such as `ReduceMean`.
        x: What is reduced.
        axes: ONNX axes, which may count from the end.
        keepdims: Whether they stay, with size one.
    """
    gone = {axis % x.rank for axis in axes}
    if any(x.shape[axis] == 0 for axis in gone):
        return _of_nothing(_REDUCTIONS[name].empty, x, gone, keepdims)
    stored = sorted(x.stored_axis(axis) for axis in gone)
    tensor = _reduced(name, x.flat if x.array is None else x.tensor, x.dtype, stored, keepdims)
    return Value.of(tensor, x.dtype, x.order if keepdims else _without(x.order, gone))


def _reduced(name: str, tensor: Any, dtype: np.dtype[Any], axes: Any, keepdims: bool) -> Any:
    reduction = _REDUCTIONS[name]
    if reduction.real and not is_float(dtype):
        result = reduction.reduce(tf.cast(tensor, tf.float32), axes, keepdims)
        return wrapped(tf.cast(result, carrier(dtype)), dtype)
    if dtype == np.uint64 and name in ("ReduceMax", "ReduceMin"):
        return reduction.reduce(tensor + _SIGN_BIT, axes, keepdims) + _SIGN_BIT
    return wrapped(reduction.reduce(tensor, axes, keepdims), dtype)


def _of_nothing(empty: float, x: Value, gone: set[int], keepdims: bool) -> Value:
    sizes = [1 if axis in gone else size for axis, size in enumerate(x.shape) if keepdims or axis not in gone]
    value: Any = empty
    if not is_float(x.dtype) and not np.isfinite(empty):
        limits = (False, True) if x.dtype == np.bool_ else (_limit(x.dtype, "min"), _limit(x.dtype, "max"))
        value = 0 if np.isnan(empty) else limits[int(empty > 0)]
    if None not in sizes:
        return Value.constant(np.full(sizes, value, x.dtype))
    known = tf.shape(x.tensor)
    own = [1 if axis in gone else known[axis] for axis in range(x.rank) if keepdims or axis not in gone]
    return Value.of(tf.fill(tf.stack(own), Value.constant(value, x.dtype).tensor), x.dtype)


def _limit(dtype: np.dtype[Any], which: str) -> int:
    return int(getattr(np.iinfo(dtype), which))


def _without(order: Order, gone: set[int]) -> Order:
    return tuple(axis - sum(each < axis for each in gone) for axis in order if axis not in gone)


def _by_attribute(name: str) -> Callable[..., Value]:
    def handler(node: Node, x: Value) -> Value:
        axes = node.attribute("axes") or range(x.rank)
        return reduce_over(name, x, axes, keepdims=bool(node.attribute("keepdims", 1)))

    return handler


def _by_input(name: str) -> Callable[..., Value]:
    def handler(node: Node, x: Value, axes: Value | None = None) -> Value:
        keepdims = bool(node.attribute("keepdims", 1))
        if axes is None or axes.shape == (0,):
            none = bool(node.attribute("noop_with_empty_axes", 0))
            # Each element is its own set then: what is done to elements before and after still is.
            return reduce_over(name, x, () if none else range(x.rank), keepdims=keepdims)
        if axes.array is not None:
            return reduce_over(name, x, axes.ints(), keepdims=keepdims)
        if axes.shape[0] is None or 0 in x.shape:
            node.known(axes, "axes")
        computed = tf.cast(axes.tensor, tf.int32)
        tensor = _reduced(
            name, x.tensor, x.dtype, tf.where(computed < 0, computed + x.rank, computed), keepdims
        )
        if not keepdims:
            tensor.set_shape([None] * (x.rank - int(axes.shape[0] or 0)))
        return Value.of(tensor, x.dtype)

    return handler


for _name in _REDUCTIONS:
    operator(_name)(_by_attribute(_name))
    operator(_name, since=13 if _name == "ReduceSum" else 18)(_by_input(_name))


def reversed_order(tensor: Any) -> Any:
    """Numbers in the opposite order of size; twice, they are what they were.

    Integers are complemented, since the smallest has no negative; not as ``-1 - x``, in which the converter swaps the
    operands if x is transposed.
    """
    return -tensor if tensor.dtype.is_floating else -tensor - 1


def largest_of(x: Value, axis: int, *, smallest: bool = False, last: bool = False) -> Value:
    """Where along an axis the largest elements are, as int64; the axis stays, with size one.

    Args:
        x: The value.
        axis: The ONNX axis, which may count from the end.
        smallest: Whether the smallest are looked for.
        last: Whether the last of equal ones counts, not the first.
    """
    axis %= x.rank
    tensor, order = x.flat, x.order
    if tensor.dtype == tf.int64:
        # ARG_MAX knows no int64; the top one along the last axis does, and of equal ones takes the first as well.
        order = (*(each for each in order if each != axis), axis)
        tensor = x.stored_as(order)
        tensor = tensor + _SIGN_BIT if x.dtype == np.uint64 else tensor
    elif tensor.dtype == tf.bool:
        tensor = tf.cast(tensor, tf.int32)
    stored = order.index(axis)
    size: Any = tf.shape(tensor, tf.int64)[stored] if x.shape[axis] is None else x.shape[axis]
    tensor = tf.reverse(tensor, [stored]) if last else tensor
    if tensor.dtype == tf.int64:
        index = tf.cast(tf.math.top_k(reversed_order(tensor) if smallest else tensor, 1)[1], tf.int64)
    else:
        index = (tf.argmin if smallest else tf.argmax)(tensor, stored, output_type=tf.int64)
        index = tf.expand_dims(index, stored)
    return Value.of(size - 1 - index if last else index, np.int64, order)


def _position(*, smallest: bool) -> Callable[..., Value]:
    def handler(node: Node, x: Value) -> Value:
        axis = node.attribute("axis", 0) % x.rank
        result = largest_of(x, axis, smallest=smallest, last=bool(node.attribute("select_last_index", 0)))
        if node.attribute("keepdims", 1):
            return result
        stored = result.stored_axis(axis)
        return Value.of(tf.squeeze(result.flat, stored), np.int64, _without(result.order, {axis}))

    return handler


operator("ArgMax")(_position(smallest=False))
operator("ArgMin")(_position(smallest=True))
