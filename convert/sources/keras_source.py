"""Keras models as sources: files and models in memory, of Keras 3 and of its predecessor `tf_keras`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from convert.libraries import load_library
from convert.sources.batches import predict_in_batches
from convert.sources.custom_modules import import_custom
from convert.sources.export import export_function
from convert.sources.keras_file import Library, load_keras_file
from convert.sources.keras_interface import Interface, find_interface
from convert.sources.source import Architecture
from edge_runtime.errors import ErrorCode, HybridgeError
from edge_runtime.tensor_spec import Array, TensorSpec

__all__ = ["KerasSource"]


class KerasSource:
    """A Keras model; see `convert.sources.Source` for what each attribute is.

    Make one with `from_file` or `from_model`.
    """

    def __init__(
        self,
        model: Any,
        *,
        library: Library,
        name: str,
        digest: str,
        interface: Interface,
        saved_at: str | None = None,
        custom: tuple[str, ...] = (),
    ):
        self.model = model
        self.library = library
        self.name = name
        self.digest = digest
        self.saved_at = saved_at
        self.tools = ("tensorflow", "keras") if library == "keras" else ("tensorflow", "tf-keras")
        self.weight_bytes = sum(_array(weight).nbytes for weight in model.weights)
        self._interface = interface
        self._custom = custom

    @classmethod
    def from_file(cls, path: str | PathLike[str], *, custom: Sequence[str] = ()) -> KerasSource:
        """Loads a `.keras` or `.h5` file.

        Args:
            path: The file.
            custom: Modules to import first, whose classes it names.

        Raises:
            HybridgeError: `file-not-found`; `source-invalid` for a file that is damaged, is no Keras model, or
                needs classes that are not known; `usage` for a module that cannot be imported.
        """
        _check_backend()
        file = load_keras_file(path, import_custom(custom))
        return cls._checked(
            file.model,
            file.library,
            name=Path(path).name,
            digest=file.digest,
            saved_at=file.saved_at,
            custom=tuple(custom),
        )

    @classmethod
    def from_model(cls, model: Any, *, custom: Sequence[str] = ()) -> KerasSource:
        """Takes a built model of either library; its digest covers configuration and weights.

        Raises:
            HybridgeError: `source-invalid` for a model that is not built, or of neither library.
        """
        _check_backend()
        library = _library(model)
        if library is None:
            raise HybridgeError(
                ErrorCode.SOURCE_INVALID,
                "source model",
                received=f"{type(model).__module__}.{type(model).__name__}",
                expected="a model of Keras 3 or of tf_keras",
                fix="rebuild it with Keras 3, and set_weights from the old one",
            )
        if not model.built:
            raise _unbuilt(model.name)
        return cls._checked(
            model, library, name=model.name, digest=_digest(model, library), custom=tuple(custom)
        )

    @classmethod
    def _checked(cls, model: Any, library: Library, *, name: str, **facts: Any) -> KerasSource:
        if not model.built:
            raise _unbuilt(name)
        for weight in model.weights:
            array = _array(weight)
            # bfloat16 and the 8-bit floats are no kinds that NumPy knows.
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                raise _invalid(
                    name,
                    received=f"weight '{_path(weight)}' with values that are not finite",
                    expected="finite weights",
                    fix="train it again; its training diverged",
                )
        layers = model._flatten_layers(include_self=False)
        if half := [layer.name for layer in layers if layer.compute_dtype in ("float16", "bfloat16")]:
            raise _invalid(
                name,
                received=f"layers that compute in half precision ({', '.join(half[:3])})",
                expected="layers that compute in float32, as TFLite's operators do",
                fix="rebuild it under the dtype policy 'float32' and set_weights; the recipe float16 shrinks it",
            )
        interface = find_interface(load_library(library), model, name)
        return cls(model, library=library, name=name, interface=interface, **facts)

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """Names, shapes and types of the inputs, in the model's order."""
        return self._interface.inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """Names, shapes and types of the outputs, in the model's order."""
        return self._interface.outputs

    @property
    def architecture(self) -> Architecture | None:
        """What builds the model again, or None for a subclassed model without `get_config`."""
        config = _config(self.model, self.library)
        if config is None:
            return None
        return Architecture(self.library, config, tuple(self.model.get_weights()), self._custom)

    def with_weights(self, weights: Sequence[Array]) -> KerasSource:
        """The same model with other values, in the order of `architecture.weights`; this one stays as it is.

        Raises:
            HybridgeError: `source-invalid` for weights of other number or shapes, or a model that cannot be cloned.
        """
        try:
            keras = load_library(self.library)
            with keras.utils.custom_object_scope(import_custom(self._custom)):
                clone = _clone(keras, self.model)
            clone.set_weights(list(weights))
        except Exception as error:
            # A layer's own configuration code raises what it likes.
            raise _invalid(
                self.name,
                received=f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}",
                expected="a model that can be cloned, and a value for each of its weights",
                fix="register its own classes and functions, or name their module (--custom MODULE)",
            ) from error
        changed = KerasSource._checked(
            clone,
            self.library,
            name=self.name,
            digest=self.digest,
            saved_at=self.saved_at,
            custom=self._custom,
        )
        if changed.inputs != self.inputs or changed.outputs != self.outputs:
            raise _invalid(
                self.name,
                received="a clone with other inputs or outputs",
                expected=", ".join(spec.name for spec in (*self.inputs, *self.outputs)),
                fix="build it again as a keras.Model(inputs, outputs)",
            )
        return changed

    @cached_property
    def _traced(self) -> Any:
        return load_library("tensorflow").function(self._interface.call, autograph=False)

    def predict(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Runs the model as in inference.

        Args:
            inputs: For each input an array of shape (samples, ...).

        Returns:
            For each output an array of shape (samples, ...).
        """
        return predict_in_batches(
            inputs,
            self.inputs[0].shape[0],
            # Tracing pays from the second batch on.
            lambda batches: self._traced if batches > 1 else self._interface.call,
        )

    def export(self, inputs: tuple[TensorSpec, ...]) -> bytes:
        """The model as a float `.tflite` that takes exactly these, every dimension fixed.

        Raises:
            HybridgeError: `conversion-failed`; `source-invalid` for a model that keeps state from run to run.
        """
        return export_function(
            self._interface.call, inputs, tuple(spec.name for spec in self.outputs), self.name
        )


def _check_backend() -> None:
    load_library("tensorflow")
    backend = load_library("keras").backend.backend()
    if backend != "tensorflow":
        raise HybridgeError(
            ErrorCode.USAGE,
            "Keras backend",
            received=backend,
            expected="tensorflow",
            fix="set KERAS_BACKEND=tensorflow before Keras is imported",
        )


def _library(model: Any) -> Library | None:
    if isinstance(model, load_library("keras").Model):
        return "keras"
    # A class of tf_keras can only be there once somebody has imported it.
    packages = {base.__module__.partition(".")[0] for base in type(model).__mro__}
    if "tf_keras" in packages and isinstance(model, load_library("tf_keras").Model):
        return "tf_keras"
    return None


def _config(model: Any, library: Library) -> dict[str, Any] | None:
    keras = load_library(library)
    graph = isinstance(model, keras.Sequential) or getattr(model, "output_names", None)
    if not graph and type(model).get_config is keras.Model.get_config:
        return None
    try:
        if library == "keras":
            config: dict[str, Any] = keras.saving.serialize_keras_object(model)
            # How it was trained names losses and metrics that building it again has no use for.
            config.pop("compile_config", None)
        else:
            config = json.loads(model.to_json())
        return json.loads(json.dumps(config))  # type: ignore[no-any-return]
    except (NotImplementedError, TypeError, ValueError):
        return None


def _clone(keras: Any, model: Any) -> Any:
    clone = keras.models.clone_model(model)
    if not clone.built:
        clone.build_from_config(model.get_build_config())
    return clone


def _digest(model: Any, library: Library) -> str:
    digest = hashlib.sha256()
    described = {
        "class": f"{type(model).__module__}.{type(model).__qualname__}",
        # A subclassed model need not describe itself; its class and weights then stand for it.
        "config": _config(model, library) or {},
    }
    digest.update(json.dumps(described, sort_keys=True).encode())
    for weight in model.weights:
        array = _array(weight)
        digest.update(f"{_path(weight)} {array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _array(tensor: Any) -> Array:
    return np.asarray(tensor)


def _path(weight: Any) -> str:
    # A tf_keras weight is a TensorFlow variable, which has a name alone.
    return str(getattr(weight, "path", None) or weight.name)


def _unbuilt(name: str) -> HybridgeError:
    return _invalid(
        name,
        received="a model that is not built, so its shapes are unknown",
        expected="a built model",
        fix="call it once on an example, or give it a keras.Input",
    )


def _invalid(name: str, *, received: str, expected: str, fix: str) -> HybridgeError:
    return HybridgeError(
        ErrorCode.SOURCE_INVALID, f"source model '{name}'", received=received, expected=expected, fix=fix
    )
