"""From samples as they were given to tensors as the model takes them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np

from convert.batch import batch_of, sample_shape
from convert.data.dataset import invalid
from convert.data.given import Given, Rows
from edge_runtime.manifest import RawInput
from edge_runtime.preprocessing import Preprocessor
from edge_runtime.tensor_spec import Array, TensorSpec

__all__ = ["array_digest", "prepared", "sample_shapes"]


def prepared(
    given: Given, index: Array | None, inputs: tuple[TensorSpec, ...], preprocessing: tuple[RawInput, ...]
) -> tuple[dict[str, Array], str]:
    """The model's inputs, and the digest of what was given for them.

    Args:
        given: The samples.
        index: Those to use; None means all.
        inputs: What the model takes; the first dimension is the batch.
        preprocessing: Steps for inputs that are given raw.

    Raises:
        HybridgeError: `data-invalid` for shapes, types and values that do not fit, before or after the steps.
    """
    raw = {each.name: each.takes for each in preprocessing}
    columns = dict(given.columns)
    arrays = {key: rows for key, rows in columns.items() if isinstance(rows, np.ndarray)}
    for key, array in arrays.items():
        columns[key] = arrays[key] = array if index is None else array[index]
        takes, shapes = _takes(key, inputs, raw)
        check_array(f"array '{key}' of {given.name}", arrays[key], shapes, takes.dtype, front=("samples",))
    if len(arrays) == len(columns) and not preprocessing:
        return arrays, array_digest(arrays)
    rows = {
        key: each if key in arrays or index is None else _Chosen(each, index) for key, each in columns.items()
    }
    return _one_by_one(
        given.name, rows, inputs, preprocessing, None if len(arrays) < len(columns) else arrays
    )


def sample_shapes(
    takes: TensorSpec, inputs: tuple[TensorSpec, ...], *, is_raw: bool
) -> list[tuple[int | str, ...]]:
    """The shapes that one sample may have."""
    if not is_raw:
        return [sample_shape(takes, inputs)]
    without_batch = takes.shape[1:]
    # A raw input may be described with a batch of one or without; the axis of samples then stands in its place.
    return [takes.shape, without_batch] if takes.shape[:1] == (1,) else [takes.shape]


def check_array(
    what: str, array: Array, shapes: list[tuple[int | str, ...]], dtype: str, *, front: tuple[str, ...] = ()
) -> None:
    """Refuses an array of another type or shape, or with values that are not finite.

    Args:
        what: What to call it in the error.
        array: One sample, or samples along the first axis.
        shapes: Those that one sample may have.
        dtype: The type that is taken.
        front: Names of axes in front of a sample's own.

    Raises:
        HybridgeError: `data-invalid`.
    """
    if str(array.dtype) != dtype:
        raise invalid(what, received=str(array.dtype), expected=dtype, fix=f"cast it with .astype('{dtype}')")
    fits = (TensorSpec("", shape, dtype).admits(array.shape[len(front) :]) for shape in shapes)
    if array.ndim < len(front) or not any(fits):
        batch = not front and any(len(shape) + 1 == array.ndim for shape in shapes)
        raise invalid(
            what,
            received=f"shape {array.shape}",
            expected=f"shape ({', '.join(map(str, (*front, *shapes[-1])))})",
            fix="give one sample at a time, without the batch" if batch else "reshape it",
        )
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        sample = int(np.argwhere(~np.isfinite(array))[0][0]) if front else None
        raise invalid(
            what,
            received="values that are not finite" + ("" if sample is None else f", first in sample {sample}"),
            expected="finite numbers",
            fix="drop or repair those samples",
        )


def array_digest(arrays: Mapping[str, Array]) -> str:
    """SHA-256 of names, types, shapes and values, in the order of names."""
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


class _Chosen:
    """Some of the rows."""

    def __init__(self, rows: Rows, index: Array):
        self._rows, self._index = rows, index

    def __len__(self) -> int:
        return len(self._index)

    def __getitem__(self, index: int, /) -> Array:
        return self._rows[int(self._index[index])]


def _takes(
    key: str, inputs: tuple[TensorSpec, ...], raw: Mapping[str, TensorSpec]
) -> tuple[TensorSpec, list[tuple[int | str, ...]]]:
    spec = next(spec for spec in inputs if spec.name == key)
    takes = raw.get(key, spec)
    return takes, sample_shapes(takes, inputs, is_raw=key in raw)


def _one_by_one(
    name: str,
    columns: Mapping[str, Rows],
    inputs: tuple[TensorSpec, ...],
    preprocessing: tuple[RawInput, ...],
    arrays: Mapping[str, Array] | None,
) -> tuple[dict[str, Array], str]:
    """Each sample is decoded, checked and preprocessed before the next: raw images may be large, and vary in size."""
    preprocess = Preprocessor(preprocessing)
    specs = {spec.name: spec for spec in inputs}
    raw = {each.name: each.takes for each in preprocessing}
    samples = len(next(iter(columns.values())))
    batched = batch_of(inputs) is not None
    digests = {key: hashlib.sha256() for key in columns}
    tensors: dict[str, Array] = {}
    for index in range(samples):
        one: dict[str, Array] = {}
        for key, rows in columns.items():
            row = rows[index]
            takes, shapes = _takes(key, inputs, raw)
            if arrays is None:
                check_array(f"'{key}' of sample {index} of {name}", row, shapes, takes.dtype)
                digests[key].update(f"{row.dtype.str} {row.shape}".encode())
                digests[key].update(np.ascontiguousarray(row).data)
            # What is described without a batch is given without one.
            one[key] = row if key in raw and len(takes.shape) == row.ndim else row[np.newaxis]
        for key, tensor in preprocess(one).items():
            # What has no batch was checked as it was given; there are no steps for it.
            if batched:
                _check_tensor(name, specs[key], tensor)
            if index == 0:
                tensors[key] = np.empty((samples, *tensor.shape[1:]), tensor.dtype)
            elif tensor.shape[1:] != tensors[key].shape[1:]:
                raise _misprepared(name, specs[key], tensor)
            tensors[key][index] = tensor[0]
    if arrays is not None:
        return tensors, array_digest(arrays)
    digest = hashlib.sha256()
    for key, each in sorted(digests.items()):
        digest.update(f"{key} {samples} {each.hexdigest()}".encode())
    return tensors, digest.hexdigest()


def _check_tensor(name: str, spec: TensorSpec, tensor: Array) -> None:
    # The batch is one here, whatever size it will be fixed to.
    shape = (1, *spec.shape[1:])
    if str(tensor.dtype) != spec.dtype or not TensorSpec("", shape, spec.dtype).admits(tensor.shape):
        raise _misprepared(name, spec, tensor)
    if tensor.dtype.kind == "f" and not np.isfinite(tensor).all():
        raise invalid(
            f"preprocessing of '{spec.name}' in {name}",
            received="values that are not finite",
            expected="finite numbers",
            fix="check what its steps divide by",
        )


def _misprepared(name: str, spec: TensorSpec, tensor: Array) -> Exception:
    return invalid(
        f"preprocessing of '{spec.name}' in {name}",
        received=f"{tensor.dtype} of shape {tensor.shape}",
        expected=f"{spec.dtype} of shape ({', '.join(map(str, (1, *spec.shape[1:])))})",
        fix="change its steps, for example with cast, reshape or expand-dims",
    )
