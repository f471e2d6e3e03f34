"""What a tensor is: its name, shape, type and quantisation, and the arrays that hold its values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

__all__ = ["Array", "Quantization", "TensorSpec", "Value"]

Array: TypeAlias = np.ndarray[Any, Any]
# What a chain's tensor may hold: an array, or a list of arrays that may differ in shape, such as a crop for each
# detection. Which of the two is known when a chain is loaded, and not to a type checker.
Value: TypeAlias = Any


@dataclass(frozen=True, slots=True)
class Quantization:
    """Affine quantisation, ``real = scale * (q - zero_point)`` (TFLite quantization specification).

    One scale and zero point for a tensor quantised as a whole, one per slice of `axis` otherwise.
    """

    scale: tuple[float, ...]
    zero_point: tuple[int, ...]
    axis: int | None = None


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """Name, shape and type of a tensor; a string in `shape` names a dimension that may vary."""

    name: str
    shape: tuple[int | str, ...]
    dtype: str
    quantization: Quantization | None = None

    @property
    def is_dynamic(self) -> bool:
        """Whether any dimension may vary."""
        return any(isinstance(size, str) for size in self.shape)

    def admits(self, shape: tuple[int, ...]) -> bool:
        """Whether an array of `shape` fits."""
        return len(shape) == len(self.shape) and all(
            isinstance(want, str) or want == got for want, got in zip(self.shape, shape, strict=True)
        )
