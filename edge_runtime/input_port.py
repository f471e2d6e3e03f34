"""What may be given for one input of a model."""

from __future__ import annotations

from typing import Any

import numpy as np

from edge_runtime.errors import ErrorCode, HybridgeError
from edge_runtime.instance import numpy_dtype
from edge_runtime.tensor_spec import Array, TensorSpec

__all__ = ["InputPort", "size_error"]


class InputPort:
    """Checks what is given for one input."""

    def __init__(self, model_name: str, spec: TensorSpec):
        self.model_name = model_name
        self.spec = spec
        # The last shape that was found to fit: calls mostly bring the same.
        self.shape: tuple[int | str, ...] = spec.shape
        self.dtype = numpy_dtype(spec)
        self.is_quantized = spec.quantization is not None

    def check(self, array: Any) -> None:
        """Refuses an array that does not fit."""
        if not isinstance(array, np.ndarray):
            raise self._refusal(ErrorCode.INPUT_DTYPE, type(array).__name__, "a NumPy array")
        if array.dtype != self.dtype and not (self.is_quantized and array.dtype == np.float32):
            either = f"float32, or {self.dtype} already quantised" if self.is_quantized else str(self.dtype)
            raise self._refusal(ErrorCode.INPUT_DTYPE, str(array.dtype), either, "cast it with .astype")
        if array.shape != self.shape:
            self._check_shape(array)
            self.shape = array.shape

    def _check_shape(self, array: Array) -> None:
        # What the file itself declares without elements was converted so; a size that a caller brings was not.
        # Kernels divide by a dimension here and there, and a fault in one ends the process, not the call.
        if not self.spec.admits(array.shape) or (self.spec.is_dynamic and not array.size):
            raise size_error(self.model_name, self.spec, array.shape)

    def _refusal(self, code: ErrorCode, received: str, expected: str, fix: str = "") -> HybridgeError:
        what = f"input '{self.spec.name}' of model '{self.model_name}'"
        return HybridgeError(code, what, received=received, expected=expected, fix=fix)


def size_error(model: str, spec: TensorSpec, shape: tuple[int, ...]) -> HybridgeError:
    """The error for a shape that an input does not take."""
    fits = spec.admits(shape)
    return HybridgeError(
        ErrorCode.INPUT_SHAPE,
        f"input '{spec.name}' of model '{model}'",
        received=f"shape {shape}",
        expected="a tensor with elements" if fits else f"shape ({', '.join(map(str, spec.shape))})",
        fix="" if fits else "reshape it",
    )
