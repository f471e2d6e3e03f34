"""Resizing: any mode of any axis, as the two builtin operators of a device where they compute just that.

Each axis is resized on its own: an element of the result is a weighted sum of elements of the input, and both places
and weights are known at conversion. The device's operators are taken when their places and weights come out as the same
numbers; else rows are gathered and summed, or multiplied by a matrix where there are many to a sum.

Where ONNX's own texts differ, this follows its formulas and PyTorch: sizes in `align_corners` are those of the result,
also where a factor would give a fraction of an element.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, NamedTuple

import numpy as np

from convert.libraries import load_library
from convert.onnx.carriers import is_float
from convert.onnx.node import Node
from convert.onnx.problems import Unsupported
from convert.onnx.registry import operator
from convert.onnx.value import Value, channels_last
from edge_runtime.tensor_spec import Array

__all__: list[str] = []

tf = load_library("tensorflow")

# From this many terms a matrix product is faster than a sum of gathered rows.
_MANY_TERMS = 6


@dataclass(frozen=True)
class _Manner:
    """How a node resizes; the names are those of ONNX.

    Attributes:
        mode: `nearest`, `linear` or `cubic`.
        coordinates: How a place in the result becomes one in the input.
        nearest: How that place is rounded; `simple` is what versions before 11 did.
        cubic: The coefficient of Keys's cubic kernel.
        exclude_outside: Whether places outside the input have no weight.
        antialias: Whether the kernel grows with the step between samples.
        outside: For `tf_crop_and_resize`, the value of places outside.
    """

    mode: str
    coordinates: str
    nearest: str = "simple"
    cubic: float = -0.75
    exclude_outside: bool = False
    antialias: bool = False
    outside: float = 0.0


class _Axis(NamedTuple):
    """How one axis is resized.

    Attributes:
        places: Elements of the input that each element of the result is made from; (count, terms).
        weights: What they are multiplied by; (count, terms).
        inside: Which elements of the result lie in the input; (count,).
    """

    places: Array
    weights: Array
    inside: Array

    def is_identity(self, size: int) -> bool:
        matrix = self.matrix(size)
        return (
            bool(self.inside.all()) and matrix.shape == (size, size) and bool((matrix == np.eye(size)).all())
        )

    def matrix(self, size: int) -> Array:
        """The same as a product with a matrix; (count, size)."""
        matrix = np.zeros((len(self.places), size), np.float32)
        rows = np.broadcast_to(np.arange(len(self.places))[:, None], self.places.shape)
        np.add.at(matrix, (rows, self.places), self.weights)
        return matrix


@operator("Upsample")
def upsample_by_attribute(node: Node, x: Value) -> Value:
    """Resized by factors that the node has."""
    scales = node.attribute("scales")
    if scales is None:  # version 1
        scales = [1.0, 1.0, node.attribute("height_scale", 1.0), node.attribute("width_scale", 1.0)]
    return _resized(x, _old_manner(node), scales=np.array(scales, np.float32))


@operator("Upsample", since=9)
@operator("Resize", since=10)
def resize_by_scales(node: Node, x: Value, scales: Value) -> Value:
    """Resized by factors, before there were ways to choose from."""
    return _resized(x, _old_manner(node), scales=node.constant(scales, "scales"))


@operator("Resize", since=11)
def resize(
    node: Node,
    x: Value,
    roi: Value | None = None,
    scales: Value | None = None,
    sizes: Value | None = None,
) -> Value:
    """Resized by factors or to sizes."""
    manner = _Manner(
        mode=node.attribute("mode", "nearest"),
        coordinates=node.attribute("coordinate_transformation_mode", "half_pixel"),
        nearest=node.attribute("nearest_mode", "round_prefer_floor"),
        cubic=node.attribute("cubic_coeff_a", -0.75),
        exclude_outside=bool(node.attribute("exclude_outside", 0)),
        antialias=bool(node.attribute("antialias", 0)),
        outside=node.attribute("extrapolation_value", 0.0),
    )
    axes = [axis % x.rank for axis in node.attribute("axes") or range(x.rank)]
    cropped = manner.coordinates == "tf_crop_and_resize"
    region = node.constant(roi, "roi") if cropped else None
    if sizes is not None and 0 not in sizes.shape:
        return _resized(
            x,
            manner,
            sizes=node.known(sizes, "sizes"),
            axes=axes,
            region=region,
            policy=node.attribute("keep_aspect_ratio_policy", "stretch"),
        )
    return _resized(x, manner, scales=node.constant(scales, "scales"), axes=axes, region=region)


def _old_manner(node: Node) -> _Manner:
    mode = node.attribute("mode", "nearest")
    return _Manner("linear" if mode in ("linear", "bilinear") else mode, "asymmetric")


def _resized(
    x: Value,
    manner: _Manner,
    *,
    scales: Array | None = None,
    sizes: Sequence[int] | None = None,
    axes: Sequence[int] | None = None,
    region: Array | None = None,
    policy: str = "stretch",
) -> Value:
    axes = list(range(x.rank)) if axes is None else list(axes)
    known = [x.shape[axis] for axis in axes]
    if sizes is not None:
        if None in known:
            raise _unknown_size()
        factors = [np.float32(size) / np.float32(own) for size, own in zip(sizes, known, strict=True)]
        if policy != "stretch":
            common = min(factors) if policy == "not_larger" else max(factors)
            factors = [common] * len(factors)
            sizes = [int(np.floor(common * np.float32(own) + np.float32(0.5))) for own in known]
    else:
        factors = [np.float32(factor) for factor in np.asarray(scales).reshape(-1)]
        if any(own is None and factor != 1 for own, factor in zip(known, factors, strict=True)):
            by_axis = dict(zip(axes, factors, strict=True))
            return _repeated(x, manner, [by_axis.get(axis, np.float32(1)) for axis in range(x.rank)])
        # As shape inference multiplies, in float32.
        sizes = [
            1 if own is None else int(np.floor(np.float32(own) * factor))
            for own, factor in zip(known, factors, strict=True)
        ]
    plans: dict[int, _Axis] = {}
    for index, axis in enumerate(axes):
        own = known[index]
        if own is None:
            continue
        ends = (0.0, 1.0)
        if region is not None:
            flat = region.reshape(-1)
            ends = (float(flat[index]), float(flat[index + len(axes)]))
        plan = _planned(manner, own, sizes[index], factors[index], ends)
        if not plan.is_identity(own):
            plans[axis] = plan
    return _applied(x, plans, manner) if plans else x


def _repeated(x: Value, manner: _Manner, factors: list[np.float32]) -> Value:
    """An image of any size, each pixel of which becomes a square of equal ones.

    Copies side by side in the channels are dealt out over the square by DEPTH_TO_SPACE: sizes then follow from the
    input's own, where a resize operator would want them as numbers or make every tensor behind it dynamic.
    """
    factor = int(factors[-1])
    repeats = _planned(manner, 7, 7 * factor, np.float32(factor), (0.0, 1.0)) if factor > 1 else None
    if (
        x.rank != 4
        or repeats is None
        or [float(each) for each in factors] != [1, 1, factor, factor]
        or not np.array_equal(repeats.places, np.arange(7).repeat(factor)[:, None])
    ):
        raise _unknown_size()
    last = x.reordered(channels_last(4))
    copies = tf.concat([last.flat] * factor**2, axis=-1)
    return Value.of(tf.nn.depth_to_space(copies, factor), x.dtype, last.order)


def _unknown_size() -> Unsupported:
    return Unsupported("the size of its input is not known", "fix it with --input NAME:SHAPE")


def _planned(manner: _Manner, size: int, count: int, factor: np.float32, ends: tuple[float, float]) -> _Axis:
    places = _coordinates(manner.coordinates, size, count, factor, ends)
    inside = np.ones(count, bool)
    if manner.coordinates == "tf_crop_and_resize":
        inside = (places >= 0) & (places <= size - 1)
    if manner.mode == "nearest":
        index = _rounded(places, manner.nearest, shrinks=bool(factor < 1))
        return _Axis(
            np.clip(index, 0, size - 1).astype(np.int64)[:, None], np.ones((count, 1), np.float32), inside
        )
    step = max(1.0, 1.0 / float(factor)) if manner.antialias else 1.0
    radius = (1 if manner.mode == "linear" else 2) * step
    first = np.floor(places).astype(np.int64) - int(np.ceil(radius)) + 1
    taken = first[:, None] + np.arange(2 * int(np.ceil(radius)))
    distances = np.abs(taken - places.astype(np.float64)[:, None]) / step
    weights = np.maximum(1 - distances, 0) if manner.mode == "linear" else _keys(distances, manner.cubic)
    if manner.exclude_outside or manner.antialias:
        outside = (taken < 0) | (taken >= size)
        weights = np.where(outside & manner.exclude_outside, 0, weights)
        total = weights.sum(1, keepdims=True)
        weights = weights / np.where(total == 0, 1, total)
    return _Axis(np.clip(taken, 0, size - 1), weights.astype(np.float32), inside)


def _keys(distances: Array, a: float) -> Array:
    """Keys's cubic kernel (IEEE Transactions on Acoustics, Speech, and Signal Processing 29, 1981)."""
    near = ((a + 2) * distances - (a + 3)) * distances**2 + 1
    far = ((distances - 5) * distances + 8) * distances * a - 4 * a
    weights: Array = np.where(distances <= 1, near, np.where(distances < 2, far, 0))
    return weights


def _coordinates(name: str, size: int, count: int, factor: np.float32, ends: tuple[float, float]) -> Array:
    """Where in the input each element of the result lies, in float32 as runtimes compute it; (count,)."""
    place: Array = np.arange(count, dtype=np.float32)
    half, last = np.float32(0.5), np.float32(size - 1)
    if name == "asymmetric":
        return place / factor
    if name == "align_corners":
        return place * last / np.float32(count - 1) if count > 1 else place * 0
    if name == "tf_crop_and_resize":
        start, end = map(np.float32, ends)
        if count > 1:
            return start * last + place * (end - start) * last / np.float32(count - 1)
        return place + half * (start + end) * last
    if name == "tf_half_pixel_for_nn":
        return (place + half) / factor
    if name == "pytorch_half_pixel" and count <= 1:
        return place * 0
    centred = (place + half) / factor - half
    if name == "half_pixel_symmetric":
        adjusted = np.float32(count) / (factor * np.float32(size))
        return np.float32(size) / 2 * (1 - adjusted) + centred
    if name in ("half_pixel", "pytorch_half_pixel"):
        return centred
    raise Unsupported(f"the coordinate transformation '{name}'", "export the model with 'half_pixel'")


def _rounded(places: Array, how: str, *, shrinks: bool) -> Array:
    if how == "floor" or (how == "simple" and not shrinks):
        return np.floor(places)
    if how in ("ceil", "simple"):
        return np.ceil(places)
    half = np.float32(0.5)
    return np.ceil(places - half) if how == "round_prefer_floor" else np.floor(places + half)


def _applied(x: Value, plans: dict[int, _Axis], manner: _Manner) -> Value:
    whole = not is_float(x.dtype)
    if x.rank in (3, 4, 5) and set(plans) <= set(range(2, x.rank)):
        x = x.reordered(channels_last(x.rank))
    order, tensor = x.order, x.flat
    if whole and manner.mode != "nearest":
        tensor = tf.cast(tensor, tf.float32)
    rest = dict(plans)
    if tensor.dtype == tf.float32 and order == channels_last(x.rank) and x.rank in (3, 4, 5):
        tensor, rest = _by_builtin(tensor, x, plans, manner.mode)
    # The axis that shrinks most comes first, so that the others have less to do.
    for axis in sorted(rest, key=lambda each: len(rest[each].places) / (x.shape[each] or 1)):
        tensor = _along(tensor, order.index(axis), rest[axis])
    for axis, plan in plans.items():
        if not plan.inside.all():
            shape = [-1 if each == axis else 1 for each in order]
            tensor = tf.where(
                tf.constant(plan.inside.reshape(shape)), tensor, tf.constant(manner.outside, tensor.dtype)
            )
    if whole and manner.mode != "nearest":
        bounds = np.iinfo(x.dtype)
        tensor = tf.cast(
            tf.clip_by_value(tf.round(tensor), float(bounds.min), float(bounds.max)), x.flat.dtype
        )
    return Value.of(tensor, x.dtype, order)


def _along(tensor: Any, axis: int, plan: _Axis) -> Any:
    """A tensor with one stored axis resized."""
    terms = plan.places.shape[1]
    size, count = tensor.shape[axis], len(plan.places)
    if terms == 1:
        return tf.gather(tensor, tf.constant(plan.places[:, 0].astype(np.int32)), axis=axis)
    if terms >= _MANY_TERMS or terms >= size:
        sizes = tensor.shape.as_list()
        before = [-1 if each is None else each for each in sizes[:axis]]
        behind = int(np.prod(sizes[axis + 1 :]))
        if behind == 1:
            result = tf.matmul(tf.reshape(tensor, [-1, size]), plan.matrix(size), transpose_b=True)
        else:
            rows = tf.reshape(tensor, [-1, size, behind])
            matrix = tf.constant(plan.matrix(size))
            result = tf.matmul(
                matrix[None] if rows.shape[0] == 1 else tf.tile(matrix[None], [tf.shape(rows)[0], 1, 1]), rows
            )
        return tf.reshape(result, [*before, count, *sizes[axis + 1 :]])
    shape = [-1 if each == axis else 1 for each in range(tensor.shape.rank)]
    parts = [
        tf.gather(tensor, tf.constant(plan.places[:, term].astype(np.int32)), axis=axis)
        * plan.weights[:, term].reshape(shape)
        for term in range(terms)
        if plan.weights[:, term].any()
    ]
    return reduce(tf.add, parts)


def _by_builtin(tensor: Any, x: Value, plans: dict[int, _Axis], mode: str) -> tuple[Any, dict[int, _Axis]]:
    """The last two spatial axes resized by a builtin operator if there is one; and the plans that are left."""
    pair = [axis for axis in (x.rank - 2, x.rank - 1) if axis >= 2]
    wanted = [(int(x.shape[axis] or 0), plans.get(axis)) for axis in pair]
    if not any(plan for _, plan in wanted) or not all(size for size, _ in wanted):
        return tensor, plans
    if any(plan is not None and not plan.inside.all() for _, plan in wanted):
        return tensor, plans
    counts = [size if plan is None else len(plan.places) for size, plan in wanted]
    for align, half in ((False, True), (False, False), (True, False)):
        exact = all(
            np.allclose(
                _builtin(mode, size, count, align=align, half=half).matrix(size),
                np.eye(size) if plan is None else plan.matrix(size),
                atol=1e-5,
            )
            for (size, plan), count in zip(wanted, counts, strict=True)
        )
        if exact:
            break
    else:
        return tensor, plans
    sizes = tensor.shape.as_list()
    channels = sizes[-1]
    if x.rank != 4:
        tensor = tf.reshape(
            tensor, [-1, *([1] if x.rank == 3 else []), *sizes[-1 - len(pair) : -1], channels]
        )
    target = [1, *counts] if x.rank == 3 else counts
    if mode == "nearest":
        tensor = tf.raw_ops.ResizeNearestNeighbor(
            images=tensor, size=target, align_corners=align, half_pixel_centers=half
        )
    else:
        tensor = tf.raw_ops.ResizeBilinear(
            images=tensor, size=target, align_corners=align, half_pixel_centers=half
        )
    if x.rank != 4:
        lead = [-1 if each is None else each for each in sizes[: -1 - len(pair)]]
        tensor = tf.reshape(tensor, [*lead, *counts, channels])
    return tensor, {axis: plan for axis, plan in plans.items() if axis not in pair}


def _builtin(mode: str, size: int, count: int, *, align: bool, half: bool) -> _Axis:
    """What RESIZE_NEAREST_NEIGHBOR and RESIZE_BILINEAR of TFLite compute along an axis, with their own rounding."""
    place, centre = np.arange(count, dtype=np.float32), np.float32(0.5)
    step = np.float32(size) / np.float32(count)
    if align and count > 1:
        step = np.float32(size - 1) / np.float32(count - 1)
    inside, ones = np.ones(count, bool), np.ones((count, 1), np.float32)
    if mode == "nearest":
        at = (place + centre if half else place) * step
        index = np.floor(at + centre) if align else np.floor(at)
        return _Axis(np.clip(index, 0, size - 1).astype(np.int64)[:, None], ones, inside)
    if mode != "linear":
        return _Axis(np.zeros((count, 1), np.int64), ones * np.nan, inside)
    at = (place + centre) * step - centre if half else place * step
    low = np.floor(at).astype(np.int64)
    share = (at - low)[:, None]
    both = np.clip(np.stack([low, low + 1], 1), 0, size - 1)
    return _Axis(both, np.concatenate([1 - share, share], 1).astype(np.float32), inside)
