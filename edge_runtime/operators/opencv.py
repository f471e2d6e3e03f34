"""OpenCV, for the operators that need it."""

from __future__ import annotations

from typing import Any

from edge_runtime.errors import ErrorCode, HybridgeError, missing_extra

__all__ = ["interpolation_flag", "opencv"]

_INTERPOLATION = {
    "nearest": "INTER_NEAREST",
    "linear": "INTER_LINEAR",
    "area": "INTER_AREA",
    "cubic": "INTER_CUBIC",
}


def opencv() -> Any:
    """The module `cv2`.

    Raises:
        HybridgeError: `extra-missing` where it is not installed.
    """
    try:
        import cv2
    except ModuleNotFoundError as error:
        raise missing_extra("vision", "cv2") from error
    return cv2


def interpolation_flag(name: str) -> int:
    """OpenCV's number for nearest, linear, area or cubic.

    Raises:
        HybridgeError: `input-invalid` for another name, `extra-missing`.
    """
    if name not in _INTERPOLATION:
        raise HybridgeError(
            ErrorCode.INPUT_INVALID, "interpolation", received=name, expected=", ".join(_INTERPOLATION)
        )
    flag: int = getattr(opencv(), _INTERPOLATION[name])
    return flag
