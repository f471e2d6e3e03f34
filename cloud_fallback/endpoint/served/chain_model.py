"""A chain as a model that an endpoint serves."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike

import numpy as np

from cloud_fallback.endpoint.served.model_queue import Batching, ModelQueue
from cloud_fallback.endpoint.served.served_model import Then, TimeLeft, no_limit
from cloud_fallback.open_inference.tensors import datatype
from edge_runtime import Chain, ErrorCode, HybridgeError, load_chain
from edge_runtime.tensor_spec import Array, TensorSpec
from edge_runtime.tensor_type import TensorType

__all__ = ["ChainModel"]

_VERSION = "1"


class ChainModel:
    """A chain in TOML: whatever its stages do, requests give its inputs and get its outputs.

    Its file says what its inputs are (``inputs = { crop = "uint8[height, width, 3]" }``), since a request has to be
    told. Text travels as strings in UTF-8.

    Args:
        path: The chain's file.
        name: What requests call it, in place of the chain's own name.
        version: Its version.
        instances: Requests that may run at once.
        num_threads: Of no effect: the chain's file says how many threads each model has.
        batching: How many requests may wait; a chain runs each alone.

    Raises:
        HybridgeError: What `load_chain` raises; `model-invalid` for a chain with inputs whose types it does not say, or
            with outputs that are items.
    """

    platform = "hybridge_chain"

    def __init__(
        self,
        path: str | PathLike[str],
        *,
        name: str | None = None,
        version: str = _VERSION,
        instances: int = 1,
        num_threads: int = 1,  # noqa: ARG002 - every kind of model is made with the same settings
        batching: Batching = Batching(),  # noqa: B008 - it is frozen
    ):
        self._chain = load_chain(path)
        try:
            self.name, self.version = name or self._chain.name, version
            self.inputs = tuple(
                _spec(self.name, each, kind) for each, kind in self._chain.input_types.items()
            )
            self.outputs = tuple(
                _spec(self.name, each, kind) for each, kind in self._chain.output_types.items()
            )
            for spec in (*self.inputs, *self.outputs):
                datatype(spec.dtype)
        except BaseException:
            self._chain.close()
            raise
        self.queue = ModelQueue(self.name, [self._chain] * instances, _run, batching=batching)
        self._text_inputs = {spec.name for spec in self.inputs if spec.dtype == "string"}

    def infer(self, inputs: Mapping[str, Array], *, time_left: TimeLeft = no_limit) -> dict[str, Array]:
        """Runs the chain once; see `ServedModel`."""
        return self.queue.infer(self._given(inputs), time_left)

    def begin(self, inputs: Mapping[str, Array], time_left: TimeLeft, then: Then) -> None:
        """`infer` for a caller who does not wait; see `ServedModel`."""
        self.queue.begin(self._given(inputs), time_left, then)

    def _given(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        return {
            name: _text(name, array) if name in self._text_inputs else array for name, array in inputs.items()
        }

    def close(self) -> None:
        """Closes the chain's own fallbacks."""
        self._chain.close()


def _run(chain: Chain, inputs: Mapping[str, Array]) -> dict[str, Array]:
    return {name: _encoded(value) for name, value in chain.run(inputs).outputs.items()}


def _spec(chain: str, name: str, kind: TensorType) -> TensorSpec:
    dtype = kind.dtype
    is_open = dtype is None or "|" in dtype or (len(dtype) == 1 and dtype.isupper())
    if is_open or kind.shape is None or kind.items:
        raise HybridgeError(
            ErrorCode.MODEL_INVALID,
            f"tensor '{name}' of chain '{chain}'",
            received=str(kind),
            expected="one array of a known type",
            fix='say what inputs are, such as inputs = { image = "uint8[height, width, 3]" }',
        )
    shape = tuple("any" if size == "..." else size for size in kind.shape)
    return TensorSpec(name, shape, {"text": "string", "bytes": "string"}.get(str(dtype), str(dtype)))


def _text(name: str, array: Array) -> Array:
    try:
        texts = [element.decode() for element in array.ravel().tolist()]
    except (AttributeError, UnicodeDecodeError) as error:
        raise HybridgeError(
            ErrorCode.INPUT_INVALID, f"input '{name}'", received=str(error), expected="strings in UTF-8"
        ) from error
    return np.array(texts, np.str_).reshape(array.shape)


def _encoded(value: Array) -> Array:
    if value.dtype.kind != "U":
        return value
    encoded = np.empty(value.shape, object)
    encoded.reshape(-1)[:] = [text.encode() for text in value.reshape(-1).tolist()]
    return encoded
