"""Reads requests for inference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from google.protobuf.message import DecodeError

from cloud_fallback.endpoint.rpc.request_bounds import check_bounds
from cloud_fallback.open_inference.known_heads import KnownHeads
from cloud_fallback.open_inference.open_inference_pb2 import ModelInferRequest
from cloud_fallback.open_inference.tensors import RAW_INPUT_TAG, decode_request
from edge_runtime.errors import ErrorCode, HybridgeError
from edge_runtime.tensor_spec import Array

__all__ = ["InferRequest", "RequestReader", "not_a_message"]

# Extensions of Triton that change what a tensor means; ignoring one would give a wrong answer for a right one.
_UNSUPPORTED = {"classification", "shared_memory_region"}


@dataclass(slots=True)
class InferRequest:
    """A `ModelInferRequest`, read: its inputs cannot be written to."""

    model_name: str
    model_version: str
    id: str
    inputs: Mapping[str, Array]
    outputs: tuple[str, ...]


class RequestReader:
    """Reads requests, most of them without parsing; safe from many threads."""

    def __init__(self) -> None:
        # Model, version, and outputs.
        self._known: KnownHeads[tuple[str, str, tuple[str, ...]]] = KnownHeads(
            ModelInferRequest, RAW_INPUT_TAG
        )

    def read(self, content: bytes) -> InferRequest:
        """The request in a serialised `ModelInferRequest`.

        Raises:
            HybridgeError: `input-invalid`, `input-dtype`, `input-shape` or `message-too-large` for what is none, or
                more than is read.
        """
        known = self._known.read(content)
        if known is None:
            return self._parse(content)
        (name, version, outputs), inputs = known
        for key, array in inputs.items():
            # Not everything that runs models takes elements between their places.
            if not array.flags.aligned:
                inputs[key] = aligned = array.copy()
                aligned.flags.writeable = False
        return InferRequest(name, version, "", inputs, outputs)

    def _parse(self, content: bytes) -> InferRequest:
        check_bounds(content)
        try:
            message = ModelInferRequest.FromString(content)
        except DecodeError as error:
            raise not_a_message(content) from error
        _refuse_extensions(message)
        inputs = decode_request(message)
        outputs = tuple(output.name for output in message.outputs)
        # Who gives each request a name gives no two the same.
        if not message.id:
            facts = (message.model_name, message.model_version, outputs)
            self._known.keep(content, inputs, message.raw_input_contents, facts)
        return InferRequest(message.model_name, message.model_version, message.id, inputs, outputs)


def not_a_message(content: bytes) -> HybridgeError:
    """The error for bytes that no message can be parsed from."""
    return HybridgeError(
        ErrorCode.INPUT_INVALID,
        "call",
        received=f"{len(content)} bytes that are not its message",
        expected="a message of the Open Inference Protocol",
    )


def _refuse_extensions(request: ModelInferRequest) -> None:
    parameters = [(tensor.name, tensor.parameters) for tensor in request.inputs]
    parameters += [(output.name, output.parameters) for output in request.outputs]
    for name, given in parameters:
        if extension := _UNSUPPORTED.intersection(given):
            raise HybridgeError(
                ErrorCode.INPUT_INVALID,
                f"parameters of '{name}'",
                received=", ".join(sorted(extension)),
                expected="tensors within the message, and outputs as they are",
            )
