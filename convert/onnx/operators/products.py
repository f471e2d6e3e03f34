"""Products of matrices."""

from __future__ import annotations

from typing import Any

from convert.libraries import load_library
from convert.onnx.node import Node
from convert.onnx.registry import operator
from convert.onnx.value import Order, Value, identity

__all__ = ["matrix_product"]

tf = load_library("tensorflow")


@operator("MatMul")
def matmul(_node: Node, a: Value, b: Value) -> Value:
    """The product of matrices, in batches that broadcast, as `numpy.matmul`."""
    return matrix_product(a, b)


def matrix_product(a: Value, b: Value, bias: Value | None = None) -> Value:
    """What `MatMul` computes.

    Args:
        a: Left operand.
        b: Right operand.
        bias: One constant for each column of the result, where `a` and `b` are matrices.

    An operand whose last two axes are stored the other way round is multiplied as it is.
    """
    if a.rank == 1 or b.rank == 1:
        left = a.tensor[None, :] if a.rank == 1 else a.tensor
        right = b.tensor[:, None] if b.rank == 1 else b.tensor
        result = tf.matmul(left, right)
        gone = [axis for axis, rank in ((-2, a.rank), (-1, b.rank)) if rank == 1]
        return Value.of(tf.squeeze(result, gone), a.dtype)
    quantized = b.rank == 2 and b.grid is not None
    if b.rank == 2 and b.is_constant and (a.rank > 2 or quantized) and None not in a.shape[1:]:
        return _by_weights(a, b, bias)
    left, turned_left = _operand(a)
    right, turned_right = _operand(b)
    product = tf.matmul(left, right, transpose_a=turned_left, transpose_b=turned_right)
    return Value.of(product if bias is None else product + bias.plain.tensor, a.dtype)


def _operand(x: Value) -> tuple[Any, bool]:
    turned: Order = (*range(x.rank - 2), x.rank - 1, x.rank - 2)
    if not x.is_constant and x.order == turned:
        return x.flat, True
    return x.stored_as(identity(x.rank)), False


def _by_weights(a: Value, b: Value, bias: Value | None) -> Value:
    """Rows of any batch times one matrix: one fully connected product of all rows."""
    # Rows may be stored in any order, as long as what is summed over comes last.
    order = (*(axis for axis in a.order if axis != a.rank - 1), a.rank - 1)
    tensor = a.stored_as(order)
    sizes = tensor.shape.as_list()
    if b.grid is not None and b.grid.axis == 1 and b.grid.is_symmetric:
        # The converter knows one scale for each output of a convolution only, so it is one of a single tap.
        rows = tf.reshape(tensor, [1, -1, 1, sizes[-1]])
        product = tf.nn.conv2d(rows, b.weights_as((0, 1), [1, 1, *b.shape]), 1, "VALID")
    else:
        rows = tf.reshape(tensor, [-1, sizes[-1]])
        product = tf.matmul(rows, b.weights_as((0, 1), symmetric=False))
    if bias is not None:
        product = product + bias.plain.tensor
    return Value.of(
        tf.reshape(product, [-1 if sizes[0] is None else sizes[0], *sizes[1:-1], b.shape[1]]), a.dtype, order
    )


@operator("Gemm")
def gemm(node: Node, a: Value, b: Value, c: Value | None = None) -> Value:
    """``alpha * a @ b + beta * c``, with either matrix transposed."""
    a = a.transposed([1, 0]) if node.attribute("transA", 0) else a
    b = b.transposed([1, 0]) if node.attribute("transB", 0) else b
    alpha, beta = node.attribute("alpha", 1.0), node.attribute("beta", 1.0)
    if c is not None and c.array is not None and c.shape == b.shape[1:] and alpha == beta == 1.0:
        return matrix_product(a, b, c)
    result = matrix_product(a, b).tensor
    if alpha != 1.0:
        result = _scaled(result, alpha)
    if c is not None and beta != 0.0:
        result = result + (c.tensor if beta == 1.0 else _scaled(c.tensor, beta))
    return Value.of(result, a.dtype)


def _scaled(tensor: Any, factor: float) -> Any:
    if tensor.dtype.is_floating:
        return tensor * factor
    return tf.cast(tf.cast(tensor, tf.float32) * factor, tensor.dtype)
