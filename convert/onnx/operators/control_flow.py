"""Branches and loops.

What is known at conversion is decided then: a branch is put in place of the If, a short loop is written out. The rest
becomes TFLite's IF and WHILE. Results of all turns of a loop ("scan outputs") are written to a tensor whose size is the
number of turns, or, where that is not known before, appended to one that grows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from convert.libraries import load_library
from convert.onnx.carriers import carrier
from convert.onnx.loops import written
from convert.onnx.node import Body, Node
from convert.onnx.problems import Unsupported
from convert.onnx.registry import operator
from convert.onnx.value import Order, Value, identity

__all__: list[str] = []

tf = load_library("tensorflow")

# Turns that are written out: of any loop, of one that fails as a loop, and of one that is computed at conversion.
_UNROLLED, _UNROLLED_AT_WORST, _COMPUTED = 16, 256, 1 << 14
# Turns of a loop for which room is made even if it may end early, and elements of room that may be a constant.
_ROOM, _CONSTANT = 1 << 16, 1 << 10
_INT32 = np.iinfo(np.int32).max

# Index of the turn, whether the loop goes on, and states in; whether it goes on, states and rows of results out.
_Step: TypeAlias = Callable[[Value, Value, Sequence[Value]], tuple[Value, list[Value], list[Value]]]


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
                        f"its branches return {_shown(other)} and {_shown(value)} as output {index}",
                        "make the condition a constant, by fixing the input that it depends on",
                    )
            return [
                tf.identity(value.stored_as(other.order)) for value, other in zip(values, first, strict=True)
            ]

        return branch

    results = tf.cond(tf.reshape(condition.tensor, []), *map(run, branches))
    return [Value.of(result, value.dtype, value.order) for result, value in zip(results, first, strict=True)]


def _shown(value: Value) -> str:
    return f"a tensor of {value.rank} axes of {value.dtype.name}"


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
    return _Loop(step, initial, go, trips).run()


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
    return [_stacked(each) for each in zip(*samples, strict=True)]


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
    return _Loop(step, initial, going, trips).run()


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


def _stacked(values: Sequence[Value]) -> Value:
    """Values of one shape along a new first axis."""
    if all(value.array is not None for value in values):
        return Value.constant(np.stack([value.array for value in values if value.array is not None]))
    order = next(value.order for value in values if not value.is_constant)
    return Value.of(tf.stack([value.stored_as(order) for value in values]), values[0].dtype, _below(order))


def _below(order: Order) -> Order:
    return (0, *(axis + 1 for axis in order))


def _reversed(value: Value) -> Value:
    if value.array is not None:
        return Value.constant(value.array[::-1])
    return value.like(tf.reverse(value.flat, [value.stored_axis(0)]))


@dataclass(frozen=True)
class _Kind:
    """What stays the same of a tensor from turn to turn; `shape` is as it is stored."""

    dtype: np.dtype[Any]
    order: Order
    shape: tuple[int | None, ...]

    @classmethod
    def of(cls, value: Value) -> _Kind:
        return cls(value.dtype, value.order, tuple(value.shape[axis] for axis in value.order))

    def merged(self, value: Value, *, follows: bool) -> _Kind:
        """The kind that holds both; in the order of the other one where it `follows`."""
        if value.rank != len(self.order) or carrier(value.dtype) != carrier(self.dtype):
            raise Unsupported(
                f"a state that begins as a tensor of {len(self.order)} axes of {self.dtype.name} and becomes "
                f"{_shown(value)}",
                "make the number of turns a constant of at most 16",
            )
        order = value.order if follows and not value.is_constant else self.order
        mine = dict(zip(self.order, self.shape, strict=True))
        shape = tuple(mine[axis] if mine[axis] == value.shape[axis] else None for axis in order)
        return _Kind(self.dtype, order, shape)

    @property
    def spec(self) -> Any:
        return tf.TensorSpec(self.shape, carrier(self.dtype))

    def value(self, tensor: Any) -> Value:
        return Value.of(tensor, self.dtype, self.order)


@dataclass(frozen=True)
class _Loop:
    """A loop, before it is decided how it is computed."""

    step: _Step
    initial: Sequence[Value]
    go: Value
    trips: Value | None

    @property
    def most(self) -> int | None:
        """The largest number of turns, where there is one."""
        if self.trips is None or self.trips.array is None:
            return None
        most = int(self.trips.array.reshape(-1)[0])
        return None if most > _INT32 else max(most, 0)

    def run(self) -> list[Value]:
        """States after the last turn, then the rows of all turns."""
        known = self.go.array is not None and (self.trips is None or self.trips.array is not None)
        if known:
            constant = all(value.is_constant for value in self.initial)
            short = self.most is not None and self.most <= _UNROLLED
            if (short or constant or self.most is None) and (
                done := self._written_out(_UNROLLED)
            ) is not None:
                return done
        try:
            return self._looped()
        except Unsupported:
            if known and self.most is not None and self.most <= _UNROLLED_AT_WORST:
                done = self._written_out(_UNROLLED_AT_WORST)
                if done is not None:
                    return done
            raise

    def _written_out(self, limit: int) -> list[Value] | None:
        """Turn after turn; None where that takes too many, or depends on what the device computes."""
        go, states, rows = self.go, list(self.initial), []
        while (self.most is None or len(rows) < self.most) and go.array is not None and go.array.all():
            all_known = all(value.is_constant for value in (*states, *(rows[-1] if rows else ())))
            if len(rows) >= (_COMPUTED if all_known else limit):
                return None
            go, states, row = self.step(Value.constant(np.int64(len(rows))), Value.constant(True), states)
            rows.append(row)
        if go.array is None and (self.most is None or len(rows) < self.most):
            return None
        if not rows:
            _, kinds, _, _ = self._traced()
            none = [Value.constant(np.zeros((0, *_in_order(kind)), kind.dtype)) for kind in kinds]
            return [*states, *none]
        return [*states, *(_stacked(each) for each in zip(*rows, strict=True))]

    def _traced(self) -> tuple[list[_Kind], list[_Kind], bool, Any]:
        """Kinds of states and rows, whether the loop may end before its last turn, and what its body reads."""
        kinds = [_Kind.of(value) for value in self.initial]
        for attempt in range(8):
            found: list[Any] = []

            def run(index: Any, go: Any, *tensors: Any) -> Any:
                states = [kind.value(tensor) for kind, tensor in zip(kinds, tensors, strict=True)]  # noqa: B023
                found.append((*self.step(Value.of(index, np.int64), Value.of(go, np.bool_), states), go))  # noqa: B023
                goes_on, states, rows, _ = found[-1]  # noqa: B023
                return [tf.identity(value.flat) for value in (goes_on, *states, *rows)]

            function = tf.function(run, autograph=False).get_concrete_function(
                tf.TensorSpec([], tf.int64), tf.TensorSpec([], tf.bool), *(kind.spec for kind in kinds)
            )
            goes_on, states, rows, _ = found[-1]
            merged = [
                kind.merged(value, follows=not attempt) for kind, value in zip(kinds, states, strict=True)
            ]
            if merged == kinds:
                handed_on = goes_on.stored is not None and goes_on.stored is found[-1][3]
                ends = not handed_on and (goes_on.array is None or not goes_on.array.all())
                return kinds, [_Kind.of(row) for row in rows], ends, function.captured_inputs
            kinds = merged
        raise Unsupported(
            "states whose sizes do not settle", "make the number of turns a constant of at most 16"
        )

    def _looped(self) -> list[Value]:
        kinds, rows, ends, captured = self._traced()
        states = [value.stored_as(kind.order) for value, kind in zip(self.initial, kinds, strict=True)]
        go = tf.reshape(self.go.tensor, [])
        limit = self._limit(go, ends)
        if limit is None and not ends:
            raise Unsupported(
                "nothing that its body computes ends it",
                "give it a number of turns, or a condition that changes",
            )
        bounded = limit is not None and (not ends or (isinstance(limit, int) and limit <= _ROOM))
        computed = [each for each in (*states, *captured) if not _is_constant(each)]
        rooms = [_Room.of(kind, limit if bounded else None, computed) for kind in rows]
        begun = [tensor for room in rooms for tensor in room.begun]

        def goes_on(index: Any, go: Any, *_: Any) -> Any:
            within = tf.constant(True) if limit is None else index < limit
            return (go if limit is None else tf.logical_and(within, go)) if ends else within

        def turn(index: Any, go: Any, *tensors: Any) -> Any:
            before = [kind.value(tensor) for kind, tensor in zip(kinds, tensors, strict=False)]
            turn_index = Value.of(tf.cast(index, tf.int64), np.int64)
            going, after, made = self.step(turn_index, Value.of(go, np.bool_), before)
            new = [value.stored_as(kind.order) for value, kind in zip(after, kinds, strict=True)]
            filled: list[Any] = []
            for room, row in zip(rooms, made, strict=True):
                own = tensors[len(kinds) + len(filled) :][: len(room.begun)]
                filled.extend(room.filled(own, row.stored_as(room.kind.order), index))
            return index + 1, tf.reshape(going.tensor, []), *new, *filled

        shapes = [
            (),
            (),
            *(kind.shape for kind in kinds),
            *(shape for room in rooms for shape in room.shapes),
        ]
        turns, _, *results = tf.while_loop(
            goes_on,
            turn,
            [0, go, *states, *begun],
            shape_invariants=[tf.TensorShape(each) for each in shapes],
        )
        outputs = [kind.value(tensor) for kind, tensor in zip(kinds, results, strict=False)]
        used = len(kinds)
        for room in rooms:
            own = results[used : used + len(room.begun)]
            used += len(room.begun)
            tensor = room.result(own, turns, whole=not ends and isinstance(limit, int))
            outputs.append(Value.of(tensor, room.kind.dtype, _below(room.kind.order)))
        return outputs

    def _limit(self, go: Any, ends: bool) -> Any:
        """The number of turns, where nothing else ends the loop: an integer, an int32 tensor, or None for any number."""
        if self.trips is None:
            return None
        if self.trips.array is not None and (self.most is None or self.go.array is not None or ends):
            return self.most
        limit = tf.cast(tf.minimum(tf.reshape(self.trips.tensor, []), np.int64(_INT32)), tf.int32)
        # Whether it begins at all is then known before the first turn.
        return limit if ends or self.go.array is not None else tf.where(go, limit, 0)


@dataclass(frozen=True)
class _Room:
    """Where the rows of all turns are put.

    Attributes:
        kind: Of a row.
        begun: Tensors before the first turn: the room; or rows that were appended to one another, of which the first is
            of no meaning, for no tensor of a loop may be empty; with the sizes of a row where these are not known.
        fixed: Whether there is room for all rows from the beginning.
    """

    kind: _Kind
    begun: tuple[Any, ...]
    fixed: bool

    @classmethod
    def of(cls, kind: _Kind, turns: Any, computed: Sequence[Any]) -> _Room:
        if None in kind.shape:
            sizes = tf.zeros([len(kind.shape)], tf.int32)
            return cls(kind, (tf.zeros([1], carrier(kind.dtype)), sizes), False)
        if turns is None:
            return cls(kind, (tf.zeros([1, *kind.shape], carrier(kind.dtype)),), False)
        return cls(kind, (_filled(kind, turns, computed),), True)

    @property
    def shapes(self) -> list[Any]:
        """Those of its tensors at any turn."""
        if self.fixed:
            return [self.begun[0].shape]
        if len(self.begun) == 2:
            return [(None,), self.begun[1].shape]
        return [(None, *self.kind.shape)]

    def filled(self, tensors: Sequence[Any], row: Any, index: Any) -> list[Any]:
        """The tensors with one row more."""
        if self.fixed:
            return [written(tensors[0], row, index)]
        if len(self.begun) == 2:
            return [tf.concat([tensors[0], tf.reshape(row, [-1])], 0), tf.shape(row)]
        return [tf.concat([tensors[0], row[None]], 0)]

    def result(self, tensors: Sequence[Any], turns: Any, *, whole: bool) -> Any:
        """The rows of so many turns, for which all the room was used if it is the `whole`."""
        if self.fixed:
            return tensors[0] if whole else tensors[0][:turns]
        if len(self.begun) == 2:
            sizes = tf.concat([tf.reshape(turns, [1]), tensors[1]], 0)
            return tf.reshape(tensors[0][1:], sizes)
        return tensors[0][1:]


def _in_order(kind: _Kind) -> list[int]:
    """The sizes in ONNX's order."""
    return [kind.shape[kind.order.index(axis)] or 0 for axis in identity(len(kind.order))]


def _is_constant(tensor: Any) -> bool:
    return tf.executing_eagerly() or tensor.op.type == "Const"


def _filled(kind: _Kind, turns: Any, computed: Sequence[Any]) -> Any:
    """A tensor to which as many rows of a kind are written.

    It is filled with an element of a computed tensor, of no meaning: the converter would write out a constant, as large
    as it is, into the file.
    """
    dtype = carrier(kind.dtype)
    if not isinstance(turns, int):
        # Room for one at least: the body is prepared for what it would write even if no turn is taken.
        return tf.fill(tf.stack([tf.maximum(turns, 1), *kind.shape]), tf.zeros((), dtype))
    sizes = [turns, *(int(size or 0) for size in kind.shape)]
    for tensor in computed if int(np.prod(sizes)) > _CONSTANT else ():
        if tensor.dtype.name in ("float32", "int32", "int64", "bool") and tensor.shape.num_elements():
            element = tf.reshape(tensor, [-1])[0]
            filling = tf.cast(element, dtype) if element.dtype.name != dtype else element
            return tf.broadcast_to(filling, sizes)
    return tf.zeros(sizes, dtype)
