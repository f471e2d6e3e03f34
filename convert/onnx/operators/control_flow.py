"""Branches and loops.

What is known at conversion is decided then: a branch is put in place of the If. The rest becomes TFLite's IF and WHILE;
see `convert.onnx.loops`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from convert.libraries import load_library
from convert.onnx.carriers import carrier
from convert.onnx.loops import Loop, shown, stacked
from convert.onnx.node import Body, Node
from convert.onnx.problems import Unsupported
from convert.onnx.registry import operator
from convert.onnx.value import Order, Value

__all__: list[str] = []

tf = load_library("tensorflow")


@operator("If", folds=False)
def conditional(node: Node, condition: Value) -> list[Value]:
    """One of two branches."""
    branches = [node.bodies[name] for name in ("then_branch", "else_branch")]
    if condition.array is not None:
        return branches[0 if condition.array.reshape(-1)[0] else 1]([])
    first: list[Value] = []

    def run(body: Body) -> Callable[[], list[Any]]:
        def branch() -> list[Any]:
            values = body([])
            if not first:
                first.extend(values)
            for index, (value, other) in enumerate(zip(values, first, strict=True)):
                if value.rank != other.rank or carrier(value.dtype) != carrier(other.dtype):
                    raise Unsupported(
                        f"its branches return {shown(other)} and {shown(value)} as output {index}",
                        "make the condition a constant, by fixing the input that it depends on",
                    )
            return [
                tf.identity(value.stored_as(other.order)) for value, other in zip(values, first, strict=True)
            ]

        return branch

    results = tf.cond(tf.reshape(condition.tensor, []), *map(run, branches))
    return [Value.of(result, value.dtype, value.order) for result, value in zip(results, first, strict=True)]


@operator("Loop", folds=False)
def loop(node: Node, trips: Value | None, condition: Value | None, *initial: Value) -> list[Value]:
    """A body that is run a number of times, or for as long as a condition holds.

    What the body says of going on counts even where the node is given no condition, as onnxruntime and ONNX's reference
    do it and its text does not.
    """
    body, count = node.bodies["body"], len(initial)

    def step(index: Value, go: Value, states: Sequence[Value]) -> tuple[Value, list[Value], list[Value]]:
        goes_on, *results = body([index, go, *states])
        return goes_on, results[:count], results[count:]

    go = Value.constant(True) if condition is None else condition
    return Loop(step, initial, go, trips).run()


@operator("Scan", folds=False)
def scan_batches(node: Node, lengths: Value | None, *values: Value) -> list[Value]:
    """A body that is run for all elements of sequences, of each sample of a batch on its own."""
    taken = node.attribute("num_scan_inputs")
    given = len(values) - taken
    reverse = node.attribute("directions", [0] * taken)
    batch, steps = values[given].shape[:2]
    if batch is None or steps is None:
        raise Unsupported("the size of its input is not known", "fix it with --input NAME:SHAPE")
    sizes = [steps] * batch if lengths is None else node.known(lengths, "sequence lengths")
    samples = []
    for sample, size in enumerate(sizes):
        own = [_part(value, 0, sample) for value in values]
        sequences = [_Sequence(each, 0, bool(flag)) for each, flag in zip(own[given:], reverse, strict=True)]
        results = _scanned(node.bodies["body"], own[:given], sequences, size)
        padded = [
            Value.of(tf.pad(each.tensor, [(0, steps - size), *[(0, 0)] * (each.rank - 1)]), each.dtype)
            for each in results[given:]
        ]
        samples.append([*results[:given], *padded])
    return [stacked(each) for each in zip(*samples, strict=True)]


@operator("Scan", since=9)
def scan(node: Node, *values: Value) -> list[Value]:
    """A body that is run for all elements of sequences."""
    taken = node.attribute("num_scan_inputs")
    given = len(values) - taken
    axes = node.attribute("scan_input_axes", [0] * taken)
    reverse = node.attribute("scan_input_directions", [0] * taken)
    sequences = [
        _Sequence(_led_by(value, axis % value.rank), axis % value.rank, bool(flag))
        for value, axis, flag in zip(values[given:], axes, reverse, strict=True)
    ]
    size: Any = next((each.size for each in sequences if each.size is not None), None)
    if size is None:
        size = sequences[0].computed_size()
    results = _scanned(node.bodies["body"], values[:given], sequences, size)
    outputs = results[given:]
    axes = node.attribute("scan_output_axes", [0] * len(outputs))
    reverse = node.attribute("scan_output_directions", [0] * len(outputs))
    for index, (output, axis, flag) in enumerate(zip(outputs, axes, reverse, strict=True)):
        turned = _reversed(output) if flag else output
        axis %= output.rank
        others = [each for each in range(output.rank) if each != axis]
        moves = [0 if each == axis else others.index(each) + 1 for each in range(output.rank)]
        results[given + index] = turned.transposed(moves)
    return results


def _scanned(body: Body, initial: Sequence[Value], sequences: Sequence[_Sequence], size: Any) -> list[Value]:
    going = Value.constant(True)

    def step(index: Value, _go: Value, states: Sequence[Value]) -> tuple[Value, list[Value], list[Value]]:
        results = body([*states, *(each.element(index, size) for each in sequences)])
        return going, results[: len(initial)], results[len(initial) :]

    trips = Value.constant(size, np.int64) if isinstance(size, int) else Value.of(size, np.int64)
    return Loop(step, initial, going, trips).run()


@dataclass(frozen=True)
class _Sequence:
    """A tensor whose slices along an axis are gone over, perhaps from the last to the first."""

    value: Value
    axis: int
    reverse: bool

    @property
    def size(self) -> int | None:
        return self.value.shape[self.axis]

    def computed_size(self) -> Any:
        return tf.cast(tf.shape(self.value.flat)[self.value.stored_axis(self.axis)], tf.int64)

    def element(self, index: Value, size: Any) -> Value:
        if index.array is not None:
            at = int(index.array)
            return _part(self.value, self.axis, int(size) - 1 - at if self.reverse else at)
        at = tf.cast(index.tensor, tf.int32)
        if self.reverse:
            at = tf.cast(size, tf.int32) - 1 - at
        others = tuple(each for each in self.value.order if each != self.axis)
        rows = self.value.stored_as((self.axis, *others))
        return Value.of(rows[at], self.value.dtype, _without(others, self.axis))


def _led_by(value: Value, axis: int) -> Value:
    """The value with an axis stored first: moved once here, and not at each turn."""
    return value.reordered((axis, *(each for each in value.order if each != axis)))


def _without(order: Sequence[int], axis: int) -> Order:
    return tuple(each - (each > axis) for each in order if each != axis)


def _part(value: Value, axis: int, at: int) -> Value:
    if value.array is not None:
        return Value.constant(value.array[(slice(None),) * axis + (at,)])
    part = value.flat[(slice(None),) * value.stored_axis(axis) + (at,)]
    return Value.of(part, value.dtype, _without(value.order, axis))


def _reversed(value: Value) -> Value:
    if value.array is not None:
        return Value.constant(value.array[::-1])
    return value.like(tf.reverse(value.flat, [value.stored_axis(0)]))
