from __future__ import annotations

import numpy as np
import pytest

from edge_runtime.quantizer import Quantizer
from edge_runtime.tensor_spec import Quantization

DTYPES = (np.int8, np.uint8, np.int16)


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_integer_survives_the_way_there_and_back(dtype: type[np.integer]) -> None:
    limits = np.iinfo(dtype)
    integers = np.arange(limits.min, limits.max + 1, dtype=np.int64).astype(dtype)
    for scale, zero_point in ((0.0078125, 3), (0.5847029, 83), (1.0, 0), (3e-5, limits.min)):
        quantizer = Quantizer(Quantization((scale,), (zero_point,)), np.dtype(dtype))
        real = quantizer.dequantize(integers, None)
        np.testing.assert_allclose(real, (integers.astype(np.float64) - zero_point) * scale, rtol=1e-6)
        np.testing.assert_array_equal(quantizer.quantize(real), integers)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_error_is_at_most_half_a_step_within_range_and_saturates_beyond(dtype: type[np.integer]) -> None:
    limits = np.iinfo(dtype)
    quantizer = Quantizer(Quantization((0.02,), (7,)), np.dtype(dtype))
    low, high = (limits.min - 7) * 0.02, (limits.max - 7) * 0.02
    real = np.random.default_rng(0).uniform(low, high, 5000).astype(np.float32)
    back = quantizer.dequantize(quantizer.quantize(real), None)
    assert np.abs(back - real).max() <= 0.01 + 1e-4
    beyond = quantizer.quantize(np.array([low - 5, high + 5, -np.inf, np.inf, np.nan], np.float32))
    np.testing.assert_array_equal(beyond, [limits.min, limits.max, limits.min, limits.max, limits.min])


def test_scales_along_an_axis_apply_to_their_own_slices() -> None:
    quantizer = Quantizer(Quantization((0.1, 1.0, 10.0), (0, 5, -5), axis=1), np.dtype(np.int8))
    real = np.full((2, 3, 4), 20.0, np.float32)
    integers = quantizer.quantize(real)
    np.testing.assert_array_equal(integers[0, :, 0], [127, 25, -3])
    np.testing.assert_allclose(quantizer.dequantize(integers, None)[1, :, 3], [12.7, 20.0, 20.0], rtol=1e-6)


def test_a_given_array_is_filled() -> None:
    quantizer = Quantizer(Quantization((0.5,), (0,)), np.dtype(np.int8))
    target = np.empty((1, 3), np.float32)
    assert quantizer.dequantize(np.array([[1, 2, 3]], np.int8), target) is target
    np.testing.assert_array_equal(target, [[0.5, 1.0, 1.5]])
