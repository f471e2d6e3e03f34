"""Normalisation by means and variances, of a batch, an instance, a group or a layer, and dropout."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from convert.libraries import load_library
from convert.onnx.carriers import element_type
from convert.onnx.node import Node
from convert.onnx.operators.elementwise import broadcast
from convert.onnx.operators.shape import shape_tensor
from convert.onnx.problems import Unsupported
from convert.onnx.registry import operator
from convert.onnx.value import Value, channels_last

__all__ = ["moments"]

tf = load_library("tensorflow")


def moments(tensor: Any, axes: Sequence[int]) -> tuple[Any, Any]:
    """What is left without the mean over stored axes, and the variance; the mean is the tensor less the first.

    The squares are those of what is left: the mean of squares less the square of the mean has no digits left where a
    mean is large.
    """
    centred = tensor - tf.reduce_mean(tensor, axes, keepdims=True)
    return centred, tf.reduce_mean(tf.square(centred), axes, keepdims=True)


def _per_channel(x: Value, parameter: Value) -> Any:
    """A parameter of a value's second axis, and perhaps of those after it, laid on the axes as they are stored."""
    if parameter.rank > 1:  # one for each element of a sample: `spatial=0` of the old versions
        widened = parameter.transposed(range(parameter.rank))
        if widened.array is not None:
            return Value.constant(widened.array[None]).stored_as(x.order)
        return tf.transpose(tf.expand_dims(widened.tensor, 0), x.order)
    if x.rank < 2 or x.stored_axis(1) == x.rank - 1:
        return parameter.tensor
    return tf.reshape(parameter.tensor, [-1 if axis == 1 else 1 for axis in x.order])


@operator("BatchNormalization")
def batch_normalization(
    node: Node, x: Value, scale: Value, bias: Value, mean: Value, variance: Value
) -> list[Value]:
    """By the statistics that were learnt, or, in training, by those of the batch.

    Before version 14 a node trains where it returns more than one output.
    """
    epsilon = node.attribute("epsilon", 1e-5)
    training = bool(node.attribute("training_mode", 0))
    if node.version < 14:
        training = len([name for name in node.outputs if name]) > 1 and not node.attribute("is_test", 0)
    if training:
        return _trained(node, x, scale, bias, mean, variance)
    parameters = [each.array for each in (scale, bias, mean, variance)]
    if all(each is not None for each in parameters):
        # Two constants for the converter, which folds them into a convolution before.
        gamma, beta, centre, spread = (np.asarray(each, np.float64) for each in parameters)
        factor = gamma / np.sqrt(spread + epsilon)
        scale = Value.constant(factor, np.float32)
        bias = Value.constant(beta - centre * factor, np.float32)
        return [x.like(x.flat * _per_channel(x, scale) + _per_channel(x, bias))]
    gamma, beta, centre, spread = (_per_channel(x, each) for each in (scale, bias, mean, variance))
    factor = gamma * tf.math.rsqrt(spread + epsilon)
    return [x.like(x.flat * factor + (beta - centre * factor))]


def _trained(node: Node, x: Value, scale: Value, bias: Value, mean: Value, variance: Value) -> list[Value]:
    spatial = node.attribute("spatial", 1)
    axes = [x.stored_axis(axis) for axis in range(x.rank) if (axis != 1 if spatial else axis == 0)]
    tensor = x.flat
    centred, spread = moments(tensor, axes)
    centre = tf.reduce_mean(tensor, axes, keepdims=True)
    factor = _per_channel(x, scale) * tf.math.rsqrt(spread + node.attribute("epsilon", 1e-5))
    result = x.like(centred * factor + _per_channel(x, bias))
    momentum = node.attribute("momentum", 0.9)
    own = [Value.of(each, x.dtype, x.order).tensor for each in (centre, spread)]
    own = [tf.reshape(each, tf.shape(old.tensor)) for each, old in zip(own, (mean, variance), strict=True)]
    running = [
        Value.of(old.tensor * momentum + new * (1.0 - momentum), old.dtype)
        for old, new in zip((mean, variance), own, strict=True)
    ]
    saved = [Value.of(each, mean.dtype) for each in own]
    return [result, *running, *saved][: len(node.outputs)]


@operator("InstanceNormalization")
def instance_normalization(node: Node, x: Value, scale: Value, bias: Value) -> Value:
    """By the mean and variance of each channel of each sample."""
    axes = [x.stored_axis(axis) for axis in range(2, x.rank)]
    centred, spread = moments(x.flat, axes)
    factor = _per_channel(x, scale) * tf.math.rsqrt(spread + node.attribute("epsilon", 1e-5))
    return x.like(centred * factor + _per_channel(x, bias))


@operator("GroupNormalization", since=18)
def group_normalization(node: Node, x: Value, scale: Value, bias: Value) -> Value:
    """By the mean and variance of groups of channels; `scale` and `bias` are of groups before version 21.

    A group's mean is that of its channels' means, so that the tensor itself is neither moved nor given more axes.
    """
    groups = int(node.attribute("num_groups"))
    channels = x.shape[1]
    if channels is None:
        raise Unsupported("the number of its channels is not known", "fix it with --input NAME:SHAPE")
    size = channels // groups
    if node.version < 21:
        scale, bias = (_repeated(each, size) for each in (scale, bias))
    tensor = x.flat
    axes = [x.stored_axis(axis) for axis in range(2, x.rank)]
    like_channels = [-1 if axis == 0 else channels if axis == 1 else 1 for axis in x.order]

    def of_groups(means: Any) -> Any:
        grouped = tf.reduce_mean(tf.reshape(means, [-1, groups, size]), 2, keepdims=True)
        return tf.reshape(tf.tile(grouped, [1, 1, size]), like_channels)

    centred = tensor - of_groups(tf.reduce_mean(tensor, axes, keepdims=True))
    spread = of_groups(tf.reduce_mean(tf.square(centred), axes, keepdims=True))
    factor = _per_channel(x, scale) * tf.math.rsqrt(spread + node.attribute("epsilon", 1e-5))
    return x.like(centred * factor + _per_channel(x, bias))


def _repeated(parameter: Value, count: int) -> Value:
    if parameter.array is not None:
        return Value.constant(np.repeat(parameter.array, count))
    tiled = tf.tile(tf.expand_dims(parameter.tensor, 1), [1, count])
    return Value.of(tf.reshape(tiled, [-1]), parameter.dtype)


def _axes_from(node: Node, x: Value) -> list[int]:
    """Where the axes from `axis` to the last are stored."""
    return [x.stored_axis(axis) for axis in range(node.attribute("axis", -1) % x.rank, x.rank)]


@operator("LayerNormalization")
def layer_normalization(node: Node, x: Value, scale: Value, bias: Value | None = None) -> list[Value | None]:
    """By the mean and variance over the axes from `axis` on; these are returned too, the latter as 1 / deviation."""
    axes = _axes_from(node, x)
    tensor = x.flat
    centred, spread = moments(tensor, axes)
    inverse = tf.math.rsqrt(spread + node.attribute("epsilon", 1e-5))
    result = broadcast(tf.multiply, x.like(centred * inverse), scale)
    if bias is not None:
        result = broadcast(tf.add, result, bias)
    outputs: list[Value | None] = [result]
    stash = element_type(node.attribute("stash_type", 1))
    if len(node.outputs) > 1:
        outputs.append(x.like(tf.reduce_mean(tensor, axes, keepdims=True), stash))
    if len(node.outputs) > 2:
        outputs.append(x.like(inverse, stash))
    return outputs


@operator("RMSNormalization", since=23)
def rms_normalization(node: Node, x: Value, scale: Value) -> Value:
    """By the root of the mean square over the axes from `axis` on."""
    tensor = x.flat
    square = tf.reduce_mean(tf.square(tensor), _axes_from(node, x), keepdims=True)
    inverse = tf.math.rsqrt(square + node.attribute("epsilon", 1e-5))
    return broadcast(tf.multiply, x.like(tensor * inverse), scale)


@operator("LRN")
def local_response_normalization(node: Node, x: Value) -> Value:
    """By the squares of the channels around each one."""
    size = int(node.attribute("size"))
    alpha, beta = node.attribute("alpha", 1e-4), node.attribute("beta", 0.75)
    bias = node.attribute("bias", 1.0)
    order = channels_last(x.rank)
    tensor = x.stored_as(order)
    channels = tensor.shape[-1]
    if size % 2:
        flat = tf.reshape(tensor, [1, 1, -1, channels])
        flat = tf.nn.local_response_normalization(flat, size // 2, bias, alpha / size, beta)
        return Value.of(tf.reshape(flat, _sizes(tensor)), x.dtype, order)
    # An even number reaches one channel further on.
    widths = [*[(0, 0)] * (x.rank - 1), ((size - 1) // 2, size // 2)]
    squares = tf.pad(tf.square(tensor), widths)
    total = tf.add_n([squares[..., first : first + channels] for first in range(size)])
    return Value.of(tensor * tf.pow(total * (alpha / size) + bias, -beta), x.dtype, order)


def _sizes(tensor: Any) -> Any:
    sizes = tensor.shape.as_list()
    return tf.shape(tensor) if sizes.count(None) > 1 else [-1 if size is None else size for size in sizes]


@operator("LpNormalization")
def lp_normalization(node: Node, x: Value) -> Value:
    """By the sum of magnitudes along an axis, or the root of the sum of squares; zeros stay zero."""
    axis = x.stored_axis(node.attribute("axis", -1))
    tensor = x.flat
    if node.attribute("p", 2) == 1:
        norm = tf.reduce_sum(tf.abs(tensor), axis, keepdims=True)
    else:
        norm = tf.sqrt(tf.reduce_sum(tf.square(tensor), axis, keepdims=True))
    return x.like(tensor / tf.where(norm > 0.0, norm, tf.ones_like(norm)))


@operator("MeanVarianceNormalization")
def mean_variance_normalization(node: Node, x: Value) -> Value:
    """By the mean and deviation over some axes."""
    axes = node.attribute("axes", [0, 2, 3])
    centred, spread = moments(x.flat, [x.stored_axis(axis) for axis in axes])
    return x.like(centred / (tf.sqrt(spread) + 1e-9))


@operator("Dropout")
def dropout(
    node: Node, x: Value, ratio: Value | None = None, training: Value | None = None
) -> list[Value | None]:
    """The tensor itself, and a mask of what is kept: everything.

    Before version 12 nothing is said of the mask, which is empty in onnxruntime; before 10 it has the tensor's type.
    """
    if training is not None and node.constant(training, "training mode").any():
        share = 0.5 if ratio is None else float(node.constant(ratio, "ratio").reshape(-1)[0])
        if share:
            raise Unsupported(
                "dropout in training mode draws random numbers",
                "export the model for inference, as with torch's model.eval()",
            )
    if len(node.outputs) < 2:
        return [x]
    mask = np.dtype(np.bool_) if node.version >= 10 else x.dtype
    kept = Value.constant(np.asarray(node.version >= 12, mask))
    sizes = shape_tensor(x) if None in x.shape else x.shape
    return [x, Value.of(tf.fill(sizes, kept.tensor), mask)]
