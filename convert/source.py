"""A trained model that goes into a conversion, whatever made it."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike, fspath
from pathlib import Path
from typing import Any, Protocol

from edge_runtime.errors import ErrorCode, HybridgeError
from edge_runtime.tensor_spec import Array, TensorSpec

__all__ = ["Source", "open_source"]


class Source(Protocol):
    """A trained model with named inputs and outputs, which can be run and exported.

    Attributes:
        name: The file's name, or the model's own; never a path.
        digest: SHA-256 of the file, or of architecture and weights; 64 hexadecimal digits.
        inputs: Names, shapes and types, in the model's order; a string names a dimension that may vary.
        outputs: The same of what it returns.
        weight_bytes: Bytes of the weights in memory.
        saved_at: The time that the file itself records, ISO 8601, if it does.
        tools: Distributions that its export depends on.
    """

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def digest(self) -> str: ...  # noqa: D102
    @property
    def inputs(self) -> tuple[TensorSpec, ...]: ...  # noqa: D102
    @property
    def outputs(self) -> tuple[TensorSpec, ...]: ...  # noqa: D102
    @property
    def weight_bytes(self) -> int: ...  # noqa: D102
    @property
    def saved_at(self) -> str | None: ...  # noqa: D102
    @property
    def tools(self) -> tuple[str, ...]: ...  # noqa: D102

    def predict(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Runs the original model on arrays of shape (samples, ...), as in inference."""

    def export(self, batch_size: int) -> bytes:
        """The model as a float `.tflite` with every dimension fixed."""


def open_source(source: Any) -> Source:
    """Opens a trained model.

    Args:
        source: A path to a `.keras` file, a `keras.Model` in memory, or a `Source`.

    Raises:
        HybridgeError: `file-not-found`, `source-invalid`, `extra-missing`.
    """
    from convert.keras_source import KerasSource

    if isinstance(source, str | PathLike):
        path = Path(fspath(source))
        if path.suffix != ".keras":
            raise _unknown(f"'{path.name}'")
        return KerasSource.from_file(path)
    if callable(getattr(source, "export", None)) and isinstance(getattr(source, "digest", None), str):
        opened: Source = source
        return opened
    if not hasattr(source, "get_weights"):
        raise _unknown(f"an object of type {type(source).__name__}")
    return KerasSource.from_model(source)


def _unknown(received: str) -> HybridgeError:
    return HybridgeError(
        ErrorCode.SOURCE_INVALID,
        "source model",
        received=received,
        expected="a path that ends in .keras, or a keras.Model",
        fix="save the model with model.save('name.keras')",
    )
