"""What an argument of an endpoint stands for: a file, folders of files, a chain, or a function that makes a model."""

from __future__ import annotations

import importlib
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from cloud_fallback.endpoint.model_settings import ModelSettings
from cloud_fallback.endpoint.served.onnx_model import OnnxModel
from cloud_fallback.endpoint.served.served_model import ServedModel
from cloud_fallback.endpoint.served.tflite_model import TfliteModel
from edge_runtime.errors import ErrorCode, HybridgeError
from edge_runtime.files import read_file

__all__ = ["FORMATS", "ModelSource", "find_models"]

_FUNCTION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
_ATTRIBUTES = ("name", "version", "platform", "inputs", "outputs", "infer")
_SAVED_MODEL = "saved_model.pb"
# What a model's folder in a repository may hold beside its versions.
_SETTINGS = "model.toml"
# Left out of folders like what is hidden: what file systems repaired, and what macOS puts into a zip.
_NO_MODELS = ("lost+found", "__MACOSX")


@dataclass(frozen=True, slots=True)
class ModelSource:
    """One model that can be loaded, in one version.

    Attributes:
        make: Loads it; takes `name`, `instances`, `num_threads` and `batching`.
        path: The file or folder it is in, or None for a function.
        name: What requests call it, where that is given rather than the model's own.
        version: Its version, likewise.
        settings: Of the model's folder.
    """

    make: Callable[..., ServedModel]
    path: Path | None
    name: str | None = None
    version: str | None = None
    settings: ModelSettings = field(default_factory=ModelSettings)

    @property
    def title(self) -> str:
        """What to call it before it is loaded."""
        return self.name or (self.path.stem if self.path is not None else "model")

    def state(self) -> object:
        """What changes when it has to be loaded anew; None for what cannot change."""
        if self.path is None:
            return None
        # A version's folder may hold more of its model: ONNX keeps large weights in a file beside it.
        top = self.path if self.version is None or self.path.is_dir() else self.path.parent
        try:
            files = sorted(top.rglob("*")) if top.is_dir() else [top]
        except OSError:
            # Folders go while they are read.
            files = [top]
        settings = self.settings
        return (settings.instances, settings.num_threads, settings.batching, *map(_file_state, files))


def find_models(argument: str) -> list[ModelSource]:
    """The models that one argument stands for.

    A path may be a file, a SavedModel, a folder of such, or a repository: a folder with a folder for each model, which
    has a folder for each version with one file, and may have a `model.toml` (see `ModelSettings`). What is hidden in a
    folder is none of these.

    Raises:
        HybridgeError: `usage` for a file of another kind, `file-not-found` for a folder without models or one that
            cannot be read, `data-invalid` for settings that cannot be.
    """
    try:
        found = _found(argument)
        for source in found:
            str(source.path).encode()
    except UnicodeEncodeError as error:
        # Neither the protocol nor the runtimes take it.
        raise HybridgeError(
            ErrorCode.USAGE, "model to serve", received=f"path {error.object!a}", expected="one in UTF-8"
        ) from error
    except OSError as error:
        raise HybridgeError(
            ErrorCode.FILE_NOT_FOUND,
            f"path '{error.filename or argument}'",
            received=error.strerror or str(error),
            expected="files and folders that can be read",
        ) from error
    return found


def _found(argument: str) -> list[ModelSource]:
    name, separator, path = argument.partition("=")
    # A path may have an equals sign of its own.
    given = name if separator and not Path(argument).exists() else None
    target = path if given is not None else argument
    if "" in (given, target):
        raise _unknown(argument)
    if _FUNCTION.fullmatch(target) and not Path(target).exists():
        return [ModelSource(_FromFunction(target), None, given)]
    folder = Path(target)
    if folder.is_dir() and not _is_model(folder):
        if given is not None:
            raise _unknown(argument)
        return _in_folder(folder)
    make = _maker(folder)
    if make is None:
        raise _unknown(argument)
    return [ModelSource(make, folder, given)]


def _in_folder(folder: Path) -> list[ModelSource]:
    listed = _listed(folder)
    found = [
        ModelSource(make, file) for file in listed if _is_model(file) and (make := _maker(file)) is not None
    ]
    for model in (each for each in listed if each.is_dir() and not _is_model(each)):
        found += _versions(model)
    if not found:
        raise HybridgeError(
            ErrorCode.FILE_NOT_FOUND,
            f"folder '{folder}'",
            received="no model in it",
            expected="models, SavedModels, or folders name/version/ with one each, none of them hidden",
        )
    return found


def _listed(folder: Path) -> list[Path]:
    """What a folder shows.

    Kubernetes mounts a ConfigMap's files as links into a hidden folder `..data`, which it replaces as a whole.
    """
    return sorted(
        each for each in folder.iterdir() if not each.name.startswith(".") and each.name not in _NO_MODELS
    )


def _file_state(file: Path) -> tuple[int, int, int] | None:
    try:
        stat = file.stat()
    except OSError:
        # It has gone meanwhile, or is a link to nothing.
        return None
    return stat.st_ino, stat.st_size, stat.st_mtime_ns


def _versions(folder: Path) -> list[ModelSource]:
    """The versions in a model's folder that its settings choose."""
    settings = _read_settings(folder / _SETTINGS) if (folder / _SETTINGS).exists() else ModelSettings()
    found = {}
    for version in (each for each in _listed(folder) if each.is_dir()):
        if _is_model(version):
            found[version.name] = version
            continue
        files = [file for file in _listed(version) if _is_model(file)]
        if len(files) > 1:
            raise HybridgeError(
                ErrorCode.USAGE,
                f"version folder '{version}'",
                received=f"{len(files)} models: {', '.join(file.name for file in files)}",
                expected="one",
            )
        if files:
            found[version.name] = files[0]
    return [
        ModelSource(_maker(found[version]) or OnnxModel, found[version], folder.name, version, settings)
        for version in settings.choose(list(found))
    ]


def _is_model(path: Path) -> bool:
    if path.is_dir():
        return (path / _SAVED_MODEL).is_file()
    return path.suffix in FORMATS and path.suffix != ".toml" and path.is_file()


def _maker(path: Path) -> Callable[..., ServedModel] | None:
    kind = _saved_model if (path / _SAVED_MODEL).is_file() else FORMATS.get(path.suffix)
    return None if kind is None else partial(kind, path)


def _read_settings(path: Path) -> ModelSettings:
    try:
        return msgspec.convert(tomllib.loads(read_file(path).decode()), ModelSettings)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, msgspec.ValidationError) as error:
        raise HybridgeError(
            ErrorCode.DATA_INVALID,
            f"settings '{path}'",
            received=str(error),
            expected=f"TOML with keys among {', '.join(ModelSettings.__struct_fields__)}",
        ) from error


def _chain(path: Path, **options: Any) -> ServedModel:
    # What runs chains is loaded with the first one.
    from cloud_fallback.endpoint.served.chain_model import ChainModel

    return ChainModel(path, **options)


def _keras(path: Path, **options: Any) -> ServedModel:
    # TensorFlow takes seconds to import, and other models do without.
    from cloud_fallback.endpoint.served.tensorflow_model import TensorflowModel

    return TensorflowModel.from_keras(path, **options)


def _saved_model(path: Path, **options: Any) -> ServedModel:
    from cloud_fallback.endpoint.served.tensorflow_model import TensorflowModel

    return TensorflowModel.from_saved_model(path, **options)


# By file suffix. Each is called with a path and the keywords name, version, instances, num_threads and batching.
FORMATS: Mapping[str, Callable[..., ServedModel]] = {
    ".edge": TfliteModel,
    ".tflite": TfliteModel,
    ".onnx": OnnxModel,
    ".keras": _keras,
    ".h5": _keras,
    ".toml": _chain,
}


@dataclass(frozen=True, slots=True)
class _FromFunction:
    """What a function makes of the endpoint's settings; how it queues requests is its own.

    A class, as two of one target are equal: that is how a repository knows again what it has loaded.
    """

    target: str

    def __call__(
        self, *, name: str | None, instances: int, num_threads: int, **_batching: Any
    ) -> ServedModel:
        module, _, function = self.target.partition(":")
        try:
            make = getattr(importlib.import_module(module), function)
            model: ServedModel = make(name=name, instances=instances, num_threads=num_threads)
        except HybridgeError:
            raise
        except Exception as error:
            # Importing a module runs it, and that and the function may raise anything.
            raise _no_model(self.target, f"{type(error).__name__}: {error}") from error
        if lacking := [each for each in _ATTRIBUTES if not hasattr(model, each)]:
            raise _no_model(self.target, f"a {type(model).__name__} without {', '.join(lacking)}")
        return model


def _unknown(argument: str) -> HybridgeError:
    return HybridgeError(
        ErrorCode.USAGE,
        "model to serve",
        received=f"'{argument}'",
        expected=f"[name=]path of a SavedModel or of a file that ends in {' or '.join(FORMATS)}, a folder of some, "
        "or [name=]module:function",
    )


def _no_model(source: str, received: str) -> HybridgeError:
    return HybridgeError(
        ErrorCode.MODEL_INVALID,
        f"model of '{source}'",
        received=received,
        expected="module:function of an installed package, which returns a cloud_fallback.endpoint.served.ServedModel",
    )
