"""Reading a dataset from whatever a user names."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike, fspath
from pathlib import Path
from typing import TypeAlias

from convert.data.arrays import from_mapping, read_npz
from convert.data.dataset import LABEL, Dataset
from convert.data.function import is_function, read_function
from convert.data.given import Given, chosen_samples, label_slice
from convert.data.images import read_images
from convert.data.preparation import prepared
from edge_runtime.errors import ErrorCode, HybridgeError
from edge_runtime.manifest import RawInput
from edge_runtime.tensor_spec import Array, TensorSpec

__all__ = ["DataSource", "load_dataset"]

DataSource: TypeAlias = Mapping[str, Array] | str | PathLike[str]
"""Arrays by name, an `.npz` file, a folder of images, or ``module:function``."""


def load_dataset(
    source: DataSource,
    inputs: tuple[TensorSpec, ...],
    preprocessing: tuple[RawInput, ...] = (),
    *,
    slices: tuple[str, ...] = (),
    limit: int | None = None,
    labels: tuple[str, ...] = (),
) -> Dataset:
    """Reads samples and checks them against what a model takes.

    A source is one of

    - an `.npz` file or a mapping: for each input an array of shape (samples, ...) under the input's name, and
      optionally the true classes under ``label``, integers of shape (samples,). Further arrays are left out;
    - a folder of images with a folder a class, or without labels a flat one, for a model that takes one image. Values
      are 0..255; see `convert.data.images`;
    - ``module:function``: called without arguments, it yields a dictionary a sample, with an array for each input
      without the batch axis, and optionally ``label``. Of one that yields for ever, the first `limit` samples are
      taken, else the first 10,000.

    Args:
        source: Where samples come from.
        inputs: What the model takes; the first dimension is the batch.
        preprocessing: For inputs that are given raw, what one call takes and the steps that follow.
        slices: Arrays, or values of each sample, that group the samples; ``label`` groups them by class.
        limit: The most samples to use: an even choice, the same each time, in which classes keep their shares.
        labels: Names of the classes, to which folders are matched and by which slices of ``label`` are named.

    Raises:
        HybridgeError: `file-not-found`; `data-invalid` for wrong names, shapes, types or lengths, no samples, values
            that are not finite, or images that cannot be read; `extra-missing` for images without the `vision` extra;
            `usage` for a limit below one.
    """
    if limit is not None and limit < 1:
        raise HybridgeError(ErrorCode.USAGE, "limit of samples", received=str(limit), expected="1 or more")
    given = _given(source, inputs, preprocessing, slices=slices, limit=limit, labels=labels)
    index = chosen_samples(len(given), limit, given.labels)
    arrays, digest = prepared(given, index, inputs, preprocessing)
    groups = dict(given.slices)
    if LABEL in slices and LABEL not in arrays:
        groups[LABEL] = label_slice(given.name, given.labels, labels)

    def chosen(values: Array) -> Array:
        picked: Array = values if index is None else values[index]
        return picked

    return Dataset(
        arrays,
        None if given.labels is None else chosen(given.labels),
        digest,
        slices={key: chosen(groups[key]) for key in dict.fromkeys(slices)},
        notes=given.notes,
    )


def _given(
    source: DataSource,
    inputs: tuple[TensorSpec, ...],
    preprocessing: tuple[RawInput, ...],
    *,
    slices: tuple[str, ...],
    limit: int | None,
    labels: tuple[str, ...],
) -> Given:
    if isinstance(source, Mapping):
        return from_mapping("dataset", source, inputs, slices)
    path = Path(fspath(source))
    # An empty path would be the current folder.
    if path.is_dir() and fspath(source):
        given = read_images(path, inputs, preprocessing, labels)
        return _without_slices(given, slices)
    if path.is_file():
        return from_mapping(f"dataset '{path.name}'", read_npz(path), inputs, slices)
    if isinstance(source, str) and is_function(source):
        return read_function(source, inputs, slices, limit)
    raise HybridgeError(
        ErrorCode.FILE_NOT_FOUND,
        f"dataset '{path}'",
        expected="a readable .npz file, a folder of images, or module:function",
        fix="check the path",
    )


def _without_slices(given: Given, slices: tuple[str, ...]) -> Given:
    if other := [name for name in slices if name != LABEL]:
        raise HybridgeError(
            ErrorCode.DATA_INVALID,
            given.name,
            received=f"slices {', '.join(other)}",
            expected=f"{LABEL}, the only one that a folder of images has",
            fix="give the samples in an .npz file, or by module:function",
        )
    return given
