"""Affine quantisation of arrays, as the TFLite quantization specification defines it."""

from __future__ import annotations

from typing import Any

import numpy as np

from edge_runtime.tensor_spec import Array, Quantization

__all__ = ["Quantizer"]


class Quantizer:
    """Affine quantisation of one tensor, with scratch memory kept between calls."""

    def __init__(self, quantization: Quantization, dtype: np.dtype[Any]):
        limits = np.iinfo(dtype)
        self.dtype = dtype
        self.low, self.high = np.float32(limits.min), np.float32(limits.max)
        self.axis = quantization.axis
        self.scale: Array = np.asarray(quantization.scale, np.float32)
        self.zero_point: Array = np.asarray(quantization.zero_point, np.float32)
        if self.axis is None:
            self.scale, self.zero_point = self.scale.reshape(()), self.zero_point.reshape(())
        self._real = np.empty(0, np.float32)
        self._quantized = np.empty(0, dtype)

    def quantize(self, array: Array) -> Array:
        """Real values to integers, rounded half to even and saturated; the result is overwritten by the next call."""
        if self._real.shape != array.shape:
            self._real = np.empty(array.shape, np.float32)
            self._quantized = np.empty(array.shape, self.dtype)
        scale, zero_point = self._along_axis(array.ndim)
        real = self._real
        np.divide(array, scale, out=real)
        np.rint(real, out=real)
        np.add(real, zero_point, out=real)
        # A NaN saturates at the lower limit: fmax prefers the number.
        np.fmax(real, self.low, out=real)
        np.minimum(real, self.high, out=real)
        np.copyto(self._quantized, real, casting="unsafe")
        return self._quantized

    def dequantize(self, array: Array, out: Array | None) -> Array:
        """Integers to real values, in `out` or a new float32 array."""
        scale, zero_point = self._along_axis(array.ndim)
        real: Array = np.subtract(array, zero_point, out=out, dtype=np.float32)
        return np.multiply(real, scale, out=real)

    def _along_axis(self, ndim: int) -> tuple[Array, Array]:
        if self.axis is None:
            return self.scale, self.zero_point
        shape = [1] * ndim
        shape[self.axis] = -1
        return self.scale.reshape(shape), self.zero_point.reshape(shape)
