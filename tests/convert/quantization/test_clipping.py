"""Ranges of least error: rare values are clipped where that serves the others, never those of the model's ends."""

from __future__ import annotations

import numpy as np
import pytest

from convert.quantization import quantize
from convert.quantization.activations import read_tensors
from convert.quantization.clipping import least_error_ranges
from convert.recipes import Calibration, Precision, Quantization
from tests.convert.quantization.conftest import Array, FloatModel, snr_db

pytestmark = pytest.mark.tensorflow


def test_ranges_are_narrower_within_the_bounds_and_whole_at_the_ends(convolutional: FloatModel) -> None:
    ranges = convolutional.ranges
    found = least_error_ranges(ranges.content, ranges.kept, ranges.bounds, bits=8)
    assert found.keys() == ranges.bounds.keys()
    for name, (low, high) in found.items():
        assert ranges.bounds[name][0] <= low <= high <= ranges.bounds[name][1]
    assert any(found[name] != bounds for name, bounds in ranges.bounds.items())
    ends = [name for name in found if name.endswith("image:0") or "StatefulPartitionedCall" in name]
    assert len(ends) == 3
    for name in ends:
        assert found[name] == ranges.bounds[name]


def test_sixteen_bits_clip_less_than_eight(convolutional: FloatModel) -> None:
    ranges = convolutional.ranges
    widths = [
        sum(
            high - low
            for low, high in least_error_ranges(
                ranges.content, ranges.kept, ranges.bounds, bits=bits
            ).values()
        )
        for bits in (8, 16)
    ]
    assert widths[0] < widths[1]


def test_rounding_within_the_range_loses_no_more_than_within_the_bounds(convolutional: FloatModel) -> None:
    ranges = convolutional.ranges
    found = least_error_ranges(ranges.content, ranges.kept, ranges.bounds, bits=8)
    changed = [name for name, bounds in ranges.bounds.items() if found[name] != bounds]
    lost = {name: np.zeros(2) for name in changed}
    for tensors in read_tensors(ranges.content, ranges.kept, changed):
        for name, values in tensors.items():
            lost[name] += [_lost(values, *limits) for limits in (found[name], ranges.bounds[name])]
    assert len(changed) > 3
    for name, (clipped, whole) in lost.items():
        assert clipped < 1.01 * whole, name


def test_a_model_calibrated_so_computes_nearly_the_same(convolutional: FloatModel) -> None:
    quantization = Quantization(precision=Precision.INT8, calibration=Calibration.MSE)
    content = quantize(convolutional.content, quantization, convolutional.ranges)
    assert snr_db(convolutional.outputs(), convolutional.outputs(content)) > 20


def _lost(values: Array, low: float, high: float) -> float:
    low, high = min(low, 0.0), max(high, 0.0)
    scale = (high - low) / 255
    zero = round(-low / scale)
    steps = np.clip(np.round(values / scale), -zero, 255 - zero)
    return float(np.square(steps * scale - values).sum())
