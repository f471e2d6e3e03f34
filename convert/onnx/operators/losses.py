"""Losses, which models exported for training end in."""

from __future__ import annotations

from typing import Any

import numpy as np

from convert.libraries import load_library
from convert.onnx.node import Node
from convert.onnx.registry import operator
from convert.onnx.value import Value, channels_last

__all__: list[str] = []

tf = load_library("tensorflow")


@operator("NegativeLogLikelihoodLoss")
def negative_log_likelihood_loss(node: Node, x: Value, target: Value, weights: Value | None = None) -> Value:
    """What the logarithms of probabilities (batch, classes, ...) lack at the class that each target names."""
    return _loss(node, _rows(x), target, weights, x)


@operator("SoftmaxCrossEntropyLoss")
def softmax_cross_entropy_loss(
    node: Node, x: Value, target: Value, weights: Value | None = None
) -> list[Value]:
    """The same of scores, whose softmax the probabilities are; the logarithms are returned too."""
    rows = tf.nn.log_softmax(_rows(x))
    loss = _loss(node, rows, target, weights, x)
    return [loss] if len(node.outputs) < 2 else [loss, _unrowed(rows, x)]


def _rows(x: Value) -> Any:
    """The classes last, all else as one axis before them; in steps of no more axes than a device can transpose."""
    order = channels_last(x.rank)
    classes = x.shape[1]
    if x.rank == 2 or (x.order == order and not x.is_constant):
        return tf.reshape(x.stored_as(order), [-1, classes])
    batch = tf.shape(x.tensor)[0] if x.shape[0] is None else x.shape[0]
    samples = tf.reshape(x.tensor, [batch, classes, -1])
    return tf.reshape(tf.transpose(samples, [0, 2, 1]), [-1, classes])


def _unrowed(rows: Any, x: Value) -> Value:
    sizes = tf.shape(x.tensor) if None in x.shape else x.shape
    if x.rank == 2:
        return Value.of(tf.reshape(rows, sizes), x.dtype)
    samples = tf.transpose(tf.reshape(rows, [sizes[0], -1, x.shape[1]]), [0, 2, 1])
    return Value.of(tf.reshape(samples, sizes), x.dtype)


def _loss(node: Node, rows: Any, target: Value, weights: Value | None, x: Value) -> Value:
    named = tf.reshape(tf.cast(target.tensor, tf.int32), [-1])
    ignored = node.attribute("ignore_index")
    counts = None
    if ignored is not None:
        counts = tf.not_equal(named, int(ignored))
        # The class to ignore need not be one that there is.
        named = tf.where(counts, named, tf.zeros_like(named))
    count = tf.shape(rows)[0] if rows.shape[0] is None else int(rows.shape[0])
    at = tf.range(count) * rows.shape[1] + named
    loss = -tf.gather(tf.reshape(rows, [-1]), at)
    share = None if weights is None else tf.gather(weights.tensor, named)
    if share is not None:
        loss = loss * share
    if counts is not None:
        loss = tf.where(counts, loss, tf.zeros_like(loss))
        share = tf.where(counts, tf.ones_like(loss) if share is None else share, tf.zeros_like(loss))
    reduction = node.attribute("reduction", "mean")
    if reduction == "none":
        sizes = tf.shape(target.tensor) if None in target.shape else target.shape
        return Value.of(tf.reshape(loss, sizes), x.dtype)
    total = tf.reduce_sum(loss)
    if reduction == "mean":
        divisor = tf.cast(tf.size(loss), loss.dtype) if share is None else tf.reduce_sum(share)
        total = total / divisor
    return Value.of(total, np.dtype(x.dtype))
