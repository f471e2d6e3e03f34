"""Arithmetic, comparison, logic and rounding, one element at a time."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import reduce
from typing import Any

import numpy as np

from convert.libraries import load_library
from convert.onnx.affine import Affine, rescaled
from convert.onnx.carriers import carrier, is_float, wrapped
from convert.onnx.node import Node
from convert.onnx.operators import integers
from convert.onnx.registry import operator
from convert.onnx.value import Value, aligned
from edge_runtime.tensor_spec import Array

__all__ = ["broadcast", "erf", "is_nonzero", "magnitude"]

tf = load_library("tensorflow")


def broadcast(function: Callable[..., Any], *values: Value, dtype: Any = None) -> Value:
    """A function of elements applied to values that broadcast as numpy arrays do; its result wraps as ONNX's does.

    Args:
        function: Takes a tensor for each value and returns one.
        values: What it is applied to.
        dtype: Type of the result; that of the first value without it.
    """
    order, tensors = aligned(*values)
    kind = values[0].dtype if dtype is None else np.dtype(dtype)
    return Value.of(wrapped(function(*tensors), kind), kind, order)


def erf(x: Any) -> Any:
    """The error function, to 1.5e-7 (Abramowitz and Stegun, Handbook of Mathematical Functions, 7.1.26)."""
    magnitude = tf.abs(x)
    t = 1.0 / (1.0 + 0.3275911 * magnitude)
    series = reduce(
        lambda total, factor: total * t + factor,
        (-1.453152027, 1.421413741, -0.284496736, 0.254829592),
        1.061405429 * tf.ones_like(t),
    )
    return tf.sign(x) * (1.0 - series * t * tf.exp(-x * x))


def is_nonzero(x: Any) -> Any:
    """Whether each element is other than zero, or true."""
    return x if x.dtype == tf.bool else tf.not_equal(x, tf.zeros((), x.dtype))


def magnitude(x: Any) -> Any:
    """The absolute value, also of 64-bit integers, for which a device has none."""
    return tf.maximum(x, -x) if x.dtype == tf.int64 else tf.abs(x)


def _sign(x: Any) -> Any:
    if x.dtype == tf.int64:
        return tf.cast(x > 0, tf.int64) - tf.cast(x < 0, tf.int64)
    return tf.sign(x)


_UNARY: dict[str, Callable[[Any], Any]] = {
    "Abs": magnitude,
    "Acos": lambda x: tf.atan2(tf.sqrt(1.0 - x * x), x),
    "Acosh": lambda x: tf.math.log(x + tf.sqrt(x * x - 1.0)),
    "Asin": lambda x: tf.atan2(x, tf.sqrt(1.0 - x * x)),
    "Asinh": lambda x: tf.sign(x) * tf.math.log(tf.abs(x) + tf.sqrt(x * x + 1.0)),
    "Atan": lambda x: tf.atan2(x, tf.ones_like(x)),
    "Atanh": lambda x: 0.5 * tf.math.log((1.0 + x) / (1.0 - x)),
    "Ceil": tf.math.ceil,
    "Cos": tf.cos,
    "Cosh": lambda x: 0.5 * (tf.exp(x) + tf.exp(-x)),
    "Erf": erf,
    "Exp": tf.exp,
    "Floor": tf.floor,
    "Identity": lambda x: x,
    "Log": tf.math.log,
    "Neg": tf.negative,
    "Not": tf.logical_not,
    "Reciprocal": lambda x: 1.0 / x,
    "Round": tf.round,
    "Sign": _sign,
    "Sin": tf.sin,
    "Sinh": lambda x: 0.5 * (tf.exp(x) - tf.exp(-x)),
    "Sqrt": tf.sqrt,
    "Tan": lambda x: tf.sin(x) / tf.cos(x),
    "Tanh": tf.tanh,
}


def _divided(a: Any, b: Any) -> Any:
    if a.dtype == tf.int64:
        return integers.divided(a, b)
    if not a.dtype.is_floating:
        return tf.truncatediv(a, b)
    divisor = tf.get_static_value(b)
    # A product is faster than a quotient, and what the converter looks for in activations such as hard-swish.
    if divisor is not None and (divisor != 0).all():
        return a * (1.0 / divisor)
    return a / b


_BINARY: dict[str, Callable[[Any, Any], Any]] = {
    "Add": tf.add,
    "Sub": tf.subtract,
    "Mul": tf.multiply,
    "Div": _divided,
    "And": tf.logical_and,
    "Or": tf.logical_or,
    "Xor": tf.not_equal,
}

_COMPARISONS: dict[str, Callable[[Any, Any], Any]] = {
    "Equal": tf.equal,
    "Greater": tf.greater,
    "GreaterOrEqual": tf.greater_equal,
    "Less": tf.less,
    "LessOrEqual": tf.less_equal,
}

_VARIADIC: dict[str, Callable[[Any, Any], Any]] = {"Max": tf.maximum, "Min": tf.minimum, "Sum": tf.add}


def _unary(function: Callable[[Any], Any]) -> Callable[..., Value]:
    return lambda _node, x: x.like(wrapped(function(x.flat), x.dtype))


def _binary(function: Callable[[Any, Any], Any]) -> Callable[..., Value]:
    def handler(node: Node, a: Value, b: Value) -> Value:
        result = broadcast(function, a, b)
        if a.array is None and b.array is not None and result.rank == a.rank:
            result.affine = _affine(node.operator, a, b.array)
        elif (
            b.array is None and a.array is not None and result.rank == b.rank and node.operator in _SYMMETRIC
        ):
            result.affine = _affine(node.operator, b, a.array)
        return result

    return handler


_SYMMETRIC = ("Add", "Mul")


def _affine(name: str, x: Value, constant: Array) -> Affine | None:
    """What a sum or product with a constant is, in the form that a convolution can take in."""
    if constant.dtype != np.float32:
        return None
    if name == "Mul":
        return rescaled(x, scale=constant)
    if name == "Div" and constant.all():
        return rescaled(x, scale=1.0 / constant.astype(np.float64))
    if name == "Add":
        return rescaled(x, shift=constant)
    return rescaled(x, shift=-constant) if name == "Sub" else None


def _old_binary(function: Callable[[Any, Any], Any]) -> Callable[..., Value]:
    """Before version 7 the second operand is laid on the axes of the first from `axis` on."""

    def handler(node: Node, a: Value, b: Value) -> Value:
        axis = node.attribute("axis")
        if node.attribute("broadcast") and axis is not None and b.rank:
            after = a.rank - (axis % a.rank) - b.rank
            b = Value.of(tf.reshape(b.tensor, [*b.shape, *[1] * after]), b.dtype)
        dtype = np.bool_ if function in _COMPARISONS.values() else None
        return broadcast(function, a, b, dtype=dtype)

    return handler


def _comparison(function: Callable[[Any, Any], Any]) -> Callable[..., Value]:
    def handler(_node: Node, a: Value, b: Value) -> Value:
        if a.dtype == np.uint64:  # the carrier's sign bit is the highest of the value
            a, b = (each.like(each.flat + np.int64(-(2**63))) for each in (a, b))
        return broadcast(function, a, b, dtype=np.bool_)

    return handler


def _variadic(function: Callable[[Any, Any], Any]) -> Callable[..., Value]:
    return lambda _node, *values: broadcast(lambda *tensors: reduce(function, tensors), *values)


for _name, _function in _UNARY.items():
    operator(_name)(_unary(_function))
for _name, _pair in _BINARY.items():
    operator(_name)(_old_binary(_pair))
    operator(_name, since=7)(_binary(_pair))
for _name, _pair in _COMPARISONS.items():
    operator(_name)(_old_binary(_pair))
    operator(_name, since=7)(_comparison(_pair))
for _name, _pair in _VARIADIC.items():
    operator(_name)(_variadic(_pair))


@operator("Mean")
def mean(_node: Node, *values: Value) -> Value:
    """The mean of values that broadcast."""
    return broadcast(lambda *tensors: reduce(tf.add, tensors) * (1.0 / len(tensors)), *values)


@operator("Mod")
def mod(node: Node, a: Value, b: Value) -> Value:
    """The remainder, with the sign of the divisor, or that of the dividend with `fmod`."""
    if not node.attribute("fmod", 0):
        return broadcast(tf.math.floormod, a, b)
    if carrier(a.dtype) == "int64":
        return broadcast(integers.remainder, a, b)
    if not is_float(a.dtype):
        return broadcast(lambda x, y: x - y * tf.truncatediv(x, y), a, b)
    return broadcast(lambda x, y: tf.sign(x) * tf.math.floormod(tf.abs(x), tf.abs(y)), a, b)


@operator("Pow")
def power(_node: Node, base: Value, exponent: Value) -> Value:
    """The base to the power of the exponent, which may be of another type."""
    if exponent.array is not None and exponent.array.size == 1 and is_float(base.dtype):
        simple = _POWERS.get(float(exponent.array.reshape(-1)[0]))
        if simple is not None and exponent.rank <= base.rank:
            return base.like(simple(base.flat))
    if carrier(base.dtype) == "int64" and not is_float(exponent.dtype):
        return broadcast(lambda x, y: integers.power(x, tf.cast(y, tf.int32)), base, exponent)
    # POW exists for float32 and int32.
    kind = "float32" if is_float(base.dtype) or is_float(exponent.dtype) else "int32"
    made = carrier(base.dtype)
    return broadcast(
        lambda x, y: tf.cast(tf.pow(tf.cast(x, kind), tf.cast(y, kind)), made),
        base,
        exponent,
        dtype=base.dtype,
    )


_POWERS: dict[float, Callable[[Any], Any]] = {
    0.5: tf.sqrt,
    1.0: lambda x: x,
    2.0: tf.square,
    3.0: lambda x: x * x * x,
    -1.0: lambda x: 1.0 / x,
    -0.5: tf.math.rsqrt,
}


@operator("Where")
def where(_node: Node, condition: Value, a: Value, b: Value) -> Value:
    """Elements of one value or the other."""
    return broadcast(tf.where, condition, a, b, dtype=a.dtype)


@operator("IsNaN")
def is_nan(_node: Node, x: Value) -> Value:
    """Whether each element is not a number."""
    return x.like(tf.not_equal(x.flat, x.flat), np.bool_)


@operator("IsInf")
def is_infinite(node: Node, x: Value) -> Value:
    """Whether each element is infinite, of the signs that are asked for."""
    tensor = x.flat
    positive, negative = tf.equal(tensor, math.inf), tf.equal(tensor, -math.inf)
    wanted = [
        each
        for each, flag in ((positive, "detect_positive"), (negative, "detect_negative"))
        if node.attribute(flag, 1)
    ]
    return x.like(reduce(tf.logical_or, wanted, tf.zeros_like(positive)), np.bool_)


@operator("Clip")
def clip_by_attributes(node: Node, x: Value) -> Value:
    """Elements kept within bounds that the node has."""
    bounds = [
        Value.constant(node.attribute(name), x.dtype) if name in node.attributes else None
        for name in ("min", "max")
    ]
    result: Value = clip(node, x, *bounds)
    return result


@operator("Clip", since=11)
def clip(_node: Node, x: Value, low: Value | None = None, high: Value | None = None) -> Value:
    """Elements kept within bounds, either of which may be missing."""
    if is_float(x.dtype) and low is not None and low.array is not None and low.array.item() == 0:
        if high is None or (high.array is not None and np.isinf(high.array.item())):
            return x.like(tf.nn.relu(x.flat))
        if high.array is not None and high.array.item() == 6:
            return x.like(tf.nn.relu6(x.flat))
    tensor = x.flat
    if low is not None:
        tensor = tf.maximum(tensor, tf.reshape(low.tensor, []))
    if high is not None:
        tensor = tf.minimum(tensor, tf.reshape(high.tensor, []))
    return x.like(tensor)
