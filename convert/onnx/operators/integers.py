"""Division and powers of 64-bit integers, for which a device has no kernels."""

from __future__ import annotations

from typing import Any

import numpy as np

from convert.libraries import load_library

__all__ = ["divided", "power", "remainder"]

tf = load_library("tensorflow")

# The largest float32 that is no more than the largest int64.
_MOST = 9223371487098961920.0


def divided(a: Any, b: Any) -> Any:
    """The quotient of int64 tensors, rounded to zero.

    A quotient in float32 is right to 22 bits; what remains is divided again, until less than the divisor is left.
    """
    quotient = _estimated(a, b)
    for _ in range(2):
        quotient = quotient + _estimated(a - quotient * b, b)
    # Now it is wrong by one at most; the remainder tells, which has the sign of the dividend.
    rest = a - quotient * b
    one = _sign(a) * _sign(b)
    quotient = quotient - tf.where(_sign(rest) * _sign(a) < 0, one, tf.zeros_like(one))
    rest = a - quotient * b
    return quotient + tf.where(_size(rest) >= _size(b), one, tf.zeros_like(one))


def remainder(a: Any, b: Any) -> Any:
    """What is left of a division of int64 tensors that rounds to zero."""
    return _sign(a) * tf.math.floormod(_size(a), _size(b))


def power(base: Any, exponent: Any) -> Any:
    """An int64 tensor to the power of an int32 one, by squares; zero for negative exponents of all but one."""
    one = tf.ones((), base.dtype)
    result, square, left = one, base, exponent
    for _ in range(6):
        half = tf.bitwise.right_shift(left, tf.ones((), left.dtype))
        result = result * tf.where(tf.equal(left, 2 * half), one, square)
        square, left = square * square, half
    inverse = tf.where(tf.equal(_size(base), 1), result, tf.zeros_like(result))
    return tf.where(exponent < 0, inverse, result)


def _estimated(a: Any, b: Any) -> Any:
    quotient = tf.cast(a, tf.float32) / tf.cast(b, tf.float32)
    return tf.cast(tf.clip_by_value(quotient, np.float32(-_MOST), np.float32(_MOST)), tf.int64)


def _sign(x: Any) -> Any:
    return tf.cast(x > 0, tf.int64) - tf.cast(x < 0, tf.int64)


def _size(x: Any) -> Any:
    return tf.maximum(x, -x)
