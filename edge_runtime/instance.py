"""One interpreter of a model with its working memory; a model has as many as may run at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from edge_runtime.errors import ErrorCode, HybridgeError
from edge_runtime.interpreter import (
    Interpreter,
    Tensor,
    has_resources,
    load_interpreter,
    signature_tensors,
)
from edge_runtime.quantizer import Quantizer
from edge_runtime.tensor_spec import Array, TensorSpec

__all__ = ["Instance", "numpy_dtype"]


class Instance:
    """An interpreter, and the way in and out of its tensors. It is used by one thread at a time.

    Instances of the same `content` share the weights as the file has them; what the interpreter's kernels pack or
    allocate each has to itself.

    Args:
        content: The `.tflite` file's bytes.
        num_threads: Threads that one invocation may use.
        dequantize: Whether quantised outputs are returned as float32 real values.
        states: For each input that carries a state, the output that is its next value.
        name: What to call the model in errors.

    Raises:
        HybridgeError: `model-invalid`.
    """

    def __init__(
        self, content: bytes, *, num_threads: int, dequantize: bool, states: Mapping[str, str], name: str
    ):
        self.name = name
        self._content, self._num_threads = content, num_threads
        self._dequantize, self._carried = dequantize, dict(states)
        self._load()

    def _load(self) -> None:
        self.interpreter = load_interpreter(self._content, num_threads=self._num_threads, name=self.name)
        self.signature_key, inputs, outputs = signature_tensors(self.interpreter)
        states, carried = self._carried, set(self._carried.values())
        self.writers = {
            tensor.spec.name: _Writer(self.interpreter, tensor)
            for tensor in inputs
            if tensor.spec.name not in states
        }
        self.readers = {
            tensor.spec.name: _Reader(self.interpreter, tensor, self._dequantize)
            for tensor in outputs
            if tensor.spec.name not in carried
        }
        by_name = {tensor.spec.name: tensor for tensor in (*inputs, *outputs)}
        self._states = [_State(self.interpreter, by_name[into], by_name[out]) for into, out in states.items()]
        self._resizable = any(writer.spec.is_dynamic for writer in self.writers.values())
        self.shapes: dict[str, tuple[int, ...]] = {}

    def run(self, inputs: Mapping[str, Array], out: Mapping[str, Array] | None) -> dict[str, Array]:
        """Invokes the interpreter on inputs that were checked; outputs by name, in `out` where it has an array.

        Raises:
            HybridgeError: `invoke-failed`; `input-shape` for an array in `out` that does not fit.
        """
        if self._resizable:
            self.prepare(inputs)
        try:
            for name, array in inputs.items():
                self.writers[name].write(array)
            if self._states:
                self._invoke_with_states()
            else:
                self.interpreter.invoke()
        except (ValueError, RuntimeError) as error:
            raise self.failure(error) from error
        if out is None:
            return {name: reader.read() for name, reader in self.readers.items()}
        return {name: reader.read_into(out.get(name)) for name, reader in self.readers.items()}

    def prepare(self, inputs: Mapping[str, Array]) -> None:
        """Gives the tensors the sizes of these inputs; does nothing when they have them already."""
        if not self._resizable:
            return
        shapes = {name: array.shape for name, array in inputs.items()}
        if shapes == self.shapes:
            return
        try:
            for name, shape in shapes.items():
                self.writers[name].resize(shape)
            self.interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise self.failure(error) from error
        self.shapes = shapes

    def invoke(self) -> None:
        """Runs the graph on what the input tensors hold, and carries states on."""
        try:
            self._invoke_with_states()
        except (ValueError, RuntimeError) as error:
            raise self.failure(error) from error

    def _invoke_with_states(self) -> None:
        for state in self._states:
            state.write()
        self.interpreter.invoke()
        for state in self._states:
            state.read()

    def touch(self) -> None:
        """Runs on zeros where sizes are known, so that memory that is allocated only then is."""
        if not self._resizable and not self._states:
            self.invoke()
            self.reset()

    def reset(self) -> None:
        """Sets states and variables back to how they were at the start."""
        if has_resources(self.interpreter):
            # The interpreter zeroes variable tensors; for variables of their own it has nothing but a new start.
            self._load()
            return
        self.interpreter.reset_all_variables()
        for state in self._states:
            state.reset()

    def failure(self, error: Exception) -> HybridgeError:
        """The error of a call that the interpreter gave up; the next call brings its sizes again."""
        self.shapes = {}
        if "reference to internal data" in str(error):
            return HybridgeError(
                ErrorCode.INVOKE_FAILED,
                f"model '{self.name}'",
                received="a call while an array of its memory is held",
                fix="let go of what was borrowed from it, then call again",
            )
        return HybridgeError(
            ErrorCode.INVOKE_FAILED,
            f"model '{self.name}'",
            received=str(error).strip(),
            fix="check that its inputs have sizes and values the model was made for",
        )


class _Writer:
    """Copies an array into the interpreter, quantised if need be."""

    def __init__(self, interpreter: Interpreter, tensor: Tensor):
        self.spec = tensor.spec
        self.index = tensor.index
        self.interpreter = interpreter
        self.view = interpreter.tensor(tensor.index)
        self.dtype = numpy_dtype(self.spec)
        self.quantizer = Quantizer(self.spec.quantization, self.dtype) if self.spec.quantization else None

    def resize(self, shape: tuple[int, ...]) -> None:
        if self.spec.is_dynamic:
            self.interpreter.resize_tensor_input(self.index, list(shape))

    def write(self, array: Array) -> None:
        if not array.size:
            return
        if self.quantizer is not None and array.dtype != self.dtype:
            array = self.quantizer.quantize(array)
        self.interpreter.set_tensor(self.index, array)


class _Reader:
    """Copies an output out of the interpreter, as real values if it is quantised."""

    def __init__(self, interpreter: Interpreter, tensor: Tensor, dequantize: bool):
        self.spec = tensor.spec
        self.name = tensor.spec.name
        self.index = tensor.index
        self.interpreter = interpreter
        # A view of the interpreter's own memory; it must be gone before the next invocation.
        self.view = interpreter.tensor(tensor.index)
        self.quantizer = None
        if dequantize and tensor.spec.quantization is not None:
            self.quantizer = Quantizer(tensor.spec.quantization, np.dtype(tensor.spec.dtype))
        self.result_dtype = np.dtype(np.float32 if self.quantizer else numpy_dtype(tensor.spec))

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


class _State:
    """An input whose value is an output of the run before, in the tensor's own type."""

    def __init__(self, interpreter: Interpreter, into: Tensor, out: Tensor):
        self.interpreter, self.into, self.out = interpreter, into, out
        self.reset()

    def reset(self) -> None:
        spec = self.into.spec
        shape = tuple(1 if isinstance(size, str) else size for size in spec.shape)
        zero = spec.quantization.zero_point[0] if spec.quantization else 0
        self.value: Array = np.full(shape, zero, numpy_dtype(spec))

    def write(self) -> None:
        self.interpreter.set_tensor(self.into.index, self.value)

    def read(self) -> None:
        self.value = self.interpreter.get_tensor(self.out.index)


def numpy_dtype(spec: TensorSpec) -> np.dtype[Any]:
    """The type of the arrays that hold a tensor's values; strings are objects of bytes."""
    return np.dtype(object if spec.dtype == "string" else spec.dtype)
