"""How the weights and activations of a float model are distributed: what makes a layer hard to quantise."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import islice

import numpy as np

from convert.quantization.activations import read_tensors
from convert.quantization.flatbuffer import layer_names, operations, schema
from edge_runtime.tensor_spec import Array

__all__ = ["BINS", "ValueRange", "activation_ranges", "weight_ranges"]

BINS = 40
# Counted in more bins than are shown, from which percentiles are read.
_FINE = 50
_SAMPLES = 64
# Where a depthwise convolution keeps its channels; other weights have them first.
_DEPTHWISE_AXIS = 3


@dataclass(frozen=True)
class ValueRange:
    """How the values of one tensor are distributed.

    Attributes:
        layer: The operator that has it as weight, or makes it.
        operator: Such as ``CONV_2D``.
        minimum: The smallest value.
        maximum: The largest value.
        p1: One in a hundred values is smaller.
        p99: One in a hundred values is larger.
        channel_spread: Largest magnitude of the widest channel over that of the median one; far above one, a scale
            for the whole tensor leaves most channels few steps.
        histogram: Counts of values in 40 bins from minimum to maximum.
    """

    layer: str
    operator: str
    minimum: float
    maximum: float
    p1: float
    p99: float
    channel_spread: float
    histogram: tuple[int, ...]


def weight_ranges(content: bytes) -> tuple[ValueRange, ...]:
    """The largest float weight of each operator that has one, in the order of the file.

    Args:
        content: The float `.tflite`.
    """
    model = schema().Model.GetRootAs(content, 0)
    buffers = {
        (graph.Tensors(index).Name() or b"").decode(): model.Buffers(graph.Tensors(index).Buffer())
        for graph in map(model.Subgraphs, range(model.SubgraphsLength()))
        for index in range(graph.TensorsLength())
    }
    found = operations(content)
    ranges = []
    for layer, each in zip(layer_names(found), found, strict=True):
        weights = [weight for weight in each.weights if weight.dtype == "FLOAT32"]
        if not weights or not buffers[(largest := max(weights, key=lambda one: one.size)).name].DataLength():
            continue
        values = buffers[largest.name].DataAsNumpy().view(np.float32).reshape(largest.shape)
        axis = _DEPTHWISE_AXIS if each.name == "DEPTHWISE_CONV_2D" else 0
        spread = _Spread(layer, each.name)
        spread.see(values, axis)
        spread.count(values)
        ranges.append(spread.finished())
    return tuple(ranges)


def activation_ranges(content: bytes, samples: Iterable[Mapping[str, Array]]) -> tuple[ValueRange, ...]:
    """What each operator of the main graph makes, over the first 64 samples, in the order of the file.

    Args:
        content: The float `.tflite`.
        samples: Inputs of the model, an array for each name.
    """
    taken = [dict(sample) for sample in islice(samples, _SAMPLES)]
    found = operations(content)
    spreads = {
        each.outputs[0]: _Spread(layer, each.name)
        for layer, each in zip(layer_names(found), found, strict=True)
        if each.main and each.outputs and "FLOAT32" in each.activations
    }
    # Twice through the samples keeps no tensor: first the range, then the counts.
    for tensors in read_tensors(content, taken, tuple(spreads)):
        for name, values in tensors.items():
            if values.dtype == np.float32 and values.ndim:
                spreads[name].see(values, values.ndim - 1)
    for tensors in read_tensors(content, taken, tuple(spreads)):
        for name, values in tensors.items():
            if spreads[name].seen:
                spreads[name].count(values)
    return tuple(spread.finished() for spread in spreads.values() if spread.seen)


class _Spread:
    """Gathers a `ValueRange` in two looks at the values."""

    def __init__(self, layer: str, operator: str):
        self.layer, self.operator = layer, operator
        self.minimum, self.maximum = np.inf, -np.inf
        self.channels: Array = np.zeros(0)
        self.counts: Array = np.zeros(BINS * _FINE, np.int64)

    @property
    def seen(self) -> bool:
        return bool(np.isfinite(self.minimum) and np.isfinite(self.maximum))

    def see(self, values: Array, axis: int) -> None:
        self.minimum = min(self.minimum, float(values.min(initial=np.inf)))
        self.maximum = max(self.maximum, float(values.max(initial=-np.inf)))
        others = tuple(each for each in range(values.ndim) if each != axis)
        largest = np.abs(values).max(axis=others, initial=0.0)
        self.channels = np.maximum(self.channels, largest) if self.channels.size == largest.size else largest

    def count(self, values: Array) -> None:
        self.counts += np.histogram(values, self.counts.size, (self.minimum, self.maximum))[0]

    def finished(self) -> ValueRange:
        cumulative = np.cumsum(self.counts) / max(self.counts.sum(), 1)
        edges = np.linspace(self.minimum, self.maximum, self.counts.size + 1)
        median = float(np.median(self.channels))
        return ValueRange(
            layer=self.layer,
            operator=self.operator,
            minimum=self.minimum,
            maximum=self.maximum,
            p1=float(edges[np.searchsorted(cumulative, 0.01)]),
            p99=float(edges[np.searchsorted(cumulative, 0.99) + 1]),
            channel_spread=float(self.channels.max()) / median if median else 1.0,
            histogram=tuple(self.counts.reshape(BINS, _FINE).sum(axis=1).tolist()),
        )
