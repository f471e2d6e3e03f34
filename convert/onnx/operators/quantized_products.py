"""Convolutions and products of matrices on quantised values.

With parameters that are known they are the same operators on real numbers between grids, which the converter makes
products of integers (`convert.onnx.operators.quantization`). Without, they are computed on whole real numbers: float32
holds all sums below 2**24 exactly, and larger ones to its last place.
"""

from __future__ import annotations

import numpy as np

from convert.libraries import load_library
from convert.onnx.node import Node
from convert.onnx.operators.convolution import convolve
from convert.onnx.operators.products import matrix_product
from convert.onnx.operators.quantization import centred, dequantized, dynamic_quantize_linear, quantized
from convert.onnx.registry import operator
from convert.onnx.value import Value, aligned

__all__: list[str] = []

tf = load_library("tensorflow")


@operator("ConvInteger")
def conv_integer(
    node: Node, x: Value, weights: Value, x_zero: Value | None = None, weights_zero: Value | None = None
) -> Value:
    """The convolution of integers, as int32."""
    result = convolve(node, centred(x, x_zero), _centred_weights(weights, weights_zero, axis=0), None)
    return result.like(tf.cast(result.flat, tf.int32), np.int32)


@operator("MatMulInteger")
def matmul_integer(
    _node: Node, a: Value, b: Value, a_zero: Value | None = None, b_zero: Value | None = None
) -> Value:
    """The product of matrices of integers, as int32; zero points for each row of `a` and column of `b`."""
    result = _integer_product(a, b, a_zero, b_zero)
    return result.like(tf.cast(result.flat, tf.int32), np.int32)


@operator("MatMulIntegerToFloat", domain="com.microsoft")
def matmul_integer_to_float(
    _node: Node,
    a: Value,
    b: Value,
    a_scale: Value,
    b_scale: Value,
    a_zero: Value | None = None,
    b_zero: Value | None = None,
    bias: Value | None = None,
) -> Value:
    """The product of matrices of integers, scaled to real numbers."""
    return _shifted(_times(_integer_product(a, b, a_zero, b_zero), a_scale, b_scale), bias)


@operator("DynamicQuantizeMatMul", domain="com.microsoft")
def dynamic_quantize_matmul(
    node: Node,
    a: Value,
    b: Value,
    b_scale: Value,
    b_zero: Value | None = None,
    bias: Value | None = None,
) -> Value:
    """Real numbers, quantised over their range, times a matrix of integers."""
    values, scale, zero = dynamic_quantize_linear(node, a)
    return _shifted(_times(_integer_product(values, b, zero, b_zero), scale, b_scale), bias)


@operator("QLinearConv")
def quantized_conv(
    node: Node,
    x: Value,
    x_scale: Value,
    x_zero: Value,
    weights: Value,
    weights_scale: Value,
    weights_zero: Value,
    y_scale: Value,
    y_zero: Value,
    bias: Value | None = None,
) -> Value:
    """The convolution of quantised values; the bias is int32, of the scale of the products."""
    if _is_known(x_scale, x_zero, weights, weights_scale, weights_zero, y_scale, y_zero, bias):
        real = convolve(
            node,
            dequantized(x, x_scale, x_zero),
            dequantized(weights, weights_scale, weights_zero, axis=0),
            _real_bias(bias, x_scale, weights_scale),
        )
    else:
        whole = None if bias is None else bias.like(tf.cast(bias.flat, tf.float32), np.float32)
        sums = convolve(node, centred(x, x_zero), _centred_weights(weights, weights_zero, axis=0), whole)
        channels = _along_axis(weights_scale, sums, 1)
        real = _times(sums, x_scale, channels)
    return quantized(real, y_scale, y_zero, dtype=y_zero.dtype)


@operator("QLinearMatMul")
@operator("QLinearMatMul", domain="com.microsoft")
def quantized_matmul(
    _node: Node,
    a: Value,
    a_scale: Value,
    a_zero: Value,
    b: Value,
    b_scale: Value,
    b_zero: Value,
    y_scale: Value,
    y_zero: Value,
) -> Value:
    """The product of matrices of quantised values; scales for each row of `a` and column of `b`."""
    if _is_known(a_scale, a_zero, b_scale, b_zero, y_scale, y_zero) and a_scale.array.size == 1:  # type: ignore[union-attr]
        real = matrix_product(
            dequantized(a, a_scale, a_zero, axis=a.rank - 1), dequantized(b, b_scale, b_zero, axis=b.rank - 1)
        )
    else:
        real = _times(_integer_product(a, b, a_zero, b_zero), _rows(a_scale, a), b_scale)
    return quantized(real, y_scale, y_zero, dtype=y_zero.dtype)


@operator("QGemm", domain="com.microsoft")
def quantized_gemm(
    node: Node,
    a: Value,
    a_scale: Value,
    a_zero: Value,
    b: Value,
    b_scale: Value,
    b_zero: Value,
    c: Value | None = None,
    y_scale: Value | None = None,
    y_zero: Value | None = None,
) -> Value:
    """``alpha * a @ b + c`` of quantised values; real numbers where the result has no scale."""
    columns = 0 if node.attribute("transB", 0) else 1
    left = dequantized(a, a_scale, a_zero, axis=1)
    right = dequantized(b, b_scale, b_zero, axis=columns)
    left = left.transposed([1, 0]) if node.attribute("transA", 0) else left
    right = right.transposed([1, 0]) if node.attribute("transB", 0) else right
    alpha = node.attribute("alpha", 1.0)
    bias = _real_bias(c, a_scale, b_scale)
    if alpha == 1.0 and bias is not None and bias.is_constant and bias.shape == right.shape[1:]:
        real = matrix_product(left, right, bias)
    else:
        product = matrix_product(left, right)
        real = _shifted(product.like(product.flat * alpha) if alpha != 1.0 else product, bias)
    if y_scale is None:
        return real
    return quantized(real, y_scale, y_zero, dtype=np.uint8 if y_zero is None else y_zero.dtype)


def _is_known(*parameters: Value | None) -> bool:
    return all(each is None or each.is_constant for each in parameters)


def _real_bias(bias: Value | None, x_scale: Value, weights_scale: Value) -> Value | None:
    if bias is None:
        return None
    if bias.array is not None and x_scale.array is not None and weights_scale.array is not None:
        scale = x_scale.array.astype(np.float64) * weights_scale.array.reshape(-1)
        return Value.constant((bias.array * scale).astype(np.float32).reshape(bias.array.shape))
    scale = tf.reshape(x_scale.tensor, []) * tf.reshape(weights_scale.tensor, [-1])
    return Value.of(tf.cast(bias.tensor, tf.float32) * scale, np.float32)


def _integer_product(a: Value, b: Value, a_zero: Value | None, b_zero: Value | None) -> Value:
    rows = None if a_zero is None else _rows(a_zero, a)
    return matrix_product(centred(a, rows), _centred_weights(b, b_zero, axis=b.rank - 1))


def _rows(parameter: Value, a: Value) -> Value:
    """A parameter for each row of a matrix, as one that broadcasts with it."""
    if parameter.rank != 1 or parameter.shape == (1,) or a.rank < 2:
        return parameter
    if parameter.array is not None:
        return Value.constant(parameter.array[:, None])
    return Value.of(tf.expand_dims(parameter.tensor, 1), parameter.dtype)


def _centred_weights(weights: Value, zero: Value | None, *, axis: int) -> Value:
    """Weights as whole real numbers, on the grid of these where they are known."""
    one = Value.constant(np.float32(1))
    if weights.array is not None and (zero is None or zero.array is not None):
        if zero is None or zero.array.size == 1:  # type: ignore[union-attr]
            return dequantized(weights, one, zero).plain
        scales = Value.constant(np.ones(zero.shape, np.float32))
        return dequantized(weights, scales, zero, axis=axis).plain
    return centred(weights, zero, axis=axis)


def _along_axis(parameter: Value, x: Value, axis: int) -> Value:
    """A parameter for each slice along an axis, as one that broadcasts with the value."""
    if all(size == 1 for size in parameter.shape):
        return parameter
    sizes = [1] * x.rank
    sizes[axis] = -1
    if parameter.array is not None:
        return Value.constant(parameter.array.reshape(sizes))
    return Value.of(tf.reshape(parameter.tensor, sizes), parameter.dtype)


def _times(sums: Value, a_scale: Value, b_scale: Value) -> Value:
    scales = [_scalar(each) for each in (a_scale, b_scale)]
    order, (scale_a, scale_b, tensor) = aligned(*scales, sums)
    return Value.of(tensor * (scale_a * scale_b), np.float32, order)


def _scalar(parameter: Value) -> Value:
    if parameter.rank != 1 or parameter.shape != (1,):
        return parameter
    if parameter.array is not None:
        return Value.constant(parameter.array.reshape(()))
    return Value.of(tf.reshape(parameter.tensor, []), parameter.dtype)


def _shifted(x: Value, bias: Value | None) -> Value:
    if bias is None:
        return x
    order, tensors = aligned(x, bias)
    return Value.of(tensors[0] + tensors[1], np.float32, order)
