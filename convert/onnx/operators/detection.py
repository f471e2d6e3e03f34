"""The best of boxes that overlap."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from convert.libraries import load_library
from convert.onnx.node import Node
from convert.onnx.problems import Unsupported
from convert.onnx.registry import operator
from convert.onnx.value import Value

__all__: list[str] = []

tf = load_library("tensorflow")

# So many classes of so many pictures are written out one by one; more are a loop.
_WRITTEN_OUT = 4


@operator("NonMaxSuppression", since=10)
def non_max_suppression(
    node: Node,
    boxes: Value,
    scores: Value,
    most: Value | None = None,
    overlap: Value | None = None,
    least: Value | None = None,
) -> Value:
    """For each picture and class, the boxes of the highest scores that overlap none before them too much.

    The result has a row (picture, class, box) for each that is kept, so that its size is known only as the model runs.
    """
    batch, classes, count = scores.shape
    if batch is None or classes is None or count is None:
        raise Unsupported("the size of its input is not known", "fix it with --input NAME:SHAPE")
    limit = 0 if most is None else min(node.known(most, "largest number of boxes")[0], count)
    pairs = batch * classes
    if limit <= 0 or not pairs:
        return Value.constant(np.zeros((0, 3), np.int64))
    corners = _corners(boxes.tensor) if node.attribute("center_point_box", 0) else boxes.tensor
    of_pairs = tf.reshape(scores.tensor, [pairs, count])
    least_score, limits = _number(least, -np.inf), _limits(overlap)

    def chosen(pair: Any, picture: Any) -> tuple[Any, Any]:
        results = []
        if limits.allowed is not None:
            results = list(_chosen(corners[picture], of_pairs[pair], limit, limits.allowed, least_score))
        if limits.unlimited is not False:
            best = tf.math.top_k(of_pairs[pair], limit)
            every = best.indices, tf.reduce_sum(tf.cast(best.values > least_score, tf.int32))
            if not results:
                return every
            results = [tf.where(limits.unlimited, *both) for both in zip(every, results, strict=True)]
        return results[0], results[1]

    if pairs <= _WRITTEN_OUT:
        results = [chosen(pair, pair // classes) for pair in range(pairs)]
        selected = tf.stack([each for each, _ in results])
        valid = tf.stack([each for _, each in results])
    else:
        selected, valid = _for_all(chosen, pairs, classes, limit)
    kept = tf.range(limit, dtype=tf.int32)[None] < valid[:, None]
    places = np.arange(pairs, dtype=np.int32)[:, None] + np.zeros(limit, np.int32)
    rows = tf.stack([tf.constant(places // classes), tf.constant(places % classes), selected], -1)
    return Value.of(tf.cast(tf.gather_nd(rows, tf.where(kept)), tf.int64), np.int64)


def _number(value: Value | None, default: float) -> Any:
    if value is None:
        return tf.constant(default, tf.float32)
    return tf.reshape(value.tensor, [])


class _Limits(NamedTuple):
    """How much boxes may overlap.

    Attributes:
        allowed: The overlap at which the device's operator drops a box; None if it is not needed.
        unlimited: Whether none is too much, which its operator does not know; a tensor where it is computed.
    """

    allowed: Any
    unlimited: Any


def _limits(overlap: Value | None) -> _Limits:
    # ONNX keeps a box at the threshold, which a device drops: its threshold is the next larger number.
    tiny = float(np.finfo(np.float32).tiny)
    if overlap is None:
        return _Limits(tf.constant(tiny, tf.float32), False)
    if overlap.array is not None:
        given = overlap.array.reshape(()).astype(np.float32)
        if given >= 1:
            return _Limits(None, True)
        return _Limits(tf.constant(max(float(np.nextafter(given, np.float32(1))), tiny), tf.float32), False)
    computed = tf.reshape(overlap.tensor, [])
    larger = computed * float(1 + np.finfo(np.float32).eps)
    return _Limits(tf.clip_by_value(larger, tiny, 1.0), computed >= 1.0)


def _corners(boxes: Any) -> Any:
    """Boxes (centre x, centre y, width, height) as (y, x, y, x)."""
    centre, half = boxes[..., 1::-1], boxes[..., :1:-1] * 0.5
    return tf.concat([centre - half, centre + half], -1)


def _chosen(boxes: Any, scores: Any, limit: int, overlap: Any, least: Any) -> tuple[Any, Any]:
    """Indices of the boxes that are kept, filled up to `limit`, and how many they are."""
    selected, valid = tf.raw_ops.NonMaxSuppressionV4(
        boxes=boxes,
        scores=scores,
        max_output_size=limit,
        iou_threshold=overlap,
        score_threshold=least,
        pad_to_max_output_size=True,
    )
    return selected, valid


def _for_all(chosen: Any, pairs: int, classes: int, limit: int) -> tuple[Any, Any]:
    """What is chosen for each picture and class, by a loop: (pairs, limit), (pairs,)."""
    numbers = tf.range(pairs, dtype=tf.int32)

    def step(at: Any, selected: Any, valid: Any) -> tuple[Any, Any, Any]:
        indices, count = chosen(at, at // classes)
        own = tf.equal(numbers, at)
        return at + 1, tf.where(own[:, None], indices[None], selected), tf.where(own, count, valid)

    empty = tf.zeros([pairs, limit], tf.int32), tf.zeros([pairs], tf.int32)
    shapes = tf.TensorShape([]), tf.TensorShape([pairs, limit]), tf.TensorShape([pairs])
    _, selected, valid = tf.while_loop(
        lambda at, *_: at < pairs, step, [tf.constant(0), *empty], shape_invariants=list(shapes)
    )
    return selected, valid
