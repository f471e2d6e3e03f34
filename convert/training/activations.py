"""Functions and operations of Keras 3 in terms of TensorFlow, where `tf_keras` lacks them or means something else."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["activation", "operation", "operation_names"]


def activation(name: str) -> Any:
    """What an activation function of that name is in `tf_keras`: a function, or the name itself where both agree."""
    import tensorflow as tf

    def hard_sigmoid(values: Any) -> Any:
        # tf_keras has a steeper one under this name.
        return tf.nn.relu6(values + 3.0) / 6.0

    def hard_silu(values: Any) -> Any:
        return values * hard_sigmoid(values)

    functions: dict[str, Callable[[Any], Any]] = {
        "celu": lambda values: tf.nn.relu(values) + tf.math.minimum(0.0, tf.math.expm1(values)),
        "hard_sigmoid": hard_sigmoid,
        "hard_silu": hard_silu,
        "hard_swish": hard_silu,
        "hard_tanh": lambda values: tf.clip_by_value(values, -1.0, 1.0),
        "leaky_relu": lambda values: tf.nn.leaky_relu(values, 0.2),
        "log_sigmoid": tf.math.log_sigmoid,
        "log_softmax": tf.nn.log_softmax,
        "relu6": tf.nn.relu6,
        "silu": tf.nn.silu,
        "swish": tf.nn.silu,
    }
    return functions.get(name, name)


def operation_names() -> frozenset[str]:
    """Operations on tensors, by class, that `operation` knows."""
    return frozenset(_operations())


def operation(name: str, settings: Mapping[str, Any]) -> Callable[..., Any]:
    """An operation on tensors, such as the ``Add`` of ``x + y``, as a function of them."""
    return _operations()[name](settings)


def _operations() -> dict[str, Callable[[Mapping[str, Any]], Callable[..., Any]]]:
    import tensorflow as tf

    def plain(function: Callable[..., Any]) -> Callable[[Mapping[str, Any]], Callable[..., Any]]:
        return lambda _settings: function

    def reducing(function: Callable[..., Any]) -> Callable[[Mapping[str, Any]], Callable[..., Any]]:
        return lambda settings: (
            lambda values: function(
                values, axis=settings.get("axis"), keepdims=settings.get("keepdims", False)
            )
        )

    def along(function: Callable[..., Any]) -> Callable[[Mapping[str, Any]], Callable[..., Any]]:
        return lambda settings: lambda values: function(values, axis=settings["axis"])

    return {
        "Absolute": plain(tf.abs),
        "Add": plain(tf.add),
        "Concatenate": along(tf.concat),
        "Divide": plain(tf.divide),
        "Exp": plain(tf.exp),
        "ExpandDims": along(tf.expand_dims),
        "Gelu": lambda settings: (
            lambda values: tf.nn.gelu(values, approximate=settings.get("approximate", True))
        ),
        "GetItem": plain(lambda values, key: values[key]),
        "Log": plain(tf.math.log),
        "Matmul": plain(tf.matmul),
        "Max": reducing(tf.reduce_max),
        "Maximum": plain(tf.maximum),
        "Mean": reducing(tf.reduce_mean),
        "Min": reducing(tf.reduce_min),
        "Minimum": plain(tf.minimum),
        "Multiply": plain(tf.multiply),
        "Negative": plain(tf.negative),
        "Power": plain(tf.pow),
        "Relu": plain(tf.nn.relu),
        "Relu6": plain(tf.nn.relu6),
        "Reshape": lambda settings: lambda values: tf.reshape(values, _free_batch(settings["newshape"])),
        "Sigmoid": plain(tf.sigmoid),
        "Silu": plain(tf.nn.silu),
        "Softmax": along(tf.nn.softmax),
        "Sqrt": plain(tf.sqrt),
        "Square": plain(tf.square),
        "Squeeze": along(tf.squeeze),
        "Stack": along(tf.stack),
        "Subtract": plain(tf.subtract),
        "Sum": reducing(tf.reduce_sum),
        "Tanh": plain(tf.tanh),
        "Transpose": lambda settings: lambda values: tf.transpose(values, settings.get("axes")),
        "TrueDivide": plain(tf.divide),
    }


def _free_batch(shape: Any) -> list[int]:
    sizes = list(shape)
    return [-1 if size is None else size for size in sizes]
