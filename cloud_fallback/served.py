"""What an endpoint serves: a `.edge` bundle or `.tflite` on our runtime, a `.onnx` on ONNX Runtime, all alike."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any, Generic, Protocol, TypeAlias, TypeVar

import numpy as np

from cloud_fallback.tensors import datatype
from edge_runtime.bundle import Bundle
from edge_runtime.errors import ErrorCode, HybridgeError, missing_extra
from edge_runtime.files import read_file
from edge_runtime.model import Model
from edge_runtime.preprocessing import Preprocessor
from edge_runtime.tensor_spec import Array, TensorSpec

__all__ = ["FORMATS", "OnnxModel", "ServedModel", "TfliteModel", "TimeLeft", "Turns", "no_limit"]

# Seconds until nobody waits for the answer any more: None is for ever, zero or less is already.
TimeLeft: TypeAlias = Callable[[], float | None]

_DEFAULT_VERSION = "1"
# What ONNX Runtime gives for a model that says no version, besides 0.
_NO_ONNX_VERSION = 2**63 - 1
_ONNX_TYPES = {
    "tensor(bool)": "bool",
    "tensor(double)": "float64",
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(string)": "string",
} | {f"tensor({sign}int{bits})": f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)}

_Turn = TypeVar("_Turn")


def no_limit() -> None:
    """The `TimeLeft` of a caller who waits as long as it takes."""


class ServedModel(Protocol):
    """One model behind an endpoint: one of ours, or a program's own (see `Repository.load`).

    One that has a method `close` is closed when its endpoint stops.

    Attributes:
        name: What requests call it.
        version: Which of that name it is.
        platform: Framework and format, as the protocol spells them: ``<project>_<format>``.
        inputs: What a request gives; quantised tensors appear as the real values they stand for.
        outputs: What a response holds, likewise.
    """

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def version(self) -> str: ...  # noqa: D102
    @property
    def platform(self) -> str: ...  # noqa: D102
    @property
    def inputs(self) -> tuple[TensorSpec, ...]: ...  # noqa: D102
    @property
    def outputs(self) -> tuple[TensorSpec, ...]: ...  # noqa: D102

    def infer(self, inputs: Mapping[str, Array], *, time_left: TimeLeft = no_limit) -> dict[str, Array]:
        """Runs the model once, from any thread.

        Args:
            inputs: An array for each input; strings as object arrays of bytes.
            time_left: Asked while waiting for a turn, and once more when it has come.

        Raises:
            HybridgeError: ``input-*`` for what the model does not take, `cloud-deadline` when no time was left
                before it ran, `invoke-failed` when it failed.
        """
        ...


class TfliteModel:
    """A `.tflite`, bare or in a bundle, on as many interpreters as may run at once.

    A bundle's preprocessing is part of the model: requests give what the bundle takes, before any of its steps.

    Args:
        source: A `Bundle`, or a path to an `.edge` or `.tflite` file.
        name: What requests call it, in place of the manifest's name or the file's stem.
        instances: Interpreters, each with the model's memory to itself.
        num_threads: Threads that each of them may use.

    Raises:
        HybridgeError: `file-not-found`, `bundle-damaged`, `model-invalid`; `input-dtype` for a tensor of a type that
            the protocol does not have.
    """

    platform = "litert_tflite"

    def __init__(
        self,
        source: Bundle | str | PathLike[str],
        *,
        name: str | None = None,
        instances: int = 1,
        num_threads: int = 1,
    ):
        # Read and verified once, however many interpreters follow.
        is_bundle_file = not isinstance(source, Bundle) and Path(source).suffix == ".edge"
        content = source if isinstance(source, Bundle) else Bundle.open(source) if is_bundle_file else source
        models = [Model(content, num_threads=num_threads) for _ in range(instances)]
        manifest = models[0].bundle.manifest if models[0].bundle else None
        self.name = name or models[0].name
        self.version = manifest.version if manifest else _DEFAULT_VERSION
        raw = {entry.name: entry.takes for entry in manifest.preprocessing} if manifest else {}
        self.inputs = tuple(_real(raw.get(spec.name, spec)) for spec in models[0].inputs)
        self.outputs = tuple(_real(spec) for spec in models[0].outputs)
        self._preprocess = Preprocessor(manifest.preprocessing) if manifest and raw else None
        self._turns = Turns(self.name, models)
        _check_servable(self)

    def infer(self, inputs: Mapping[str, Array], *, time_left: TimeLeft = no_limit) -> dict[str, Array]:
        """Runs the model once; see `ServedModel`."""
        with self._turns.take(time_left) as model:
            return model.run(self._preprocess(inputs) if self._preprocess else inputs)


class OnnxModel:
    """A `.onnx` on ONNX Runtime, which the extra ``serve`` installs.

    Args:
        path: The file; weights that it keeps in files beside it are found there.
        name: What requests call it, in place of the file's stem.
        instances: Requests that may run at once, all on one session.
        num_threads: Threads that each of them may use.

    Raises:
        HybridgeError: `file-not-found`, `extra-missing`, `model-invalid`.
    """

    platform = "onnx_onnxv1"

    def __init__(
        self, path: str | PathLike[str], *, name: str | None = None, instances: int = 1, num_threads: int = 1
    ):
        self.name = name or Path(path).stem
        session = _onnx_session(path, num_threads)
        version = session.get_modelmeta().version
        self.version = _DEFAULT_VERSION if version in (0, _NO_ONNX_VERSION) else str(version)
        self.inputs = tuple(_onnx_spec(self.name, argument) for argument in session.get_inputs())
        self.outputs = tuple(_onnx_spec(self.name, argument) for argument in session.get_outputs())
        self._by_name = {spec.name: spec for spec in self.inputs}
        self._turns = Turns(self.name, [session] * instances)

    def infer(self, inputs: Mapping[str, Array], *, time_left: TimeLeft = no_limit) -> dict[str, Array]:
        """Runs the model once; see `ServedModel`."""
        if inputs.keys() != self._by_name.keys():
            missing = self._by_name.keys() - inputs.keys()
            raise HybridgeError(
                ErrorCode.INPUT_MISSING if missing else ErrorCode.INPUT_UNKNOWN,
                f"inputs of model '{self.name}'",
                received=", ".join(inputs) or "none",
                expected=", ".join(self._by_name),
            )
        feeds = {name: self._accepted(self._by_name[name], array) for name, array in inputs.items()}
        with self._turns.take(time_left) as session:
            try:
                results = session.run(None, feeds)
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


# By file suffix. Each is called with a path and the keywords name, instances and num_threads.
FORMATS: Mapping[str, Callable[..., ServedModel]] = {
    ".edge": TfliteModel,
    ".tflite": TfliteModel,
    ".onnx": OnnxModel,
}


class Turns(Generic[_Turn]):
    """A fixed number of turns at a model, each with the thing that runs it.

    Args:
        name: What to call the model in an error.
        runners: What runs it, one for each call that may be under way.
    """

    def __init__(self, name: str, runners: list[_Turn]):
        self._name = name
        # The one used last has its memory in the cache.
        self._free: queue.LifoQueue[_Turn] = queue.LifoQueue()
        for runner in runners:
            self._free.put(runner)

    @contextmanager
    def take(self, time_left: TimeLeft) -> Iterator[_Turn]:
        """Waits for a turn, and gives it up unused when nobody waits for the answer any more."""
        try:
            left = time_left()
            # gRPC's idea of no deadline is more seconds than a lock can wait.
            timeout = None if left is None else min(max(left, 0.0), threading.TIMEOUT_MAX)
            runner = self._free.get(timeout=timeout)
        except queue.Empty:
            raise self._too_late() from None
        try:
            left = time_left()
            if left is not None and left <= 0:
                raise self._too_late()
            yield runner
        finally:
            self._free.put(runner)

    def _too_late(self) -> HybridgeError:
        return HybridgeError(
            ErrorCode.CLOUD_DEADLINE,
            f"model '{self._name}'",
            received="a request whose deadline passed, or whose caller left, before its turn came",
            fix="give it a longer deadline, or the endpoint more instances",
        )


def _real(spec: TensorSpec) -> TensorSpec:
    if spec.quantization is None:
        return spec
    return replace(spec, dtype="float32", quantization=None)


def _check_servable(model: ServedModel) -> None:
    for spec in (*model.inputs, *model.outputs):
        datatype(spec.dtype)


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
