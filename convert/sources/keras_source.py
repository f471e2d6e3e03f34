"""Keras 3 models as sources: `.keras` files and models in memory."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from convert.sources.export import export_keras, pinned
from convert.sources.keras_interface import Interface, find_interface
from convert.libraries import load_library
from edge_runtime.errors import ErrorCode, HybridgeError
from edge_runtime.files import read_file
from edge_runtime.tensor_spec import Array, TensorSpec

__all__ = ["KerasSource"]

# Large enough to keep the cores busy, small enough for a laptop's memory.
_ROWS_AT_ONCE = 128


class KerasSource:
    """A Keras 3 model; see `convert.source.Source` for what each attribute is.

    Make one with `from_file` or `from_model`.
    """

    tools = ("tensorflow", "keras")

    def __init__(
        self, model: Any, *, name: str, digest: str, interface: Interface, saved_at: str | None = None
    ):
        self.model = model
        self.name = name
        self.digest = digest
        self.saved_at = saved_at
        self.weight_bytes = sum(_array(weight).nbytes for weight in model.weights)
        self._interface = interface

    @classmethod
    def from_file(cls, path: str | PathLike[str]) -> KerasSource:
        """Loads a `.keras` file.

        Raises:
            HybridgeError: `file-not-found`; `source-invalid` for a file that is damaged, is no `.keras` file, or
                needs classes that are not registered.
        """
        content = read_file(path)
        name = Path(path).name
        saved_at = _saved_at(content, name)
        keras = _keras()
        try:
            model = keras.models.load_model(path, compile=False)
        except Exception as error:
            # Keras raises whatever the broken part raises: ValueError, TypeError, KeyError, OSError, h5py's own.
            raise _invalid(
                name,
                received=_root_cause(error),
                expected="a whole .keras file of registered classes",
                fix="save it again with Keras 3, or load it in Python and pass the model in memory",
            ) from error
        return cls._checked(model, name=name, digest=hashlib.sha256(content).hexdigest(), saved_at=saved_at)

    @classmethod
    def from_model(cls, model: Any) -> KerasSource:
        """Takes a built `keras.Model`; its digest covers configuration and weights.

        Raises:
            HybridgeError: `source-invalid` for a model that is not built, or not of Keras 3.
        """
        keras = _keras()
        if not isinstance(model, keras.Model):
            raise HybridgeError(
                ErrorCode.SOURCE_INVALID,
                "source model",
                received=f"{type(model).__module__}.{type(model).__name__}",
                expected="a Keras 3 model",
                fix="rebuild it with Keras 3, and set_weights from the old one",
            )
        if not model.built:
            raise _invalid(
                model.name,
                received="a model that is not built, so its shapes are unknown",
                expected="a built model",
                fix="call it once on an example, or give it a keras.Input",
            )
        return cls._checked(model, name=model.name, digest=_digest(keras, model))

    @classmethod
    def _checked(cls, model: Any, *, name: str, digest: str, saved_at: str | None = None) -> KerasSource:
        for weight in model.weights:
            array = _array(weight)
            # bfloat16 and the 8-bit floats are no kinds that NumPy knows.
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                raise _invalid(
                    name,
                    received=f"weight '{weight.path}' with values that are not finite",
                    expected="finite weights",
                    fix="train it again; its training diverged",
                )
        if half := [layer.name for layer in model.layers if layer.compute_dtype in ("float16", "bfloat16")]:
            raise _invalid(
                name,
                received=f"layers that compute in half precision ({', '.join(half[:3])})",
                expected="layers that compute in float32, as TFLite's operators do",
                fix="rebuild it under the dtype policy 'float32' and set_weights; the recipe float16 shrinks it",
            )
        return cls(model, name=name, digest=digest, interface=find_interface(model, name), saved_at=saved_at)

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """Names, shapes and types of the inputs, in the model's order."""
        return self._interface.inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """Names, shapes and types of the outputs, in the model's order."""
        return self._interface.outputs

    def predict(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Runs the model as in inference.

        Args:
            inputs: For each input an array of shape (samples, ...).

        Returns:
            For each output an array of shape (samples, ...).
        """
        samples = len(next(iter(inputs.values())))
        fixed = self.inputs[0].shape[0]
        rows = fixed if isinstance(fixed, int) else min(_ROWS_AT_ONCE, samples)
        parts: list[dict[str, Array]] = []
        for start in range(0, samples, rows):
            # A model of fixed batch size gets its last batch filled up; the filling is cut off below.
            index = np.minimum(np.arange(start, start + rows), samples - 1)
            outputs = self._interface.call({name: array[index] for name, array in inputs.items()})
            parts.append({name: _array(output) for name, output in outputs.items()})
        return {name: np.concatenate([part[name] for part in parts])[:samples] for name in parts[0]}

    def export(self, batch_size: int) -> bytes:
        """The model as a float `.tflite` with the batch size fixed.

        Raises:
            HybridgeError: `source-invalid` for a dimension that is not known; `conversion-failed`.
        """
        inputs = pinned(self.inputs, batch_size, self.name)
        return export_keras(
            self.model, self._interface.call, inputs, tuple(spec.name for spec in self.outputs), self.name
        )


def _keras() -> Any:
    load_library("tensorflow")
    keras = load_library("keras")
    if keras.backend.backend() != "tensorflow":
        raise HybridgeError(
            ErrorCode.USAGE,
            "Keras backend",
            received=keras.backend.backend(),
            expected="tensorflow",
            fix="set KERAS_BACKEND=tensorflow before Keras is imported",
        )
    return keras


def _saved_at(content: bytes, name: str) -> str | None:
    """When Keras saved the file, from its metadata; refuses what is no Keras archive."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            if "config.json" not in archive.namelist():
                raise zipfile.BadZipFile("an archive without config.json")
            damaged = archive.testzip()
            if damaged is not None:
                raise zipfile.BadZipFile(f"a damaged '{damaged}'")
            saved = json.loads(archive.read("metadata.json")).get("date_saved")
    except (zipfile.BadZipFile, EOFError, KeyError, ValueError, NotImplementedError) as error:
        raise _invalid(
            name,
            received=f"{len(content)} bytes that are no Keras archive ({error})",
            expected="a whole .keras file",
            fix="copy it again, or save it again with model.save",
        ) from error
    return saved.replace("@", "T") if isinstance(saved, str) else None


def _digest(keras: Any, model: Any) -> str:
    digest = hashlib.sha256()
    try:
        config = keras.saving.serialize_keras_object(model.get_config())
    except (NotImplementedError, TypeError, ValueError):
        # A subclassed model need not describe itself; its class and weights then stand for it.
        config = {}
    described = {"class": f"{type(model).__module__}.{type(model).__qualname__}", "config": config}
    digest.update(json.dumps(described, sort_keys=True, default=str).encode())
    for weight in model.weights:
        array = _array(weight)
        digest.update(f"{weight.path} {array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _array(tensor: Any) -> Array:
    return np.asarray(tensor)


def _root_cause(error: BaseException) -> str:
    # Keras wraps what went wrong in a page of configuration; the innermost error says it in a sentence.
    while inner := error.__cause__ or error.__context__:
        error = inner
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0].partition('. ')[0]}"


def _invalid(name: str, *, received: str, expected: str, fix: str) -> HybridgeError:
    return HybridgeError(
        ErrorCode.SOURCE_INVALID, f"source model '{name}'", received=received, expected=expected, fix=fix
    )
