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
from convert.onnx.affine import Affine
from convert.onnx.carriers import carrier, carry
from convert.onnx.grid import Grid
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
        grid: For a constant of real numbers that came quantised, where its values lie, so that the device holds them
            as integers; for quantised values, what their integers stand for.
        real: The numbers that quantised values stand for; see `convert.onnx.quantized`.
        elements: Of integers that are partly known, numbers and scalar tensors; see `convert.onnx.partial_shapes`.
        affine: What it is a scale and shift of, for a convolution to take instead; see `convert.onnx.affine`.
    """

    stored: Any
    dtype: np.dtype[Any]
    order: Order
    array: Array | None = None
    grid: Grid | None = None
    real: Value | None = None
    affine: Affine | None = None
    elements: Array | None = None
    _transposed: dict[tuple[Any, Order], Any] = field(default_factory=dict, repr=False)

    @classmethod
    def constant(cls, array: Any, dtype: Any = None, *, grid: Grid | None = None) -> Value:
        """A value that is known now."""
        array = np.asarray(array, dtype=dtype)
        return cls(None, array.dtype, identity(array.ndim), array, grid)

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
            return tuple(self.array.shape)
        sizes: list[int | None] = self.stored.shape.as_list()
        return tuple(sizes[self.order.index(axis)] for axis in range(self.rank))

    @property
    def plain(self) -> Value:
        """The same value, of which the device is to know no grid."""
        return self if self.array is None else Value.constant(self.array)

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
            constant = tensorflow.constant(carry(np.transpose(self.array, order)))
            if self.grid is not None and self.real is None and self.grid.axis is None:
                return self.grid.laid(constant)
            return constant
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

    def weights_as(
        self, order: Order, sizes: Sequence[int | None] | None = None, *, symmetric: bool = True
    ) -> Any:
        """The tensor for an operator that multiplies by it, as integers in the file where it came quantised.

        Args:
            order: In which the axes are wanted, that of the outputs last.
            sizes: Another shape with the same last axis, which must be given here: the converter loses the scales
                of channels in what comes after.
            symmetric: Whether the operator's kernels know no zero point of weights.
        """
        array, grid = self.array, self.grid
        kept = grid is not None and (grid.is_symmetric or not (symmetric or grid.axis is not None))
        if array is None or grid is None or not kept:
            tensor = self.plain.stored_as(order)
            return tensor if sizes is None else load_library("tensorflow").reshape(tensor, sizes)
        array = carry(np.transpose(array, order))
        if sizes is not None:
            array = array.reshape([-1 if size is None else size for size in sizes])
        constant = load_library("tensorflow").constant(array)
        if grid.axis is None:
            return grid.laid(constant)
        return grid.laid_by_channel(constant) if grid.axis == order[-1] else constant

    def stored_axis(self, axis: int) -> int:
        """Where an axis of the ONNX tensor, which may count from the end, is stored."""
        return self.order.index(axis % self.rank)

    def reordered(self, order: Order) -> Value:
        """The same tensor, stored in another order."""
        return self if self.is_constant else Value.of(self.stored_as(order), self.dtype, order)

    def transposed(self, permutation: Sequence[int]) -> Value:
        """The ONNX tensor with its axes permuted; nothing is moved."""
        if self.array is not None:
            grid = None if self.grid is None else self.grid.transposed(permutation)
            return Value.constant(np.transpose(self.array, permutation), grid=grid)
        order = tuple(list(permutation).index(axis) for axis in self.order)
        return Value(self.stored, self.dtype, order)

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
    single = any(value.rank == rank for value in computed)
    return order, [
        _scalar(value) if single and _is_single(value) else _widened(value, rank).stored_as(order)
        for value in values
    ]


def _is_single(value: Value) -> bool:
    return value.array is not None and value.array.size == 1


def _scalar(value: Value) -> Any:
    # Without axes the converter knows it again, in activations such as hard-swish.
    tensorflow = load_library("tensorflow")
    return tensorflow.constant(carry(np.asarray(value.array).reshape(())))


def _elements(value: Value) -> tuple[int, int]:
    # Of sizes that are not known, the more axes there are, the larger it is likely to be.
    return (int(np.prod([size or 64 for size in value.shape])), value.rank)


def _widened(value: Value, rank: int) -> Value:
    """The value with axes of size one before its own, as broadcasting adds them."""
    added = rank - value.rank
    if not added:
        return value
    if value.array is not None:
        grid = value.grid if value.grid is not None and value.grid.axis is None else None
        return Value.constant(value.array.reshape((1,) * added + value.array.shape), grid=grid)
    tensorflow = load_library("tensorflow")
    stored = value.stored
    sizes = stored.shape.as_list()
    if sizes.count(None) <= 1:
        stored = tensorflow.reshape(stored, [1] * added + [-1 if size is None else size for size in sizes])
    else:
        for _ in range(added):
            stored = tensorflow.expand_dims(stored, 0)
    return Value(stored, value.dtype, (*range(added), *(axis + added for axis in value.order)))
