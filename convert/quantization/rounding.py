"""GPTQ for every layer with weights: what rounding one weight loses, the weights after it make up for.

After Frantar et al., "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers" (2022). The
method in litert-quantizer 0.11 knows dense layers only, and writes wrong weights where activations are in integers.
Here the float model's weights are moved onto the grid that the quantizer will choose, so that it rounds nothing more;
that works for every precision, and biases take up what is left of the mean error (Nagel et al., 2019).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from convert.quantization.activations import read_tensors
from convert.quantization.flatbuffer import Operation, builtin_names, schema
from convert.quantization.packing import pack, unpack
from edge_runtime.tensor_spec import Array

__all__ = ["LARGEST_ROW", "Grid", "rounded"]

# Weights behind one output: the method inverts a matrix of that many rows.
LARGEST_ROW = 4096
# Places of a picture that are looked at in each sample; neighbours say the same.
_PLACES = 128
# Added to the diagonal, as a share of its mean, so that inputs that never vary do not make it singular.
_DAMPING = 0.001
_BLOCK = 64
# Fewer weights than this share left were pruned.
_PRUNED = 0.7
_ROWS = 256


@dataclass(frozen=True)
class Grid:
    """What values a layer's weights will be rounded to.

    Attributes:
        operation: The layer, an operator of the main graph.
        bits: Of a weight.
        block: How many weights of a row share a scale; 0 for all of them.
    """

    operation: Operation
    bits: int
    block: int = 0


def rounded(content: bytes, grids: Sequence[Grid], samples: Sequence[Mapping[str, Array]]) -> bytes:
    """A float model whose weights are on the grids, chosen so that what its layers compute changes least.

    Args:
        content: The float `.tflite`.
        grids: Of the layers to change; a weight that several layers share is left as it is.
        samples: Inputs of the model as it is fed in use.
    """
    model = unpack(content)
    layers = [layer for grid in grids if (layer := _Layer.find(model, grid)) is not None]
    for tensors in read_tensors(content, samples, tuple({layer.reads for layer in layers})):
        for layer in layers:
            layer.see(tensors[layer.reads])
    for layer in layers:
        layer.write(model)
    return pack(model)


class _Layer:
    """One layer: how its inputs vary together, and its weights as rows of what is multiplied with them."""

    def __init__(self, model: Any, graph: Any, operator: Any, name: str, grid: Grid):
        self.grid, self.name, self.graph, self.operator = grid, name, graph, operator
        self.reads = graph.tensors[operator.inputs[0]].name.decode()
        tensor = graph.tensors[operator.inputs[1]]
        self.buffer = model.buffers[tensor.buffer]
        self.shape = tuple(int(each) for each in tensor.shape)
        self.weights = np.frombuffer(bytes(self.buffer.data), np.float32).reshape(self.shape)
        # A depthwise convolution multiplies each channel with weights of its own.
        self.groups = self.shape[3] if name == "DEPTHWISE_CONV_2D" else 1
        row = int(np.prod(self.shape)) // (self.groups if self.groups > 1 else self.shape[0])
        self.products = np.zeros((self.groups, row, row))
        self.sums = np.zeros((self.groups, row))
        self.count = 0
        self.pending: list[Array] = []

    @classmethod
    def find(cls, model: Any, grid: Grid) -> _Layer | None:
        graph = model.subgraphs[grid.operation.graph]
        operator = graph.operators[grid.operation.index]
        name = builtin_names()[model.operatorCodes[operator.opcodeIndex].builtinCode]
        weight = graph.tensors[operator.inputs[1]]
        owners = [each for one in model.subgraphs for each in one.tensors if each.buffer == weight.buffer]
        readers = [each for each in graph.operators if operator.inputs[1] in list(each.inputs)]
        options = operator.builtinOptions
        plain = getattr(options, "dilationHFactor", 1) == getattr(options, "dilationWFactor", 1) == 1
        read = graph.tensors[operator.inputs[0]].shape
        grouped = name == "CONV_2D" and int(read[-1]) != int(weight.shape[-1])
        plain = plain and not grouped and getattr(options, "depthMultiplier", 1) <= 1
        if len(owners) > 1 or len(readers) > 1 or not plain:
            return None
        return cls(model, graph, operator, name, grid)

    def see(self, values: Array) -> None:
        """Adds one sample of what the layer reads."""
        self.pending.append(self._patches(values))
        if sum(rows.shape[1] for rows in self.pending) >= _ROWS:
            self._add()

    def _add(self) -> None:
        # One product of many rows takes far less time than many of one.
        if self.pending:
            rows = np.concatenate(self.pending, axis=1)
            self.products += rows.transpose(0, 2, 1) @ rows
            self.sums += rows.sum(axis=1, dtype=np.float64)
            self.count += rows.shape[1]
            self.pending = []

    def write(self, model: Any) -> None:
        """Rounds the weights, and moves what that does to the mean of each output into the bias."""
        self._add()
        if self.groups > 1:
            rows = self.weights.reshape(-1, self.groups).T[:, np.newaxis, :]
        else:
            rows = self.weights.reshape(1, self.shape[0], -1)
        rows = rows.astype(np.float64)
        made = self._rounded(rows)
        shift = ((rows - made) @ (self.sums / self.count)[..., np.newaxis]).reshape(-1)
        flat = made[:, 0, :].T if self.groups > 1 else made
        self.buffer.data = np.ascontiguousarray(flat, np.float32).reshape(-1).view(np.uint8)
        self._shift_bias(model, shift)

    def _rounded(self, rows: Array) -> Array:
        """Rows of weights, shape (groups, outputs, inputs), on their grid."""
        levels = 2 ** (self.grid.bits - 1) - 1
        groups, outputs, width = rows.shape
        block = self.grid.block or width
        blocks = np.abs(rows).reshape(groups, outputs, -1, block)
        scales = np.repeat(np.maximum(blocks.max(axis=3), 1e-30) / levels, block, axis=2)
        # The largest weight of a scale stays what it is: from it the quantizer reads the scale.
        fixed = np.zeros(blocks.shape, bool)
        np.put_along_axis(fixed, blocks.argmax(axis=3)[..., np.newaxis], values=True, axis=3)
        fixed = fixed.reshape(rows.shape)
        if np.count_nonzero(rows) < _PRUNED * rows.size:
            fixed |= rows == 0  # what was pruned stays pruned; the others make up for it
        moments = self.products / self.count
        diagonal = np.arange(width)
        powers = moments[:, diagonal, diagonal]
        moments[:, diagonal, diagonal] += _DAMPING * powers.mean(axis=1, keepdims=True) + 1e-12
        # Those that matter most go first, while others are left to make up for them.
        order = np.argsort(-powers, axis=1, kind="stable")
        moments = np.take_along_axis(moments, order[:, :, np.newaxis], axis=1)
        moments = np.take_along_axis(moments, order[:, np.newaxis, :], axis=2)
        upper = np.linalg.cholesky(np.linalg.inv(moments)).transpose(0, 2, 1)
        original, scale, fixed = (
            np.take_along_axis(each, order[:, np.newaxis, :], axis=2) for each in (rows, scales, fixed)
        )
        left, made = original.copy(), np.empty_like(rows)
        for start in range(0, width, _BLOCK):
            end = min(start + _BLOCK, width)
            errors = np.empty((groups, outputs, end - start))
            for place in range(start, end):
                wanted = np.where(fixed[..., place], original[..., place], left[..., place])
                step = np.clip(np.round(wanted / scale[..., place]), -levels, levels)
                made[..., place] = step * scale[..., place]
                error = (left[..., place] - made[..., place]) / upper[:, place, place, np.newaxis]
                left[..., place + 1 : end] -= (
                    error[..., np.newaxis] * upper[:, np.newaxis, place, place + 1 : end]
                )
                errors[..., place - start] = error
            left[..., end:] -= errors @ upper[:, start:end, end:]
        return np.take_along_axis(made, np.argsort(order, axis=1)[:, np.newaxis, :], axis=2)

    def _patches(self, values: Array) -> Array:
        """What the weights are multiplied with at some places, shape (groups, places, weights)."""
        if self.name == "FULLY_CONNECTED":
            return values.reshape(1, -1, self.shape[-1])
        options, (height, width) = self.operator.builtinOptions, self.shape[1:3]
        strides = (options.strideH, options.strideW)
        if options.padding == schema().Padding.SAME:
            sides = [
                max((-(-size // stride) - 1) * stride + kernel - size, 0)
                for size, stride, kernel in zip(values.shape[1:3], strides, (height, width), strict=True)
            ]
            values = np.pad(values, ((0, 0), *((side // 2, side - side // 2) for side in sides), (0, 0)))
        windows = np.lib.stride_tricks.sliding_window_view(values, (height, width), axis=(1, 2))
        windows = windows[:, :: strides[0], :: strides[1]]
        rows, columns = windows.shape[1:3]
        chosen = np.unique(np.linspace(0, rows * columns - 1, _PLACES).astype(int))
        places = windows[:, chosen // columns, chosen % columns].reshape(-1, *windows.shape[3:])
        if self.groups > 1:  # (places, channels, height, width)
            return places.reshape(len(places), self.groups, -1).transpose(1, 0, 2)
        return places.transpose(0, 2, 3, 1).reshape(1, len(places), -1)

    def _shift_bias(self, model: Any, shift: Array) -> None:
        inputs = list(self.operator.inputs)
        if len(inputs) < 3 or inputs[2] < 0:
            return
        types, old = schema(), self.graph.tensors[inputs[2]]
        data = model.buffers[old.buffer].data
        if old.type != types.TensorType.FLOAT32 or data is None:
            return
        moved = (np.frombuffer(bytes(data), np.float32) + shift).astype(np.float32).view(np.uint8)
        owners = [each for one in model.subgraphs for each in one.tensors if each.buffer == old.buffer]
        readers = [each for each in self.graph.operators if inputs[2] in list(each.inputs)]
        if len(owners) == len(readers) == 1:
            model.buffers[old.buffer].data = moved
            return
        # Layers without a bias of their own share one of zeros.
        buffer, bias = types.BufferT(), types.TensorT()
        buffer.data = moved
        model.buffers.append(buffer)
        bias.name = self.graph.tensors[self.operator.inputs[1]].name + b"/bias"
        bias.shape, bias.type, bias.buffer = old.shape, old.type, len(model.buffers) - 1
        self.graph.tensors.append(bias)
        inputs[2] = len(self.graph.tensors) - 1
        self.operator.inputs = inputs
