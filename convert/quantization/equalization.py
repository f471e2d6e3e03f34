"""Channels of one tensor brought to like ranges, so that one scale for all of them serves each.

An int8 activation has one scale for all of its channels, set by the widest; a channel a tenth as wide keeps a tenth
of the steps. Where a channel passes only through operators that scale with what they read (a rectifier, a sum, a pool),
it can be divided by any positive number and multiplied by it again in the weights that read it: the float model
computes the same, and int8 loses less. After Nagel et al., "Data-free quantization through weight equalization and bias
correction" (2019), extended from neighbouring layers to every channel of the graph, residual sums and concatenations
included; between activations and the weights that read them the burden is shared as in Xiao et al., "SmoothQuant"
(2023).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from convert.quantization.activations import read_tensors
from convert.quantization.flatbuffer import builtin_names, schema
from convert.quantization.packing import pack, unpack
from edge_runtime.tensor_spec import Array

__all__ = ["equalized"]

# How much of the difference between channels is taken from activations; weights that read them share the burden, and
# what is left is room for values that no sample showed.
_SHARE = 0.7
# No channel is widened more than as if it were so wide, beside the widest of its tensor.
_NARROWEST = 0.02
# One that hardly any sample used may be as wide as any in use, and is left as it is.
_UNUSED = 1e-3


def equalized(content: bytes, samples: Sequence[Mapping[str, Array]]) -> bytes:
    """A float model that computes the same up to rounding, with channels of like ranges.

    Args:
        content: The float `.tflite`.
        samples: Inputs of the model as it is fed in use.

    Returns:
        The changed file; `content` itself where no channel can be changed.
    """
    model = unpack(content)
    channels = _Channels(model)
    for operator in channels.graph.operators:
        channels.see(operator)
    if not channels.layers:
        return content
    factors = channels.factors(_widths(content, samples, channels.free()))
    if np.allclose(factors, 1.0):
        return content
    channels.scale(factors)
    return pack(model)


def _widths(content: bytes, samples: Sequence[Mapping[str, Array]], names: Sequence[str]) -> dict[str, Array]:
    """Largest magnitude of each channel of each tensor."""
    widths: dict[str, Array] = {}
    for tensors in read_tensors(content, samples, names):
        for name, values in tensors.items():
            largest = np.abs(values.reshape(-1, values.shape[-1] if values.ndim else 1)).max(
                axis=0, initial=0.0
            )
            widths[name] = np.maximum(widths[name], largest) if name in widths else largest
    return widths


@dataclass(frozen=True)
class _Step:
    """An operator, its name, and the tensors that it reads and makes."""

    operator: Any
    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


@dataclass(frozen=True)
class _Layer:
    """An operator whose weights take up a change of what it reads, and make one of what it gives.

    Attributes:
        operator: In the file.
        weight: Position of its weights among its inputs.
        bias: Position of its bias; it may have none.
        reads: For each weight the channel it reads, as a node, in the weights' shape or one that broadcasts to it.
        gives: Likewise the channel it gives.
        outputs: Channels it gives, in the order of the bias.
        alone: Whether each output reads a single channel, so that a factor moves the scale of the channel alone.
    """

    operator: Any
    weight: int
    bias: int
    reads: Array
    gives: Array
    outputs: Array
    alone: bool


@dataclass
class _Channels:
    """Every channel of every tensor of the main graph as a node; nodes that must be scaled alike are joined."""

    model: Any
    layers: list[_Layer] = field(default_factory=list)
    constants: list[tuple[int, Array]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.graph = self.model.subgraphs[0]
        self.first: dict[int, int] = {}
        self.parents: list[int] = []
        self.pinned: set[int] = set()
        self._names = [
            builtin_names()[max(code.builtinCode, code.deprecatedBuiltinCode)]
            for code in self.model.operatorCodes
        ]
        self._readers = Counter(
            int(index) for operator in self.graph.operators for index in operator.inputs if index >= 0
        )
        self._owners = Counter(tensor.buffer for graph in self.model.subgraphs for tensor in graph.tensors)
        for index in (*self.graph.inputs, *self.graph.outputs):
            self._pin(int(index))

    def name(self, index: int) -> str:
        return str((self.graph.tensors[index].name or b"").decode())

    # What operators ask of channels.

    def see(self, operator: Any) -> None:
        """Joins the channels that an operator scales alike, and pins those that it does not scale with."""
        step = _Step(
            operator,
            self._names[operator.opcodeIndex],
            tuple(int(index) for index in operator.inputs if index >= 0),
            tuple(int(index) for index in operator.outputs),
        )
        rule = _RULES.get(step.name)
        fused = getattr(operator.builtinOptions, "fusedActivationFunction", 0)
        scales = fused in (schema().ActivationFunctionType.NONE, schema().ActivationFunctionType.RELU)
        floats = all(map(self._is_float, step.outputs))
        followed = rule is not None and floats and (scales or step.name in _WEIGHTED) and rule(self, step)
        for index in (*(() if followed else step.inputs), *(() if followed and scales else step.outputs)):
            self._pin(index)

    def _alike(self, step: _Step) -> bool:
        """Operators that treat every channel alike and for itself: rectifiers, pools, resizing."""
        computed = [index for index in step.inputs if self._data(index) is None]
        size = self._size(step.outputs[0])
        if not computed or any(not self._is_float(index) or self._size(index) != size for index in computed):
            return False
        for index in computed:
            self._join(self._nodes(index), self._nodes(step.outputs[0]))
        return True

    def _sum(self, step: _Step) -> bool:
        size = self._size(step.outputs[0])
        constants = [index for index in step.inputs if self._data(index) is not None]
        if any(not self._is_own(index) or self._size(index) != size for index in constants):
            return False
        if not self._alike(step):
            return False
        self.constants += [(index, self._nodes(step.outputs[0])) for index in constants]
        return True

    def _product(self, step: _Step) -> bool:
        constants = [index for index in step.inputs if self._data(index) is not None]
        return len(constants) == 1 and self._alike(step)

    def _mean(self, step: _Step) -> bool:
        axes, rank = self._data(step.inputs[1]), len(self.graph.tensors[step.inputs[0]].shape)
        if axes is None or any(int(axis) % rank == rank - 1 for axis in axes.view(np.int32)):
            return False
        return self._alike(step)

    def _pad(self, step: _Step) -> bool:
        paddings = self._data(step.inputs[1])
        if paddings is None or self.graph.tensors[step.inputs[1]].type != schema().TensorType.INT32:
            return False
        before = int(paddings.view(np.int32).reshape(-1, 2)[-1, 0])
        read, given = self._nodes(step.inputs[0]), self._nodes(step.outputs[0])
        self._join(read, given[before : before + len(read)])
        return True

    def _reshape(self, step: _Step) -> bool:
        read, given = self._nodes(step.inputs[0]), self._nodes(step.outputs[0])
        if len(given) % len(read):
            return False
        self._join(np.tile(read, len(given) // len(read)), given)
        return True

    def _concatenation(self, step: _Step) -> bool:
        if any(self._data(index) is not None for index in step.inputs):
            return False
        rank = len(self.graph.tensors[step.outputs[0]].shape)
        if step.operator.builtinOptions.axis % rank != rank - 1:
            return self._alike(step)
        self._join(np.concatenate(list(map(self._nodes, step.inputs))), self._nodes(step.outputs[0]))
        return True

    def _weighted(self, step: _Step) -> bool:
        """Convolutions and dense layers, whose weights take up any change on either side."""
        depthwise, dense = step.name == "DEPTHWISE_CONV_2D", step.name == "FULLY_CONNECTED"
        source, weight, bias = (2, 1, 3) if step.name == "TRANSPOSE_CONV" else (0, 1, 2)
        source, index = step.inputs[source], step.inputs[weight]
        if not self._is_own(index) or self._data(source) is not None:
            return False
        shape = tuple(int(each) for each in self.graph.tensors[index].shape)
        read, given = self._nodes(source), self._nodes(step.outputs[0])
        times, rest = divmod(shape[-1], len(read))
        # More weights than channels: a dense layer that flattens, or several outputs of a depthwise channel.
        if rest or len(given) != shape[-1 if depthwise else 0] or (times > 1 and not (depthwise or dense)):
            return False
        if depthwise:
            reads, gives = np.repeat(read, times), given
        else:
            reads, gives = np.tile(read, times), given.reshape(-1, *[1] * (len(shape) - 1))
        self.layers.append(_Layer(step.operator, weight, bias, reads, gives, given, depthwise))
        return True

    # Factors.

    def free(self) -> list[str]:
        """Tensors with channels that may be scaled."""
        pinned = {self._root(node) for node in self.pinned}
        return [
            self.name(index)
            for index in self.first
            if any(self._root(node) not in pinned for node in self._nodes(index).tolist())
        ]

    def factors(self, widths: Mapping[str, Array]) -> Array:
        """What each node is divided by."""
        roots = np.array([self._root(node) for node in range(len(self.parents))])
        active = np.zeros(len(roots))
        for index, first in self.first.items():
            width = widths.get(self.name(index))
            if width is None or width.size != self._size(index) or not width.any():
                continue
            share = width / width.max()
            np.maximum.at(active, roots[first : first + width.size], np.where(share < _UNUSED, 0.0, share))
        read = np.zeros(len(roots))
        for layer in self.layers:
            if layer.alone:
                continue
            weights = np.abs(self._weights(layer))
            columns = weights.reshape(-1, weights.shape[-1]).max(axis=0)
            if columns.any():
                np.maximum.at(read, roots[layer.reads], columns / columns.max())
        read = np.where(read > 0, np.maximum(read, _NARROWEST), 1.0)
        factors = np.maximum(active, _NARROWEST) ** _SHARE / read ** (1 - _SHARE)
        factors[active == 0] = 1.0
        for node in self.pinned:
            factors[self._root(node)] = 1.0
        result: Array = factors[roots]
        return result

    def scale(self, factors: Array) -> None:
        """Divides channels, and changes weights so that everything else stays as it is."""
        for layer in self.layers:
            weights = self._weights(layer) * factors[layer.reads] / factors[layer.gives]
            self._write(int(layer.operator.inputs[layer.weight]), weights)
            if len(layer.operator.inputs) > layer.bias and layer.operator.inputs[layer.bias] >= 0:
                self._scale_bias(layer, factors[layer.outputs])
        for index, nodes in self.constants:
            shape = [int(each) for each in self.graph.tensors[index].shape]
            self._write(index, self._data(index).view(np.float32).reshape(shape) / factors[nodes])

    def _scale_bias(self, layer: _Layer, factors: Array) -> None:
        index = int(layer.operator.inputs[layer.bias])
        values = self._data(index).view(np.float32) / factors
        if not self._is_own(index):
            # Layers without a bias of their own share one of zeros.
            types, old = schema(), self.graph.tensors[index]
            buffer, bias = types.BufferT(), types.TensorT()
            self.model.buffers.append(buffer)
            bias.name = self.graph.tensors[int(layer.operator.inputs[layer.weight])].name + b"/bias"
            bias.shape, bias.type, bias.buffer = old.shape, old.type, len(self.model.buffers) - 1
            self.graph.tensors.append(bias)
            inputs = list(layer.operator.inputs)
            inputs[layer.bias] = index = len(self.graph.tensors) - 1
            layer.operator.inputs = inputs
        self._write(index, values)

    # Nodes and tensors.

    def _nodes(self, index: int) -> Array:
        if index not in self.first:
            self.first[index] = len(self.parents)
            self.parents += range(len(self.parents), len(self.parents) + self._size(index))
        first = self.first[index]
        return np.arange(first, first + self._size(index))

    def _root(self, node: int) -> int:
        while self.parents[node] != node:
            self.parents[node] = self.parents[self.parents[node]]
            node = self.parents[node]
        return node

    def _join(self, some: Array, others: Array) -> None:
        for one, other in zip(some.tolist(), others.tolist(), strict=True):
            self.parents[self._root(one)] = self._root(other)

    def _pin(self, index: int) -> None:
        if self._data(index) is None:
            self.pinned.update(self._nodes(index).tolist())

    def _size(self, index: int) -> int:
        shape = self.graph.tensors[index].shape
        return max(int(shape[-1]), 1) if shape is not None and len(shape) else 1

    def _is_float(self, index: int) -> bool:
        return bool(self.graph.tensors[index].type == schema().TensorType.FLOAT32)

    def _is_own(self, index: int) -> bool:
        """Whether it is a float constant that one operator reads."""
        alone = self._owners[self.graph.tensors[index].buffer] == self._readers[index] == 1
        return alone and self._is_float(index) and self._data(index) is not None

    def _data(self, index: int) -> Any:
        data = self.model.buffers[self.graph.tensors[index].buffer].data
        return data if data is not None and len(data) else None

    def _weights(self, layer: _Layer) -> Array:
        index = int(layer.operator.inputs[layer.weight])
        shape = [int(each) for each in self.graph.tensors[index].shape]
        return np.frombuffer(bytes(self._data(index)), np.float32).reshape(shape)

    def _write(self, index: int, values: Array) -> None:
        data = np.ascontiguousarray(values, np.float32).reshape(-1).view(np.uint8)
        self.model.buffers[self.graph.tensors[index].buffer].data = data


_WEIGHTED = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV")
_RULES: dict[str, Callable[[_Channels, _Step], bool]] = {
    **dict.fromkeys(_WEIGHTED, _Channels._weighted),
    **dict.fromkeys(
        (
            "RELU",
            "LEAKY_RELU",
            "PRELU",
            "MAX_POOL_2D",
            "AVERAGE_POOL_2D",
            "RESIZE_BILINEAR",
            "RESIZE_NEAREST_NEIGHBOR",
        ),
        _Channels._alike,
    ),
    **dict.fromkeys(("ADD", "SUB"), _Channels._sum),
    "MUL": _Channels._product,
    "MEAN": _Channels._mean,
    "PAD": _Channels._pad,
    "RESHAPE": _Channels._reshape,
    "CONCATENATION": _Channels._concatenation,
}
