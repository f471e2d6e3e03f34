"""Pictures read at places that are computed: grids of points, regions, and convolutions with moved taps.

A picture is laid out as rows of channels, (batch * space, channels), of which the device gathers those next to each
place; their weighted sum is the value between them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from itertools import product
from typing import Any

import numpy as np

from convert.libraries import load_library
from convert.onnx.node import Node
from convert.onnx.problems import Unsupported
from convert.onnx.registry import operator
from convert.onnx.value import Value, channels_last

__all__: list[str] = []

tf = load_library("tensorflow")

# The coefficient of the cubic kernel that ONNX and PyTorch sample with.
_CUBIC = -0.75


def _rows(x: Value) -> tuple[Any, int, list[int]]:
    """A picture as rows of channels, its batch size, and the sizes of its spatial axes."""
    if None in x.shape:
        raise Unsupported("the size of its input is not known", "fix it with --input NAME:SHAPE")
    batch, channels, *space = (int(size) for size in x.shape if size is not None)
    return tf.reshape(x.stored_as(channels_last(x.rank)), [-1, channels]), batch, space


def _gathered(rows: Any, first: Any, places: Sequence[Any], space: Sequence[int]) -> Any:
    """Rows at whole places inside the picture that starts at row `first`; (..., channels)."""
    index = first
    for axis, place in enumerate(places):
        step = int(np.prod(space[axis + 1 :]))
        index = index + (tf.cast(place, tf.int32) if step == 1 else tf.cast(place, tf.int32) * step)
    return tf.gather(rows, index)


def _inside(place: Any, size: int) -> Any:
    return tf.cast((place >= 0.0) & (place <= size - 1.0), tf.float32)


_Taps = list[tuple[Any, Any]]


def _linear_taps(place: Any) -> _Taps:
    """The whole places around one, and their weights."""
    low = tf.floor(place)
    share = place - low
    return [(low, 1.0 - share), (low + 1.0, share)]


def _cubic_taps(place: Any) -> _Taps:
    low, a = tf.floor(place), _CUBIC
    share = place - low

    def near(d: Any) -> Any:
        return ((a + 2.0) * d - (a + 3.0)) * d * d + 1.0

    def far(d: Any) -> Any:
        return ((d - 5.0) * d + 8.0) * d * a - 4.0 * a

    weights = [far(share + 1.0), near(share), near(1.0 - share), far(2.0 - share)]
    return [(low + float(step - 1), weight) for step, weight in enumerate(weights)]


_TAPS: dict[str, Callable[[Any], _Taps]] = {
    "nearest": lambda place: [(tf.round(place), tf.ones_like(place))],
    "linear": _linear_taps,
    "bilinear": _linear_taps,
    "cubic": _cubic_taps,
    "bicubic": _cubic_taps,
}


def _reflected(place: Any, low: float, high: float) -> Any:
    """A place mirrored at both ends until it lies between them."""
    span = high - low
    if span <= 0.0:
        return tf.zeros_like(place) + low
    turns = tf.floor((place - low) / (2.0 * span))
    within = place - low - turns * (2.0 * span)
    return span - tf.abs(within - span) + low


@operator("GridSample")
def grid_sample(node: Node, x: Value, grid: Value) -> Value:
    """A picture at the places of a grid that spans -1 to 1 along each axis, the last axis first."""
    rows, batch, space = _rows(x)
    corners = bool(node.attribute("align_corners", 0))
    padding, mode = node.attribute("padding_mode", "zeros"), node.attribute("mode", "linear")
    points = grid.tensor
    spread = points.shape.as_list()[1:-1]
    first = tf.constant(
        (np.arange(batch, dtype=np.int32) * int(np.prod(space))).reshape(-1, *[1] * len(spread))
    )
    taps: list[_Taps] = []
    for axis, size in enumerate(space):
        place = points[..., len(space) - 1 - axis]
        place = (place + 1.0) * ((size - 1) / 2.0) if corners else (place + 1.0) * (size / 2.0) - 0.5
        low, high = (0.0, size - 1.0) if corners else (-0.5, size - 0.5)
        if mode == "nearest":
            place = tf.round(place)
        # PyTorch keeps places outside for the cubic kernel, and moves only what it reads.
        if padding == "border" and not mode.endswith("cubic"):
            place = tf.clip_by_value(place, 0.0, size - 1.0)
        elif padding == "reflection" and not mode.endswith("cubic"):
            place = _reflected(place, low, high)
        taps.append([_bounded(*tap, size, padding, (low, high)) for tap in _TAPS[mode](place)])
    return Value.of(_weighted(rows, first, taps, space), x.dtype, channels_last(x.rank))


def _bounded(place: Any, weight: Any, size: int, padding: str, ends: tuple[float, float]) -> tuple[Any, Any]:
    """A whole place moved into the picture, and its weight, which is none where that must not be."""
    if padding == "zeros":
        weight = weight * _inside(place, size)
    elif padding == "reflection":
        place = _reflected(place, *ends)
    return tf.clip_by_value(place, 0.0, size - 1.0), weight


def _weighted(rows: Any, first: Any, taps: Sequence[_Taps], space: Sequence[int]) -> Any:
    """The sum over all combinations of the taps of each axis; (..., channels)."""
    parts = []
    for combination in product(*taps):
        values = _gathered(rows, first, [place for place, _ in combination], space)
        weight = reduce(tf.multiply, [weight for _, weight in combination])
        parts.append(values * weight[..., None])
    return reduce(tf.add, parts)


@operator("AffineGrid")
def affine_grid(node: Node, theta: Value, size: Value) -> Value:
    """The places in a picture that affine matrices map those of another to, for `GridSample`."""
    batch, _, *space = node.known(size, "size")
    axes = []
    for each in reversed(space):
        if node.attribute("align_corners", 0):
            axes.append(np.linspace(-1, 1, each))
        else:
            axes.append((np.arange(each) * 2 + 1) / each - 1)
    # Coordinates are listed from the last axis to the first.
    mesh = np.meshgrid(*reversed(axes), indexing="ij")[::-1]
    points = np.stack([*mesh, np.ones(space)], -1).reshape(1, -1, len(space) + 1).astype(np.float32)
    result = tf.matmul(points, theta.tensor, transpose_b=True)
    return Value.of(tf.reshape(result, [batch, *space, len(space)]), theta.dtype)


@operator("RoiAlign", since=10)
def roi_align_whole(node: Node, x: Value, rois: Value, batch_indices: Value) -> Value:
    """Samples of regions, whose corners are at the corners of pixels."""
    return _roi_aligned(node, x, rois, batch_indices, half=False)


@operator("RoiAlign", since=16)
def roi_align(node: Node, x: Value, rois: Value, batch_indices: Value) -> Value:
    """Samples of regions (He et al. 2017), averaged in each of a number of bins, or the largest of each."""
    half = node.attribute("coordinate_transformation_mode", "half_pixel") == "half_pixel"
    return _roi_aligned(node, x, rois, batch_indices, half=half)


def _roi_aligned(node: Node, x: Value, rois: Value, batch_indices: Value, *, half: bool) -> Value:
    rows, _, space = _rows(x)
    bins = [node.attribute("output_height", 1), node.attribute("output_width", 1)]
    maximum = node.attribute("mode", "avg") == "max"
    scaled = rois.tensor * node.attribute("spatial_scale", 1.0) - (0.5 if half else 0.0)
    ratio = node.attribute("sampling_ratio", 0)
    first = tf.cast(batch_indices.tensor, tf.int32)[:, None, None] * int(np.prod(space))
    starts, steps, counts = [], [], []
    for axis in (0, 1):
        start, end = scaled[:, 1 - axis, None], scaled[:, 3 - axis, None]
        extent = end - start if half else tf.maximum(end - start, 1.0)
        step = extent * (1.0 / bins[axis])
        starts.append(start + step * np.arange(bins[axis], dtype=np.float32))  # (regions, bins)
        steps.append(step)
        counts.append(tf.ones_like(step) * float(ratio) if ratio else tf.math.ceil(step))

    def sample(offsets: Sequence[Any]) -> Any:
        """The values at one sample of every bin; (regions, bins, bins, channels)."""
        taps: list[_Taps] = []
        for axis, size in enumerate(space):
            place = starts[axis] + steps[axis] * ((offsets[axis] + 0.5) / tf.maximum(counts[axis], 1.0))
            outside = (place < -1.0) | (place > float(size))
            place = tf.clip_by_value(place, 0.0, size - 1.0)
            shape = [-1, bins[0], 1] if axis == 0 else [-1, 1, bins[1]]
            taps.append(
                [
                    (
                        tf.reshape(tf.minimum(at, size - 1.0), shape),
                        tf.reshape(tf.where(outside, tf.zeros_like(weight), weight), shape),
                    )
                    for at, weight in _linear_taps(place)
                ]
            )
        if not maximum:
            return _weighted(rows, first, taps, space)
        # ONNX takes the largest of the weighted neighbours, not of their sum.
        return reduce(tf.maximum, [_weighted(rows, first, [[a], [b]], space) for a, b in product(*taps)])

    if ratio:
        parts = [sample(offsets) for offsets in product(map(float, range(ratio)), repeat=2)]
        result = reduce(tf.maximum, parts) if maximum else reduce(tf.add, parts) * (1.0 / len(parts))
    else:
        result = _sampled_as_needed(sample, counts, maximum=maximum)
    return Value.of(result, x.dtype, channels_last(4))


def _sampled_as_needed(
    sample: Callable[[Sequence[Any]], Any], counts: Sequence[Any], *, maximum: bool
) -> Any:
    """All samples of regions that have as many as they are large: a loop as long as the largest needs."""
    down, across = (tf.reshape(each, [-1, 1, 1, 1]) for each in counts)
    most = tf.cast(tf.reduce_max(across), tf.int32)
    rounds = tf.cast(tf.reduce_max(down), tf.int32) * most

    def step(at: Any, total: Any) -> tuple[Any, Any]:
        y, x = (tf.cast(each, tf.float32) for each in (at // most, at % most))
        values = sample([y, x])
        counted = (y < down) & (x < across)
        if maximum:
            return at + 1, tf.where(counted, tf.maximum(total, values), total)
        return at + 1, total + tf.where(counted, values, tf.zeros_like(values))

    empty = tf.zeros_like(sample([0.0, 0.0]))
    start = empty + float(np.finfo(np.float32).min) if maximum else empty
    _, total = tf.while_loop(lambda at, _: at < rounds, step, [tf.constant(0), start])
    if maximum:
        return tf.where((down > 0.0) & (across > 0.0), total, empty)
    return total / tf.maximum(down * across, 1.0)


@operator("MaxRoiPool")
def max_roi_pool(node: Node, x: Value, rois: Value) -> Value:
    """The largest element in each bin of regions of whole pixels (Girshick 2015)."""
    _, batch, space = _rows(x)
    bins, scale = node.attribute("pooled_shape"), node.attribute("spatial_scale", 1.0)
    regions = rois.tensor
    tensor = x.stored_as(channels_last(4))
    if batch > 1:
        tensor = tf.gather(tensor, tf.cast(regions[:, 0], tf.int32))
    for axis, size in enumerate(space):
        # ONNX rounds half away from zero.
        start, end = (
            tf.sign(each) * tf.floor(tf.abs(each) + 0.5)
            for each in (regions[:, 2 - axis, None] * scale, regions[:, 4 - axis, None] * scale)
        )
        step = tf.maximum(end - start + 1.0, 1.0) * (1.0 / bins[axis])
        parts = []
        for at in range(bins[axis]):
            low = tf.clip_by_value(tf.floor(step * float(at)) + start, 0.0, float(size))
            high = tf.clip_by_value(tf.math.ceil(step * float(at + 1)) + start, 0.0, float(size))
            pixels = np.arange(size, dtype=np.float32)[None]
            taken = (pixels >= low) & (pixels < high)
            mask = tf.reshape(taken, [-1, size, 1, 1] if axis == 0 else [-1, 1, size, 1])
            part = tf.reduce_max(tf.where(mask, tensor, -np.inf), axis + 1, keepdims=True)
            parts.append(part)
        tensor = tf.concat(parts, axis + 1)
    # A bin without a pixel is zero.
    return Value.of(
        tf.where(tf.equal(tensor, -np.inf), tf.zeros_like(tensor), tensor), x.dtype, channels_last(4)
    )


@operator("DeformConv")
def deform_conv(
    node: Node, x: Value, weights: Value, offset: Value, bias: Value | None = None, mask: Value | None = None
) -> Value:
    """A convolution whose taps are moved at each place, and weighted there (Zhu et al. 2019)."""
    batch, channels, *space = x.shape
    kernel = [int(size or 0) for size in weights.shape[2:]]
    spatial, taps = len(kernel), int(np.prod(kernel))
    if None in x.shape or channels is None or batch is None:
        raise Unsupported("the size of its input is not known", "fix it with --input NAME:SHAPE")
    strides = node.attribute("strides") or [1] * spatial
    dilations = node.attribute("dilations") or [1] * spatial
    low = (node.attribute("pads") or [0] * (2 * spatial))[:spatial]
    groups, offset_groups = node.attribute("group", 1), node.attribute("offset_group", 1)
    counts = [int(size or 0) for size in offset.shape[2:]]
    order = channels_last(x.rank)
    moves = tf.reshape(offset.stored_as(order), [batch, *counts, offset_groups, taps, spatial])
    factors = None
    if mask is not None:
        factors = tf.reshape(mask.stored_as(order), [batch, *counts, offset_groups, taps])
    tensor, sizes = x.stored_as(order), [int(size or 0) for size in space]
    first = (np.arange(batch, dtype=np.int32) * int(np.prod(sizes))).reshape(-1, *[1] * (spatial + 1))
    grid = np.indices(kernel).reshape(spatial, taps)
    parts = []
    for group, part in enumerate(tf.split(tensor, offset_groups, -1) if offset_groups > 1 else [tensor]):
        rows = tf.reshape(part, [-1, channels // offset_groups])
        along: list[_Taps] = []
        for axis, size in enumerate(sizes):
            start = np.arange(counts[axis], dtype=np.float32) * strides[axis] - low[axis]
            shape = [1, *(-1 if each == axis else 1 for each in range(spatial)), 1]
            base = start.reshape(shape) + (grid[axis] * dilations[axis]).astype(np.float32)
            place = moves[..., group, :, axis] + base  # (batch, space..., taps)
            along.append([_bounded(*tap, size, "zeros", (0.0, 0.0)) for tap in _linear_taps(place)])
        values = _weighted(rows, tf.constant(first), along, sizes)
        parts.append(values if factors is None else values * factors[..., group, :, None])
    columns = parts[0] if len(parts) == 1 else tf.concat(parts, -1)
    outputs = int(weights.shape[0] or 0)
    # (out, in / groups, kernel...) to (kernel, in / groups, out).
    kernels = tf.reshape(
        weights.plain.stored_as((*range(2, x.rank), 1, 0)), [taps, channels // groups, outputs]
    )
    results = []
    for index in range(groups):
        own = columns
        if groups > 1:
            width = channels // groups
            own = columns[..., index * width : (index + 1) * width]
        flat = tf.reshape(own, [-1, taps * (channels // groups)])
        share = outputs // groups
        own_kernels = kernels[..., index * share : (index + 1) * share]
        results.append(tf.matmul(flat, tf.reshape(own_kernels, [-1, share])))
    result = results[0] if groups == 1 else tf.concat(results, -1)
    if bias is not None:
        result = result + bias.plain.tensor
    return Value.of(tf.reshape(result, [batch, *counts, outputs]), x.dtype, order)
