"""Shapes: asking for them, and giving a tensor another one without changing its elements."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from convert.libraries import load_library
from convert.onnx.node import Node
from convert.onnx.partial_shapes import array_of, elements_of, from_elements
from convert.onnx.registry import operator
from convert.onnx.value import Order, Value, identity

__all__ = ["reshaped", "shape_tensor"]

tf = load_library("tensorflow")


def shape_tensor(x: Value) -> Any:
    """The sizes of a value's axes in ONNX's order, as an int32 tensor of one axis."""
    if None not in x.shape:
        return tf.constant(x.shape, tf.int32)
    stored = tf.shape(x.flat)
    sizes = [stored[x.stored_axis(axis)] if size is None else size for axis, size in enumerate(x.shape)]
    return tf.stack(sizes)


@operator("Shape")
def shape(node: Node, x: Value) -> Value:
    """The sizes of the axes, or of those from `start` to before `end`."""
    part = slice(node.attribute("start", 0), node.attribute("end"))
    if None not in x.shape[part]:
        return Value.constant(np.array(x.shape[part], np.int64))
    stored = tf.shape(x.flat, tf.int64)
    sizes = [stored[x.stored_axis(axis)] if size is None else size for axis, size in enumerate(x.shape)]
    return from_elements(array_of(sizes[part]))


@operator("Size")
def size(_node: Node, x: Value) -> Value:
    """The number of elements."""
    known = [each for each in x.shape if each is not None]
    if len(known) == x.rank:
        return Value.constant(np.prod(known, dtype=np.int64))
    return Value.of(tf.cast(tf.reduce_prod(shape_tensor(x)), tf.int64), np.int64)


@operator("Reshape")
def reshape_by_attribute(node: Node, x: Value) -> Value:
    """The same elements in a shape that the node has."""
    return reshape(node, x, Value.constant(node.attribute("shape"), np.int64))


@operator("Reshape", since=5)
def reshape(node: Node, x: Value, wanted: Value) -> Value:
    """The same elements in another shape, in which -1 is what remains and 0 an axis's own size."""
    keeps_zero = bool(node.attribute("allowzero", 0))
    elements = elements_of(wanted)
    if elements is not None:
        return reshaped(x, _chosen(x, list(elements.reshape(-1)), keeps_zero=keeps_zero))
    if wanted.array is None:
        sizes = tf.cast(wanted.tensor, tf.int32)
        if not keeps_zero:
            own = shape_tensor(x)
            count = wanted.shape[0]
            if count is not None:
                own = own[:count] if x.rank >= count else tf.pad(own, [(0, count - x.rank)])
                sizes = tf.where(sizes == 0, own, sizes)
        return Value.of(tf.reshape(x.tensor, sizes), x.dtype)
    return reshaped(x, wanted.ints())


def _chosen(x: Value, sizes: list[Any], *, keeps_zero: bool) -> list[Any]:
    """Sizes of a reshape with zeros resolved; a single one that is computed is what remains."""
    if not keeps_zero:
        sizes = [
            x.shape[axis] if isinstance(each, int) and each == 0 else each for axis, each in enumerate(sizes)
        ]
    computed = [axis for axis, each in enumerate(sizes) if each is None or not isinstance(each, int)]
    if len(computed) == 1 and -1 not in [each for each in sizes if isinstance(each, int)]:
        sizes[computed[0]] = -1
    own = None
    for axis in computed:
        if sizes[axis] is None:
            own = tf.shape(x.tensor) if own is None else own
            sizes[axis] = own[axis]
    return sizes


# Stand for sizes that are not known, so that axes that keep theirs are found.
_UNKNOWN = (1_000_003, 1_000_033, 1_000_037, 1_000_039, 1_000_081)


def reshaped(x: Value, sizes: Sequence[Any]) -> Value:
    """A value in another shape; axes that stay together keep the order in which they are stored.

    Args:
        x: The value.
        sizes: The new ones; one may be -1, and others scalar tensors.
    """
    numbers = all(isinstance(size, int) for size in sizes)
    if x.array is not None and numbers:
        return Value.constant(x.array.reshape(tuple(sizes)))
    if not numbers:
        wanted = tf.stack([tf.cast(size, tf.int32) for size in sizes])
        return Value.of(tf.reshape(x.tensor, wanted), x.dtype)
    unknown = iter(_UNKNOWN)
    known = [next(unknown) if size is None else int(size) for size in x.shape]
    filled = [int(size) for size in sizes]
    total = int(np.prod(known, dtype=object))
    if -1 in filled:
        rest = int(np.prod([size for size in filled if size != -1], dtype=object))
        filled[filled.index(-1)] = total // rest if rest else 0
    plain = x.order == identity(x.rank) or 0 in known
    if plain or total != int(np.prod(filled, dtype=object)):
        given = filled if None not in x.shape else list(sizes)
        return Value.of(tf.reshape(x.tensor, given), x.dtype)
    before, after = _regrouped(x.order, known, filled)
    tensor = tf.reshape(
        x.stored_as(before), [int(sizes[axis]) if None in x.shape else filled[axis] for axis in after]
    )
    return Value.of(tensor, x.dtype, after)


def _regrouped(order: Order, old: list[int], new: list[int]) -> tuple[Order, Order]:
    """Orders in which to store axes before and after a reshape so that as few elements move as can be.

    Axes fall into the smallest groups between which sizes agree; a group stays where the last of its axes is stored.
    """
    groups: list[tuple[list[int], list[int]]] = []
    i = j = 0
    while i < len(old) or j < len(new):
        olds: list[int] = []
        news: list[int] = []
        left = right = 1
        while True:
            if left <= right and i < len(old) and (left < right or not olds):
                left *= old[i]
                olds.append(i)
                i += 1
            elif j < len(new) and (right < left or not news):
                right *= new[j]
                news.append(j)
                j += 1
            else:
                break
        # Axes of size one belong to the group before them.
        while i < len(old) and old[i] == 1:
            olds.append(i)
            i += 1
        while j < len(new) and new[j] == 1:
            news.append(j)
            j += 1
        groups.append((olds, news))
    place = {axis: index for index, axis in enumerate(order)}

    def where(group: tuple[list[int], list[int]]) -> int:
        wide = [axis for axis in group[0] if old[axis] != 1] or group[0]
        return max((place[axis] for axis in wide), default=-1)

    groups.sort(key=where)
    before = tuple(axis for olds, _ in groups for axis in olds)
    after = tuple(axis for _, news in groups for axis in news)
    return before, after


@operator("Flatten")
def flatten(node: Node, x: Value) -> Value:
    """Two axes: those before `axis` as one, the others as one."""
    axis = node.attribute("axis", 1)
    axis = axis + x.rank if axis < 0 else axis
    if None in x.shape:
        rows = x.shape[:axis]
        known = -1 if None in rows else int(np.prod([size for size in rows if size is not None]))
        columns = x.shape[axis:]
        if known == -1 and None not in columns:
            return reshaped(x, [-1, int(np.prod([size for size in columns if size is not None]))])
        return reshaped(x, [known, -1])
    sizes = [size for size in x.shape if size is not None]
    return reshaped(x, [int(np.prod(sizes[:axis])), int(np.prod(sizes[axis:]))])


@operator("Transpose")
def transpose(node: Node, x: Value) -> Value:
    """The axes in another order; only the record of the order changes."""
    return x.transposed(node.attribute("perm", list(reversed(range(x.rank)))))


@operator("Squeeze")
def squeeze_by_attribute(node: Node, x: Value) -> Value:
    """Without axes of size one, given by the node."""
    return _squeezed(x, node.attribute("axes"))


@operator("Squeeze", since=13)
def squeeze(node: Node, x: Value, axes: Value | None = None) -> Value:
    """Without axes of size one."""
    return _squeezed(x, None if axes is None else node.known(axes, "axes"))


def _squeezed(x: Value, axes: list[int] | None) -> Value:
    gone = {axis for axis, size in enumerate(x.shape) if size == 1}
    if axes is not None:
        gone = {axis % x.rank for axis in axes}
    if x.array is not None:
        return Value.constant(x.array.squeeze(tuple(gone)))
    if not gone:
        return x
    stored = tf.squeeze(x.flat, [x.stored_axis(axis) for axis in gone])
    kept = [axis for axis in x.order if axis not in gone]
    order = tuple(axis - sum(each < axis for each in gone) for axis in kept)
    return Value.of(stored, x.dtype, order)


@operator("Unsqueeze")
def unsqueeze_by_attribute(node: Node, x: Value) -> Value:
    """With axes of size one, given by the node."""
    return _unsqueezed(x, node.attribute("axes"))


@operator("Unsqueeze", since=13)
def unsqueeze(node: Node, x: Value, axes: Value) -> Value:
    """With axes of size one."""
    return _unsqueezed(x, node.known(axes, "axes"))


def _unsqueezed(x: Value, axes: list[int]) -> Value:
    rank = x.rank + len(axes)
    added = sorted(axis % rank for axis in axes)
    if x.array is not None:
        return Value.constant(np.expand_dims(x.array, tuple(added)))
    kept = [axis for axis in range(rank) if axis not in added]
    order = [kept[axis] for axis in x.order]
    stored = x.flat
    for axis in added:
        # Beside the axis before it, where it is stored: an axis of size one may be anywhere.
        position = order.index(axis - 1) + 1 if axis - 1 in order else 0
        stored = tf.expand_dims(stored, position)
        order.insert(position, axis)
    return Value.of(stored, x.dtype, tuple(order))


@operator("Expand")
def expand(node: Node, x: Value, shape: Value) -> Value:
    """Axes of size one repeated, as broadcasting with a tensor of that shape would."""
    if shape.array is None:
        sizes = tf.cast(shape.tensor, tf.int32)
        count = shape.shape[0]
        own = shape_tensor(x)
        if count is None:
            node.known(shape, "shape")
        rank = max(x.rank, int(count or 0))
        own, sizes = (
            tf.pad(each, [(rank - length, 0)], constant_values=1) if rank > length else each
            for each, length in ((own, x.rank), (sizes, int(count or 0)))
        )
        return Value.of(tf.broadcast_to(x.tensor, tf.maximum(own, sizes)), x.dtype)
    wanted = shape.ints()
    rank = max(x.rank, len(wanted))
    sizes = [1] * (rank - len(wanted)) + wanted
    x = _unsqueezed(x, list(range(rank - x.rank))) if rank > x.rank else x
    if all(size == 1 or size == own for size, own in zip(sizes, x.shape, strict=True)):
        return x
    repeats = [size if own == 1 else 1 for size, own in zip(sizes, x.shape, strict=True)]
    if None in x.shape:
        return x.like(tf.tile(x.flat, [repeats[axis] for axis in x.order]))
    result = [own if own != 1 else size for size, own in zip(sizes, x.shape, strict=True)]
    return x.like(tf.broadcast_to(x.flat, [result[axis] for axis in x.order]))


@operator("Tile")
def tile_by_count(node: Node, x: Value, tiles: Value, axis: Value) -> Value:
    """The tensor repeated along one axis."""
    repeats = np.ones(x.rank, np.int64)
    repeats[node.known(axis, "axis")[0]] = node.known(tiles, "tiles")[0]
    return tile(node, x, Value.constant(repeats))


@operator("Tile", since=6)
def tile(_node: Node, x: Value, repeats: Value) -> Value:
    """The tensor repeated along each axis."""
    if repeats.array is None:
        return Value.of(tf.tile(x.tensor, tf.cast(repeats.tensor, tf.int32)), x.dtype)
    counts = repeats.ints()
    if max(counts, default=1) == 1 and min(counts, default=1) == 1:
        return x
    return x.like(tf.tile(x.flat, [counts[axis] for axis in x.order]))
