"""Operators on arrays of any kind; NumPy is all they need."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edge_runtime.operators.registry import operator
from edge_runtime.tensor_spec import Array

__all__ = ["cast", "expand_dims", "normalize", "reshape", "scale", "softmax", "top_k"]


@operator("scale")
def scale(array: Array, *, factor: float = 1.0, offset: float = 0.0) -> Array:
    """``array * factor + offset`` as float32, such as ``factor=1/255`` for an image in 0..1."""
    result: Array = np.multiply(array, np.float32(factor), dtype=np.float32)
    result += np.float32(offset)
    return result


@operator("normalize")
def normalize(array: Array, *, mean: Sequence[float] = (0.0,), std: Sequence[float] = (1.0,)) -> Array:
    """``(array - mean) / std`` along the last axis as float32, such as an image's channels."""
    result: Array = np.subtract(array, np.asarray(mean, np.float32), dtype=np.float32)
    result /= np.asarray(std, np.float32)
    return result


@operator("cast")
def cast(array: Array, *, dtype: str) -> Array:
    """The array as another type; values that do not fit an integer type saturate."""
    wanted = np.dtype(dtype)
    if np.issubdtype(wanted, np.integer):
        limits = np.iinfo(wanted)
        array = np.clip(np.rint(array) if array.dtype.kind == "f" else array, limits.min, limits.max)
    return array.astype(wanted)


@operator("reshape")
def reshape(array: Array, *, shape: Sequence[int]) -> Array:
    """The array in another shape; one size may be -1."""
    return np.ascontiguousarray(array).reshape(tuple(shape))


@operator("expand-dims")
def expand_dims(array: Array, *, axis: int = 0) -> Array:
    """The array with a new axis of size one, such as a batch of one."""
    return np.expand_dims(array, axis)


@operator("softmax")
def softmax(logits: Array, *, axis: int = -1) -> Array:
    """Probabilities of logits along an axis, as float32."""
    exponents: Array = np.exp((logits - logits.max(axis=axis, keepdims=True)).astype(np.float32))
    exponents /= exponents.sum(axis=axis, keepdims=True)
    return exponents


@operator("top-k", outputs=("indices", "values"))
def top_k(scores: Array, *, k: int = 5) -> dict[str, Array]:
    """The `k` largest scores along the last axis, largest first, and their indices (int64)."""
    k = min(k, scores.shape[-1])
    indices = np.argsort(-scores, axis=-1, kind="stable")[..., :k]
    return {"indices": indices, "values": np.take_along_axis(scores, indices, axis=-1)}
