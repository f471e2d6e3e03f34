"""Attention, with caches of keys and values, masks, and fewer heads of keys than of queries."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from convert.libraries import load_library
from convert.onnx.carriers import carrier
from convert.onnx.node import Node
from convert.onnx.operators.elementwise import broadcast
from convert.onnx.operators.joining import padded
from convert.onnx.operators.shape import reshaped, shape_tensor
from convert.onnx.problems import Unsupported
from convert.onnx.registry import operator
from convert.onnx.value import Value

__all__: list[str] = []

tf = load_library("tensorflow")


@operator("Attention", since=23)
def attention(
    node: Node,
    q: Value,
    k: Value,
    v: Value,
    mask: Value | None = None,
    past_key: Value | None = None,
    past_value: Value | None = None,
    lengths: Value | None = None,
) -> list[Value]:
    """Values weighed by how well their keys fit each query.

    Queries are (batch, heads, queries, size) or (batch, queries, heads * size), keys and values alike. Groups of query
    heads that share a head of keys are multiplied with it as one matrix, so that keys and values are not repeated.
    """
    flat = q.rank == 3
    if flat:
        heads = [node.attribute(name) for name in ("q_num_heads", "kv_num_heads", "kv_num_heads")]
        q, k, v = (_heads(each, int(count)) for each, count in zip((q, k, v), heads, strict=True))
    past = 0 if past_key is None else past_key.shape[2]
    k, v = _appended(past_key, k), _appended(past_value, v)
    count, kept, size = q.shape[1], k.shape[1], q.shape[3]
    if count is None or kept is None or size is None:
        raise Unsupported("the number of its heads is not known", "fix it with --input NAME:SHAPE")
    scale = node.attribute("scale", 1.0 / math.sqrt(size))
    queries, keys = q.shape[2], k.shape[2]
    scores = tf.matmul(_grouped(q.tensor * scale, kept), k.tensor, transpose_b=True)
    scores = _ungrouped(scores, count, queries)
    cap = node.attribute("softcap", 0.0)
    capped = cap * tf.tanh(scores * (1.0 / cap)) if cap else scores

    offset: Any = past
    if past_key is not None and past is None:
        offset = shape_tensor(past_key)[2]
    elif past_key is None and lengths is not None:
        own = shape_tensor(q)[2] if queries is None else queries
        offset = tf.reshape(tf.cast(lengths.tensor, tf.int32), [-1, 1, 1, 1]) - own
    allowed = _allowed(node, q, k, offset, lengths)
    bias = _bias(mask, allowed, keys, q.dtype)
    biased = capped if bias is None else capped + bias.tensor
    probabilities = tf.nn.softmax(biased)
    windows = max(node.attribute(f"{side}_window_size", -1) for side in ("left", "right")) >= 0
    # Where only what comes later is barred, a query has the first key at least.
    none_left = _none_left(bias) if windows or mask is not None or lengths is not None else None
    shares = probabilities
    if none_left is not None and node.attribute("qk_matmul_output_mode", 0) == 3:
        shares = tf.where(none_left, tf.zeros_like(probabilities), probabilities)
    result = tf.matmul(_grouped(shares, kept), v.tensor)
    result = _ungrouped(result, count, queries)
    if none_left is not None:
        # What attends nothing has no softmax, and is zero: selected, for what is no number stays none in a product.
        result = tf.where(none_left, tf.zeros_like(result), result)
    y = Value.of(result, q.dtype)
    if flat:
        y = _with_last(y.transposed([0, 2, 1, 3]), [count * int(v.shape[3] or 0)])
    shown = (scores, capped, biased, shares)[node.attribute("qk_matmul_output_mode", 0)]
    return [y, k, v, Value.of(shown, q.dtype)][: max(len(node.outputs), 1)]


def _heads(x: Value, count: int) -> Value:
    size = x.shape[2]
    if size is None:
        raise Unsupported("the size of its heads is not known", "fix it with --input NAME:SHAPE")
    return _with_last(x, [count, size // count]).transposed([0, 2, 1, 3])


def _with_last(x: Value, last: list[int]) -> Value:
    """The first two axes as they are, and the others in another shape."""
    first: list[Any] = list(x.shape[:2])
    if first.count(None) == 1:
        first[first.index(None)] = -1
    elif None in first:
        first = [shape_tensor(x)[axis] for axis in range(2)]
    return reshaped(x, [*first, *last])


def _appended(past: Value | None, x: Value) -> Value:
    return x if past is None else Value.of(tf.concat([past.tensor, x.tensor], 2), x.dtype)


def _grouped(tensor: Any, heads: int) -> Any:
    """Rows of all query heads that share a head of keys as the rows of one matrix."""
    _, own, rows, columns = tensor.shape
    if own == heads:
        return tensor
    return _reshaped(tensor, [tensor.shape[0], heads, None if rows is None else own // heads * rows, columns])


def _ungrouped(tensor: Any, count: int, rows: int | None) -> Any:
    if tensor.shape[1] == count:
        return tensor
    return _reshaped(tensor, [tensor.shape[0], count, rows, tensor.shape[3]], own=tensor.shape[1])


def _reshaped(tensor: Any, sizes: list[int | None], own: int | None = None) -> Any:
    """A reshape in which at most rows and another axis are of unknown size."""
    if sizes.count(None) <= 1:
        return tf.reshape(tensor, [-1 if size is None else size for size in sizes])
    before = tf.shape(tensor)
    ratio = (int(sizes[1] or 1), int(tensor.shape[1] if own is None else own))
    rows = before[2] * ratio[1] // ratio[0]
    known = [before[0], sizes[1], rows, before[3]]
    return tf.reshape(
        tensor,
        tf.stack([each if size is None else size for size, each in zip(sizes, known, strict=True)]),
    )


def _allowed(node: Node, q: Value, k: Value, offset: Any, lengths: Value | None) -> Any:
    """Which keys each query may attend, an array or a tensor that broadcasts to the scores; None for all."""
    causal = bool(node.attribute("is_causal", 0))
    left, right = (node.attribute(f"{side}_window_size", -1) for side in ("left", "right"))
    queries, keys = q.shape[2], k.shape[2]
    if isinstance(offset, int) and queries is not None and keys is not None:
        own, other = np.arange(queries)[:, None] + offset, np.arange(keys)[None, :]
    else:
        own = tf.range(shape_tensor(q)[2] if queries is None else queries)[:, None] + offset
        other = tf.range(shape_tensor(k)[2] if keys is None else keys)[None, :]
    rules = []
    if causal:
        rules.append(other <= own)
    if left >= 0:
        rules.append(own - other <= left)
    if right >= 0:
        rules.append(other - own <= right)
    if lengths is not None:
        there = tf.range(shape_tensor(k)[2] if keys is None else keys)
        rules.append(there < tf.reshape(tf.cast(lengths.tensor, tf.int32), [-1, 1, 1, 1]))
    result = None
    for rule in rules:
        result = rule if result is None else result & rule
    return result


def _bias(mask: Value | None, allowed: Any, keys: int | None, dtype: np.dtype[Any]) -> Value | None:
    """What is added to the scores: a mask of numbers, and minus infinity for what must not be attended."""
    ban = np.float32(-np.inf)
    parts: list[Value] = []
    if mask is not None:
        shown = mask.shape[-1]
        short = 0 if keys is None or shown is None else keys - shown
        if mask.dtype == np.bool_:
            mask = _banned(mask)
        if short > 0:
            mask = padded(mask, [(0, 0)] * (mask.rank - 1) + [(0, short)], "constant", ban)
        parts.append(mask)
    if allowed is not None:
        known = isinstance(allowed, np.ndarray)
        parts.append(_banned(Value.constant(allowed) if known else Value.of(allowed, np.bool_)))
    if not parts:
        return None
    if all(part.array is not None for part in parts):
        total = sum(np.asarray(part.array, np.float32) for part in parts)
        return Value.constant(np.asarray(total, np.float32))
    if len(parts) == 1:
        return parts[0]
    return broadcast(tf.add, *parts, dtype=dtype)


def _banned(allowed: Value) -> Value:
    ban = np.float32(-np.inf)
    if allowed.array is not None:
        return Value.constant(np.where(allowed.array, np.float32(0), ban))
    return Value.of(tf.where(allowed.flat, np.float32(0), ban), np.float32, allowed.order)


def _none_left(bias: Value | None) -> Any:
    """Which queries may attend nothing, of the scores' rank with one key; None where there are none such."""
    if bias is None:
        return None
    if bias.array is not None:
        empty = np.isneginf(np.asarray(bias.array, np.float32).max(-1, keepdims=True))
        return tf.constant(empty) if empty.any() else None
    highest = tf.reduce_max(bias.tensor, -1, keepdims=True)
    return tf.equal(highest, tf.constant(-np.inf, carrier(bias.dtype)))
