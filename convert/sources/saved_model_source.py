"""SavedModel folders as sources, whatever wrote them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from convert.batch import batch_of
from convert.libraries import load_library
from convert.sources.batches import predict_in_batches
from convert.sources.export import export_function
from convert.sources.signature_choice import choose_signature
from convert.sources.source import no_architecture
from edge_runtime.errors import ErrorCode, HybridgeError
from edge_runtime.tensor_spec import Array, TensorSpec

__all__ = ["SavedModelSource"]

_GRAPHS = ("saved_model.pb", "saved_model.pbtxt")


class SavedModelSource:
    """One signature of a SavedModel; see `convert.sources.Source` for what each attribute is.

    Inputs and outputs are in the order of their names: a SavedModel stores both without any. Its digest covers names
    and contents of all files in the folder.

    Args:
        path: The folder.
        signature: Which signature; without it, the only one or ``serving_default``.

    Raises:
        HybridgeError: `file-not-found`; `source-invalid` for a folder that is no SavedModel, is damaged, has no such
            signature, or holds weights that are not finite or in half precision.
    """

    tools = ("tensorflow",)
    saved_at = None
    architecture = None

    def __init__(self, path: str | PathLike[str], *, signature: str | None = None):
        folder = Path(path)
        self.name = folder.resolve().name
        self.digest = _digest(folder, self.name)
        # Variables live as long as what was loaded does.
        self._loaded = _load(folder, self.name)
        functions = self._loaded.signatures
        if not functions:
            raise _invalid(
                self.name,
                received=f"no signatures{_others(self._loaded)}",
                expected="a signature, which names inputs and outputs",
                fix="save it with signatures=, as tf.saved_model.save(model, folder, signatures=model.call)",
            )
        self.signature = choose_signature(tuple(functions), signature, self.name)
        self._function = functions[self.signature]
        self.inputs = _specs(self._function.structured_input_signature[1], self.name)
        self.outputs = _specs(self._function.structured_outputs, self.name)
        self.weight_bytes = _checked_weight_bytes(self._function.variables, self.name)

    def predict(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Runs the signature on arrays of shape (samples, ...)."""
        return predict_in_batches(inputs, batch_of(self.inputs), lambda _: self._call)

    def export(self, inputs: tuple[TensorSpec, ...]) -> bytes:
        """The signature as a float `.tflite` that takes exactly these, every dimension fixed.

        Raises:
            HybridgeError: `conversion-failed`; `source-invalid` for a signature that changes variables as it runs.
        """
        return export_function(self._call, inputs, tuple(spec.name for spec in self.outputs), self.name)

    def with_weights(self, weights: Sequence[Array]) -> SavedModelSource:  # noqa: ARG002
        """Not possible.

        Raises:
            HybridgeError: `source-invalid`.
        """
        raise no_architecture(self.name)

    def _call(self, tensors: Mapping[str, Any]) -> dict[str, Any]:
        constant = load_library("tensorflow").convert_to_tensor
        outputs = self._function(**{name: constant(tensor) for name, tensor in tensors.items()})
        return {spec.name: outputs[spec.name] for spec in self.outputs}


def _load(folder: Path, name: str) -> Any:
    tensorflow = load_library("tensorflow")
    try:
        return tensorflow.saved_model.load(folder)
    except Exception as error:
        # TensorFlow raises OSError, IndexError, its own OpError and more, by which file is damaged where.
        lines = str(error).strip().splitlines()
        raise _invalid(
            name,
            received=f"a SavedModel that does not load ({lines[0] if lines else type(error).__name__})",
            expected="a whole SavedModel",
            fix="copy the folder again, with all that is in variables/, or save it again",
        ) from error


def _digest(folder: Path, name: str) -> str:
    try:
        # Order and separators are those of every system alike.
        files = sorted(
            (path.relative_to(folder).as_posix(), path) for path in folder.rglob("*") if path.is_file()
        )
        if not {relative for relative, _ in files} & set(_GRAPHS):
            raise _invalid(
                name,
                received=f"a folder without {_GRAPHS[0]}",
                expected="a SavedModel folder, or a file",
                fix="save the model with tf.saved_model.save, model.export, or as a .keras file",
            )
        digest = hashlib.sha256()
        for relative, path in files:
            with path.open("rb") as file:
                digest.update(f"{relative}\0{hashlib.file_digest(file, 'sha256').hexdigest()}\0".encode())
    except OSError as error:
        raise HybridgeError(
            ErrorCode.FILE_NOT_FOUND,
            f"folder '{folder}'",
            received=error.strerror or str(error),
            expected="a readable folder",
            fix="check the path",
        ) from error
    return digest.hexdigest()


def _others(loaded: Any) -> str:
    methods = sorted(
        key
        for key in dir(loaded)
        if not key.startswith("_") and hasattr(getattr(loaded, key, None), "concrete_functions")
    )
    return f", only the functions {', '.join(methods)}" if methods else ""


def _specs(structure: Mapping[str, Any], name: str) -> tuple[TensorSpec, ...]:
    specs = []
    for key, each in sorted(structure.items()):
        if each.shape.rank is None:
            raise _invalid(
                name,
                received=f"a tensor '{key}' of unknown rank",
                expected="tensors whose number of dimensions is known",
                fix="save it with a signature that says them, such as tf.TensorSpec([None, 4])",
            )
        shape = tuple(
            size if size is not None else ("batch" if axis == 0 else f"dim{axis}")
            for axis, size in enumerate(each.shape)
        )
        specs.append(TensorSpec(name=key, shape=shape, dtype=each.dtype.name))
    return tuple(specs)


def _checked_weight_bytes(variables: Sequence[Any], name: str) -> int:
    total = 0
    for variable in {id(each): each for each in variables}.values():
        if variable.dtype.name in ("float16", "bfloat16"):
            raise _invalid(
                name,
                received=f"weight '{variable.name}' in half precision ({variable.dtype.name})",
                expected="weights in float32, as TFLite's operators compute",
                fix="save it again in float32; the recipe float16 shrinks it",
            )
        array = np.asarray(variable)
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise _invalid(
                name,
                received=f"weight '{variable.name}' with values that are not finite",
                expected="finite weights",
                fix="train it again; its training diverged",
            )
        total += array.nbytes
    return total


def _invalid(name: str, *, received: str, expected: str, fix: str) -> HybridgeError:
    return HybridgeError(
        ErrorCode.SOURCE_INVALID, f"source model '{name}'", received=received, expected=expected, fix=fix
    )
