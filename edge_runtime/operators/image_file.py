"""Operators between image files and images of shape (height, width, channels); they need the `vision` extra."""

from __future__ import annotations

import numpy as np

from edge_runtime.errors import ErrorCode, HybridgeError
from edge_runtime.operators.image_header import FORMATS, ImageHeader
from edge_runtime.operators.opencv import opencv
from edge_runtime.operators.registry import operator
from edge_runtime.tensor_spec import Array

__all__ = ["decode", "encode"]

_FILES = f"{', '.join(FORMATS[:-1])} or {FORMATS[-1]}"


@operator("decode", takes={"content": "uint8[length]"}, gives={"image": "uint8[height, width, channels]"})
def decode(content: Array, *, channels: int = 3, max_pixels: int = 100_000_000) -> Array:
    """A JPEG, PNG, BMP, WebP or TIFF file as an RGB or grey image, turned as its EXIF data says.

    The file's header is read first: one that was cut short, or that would unpack to more than `max_pixels`, is refused
    before memory is spent on it.

    Args:
        content: The file's bytes, uint8 of shape (length,).
        channels: 3 for RGB, 1 for grey.
        max_pixels: The most that an image may have, width times height; RGB takes three bytes of memory for each.

    Returns:
        The image, uint8 of shape (height, width, channels).

    Raises:
        HybridgeError: `input-invalid` for bytes that are no whole image, or one that is too large; `extra-missing`.
    """
    if channels not in (1, 3):
        raise HybridgeError(ErrorCode.INPUT_INVALID, "channels", received=str(channels), expected="1 or 3")
    cv2 = opencv()
    header = ImageHeader.read(content.tobytes())
    if header is None:
        raise _refused(f"{content.size} bytes that are none", f"a {_FILES} file")
    if not header.is_whole:
        raise _refused(
            f"a {header.format} file that was cut short after {content.size} bytes", "a whole file"
        )
    if not 0 < header.width * header.height <= max_pixels:
        raise _refused(
            f"{header.width}x{header.height} pixels",
            f"at least one, and at most {max_pixels} (max_pixels)",
            "make it smaller, or raise max_pixels where there is memory for it",
        )
    flag = cv2.IMREAD_GRAYSCALE if channels == 1 else getattr(cv2, "IMREAD_COLOR_RGB", cv2.IMREAD_COLOR)
    try:
        image: Array | None = cv2.imdecode(np.ascontiguousarray(content), flag)
    except cv2.error:
        image = None
    if image is None:
        raise _refused(f"a {header.format} file that cannot be decoded", "an undamaged file")
    if channels == 1:
        return image[:, :, np.newaxis]
    # Before 4.11 OpenCV could only decode with blue first.
    return image if flag != cv2.IMREAD_COLOR else cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


@operator("encode", takes={"image": "uint8[height, width, channels]"}, gives={"content": "uint8[length]"})
def encode(image: Array, *, format: str = "jpeg", quality: int = 90) -> Array:  # noqa: A002 - the field's word
    """An RGB or grey image as a file's bytes.

    Args:
        image: uint8 of shape (height, width, 3) or (height, width, 1).
        format: ``jpeg`` or ``png``.
        quality: Of a JPEG, 1 to 100.

    Raises:
        HybridgeError: `input-invalid` for another format, `input-shape` for what is no image, `extra-missing`.
    """
    cv2 = opencv()
    if format not in ("jpeg", "png"):
        raise HybridgeError(ErrorCode.INPUT_INVALID, "format", received=format, expected="jpeg or png")
    if image.ndim != 3 or image.shape[2] not in (1, 3) or not image.size:
        raise HybridgeError(
            ErrorCode.INPUT_SHAPE,
            "image",
            received=f"shape {image.shape}",
            expected="(height, width, 3) or (height, width, 1), with a pixel at least",
        )
    bgr = image if image.shape[2] == 1 else cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    parameters = [cv2.IMWRITE_JPEG_QUALITY, quality] if format == "jpeg" else []
    content: Array = cv2.imencode(f".{format}", bgr, parameters)[1]
    return content.reshape(-1)


def _refused(received: str, expected: str, fix: str = "") -> HybridgeError:
    return HybridgeError(ErrorCode.INPUT_INVALID, "image", received=received, expected=expected, fix=fix)
