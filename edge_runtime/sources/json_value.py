"""Values of a chain written as JSON: nested lists, texts, and files named by their path."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from edge_runtime.errors import ErrorCode, HybridgeError
from edge_runtime.sources.file_value import ARRAY_EXTENSIONS, IMAGE_EXTENSIONS, read_arrays, read_image
from edge_runtime.tensor_spec import Array, TensorSpec

__all__ = ["read_value"]


def read_value(value: Any, *, spec: TensorSpec | None, folder: Path, decode: bool) -> Array:
    """A JSON value as the array that it stands for.

    Args:
        value: A number, text or boolean, nested lists of one of these (null among numbers with a fraction is NaN), or
            ``{"path": FILE}`` for an image or an `.npy` file.
        spec: The input's type; without one, numbers with a fraction are float32 and whole ones int64. An image is read
            with as many channels, and gets a first axis of size 1 where there are four axes.
        folder: Where a relative path starts.
        decode: False gives an image file's bytes.

    Raises:
        HybridgeError: `input-invalid` for what is none of these or does not fit the type; those of the file.
    """
    if isinstance(value, dict):
        return _file(value, spec, folder, decode)
    kinds = _kinds(value)
    text = spec is not None and (spec.dtype == "text" or np.dtype(spec.dtype).kind == "U")
    if str in kinds or (text and not kinds):
        if kinds - {str} or (spec is not None and not text):
            raise _invalid("text among numbers" if kinds - {str} else "text", "text" if text else "numbers")
        # Without items NumPy cannot tell that there is room for a letter.
        return _array(value, np.dtype(np.str_)) if kinds else _array(value, np.dtype("<U1"))
    if text:
        raise _invalid("numbers", "text")
    wide = np.dtype(bool if kinds == {bool} else np.int64 if kinds and kinds <= {int, bool} else np.float64)
    narrow = wide if wide.kind != "f" else np.dtype(np.float32)
    return _fitting(_array(value, wide), narrow if spec is None else np.dtype(spec.dtype))


def _kinds(value: Any) -> set[type]:
    """Types of what nested lists hold."""
    if not isinstance(value, list):
        return {type(value)}
    kinds = set(map(type, value))
    if list in kinds:
        kinds.discard(list)
        for item in value:
            if isinstance(item, list):
                kinds |= _kinds(item)
    return kinds


def _array(value: Any, dtype: np.dtype[Any]) -> Array:
    try:
        return np.array(value, dtype)
    except (ValueError, TypeError, OverflowError) as error:
        raise _invalid(f"a value that is no array ({error})", "nested lists of equal lengths") from error


def _fitting(array: Array, dtype: np.dtype[Any]) -> Array:
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        whole = array.dtype.kind != "f" or (np.isfinite(array).all() and (array == np.rint(array)).all())
        if not whole or (array.size and (array.min() < limits.min or array.max() > limits.max)):
            raise _invalid("numbers that do not fit", f"whole numbers of type {dtype}")
    elif dtype.kind == "b" and not np.isin(array, (0, 1)).all():
        raise _invalid("numbers that do not fit", "true and false")
    with np.errstate(over="ignore"):
        cast = array.astype(dtype)
    if dtype.kind == "f" and np.isfinite(array).all() and not np.isfinite(cast).all():
        raise _invalid("numbers that do not fit", f"numbers of type {dtype}")
    return cast


def _file(value: dict[str, Any], spec: TensorSpec | None, folder: Path, decode: bool) -> Array:
    if value.keys() != {"path"} or not isinstance(value["path"], str):
        raise _invalid(f"an object with {', '.join(value) or 'nothing'}", 'a value, or {"path": FILE}')
    path = folder / value["path"]
    suffix = path.suffix.lower()
    if suffix == ".npy":
        return read_arrays(path, name="array")["array"]
    if suffix not in IMAGE_EXTENSIONS:
        raise _invalid(
            f"file '{path.name}'",
            f"a file that ends in {', '.join([*IMAGE_EXTENSIONS, ARRAY_EXTENSIONS[0]])}",
        )
    shape = spec.shape if spec is not None else ()
    image = read_image(path, decode=decode, channels=1 if shape and shape[-1] == 1 else 3)
    return image[np.newaxis] if decode and len(shape) == 4 else image


def _invalid(received: str, expected: str) -> HybridgeError:
    return HybridgeError(ErrorCode.INPUT_INVALID, "value", received=received, expected=expected)
