"""One step of the optimizers in ONNX's training domain (`ai.onnx.preview.training`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from convert.libraries import load_library
from convert.onnx.node import Node
from convert.onnx.registry import operator
from convert.onnx.value import Value

__all__: list[str] = []

tf = load_library("tensorflow")

_DOMAIN = "ai.onnx.preview.training"

# Takes the node, the learning rate, the number of steps done, and of one parameter its value, gradient and states;
# gives the new value and states.
_Step = Callable[..., Sequence[Any]]


def _optimizer(name: str, states: int) -> Callable[[_Step], _Step]:
    """Registers the step of an optimizer that keeps some states for each parameter."""

    def register(step: _Step) -> _Step:
        def handler(node: Node, rate: Value, count: Value, *values: Value) -> list[Value]:
            parameters = len(values) // (2 + states)
            groups = [values[start : start + parameters] for start in range(0, len(values), parameters)]
            scalars = tf.reshape(rate.tensor, []), tf.cast(tf.reshape(count.tensor, []), tf.float32)
            results = []
            for each in zip(*groups, strict=True):
                tensors = step(node, *scalars, *(value.stored_as(each[0].order) for value in each))
                results.append([each[0].like(tensor) for tensor in tensors])
            # All new values come first, then all of each state.
            return [value for kind in zip(*results, strict=True) for value in kind]

        operator(name, domain=_DOMAIN)(handler)
        return step

    return register


def _regularised(node: Node, x: Any, gradient: Any) -> Any:
    return gradient + node.attribute("norm_coefficient", 0.0) * x


@_optimizer("Adagrad", 1)
def _adagrad(node: Node, rate: Any, count: Any, x: Any, gradient: Any, squares: Any) -> Sequence[Any]:
    """Adaptive subgradients (Duchi et al. 2011)."""
    gradient = _regularised(node, x, gradient)
    squares = squares + gradient * gradient
    rate = rate / (1.0 + count * node.attribute("decay_factor", 0.0))
    return x - rate * gradient / (tf.sqrt(squares) + node.attribute("epsilon", 1e-6)), squares


@_optimizer("Adam", 2)
def _adam(node: Node, rate: Any, count: Any, x: Any, gradient: Any, mean: Any, squares: Any) -> Sequence[Any]:
    """Adaptive moments (Kingma and Ba 2014)."""
    alpha, beta = node.attribute("alpha", 0.9), node.attribute("beta", 0.999)
    gradient = _regularised(node, x, gradient)
    mean = alpha * mean + (1.0 - alpha) * gradient
    squares = beta * squares + (1.0 - beta) * gradient * gradient
    # The moments start at zero; without a step done nothing is to be corrected, and the divisor would be zero.
    done = tf.maximum(count, 1.0)
    corrected = rate * tf.sqrt(1.0 - tf.pow(beta, done)) / (1.0 - tf.pow(alpha, done))
    rate = tf.where(count > 0.0, corrected, rate)
    x = x - rate * mean / (tf.sqrt(squares) + node.attribute("epsilon", 1e-6))
    return (1.0 - node.attribute("norm_coefficient_post", 0.0)) * x, mean, squares


@_optimizer("Momentum", 1)
def _momentum(node: Node, rate: Any, count: Any, x: Any, gradient: Any, momentum: Any) -> Sequence[Any]:
    """Stochastic gradient descent with momentum, Nesterov's or not."""
    alpha = node.attribute("alpha")
    gradient = _regularised(node, x, gradient)
    momentum = alpha * momentum + tf.where(count > 0.0, node.attribute("beta"), 1.0) * gradient
    step = gradient + alpha * momentum if node.attribute("mode") == "nesterov" else momentum
    return x - rate * step, momentum
