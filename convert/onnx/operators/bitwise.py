"""Operations on the bits of integers.

A device has BITWISE_XOR, RIGHT_SHIFT and BITCAST, all for at most 32 bits. The others are arithmetic that is exact in
two's complement; 64 bits are taken as two times 32.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from convert.libraries import load_library
from convert.onnx.carriers import carrier, element_type, wrapped
from convert.onnx.node import Node
from convert.onnx.operators.elementwise import broadcast
from convert.onnx.problems import Unsupported
from convert.onnx.registry import operator
from convert.onnx.value import Value

__all__: list[str] = []

tf = load_library("tensorflow")


def _xor(a: Any, b: Any) -> Any:
    return tf.bitwise.bitwise_xor(a, b)


def _and(a: Any, b: Any) -> Any:
    # a + b == 2 * (a & b) + (a ^ b), halved before it can overflow: a // 2 + b // 2 + (both odd) - (a ^ b) // 2.
    half_a, half_b = _halved(a), _halved(b)
    both_odd = (a - 2 * half_a) * (b - 2 * half_b)
    # (a ^ b) // 2 is (a // 2) ^ (b // 2).
    return half_a + half_b + both_odd - _xor(half_a, half_b)


def _or(a: Any, b: Any) -> Any:
    # The exclusive or, and where it is zero the and: no bit is in both.
    return _xor(a, b) + _and(a, b)


def _halved(x: Any) -> Any:
    return tf.bitwise.right_shift(x, tf.ones((), x.dtype))


def _in_words(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of 32-bit integers that goes by their bits, applied to those of any carrier."""

    def apply(*tensors: Any) -> Any:
        if tensors[0].dtype != tf.int64:
            return function(*tensors)
        return tf.bitcast(function(*(tf.bitcast(each, tf.int32) for each in tensors)), tf.int64)

    return apply


def _not(x: Any) -> Any:
    return _xor(x, tf.constant(-1, tf.int32))


for _name, _function in (("BitwiseAnd", _and), ("BitwiseOr", _or), ("BitwiseXor", _xor)):

    def _binary(_node: Node, a: Value, b: Value, function: Callable[..., Any] = _function) -> Value:
        return broadcast(_in_words(function), a, b)

    operator(_name)(_binary)


@operator("BitwiseNot")
def bitwise_not(_node: Node, x: Value) -> Value:
    """All bits turned."""
    return x.like(wrapped(_in_words(_not)(x.flat), x.dtype))


@operator("BitShift")
def bit_shift(node: Node, x: Value, by: Value) -> Value:
    """The bits of integers moved; by all of them or more, or by less than none, only the sign is left."""
    bits = 8 * x.dtype.itemsize
    if node.attribute("direction") == "LEFT":
        return broadcast(lambda x, by: _left(x, by, bits), x, by)
    if x.dtype == np.uint64:
        raise Unsupported("unsigned 64-bit integers shifted to the right", "use uint32, or int64")
    shift = _right_long if carrier(x.dtype) == "int64" else _right
    return broadcast(lambda x, by: shift(x, by, bits), x, by)


def _left(x: Any, by: Any, bits: int) -> Any:
    powers = np.array([1 << place for place in range(bits)], np.uint64).astype(x.dtype.as_numpy_dtype)
    # A shift by all bits or more takes the zero behind the powers.
    table = tf.constant(np.append(powers, powers.dtype.type(0)))
    return x * tf.gather(table, tf.cast(_within(by, bits), tf.int32))


def _right(x: Any, by: Any, bits: int) -> Any:
    # Unsigned integers are carried in wider ones: there is no sign bit among theirs.
    most = bits - 1 if bits == 32 else 31
    return tf.bitwise.right_shift(x, _within(by, bits, most))


def _right_long(x: Any, by: Any, bits: int) -> Any:
    by = tf.cast(_within(by, bits, 63), tf.int32)
    words = tf.bitcast(x, tf.int32)
    low, high = words[..., 0], words[..., 1]
    short, beyond = tf.minimum(by, 31), tf.clip_by_value(by - 32, 0, 31)
    moved = tf.bitwise.right_shift(high, short)
    power = tf.gather(
        tf.constant([1 << place for place in range(33)], tf.int64), tf.stack([short, 32 - short])
    )
    # What leaves the high word comes into the low one.
    crossing = tf.cast(high, tf.int64) - tf.cast(moved, tf.int64) * power[0]
    low = tf.bitwise.right_shift(tf.bitcast(low, tf.uint32), tf.bitcast(short, tf.uint32))
    near = tf.cast(moved, tf.int64) * np.int64(1 << 32) + crossing * power[1] + tf.cast(low, tf.int64)
    return tf.where(by < 32, near, tf.cast(tf.bitwise.right_shift(high, beyond), tf.int64))


def _within(by: Any, bits: int, most: int | None = None) -> Any:
    """Amounts of a shift, `most` where there are not that many bits."""
    most = bits if most is None else most
    wrong = tf.logical_or(by < 0, by >= bits)
    return tf.where(wrong, tf.constant(most, by.dtype), by)


@operator("BitCast")
def bit_cast(node: Node, x: Value) -> Value:
    """The same bits taken for another type of the same size."""
    dtype = element_type(int(node.attribute("to")))
    if x.array is not None:
        return Value.constant(x.array.view(dtype))
    if dtype == x.dtype:
        return x
    if x.dtype == np.bool_:
        return x.like(tf.cast(x.flat, carrier(dtype)), dtype)
    if dtype == np.bool_:
        return x.like(tf.not_equal(x.flat, 0), dtype)
    for each in (dtype, x.dtype):
        if each.name not in _WITH_BITS:
            raise Unsupported(
                f"the bits of values of type {each.name}, which are computed in another",
                "use a type of 32 bits",
            )
    tensor = x.flat if x.dtype == np.uint64 else tf.cast(x.flat, x.dtype.name)
    bits = "int64" if dtype == np.uint64 else dtype.name
    if tensor.dtype.name != bits:
        tensor = tf.bitcast(tensor, bits)
    return x.like(tf.cast(tensor, carrier(dtype)), dtype)


# Types that a device computes with, or casts to and from without a loss.
_WITH_BITS = frozenset(
    ("int8", "uint8", "int16", "uint16", "float16", "int32", "uint32", "float32", "int64", "uint64")
)
