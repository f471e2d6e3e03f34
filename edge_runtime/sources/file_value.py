"""What a file is to a chain: an image, an array, or its bytes."""

from __future__ import annotations

import io
from os import PathLike
from typing import BinaryIO

import numpy as np

from edge_runtime.errors import ErrorCode, HybridgeError
from edge_runtime.files import read_file
from edge_runtime.operators import find_operator
from edge_runtime.tensor_spec import Array

__all__ = [
    "ARRAY_EXTENSIONS",
    "IMAGE_EXTENSIONS",
    "about_file",
    "no_array",
    "open_file",
    "read_arrays",
    "read_image",
]

ARRAY_EXTENSIONS = (".npy", ".npz")
IMAGE_EXTENSIONS = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")


def open_file(path: str | PathLike[str]) -> BinaryIO:
    """The file at `path`, to be read piece by piece.

    Raises:
        HybridgeError: `file-not-found` when there is no readable file.
    """
    try:
        return open(path, "rb")
    except OSError as error:
        raise HybridgeError(
            ErrorCode.FILE_NOT_FOUND,
            f"file '{path}'",
            received=error.strerror or str(error),
            expected="a readable file",
            fix="check the path",
        ) from error


def read_image(path: str | PathLike[str], *, decode: bool = True, channels: int = 3) -> Array:
    """An image file as uint8 of shape (height, width, channels), turned as its EXIF data says.

    Args:
        path: Of the file.
        decode: False gives the file's bytes, uint8 of shape (size,), for a chain that decodes them itself.
        channels: 3 for RGB, 1 for grey.

    Raises:
        HybridgeError: `file-not-found`, `input-invalid` for a file that is no whole image, `extra-missing` when
            OpenCV is not there.
    """
    content = np.frombuffer(read_file(path), np.uint8)
    if not decode:
        return content
    try:
        image = find_operator("decode").run({"content": content}, {"channels": channels})["image"]
    except HybridgeError as error:
        if error.code is ErrorCode.EXTRA_MISSING:
            raise
        raise about_file(path, error) from error
    return np.asarray(image)


def read_arrays(path: str | PathLike[str], *, name: str) -> dict[str, Array]:
    """The arrays of an `.npz` archive by their names, or the one of an `.npy` file as `name`.

    Raises:
        HybridgeError: `file-not-found`, `input-invalid` for a file that is cut off, is none, or holds Python objects.
    """
    content = io.BytesIO(read_file(path))
    try:
        loaded = np.load(content, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return {name: loaded}
        with loaded:
            return dict(loaded)
    except Exception as error:
        # zipfile, zlib and NumPy each have errors of their own for a file that is damaged.
        raise no_array(path, str(error) or type(error).__name__) from error


def no_array(path: str | PathLike[str], received: str) -> HybridgeError:
    """The error for a file that is no array."""
    return HybridgeError(
        ErrorCode.INPUT_INVALID,
        f"file '{path}'",
        received=received,
        expected="a whole .npy array or .npz archive of arrays, without Python objects",
    )


def about_file(path: str | PathLike[str], error: HybridgeError) -> HybridgeError:
    """The same error, about this file."""
    return HybridgeError(
        error.code,
        f"file '{path}'",
        received=error.received or error.what,
        expected=error.expected,
        fix=error.fix,
    )
