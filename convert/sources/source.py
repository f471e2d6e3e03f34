"""A trained model that goes into a conversion, whatever made it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike, fspath
from pathlib import Path
from typing import Any, Literal, Protocol

from edge_runtime.errors import ErrorCode, HybridgeError
from edge_runtime.tensor_spec import Array, TensorSpec

__all__ = ["Architecture", "Source", "no_architecture", "open_source"]


@dataclass(frozen=True)
class Architecture:
    """What training needs to build a model again in a process of its own.

    Attributes:
        library: Whose configuration it is: Keras 3, or Keras 2 (`tf_keras`).
        config: The serialised model, JSON-like: of Keras 3 what `keras.saving.serialize_keras_object` gives, of
            `tf_keras` what `to_json` does.
        weights: Values of `model.get_weights()`, in order.
        custom: Modules to import first, which register the classes that the configuration names.
    """

    library: Literal["keras", "tf_keras"]
    config: dict[str, Any]
    weights: tuple[Array, ...]
    custom: tuple[str, ...] = ()


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
    @property
    def architecture(self) -> Architecture | None:
        """What training needs to build it again; None for a source that is no Keras model."""

    def predict(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Runs the original model on arrays of shape (samples, ...), as in inference."""

    def export(self, inputs: tuple[TensorSpec, ...]) -> bytes:
        """The model as a float `.tflite` that takes exactly these, every dimension fixed."""

    def with_weights(self, weights: Sequence[Array]) -> Source:
        """The same model with other values in the order of `architecture.weights`; this one stays as it is."""


def open_source(source: Any, *, signature: str | None = None, custom: Sequence[str] = ()) -> Source:
    """Opens a trained model.

    Args:
        source: A path to a `.keras`, `.h5` or float `.tflite` file or to a SavedModel folder, a Keras model in memory,
            or a `Source`, which is returned as it is.
        signature: Which signature of a SavedModel or `.tflite`; without it, the only one or ``serving_default``.
        custom: Modules to import first, whose classes and functions a Keras model names.

    Raises:
        HybridgeError: `file-not-found`, `source-invalid`, `extra-missing`; `usage` for a flag that does not go with
            this kind of source, or a module that cannot be imported.
    """
    if isinstance(source, str | PathLike):
        path = Path(fspath(source))
        return _kind(path)(path, signature, tuple(custom))
    if callable(getattr(source, "export", None)) and isinstance(getattr(source, "digest", None), str):
        opened: Source = source
        return opened
    if not hasattr(source, "get_weights"):
        raise _unknown(f"an object of type {type(source).__name__}")
    from convert.sources.keras_source import KerasSource

    _refuse_signature(signature, "a Keras model in memory")
    return KerasSource.from_model(source, custom=tuple(custom))


def no_architecture(name: str) -> HybridgeError:
    """The error for training a model that cannot be built again."""
    return HybridgeError(
        ErrorCode.SOURCE_INVALID,
        f"source model '{name}'",
        received="a model that cannot be built again with other weights",
        expected="a Keras model: training-time recipes need one",
        fix="convert the Keras model that it was made from, or use a recipe that does not train",
    )


_Opener = Callable[[Path, str | None, tuple[str, ...]], Source]


def _open_keras(path: Path, signature: str | None, custom: tuple[str, ...]) -> Source:
    from convert.sources.keras_source import KerasSource

    _refuse_signature(signature, f"'{path.name}'")
    return KerasSource.from_file(path, custom=custom)


def _open_saved_model(path: Path, signature: str | None, custom: tuple[str, ...]) -> Source:
    from convert.sources.saved_model_source import SavedModelSource

    _refuse_custom(custom, f"'{path.name}'")
    return SavedModelSource(path, signature=signature)


def _open_tflite(path: Path, signature: str | None, custom: tuple[str, ...]) -> Source:
    from convert.sources.tflite_source import TFLiteSource

    _refuse_custom(custom, f"'{path.name}'")
    return TFLiteSource(path, signature=signature)


def _open_onnx(path: Path, _signature: str | None, _custom: tuple[str, ...]) -> Source:
    raise HybridgeError(
        ErrorCode.SOURCE_INVALID,
        f"source model '{path.name}'",
        received="an ONNX model, which cannot be converted yet",
        expected=_EXPECTED,
        fix="export the model from its framework as a SavedModel",
    )


# Each kind of source, by the ending of its file's name; a folder is a SavedModel.
_OPENERS: dict[str, _Opener] = {
    ".keras": _open_keras,
    ".h5": _open_keras,
    ".hdf5": _open_keras,
    ".tflite": _open_tflite,
    ".onnx": _open_onnx,
}
_EXPECTED = "a .keras, .h5 or .tflite file, a SavedModel folder, or a Keras model in memory"


def _kind(path: Path) -> _Opener:
    if path.is_dir():
        return _open_saved_model
    opener = _OPENERS.get(path.suffix.lower())
    if opener is not None:
        return opener
    if not path.exists():
        raise HybridgeError(
            ErrorCode.FILE_NOT_FOUND,
            f"file '{path}'",
            received="No such file or directory",
            expected=_EXPECTED,
            fix="check the path",
        )
    raise _unknown(f"'{path.name}'")


def _refuse_signature(signature: str | None, received: str) -> None:
    if signature is not None:
        raise HybridgeError(
            ErrorCode.USAGE,
            "signature of the source model",
            received=f"'{signature}' for {received}",
            expected="none: a Keras model has one way to be called",
            fix="leave --signature out",
        )


def _refuse_custom(custom: tuple[str, ...], received: str) -> None:
    if custom:
        raise HybridgeError(
            ErrorCode.USAGE,
            "custom modules",
            received=f"{', '.join(custom)} for {received}",
            expected="none: only Keras files name classes",
            fix="leave --custom out",
        )


def _unknown(received: str) -> HybridgeError:
    return HybridgeError(
        ErrorCode.SOURCE_INVALID,
        "source model",
        received=received,
        expected=_EXPECTED,
        fix="save the model with model.save('name.keras')",
    )
