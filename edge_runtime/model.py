"""A model on the device: named arrays in, named arrays out."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from edge_runtime.errors import ErrorCode, HybridgeError
from edge_runtime.files import read_file
from edge_runtime.interpreter import Interpreter, Tensor, load_interpreter, signature_tensors
from edge_runtime.quantizer import Quantizer
from edge_runtime.tensor_spec import Array, TensorSpec

if TYPE_CHECKING:
    from edge_runtime.bundle import Bundle

__all__ = ["Inputs", "Model"]

Inputs: TypeAlias = Mapping[str, Array] | Array


class Model:
    """One model, loaded and ready.

    Quantised inputs take either real values (float32, quantised here) or the tensor's own integer type, taken as
    already quantised. Quantised outputs come back as float32, unless `dequantize` is false. Everything else must
    have exactly the shape and type that `inputs` lists: a silent cast hides mistakes that cost accuracy.

    A model may be called from many threads; calls take turns. The arrays that `run` returns are the caller's own.

    Args:
        source: A `Bundle`, a path to an `.edge` or `.tflite` file, or a `.tflite` file's bytes.
        num_threads: Threads that one invocation may use.
        dequantize: Whether quantised outputs are returned as float32 real values.

    Raises:
        HybridgeError: `file-not-found`, `bundle-damaged`, `model-invalid`.

    Example:
        >>> model = Model("digits-1.0.edge")
        >>> model.run({"image": image})["probabilities"].shape
        (1, 10)
    """

    def __init__(
        self,
        source: Bundle | bytes | str | PathLike[str],
        *,
        num_threads: int = 1,
        dequantize: bool = True,
    ):
        self.bundle, self.name, content = _open(source)
        if num_threads < 1:
            raise HybridgeError(
                ErrorCode.USAGE,
                f"model '{self.name}'",
                received=f"num_threads={num_threads}",
                expected="1 or more",
            )
        self.num_threads = num_threads
        self._interpreter = load_interpreter(content, num_threads=num_threads, name=self.name)
        self.signature_key, inputs, outputs = signature_tensors(self._interpreter)
        self.inputs: tuple[TensorSpec, ...] = tuple(tensor.spec for tensor in inputs)
        self.outputs: tuple[TensorSpec, ...] = tuple(tensor.spec for tensor in outputs)
        self._writers = {tensor.spec.name: _InputSlot(self, self._interpreter, tensor) for tensor in inputs}
        self._readers = [_OutputSlot(self._interpreter, tensor, dequantize) for tensor in outputs]
        self._output_names = {reader.name for reader in self._readers}
        self._lock = threading.Lock()

    def run(self, inputs: Inputs, *, out: Mapping[str, Array] | None = None) -> dict[str, Array]:
        """Runs the model once.

        Args:
            inputs: An array for each name in `inputs`, or one array for a model with one input.
            out: Arrays to put outputs into, by name, of the output's shape and type; they are returned in the
                result in place of new ones. Reusing them saves the allocation of large outputs.

        Returns:
            An array for each name in `outputs`.

        Raises:
            HybridgeError: `input-missing`, `input-unknown`, `input-shape`, `input-dtype`, `output-unknown` before
                anything runs; `invoke-failed` when the interpreter gives up.
        """
        writers = self._writers
        named: Mapping[str, Any] = inputs if isinstance(inputs, Mapping) else {self._only_input(): inputs}
        if named.keys() != writers.keys():
            self._refuse_names(named)
        # All inputs are checked before any changes the interpreter: a refused call leaves it as it was.
        for name, array in named.items():
            writers[name].check(array)
        if out is not None and not out.keys() <= self._output_names:
            self._refuse_outputs(out)
        with self._lock:
            try:
                resized = [writers[name].resize(array) for name, array in named.items()]
                if any(resized):
                    self._interpreter.allocate_tensors()
                for name, array in named.items():
                    writers[name].write(array)
                self._interpreter.invoke()
            except (ValueError, RuntimeError) as error:
                for writer in writers.values():
                    writer.forget_size()
                raise HybridgeError(
                    ErrorCode.INVOKE_FAILED,
                    f"model '{self.name}'",
                    received=str(error).strip(),
                    fix="check that its inputs have sizes and values the model was made for",
                ) from error
            if out is None:
                return {reader.name: reader.read() for reader in self._readers}
            return {reader.name: reader.read_into(out.get(reader.name)) for reader in self._readers}

    def _only_input(self) -> str:
        if len(self.inputs) != 1:
            raise HybridgeError(
                ErrorCode.INPUT_MISSING,
                f"model '{self.name}'",
                received="one array without a name",
                expected=f"arrays named {', '.join(self._writers)}",
                fix="pass a mapping from name to array",
            )
        return self.inputs[0].name

    def _refuse_names(self, named: Mapping[str, Any]) -> None:
        missing = [name for name in self._writers if name not in named]
        raise HybridgeError(
            ErrorCode.INPUT_MISSING if missing else ErrorCode.INPUT_UNKNOWN,
            f"inputs of model '{self.name}'",
            received=", ".join(map(str, named)) or "none",
            expected=", ".join(self._writers),
            fix=f"add {', '.join(missing)}" if missing else "leave the others out",
        )

    def _refuse_outputs(self, out: Mapping[str, Any]) -> None:
        raise HybridgeError(
            ErrorCode.OUTPUT_UNKNOWN,
            f"arrays for outputs of model '{self.name}'",
            received=", ".join(map(str, out)),
            expected=f"names among {', '.join(sorted(self._output_names))}",
        )

    def __repr__(self) -> str:
        return f"Model({self.name!r}, inputs={[spec.name for spec in self.inputs]})"


class _InputSlot:
    """Checks an array and copies it into the interpreter, quantised if need be."""

    def __init__(self, model: Model, interpreter: Interpreter, tensor: Tensor):
        self.model_name = model.name
        self.spec = tensor.spec
        self.index = tensor.index
        self.interpreter = interpreter
        # A dimension that may vary has no size until an array brings one.
        self.shape: tuple[int | str, ...] | None = None if self.spec.is_dynamic else self.spec.shape
        self.dtype = _numpy_dtype(self.spec)
        self.quantizer = Quantizer(self.spec.quantization, self.dtype) if self.spec.quantization else None

    def check(self, array: Any) -> None:
        """Refuses an array that does not fit."""
        if not isinstance(array, np.ndarray):
            raise self._refusal(ErrorCode.INPUT_DTYPE, type(array).__name__, "a NumPy array")
        if array.dtype != self.dtype and not (self.quantizer and array.dtype == np.float32):
            either = f"float32, or {self.dtype} already quantised" if self.quantizer else str(self.dtype)
            raise self._refusal(ErrorCode.INPUT_DTYPE, str(array.dtype), either, "cast it with .astype")
        if array.shape != self.shape and not self.spec.admits(array.shape):
            expected = f"({', '.join(map(str, self.spec.shape))})"
            raise self._refusal(
                ErrorCode.INPUT_SHAPE, f"shape {array.shape}", f"shape {expected}", "reshape it"
            )
        if not array.size and self.spec.is_dynamic:
            # What the file itself declares without elements was converted so; a size that a caller brings was not.
            # Kernels divide by a dimension here and there, and a fault in one ends the process, not the call.
            raise self._refusal(ErrorCode.INPUT_SHAPE, f"shape {array.shape}", "a tensor with elements")

    def resize(self, array: Array) -> bool:
        """Gives the tensor the size of a checked array; returns whether tensors must be allocated again for it."""
        if array.shape == self.shape:
            return False
        self.interpreter.resize_tensor_input(self.index, list(array.shape))
        self.shape = array.shape
        return True

    def forget_size(self) -> None:
        """After a failure: the next array brings its size again, so that tensors are allocated for it."""
        if self.spec.is_dynamic:
            self.shape = None

    def write(self, array: Array) -> None:
        """Copies an accepted array into the interpreter."""
        if not array.size:
            return
        if self.quantizer is not None and array.dtype != self.dtype:
            array = self.quantizer.quantize(array)
        self.interpreter.set_tensor(self.index, array)

    def _refusal(self, code: ErrorCode, received: str, expected: str, fix: str = "") -> HybridgeError:
        what = f"input '{self.spec.name}' of model '{self.model_name}'"
        return HybridgeError(code, what, received=received, expected=expected, fix=fix)


class _OutputSlot:
    """Copies an output out of the interpreter, as real values if it is quantised."""

    def __init__(self, interpreter: Interpreter, tensor: Tensor, dequantize: bool):
        self.name = tensor.spec.name
        self.index = tensor.index
        self.interpreter = interpreter
        # A view of the interpreter's own memory; it must be gone before the next invocation.
        self.view = interpreter.tensor(tensor.index)
        self.quantizer = None
        if dequantize and tensor.spec.quantization is not None:
            self.quantizer = Quantizer(tensor.spec.quantization, np.dtype(tensor.spec.dtype))
        self.result_dtype = np.dtype(np.float32 if self.quantizer else _numpy_dtype(tensor.spec))

    def read(self) -> Array:
        try:
            if self.quantizer is None:
                return self.interpreter.get_tensor(self.index)
            return self.quantizer.dequantize(self.view(), None)
        except ValueError:
            # The interpreter has no memory to show for a tensor without elements ("Invalid tensor size.").
            shape = self._shape()
            if 0 not in shape:
                raise
            return np.empty(shape, self.result_dtype)

    def _shape(self) -> tuple[int, ...]:
        details = self.interpreter.get_output_details()
        return next(tuple(map(int, each["shape"])) for each in details if each["index"] == self.index)

    def read_into(self, target: Array | None) -> Array:
        if target is None:
            return self.read()
        # No frame that may raise holds a view: a traceback would keep it, and the interpreter would refuse to run.
        shape = self.view().shape if target.size else self._shape()
        if target.shape != shape or target.dtype != self.result_dtype:
            raise HybridgeError(
                ErrorCode.INPUT_SHAPE,
                f"array given for output '{self.name}'",
                received=f"{target.dtype} of shape {target.shape}",
                expected=f"{self.result_dtype} of shape {shape}",
            )
        if not target.size:
            return target
        if self.quantizer is not None:
            return self.quantizer.dequantize(self.view(), target)
        np.copyto(target, self.view())
        return target


def _numpy_dtype(spec: TensorSpec) -> np.dtype[Any]:
    return np.dtype(object if spec.dtype == "string" else spec.dtype)


def _open(source: Bundle | bytes | str | PathLike[str]) -> tuple[Bundle | None, str, bytes]:
    if isinstance(source, bytes | bytearray):
        return None, "model", bytes(source)
    if isinstance(source, str | PathLike):
        path = fspath(source)
        name, suffix = os.path.splitext(os.path.basename(path))
        if suffix != ".edge":
            return None, name, read_file(path)
        # What reads manifests is loaded with the first bundle; a bare model needs none of it.
        from edge_runtime.bundle import Bundle

        source = Bundle.open(path)
    return source, source.manifest.name, source.model_content
