"""Reads requests for inference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from google.protobuf.message import DecodeError

from cloud_fallback.endpoint.request_parameters import refuse_extensions, timeout_s
from cloud_fallback.endpoint.rpc.request_bounds import check_bounds
from cloud_fallback.open_inference.known_heads import KnownHeads
from cloud_fallback.open_inference.open_inference_pb2 import ModelInferRequest
from cloud_fallback.open_inference.tensors import RAW_INPUT_TAG, decode_request
from edge_runtime.errors import ErrorCode, HybridgeError
from edge_runtime.tensor_spec import Array

__all__ = ["InferRequest", "RequestReader", "not_a_message"]


@dataclass(slots=True)
class InferRequest:
    """A `ModelInferRequest`, read.

    Attributes:
        model_name: The model's name.
        model_version: Its version, or empty.
        id: What the client calls the request, or empty.
        inputs: Its inputs, which cannot be written to.
        outputs: Names of the outputs wanted, or none for all.
        timeout_s: Seconds that the client gives it by parameter, or None.
    """

    model_name: str
    model_version: str
    id: str
    inputs: Mapping[str, Array]
    outputs: tuple[str, ...]
    timeout_s: float | None


class RequestReader:
    """Reads requests, most of them without parsing; safe from many threads."""

    def __init__(self) -> None:
        # Model, version, outputs, and timeout.
        self._known: KnownHeads[tuple[str, str, tuple[str, ...], float | None]] = KnownHeads(
            ModelInferRequest, RAW_INPUT_TAG
        )

    def read(self, content: bytes) -> InferRequest:
        """The request in a serialised `ModelInferRequest`.

        Raises:
            HybridgeError: `input-invalid`, `input-dtype`, `input-shape` or `message-too-large` for what is none, or
                more than is read.
        """
        return self.read_known(content) or self._parse(content)

    def read_known(self, content: bytes) -> InferRequest | None:
        """The request in one that is like an earlier one, in a few microseconds; None for another."""
        known = self._known.read(content)
        if known is None:
            return None
        (name, version, outputs, timeout), inputs = known
        return InferRequest(name, version, "", inputs, outputs, timeout)

    def _parse(self, content: bytes) -> InferRequest:
        check_bounds(content)
        try:
            message = ModelInferRequest.FromString(content)
        except DecodeError as error:
            raise not_a_message(content) from error
        for given in message.inputs:
            refuse_extensions(f"'{given.name}'", given.parameters)
        for wanted in message.outputs:
            refuse_extensions(f"'{wanted.name}'", wanted.parameters)
        timeout = timeout_s(message.parameters["timeout"].int64_param) if message.parameters else None
        inputs = decode_request(message)
        outputs = tuple(output.name for output in message.outputs)
        # Who gives each request a name gives no two the same.
        if not message.id:
            facts = (message.model_name, message.model_version, outputs, timeout)
            self._known.keep(content, inputs, message.raw_input_contents, facts)
        return InferRequest(message.model_name, message.model_version, message.id, inputs, outputs, timeout)


def not_a_message(content: bytes) -> HybridgeError:
    """The error for bytes that no message can be parsed from."""
    return HybridgeError(
        ErrorCode.INPUT_INVALID,
        "call",
        received=f"{len(content)} bytes that are not its message",
        expected="a message of the Open Inference Protocol",
    )
