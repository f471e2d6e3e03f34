"""A tensor of an ONNX graph while the graph is imported, and the order in which its axes are stored.

ONNX is channels-first and a device wants channels-last. Instead of transposing before and after each convolution, a
value says in which order its axes are stored; operators that do not care pass the order on, those that name
axes translate them, and a transposition is made only where an operator needs another order than its input has. A
`Transpose` of the graph itself changes the order that is recorded, and moves nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

from convert.libraries import load_library
from convert.onnx.carriers import carrier, carry
from edge_runtime.tensor_spec import Array

__all__ = ["Order", "Value", "aligned", "channels_last", "identity"]

Order: TypeAlias = tuple[int, ...]


def identity(rank: int) -> Order:
    """The order in which axes are stored as they are named."""
    return tuple(range(rank))


def channels_last(rank: int) -> Order:
    """The order batch, spatial axes, channels."""
    return (0, *range(2, rank), 1) if rank > 2 else identity(rank)


@dataclass(eq=False)
class Value:
    """A tensor: a constant, or something that is computed on the device.

    Attributes:
        stored: The TensorFlow tensor in its carrier type; None for a constant.
        dtype: The type that the ONNX graph gives it.
        order: Stored axis ``i`` is axis ``order[i]`` of the ONNX tensor.
        array: The values of a constant, in ONNX's order and type.
        real: For the quantised values of a `QuantizeLinear`, what `DequantizeLinear` makes of them, so that a pair of
            the two reaches the device as one quantised tensor; see `convert.onnx.operators.quantization`.
    """

    stored: Any
    dtype: np.dtype[Any]
    order: Order
    array: Array | None = None
    real: Any = None
    _transposed: dict[tuple[Any, Order], Any] = field(default_factory=dict, repr=False)

    @classmethod
    def constant(cls, array: Any, dtype: Any = None) -> Value:
        """A value that is known now."""
        array = np.asarray(array, dtype=dtype)
        return cls(None, array.dtype, identity(array.ndim), array)

    @classmethod
    def of(cls, tensor: Any, dtype: Any, order: Order | None = None) -> Value:
        """A tensor that is computed; its axes are stored as they are named unless `order` says otherwise."""
        rank = tensor.shape.rank
        if rank is None:
            raise ValueError("a tensor of unknown rank")
        return cls(tensor, np.dtype(dtype), identity(rank) if order is None else order)

    def like(self, tensor: Any, dtype: Any = None) -> Value:
        """A tensor computed from this one whose axes are stored in the same order."""
        return Value.of(tensor, self.dtype if dtype is None else dtype, self.order)

    @property
    def is_constant(self) -> bool:
        """Whether its values are known now."""
        return self.array is not None

    @property
    def rank(self) -> int:
        """Number of axes."""
        return len(self.order)

    @property
    def shape(self) -> tuple[int | None, ...]:
        """Sizes of the axes in ONNX's order; None for one that is not known."""
        if self.array is not None:
            return self.array.shape
        sizes = self.stored.shape.as_list()
        return tuple(sizes[self.order.index(axis)] for axis in range(self.rank))

    @property
    def tensor(self) -> Any:
        """The tensor in ONNX's order, in its carrier type."""
        return self.stored_as(identity(self.rank))

    @property
    def flat(self) -> Any:
        """The tensor as it is stored, for an operator to which the order of axes is all the same."""
        return self.stored_as(self.order)

    def stored_as(self, order: Order) -> Any:
        """The tensor with its axes in that order; transposed where it is stored in another."""
        tensorflow = load_library("tensorflow")
        if self.array is not None:
            return tensorflow.constant(carry(np.transpose(self.array, order)))
        if order == self.order:
            return self.stored
        # What a branch or the body of a loop transposes is no tensor of the graph around it.
        key = (tensorflow.compat.v1.get_default_graph(), order)
        if key not in self._transposed:
            self._transposed[key] = self._moved(order)
        return self._transposed[key]

    def _moved(self, order: Order) -> Any:
        tensorflow = load_library("tensorflow")
        sizes = self.stored.shape.as_list()
        moves = [self.order.index(axis) for axis in order]
        kept = [axis for axis in moves if sizes[axis] != 1]
        if kept == sorted(kept) and None not in sizes:
            # Only axes of size one change places: no element moves.
            return tensorflow.reshape(self.stored, [sizes[axis] for axis in moves])
        return tensorflow.transpose(self.stored, moves)

    def stored_axis(self, axis: int) -> int:
        """Where an axis of the ONNX tensor, which may count from the end, is stored."""
        return self.order.index(axis % self.rank)

    def reordered(self, order: Order) -> Value:
        """The same tensor, stored in another order."""
        return self if self.is_constant else Value.of(self.stored_as(order), self.dtype, order)

    def transposed(self, permutation: Sequence[int]) -> Value:
        """The ONNX tensor with its axes permuted; nothing is moved."""
        if self.array is not None:
            return Value.constant(np.transpose(self.array, permutation))
        order = tuple(list(permutation).index(axis) for axis in self.order)
        real = None if self.real is None else self.real.transposed(permutation)
        return Value(self.stored, self.dtype, order, real=real)

    def cast(self, dtype: Any) -> Value:
        """The same values taken for another type whose carrier holds them; nothing is rounded or wrapped."""
        tensorflow = load_library("tensorflow")
        dtype = np.dtype(dtype)
        if self.array is not None:
            return Value.constant(self.array.astype(dtype))
        wanted = carrier(dtype)
        stored = self.stored if self.stored.dtype.name == wanted else tensorflow.cast(self.stored, wanted)
        return Value(stored, dtype, self.order)

    def ints(self) -> list[int]:
        """The elements of a constant of integers, as Python's own."""
        if self.array is None:
            raise ValueError("not a constant")
        return [int(each) for each in self.array.reshape(-1)]


def aligned(*values: Value) -> tuple[Order, list[Any]]:
    """Tensors of all values that TensorFlow broadcasts as ONNX would, and the order in which the result is stored.

    The order is that of the computed value with the most elements, so that the smaller ones are moved.
    """
    rank = max(value.rank for value in values)
    computed = [value for value in values if not value.is_constant]
    order = identity(rank)
    if computed:
        order = _widened(max(computed, key=_elements), rank).order
    return order, [_widened(value, rank).stored_as(order) for value in values]


def _elements(value: Value) -> tuple[int, int]:
    # Of sizes that are not known, the more axes there are, the larger it is likely to be.
    return (int(np.prod([size or 64 for size in value.shape])), value.rank)


def _widened(value: Value, rank: int) -> Value:
    """The value with axes of size one before its own, as broadcasting adds them."""
    added = rank - value.rank
    if not added:
        return value
    if value.array is not None:
        return Value.constant(value.array.reshape((1,) * added + value.array.shape))
    tensorflow = load_library("tensorflow")
    stored = value.stored
    sizes = stored.shape.as_list()
    if sizes.count(None) <= 1:
        stored = tensorflow.reshape(stored, [1] * added + [-1 if size is None else size for size in sizes])
    else:
        for _ in range(added):
            stored = tensorflow.expand_dims(stored, 0)
    return Value(stored, value.dtype, (*range(added), *(axis + added for axis in value.order)))
