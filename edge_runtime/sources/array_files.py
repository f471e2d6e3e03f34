"""NumPy files as frames: each file, or each row of its arrays."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from edge_runtime.errors import ErrorCode, HybridgeError
from edge_runtime.frame import Frame
from edge_runtime.sources.file_list import Paths, list_files
from edge_runtime.sources.file_value import ARRAY_EXTENSIONS, no_array, open_file, read_arrays
from edge_runtime.sources.source import Source
from edge_runtime.tensor_spec import Array

__all__ = ["ArrayFiles"]


class ArrayFiles(Source):
    """Arrays of `.npy` and `.npz` files; those of an archive go to the inputs of their names.

    A file that is missing or damaged is an error in the place of its frames, and the rest go on.

    Args:
        paths: A file, a sequence of files, or a folder (its `.npy` and `.npz` files, by name).
        name: The chain's input that the array of an `.npy` file is for.
        rows: Each index of the first axis is a frame, in place of the file as a whole; the arrays of an archive
            must have as many. An `.npy` file is then read one row at a time, however large it is.
        keep_axis: A row keeps its first axis, of size 1, for a chain that takes batches.

    Raises:
        HybridgeError: `file-not-found` for a path with nothing there, or a folder without arrays.

    Example:
        >>> with ArrayFiles("digits.npy", name="image", rows=True, keep_axis=True) as source:
        ...     next(iter(source)).inputs["image"].shape
        (1, 8, 8, 1)
    """

    def __init__(self, paths: Paths, *, name: str = "array", rows: bool = False, keep_axis: bool = False):
        super().__init__()
        self._paths = list_files(paths, extensions=ARRAY_EXTENSIONS)
        self._name = name
        self._rows = rows
        self._keep_axis = keep_axis
        self.length = None if rows else len(self._paths)

    def _frames(self) -> Generator[Frame | HybridgeError]:
        for path in self._paths:
            try:
                if not self._rows:
                    yield Frame(read_arrays(path, name=self._name), name=path.name)
                    continue
                for index, row in enumerate(self._rows_of(path)):
                    inputs = (
                        {key: value[np.newaxis] for key, value in row.items()} if self._keep_axis else row
                    )
                    yield Frame(inputs, name=f"{path.name}[{index}]")
            except HybridgeError as error:
                yield error

    def _rows_of(self, path: Path) -> Iterator[Mapping[str, Array]]:
        if path.suffix.lower() == ".npy":
            for row in _rows_of_npy(path):
                yield {self._name: row}
            return
        arrays = read_arrays(path, name=self._name)
        sizes = {key: array.shape[0] if array.ndim else None for key, array in arrays.items()}
        if None in sizes.values() or len(set(sizes.values())) != 1:
            raise HybridgeError(
                ErrorCode.INPUT_SHAPE,
                f"file '{path}'",
                received=", ".join(f"'{key}' of shape {array.shape}" for key, array in arrays.items())
                or "no arrays",
                expected="arrays with as many rows each",
            )
        for index in range(next(size for size in sizes.values() if size is not None)):
            # A copy, so that a frame does not keep the whole file in memory.
            yield {key: np.array(array[index]) for key, array in arrays.items()}


def _rows_of_npy(path: Path) -> Iterator[Array]:
    # Not a memory map: a file that shrinks under a map ends the process.
    with open_file(path) as file:
        shape, fortran_order, dtype = _header(path, file)
        if not shape or fortran_order:
            whole = read_arrays(path, name="")[""]
            if not shape:
                raise HybridgeError(
                    ErrorCode.INPUT_SHAPE, f"file '{path}'", received="one number", expected="rows"
                )
            yield from (np.array(row, order="C") for row in whole)
            return
        size = math.prod(shape[1:]) * dtype.itemsize
        for index in range(shape[0]):
            content = file.read(size)
            if len(content) < size:
                raise no_array(path, f"a file that ends in row {index} of {shape[0]}")
            yield (
                np.frombuffer(bytearray(content), dtype).reshape(shape[1:])
                if size
                else np.empty(shape[1:], dtype)
            )


def _header(path: Path, file: BinaryIO) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    try:
        version = np.lib.format.read_magic(file)
        read = (
            np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        )
        shape, fortran_order, dtype = read(file)
    except Exception as error:
        # NumPy's parser has errors of several kinds for a header that is damaged.
        raise no_array(path, str(error) or type(error).__name__) from error
    if dtype.hasobject:
        raise no_array(path, "Python objects")
    if min(shape, default=0) < 0:
        raise no_array(path, f"shape {shape}")
    return shape, fortran_order, dtype
