"""Ranges of activations that lose least: what is clipped at the ends against what is rounded in between.

The range that calibration saw is set by its rarest values, and every other value pays for them with a coarser step.
Choosing the range by the mean square error of both follows Banner et al., "Post training 4-bit quantization of
convolutional networks for rapid-deployment" (2019), here on counted values instead of on a distribution.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from convert.quantization.activations import read_tensors
from convert.quantization.flatbuffer import operations, schema
from edge_runtime.tensor_spec import Array

__all__ = ["least_error_ranges"]

# Values of one tensor that are counted, and how finely.
_VALUES = 1 << 18
_BINS = 4096
# How much of a side may be cut off, and in how many steps that is tried.
_SHARES = np.linspace(1.0, 0.4, 25)
# What hands values on: an output that comes out of these is clipped where its input is.
_HANDED_ON = (
    "RESHAPE",
    "CONCATENATION",
    "SOFTMAX",
    "LOGISTIC",
    "SQUEEZE",
    "TRANSPOSE",
    "SPLIT",
    "STRIDED_SLICE",
)


def least_error_ranges(
    content: bytes,
    samples: Sequence[Mapping[str, Array]],
    bounds: Mapping[str, tuple[float, float]],
    *,
    bits: int,
) -> dict[str, tuple[float, float]]:
    """For each tensor the range within its bounds whose rounding and clipping lose least.

    What a model takes and returns keeps its whole range: its rare values are answers, or come from another sensor.

    Args:
        content: The float `.tflite`.
        samples: Inputs of the model as it is fed in use.
        bounds: Smallest and largest value of each tensor.
        bits: Of an activation.
    """
    kept = _ends(content)
    counts = {name: np.zeros(_BINS) for name in bounds if name not in kept}
    share = max(_VALUES // max(len(samples), 1), 1)
    random = np.random.default_rng(0)  # a regular step would meet the same channels again and again
    for tensors in read_tensors(content, samples, tuple(counts)):
        for name, values in tensors.items():
            seen = values.reshape(-1)
            if seen.size > share:
                seen = seen[random.integers(0, seen.size, share)]
            counts[name] += np.histogram(seen, _BINS, bounds[name])[0]
    return {**bounds, **{name: _least_error(each, bounds[name], bits) for name, each in counts.items()}}


def _least_error(counts: Array, limits: tuple[float, float], bits: int) -> tuple[float, float]:
    low, high = limits
    if not counts.any():
        return limits
    values = low + (np.arange(_BINS) + 0.5) * (high - low) / _BINS
    # One side after the other, twice: where they meet hardly depends on where they began.
    for _ in range(2):
        if limits[1] > 0:
            tried = limits[1] * _SHARES
            high = float(tried[_errors(values, counts, np.full_like(tried, low), tried, bits).argmin()])
        if limits[0] < 0:
            tried = limits[0] * _SHARES
            low = float(tried[_errors(values, counts, tried, np.full_like(tried, high), bits).argmin()])
    return low, high


def _errors(values: Array, counts: Array, low: Array, high: Array, bits: int) -> Array:
    """Square error of rounding to each of several grids; each has zero on it, as the runtime's do."""
    low, high = np.minimum(low, 0.0), np.maximum(high, 0.0)
    scale = ((high - low) / (2**bits - 1))[:, np.newaxis]
    zero = np.round(-low[:, np.newaxis] / scale)
    steps = np.clip(np.round(values / scale), -zero, 2**bits - 1 - zero)
    errors: Array = np.square(steps * scale - values) @ counts
    return errors


def _ends(content: bytes) -> set[str]:
    """The model's inputs and outputs, and what becomes an output without being computed with."""
    graph = schema().Model.GetRootAs(content, 0).Subgraphs(0)
    found = {
        (graph.Tensors(int(place)).Name() or b"").decode()
        for place in (*graph.InputsAsNumpy(), *graph.OutputsAsNumpy())
    }
    for operation in reversed(operations(content)):
        if operation.main and operation.name in _HANDED_ON and found.intersection(operation.outputs):
            found.update(operation.inputs)
    return found
