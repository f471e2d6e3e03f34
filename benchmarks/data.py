"""The folder of models and data that benchmarks measure with, which is not part of the project."""

from __future__ import annotations

import os
from pathlib import Path

from edge_runtime import ErrorCode, HybridgeError

__all__ = ["data_file"]


def data_file(path: str) -> Path:
    """A file in the folder that the environment variable `HYBRIDGE_DATA` names.

    Raises:
        HybridgeError: `file-not-found` when the variable is not set or the file is not there.
    """
    folder = os.environ.get("HYBRIDGE_DATA")
    if not folder:
        raise HybridgeError(
            ErrorCode.FILE_NOT_FOUND,
            f"'{path}' of the benchmark data",
            received="no HYBRIDGE_DATA in the environment",
            expected="the folder with the models and data",
            fix="set it, such as HYBRIDGE_DATA=/data",
        )
    found = Path(folder) / path
    if not found.exists():
        raise HybridgeError(
            ErrorCode.FILE_NOT_FOUND,
            f"'{path}' of the benchmark data",
            received=f"nothing at {found}",
            fix="add it",
        )
    return found
