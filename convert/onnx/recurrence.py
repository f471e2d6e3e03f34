"""How the steps of a recurrent layer are gone over on a device.

What the inputs contribute is one product for all steps; what is left of a step is the product with the state. Few steps
of a small layer are written out one after the other, which is fastest; more of them are a loop whose body has a few
steps. Each product of the body has a copy of the matrix that the kernels packed for themselves, so that their number
is bounded by what a processor's cache holds. The loop copies what it goes over at each turn: a long sequence is a loop
over pieces, each gone over by a loop of its own.

TFLite's own sequence kernels keep their state from run to run and are not used; see `convert.sources.kept_state`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from convert.libraries import load_library
from convert.onnx.loops import room_for, written

__all__ = ["Cell", "Layer"]

tf = load_library("tensorflow")

# Bytes of the matrices that are multiplied with the state, copies of all steps in one graph together.
_CACHE = 1 << 20
# Steps that are written out, in place of a loop and in the body of one.
_UNROLLED, _IN_BODY = 32, 4
# The longest sequence that one loop goes over.
_LOOPED = 256

# What the input contributes to one step (batch, gates * hidden), and states (batch, hidden) before it: those after it.
Cell: TypeAlias = Callable[[Any, Sequence[Any]], list[Any]]
# A sequence, which of its steps are there, and states: outputs and states.
_Over: TypeAlias = Callable[[Any, Any, Sequence[Any]], tuple[Any, list[Any]]]


@dataclass(frozen=True)
class Layer:
    """What goes over a sequence.

    Attributes:
        cell: One step.
        project: What an input (steps, batch, inputs) contributes to the steps.
        hidden: Number of units.
        bytes: Of the matrices that are multiplied with the state.
    """

    cell: Cell
    project: Callable[[Any], Any]
    hidden: int
    bytes: int

    def over(self, x: Any, mask: Any, states: Sequence[Any]) -> tuple[Any, list[Any]]:
        """Outputs (steps, batch, hidden) of a sequence, and the states after it.

        Args:
            x: The sequence (steps, batch, inputs).
            mask: Which steps are there, (steps, batch, 1); None for all.
            states: Those before it.
        """
        steps = x.shape[0]
        if steps is None:
            return self._looped(self.project(x), mask, states, 1, self._steps)
        if tf.executing_eagerly() or (steps <= _UNROLLED and steps * self.bytes <= _CACHE) or steps <= 1:
            return self._steps(self.project(x), mask, states)
        at_once = max(min(_IN_BODY, _CACHE // self.bytes), 1)
        if steps <= _LOOPED:
            return self._looped(self.project(x), mask, states, at_once, self._steps)
        return self._looped(x, mask, states, at_once * -(-2 * math.isqrt(steps) // at_once), self.over)

    def _steps(self, given: Any, mask: Any, states: Sequence[Any]) -> tuple[Any, list[Any]]:
        """Steps that are written out."""
        outputs, states = [], list(states)
        masks = [None] * given.shape[0] if mask is None else tf.unstack(mask)
        for each, there in zip(tf.unstack(given), masks, strict=True):
            new = self.cell(each, states)
            outputs.append(new[0] if there is None else tf.where(there, new[0], tf.zeros_like(new[0])))
            if there is not None:
                new = [tf.where(there, after, before) for after, before in zip(new, states, strict=True)]
            states = new
        return tf.stack(outputs), states

    def _looped(
        self, x: Any, mask: Any, states: Sequence[Any], length: int, over: _Over
    ) -> tuple[Any, list[Any]]:
        """A loop over pieces of so many steps; what is left over of the sequence comes after it."""
        steps = x.shape[0]
        turns = tf.shape(x)[0] if steps is None else steps // length
        rest = 0 if steps is None else steps % length
        pieces = _pieces(x, length)
        masks = None if mask is None else _pieces(mask, length)
        room = room_for(pieces, self.hidden)

        def turn(index: Any, room: Any, *states: Any) -> Any:
            part, there = pieces[index], None if masks is None else masks[index]
            if length == 1:
                part, there = part[None], None if there is None else there[None]
            outputs, after = over(part, there, states)
            return index + 1, written(room, outputs if length > 1 else outputs[0], index), *after

        _, outputs, *after = tf.while_loop(lambda index, *_: index < turns, turn, [0, room, *states])
        outputs = _joined(outputs, length)
        if not rest:
            return outputs, after
        last, after = over(x[-rest:], None if mask is None else mask[-rest:], after)
        return tf.concat([outputs, last], 0), after


def _pieces(tensor: Any, length: int) -> Any:
    """As many whole pieces as there are, (pieces, length, batch, ...); the steps themselves for a length of one."""
    if length == 1:
        return tensor
    steps, batch, size = tensor.shape
    whole = tensor if steps % length == 0 else tensor[: steps - steps % length]
    return tf.reshape(whole, [steps // length, length, -1 if batch is None else batch, size])


def _joined(tensor: Any, length: int) -> Any:
    if length == 1:
        return tensor
    pieces, _, batch, size = tensor.shape
    return tf.reshape(tensor, [pieces * length, -1 if batch is None else batch, size])
