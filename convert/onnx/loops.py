"""Loops: written out where that is short, else a WHILE of the device.

Results of all turns are written to a tensor whose size is the number of turns or, where that is not known before,
appended to one that grows. TensorFlow's own lists of tensors are not used: the converter makes of one a concatenation
of all that there is, at every turn.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from convert.libraries import load_library
from convert.onnx.carriers import carrier
from convert.onnx.problems import Unsupported
from convert.onnx.value import Order, Value, identity

__all__ = ["Loop", "Step", "room_for", "shown", "stacked", "written"]

tf = load_library("tensorflow")

# Turns that are written out: of any loop, of one that fails as a loop, and of one that is computed at conversion.
_UNROLLED, _UNROLLED_AT_WORST, _COMPUTED = 16, 256, 1 << 14
# Turns of a loop for which room is made even if it may end early, and elements of room that may be a constant.
_ROOM, _CONSTANT = 1 << 16, 1 << 10
_INT32 = np.iinfo(np.int32).max

# Index of the turn, whether the loop goes on, and states in; whether it goes on, states and rows of results out.
Step: TypeAlias = Callable[[Value, Value, Sequence[Value]], tuple[Value, list[Value], list[Value]]]


def shown(value: Value) -> str:
    """What a problem calls a tensor."""
    return f"a tensor of {value.rank} axes of {value.dtype.name}"


def stacked(values: Sequence[Value]) -> Value:
    """Values of one shape along a new first axis."""
    if all(value.array is not None for value in values):
        return Value.constant(np.stack([value.array for value in values if value.array is not None]))
    order = next(value.order for value in values if not value.is_constant)
    return Value.of(tf.stack([value.stored_as(order) for value in values]), values[0].dtype, _below(order))


def _below(order: Order) -> Order:
    return (0, *(axis + 1 for axis in order))


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
                f"{shown(value)}",
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
class Loop:
    """A loop, before it is decided how it is computed.

    Attributes:
        step: A turn of it.
        initial: States before the first turn.
        go: Whether the first turn is taken.
        trips: The most turns to take; None for any number.
    """

    step: Step
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
        go, states = self.go, list(self.initial)
        rows: list[list[Value]] = []
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
        return [*states, *(stacked(each) for each in zip(*rows, strict=True))]

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
        """The most turns there may be: an integer, an int32 tensor, or None for any number."""
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
    return bool(tf.executing_eagerly() or tensor.op.type == "Const")


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


def written(buffer: Any, row: Any, index: Any) -> Any:
    """The buffer with a row in the place of the one at an index.

    Args:
        buffer: Of shape (rows, ...).
        row: Of shape (...).
        index: An int32 scalar.
    """
    if tf.executing_eagerly():
        return tf.tensor_scatter_nd_update(buffer, tf.reshape(index, [1, 1]), row[None])
    # What becomes DYNAMIC_UPDATE_SLICE, which copies one row; TensorFlow has no public name for it.
    from tensorflow.compiler.tf2xla.ops import gen_xla_ops

    start = tf.stack([index, *[0] * (buffer.shape.rank - 1)])
    return gen_xla_ops.xla_dynamic_update_slice(input=buffer, update=row[None], indices=start)


def room_for(source: Any, size: int) -> Any:
    """A tensor whose last axis has another size, to be written to; what is in it is of no meaning.

    It is made of a computed tensor: the converter would write out a constant, as large as the result, into the file.
    """
    given = int(source.shape[-1])
    if given < size:
        source = tf.tile(source, [*[1] * (source.shape.rank - 1), -(-size // given)])
    return source[..., :size]
