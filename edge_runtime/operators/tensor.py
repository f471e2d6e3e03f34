"""Operators on arrays of any kind, and on items: lists of arrays that may differ in shape. NumPy is all they need."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from edge_runtime.errors import ErrorCode, HybridgeError
from edge_runtime.operators.registry import operator
from edge_runtime.tensor_spec import Array, Value

__all__ = [
    "argmax",
    "cast",
    "concat",
    "concat_items",
    "count",
    "expand_dims",
    "normalize",
    "reshape",
    "scale",
    "softmax",
    "split",
    "squeeze",
    "stack",
    "take",
    "take_items",
    "top_k",
    "transpose",
]


@operator("scale", gives={"array": "float32[...]"})
def scale(array: Array, *, factor: float = 1.0, offset: float = 0.0) -> Array:
    """``array * factor + offset`` as float32, such as ``factor=1/255`` for an image in 0..1."""
    # To convert first is twice as fast as to let a multiplication convert.
    result: Array = array.astype(np.float32)
    result *= np.float32(factor)
    if offset:
        result += np.float32(offset)
    return result


@operator("normalize", takes={"array": "T[...]"}, gives={"array": "float32[...]"})
def normalize(
    array: Array, *, mean: Sequence[float] = (0.0,), std: Sequence[float] = (1.0,), factor: float = 1.0
) -> Array:
    """``(array * factor - mean) / std`` along the last axis as float32, such as an image's channels.

    An image of bytes that a model wants as ImageNet's in 0..1 has ``factor=1/255``, ``mean=[0.485, 0.456, 0.406]`` and
    ``std=[0.229, 0.224, 0.225]``.
    """
    multiplier, addend = _line(tuple(mean), tuple(std), factor)
    result: Array = array.astype(np.float32)
    if multiplier.size == 1 or not result.ndim:
        result *= multiplier.reshape(-1)[0]
        result += addend.reshape(-1)[0]
        return result
    if multiplier.shape != result.shape[-1:]:
        raise HybridgeError(
            ErrorCode.INPUT_SHAPE,
            "array",
            received=f"shape {array.shape}",
            expected=f"{multiplier.size} values along the last axis, as mean and std have",
        )
    # Over a whole row at a time: NumPy takes seven times as long over three channels at a time.
    columns = result.shape[-2] if result.ndim > 1 else 1
    rows = result.reshape(math.prod(result.shape[:-2]), columns * result.shape[-1])
    rows *= np.tile(multiplier, columns)
    rows += np.tile(addend, columns)
    return result


@lru_cache(maxsize=64)
def _line(mean: tuple[float, ...], std: tuple[float, ...], factor: float) -> tuple[Array, Array]:
    """What `normalize` multiplies by and what it adds, float32 and of one shape."""
    spread = np.asarray(std, np.float64)
    sides = np.broadcast_arrays(factor / spread, -np.asarray(mean, np.float64) / spread)
    multiplier, addend = (side.astype(np.float32) for side in sides)
    return multiplier, addend


@operator("cast", gives={"array": ""})
def cast(array: Array, *, dtype: str) -> Array:
    """The array as another type; values that do not fit an integer type saturate, and NaN becomes 0 there."""
    wanted = np.dtype(dtype)
    if wanted.kind not in "iu":
        with np.errstate(over="ignore"):
            return array.astype(wanted)
    limits = np.iinfo(wanted)
    if array.dtype.kind != "f":
        return np.clip(array, limits.min, limits.max).astype(wanted)
    whole = np.rint(np.nan_to_num(array, nan=0.0, posinf=np.inf, neginf=-np.inf))
    # The largest integers are no floating-point numbers: what reaches them is set after the cast.
    below, above = whole <= limits.min, whole >= limits.max
    result = np.where(below | above, 0, whole).astype(wanted)
    result[below], result[above] = limits.min, limits.max
    return result


@operator("reshape", gives={"array": ""})
def reshape(array: Array, *, shape: Sequence[int]) -> Array:
    """The array in another shape; one size may be -1."""
    return np.ascontiguousarray(array).reshape(tuple(shape))


@operator("expand-dims", gives={"array": ""})
def expand_dims(array: Array, *, axis: int = 0) -> Array:
    """The array with a new axis of size one, such as a batch of one."""
    return np.expand_dims(array, axis)


@operator("squeeze", gives={"array": ""})
def squeeze(array: Array, *, axes: Sequence[int] = ()) -> Array:
    """The array without these axes, which must be of size one; without `axes`, without all that are."""
    return np.squeeze(array, tuple(axes) or None)


@operator("transpose", gives={"array": ""})
def transpose(array: Array, *, axes: Sequence[int] = ()) -> Array:
    """The array with its axes in another order, reversed without `axes`; [2, 0, 1] takes an image's channels first."""
    return np.ascontiguousarray(np.transpose(array, tuple(axes) or None))


@operator("softmax", gives={"logits": "float32[...]"})
def softmax(logits: Array, *, axis: int = -1) -> Array:
    """Probabilities of logits along an axis, as float32; where a logit is NaN, all along the axis are."""
    real = logits if logits.dtype.kind == "f" else logits.astype(np.float32)
    with np.errstate(invalid="ignore"):
        exponents: Array = np.exp(
            (real - real.max(axis=axis, keepdims=True, initial=-np.inf)).astype(np.float32)
        )
        exponents /= exponents.sum(axis=axis, keepdims=True)
    return exponents


@operator("argmax", takes={"scores": "T[..., classes]"}, gives={"indices": "int64[...]"})
def argmax(scores: Array) -> Array:
    """The index (int64) of the largest score along the last axis, the first of several; NaN is less than anything."""
    if scores.dtype.kind == "f":
        scores = np.where(np.isnan(scores), -np.inf, scores)
    return np.asarray(scores.argmax(axis=-1), np.int64)


@operator(
    "top-k", takes={"scores": "T[..., classes]"}, gives={"indices": "int64[..., k]", "values": "T[..., k]"}
)
def top_k(scores: Array, *, k: int = 5) -> dict[str, Array]:
    """The `k` largest scores along the last axis, largest first, and their indices (int64); NaN is less than anything.

    Where there are fewer than `k`, all of them.
    """
    k = min(k, scores.shape[-1])
    # An integer's complement orders it downwards without the overflow of a minus.
    downwards = -scores if scores.dtype.kind == "f" else ~scores
    indices = np.argsort(downwards, axis=-1, kind="stable")[..., :k]
    # A 32-bit system's own index is shorter.
    return {"indices": indices.astype(np.int64), "values": np.take_along_axis(scores, indices, axis=-1)}


@operator("concat", takes={"first": "T[...]", "second": "T[...]"}, gives={"array": ""})
def concat(first: Array, second: Array, *, axis: int = 0) -> Array:
    """Two arrays, one after the other along an axis."""
    return np.concatenate([first, second], axis=axis)


@operator("concat-items", takes={"items": "T[...]*"}, gives={"array": "T[...]"})
def concat_items(items: Value, *, axis: int = 0) -> Array:
    """Items, one after the other along an axis they have; without any, float32 of shape (0,)."""
    return np.concatenate(list(items), axis=axis) if len(items) else np.empty(0, np.float32)


@operator("stack", takes={"items": "T[...]*"}, gives={"array": "T[n, ...]"})
def stack(
    items: Value, *, fill: float | None = None, shape: Sequence[int] = (), dtype: str = "float32"
) -> Array:
    """Items along a new first axis, such as crops to a batch.

    Args:
        items: Of one shape; with `fill`, of any sizes.
        fill: What makes shorter items as long as the longest, at their ends.
        shape: Of an item, for the empty array when there are none.
        dtype: Of an item, likewise.

    Raises:
        HybridgeError: `input-shape` for items that differ in shape without a `fill`, or in their number of axes.
    """
    if not len(items):
        return np.empty((0, *shape), dtype)
    shapes = {item.shape for item in items}
    if len(shapes) == 1:
        return np.stack(list(items))
    if fill is None or len({len(each) for each in shapes}) > 1:
        raise HybridgeError(
            ErrorCode.INPUT_SHAPE,
            "items",
            received=f"shapes {', '.join(map(str, sorted(shapes)[:4]))}",
            expected="one shape" if fill is None else "one number of axes",
            fix="give 'fill' to lengthen the shorter ones, or bring them to one size first",
        )
    stacked = np.full((len(items), *np.max(list(shapes), axis=0)), fill, items[0].dtype)
    for place, item in zip(stacked, items, strict=True):
        place[tuple(slice(size) for size in item.shape)] = item
    return stacked


@operator("split", gives={"items": "T[...]*"})
def split(array: Array, *, axis: int = 0) -> list[Array]:
    """The array's slices along an axis, which they then lack, as items."""
    return list(np.moveaxis(array, axis, 0))


@operator("take", takes={"array": "T[n, ...]", "indices": "int64|int32[k]"}, gives={"array": "T[k, ...]"})
def take(array: Array, indices: Array) -> Array:
    """The rows of an array with these indices, in their order; negative ones count from the end."""
    _check_indices(indices, len(array))
    return array[indices]


@operator("take-items", takes={"items": "T[...]*", "indices": "int64|int32[k]"}, gives={"items": "T[...]*"})
def take_items(items: Value, indices: Array) -> list[Array]:
    """The items with these indices, in their order; negative ones count from the end."""
    _check_indices(indices, len(items))
    return [items[index] for index in indices.tolist()]


@operator("count", gives={"count": "int64[]"})
def count(values: Value) -> Array:
    """How many items there are, or rows along an array's first axis."""
    return np.array(len(values), np.int64)


def _check_indices(indices: Array, length: int) -> None:
    if indices.size and not -length <= indices.min() <= indices.max() < length:
        raise HybridgeError(
            ErrorCode.INPUT_INVALID,
            "indices",
            received=f"{indices.min()} to {indices.max()}",
            expected=f"-{length} to {length - 1}" if length else "none, as there is nothing to take from",
        )
