"""Random numbers, drawn anew each time the model runs.

A device draws from its own generators, so that the same seed does not give what another runtime gives.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from convert.libraries import load_library
from convert.onnx.carriers import carrier, element_type
from convert.onnx.node import Node
from convert.onnx.operators.shape import shape_tensor
from convert.onnx.registry import operator
from convert.onnx.value import Value

__all__: list[str] = []

tf = load_library("tensorflow")


def _seed(node: Node) -> int:
    """The seed as a whole number; without one, TensorFlow's zeros stand for one that differs in each interpreter."""
    seed = node.attribute("seed")
    return 0 if seed is None else int(np.float32(seed).view(np.int32)) or 1


def _drawn(node: Node, shape: Any, dtype: np.dtype[Any]) -> Value:
    size = tf.constant(shape, tf.int32) if isinstance(shape, list) else shape
    seed = _seed(node)
    if node.operator.startswith("RandomNormal"):
        numbers = tf.raw_ops.RandomStandardNormal(shape=size, dtype=tf.float32, seed=seed, seed2=seed)
        scale, start = node.attribute("scale", 1.0), node.attribute("mean", 0.0)
    else:
        numbers = tf.raw_ops.RandomUniform(shape=size, dtype=tf.float32, seed=seed, seed2=seed)
        start = node.attribute("low", 0.0)
        scale = node.attribute("high", 1.0) - start
    numbers = numbers if scale == 1.0 else numbers * scale
    return Value.of(numbers if start == 0.0 else numbers + start, dtype)


@operator("RandomNormal", "RandomUniform")
def random(node: Node) -> Value:
    """Random numbers in a shape that the node has."""
    return _drawn(node, node.attribute("shape"), element_type(int(node.attribute("dtype", 1))))


@operator("RandomNormalLike", "RandomUniformLike")
def random_like(node: Node, x: Value) -> Value:
    """Random numbers in the shape of a tensor."""
    dtype = element_type(int(node.attributes["dtype"])) if "dtype" in node.attributes else x.dtype
    return _drawn(node, shape_tensor(x), dtype)


@operator("Bernoulli")
def bernoulli(node: Node, x: Value) -> Value:
    """Ones with the probabilities that the tensor has, zeros elsewhere."""
    dtype = element_type(int(node.attributes["dtype"])) if "dtype" in node.attributes else x.dtype
    chances = x.flat
    seed = _seed(node)
    numbers = tf.raw_ops.RandomUniform(shape=tf.shape(chances), dtype=tf.float32, seed=seed, seed2=seed)
    drawn = tf.less(numbers, chances)
    return x.like(tf.cast(drawn, carrier(dtype)), dtype)


@operator("Multinomial")
def multinomial(node: Node, x: Value) -> Value:
    """Classes drawn with probabilities whose logarithms, up to a constant, the tensor has; (batch, samples)."""
    dtype = element_type(int(node.attribute("dtype", 6)))
    seed = _seed(node)
    drawn = tf.raw_ops.Multinomial(
        logits=x.tensor,
        num_samples=node.attribute("sample_size", 1),
        seed=seed,
        seed2=seed,
        output_dtype=carrier(dtype),
    )
    return Value.of(drawn, dtype)
