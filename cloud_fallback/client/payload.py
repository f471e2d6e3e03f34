"""Inputs in the form in which they are sent: as small as the endpoint's model takes them.

Two things make a question smaller. What the model declares: an array of another type than the model takes is sent in
the model's, when that loses nothing, so an image of whole numbers in float32 goes as uint8 to a model that takes those.
And what the caller asks for: `float16` or `jpeg` lose something, so they are used for the inputs that name them only.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import numpy as np

from cloud_fallback.open_inference.tensors import datatype, numpy_type
from edge_runtime.errors import ErrorCode, HybridgeError
from edge_runtime.tensor_spec import Array

__all__ = ["Declared", "Payload"]

_JPEG = re.compile(r"jpeg(?::([1-9][0-9]?|100))?")
_FORMS = "uint8, float16, png, jpeg or jpeg:90 (a quality of 1 to 100)"
_JPEG_QUALITY = 90

# What a model says it takes, by input: the protocol's datatype, and the rank of the shape.
Declared = Mapping[str, tuple[str, int]]


class Payload:
    """How inputs are sent.

    Args:
        forms: By the endpoint's name of an input: `uint8` for whole numbers in 0..255, which are refused otherwise;
            `float16`; `png` or `jpeg:<quality>` for images with 1 or 3 channels of such numbers, of shape
            (height, width), (height, width, channels) or (images, height, width, channels).

    Raises:
        HybridgeError: `usage` for another form.
    """

    def __init__(self, forms: Mapping[str, str] | None = None):
        self._forms = {name: _form(name, text) for name, text in (forms or {}).items()}

    def shrink(self, inputs: Mapping[str, Array], declared: Declared) -> Mapping[str, Array]:
        """The inputs as they are sent; those that stay as they are are the same objects.

        Args:
            inputs: Arrays by the endpoint's names.
            declared: What the endpoint's model says of them, as far as it is known.

        Raises:
            HybridgeError: `input-dtype`, `input-shape` or `input-invalid` for an array that the form asked for cannot
                hold; `extra-missing`.
        """
        changed = {}
        for name, array in inputs.items():
            form = self._forms.get(name)
            if form is not None:
                changed[name] = form(array, declared.get(name))
            elif name in declared and datatype(array.dtype) != declared[name][0]:
                changed[name] = _as_declared(array, declared[name][0])
        return {**inputs, **changed} if changed else inputs


def _as_declared(array: Array, datatype: str) -> Array:
    """The array in the declared type, if that holds every value as it is; else as it was."""
    wanted = numpy_type(datatype)
    if wanted is None or array.dtype.kind not in "biuf" or wanted.kind == "b":
        return array
    cast = _cast(array, wanted)
    return array if cast is None else cast


def _cast(array: Array, dtype: np.dtype[np.generic]) -> Array | None:
    # A number that does not fit becomes another one, and is found by going back.
    with np.errstate(invalid="ignore", over="ignore"):
        cast: Array = array.astype(dtype)
        return cast if np.array_equal(cast.astype(array.dtype), array) else None


_Form = Callable[[Array, "tuple[str, int] | None"], Array]


def _form(name: str, text: str) -> _Form:
    what = f"input '{name}'"
    if text == "uint8":
        return lambda array, _: _whole(what, array)
    if text == "float16":
        return lambda array, _: _half(what, array)
    jpeg = _JPEG.fullmatch(text)
    if text != "png" and jpeg is None:
        raise HybridgeError(ErrorCode.USAGE, f"payload of {what}", received=f"'{text}'", expected=_FORMS)
    kind, quality = ("jpeg", int(jpeg[1] or _JPEG_QUALITY)) if jpeg else ("png", _JPEG_QUALITY)
    return lambda array, declared: _encoded(what, array, declared, kind, quality)


def _whole(what: str, array: Array) -> Array:
    if array.dtype == np.uint8:
        return array
    cast = _cast(array, np.dtype(np.uint8)) if array.dtype.kind in "biuf" else None
    if cast is None:
        raise HybridgeError(
            ErrorCode.INPUT_DTYPE,
            what,
            received=f"{array.dtype} with values that uint8 cannot hold",
            expected="whole numbers in 0..255, for a payload of uint8",
        )
    return cast


def _half(what: str, array: Array) -> Array:
    with np.errstate(over="ignore"):
        cast: Array = array.astype(np.float16) if array.dtype.kind == "f" else array
    if cast.dtype != np.float16 or not np.array_equal(np.isinf(cast), np.isinf(array)):
        raise HybridgeError(
            ErrorCode.INPUT_DTYPE,
            what,
            received=f"{array.dtype}" if cast is array else f"{array.dtype} with values beyond 65504",
            expected="floating-point numbers that float16 can hold, for a payload of float16",
        )
    return cast


def _encoded(what: str, array: Array, declared: tuple[str, int] | None, kind: str, quality: int) -> Array:
    from edge_runtime.operators.image_file import encode

    images = _whole(what, array)
    if images.ndim == 2:
        images = images[np.newaxis, :, :, np.newaxis]
    elif images.ndim == 3:
        images = images[np.newaxis]
    if images.ndim != 4 or images.shape[3] not in (1, 3) or not images.size:
        raise HybridgeError(
            ErrorCode.INPUT_SHAPE,
            what,
            received=f"shape {array.shape}",
            expected=f"(images, height, width, channels) with 1 or 3 channels, for a payload of {kind}",
        )
    files: list[Array] = [encode(image, format=kind, quality=quality) for image in images]
    datatype, rank = declared or ("BYTES", 1)
    if datatype == "UINT8" and len(files) == 1:
        # A file's bytes as they are, as chains with the operator `decode` and Triton's DALI back end take them.
        return files[0] if rank != 2 else files[0].reshape(1, -1)
    content: Array = np.empty(len(files), object)
    content[:] = [file.tobytes() for file in files]
    return content if rank != 2 else content.reshape(-1, 1)
