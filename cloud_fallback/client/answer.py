"""An endpoint's answer, held against what the device's own model answered: can it stand in its place?"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from edge_runtime.errors import ErrorCode, HybridgeError
from edge_runtime.tensor_spec import Array

__all__ = ["fit_outputs", "refused"]

_FEW = 256


def fit_outputs(
    answered: Mapping[str, Array], own: Mapping[str, Array], names: Mapping[str, str], what: str
) -> dict[str, Array]:
    """The stage's outputs from an endpoint's, as arrays of their own in the types of the device's.

    Args:
        answered: The endpoint's outputs by its own names; more than are wanted is fine.
        own: The device's outputs by the stage's names.
        names: The endpoint's name for each of the stage's outputs.
        what: Whose answer it is, for messages.

    Raises:
        HybridgeError: `cloud-refused` for an output that is missing, of another shape, with values that the device's
            type cannot hold, or not finite.
    """
    if missing := [name for name in names.values() if name not in answered]:
        raise refused(what, f"no output {', '.join(missing)}")
    return {stage: _fit(what, names[stage], answered[names[stage]], array) for stage, array in own.items()}


def _fit(what: str, name: str, array: Array, own: Array) -> Array:
    if array.shape != own.shape:
        raise refused(what, f"output '{name}' of shape {array.shape}", f"shape {own.shape}")
    if own.dtype.kind == "U":
        return _text(what, name, array)
    if array.dtype == own.dtype:
        cast = array.copy()
    elif np.can_cast(array.dtype, own.dtype, "same_kind"):
        # What does not fit becomes infinite or another number, and is refused below.
        with np.errstate(over="ignore"):
            cast = array.astype(own.dtype)
        if cast.dtype.kind in "iu" and not np.array_equal(cast, array):
            raise refused(what, f"output '{name}' with values that do not fit", str(own.dtype))
    else:
        raise refused(what, f"output '{name}' of {array.dtype}", str(own.dtype))
    if cast.dtype.kind == "f" and not _is_finite(cast):
        raise refused(what, f"output '{name}' with values that are not finite", f"finite {own.dtype}")
    return cast


def _is_finite(array: Array) -> bool:
    # The sum of a few is there before NumPy has begun; what is not finite makes it so.
    if array.size <= _FEW and math.isfinite(sum(array.ravel().tolist())):
        return True
    return bool(np.isfinite(array).all())


def _text(what: str, name: str, array: Array) -> Array:
    """Text of strings, which come as bytes."""
    if array.dtype.kind != "O":
        raise refused(what, f"output '{name}' of {array.dtype}", "strings")
    try:
        texts = [element.decode() for element in array.ravel().tolist()]
    except UnicodeDecodeError as error:
        raise refused(what, f"output '{name}': {error}", "strings in UTF-8") from error
    return np.array(texts, np.str_).reshape(array.shape)


def refused(what: str, received: str, expected: str = "") -> HybridgeError:
    """The error for an answer that is of no use."""
    return HybridgeError(ErrorCode.CLOUD_REFUSED, what, received=received, expected=expected)
