"""A model's instance lent to a caller, who reaches its memory without a copy."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from edge_runtime.errors import ErrorCode, HybridgeError
from edge_runtime.input_port import size_error
from edge_runtime.instance import Instance
from edge_runtime.tensor_spec import Array

__all__ = ["LentInstance"]


class LentInstance:
    """An instance of a model whose memory may be read and written directly, as long as it is borrowed.

    An array that `input` or `output` gives *is* the interpreter's memory, in the tensor's own type: it must be let go
    before `invoke`, and before the block ends; the interpreter refuses to run while anyone holds one.
    """

    def __init__(self, instance: Instance):
        self._instance = instance

    def resize(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Gives inputs with free dimensions these shapes, all inputs by name.

        Raises:
            HybridgeError: `input-missing`, `input-unknown`, `input-shape`; `invoke-failed` for sizes that the model
                cannot have, and while an array of its memory is held.
        """
        writers = self._instance.writers
        for name, shape in shapes.items():
            self._check_name(name, writers, ErrorCode.INPUT_UNKNOWN)
            spec = writers[name].spec
            if not spec.admits(shape) or (spec.is_dynamic and 0 in shape):
                raise size_error(self._instance.name, spec, shape)
        if missing := [name for name in writers if name not in shapes]:
            raise HybridgeError(
                ErrorCode.INPUT_MISSING,
                f"sizes of inputs of model '{self._instance.name}'",
                received=", ".join(shapes) or "none",
                expected=", ".join(writers),
                fix=f"add {', '.join(missing)}",
            )
        self._instance.prepare({name: np.broadcast_to(np.int8(0), shape) for name, shape in shapes.items()})

    def input(self, name: str) -> Array:
        """The memory of an input.

        Raises:
            HybridgeError: `input-unknown`.
        """
        self._check_name(name, self._instance.writers, ErrorCode.INPUT_UNKNOWN)
        return self._instance.writers[name].view()

    def output(self, name: str) -> Array:
        """The memory of an output, as the last invocation left it.

        Raises:
            HybridgeError: `output-unknown`.
        """
        self._check_name(name, self._instance.readers, ErrorCode.OUTPUT_UNKNOWN)
        return self._instance.readers[name].view()

    def invoke(self) -> None:
        """Runs the model on what its inputs hold.

        Raises:
            HybridgeError: `invoke-failed`, also when an array of its memory is still held.
        """
        self._instance.invoke()

    def _check_name(self, name: str, tensors: Mapping[str, object], code: ErrorCode) -> None:
        if name not in tensors:
            raise HybridgeError(
                code,
                f"memory of model '{self._instance.name}'",
                received=f"'{name}'",
                expected=f"one of {', '.join(tensors)}",
            )
