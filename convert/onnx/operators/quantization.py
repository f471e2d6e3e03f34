"""Real numbers as integers and back.

With parameters that are known, a tensor of eight bits is laid on its grid twice: as integers, which are exact, and as
real numbers for the operators behind a later `DequantizeLinear`, from which the converter makes operators on
integers (`convert.onnx.grid`). What nobody reads of the two is not in the file.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from convert.libraries import load_library
from convert.onnx.carriers import carrier, element_type
from convert.onnx.grid import Grid, is_laid
from convert.onnx.node import Node
from convert.onnx.problems import Unsupported
from convert.onnx.registry import operator
from convert.onnx.value import Value

__all__ = ["centred", "dequantized", "grid_of", "limits_of", "quantized"]

tf = load_library("tensorflow")

_MICROSOFT = "com.microsoft"


@operator("QuantizeLinear")
@operator("QuantizeLinear", domain=_MICROSOFT)
def quantize_linear(node: Node, x: Value, scale: Value, zero_point: Value | None = None) -> Value:
    """``round(x / scale) + zero_point``, halves to even, within the range of its type."""
    named = int(node.attribute("output_dtype", 0))
    dtype = np.dtype(np.uint8)
    if zero_point is not None:
        dtype = zero_point.dtype
    elif named:
        dtype = element_type(named)
    axis, block = node.attribute("axis", 1), node.attribute("block_size", 0)
    return quantized(x, scale, zero_point, dtype=dtype, axis=axis, block=block)


@operator("DequantizeLinear", folds=False)
@operator("DequantizeLinear", domain=_MICROSOFT, folds=False)
def dequantize_linear(node: Node, x: Value, scale: Value, zero_point: Value | None = None) -> Value:
    """``(x - zero_point) * scale``."""
    axis, block = node.attribute("axis", 1), node.attribute("block_size", 0)
    result = dequantized(x, scale, zero_point, axis=axis, block=block)
    named = int(node.attribute("output_dtype", 0))
    return result.cast(element_type(named)) if named and element_type(named) != result.dtype else result


@operator("DynamicQuantizeLinear")
def dynamic_quantize_linear(_node: Node, x: Value) -> list[Value]:
    """As uint8 over the range of the values and zero, with the scale and zero point of that."""
    tensor = x.flat
    high = tf.maximum(tf.reduce_max(tensor), 0.0)
    low = tf.minimum(tf.reduce_min(tensor), 0.0)
    scale = (high - low) * (1.0 / 255.0) if not tf.executing_eagerly() else (high - low) / 255.0
    # Nothing but zeros has no scale: any will do.
    divisor = tf.where(scale > 0.0, scale, 1.0)
    zero_point = tf.clip_by_value(tf.round(-low / divisor), 0.0, 255.0)
    values = tf.clip_by_value(tf.round(tensor / divisor) + zero_point, 0.0, 255.0)
    return [
        x.like(tf.cast(values, tf.int32), np.uint8),
        Value.of(scale, np.float32),
        Value.of(tf.cast(zero_point, tf.int32), np.uint8),
    ]


def quantized(
    x: Value, scale: Value, zero_point: Value | None, *, dtype: Any, axis: int = 1, block: int = 0
) -> Value:
    """What `QuantizeLinear` computes.

    Args:
        x: Real numbers.
        scale: One number, one for each slice along `axis`, or one for each of `block` elements along it.
        zero_point: Of the same shape; zeros without it.
        dtype: Of the integers.
        axis: Of channels or blocks.
        block: How many elements have one scale; 0 for none.
    """
    dtype = np.dtype(dtype)
    grid = None if x.is_constant else grid_of(scale, zero_point, dtype, x, axis, block)
    if grid is None or grid.axis is not None:
        return x.like(_integers(x, scale, zero_point, dtype, axis, block), dtype)
    real = x.like(grid.laid(x.flat), np.float32)
    real.grid = grid
    # Behind operators that the device computes on integers, it rounds; halves then go away from zero.
    source = real if is_laid(x.flat) else x
    result = x.like(_integers(source, scale, zero_point, dtype, axis, block), dtype)
    result.grid, result.real = grid, real
    return result


def dequantized(x: Value, scale: Value, zero_point: Value | None, *, axis: int = 1, block: int = 0) -> Value:
    """What `DequantizeLinear` computes; see `quantized` for the arguments."""
    grid = grid_of(scale, zero_point, x.dtype, x, axis, block)
    if x.array is not None and grid is not None:
        return Value.constant(grid.real(x.array), scale.dtype, grid=grid)
    if grid is not None and x.real is not None and x.grid == grid:
        return Value(x.real.stored, scale.dtype, x.real.order)
    if x.is_constant and scale.is_constant and (zero_point is None or zero_point.is_constant):
        with tf.init_scope():
            return Value.constant(_reals(x, scale, zero_point, axis, block), scale.dtype)
    reals = _reals(x, scale, zero_point, axis, block)
    if grid is not None and grid.axis is None:
        reals = grid.laid(reals)
    return x.like(reals, scale.dtype)


def centred(x: Value, zero_point: Value | None, *, axis: int = 1, block: int = 0) -> Value:
    """Quantised values as whole real numbers that are zero where what they stand for is."""
    real = tf.cast(x.flat, tf.float32)
    if zero_point is not None and (zero_point.array is None or zero_point.array.any()):
        real = real - _along(zero_point, x, axis, block)
    return x.like(real, np.float32)


def grid_of(
    scale: Value, zero_point: Value | None, dtype: np.dtype[Any], x: Value, axis: int = 1, block: int = 0
) -> Grid | None:
    """Where quantised values lie; None unless the device can compute on such integers."""
    if dtype not in (np.int8, np.uint8) or block or scale.array is None or scale.array.ndim > 1:
        return None
    if zero_point is not None and zero_point.array is None:
        return None
    scales = scale.array.astype(np.float32)
    zeros = np.zeros(scales.shape, np.int32) if zero_point is None else zero_point.array.astype(np.int32)  # type: ignore[union-attr]
    if not (np.isfinite(scales) & (scales >= np.finfo(np.float32).tiny)).all():
        return None
    if scales.size == 1:
        return Grid(scales.reshape(()), zeros.reshape(()), dtype)
    return Grid(scales, np.broadcast_to(zeros.reshape(-1), scales.shape), dtype, axis % x.rank)


def limits_of(dtype: np.dtype[Any]) -> tuple[int, int]:
    """The smallest and largest integer of a type, which may have fewer than eight bits.

    Raises:
        Unsupported: For a type that is no integer's.
    """
    if dtype.name.startswith("float"):
        raise Unsupported(f"numbers of type {dtype.name}", "quantise the model to int8 or uint8")
    limits = load_library("ml_dtypes").iinfo(dtype)
    return int(limits.min), int(limits.max)


def _integers(
    x: Value, scale: Value, zero_point: Value | None, dtype: np.dtype[Any], axis: int, block: int
) -> Any:
    low, high = limits_of(dtype)
    tensor = tf.cast(x.flat, tf.float32)
    divisor = _along(scale, x, axis, block)
    rounded = tf.round(tensor / (_computed(divisor, tensor) if scale.is_constant else divisor))
    if zero_point is not None:
        rounded = rounded + _along(zero_point, x, axis, block)
    return tf.cast(tf.clip_by_value(rounded, float(low), float(high)), carrier(dtype))


def _computed(scale: Any, tensor: Any) -> Any:
    """A constant as something computed: instead of dividing by one the converter multiplies, and halves move."""
    if tf.executing_eagerly() or not tensor.shape.num_elements():
        return scale
    element = tf.reshape(tensor[(0,) * tensor.shape.rank], [])
    return tf.minimum(tf.maximum(element, scale), scale)


def _reals(x: Value, scale: Value, zero_point: Value | None, axis: int, block: int) -> Any:
    return centred(x, zero_point, axis=axis, block=block).flat * _along(scale, x, axis, block)


def _along(parameter: Value, x: Value, axis: int, block: int) -> Any:
    """A scale or zero point as real numbers that broadcast with the stored tensor."""
    if all(size == 1 for size in parameter.shape):
        return tf.cast(tf.reshape(parameter.tensor, []), tf.float32)
    if block:
        return tf.cast(_repeated(parameter, x, axis % x.rank, block).stored_as(x.order), tf.float32)
    if parameter.rank == x.rank > 1:
        return tf.cast(parameter.stored_as(x.order), tf.float32)
    sizes = [1] * x.rank
    sizes[x.stored_axis(axis)] = -1
    return tf.cast(tf.reshape(parameter.tensor, sizes), tf.float32)


def _repeated(parameter: Value, x: Value, axis: int, block: int) -> Value:
    size = x.shape[axis]
    if size is None:
        raise Unsupported("the size of its input is not known", "fix it with --input NAME:SHAPE")
    index = np.arange(size, dtype=np.int32) // block
    if parameter.array is not None:
        return Value.constant(np.take(parameter.array, index, axis))
    return Value.of(tf.gather(parameter.tensor, index, axis=axis), parameter.dtype)
