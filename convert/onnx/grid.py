"""The real numbers that the integers of a quantised tensor stand for.

A pair of `QuantizeLinear` and `DequantizeLinear` lays a tensor on a grid. To TensorFlow's converter that is what
training for quantisation calls fake quantisation (Jacob et al. 2018, "Quantization and Training of Neural Networks for
Efficient Integer-Arithmetic-Only Inference"): it computes operators between such tensors on the integers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from convert.libraries import load_library
from edge_runtime.tensor_spec import Array

__all__ = ["FAKE_QUANTIZERS", "Grid", "is_laid"]

FAKE_QUANTIZERS = frozenset({"FakeQuantWithMinMaxArgs", "FakeQuantWithMinMaxVarsPerChannel"})

# Operators whose kernels take and give integers of one scale only; the converter refuses to mix scales here.
_ONE_SCALE = frozenset({"ConcatV2", "Maximum", "Minimum"})


@dataclass(frozen=True, eq=False)
class Grid:
    """``scale * (integer - zero_point)`` for each integer of a type of eight bits.

    Attributes:
        scale: One number, or one for each channel.
        zero_point: Of the same shape.
        dtype: int8 or uint8; in the file it is int8, with the zero point shifted.
        axis: The ONNX axis of the channels; None for one scale.
    """

    scale: Array
    zero_point: Array
    dtype: np.dtype[Any]
    axis: int | None = None

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Grid)
            and (self.dtype, self.axis) == (other.dtype, other.axis)
            and np.array_equal(self.scale, other.scale)
            and np.array_equal(self.zero_point, other.zero_point)
        )

    @property
    def is_symmetric(self) -> bool:
        """Whether zero is the integer 0 in the file."""
        return not self._shifted.any()

    @property
    def _shifted(self) -> Array:
        return self.zero_point - (128 if self.dtype == np.uint8 else 0)

    def transposed(self, permutation: Sequence[int]) -> Grid:
        """The grid of the tensor with its axes permuted."""
        axis = None if self.axis is None else list(permutation).index(self.axis)
        return Grid(self.scale, self.zero_point, self.dtype, axis)

    def real(self, integers: Array) -> Array:
        """What integers stand for."""
        shape = (
            [-1 if axis == self.axis else 1 for axis in range(integers.ndim)] if self.axis is not None else []
        )
        scale, zero_point = self.scale.reshape(shape), self.zero_point.reshape(shape)
        real: Array = (integers.astype(np.int32) - zero_point).astype(np.float32) * scale
        return real

    def laid(self, tensor: Any) -> Any:
        """Real numbers moved to the nearest of the grid, which has one scale."""
        tensorflow = load_library("tensorflow")
        low, high = (float(each) for each in self._ends(narrow=False))
        if not tensorflow.executing_eagerly():
            made = tensor.op
            if made.type == "FakeQuantWithMinMaxArgs" and _ends_of(made) == (
                np.float32(low),
                np.float32(high),
            ):
                return tensor
            if made.type in _ONE_SCALE and is_laid(tensor):
                tensor = self._parts_laid(made)
        return tensorflow.quantization.fake_quant_with_min_max_args(tensor, low, high)

    def laid_by_channel(self, tensor: Any) -> Any:
        """Constant weights whose last axis is that of the channels, as the converter knows them."""
        tensorflow = load_library("tensorflow")
        # Kernels are made for integers from -127; those with a -128 are rare, and keep it.
        narrow = bool(np.all(self._integers(tensor) > -128))
        low, high = self._ends(narrow=narrow)
        return tensorflow.quantization.fake_quant_with_min_max_vars_per_channel(
            tensor, low.astype(np.float32), high.astype(np.float32), narrow_range=narrow
        )

    def _parts_laid(self, made: Any) -> Any:
        # Rounding to a grid is monotonic: what is chosen from, or put together, may be rounded before it is.
        tensorflow = load_library("tensorflow")
        if made.type == "ConcatV2":
            *parts, axis = made.inputs
            return tensorflow.concat([self.laid(part) for part in parts], axis)
        first, second = (self.laid(each) for each in made.inputs)
        return (tensorflow.maximum if made.type == "Maximum" else tensorflow.minimum)(first, second)

    def _ends(self, *, narrow: bool) -> tuple[Array, Array]:
        limits = np.iinfo(self.dtype)
        scale, zero_point = self.scale.astype(np.float64), self.zero_point.astype(np.float64)
        return (limits.min + narrow - zero_point) * scale, (limits.max - zero_point) * scale

    def _integers(self, tensor: Any) -> Array:
        values = load_library("tensorflow").get_static_value(tensor)
        integers: Array = np.round(values / self.scale) + self._shifted
        return integers


def _ends_of(made: Any) -> tuple[np.float32, np.float32]:
    return np.float32(made.get_attr("min")), np.float32(made.get_attr("max"))


def is_laid(tensor: Any) -> bool:
    """Whether a tensor is computed from quantised ones, so that the device may compute it on integers too."""
    seen, waiting = set(), [tensor.op]
    while waiting:
        made = waiting.pop(0)
        if made.type in FAKE_QUANTIZERS:
            return True
        if made.name not in seen:
            seen.add(made.name)
            waiting.extend(each.op for each in made.inputs)
    return False
