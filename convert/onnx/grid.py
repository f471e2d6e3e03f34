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

__all__ = ["Grid", "apart", "is_laid", "is_on_grid"]

_FAKE = "FakeQuantWithMinMaxArgs"
_FAKE_QUANTIZERS = frozenset({_FAKE, "FakeQuantWithMinMaxVarsPerChannel"})

# Operators of several operands whose kernels know integers of one scale only. Where scales differ, the converter fails,
# or takes that of one operand for all.
_CHOOSING = frozenset({"ConcatV2", "Maximum", "Minimum", "PadV2", "SelectV2"})

# Operators whose result lies on the grid of their operand, and the place of that among the inputs.
_MOVING = {
    "Split": 1,
    **dict.fromkeys(
        (
            "AvgPool",
            "BroadcastTo",
            "DepthToSpace",
            "ExpandDims",
            "GatherNd",
            "GatherV2",
            "Identity",
            "MaxPool",
            "MirrorPad",
            "Pad",
            "PadV2",
            "Reshape",
            "ResizeBilinear",
            "ResizeNearestNeighbor",
            "ReverseV2",
            "Slice",
            "SpaceToDepth",
            "SplitV",
            "Squeeze",
            "StridedSlice",
            "Tile",
            "Transpose",
        ),
        0,
    ),
}

# Operators into whose kernels a rectifier goes for nothing.
_ACTIVATED = frozenset({"AddV2", "BiasAdd", "Conv2D", "DepthwiseConv2dNative", "MatMul", "Mul", "Sub"})

# The converter takes a slope of one out.
_SLOPE = np.nextafter(np.float32(1), np.float32(0))


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
        ends = tuple(np.float32(each) for each in self._ends(narrow=False))
        if not tensorflow.executing_eagerly():
            made = tensor.op
            if made.type == _FAKE and _ends_of(made) == ends:
                return tensor
            tensor = self._prepared(tensor)
        return tensorflow.quantization.fake_quant_with_min_max_args(tensor, float(ends[0]), float(ends[1]))

    def _prepared(self, tensor: Any) -> Any:
        """The tensor in a form whose rounding to this grid the converter keeps."""
        tensorflow = load_library("tensorflow")
        made = tensor.op
        if made.type in _CHOOSING and any(_source(_together(each)) is not None for each in made.inputs):
            return self._parts_laid(made)
        source = _source(tensor)
        if source is not None:
            return (
                tensor
                if _ends_of(source) == tuple(map(np.float32, self._ends(narrow=False)))
                else apart(tensor)
            )
        low, high = (float(each) for each in self._ends(narrow=False))
        if low == 0.0 and made.type in _ACTIVATED:
            # Quantisers drop a rectifier before a grid without negative numbers; a wider one may follow.
            return tensorflow.nn.relu6(tensor) if abs(high - 6.0) < 1e-3 else tensorflow.nn.relu(tensor)
        return tensor

    def _parts_laid(self, made: Any) -> Any:
        # Rounding is monotonic: what is chosen from, or put together, may be rounded before it is.
        raw = load_library("tensorflow").raw_ops
        first, second, *others = made.inputs
        if made.type == "ConcatV2":
            *parts, axis = made.inputs
            return raw.ConcatV2(values=[self.laid(_together(part)) for part in parts], axis=axis)
        if made.type == "SelectV2":
            chosen = [self.laid(_together(each)) for each in (second, *others)]
            return raw.SelectV2(condition=first, t=chosen[0], e=chosen[1])
        if made.type == "PadV2":
            fill = self.laid(others[0])
            return raw.PadV2(input=self.laid(_together(first)), paddings=second, constant_values=fill)
        choose = raw.Maximum if made.type == "Maximum" else raw.Minimum
        return choose(x=self.laid(_together(first)), y=self.laid(_together(second)))

    def laid_by_channel(self, tensor: Any) -> Any:
        """Constant weights whose last axis is that of the channels, as the converter knows them."""
        tensorflow = load_library("tensorflow")
        # Kernels are made for integers from -127; those with a -128 are rare, and keep it.
        narrow = bool(np.all(self._integers(tensor) > -128))
        low, high = self._ends(narrow=narrow)
        return tensorflow.quantization.fake_quant_with_min_max_vars_per_channel(
            tensor, low.astype(np.float32), high.astype(np.float32), narrow_range=narrow
        )

    def _ends(self, *, narrow: bool) -> tuple[Array, Array]:
        limits = np.iinfo(self.dtype)
        scale, zero_point = self.scale.astype(np.float64), self.zero_point.astype(np.float64)
        return (limits.min + narrow - zero_point) * scale, (limits.max - zero_point) * scale

    def _integers(self, tensor: Any) -> Array:
        values = load_library("tensorflow").get_static_value(tensor)
        integers: Array = np.round(values / self.scale) + self._shifted
        return integers


def apart(tensor: Any) -> Any:
    """The same numbers behind an operator that takes integers of one scale and gives those of another, or real ones.

    From one grid to the next, the converter drops one of the two, with the bounds that it has, or spreads a grid over
    real numbers beside it. A leaky rectifier whose slope is one but for the last place keeps them apart; on integers
    it costs no more than the operator that only changes scales.
    """
    return load_library("tensorflow").nn.leaky_relu(tensor, float(_SLOPE))


def _together(tensor: Any) -> Any:
    made = tensor.op
    if made.type == "LeakyRelu" and np.float32(made.get_attr("alpha")) == _SLOPE:
        return made.inputs[0]
    return tensor


def is_on_grid(tensor: Any) -> bool:
    """Whether a tensor lies on a grid that the converter knows."""
    return not load_library("tensorflow").executing_eagerly() and _source(tensor) is not None


def _source(tensor: Any) -> Any:
    """The operator that laid a tensor on its grid; None if there is none."""
    made = tensor.op
    while made.type in _MOVING:
        made = made.inputs[_MOVING[made.type]].op
    return made if made.type == _FAKE else None


def _ends_of(made: Any) -> tuple[np.float32, np.float32]:
    return np.float32(made.get_attr("min")), np.float32(made.get_attr("max"))


def is_laid(tensor: Any) -> bool:
    """Whether a tensor is computed from quantised ones, so that the device may compute it on integers too."""
    seen, waiting = set(), [tensor.op]
    while waiting:
        made = waiting.pop(0)
        if made.type in _FAKE_QUANTIZERS:
            return True
        if made.name not in seen:
            seen.add(made.name)
            waiting.extend(each.op for each in made.inputs)
    return False
