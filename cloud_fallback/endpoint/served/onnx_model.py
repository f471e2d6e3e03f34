"""A `.onnx`, served by ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from cloud_fallback.endpoint.served.model_queue import Batching, ModelQueue, can_batch
from cloud_fallback.endpoint.served.served_model import Then, TimeLeft, no_limit
from cloud_fallback.open_inference.tensors import datatype
from edge_runtime.errors import ErrorCode, HybridgeError, missing_extra
from edge_runtime.files import read_file
from edge_runtime.tensor_spec import Array, TensorSpec

__all__ = ["OnnxModel"]

_VERSION = "1"
# What ONNX Runtime gives for a model that says no version, besides 0.
_NO_ONNX_VERSION = 2**63 - 1
_ONNX_TYPES = {
    "tensor(bool)": "bool",
    "tensor(double)": "float64",
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(string)": "string",
} | {f"tensor({sign}int{bits})": f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)}


class OnnxModel:
    """A `.onnx` on ONNX Runtime, which the extra ``serve`` installs.

    Args:
        path: The file; weights that it keeps in files beside it are found there.
        name: What requests call it, in place of the file's stem.
        version: Its version, in place of the one that the file records.
        instances: Requests that may run at once, all on one session.
        num_threads: Threads that each of them may use.
        batching: How requests are run together, for a model with a free batch.

    Raises:
        HybridgeError: `file-not-found`, `extra-missing`, `model-invalid`.
    """

    platform = "onnx_onnxv1"

    def __init__(
        self,
        path: str | PathLike[str],
        *,
        name: str | None = None,
        version: str | None = None,
        instances: int = 1,
        num_threads: int = 1,
        batching: Batching = Batching(),  # noqa: B008 - it is frozen
    ):
        self.name = name or Path(path).stem
        session = _onnx_session(path, num_threads)
        recorded = session.get_modelmeta().version
        self.version = version or (_VERSION if recorded in (0, _NO_ONNX_VERSION) else str(recorded))
        self.inputs = tuple(_onnx_spec(self.name, argument) for argument in session.get_inputs())
        self.outputs = tuple(_onnx_spec(self.name, argument) for argument in session.get_outputs())
        self._by_name = {spec.name: spec for spec in self.inputs}
        self.queue = ModelQueue(
            self.name,
            [session] * instances,
            self._run,
            batching=batching,
            batchable=can_batch(self.inputs, self.outputs),
        )

    def infer(self, inputs: Mapping[str, Array], *, time_left: TimeLeft = no_limit) -> dict[str, Array]:
        """Runs the model once; see `ServedModel`."""
        return self.queue.infer(self._feeds(inputs), time_left)

    def begin(self, inputs: Mapping[str, Array], time_left: TimeLeft, then: Then) -> None:
        """`infer` for a caller who does not wait; see `ServedModel`."""
        self.queue.begin(self._feeds(inputs), time_left, then)

    def _feeds(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        if inputs.keys() != self._by_name.keys():
            missing = self._by_name.keys() - inputs.keys()
            raise HybridgeError(
                ErrorCode.INPUT_MISSING if missing else ErrorCode.INPUT_UNKNOWN,
                f"inputs of model '{self.name}'",
                received=", ".join(inputs) or "none",
                expected=", ".join(self._by_name),
            )
        return {name: self._accepted(self._by_name[name], array) for name, array in inputs.items()}

    def _run(self, session: Any, feeds: Mapping[str, Array]) -> dict[str, Array]:
        try:
            results = session.run(None, dict(feeds))
        # ONNX Runtime's exceptions have no common base of their own.
        except Exception as error:
            raise HybridgeError(
                ErrorCode.INVOKE_FAILED, f"model '{self.name}'", received=str(error).strip()
            ) from error
        return {spec.name: np.asarray(result) for spec, result in zip(self.outputs, results, strict=True)}

    def _accepted(self, spec: TensorSpec, array: Array) -> Array:
        is_string = array.dtype.kind == "O"
        if array.dtype.name != spec.dtype and not (is_string and spec.dtype == "string"):
            raise HybridgeError(
                ErrorCode.INPUT_DTYPE,
                f"input '{spec.name}' of model '{self.name}'",
                received=datatype(array.dtype),
                expected=datatype(spec.dtype),
            )
        if not spec.admits(array.shape):
            raise HybridgeError(
                ErrorCode.INPUT_SHAPE,
                f"input '{spec.name}' of model '{self.name}'",
                received=f"shape {array.shape}",
                expected=f"shape ({', '.join(map(str, spec.shape))})",
            )
        return _texts(spec.name, array) if is_string else array


def _onnx_session(path: str | PathLike[str], num_threads: int) -> Any:
    try:
        import onnxruntime
    except ModuleNotFoundError as error:
        raise missing_extra("serve", "onnxruntime") from error

    if not Path(path).is_file():
        read_file(path)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = num_threads
    # Threads that spin between requests take the cores from the other models.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    # ONNX Runtime's exceptions have no common base of their own.
    except Exception as error:
        raise HybridgeError(
            ErrorCode.MODEL_INVALID,
            f"model '{Path(path).stem}'",
            received=str(error).strip(),
            expected=f"an ONNX model that onnxruntime {onnxruntime.__version__} runs",
        ) from error


def _onnx_spec(model: str, argument: Any) -> TensorSpec:
    if argument.type not in _ONNX_TYPES:
        raise HybridgeError(
            ErrorCode.MODEL_INVALID,
            f"tensor '{argument.name}' of model '{model}'",
            received=argument.type,
            expected=f"one of {', '.join(sorted(_ONNX_TYPES))}",
        )
    shape = tuple(
        size if isinstance(size, int) else size or f"dim{axis}" for axis, size in enumerate(argument.shape)
    )
    return TensorSpec(argument.name, shape, _ONNX_TYPES[argument.type])


def _texts(name: str, array: Array) -> Array:
    # ONNX Runtime would take bytes for their Python spelling: b'a' becomes "b'a'".
    try:
        texts = [element.decode() if isinstance(element, bytes) else element for element in array.flat]
    except UnicodeDecodeError as error:
        raise HybridgeError(
            ErrorCode.INPUT_INVALID, f"input '{name}'", received=str(error), expected="strings in UTF-8"
        ) from error
    return np.array(texts, object).reshape(array.shape)
