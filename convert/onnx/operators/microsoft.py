"""Operators of onnxruntime's own set (com.microsoft): quantised ones, and those that its optimiser fuses.

https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from convert.libraries import load_library
from convert.onnx.node import Node
from convert.onnx.operators.convolution import convolve
from convert.onnx.operators.elementwise import broadcast
from convert.onnx.operators.products import matrix_product
from convert.onnx.operators.quantization import dequantized, quantized
from convert.onnx.problems import Unsupported
from convert.onnx.registry import find, operator
from convert.onnx.value import Value

__all__: list[str] = []

tf = load_library("tensorflow")

_MICROSOFT = "com.microsoft"
_OPSET = 13


def _as_onnx(name: str, node: Node, *inputs: Value | None, **attributes: Any) -> Value:
    """What an operator of ONNX's own set makes of these inputs."""
    version = int(node.attribute("opset", _OPSET))
    handler = find("", name, version)
    if handler is None:
        raise Unsupported(
            f"it needs ONNX's {name}, which the importer does not know", "replace it in the model"
        )
    inner = replace(
        node,
        operator=name,
        domain="",
        version=version,
        attributes={**node.attributes, **attributes},
        dtypes=(),
    )
    result = handler(inner, *inputs)
    result = result[0] if isinstance(result, list | tuple) else result
    if isinstance(result, Value):
        return result
    return Value.of(result, inputs[0].dtype if inputs[0] is not None else np.float32)


def _binary(name: str) -> Callable[..., Value]:
    def handler(
        node: Node,
        a: Value,
        a_scale: Value,
        a_zero: Value | None,
        b: Value,
        b_scale: Value,
        b_zero: Value | None,
        y_scale: Value,
        y_zero: Value | None = None,
    ) -> Value:
        real = _as_onnx(name, node, dequantized(a, a_scale, a_zero), dequantized(b, b_scale, b_zero))
        return quantized(real, y_scale, y_zero, dtype=a.dtype)

    return handler


def _unary(name: str) -> Callable[..., Value]:
    def handler(
        node: Node,
        x: Value,
        x_scale: Value,
        x_zero: Value | None,
        y_scale: Value,
        y_zero: Value | None = None,
    ) -> Value:
        real = dequantized(x, x_scale, x_zero)
        if node.attribute("channels_last", 0):
            last = x.rank - 1
            there, back = (0, last, *range(1, last)), (0, *range(2, x.rank), 1)
            real = _as_onnx(name, node, real.transposed(there)).transposed(back)
        else:
            real = _as_onnx(name, node, real)
        return quantized(real, y_scale, y_zero, dtype=x.dtype)

    return handler


for _name in ("Add", "Mul"):
    operator(f"QLinear{_name}", domain=_MICROSOFT)(_binary(_name))
for _name in ("AveragePool", "GlobalAveragePool", "LeakyRelu", "Sigmoid", "Softmax"):
    operator(f"QLinear{_name}", domain=_MICROSOFT)(_unary(_name))


@operator("QLinearConcat", domain=_MICROSOFT)
def quantized_concat(node: Node, y_scale: Value, y_zero: Value, *parts: Value | None) -> Value:
    """Quantised values, each with its scale and zero point, one after the other along an axis."""
    reals = []
    for value, scale, zero in zip(parts[::3], parts[1::3], parts[2::3], strict=True):
        if value is None or scale is None:
            raise Unsupported("a part without values or scale", "check the inputs of the node")
        reals.append(dequantized(value, scale, zero))
    return quantized(_as_onnx("Concat", node, *reals), y_scale, y_zero, dtype=y_zero.dtype)


@operator("QLinearReduceMean", domain=_MICROSOFT)
def quantized_mean(
    node: Node, x: Value, x_scale: Value, x_zero: Value | None, y_scale: Value, y_zero: Value | None = None
) -> Value:
    """The mean over axes."""
    real = _as_onnx("ReduceMean", node, dequantized(x, x_scale, x_zero))
    return quantized(real, y_scale, y_zero, dtype=x.dtype)


@operator("QLinearWhere", domain=_MICROSOFT)
def quantized_where(
    node: Node,
    condition: Value,
    a: Value,
    a_scale: Value,
    a_zero: Value | None,
    b: Value,
    b_scale: Value,
    b_zero: Value | None,
    y_scale: Value,
    y_zero: Value | None = None,
) -> Value:
    """Elements of one value or the other."""
    real = _as_onnx(
        "Where", node, condition, dequantized(a, a_scale, a_zero), dequantized(b, b_scale, b_zero)
    )
    return quantized(real, y_scale, y_zero, dtype=a.dtype)


@operator("FusedMatMul", domain=_MICROSOFT)
def fused_matmul(node: Node, a: Value, b: Value) -> Value:
    """``alpha * a @ b``, with the last two axes of either exchanged, or the first moved before the last."""
    sides = (("transA", "transBatchA"), ("transB", "transBatchB"))
    left, right = (_turned(node, each, *names) for each, names in zip((a, b), sides, strict=True))
    product = matrix_product(left, right)
    alpha = node.attribute("alpha", 1.0)
    return product if alpha == 1.0 else product.like(product.flat * alpha)


def _turned(node: Node, x: Value, transposed: str, batch: str) -> Value:
    axes = list(range(x.rank))
    if node.attribute(batch, 0):
        axes = [*axes[1:-1], 0, axes[-1]]
    if node.attribute(transposed, 0) and x.rank > 1:
        axes[-2:] = reversed(axes[-2:])
    return x if axes == list(range(x.rank)) else x.transposed(axes)


@operator("FusedConv", domain=_MICROSOFT)
def fused_conv(
    node: Node, x: Value, weights: Value, bias: Value | None = None, added: Value | None = None
) -> Value:
    """A convolution, another tensor added, and an activation."""
    result = convolve(node, x, weights, bias)
    if added is not None:
        result = broadcast(tf.add, result, added)
    return _activated(node, result)


@operator("FusedGemm", domain=_MICROSOFT)
def fused_gemm(node: Node, a: Value, b: Value, c: Value | None = None) -> Value:
    """``alpha * a @ b + beta * c`` and an activation."""
    return _activated(node, _as_onnx("Gemm", node, a, b, c))


def _activated(node: Node, x: Value) -> Value:
    name = node.attribute("activation", "")
    if not name:
        return x
    parameters = node.attribute("activation_params", [])
    if name == "Clip":
        return _as_onnx(name, node, x, *(Value.constant(np.float32(each)) for each in parameters))
    named = {
        each: node.attribute(f"activation_{each}")
        for each in ("alpha", "beta")
        if f"activation_{each}" in node.attributes
    }
    named.update(zip(("alpha", "beta"), parameters, strict=False))
    bare = replace(node, attributes={})
    return _as_onnx(name, bare, x, **named)


@operator("Gelu", domain=_MICROSOFT)
def gelu(_node: Node, x: Value) -> Value:
    """``x * Phi(x)`` (Hendrycks and Gimpel 2016, "Gaussian Error Linear Units")."""
    return x.like(tf.nn.gelu(x.flat, approximate=False))


@operator("BiasGelu", domain=_MICROSOFT)
def bias_gelu(_node: Node, x: Value, bias: Value) -> Value:
    """The Gelu of a sum."""
    return broadcast(lambda x, bias: tf.nn.gelu(x + bias, approximate=False), x, bias)


@operator("FastGelu", domain=_MICROSOFT)
def fast_gelu(_node: Node, x: Value, bias: Value | None = None) -> Value:
    """The Gelu by a hyperbolic tangent, of a sum where there is a bias."""
    if bias is None:
        return x.like(tf.nn.gelu(x.flat, approximate=True))
    return broadcast(lambda x, bias: tf.nn.gelu(x + bias, approximate=True), x, bias)


@operator("QuickGelu", domain=_MICROSOFT)
def quick_gelu(node: Node, x: Value) -> Value:
    """``x * sigmoid(alpha * x)``."""
    alpha = node.attribute("alpha", 1.702)
    return x.like(x.flat * tf.sigmoid(alpha * x.flat))


@operator("SkipLayerNormalization", domain=_MICROSOFT)
def skip_layer_normalization(
    node: Node, x: Value, skip: Value, gamma: Value, beta: Value | None = None, bias: Value | None = None
) -> list[Value | None]:
    """The layer normalisation of a sum, mean and deviation of it, and the sum itself."""
    total = _sum(x, skip, bias)
    mean, deviation, normalised = _normalised(node, total)
    result = normalised * gamma.tensor
    if beta is not None:
        result = result + beta.tensor
    return [Value.of(result, x.dtype), Value.of(mean, x.dtype), Value.of(deviation, x.dtype), total]


@operator("SkipSimplifiedLayerNormalization", domain=_MICROSOFT)
def skip_simplified_layer_normalization(
    node: Node, x: Value, skip: Value, gamma: Value, bias: Value | None = None
) -> list[Value | None]:
    """The normalisation of a sum by its root mean square, and the sum itself."""
    total = _sum(x, skip, bias)
    tensor = total.tensor
    scale = tf.math.rsqrt(
        tf.reduce_mean(tf.square(tensor), -1, keepdims=True) + node.attribute("epsilon", 1e-12)
    )
    return [Value.of(tensor * scale * gamma.tensor, x.dtype), None, None, total]


def _sum(x: Value, skip: Value, bias: Value | None) -> Value:
    total = broadcast(tf.add, x, skip)
    return total if bias is None else broadcast(tf.add, total, bias)


def _normalised(node: Node, x: Value) -> tuple[Any, Any, Any]:
    tensor = x.tensor
    mean = tf.reduce_mean(tensor, -1, keepdims=True)
    centred = tensor - mean
    variance = tf.reduce_mean(tf.square(centred), -1, keepdims=True)
    inverse = tf.math.rsqrt(variance + node.attribute("epsilon", 1e-12))
    return mean, inverse, centred * inverse
