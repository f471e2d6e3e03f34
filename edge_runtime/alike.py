"""Whether outputs are about the same: of an item alone, and of the same item in a batch."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from edge_runtime.tensor_spec import Array

__all__ = ["alike"]

# Of the largest value: kernels for batches may add in another order, and quantised ones end on the next step.
_TOLERANCE = 0.02


def alike(
    alone: Mapping[str, Array],
    batched: Mapping[str, Array],
    *,
    tolerance: float = _TOLERANCE,
    others_equal: bool = False,
) -> bool:
    """Whether an item's outputs have the same shapes, and floats that are about the same.

    Args:
        alone: The outputs of the item alone.
        batched: Those of the same item from a batch, by the same names.
        tolerance: By how much a float may differ, as a share of the largest of its array.
        others_equal: Whether all that is no float must be the same: classes, text, and numbers still quantised.
    """
    for name, reference in alone.items():
        array = batched[name]
        if reference.shape != array.shape:
            return False
        if reference.dtype.kind == "f":
            scale = float(np.abs(reference[np.isfinite(reference)]).max(initial=0.0))
            if not np.allclose(array, reference, rtol=0.0, atol=tolerance * scale, equal_nan=True):
                return False
        elif others_equal and not np.array_equal(array, reference):
            return False
    return True
