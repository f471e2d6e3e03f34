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


def matrix_product(a: Value, b: Value) -> Value:
    """What `MatMul` computes.

    An operand whose last two axes are stored the other way round is multiplied as it is.
    """
    if a.rank == 1 or b.rank == 1:
        left = a.tensor[None, :] if a.rank == 1 else a.tensor
        right = b.tensor[:, None] if b.rank == 1 else b.tensor
        result = tf.matmul(left, right)
        gone = [axis for axis, rank in ((-2, a.rank), (-1, b.rank)) if rank == 1]
        return Value.of(tf.squeeze(result, gone), a.dtype)
    if b.rank == 2 and b.is_constant and a.rank > 2 and None not in a.shape[1:]:
        return _by_weights(a, b)
    left, turned_left = _operand(a)
    right, turned_right = _operand(b)
    product = tf.matmul(left, right, transpose_a=turned_left, transpose_b=turned_right)
    return Value.of(product, a.dtype)


def _operand(x: Value) -> tuple[Any, bool]:
    turned: Order = (*range(x.rank - 2), x.rank - 1, x.rank - 2)
    if not x.is_constant and x.order == turned:
        return x.flat, True
    return x.stored_as(identity(x.rank)), False


def _by_weights(a: Value, b: Value) -> Value:
    """Rows of any batch times one matrix: one fully connected product of all rows."""
    # Rows may be stored in any order, as long as what is summed over comes last.
    order = (*(axis for axis in a.order if axis != a.rank - 1), a.rank - 1)
    tensor = a.stored_as(order)
    sizes = tensor.shape.as_list()
    rows = tf.reshape(tensor, [-1, sizes[-1]])
    product = tf.matmul(rows, b.tensor)
    return Value.of(
        tf.reshape(product, [-1 if sizes[0] is None else sizes[0], *sizes[1:-1], b.shape[1]]), a.dtype, order
    )


@operator("Gemm")
def gemm(node: Node, a: Value, b: Value, c: Value | None = None) -> Value:
    """``alpha * a @ b + beta * c``, with either matrix transposed."""
    a = a.transposed([1, 0]) if node.attribute("transA", 0) else a
    b = b.transposed([1, 0]) if node.attribute("transB", 0) else b
    alpha, beta = node.attribute("alpha", 1.0), node.attribute("beta", 1.0)
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
