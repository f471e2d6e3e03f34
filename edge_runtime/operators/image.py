"""Operators on images of shape (height, width, channels); decoding and resizing need the `vision` extra."""

from __future__ import annotations

from typing import Any

import numpy as np

from edge_runtime.errors import ErrorCode, HybridgeError, missing_extra
from edge_runtime.operators.registry import operator
from edge_runtime.tensor_spec import Array

__all__ = ["crop", "decode", "resize"]

_INTERPOLATION = {
    "nearest": "INTER_NEAREST",
    "linear": "INTER_LINEAR",
    "area": "INTER_AREA",
    "cubic": "INTER_CUBIC",
}


@operator("decode", outputs=("image",))
def decode(content: Array, *, channels: int = 3) -> Array:
    """A JPEG, PNG or BMP file's bytes (uint8, one axis) as an RGB or grey uint8 image, turned as its EXIF data says."""
    if channels not in (1, 3):
        raise HybridgeError(ErrorCode.INPUT_INVALID, "channels", received=str(channels), expected="1 or 3")
    cv2 = _cv2()
    flag = cv2.IMREAD_GRAYSCALE if channels == 1 else cv2.IMREAD_COLOR
    image = cv2.imdecode(np.ascontiguousarray(content), flag) if content.size else None
    if image is None:
        raise HybridgeError(
            ErrorCode.INPUT_INVALID,
            "image",
            received=f"{content.size} bytes that cannot be decoded",
            expected="a whole JPEG, PNG or BMP file",
        )
    # OpenCV has blue first.
    return image[:, :, np.newaxis] if channels == 1 else np.ascontiguousarray(image[:, :, ::-1])


@operator("resize")
def resize(image: Array, *, height: int, width: int, interpolation: str = "linear") -> Array:
    """The image at another size; `interpolation` is nearest, linear, area (best when shrinking) or cubic."""
    if interpolation not in _INTERPOLATION:
        raise HybridgeError(
            ErrorCode.INPUT_INVALID,
            "interpolation",
            received=interpolation,
            expected=", ".join(_INTERPOLATION),
        )
    if image.shape[:2] == (height, width):
        return image
    cv2 = _cv2()
    resized: Array = cv2.resize(
        image, (width, height), interpolation=getattr(cv2, _INTERPOLATION[interpolation])
    )
    # OpenCV drops a last axis of size one.
    return resized.reshape(height, width, *image.shape[2:])


@operator("crop")
def crop(image: Array, *, top: int, left: int, height: int, width: int) -> Array:
    """A rectangle of the image, in pixels; it must lie within the image."""
    if top < 0 or left < 0 or top + height > image.shape[0] or left + width > image.shape[1]:
        raise HybridgeError(
            ErrorCode.INPUT_SHAPE,
            "crop",
            received=f"rows {top}..{top + height}, columns {left}..{left + width}",
            expected=f"within {image.shape[0]} rows and {image.shape[1]} columns",
        )
    return image[top : top + height, left : left + width]


def _cv2() -> Any:
    try:
        import cv2
    except ModuleNotFoundError as error:
        raise missing_extra("vision", "cv2") from error
    return cv2
