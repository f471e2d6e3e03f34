"""Recurrent layers: RNN, GRU and LSTM.

A step is a cell of few operators; what goes over the steps is in `convert.onnx.recurrence`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from convert.libraries import load_library
from convert.onnx.node import Node
from convert.onnx.problems import Unsupported
from convert.onnx.recurrence import Cell, Layer
from convert.onnx.registry import operator
from convert.onnx.value import Value

__all__: list[str] = []

tf = load_library("tensorflow")

_Function: TypeAlias = Callable[[Any], Any]
# What each function takes for alpha and beta, where it takes one and the node does not say.
_PARAMETERS: dict[str, tuple[float | None, float | None]] = {
    "affine": (1.0, 0.0),
    "elu": (1.0, None),
    "hardsigmoid": (0.2, 0.5),
    "leakyrelu": (0.01, None),
    "scaledtanh": (1.0, 1.0),
    "thresholdedrelu": (1.0, None),
}
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "affine": lambda x, alpha, beta: x * alpha + beta,
    "elu": lambda x, alpha, _: tf.where(x >= 0.0, x, alpha * (tf.exp(tf.minimum(x, 0.0)) - 1.0)),
    "hardsigmoid": lambda x, alpha, beta: tf.minimum(tf.nn.relu(x * alpha + beta), 1.0),
    "leakyrelu": lambda x, alpha, _: tf.nn.leaky_relu(x, alpha),
    "relu": lambda x, *_: tf.nn.relu(x),
    "scaledtanh": lambda x, alpha, beta: alpha * tf.tanh(beta * x),
    "sigmoid": lambda x, *_: tf.sigmoid(x),
    "softplus": lambda x, *_: tf.nn.relu(x) + tf.math.log(1.0 + tf.exp(-tf.abs(x))),
    "softsign": lambda x, *_: x / (1.0 + tf.abs(x)),
    "tanh": lambda x, *_: tf.tanh(x),
    "thresholdedrelu": lambda x, alpha, _: tf.where(x >= alpha, x, tf.zeros_like(x)),
}


@dataclass(frozen=True)
class _Direction:
    """One direction of a layer.

    Attributes:
        weights: Of the inputs, (gates * hidden, inputs).
        recurrent: Of the state, (gates * hidden, hidden).
        bias: Of both, each (gates * hidden,); None without any.
        peepholes: (3 * hidden,); None without any.
        functions: Its activation functions, in the order that the node has them.

    Constants are tensors only where they are used: the body of a loop would else be handed them at each turn.
    """

    weights: Value
    recurrent: Value
    bias: tuple[Value, Value] | None
    peepholes: Value | None
    functions: tuple[_Function, ...]


def _rows(value: Value, start: int, end: int) -> Value:
    if value.array is not None:
        return Value.constant(value.array[start:end])
    return Value.of(value.tensor[start:end], value.dtype)


def _functions(node: Node, defaults: Sequence[str], directions: int) -> list[_Function]:
    names = [str(name).lower() for name in node.attribute("activations") or [*defaults] * directions]
    # RNN lists two by default, of which one direction takes the first.
    names = names[: len(defaults) * directions]
    if len(names) != len(defaults) * directions:
        raise Unsupported(
            f"{len(names)} activation functions for {directions} directions of {len(defaults)} each",
            "name one for each, or none",
        )
    alphas, betas = (iter(node.attribute(name) or ()) for name in ("activation_alpha", "activation_beta"))
    clip = float(node.attribute("clip", 0.0))
    result: list[_Function] = []
    for name in names:
        if name not in _FUNCTIONS:
            raise Unsupported(f"an activation function '{name}'", "use one that the operator's schema names")
        alpha, beta = _PARAMETERS.get(name, (None, None))
        alpha = next(alphas, alpha) if alpha is not None else None
        beta = next(betas, beta) if beta is not None else None
        # As onnxruntime does: an LSTM's memory goes into its function unclipped.
        bound = 0.0 if len(defaults) == 3 and len(result) % 3 == 2 else clip
        result.append(_function(name, alpha, beta, bound))
    return result


def _function(name: str, alpha: float | None, beta: float | None, clip: float) -> _Function:
    function = _FUNCTIONS[name]
    if not clip:
        return lambda x: function(x, alpha, beta)
    return lambda x: function(tf.clip_by_value(x, -clip, clip), alpha, beta)


def _rnn_cell(_node: Node, own: _Direction) -> Cell:
    (f,) = own.functions

    def cell(given: Any, states: Sequence[Any]) -> list[Any]:
        return [f(given + tf.matmul(states[0], own.recurrent.tensor, transpose_b=True))]

    return cell


def _gru_cell(node: Node, own: _Direction) -> Cell:
    f, g = own.functions
    hidden = int(own.recurrent.shape[-1] or 0)
    bias = None if own.bias is None else _rows(own.bias[1], 2 * hidden, 3 * hidden)
    gates, candidate = (
        _rows(own.recurrent, start, end) for start, end in ((0, 2 * hidden), (2 * hidden, 3 * hidden))
    )

    def after(given: Any, states: Sequence[Any]) -> list[Any]:
        state = states[0]
        own_part = tf.matmul(state, own.recurrent.tensor, transpose_b=True)
        update, reset = tf.split(f(given[:, : 2 * hidden] + own_part[:, : 2 * hidden]), 2, -1)
        linear = own_part[:, 2 * hidden :] if bias is None else own_part[:, 2 * hidden :] + bias.tensor
        new = g(given[:, 2 * hidden :] + reset * linear)
        return [new + update * (state - new)]

    def before(given: Any, states: Sequence[Any]) -> list[Any]:
        state = states[0]
        both = f(given[:, : 2 * hidden] + tf.matmul(state, gates.tensor, transpose_b=True))
        update, reset = tf.split(both, 2, -1)
        new = g(given[:, 2 * hidden :] + tf.matmul(reset * state, candidate.tensor, transpose_b=True))
        return [new + update * (state - new)]

    return after if node.attribute("linear_before_reset", 0) else before


def _lstm_cell(node: Node, own: _Direction) -> Cell:
    f, g, h = own.functions
    coupled = bool(node.attribute("input_forget", 0))
    hidden = int(own.recurrent.shape[-1] or 0)
    peepholes = None
    if own.peepholes is not None:
        peepholes = [_rows(own.peepholes, each * hidden, (each + 1) * hidden) for each in range(3)]

    def cell(given: Any, states: Sequence[Any]) -> list[Any]:
        _, memory = states
        total = given + tf.matmul(states[0], own.recurrent.tensor, transpose_b=True)
        candidate = g(total[:, 3 * hidden :])
        if peepholes is None:
            entering, leaving, kept = tf.split(f(total[:, : 3 * hidden]), 3, -1)
        else:
            entering, leaving, kept = tf.split(total[:, : 3 * hidden], 3, -1)
            entering = f(entering + peepholes[0].tensor * memory)
            kept = f(kept + peepholes[2].tensor * memory)
        if coupled:
            kept = 1.0 - entering
        memory = kept * memory + entering * candidate
        if peepholes is not None:
            leaving = f(leaving + peepholes[1].tensor * memory)
        return [leaving * h(memory), memory]

    return cell


def _projection(own: _Direction, kept: int) -> _Function:
    """What the inputs contribute; of the recurrent bias what lies before `kept` is added here."""
    bias = None
    if own.bias is not None:
        first, second = (each.tensor for each in own.bias)
        units = int(own.weights.shape[0] or 0)
        bias = first + (second if kept >= units else tf.pad(second[:kept], [(0, units - kept)]))

    def project(x: Any) -> Any:
        steps, batch, inputs = x.shape
        given = tf.matmul(tf.reshape(x, [-1, inputs]), own.weights.tensor, transpose_b=True)
        given = given if bias is None else given + bias
        units = given.shape[-1]
        if steps is None and batch is None:
            return tf.reshape(given, tf.stack([*tf.unstack(tf.shape(x)[:2]), units]))
        return tf.reshape(given, [-1 if size is None else size for size in (steps, batch, units)])

    return project


def _mask(lengths: Value | None, x: Any) -> Any:
    """Which steps are there, (steps, batch, 1); None where all are."""
    steps = x.shape[0]
    if lengths is None or (
        lengths.array is not None and steps is not None and (lengths.array >= steps).all()
    ):
        return None
    if lengths.array is not None and steps is not None:
        return tf.constant((np.arange(steps)[:, None] < lengths.array[None, :])[..., None])
    positions = tf.range(tf.shape(x)[0]) if steps is None else tf.range(steps)
    ends = tf.cast(lengths.tensor, tf.int32)
    return tf.reshape(positions, [-1, 1, 1]) < tf.reshape(ends, [1, -1, 1])


_CELLS: dict[str, tuple[Callable[[Node, _Direction], Cell], tuple[str, ...]]] = {
    "RNN": (_rnn_cell, ("Tanh",)),
    "GRU": (_gru_cell, ("Sigmoid", "Tanh")),
    "LSTM": (_lstm_cell, ("Sigmoid", "Tanh", "Tanh")),
}


@operator("RNN", "GRU", "LSTM")
def recurrent(
    node: Node,
    x: Value,
    weights: Value,
    recurrent_weights: Value,
    bias: Value | None = None,
    lengths: Value | None = None,
    *initial: Value | None,
) -> list[Value]:
    """Outputs of all steps, and the states after the last, of one direction or both."""
    make_cell, defaults = _CELLS[node.operator]
    peepholes = initial[2] if len(initial) > 2 else None
    batch_first = bool(node.attribute("layout", 0))
    direction = node.attribute("direction", "forward")
    sequence = x.stored_as((1, 0, 2) if batch_first else (0, 1, 2))
    # A reshape before may have lost what the weights know.
    sequence.set_shape([None, None, weights.shape[2]])
    mask = _mask(lengths, sequence)
    count, _, hidden = recurrent_weights.shape
    if count is None or hidden is None or None in weights.shape:
        raise Unsupported("the size of its weights is not known", "make the weights constants")
    functions = _functions(node, defaults, count)
    outputs, finals = [], []
    for index in range(count):
        own = _direction(
            index,
            weights,
            recurrent_weights,
            bias,
            peepholes,
            functions[index * len(defaults) :][: len(defaults)],
        )
        # GRU multiplies its last gate's recurrent part, bias and all, where the reset comes after.
        kept = (
            2 * hidden if node.operator == "GRU" and node.attribute("linear_before_reset", 0) else 4 * hidden
        )
        size = 4 * hidden * int(own.recurrent.shape[0] or 0)
        layer = Layer(make_cell(node, own), _projection(own, kept), hidden, size)
        states = [
            _initial(initial[each] if each < len(initial) else None, index, batch_first, sequence, hidden)
            for each in range(2 if node.operator == "LSTM" else 1)
        ]
        backwards = direction == "reverse" or index == 1
        given = tf.reverse(sequence, [0]) if backwards else sequence
        there = tf.reverse(mask, [0]) if backwards and mask is not None else mask
        result, states = layer.over(given, there, states)
        outputs.append(tf.reverse(result, [0]) if backwards else result)
        finals.append(states)
    # Stored as (steps, batch, directions, hidden), which whoever joins the directions wants.
    order = (1, 0, 2, 3) if batch_first else (0, 2, 1, 3)
    joined = tf.stack(outputs, 2) if count > 1 else tf.expand_dims(outputs[0], 2)
    return [
        Value.of(joined, x.dtype, order),
        *(
            Value.of(tf.stack(states, 1 if batch_first else 0), x.dtype)
            for states in zip(*finals, strict=True)
        ),
    ]


def _direction(
    index: int,
    weights: Value,
    recurrent_weights: Value,
    bias: Value | None,
    peepholes: Value | None,
    functions: Sequence[_Function],
) -> _Direction:
    def of(value: Value) -> Value:
        if value.array is not None:
            return Value.constant(value.array[index])
        return Value.of(value.tensor[index], value.dtype)

    units = int(weights.shape[1] or 0)
    return _Direction(
        weights=of(weights),
        recurrent=of(recurrent_weights),
        bias=None if bias is None else (_rows(of(bias), 0, units), _rows(of(bias), units, 2 * units)),
        peepholes=None if peepholes is None else of(peepholes),
        functions=tuple(functions),
    )


def _initial(state: Value | None, index: int, batch_first: bool, sequence: Any, hidden: int) -> Any:
    if state is not None:
        return state.tensor[:, index] if batch_first else state.tensor[index]
    batch = sequence.shape[1]
    return tf.zeros([tf.shape(sequence)[1] if batch is None else batch, hidden], sequence.dtype)
