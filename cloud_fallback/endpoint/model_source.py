"""What an argument of an endpoint stands for: a file, a folder of files, a chain, or a function that makes a model."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from cloud_fallback.endpoint.served.onnx_model import OnnxModel
from cloud_fallback.endpoint.served.served_model import ServedModel
from cloud_fallback.endpoint.served.tflite_model import TfliteModel
from edge_runtime.errors import ErrorCode, HybridgeError

__all__ = ["FORMATS", "find_models"]

# By file suffix. Each is called with a path and the keywords name, instances and num_threads.
FORMATS: Mapping[str, Callable[..., ServedModel]] = {
    ".edge": TfliteModel,
    ".tflite": TfliteModel,
    ".onnx": OnnxModel,
}

_FUNCTION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
_ATTRIBUTES = ("name", "version", "platform", "inputs", "outputs", "infer")


def find_models(source: str) -> list[tuple[str | None, Callable[..., ServedModel]]]:
    """What makes the models that one argument stands for, each with the name that it is given there."""
    name, separator, path = source.partition("=")
    # A path may have an equals sign of its own.
    given = name if separator and not Path(source).exists() else None
    target = path if given is not None else source
    if given != "" and _FUNCTION.fullmatch(target) and not Path(target).exists():
        return [(given, partial(_made, target))]
    if given != "" and Path(target).suffix == ".toml":
        return [(given, partial(_chain, target))]
    return [(name, partial(FORMATS[file.suffix], file)) for name, file in _files(source, given, Path(target))]


def _chain(path: str, **options: Any) -> ServedModel:
    # What runs chains is loaded with the first one.
    from cloud_fallback.endpoint.served.chain_model import ChainModel

    return ChainModel(path, **options)


def _files(source: str, given: str | None, target: Path) -> list[tuple[str | None, Path]]:
    if target.is_dir() and given is None:
        found = sorted(file for file in target.iterdir() if file.suffix in FORMATS and file.is_file())
        if not found:
            raise HybridgeError(
                ErrorCode.FILE_NOT_FOUND,
                f"folder '{target}'",
                received="no model in it",
                expected=f"files that end in {' or '.join(FORMATS)}",
            )
        return [(None, file) for file in found]
    if target.suffix not in FORMATS or given == "":
        raise HybridgeError(
            ErrorCode.USAGE,
            "model to serve",
            received=f"'{source}'",
            expected=f"[name=]path of a file that ends in {' or '.join(FORMATS)}, a folder of some, or "
            "[name=]module:function",
        )
    return [(given, target)]


def _made(source: str, **options: Any) -> ServedModel:
    """What a function makes of the endpoint's settings."""
    module, _, function = source.partition(":")
    try:
        model: ServedModel = getattr(importlib.import_module(module), function)(**options)
    except HybridgeError:
        raise
    except Exception as error:
        # Importing a module runs it, and that and the function may raise anything.
        raise _no_model(source, f"{type(error).__name__}: {error}") from error
    if lacking := [name for name in _ATTRIBUTES if not hasattr(model, name)]:
        raise _no_model(source, f"a {type(model).__name__} without {', '.join(lacking)}")
    return model


def _no_model(source: str, received: str) -> HybridgeError:
    return HybridgeError(
        ErrorCode.MODEL_INVALID,
        f"model of '{source}'",
        received=received,
        expected="module:function of an installed package, which returns a cloud_fallback.endpoint.served.ServedModel",
    )
