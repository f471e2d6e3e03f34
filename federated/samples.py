"""Labelled samples, and the file in which a device keeps its own."""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass
from os import PathLike
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from edge_runtime.errors import ErrorCode, HybridgeError
from edge_runtime.files import read_file, write_file

__all__ = ["Features", "Labels", "Samples"]

Features: TypeAlias = npt.NDArray[np.float32]
Labels: TypeAlias = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Samples:
    """Inputs and their class labels, one of each a sample.

    Attributes:
        x: Inputs of shape (samples, ...), as the model takes them.
        y: Class labels of shape (samples,), in 0..classes-1.

    Raises:
        HybridgeError: `data-invalid` when there are not as many of one as of the other, or none at all.
    """

    x: Features
    y: Labels

    def __post_init__(self) -> None:
        if self.x.ndim < 2 or self.y.ndim != 1 or len(self.x) != len(self.y) or not len(self.y):
            raise HybridgeError(
                ErrorCode.DATA_INVALID,
                "labelled samples",
                received=f"inputs of shape {self.x.shape} and labels of shape {self.y.shape}",
                expected="shapes (samples, ...) and (samples,), with at least one sample",
            )

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, index: slice | npt.NDArray[np.int64]) -> Samples:
        return Samples(self.x[index], self.y[index])

    def save(self, path: str | PathLike[str]) -> None:
        """Writes them to a new `.npz` file with the arrays `x` and `y`."""
        content = io.BytesIO()
        np.savez(content, x=self.x, y=self.y)
        write_file(path, content.getvalue())

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Samples:
        """Reads what `save` wrote.

        Raises:
            HybridgeError: `file-not-found`; `data-invalid` for anything but such a file.
        """
        content = read_file(path)
        try:
            with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
                return cls(arrays["x"].astype(np.float32), arrays["y"].astype(np.int32))
        except (zipfile.BadZipFile, EOFError, KeyError, ValueError) as error:
            raise HybridgeError(
                ErrorCode.DATA_INVALID,
                f"samples '{path}'",
                received=str(error),
                expected="an .npz file with arrays x and y",
            ) from error
