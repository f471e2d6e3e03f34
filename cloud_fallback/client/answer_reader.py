"""Reads answers to questions."""

from __future__ import annotations

from collections.abc import Mapping

from google.protobuf.message import DecodeError

from cloud_fallback.client.answer import refused
from cloud_fallback.open_inference.known_heads import KnownHeads
from cloud_fallback.open_inference.open_inference_pb2 import ModelInferResponse
from cloud_fallback.open_inference.tensors import RAW_OUTPUT_TAG, decode_response
from edge_runtime.errors import HybridgeError
from edge_runtime.tensor_spec import Array

__all__ = ["AnswerReader"]


class AnswerReader:
    """Reads answers, most of them without parsing; safe from many threads.

    Args:
        what: Whose answers they are, for messages.
    """

    def __init__(self, what: str):
        self._what = what
        self._known: KnownHeads[str] = KnownHeads(ModelInferResponse, RAW_OUTPUT_TAG)

    def read(self, content: bytes) -> tuple[str, Mapping[str, Array]]:
        """The version of the model that answered, and its outputs, which are views of the message.

        Args:
            content: A serialised `ModelInferResponse`.

        Raises:
            HybridgeError: `cloud-refused` for what does not follow the protocol.
        """
        known = self._known.read(content)
        if known is not None:
            return known
        try:
            message = ModelInferResponse.FromString(content)
            arrays = decode_response(message)
        except DecodeError as error:
            raise refused(self._what, f"{len(content)} bytes that are no message") from error
        except HybridgeError as error:
            raise refused(self._what, f"a malformed message: {error.message}") from error
        # Some servers give each answer a name, and no two the same.
        if not message.id:
            self._known.keep(content, arrays, message.raw_output_contents, message.model_version)
        return message.model_version, arrays
