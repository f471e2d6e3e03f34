"""The kinds of source there are, and how a file, a folder or an object is taken for one of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from convert.sources.source import Source
from edge_runtime.errors import ErrorCode, HybridgeError

__all__ = ["open_source"]


def open_source(
    source: Any,
    *,
    signature: str | None = None,
    custom: Sequence[str] = (),
    channels_last: bool = False,
    constants: Mapping[str, Any] | None = None,
) -> Source:
    """Opens a trained model.

    Args:
        source: A path to a `.keras`, `.h5`, `.onnx` or float `.tflite` file or to a SavedModel folder, a Keras model
            in memory, or a `Source`, which is returned as it is.
        signature: Which signature of a SavedModel or `.tflite`; without it, the only one or ``serving_default``.
        custom: Modules to import first, whose classes and functions a Keras model names.
        channels_last: Whether an ONNX model shall take and give images channels-last, as others do anyway.
        constants: Values of inputs of an ONNX model that never change.

    Raises:
        HybridgeError: `file-not-found`, `source-invalid`, `extra-missing`; `usage` for a flag that does not go with
            this kind of source, or a module that cannot be imported.
    """
    if isinstance(source, str | PathLike):
        path = Path(fspath(source))
        return _kind(path)(path, _Options(signature, tuple(custom), channels_last, constants or {}))
    if callable(getattr(source, "export", None)) and isinstance(getattr(source, "digest", None), str):
        opened: Source = source
        return opened
    if not hasattr(source, "get_weights"):
        raise _unknown(f"an object of type {type(source).__name__}")
    from convert.sources.keras_source import KerasSource

    _refuse_signature(signature, "a Keras model in memory")
    return KerasSource.from_model(source, custom=tuple(custom))


@dataclass(frozen=True)
class _Options:
    """How a file is to be read, of which each kind understands a part and refuses the rest."""

    signature: str | None
    custom: tuple[str, ...]
    channels_last: bool
    constants: Mapping[str, Any]


_Opener = Callable[[Path, _Options], Source]


def _open_keras(path: Path, options: _Options) -> Source:
    from convert.sources.keras_source import KerasSource

    _refuse_signature(options.signature, f"'{path.name}'")
    _refuse_onnx_flags(options, f"'{path.name}'")
    return KerasSource.from_file(path, custom=options.custom)


def _open_saved_model(path: Path, options: _Options) -> Source:
    from convert.sources.saved_model_source import SavedModelSource

    _refuse_custom(options.custom, f"'{path.name}'")
    _refuse_onnx_flags(options, f"'{path.name}'")
    return SavedModelSource(path, signature=options.signature)


def _open_tflite(path: Path, options: _Options) -> Source:
    from convert.sources.tflite_source import TFLiteSource

    _refuse_custom(options.custom, f"'{path.name}'")
    _refuse_onnx_flags(options, f"'{path.name}'")
    return TFLiteSource(path, signature=options.signature)


def _open_onnx(path: Path, options: _Options) -> Source:
    from convert.sources.onnx_source import OnnxSource

    _refuse_signature(options.signature, f"'{path.name}'")
    _refuse_custom(options.custom, f"'{path.name}'")
    return OnnxSource(path, channels_last=options.channels_last, constants=options.constants)


# Each kind of source, by the ending of its file's name; a folder is a SavedModel.
_OPENERS: dict[str, _Opener] = {
    ".keras": _open_keras,
    ".h5": _open_keras,
    ".hdf5": _open_keras,
    ".tflite": _open_tflite,
    ".onnx": _open_onnx,
}
_EXPECTED = "a .keras, .h5, .onnx or .tflite file, a SavedModel folder, or a Keras model in memory"


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
            expected="none: the model has one way to be called",
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


def _refuse_onnx_flags(options: _Options, received: str) -> None:
    for given, flag in ((options.channels_last, "--channels-last"), (options.constants, "--constant")):
        if given:
            raise HybridgeError(
                ErrorCode.USAGE,
                f"flag {flag}",
                received=received,
                expected="an ONNX model: others are converted with the inputs that they have",
                fix=f"leave {flag} out",
            )


def _unknown(received: str) -> HybridgeError:
    return HybridgeError(
        ErrorCode.SOURCE_INVALID,
        "source model",
        received=received,
        expected=_EXPECTED,
        fix="save the model with model.save('name.keras')",
    )
