"""Activation functions of one element, and the normalised exponentials over an axis."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from convert.libraries import load_library
from convert.onnx.node import Node
from convert.onnx.operators.elementwise import broadcast
from convert.onnx.problems import Unsupported
from convert.onnx.registry import operator
from convert.onnx.value import Order, Value, identity

__all__ = ["softmax_over"]

tf = load_library("tensorflow")

# Constants of self-normalizing networks (Klambauer et al. 2017), as ONNX rounds them.
_SELU_ALPHA, _SELU_GAMMA = 1.67326319217681884765625, 1.05070102214813232421875

_Activation = Callable[[Node, Any], Any]


def _softplus(x: Any) -> Any:
    # log(1 + exp(x)) without overflow.
    return tf.nn.relu(x) + tf.math.log(1.0 + tf.exp(-tf.abs(x)))


def _elu(x: Any, alpha: float) -> Any:
    if alpha == 1.0:
        return tf.nn.elu(x)
    return tf.where(x > 0, x, alpha * (tf.exp(tf.minimum(x, 0.0)) - 1.0))


def _hard_sigmoid(x: Any, alpha: float, beta: float) -> Any:
    scaled = x * alpha + beta
    return tf.minimum(tf.nn.relu(scaled), 1.0)


def _hard_swish(x: Any) -> Any:
    # In the form that the converter knows as HARD_SWISH.
    return x * (tf.nn.relu6(x + 3.0) * (1.0 / 6.0))


def _gelu(node: Node, x: Any) -> Any:
    return tf.nn.gelu(x, approximate=node.attribute("approximate", "none") == "tanh")


def _shrink(node: Node, x: Any) -> Any:
    bias, bound = node.attribute("bias", 0.0), node.attribute("lambd", 0.5)
    bias, bound = tf.cast(bias, x.dtype), tf.cast(bound, x.dtype)
    return tf.where(x < -bound, x + bias, tf.where(x > bound, x - bias, tf.zeros_like(x)))


_ACTIVATIONS: dict[str, _Activation] = {
    "Celu": lambda node, x: (
        tf.nn.relu(x)
        + node.attribute("alpha", 1.0) * (tf.exp(tf.minimum(x, 0.0) / node.attribute("alpha", 1.0)) - 1.0)
    ),
    "Elu": lambda node, x: _elu(x, node.attribute("alpha", 1.0)),
    "Gelu": _gelu,
    "HardSigmoid": lambda node, x: _hard_sigmoid(
        x, node.attribute("alpha", 0.2), node.attribute("beta", 0.5)
    ),
    "HardSwish": lambda _node, x: _hard_swish(x),
    "LeakyRelu": lambda node, x: tf.nn.leaky_relu(x, node.attribute("alpha", 0.01)),
    "Mish": lambda _node, x: x * tf.tanh(_softplus(x)),
    "Relu": lambda _node, x: tf.nn.relu(x),
    "Selu": lambda node, x: (
        node.attribute("gamma", _SELU_GAMMA) * _elu(x, node.attribute("alpha", _SELU_ALPHA))
    ),
    "Shrink": _shrink,
    "Sigmoid": lambda _node, x: tf.sigmoid(x),
    "Softplus": lambda _node, x: _softplus(x),
    "Softsign": lambda _node, x: x / (1.0 + tf.abs(x)),
    "Swish": lambda node, x: x * tf.sigmoid(node.attribute("alpha", 1.0) * x),
    "ThresholdedRelu": lambda node, x: tf.where(x > node.attribute("alpha", 1.0), x, tf.zeros_like(x)),
}


def _activation(function: _Activation) -> Callable[..., Value]:
    return lambda node, x: x.like(function(node, x.flat))


for _name, _function in _ACTIVATIONS.items():
    operator(_name)(_activation(_function))


@operator("PRelu")
def prelu(_node: Node, x: Value, slope: Value) -> Value:
    """The element where it is positive, the slope's multiple of it elsewhere."""
    return broadcast(lambda x, slope: tf.nn.relu(x) + slope * tf.minimum(x, 0.0), x, slope)


def softmax_over(tensor: Any, axis: int) -> Any:
    """The normalised exponentials along a stored axis; TFLite computes them along the last one."""
    rank = tensor.shape.rank
    if axis == rank - 1:
        return tf.nn.softmax(tensor)
    exponentials = tf.exp(tensor - tf.reduce_max(tensor, axis, keepdims=True))
    return exponentials / tf.reduce_sum(exponentials, axis, keepdims=True)


def _log_softmax_over(tensor: Any, axis: int) -> Any:
    if axis == tensor.shape.rank - 1:
        return tf.nn.log_softmax(tensor)
    shifted = tensor - tf.reduce_max(tensor, axis, keepdims=True)
    return shifted - tf.math.log(tf.reduce_sum(tf.exp(shifted), axis, keepdims=True))


def _hardmax_over(tensor: Any, axis: int) -> Any:
    # The first of the largest gets the one.
    size = tensor.shape[axis]
    positions = tf.reshape(
        tf.range(size, dtype=tf.int32), [size if each == axis else 1 for each in range(tensor.shape.rank)]
    )
    largest = tf.argmax(tensor, axis, output_type=tf.int32)
    return tf.cast(tf.equal(positions, tf.expand_dims(largest, axis)), tensor.dtype)


def _last(x: Value, axis: int) -> Order:
    """An order in which an axis comes last, the others as they are stored."""
    return (*(each for each in x.order if each != axis), axis)


def _normalised(function: Callable[[Any, int], Any]) -> Callable[..., Value]:
    def handler(node: Node, x: Value) -> Value:
        order = _last(x, node.attribute("axis", -1) % x.rank)
        return Value.of(function(x.stored_as(order), x.rank - 1), x.dtype, order)

    return handler


def _old_normalised(function: Callable[[Any, int], Any]) -> Callable[..., Value]:
    """Before version 13 the axes from `axis` on count as one."""

    def handler(node: Node, x: Value) -> Value:
        axis = node.attribute("axis", 1) % x.rank if x.rank else 0
        if axis == x.rank - 1 or all(size == 1 for size in x.shape[axis + 1 :]):
            return _normalised(function)(Node(**{**vars(node), "attributes": {"axis": axis}}), x)
        sizes = [size for size in x.shape if size is not None]
        if len(sizes) < x.rank:
            raise Unsupported("the size of its input is not known", "fix it with --input NAME:SHAPE")
        flat = function(tf.reshape(x.tensor, [int(np.prod(sizes[:axis])), int(np.prod(sizes[axis:]))]), 1)
        return Value.of(tf.reshape(flat, sizes), x.dtype, identity(x.rank))

    return handler


for _name, _over in (
    ("Softmax", softmax_over),
    ("LogSoftmax", _log_softmax_over),
    ("Hardmax", _hardmax_over),
):
    operator(_name)(_old_normalised(_over))
    operator(_name, since=13)(_normalised(_over))
