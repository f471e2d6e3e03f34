"""Preprocessing steps written in TOML, a table for each input that is given raw.

Example::

    [image]
    shape = [8, 8]
    dtype = "uint8"
    steps = [
        { operator = "scale", params = { factor = 0.0625 } },
        { operator = "reshape", params = { shape = [1, 8, 8, 1] } },
    ]
"""

from __future__ import annotations

from os import PathLike

import msgspec
from msgspec import Struct

from edge_runtime.errors import ErrorCode, HybridgeError
from edge_runtime.files import read_file
from edge_runtime.manifest import PreprocessingStep, RawInput
from edge_runtime.tensor_spec import TensorSpec

__all__ = ["load_preprocessing"]


class _RawInputEntry(Struct, frozen=True, forbid_unknown_fields=True):
    """What a caller gives for one input; a string in `shape` names a dimension that may vary."""

    shape: tuple[int | str, ...]
    dtype: str
    steps: tuple[PreprocessingStep, ...]


def load_preprocessing(path: str | PathLike[str]) -> tuple[RawInput, ...]:
    """Reads preprocessing from TOML; see this module's text for its form.

    Raises:
        HybridgeError: `file-not-found`, `chain-invalid`.
    """
    try:
        entries = msgspec.toml.decode(read_file(path), type=dict[str, _RawInputEntry])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise HybridgeError(
            ErrorCode.CHAIN_INVALID,
            f"preprocessing '{path}'",
            received=str(error),
            expected="a TOML table for each input, with shape, dtype and steps",
        ) from error
    return tuple(
        RawInput(
            name=name, takes=TensorSpec(name=name, shape=entry.shape, dtype=entry.dtype), steps=entry.steps
        )
        for name, entry in entries.items()
    )
