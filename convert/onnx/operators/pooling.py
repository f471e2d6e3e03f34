"""Pooling over windows and over whole pictures, and what undoes it.

A device pools two axes at a time and has no dilations. A window is the product of its axes, so that maxima and
means over more axes are taken in turn, and along a dilated axis over shifted slices. A mean without the padding is the
mean with zeros in its place, times a factor that depends on the position only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np

from convert.libraries import load_library
from convert.onnx.carriers import is_float
from convert.onnx.node import Node
from convert.onnx.padding import pads_of
from convert.onnx.problems import Unsupported
from convert.onnx.registry import operator
from convert.onnx.value import Value, channels_last

__all__: list[str] = []

tf = load_library("tensorflow")

# What these compute is never below zero, so that padding with zeros changes no maximum.
_RECTIFIED = frozenset(("Relu", "Relu6", "Sigmoid", "Abs", "Square", "Softmax", "Exp"))


@dataclass(frozen=True)
class _Window:
    """The window of a pool along one axis.

    Attributes:
        size: Of the axis.
        taps: Elements in the window.
        stride: Between windows.
        dilation: Between the elements of one.
        low: Elements added before the axis.
        high: Elements added after it so that it holds the last window; negative where the windows end before the axis.
        declared: Of those after it, how many the graph says; with `ceil_mode` there may be more.
        count: Number of windows.
    """

    size: int
    taps: int
    stride: int
    dilation: int
    low: int
    high: int
    declared: int
    count: int

    @property
    def is_same(self) -> bool:
        """Whether TensorFlow's SAME adds as much."""
        if self.dilation > 1 or self.count != -(-self.size // self.stride):
            return False
        total = max((self.count - 1) * self.stride + self.taps - self.size, 0)
        return self.low == total // 2

    def counted(self, padding: bool) -> Any:
        """How many elements each window has, with or without the padding that the graph says; (count,)."""
        first = np.arange(self.count)[:, None] * self.stride - self.low
        positions = first + np.arange(self.taps) * self.dilation
        start, end = (-self.low, self.size + self.declared) if padding else (0, self.size)
        return ((positions >= start) & (positions < end)).sum(1)


def _windows(node: Node, x: Value) -> list[_Window]:
    spatial = x.rank - 2
    sizes = x.shape[2:]
    kernel = node.attribute("kernel_shape")
    strides = node.attribute("strides") or [1] * spatial
    dilations = node.attribute("dilations") or [1] * spatial
    known = [size for size in sizes if size is not None]
    if len(known) < spatial:
        raise Unsupported("the size of its input is not known", "fix it with --input NAME:SHAPE")
    explicit = node.attribute("auto_pad", "NOTSET") == "NOTSET"
    pads = pads_of(node, known, kernel, strides, dilations)
    windows = []
    for size, taps, stride, dilation, (low, high) in zip(
        known, kernel, strides, dilations, pads, strict=True
    ):
        reach = (taps - 1) * dilation + 1
        rest = size + low + high - reach
        count = rest // stride + 1
        if explicit and node.attribute("ceil_mode", 0):
            count = -(-rest // stride) + 1
            # A window that starts behind the input is none.
            count -= (count - 1) * stride >= size + low
        needed = (count - 1) * stride + reach - size - low
        windows.append(_Window(size, taps, stride, dilation, low, needed, high, count))
    return windows


def _filled(tensor: Any, windows: list[_Window], fill: float) -> Any:
    """The channels-last tensor with all padding that its windows need."""
    widths = [(0, 0), *((window.low, max(window.high, 0)) for window in windows), (0, 0)]
    if not any(map(any, widths)):
        return tensor
    if fill == 0.0:
        return tf.pad(tensor, widths)
    return tf.pad(tensor, widths, constant_values=tf.constant(fill, tensor.dtype))


def _filled_for_maximum(tensor: Any, windows: list[_Window]) -> Any:
    """Padded with what changes no maximum, and where it can be with numbers that do not spoil a quantised range."""
    if not tf.executing_eagerly() and tensor.op.type in _RECTIFIED:
        return _filled(tensor, windows, 0.0)
    within = all(
        window.dilation == 1 and max(window.low, window.high) <= min(window.taps // 2, window.size)
        for window in windows
    )
    if within and tensor.shape.rank <= 4:
        # What is mirrored into a window is in it already.
        widths = [(0, 0), *((window.low, max(window.high, 0)) for window in windows), (0, 0)]
        return tf.pad(tensor, widths, "SYMMETRIC") if any(map(any, widths)) else tensor
    return _filled(tensor, windows, -np.inf)


def _shifted(tensor: Any, axis: int, window: _Window) -> list[Any]:
    """For each element of the window, the slice of a padded tensor that holds it for all windows."""
    end = (window.count - 1) * window.stride + 1
    before = (slice(None),) * axis
    return [
        tensor[(*before, slice(start, start + end, window.stride))]
        for start in range(0, window.taps * window.dilation, window.dilation)
    ]


_Pool = Callable[[Any, list[int], list[int], str], Any]


def _pooled(
    tensor: Any, windows: list[_Window], pool: _Pool, combine: Callable[[list[Any]], Any], padding: str
) -> Any:
    """A pool over the spatial axes of a channels-last tensor that is padded, or pads itself with SAME."""
    plain = [window.taps > 1 or window.stride > 1 for window in windows]
    for axis, window in enumerate(windows):
        if window.dilation > 1 and window.taps > 1:
            tensor, plain[axis] = combine(_shifted(tensor, axis + 1, window)), False
    kernel = [window.taps if each else 1 for window, each in zip(windows, plain, strict=True)]
    strides = [window.stride if each else 1 for window, each in zip(windows, plain, strict=True)]
    counts = [window.count for window in windows]
    sizes = tensor.shape.as_list()
    batch, channels = -1 if sizes[0] is None else sizes[0], sizes[-1]
    if len(windows) == 1:
        result = pool(tf.expand_dims(tensor, 1), [1, *kernel], [1, *strides], padding)
        return tf.squeeze(result, 1)
    if len(windows) == 2:
        return pool(tensor, kernel, strides, padding) if any(plain) else tensor
    # The last two axes together, then each axis before them with those behind it as one.
    lead = sizes[1:-3]
    merged = tf.reshape(tensor, [-1, *sizes[-3:]])
    if any(plain[-2:]):
        merged = pool(merged, kernel[-2:], strides[-2:], padding)
    behind = int(np.prod(merged.shape.as_list()[1:3]))
    for axis in reversed(range(len(lead))):
        merged = tf.reshape(merged, [-1, lead[axis], behind, channels])
        if plain[axis]:
            merged = pool(merged, [kernel[axis], 1], [strides[axis], 1], padding)
        behind *= merged.shape[1]
    return tf.reshape(merged, [batch, *counts, channels])


def _maximum_pool(tensor: Any, kernel: list[int], strides: list[int], padding: str) -> Any:
    return tf.nn.max_pool2d(tensor, kernel, strides, padding)


def _mean_pool(tensor: Any, kernel: list[int], strides: list[int], padding: str) -> Any:
    return tf.nn.avg_pool2d(tensor, kernel, strides, padding)


def _mean_of(parts: list[Any]) -> Any:
    return reduce(tf.add, parts) * (1.0 / len(parts))


def _maximum_of(parts: list[Any]) -> Any:
    return reduce(tf.maximum, parts)


def _real(x: Value) -> Any:
    """The channels-last tensor as float32; the integers that ONNX pools are of a byte."""
    tensor = x.stored_as(channels_last(x.rank))
    return tensor if is_float(x.dtype) else tf.cast(tensor, tf.float32)


def _returned(result: Any, x: Value) -> Value:
    if not is_float(x.dtype):
        result = tf.cast(result, tf.int32)
    return Value.of(result, x.dtype, channels_last(x.rank))


def _unsized(node: Node, x: Value, pool: _Pool, fill: float) -> Value:
    """A pool over two axes of which a size is not known: everything but that is."""
    kernel, dilations = node.attribute("kernel_shape"), node.attribute("dilations", [1])
    strides = node.attribute("strides") or [1] * len(kernel)
    automatic = node.attribute("auto_pad", "NOTSET")
    if (
        len(kernel) != 2
        or max(dilations) > 1
        or node.attribute("ceil_mode", 0)
        or automatic.startswith("SAME")
    ):
        raise Unsupported("the size of its input is not known", "fix it with --input NAME:SHAPE")
    pads = pads_of(node, x.shape[2:], kernel, strides, [1, 1])
    tensor = _real(x)
    if any(map(any, pads)):
        widths = [(0, 0), *pads, (0, 0)]
        tensor = tf.pad(tensor, widths, constant_values=tf.constant(fill, tensor.dtype))
    return _returned(pool(tensor, kernel, strides, "VALID"), x)


@operator("MaxPool")
def max_pool(node: Node, x: Value) -> Value | list[Value]:
    """The largest element of each window, and where it is."""
    if None in x.shape[2:] and len(node.outputs) == 1:
        return _unsized(node, x, _maximum_pool, -np.inf)
    windows = _windows(node, x)
    if len(node.outputs) > 1 and node.outputs[1]:
        return _with_indices(x, windows, by_columns=bool(node.attribute("storage_order", 0)))
    tensor = _real(x)
    if all(window.is_same for window in windows):
        return _returned(_pooled(tensor, windows, _maximum_pool, _maximum_of, "SAME"), x)
    tensor = _filled_for_maximum(tensor, windows)
    return _returned(_pooled(tensor, windows, _maximum_pool, _maximum_of, "VALID"), x)


def _with_indices(x: Value, windows: list[_Window], *, by_columns: bool) -> list[Value]:
    """Maxima and their positions in the flat tensor; of equal ones the first in row-major order."""
    spatial = len(windows)
    best = _filled(_real(x), windows, -np.inf)
    batch, channels = x.shape[:2]
    if batch is None or channels is None:
        raise Unsupported("the size of its input is not known", "fix it with --input NAME:SHAPE")
    sizes = [window.size for window in windows]
    total = int(np.prod(sizes))
    if batch * channels * total > np.iinfo(np.int32).max:
        raise Unsupported("positions beyond 2^31", "split the batch")
    places = np.arange(batch)[:, None] * channels + np.arange(channels)
    index: Any = tf.constant((places * total).reshape(batch, *[1] * spatial, channels).astype(np.int32))
    for axis in reversed(range(spatial)):
        window = windows[axis]
        step = int(np.prod(sizes[:axis] if by_columns else sizes[axis + 1 :]))
        positions = (np.arange(window.size + window.low + max(window.high, 0)) - window.low) * step
        shape = [-1 if each == axis else 1 for each in range(-1, spatial + 1)]
        index = index + tf.constant(positions.reshape(shape).astype(np.int32))
        pairs = zip(_shifted(best, axis + 1, window), _shifted(index, axis + 1, window), strict=True)
        best, index = next(pairs)
        for value, at in pairs:
            index = tf.where(value > best, at, index)
            best = tf.maximum(best, value)
    order = channels_last(x.rank)
    return [_returned(best, x), Value.of(tf.cast(index, tf.int64), np.int64, order)]


@operator("AveragePool")
def average_pool(node: Node, x: Value) -> Value:
    """The mean of each window, of its elements with the padding or without."""
    if None in x.shape[2:]:
        result = _unsized(node, x, _mean_pool, 0.0)
        if node.attribute("count_include_pad", 0) or not any(node.attribute("pads", [0])):
            return result
        ones = x.like(tf.ones_like(x.flat))
        return result.like(result.flat / _unsized(node, ones, _mean_pool, 0.0).flat)
    windows = _windows(node, x)
    tensor = _real(x)
    if node.attribute("count_include_pad", 0):
        padded = any(window.low or window.declared for window in windows)
    else:
        padded = False
    if not padded and all(window.is_same for window in windows):
        return _returned(_pooled(tensor, windows, _mean_pool, _mean_of, "SAME"), x)
    result = _pooled(_filled(tensor, windows, 0.0), windows, _mean_pool, _mean_of, "VALID")
    for axis, window in enumerate(windows):
        counted = window.counted(padding=padded)
        if (counted != window.taps).any():
            factor = (window.taps / np.maximum(counted, 1)).astype(np.float32)
            result = result * factor.reshape([-1, *[1] * (len(windows) - axis)])
    return _returned(result, x)


@operator("LpPool")
def lp_pool(node: Node, x: Value) -> Value:
    """The p-norm of each window."""
    windows, p = _windows(node, x), node.attribute("p", 2)
    tensor = _filled(_powers(_real(x), p), windows, 0.0)
    result = _pooled(tensor, windows, _mean_pool, _mean_of, "VALID")
    return _returned(_root(result * float(np.prod([window.taps for window in windows])), p), x)


def _powers(tensor: Any, p: float) -> Any:
    if p == 2:
        return tf.square(tensor)
    return tf.abs(tensor) if p == 1 else tf.pow(tf.abs(tensor), float(p))


def _root(tensor: Any, p: float) -> Any:
    if p == 2:
        return tf.sqrt(tensor)
    return tensor if p == 1 else tf.pow(tensor, 1.0 / p)


def _over_all(function: Callable[[Any, list[int]], Any], x: Value) -> Value:
    return x.like(function(x.flat, [x.stored_axis(axis) for axis in range(2, x.rank)]))


@operator("GlobalAveragePool")
def global_average_pool(_node: Node, x: Value) -> Value:
    """The mean over all spatial axes, which stay with size one."""
    return _over_all(lambda tensor, axes: tf.reduce_mean(tensor, axes, keepdims=True), x)


@operator("GlobalMaxPool")
def global_max_pool(_node: Node, x: Value) -> Value:
    """The maximum over all spatial axes, which stay with size one."""
    return _over_all(lambda tensor, axes: tf.reduce_max(tensor, axes, keepdims=True), x)


@operator("GlobalLpPool")
def global_lp_pool(node: Node, x: Value) -> Value:
    """The p-norm over all spatial axes, which stay with size one."""
    p = node.attribute("p", 2)
    return _over_all(lambda tensor, axes: _root(tf.reduce_sum(_powers(tensor, p), axes, keepdims=True), p), x)


@operator("MaxUnpool")
def max_unpool(node: Node, x: Value, indices: Value, wanted: Value | None = None) -> Value:
    """Zeros, but for the elements of `x` where a `MaxPool` found them."""
    kernel = node.attribute("kernel_shape")
    spatial = len(kernel)
    strides = node.attribute("strides") or [1] * spatial
    pads = node.attribute("pads") or [0] * (2 * spatial)
    if None in x.shape:
        raise Unsupported("the size of its input is not known", "fix it with --input NAME:SHAPE")
    if any(stride < taps for stride, taps in zip(strides, kernel, strict=True)):
        raise Unsupported(
            "windows that overlap, so that several values may go to one place",
            "pool with strides of its kernel",
        )
    sizes = [int(size) for size in x.shape if size is not None]
    inferred = sizes[:2] + [
        (size - 1) * stride - pads[axis] - pads[axis + spatial] + taps
        for axis, (size, stride, taps) in enumerate(zip(sizes[2:], strides, kernel, strict=True))
    ]
    shape = inferred if wanted is None else node.known(wanted, "output shape")
    # Both are read in one order, whichever that is, since the indices say where each goes.
    order = x.order if indices.is_constant else indices.order
    places = tf.reshape(tf.cast(indices.stored_as(order), tf.int32), [-1, 1])
    values = tf.reshape(x.stored_as(order), [-1])
    flat = tf.scatter_nd(places, values, [int(np.prod(inferred))])
    result = tf.reshape(flat, inferred)
    if shape != inferred:
        result = tf.pad(result, [(0, more - size) for more, size in zip(shape, inferred, strict=True)])
    return Value.of(result, x.dtype)
