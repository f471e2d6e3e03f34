"""Scales and shifts by constants, folded into the convolution that follows.

Some networks multiply and shift after each activation (the learnable affine blocks of PP-LCNetV3, a batch normalisation
after a relu). A device would read and write the whole tensor for each. A value remembers what it is a scale and
shift of, and a convolution takes that instead, with other weights:

    conv(scale * x + shift, weights) + bias  =  conv(x, scale * weights) + (bias + shift * sum of the weights)

With zeros around the edges the shift has to stay, and only the scale moves: ``scale * (x + shift / scale)``. (To fill
the edges up with ``-shift / scale`` instead costs as much as it saves: a device has a fast way for zeros only.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edge_runtime.tensor_spec import Array

if TYPE_CHECKING:
    from convert.onnx.value import Value

__all__ = ["Affine", "rescaled"]

# The last step of a hard-swish written out, ``x * relu6(x + 3) / 6``, of which the converter makes one operator.
_SIXTH = 1.0 / 6.0

# Beyond it, what is added before the scale would cost precision.
_LARGEST_TERM = 1e3


@dataclass(frozen=True)
class Affine:
    """A tensor as ``scale * base + shift``, each a single number or one for each channel (axis 1).

    Attributes:
        base: What is scaled.
        scale: Shape () or (channels,), float64.
        shift: The same.
    """

    base: Value
    scale: Array
    shift: Array

    @property
    def term(self) -> Array | None:
        """What is added to `base` before it is scaled; None where the scale is too small to divide by."""
        if (np.abs(self.shift) > _LARGEST_TERM * np.abs(self.scale)).any():
            return None
        with np.errstate(invalid="ignore"):
            return np.nan_to_num(self.shift / self.scale)


def rescaled(x: Value, *, scale: Array | None = None, shift: Array | None = None) -> Affine | None:
    """`x` times a constant or plus one; None where the constant is more than a number for each channel."""
    factor = _by_channel(x, np.ones(()) if scale is None else scale)
    term = _by_channel(x, np.zeros(()) if shift is None else shift)
    if factor is None or term is None or x.dtype != np.float32:
        return None
    if factor.ndim == 0 and abs(factor - _SIXTH) < 1e-6:
        return None
    before = x.affine or Affine(x, np.ones(()), np.zeros(()))
    return Affine(before.base, before.scale * factor, before.shift * factor + term)


def _by_channel(x: Value, constant: Array) -> Array | None:
    values = constant.astype(np.float64)
    if values.size == 1 and values.ndim <= x.rank:
        return values.reshape(())
    channels = x.shape[1] if x.rank > 2 else None
    after = (1,) * (x.rank - 2)
    if channels is not None and values.shape in ((channels, *after), (1, channels, *after)):
        return values.reshape(-1)
    return None
