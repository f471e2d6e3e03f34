"""An ONNX model as a function of named TensorFlow tensors."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from convert.libraries import load_library
from convert.onnx.carriers import carrier
from convert.onnx.importer import Importer
from convert.onnx.model_file import OnnxModel
from convert.onnx.problems import refusal
from convert.onnx.value import Value, channels_last, identity
from edge_runtime.tensor_spec import Array

__all__ = ["OnnxFunction"]

_QUANTIZES = re.compile(r"QuantizeLinear|^QLinear|^QGemm")


class OnnxFunction:
    """Computes a model when it is called, eagerly or while TensorFlow traces it.

    Args:
        model: The model.
        constants: Values of inputs that are fixed, by name; the function does not take these.
        channels_last: Whether inputs and outputs of four or five axes are (batch, space..., channels).
    """

    def __init__(
        self, model: OnnxModel, *, constants: Mapping[str, Array] | None = None, channels_last: bool = False
    ):
        self._model = model
        self._constants = constants or {}
        self._channels_last = channels_last
        self._importer = Importer(model.proto)

    def __call__(self, tensors: Mapping[str, Any]) -> dict[str, Any]:
        """Outputs by name, each in the type that the model gives it.

        Args:
            tensors: One for each input, in the model's types.

        Raises:
            HybridgeError: `conversion-failed`, with every node that cannot be converted.
        """
        tensorflow = load_library("tensorflow")
        values: dict[str, Value] = {name: Value.constant(array) for name, array in self._constants.items()}
        for name, tensor in tensors.items():
            dtype = tensor.dtype.as_numpy_dtype
            carried = tensorflow.cast(tensor, carrier(Value.constant([], dtype).dtype))
            values[name] = Value.of(carried, dtype, self._order(carried.shape.rank))
        outputs = self._importer(values)
        if self._importer.problems:
            raise refusal(self._importer.problems, self._model.name)
        return {
            spec.name: self._returned(value)
            for spec, value in zip(self._model.outputs, outputs, strict=True)
            if value is not None
        }

    @property
    def is_quantized(self) -> bool:
        """Whether the model has quantised tensors, which the converter shall compute as such."""
        return any(_QUANTIZES.search(node.op_type) for node in self._model.proto.graph.node)

    def _returned(self, value: Value) -> Any:
        tensorflow = load_library("tensorflow")
        tensor = value.stored_as(self._order(value.rank))
        if tensor.dtype.name != value.dtype.name:
            return tensorflow.cast(tensor, value.dtype.name)
        return tensorflow.identity(tensor)

    def _order(self, rank: int) -> tuple[int, ...]:
        return channels_last(rank) if self._channels_last and rank in (4, 5) else identity(rank)
