"""Reading what `model.save` of Keras 3, of `tf_keras` and of older releases wrote: `.keras` and `.h5` files."""

from __future__ import annotations

import hashlib
import io
import json
import re
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, Literal

from convert.libraries import load_library
from edge_runtime.errors import ErrorCode, HybridgeError
from edge_runtime.files import read_file

__all__ = ["KerasFile", "Library", "load_keras_file"]

Library = Literal["keras", "tf_keras"]

# How the two libraries name a class or function that nobody defined.
_UNKNOWN = re.compile(
    r"(?:Could not locate (?:class|function)|Unknown [a-z ]+:|Cannot deserialize object of type) ['`]?([\w>.]+)"
)
# How tf_keras spells a function in a message about it.
_FUNCTION = re.compile(r"'class_name': 'function', 'config': '(\w+)'")
# What tf_keras says instead where it takes the name of an unknown class for the class.
_NAME_CALLED = "'str' object is not callable"
_OWN_MODULE = re.compile(r"(tf_)?keras\b|builtins$|tensorflow\b")


@dataclass(frozen=True)
class _Header:
    version: str
    saved_at: str | None = None
    foreign: tuple[str, ...] = ()


@dataclass(frozen=True)
class KerasFile:
    """A model from a file.

    Attributes:
        model: The model, not compiled.
        library: Which library it is of.
        digest: SHA-256 of the file.
        saved_at: The time that the file records.
    """

    model: Any
    library: Library
    digest: str
    saved_at: str | None


def load_keras_file(path: str | PathLike[str], custom_objects: Mapping[str, Any]) -> KerasFile:
    """Loads a `.keras` or `.h5` file with the library that can.

    Args:
        path: The file.
        custom_objects: Classes and functions that it names, beside those registered.

    Raises:
        HybridgeError: `file-not-found`; `source-invalid` for a file that is damaged, holds no whole model, or needs
            classes that are not known.
    """
    content = read_file(path)
    name = Path(path).name
    header = (_hdf5_header if content[:4] == b"\x89HDF" else _archive_header)(content, name)
    # What Keras 2 saved can hold layers that were made for Keras 3 since, and only then opens there.
    libraries: tuple[Library, ...] = ("keras",) if header.version.startswith("3") else ("tf_keras", "keras")
    errors: list[Exception] = []
    for library in libraries:
        try:
            # Keras reads the name's ending; a file of the other format than its name says goes in as what it is.
            model = load_library(library).models.load_model(
                path, compile=False, custom_objects=dict(custom_objects)
            )
        except Exception as error:
            # Keras raises whatever the broken part raises: ValueError, TypeError, KeyError, OSError, h5py's own.
            errors.append(error)
        else:
            return KerasFile(model, library, hashlib.sha256(content).hexdigest(), header.saved_at)
    raise _unloadable(errors[0], name, header, custom_objects) from errors[0]


def _hdf5_header(content: bytes, name: str) -> _Header:
    h5py = load_library("h5py")
    try:
        with h5py.File(io.BytesIO(content), "r") as file:
            attributes = {
                key: file.attrs[key] for key in ("keras_version", "model_config") if key in file.attrs
            }
    except (OSError, KeyError, RuntimeError, ValueError) as error:
        raise _invalid(
            name,
            received=f"{len(content)} bytes that are no whole HDF5 file ({error})",
            expected="a whole .h5 file",
            fix="copy it again, or save it again with model.save",
        ) from error
    if "model_config" not in attributes:
        raise _invalid(
            name,
            received="an HDF5 file without a model's configuration",
            expected="a whole model",
            fix="save it with model.save; save_weights keeps the weights alone",
        )
    version = attributes.get("keras_version", "2")
    return _Header(version.decode() if isinstance(version, bytes) else str(version))


def _archive_header(content: bytes, name: str) -> _Header:
    """What the archive says of itself; refuses what is no Keras archive."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            if "config.json" not in archive.namelist():
                raise zipfile.BadZipFile("an archive without config.json")
            damaged = archive.testzip()
            if damaged is not None:
                raise zipfile.BadZipFile(f"a damaged '{damaged}'")
            metadata = json.loads(archive.read("metadata.json"))
            version, saved = metadata.get("keras_version", "3"), metadata.get("date_saved")
            foreign = tuple(dict.fromkeys(_foreign_classes(json.loads(archive.read("config.json")))))
    except (zipfile.BadZipFile, AttributeError, EOFError, KeyError, ValueError, NotImplementedError) as error:
        raise _invalid(
            name,
            received=f"{len(content)} bytes that are no Keras archive ({error})",
            expected="a whole .keras or .h5 file",
            fix="copy it again, or save it again with model.save",
        ) from error
    return _Header(str(version), saved.replace("@", "T") if isinstance(saved, str) else None, foreign)


def _foreign_classes(config: Any) -> Iterator[str]:
    """Names of classes that are not Keras's own."""
    if isinstance(config, dict):
        module = config.get("module")
        if "class_name" in config and isinstance(module, str) and not _OWN_MODULE.match(module):
            yield str(config["class_name"])
        for each in config.values():
            yield from _foreign_classes(each)
    elif isinstance(config, list):
        for each in config:
            yield from _foreign_classes(each)


def _unloadable(
    error: Exception, name: str, header: _Header, custom_objects: Mapping[str, Any]
) -> HybridgeError:
    messages = [str(each) for each in _chain(error)]
    matches = [
        # A function's own name hides in what stands for it.
        *(_FUNCTION.search(message) for message in messages if "Unknown " in message),
        *(_UNKNOWN.search(message) for message in messages),
    ]
    unknown = next((found[1] for found in matches if found), None)
    if unknown is None and messages[-1] == _NAME_CALLED:
        unknown = "', '".join(header.foreign)
    if unknown in custom_objects:
        return _invalid(
            name,
            received=f"'{unknown}' in a form that its own library does not read back",
            expected=f"a whole file, saved by Keras {header.version}",
            fix="save it again in the .keras format",
        )
    if unknown:
        return _invalid(
            name,
            received=f"'{unknown}', a class or function that is not known",
            expected="classes of Keras, or of the custom modules",
            fix="name the module that defines it (--custom MODULE)",
        )
    cause = _chain(error)[-1]
    reason = str(cause).strip().partition("\n")[0].partition(". ")[0]
    return _invalid(
        name,
        received=f"{type(cause).__name__}: {reason}",
        expected=f"a whole file, saved by Keras {header.version}",
        fix="save it again with Keras 3, or load it in Python and pass the model in memory",
    )


def _chain(error: BaseException) -> list[BaseException]:
    # Keras wraps what went wrong in a page of configuration; the innermost error says it in a sentence.
    chain = [error]
    while inner := chain[-1].__cause__ or chain[-1].__context__:
        chain.append(inner)
    return chain


def _invalid(name: str, *, received: str, expected: str, fix: str) -> HybridgeError:
    return HybridgeError(
        ErrorCode.SOURCE_INVALID, f"source model '{name}'", received=received, expected=expected, fix=fix
    )
