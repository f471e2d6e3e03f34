"""ONNX files as sources, run by onnxruntime and exported by the importer of `convert.onnx`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np

from convert.batch import batch_of
from convert.libraries import load_library
from convert.sources.batches import predict_in_batches
from convert.sources.export import export_function
from convert.sources.source import no_architecture
from edge_runtime.errors import ErrorCode, HybridgeError
from edge_runtime.tensor_spec import Array, TensorSpec

if TYPE_CHECKING:
    from convert.onnx import OnnxModel

__all__ = ["OnnxSource"]


class OnnxSource:
    """An ONNX model; see `convert.sources.Source` for what each attribute is.

    Args:
        path: The file; weights outside it are looked for beside it.
        channels_last: Whether images go into and come out of the converted model as (batch, height, width, channels)
            in place of ONNX's (batch, channels, height, width).
        constants: Values of inputs that never change, which the converted model does not take; numbers, or text such as
            ``16000`` or ``0,1,0``.

    Attributes:
        metadata: What the file says of itself, such as a recogniser's characters.

    Raises:
        HybridgeError: `file-not-found`; `source-invalid` for a file that is damaged, incomplete, or refused by ONNX's
            checker; `conversion-failed` for operators that nobody knows.
    """

    tools = ("tensorflow", "onnx", "onnxruntime")
    saved_at = None
    architecture = None

    def __init__(
        self,
        path: str | PathLike[str],
        *,
        channels_last: bool = False,
        constants: Mapping[str, str | Array] | None = None,
    ):
        from convert.onnx import read_model

        self._model = read_model(path)
        self._constants = fixed_inputs(self._model.inputs, constants or {}, self._model.name)
        self._channels_last = channels_last
        self.name = self._model.name
        self.digest = self._model.digest
        self.metadata: Mapping[str, str] = self._model.metadata
        self.weight_bytes = self._model.weight_bytes
        inputs, outputs = _batched(self._model)
        self.inputs = tuple(self._seen(spec) for spec in inputs if spec.name not in self._constants)
        self.outputs = tuple(map(self._seen, outputs))

    def predict(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Runs the file in onnxruntime on arrays of shape (samples, ...), one sample at a time where it may.

        An exporter may have fixed a batch of one inside a model that says it takes any.
        """
        batch = batch_of(self.inputs)
        return predict_in_batches(inputs, 1 if isinstance(batch, str) else batch, lambda _: self._call)

    def export(self, inputs: tuple[TensorSpec, ...]) -> bytes:
        """The model as a float `.tflite` that takes exactly these.

        Raises:
            HybridgeError: `conversion-failed`, with every node that cannot be converted.
        """
        from convert.onnx import OnnxFunction

        function = OnnxFunction(self._model, constants=self._constants, channels_last=self._channels_last)
        names = tuple(spec.name for spec in self.outputs)
        return export_function(function, inputs, names, self.name, quantized=function.is_quantized)

    def with_weights(self, weights: Sequence[Array]) -> OnnxSource:  # noqa: ARG002
        """Not possible.

        Raises:
            HybridgeError: `source-invalid`.
        """
        raise no_architecture(self.name)

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the classes, where the file's metadata holds one for each column of a classifier's only output."""
        if len(self.outputs) != 1 or len(self.outputs[0].shape) != 2:
            return ()
        names = tuple(self.metadata.get("character", "").split("\n"))
        return names if len(names) == self.outputs[0].shape[1] else ()

    @property
    def layout(self) -> str:
        """The order of axes of its inputs and outputs, as the manifest says it."""
        return "channels-last" if self._channels_last else "channels-first"

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader must know of what it is compared with."""
        return self._session[1]

    @cached_property
    def _session(self) -> tuple[Any, tuple[str, ...]]:
        return _opened(self._model.proto)

    def _run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        given = {key: np.ascontiguousarray(array) for key, array in {**self._constants, **inputs}.items()}
        try:
            outputs = self._session[0].run(None, given)
        except Exception as error:
            lines = str(error).strip().splitlines()
            raise HybridgeError(
                ErrorCode.SOURCE_INVALID,
                f"source model '{self.name}'",
                received=f"a run that fails ({lines[0] if lines else type(error).__name__})",
                expected="a model that runs on inputs of the shapes that were asked for",
                fix="give other shapes (--input NAME:SHAPE), or data that it was made for (--eval)",
            ) from error
        return dict(zip((spec.name for spec in self.outputs), outputs, strict=True))

    def _call(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        if not self._channels_last:
            return self._run(inputs)
        first = {
            name: np.moveaxis(array, -1, 1) if _is_spatial(array.shape) else array
            for name, array in inputs.items()
        }
        return {
            name: np.moveaxis(array, 1, -1) if _is_spatial(array.shape) else array
            for name, array in self._run(first).items()
        }

    def _seen(self, spec: TensorSpec) -> TensorSpec:
        if not self._channels_last or not _is_spatial(spec.shape):
            return spec
        return replace(spec, shape=(spec.shape[0], *spec.shape[2:], spec.shape[1]))


def fixed_inputs(
    inputs: tuple[TensorSpec, ...], constants: Mapping[str, str | Array], name: str
) -> dict[str, Array]:
    """Values of inputs in the shapes and types that the model wants.

    Raises:
        HybridgeError: `usage` for an input that the model has not, or a value that does not fit it.
    """
    specs = {spec.name: spec for spec in inputs}
    fixed = {}
    for key, value in constants.items():
        spec = specs.get(key)
        try:
            if spec is None:
                raise ValueError
            numbers = [float(each) for each in value.split(",")] if isinstance(value, str) else value
            array = np.asarray(numbers).astype(spec.dtype)
            if len(spec.shape) == 0 and array.size == 1:
                array = array.reshape(())
            if not spec.admits(array.shape):
                raise ValueError
        except ValueError as error:
            raise HybridgeError(
                ErrorCode.USAGE,
                f"constant for source model '{name}'",
                received=f"{key}={value}",
                expected="a value for one of its inputs: "
                + ", ".join(f"{each.name} ({each.dtype} of shape {each.shape})" for each in inputs),
                fix="give numbers with commas between them, such as --constant sr=16000",
            ) from error
        fixed[key] = array
    return fixed


def _is_spatial(shape: tuple[int | str, ...]) -> bool:
    return len(shape) in (4, 5)


def _batched(model: OnnxModel) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Inputs and outputs, a first dimension that may vary called as the batch is called everywhere."""
    first = {spec.shape[0] for spec in model.inputs if spec.shape and isinstance(spec.shape[0], str)}

    def named(spec: TensorSpec) -> TensorSpec:
        shape = tuple(
            "batch" if size in first or (axis == 0 and isinstance(size, str)) else size
            for axis, size in enumerate(spec.shape)
        )
        return replace(spec, shape=shape)

    return tuple(map(named, model.inputs)), tuple(map(named, model.outputs))


def _opened(proto: Any) -> tuple[Any, tuple[str, ...]]:
    """What runs a model, and what to say of it: onnxruntime, or ONNX's own reference where that refuses the model."""
    onnxruntime = load_library("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    content = proto.SerializeToString()
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"]), ()
    except Exception as error:
        # It raises a class of its own for each status, most often for operators newer than itself.
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    session = load_library("onnx.reference").ReferenceEvaluator(proto)
    return session, (
        f"compared with ONNX's reference implementation, as onnxruntime refuses the model: {reason}",
    )
