"""Float `.tflite` files as sources."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path

import numpy as np

from convert.batch import batch_of
from convert.quantization.packing import pack, unpack
from convert.sources.batches import predict_in_batches
from convert.sources.signature_choice import choose_signature
from convert.sources.source import no_architecture
from convert.sources.tflite_file import (
    check_source,
    fix_sizes,
    keep_signature,
    signature_keys,
    weight_bytes,
    widen,
    with_wide_codes,
)
from edge_runtime.errors import ErrorCode, HybridgeError
from edge_runtime.files import read_file
from edge_runtime.interpreter import Interpreter, load_interpreter, signature_tensors
from edge_runtime.tensor_spec import Array, TensorSpec

__all__ = ["TFLiteSource"]

# How the converter names operators that only TensorFlow itself can run.
_FLEX = re.compile(rb"Flex[A-Z]\w*")


class TFLiteSource:
    """One signature of a float `.tflite`; see `convert.sources.Source` for what each attribute is.

    A file without signatures gets one, ``serving_default``, of its tensors' own names. Weights of half precision are
    widened, which changes nothing that is computed.

    Args:
        path: The file.
        signature: Which signature; without it, the only one or ``serving_default``.

    Raises:
        HybridgeError: `file-not-found`; `source-invalid` for a file that is damaged, is already quantised, needs
            operators that no device has, keeps state, or has no such signature.
    """

    tools = ("ai-edge-litert",)
    saved_at = None
    architecture = None

    def __init__(self, path: str | PathLike[str], *, signature: str | None = None):
        content = read_file(path)
        self.name = Path(path).name
        self.digest = hashlib.sha256(content).hexdigest()
        # It also verifies the file, which what reads it below does not.
        self._interpreter = _loaded(content, self.name)
        model = unpack(content)
        selected = keep_signature(model, _chosen(signature_keys(model), signature, self.name))
        if any((selected, with_wide_codes(model), widen(model))):
            content = pack(model)
            self._interpreter = _loaded(content, self.name)
        check_source(model, self.name)
        self.weight_bytes = weight_bytes(model, self.name)
        self._content = content
        self._allocated: dict[str, tuple[int, ...]] = {}
        _, inputs, outputs = signature_tensors(self._interpreter)
        self._input_index = {tensor.spec.name: tensor.index for tensor in inputs}
        self._output_index = {tensor.spec.name: tensor.index for tensor in outputs}
        self.inputs: tuple[TensorSpec, ...] = tuple(tensor.spec for tensor in inputs)
        self.outputs: tuple[TensorSpec, ...] = tuple(tensor.spec for tensor in outputs)

    def predict(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Runs the file on arrays of shape (samples, ...)."""
        return predict_in_batches(inputs, batch_of(self.inputs), lambda _: self._run)

    def export(self, inputs: tuple[TensorSpec, ...]) -> bytes:
        """The file with every dimension of its inputs fixed; as it is if they are.

        Raises:
            HybridgeError: `conversion-failed` for sizes that the model cannot have.
        """
        if not any(spec.is_dynamic for spec in (*self.inputs, *self.outputs)):
            return self._content
        model = unpack(self._content)
        sizes = {self._input_index[spec.name]: [int(size) for size in spec.shape] for spec in inputs}
        try:
            fix_sizes(model, _loaded(self._content, self.name), sizes)
        except (RuntimeError, ValueError) as error:
            raise HybridgeError(
                ErrorCode.CONVERSION_FAILED,
                f"source model '{self.name}'",
                received=str(error).strip(),
                expected="sizes of its inputs that it can have",
                fix="give other shapes (--input NAME:SHAPE)",
            ) from error
        return pack(model)

    def with_weights(self, weights: Sequence[Array]) -> TFLiteSource:  # noqa: ARG002
        """Not possible.

        Raises:
            HybridgeError: `source-invalid`.
        """
        raise no_architecture(self.name)

    def _run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        interpreter = self._interpreter
        try:
            shapes = {name: array.shape for name, array in inputs.items()}
            if shapes != self._allocated:
                for name, shape in shapes.items():
                    interpreter.resize_tensor_input(self._input_index[name], list(shape))
                interpreter.allocate_tensors()
                self._allocated = shapes
            for name, array in inputs.items():
                interpreter.set_tensor(self._input_index[name], np.ascontiguousarray(array))
            interpreter.invoke()
        except (RuntimeError, ValueError) as error:
            raise HybridgeError(
                ErrorCode.INVOKE_FAILED,
                f"source model '{self.name}'",
                received=str(error).strip(),
                fix="check that its inputs have sizes and values that it was made for",
            ) from error
        return {name: interpreter.get_tensor(index) for name, index in self._output_index.items()}


def _chosen(keys: tuple[str, ...], signature: str | None, name: str) -> str | None:
    if keys:
        return choose_signature(keys, signature, name)
    if signature is not None:
        raise HybridgeError(
            ErrorCode.SOURCE_INVALID,
            f"signature of source model '{name}'",
            received=f"'{signature}'",
            expected="none: the file has no signatures",
            fix="leave --signature out",
        )
    return None


def _loaded(content: bytes, name: str) -> Interpreter:
    try:
        return load_interpreter(content, name=name)
    except HybridgeError as error:
        received, fix = error.received, "copy it again, or convert it again with builtin operators only"
        if "Flex" in received:
            operators = sorted({each.decode() for each in _FLEX.findall(content)})
            received = f"operators of TensorFlow's own ({', '.join(operators)})"
            fix = "replace them in the model, or leave that part to a chain's operator"
        raise HybridgeError(
            ErrorCode.SOURCE_INVALID,
            f"source model '{name}'",
            received=received,
            expected=error.expected,
            fix=fix,
        ) from error
