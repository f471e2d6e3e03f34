"""The types that tensors have while they are computed on a device.

TFLite has kernels for float32, int32, int64 and bool; of the other types of ONNX it can hold values, and cast them, but
computes little. A tensor of such a type is therefore carried in one that holds all its values and that the
device computes with; it is cast where it enters and leaves the model. Integers are wrapped where arithmetic may leave
their range. `uint64` is carried with its bits in int64.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from convert.libraries import load_library
from edge_runtime.tensor_spec import Array

__all__ = ["carrier", "carry", "element_type", "from_carrier", "is_float", "is_held", "wrapped"]

_CARRIERS = {
    "float16": "float32",
    "float32": "float32",
    "float64": "float32",
    "int8": "int32",
    "uint8": "int32",
    "int16": "int32",
    "uint16": "int32",
    "int32": "int32",
    "uint32": "int64",
    "int64": "int64",
    "uint64": "int64",
    "bool": "bool",
}

# What TFLite can neither hold nor cast: strings, and floats and integers of less than a byte or of other formats.
_HELD = frozenset(_CARRIERS) - {"uint64"}


def element_type(elem_type: int) -> np.dtype[Any]:
    """The numpy type of an ONNX element type; those without one come as the extension types of `ml_dtypes`."""
    helper = load_library("onnx").helper
    dtype: np.dtype[Any] = np.dtype(helper.tensor_dtype_to_np_dtype(elem_type))
    return dtype


def is_held(dtype: np.dtype[Any]) -> bool:
    """Whether a device can take or return a tensor of this type."""
    return dtype.name in _HELD


def is_float(dtype: np.dtype[Any]) -> bool:
    """Whether values of this type are real numbers."""
    return carrier(dtype) in ("float32", "float64")


def carrier(dtype: np.dtype[Any]) -> str:
    """Name of the type in which values of `dtype` are computed; float64 keeps its own where constants are folded."""
    tensorflow = load_library("tensorflow")
    if dtype.name == "float64" and tensorflow.executing_eagerly():
        return "float64"
    # bfloat16 and the other small formats are known as constants only.
    return _CARRIERS.get(dtype.name, "float32")


def carry(array: Array) -> Array:
    """The same values in their carrier."""
    if array.dtype == np.uint64:
        return array.view(np.int64)
    return array.astype(carrier(array.dtype))


def from_carrier(array: Array, dtype: np.dtype[Any]) -> Array:
    """Carried values in their own type again."""
    if dtype == np.uint64:
        return array.astype(np.int64).view(np.uint64)
    return array.astype(dtype)


def wrapped(tensor: Any, dtype: np.dtype[Any]) -> Any:
    """A carried tensor with each value reduced to the range of an integer type narrower than its carrier."""
    if dtype.kind not in "iu" or carrier(dtype) == dtype.name or dtype == np.uint64:
        return tensor
    cast = load_library("tensorflow").cast
    return cast(cast(tensor, dtype.name), tensor.dtype)
