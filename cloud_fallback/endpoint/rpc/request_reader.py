"""Reads requests for inference; those that differ from an earlier one in their contents only, without parsing them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from google.protobuf.message import DecodeError

from cloud_fallback.endpoint.rpc.request_bounds import check_bounds
from cloud_fallback.open_inference.open_inference_pb2 import ModelInferRequest
from cloud_fallback.open_inference.tensors import RAW_INPUT_TAG, decode_request, encode_size
from edge_runtime.errors import ErrorCode, HybridgeError
from edge_runtime.tensor_spec import Array

__all__ = ["InferRequest", "RequestReader", "not_a_message"]

# Extensions of Triton that change what a tensor means; ignoring one would give a wrong answer for a right one.
_UNSUPPORTED = {"classification", "shared_memory_region"}
# Heads that are known at once, how long one may be, and how many with as many bytes in all.
_MAX_HEADS, _MAX_HEAD_BYTES, _MAX_ALIKE = 1024, 1024, 4


@dataclass(slots=True)
class InferRequest:
    """A `ModelInferRequest`, read: its inputs cannot be written to."""

    model_name: str
    model_version: str
    id: str
    inputs: Mapping[str, Array]
    outputs: tuple[str, ...]


class _Tensor(NamedTuple):
    """Where the contents of a tensor are in a request, and what is before them: their tag and size."""

    name: str
    dtype: np.dtype[np.generic]
    shape: tuple[int, ...]
    size: int
    start: int
    mark: bytes


class _Head(NamedTuple):
    """What is the same in requests of one head."""

    size: int
    model_name: str
    model_version: str
    tensors: tuple[_Tensor, ...]
    outputs: tuple[str, ...]


class RequestReader:
    """Reads requests; safe from many threads.

    A device asks about the same shapes again and again. Of a message whose raw contents come last, what is before them
    is kept; the next message that begins so and is as long has contents of the same sizes in the same places, as
    fields that follow each other are read one after the other (https://protobuf.dev/programming-guides/encoding).
    """

    def __init__(self) -> None:
        self._heads: dict[bytes, _Head] = {}
        # Where heads end in messages of so many bytes.
        self._ends: dict[int, tuple[int, ...]] = {}

    def read(self, content: bytes) -> InferRequest:
        """The request in a serialised `ModelInferRequest`.

        Raises:
            HybridgeError: `input-invalid`, `input-dtype`, `input-shape` or `message-too-large` for what is none, or
                more than is read.
        """
        for end in self._ends.get(len(content), ()):
            head = self._heads.get(content[:end])
            if head is not None and head.size == len(content):
                inputs = _inputs(head, content)
                if inputs is not None:
                    return InferRequest(head.model_name, head.model_version, "", inputs, head.outputs)
        return self._parse(content)

    def _parse(self, content: bytes) -> InferRequest:
        check_bounds(content)
        try:
            message = ModelInferRequest.FromString(content)
        except DecodeError as error:
            raise not_a_message(content) from error
        _refuse_extensions(message)
        inputs = decode_request(message)
        outputs = tuple(output.name for output in message.outputs)
        if not message.id:
            self._keep(content, message, inputs, outputs)
        return InferRequest(message.model_name, message.model_version, message.id, inputs, outputs)

    def _keep(
        self,
        content: bytes,
        message: ModelInferRequest,
        inputs: Mapping[str, Array],
        outputs: tuple[str, ...],
    ) -> None:
        """Keeps a request's head if others can be read by it."""
        raw = message.raw_input_contents
        if not raw or any(array.dtype == object for array in inputs.values()):
            return
        tensors, end = [], len(content)
        for (name, array), entry in reversed(list(zip(inputs.items(), raw, strict=True))):
            mark = RAW_INPUT_TAG + encode_size(len(entry))
            tensors.append(_Tensor(name, array.dtype, array.shape, array.size, end - len(entry), mark))
            end -= len(entry) + len(mark)
        if not 0 < end <= _MAX_HEAD_BYTES:
            return
        head = _Head(
            len(content), message.model_name, message.model_version, tuple(reversed(tensors)), outputs
        )
        # The rest must be the contents and nothing else, and what is before must be whole fields without any.
        try:
            before = ModelInferRequest.FromString(content[:end])
        except DecodeError:
            return
        if before.raw_input_contents or _inputs(head, content) is None:
            return
        ends = self._ends.get(len(content), ())
        if end not in ends:
            if len(ends) >= _MAX_ALIKE:
                return
            ends = (*ends, end)
        if len(self._heads) >= _MAX_HEADS:
            self._heads.clear()
            self._ends.clear()
        self._heads[content[:end]] = head
        self._ends[len(content)] = ends


def not_a_message(content: bytes) -> HybridgeError:
    """The error for bytes that no message can be parsed from."""
    return HybridgeError(
        ErrorCode.INPUT_INVALID,
        "call",
        received=f"{len(content)} bytes that are not its message",
        expected="a message of the Open Inference Protocol",
    )


def _inputs(head: _Head, content: bytes) -> dict[str, Array] | None:
    """The inputs of a message that begins with a head and is as long; None where the rest is something else."""
    inputs: dict[str, Array] = {}
    for name, dtype, shape, size, start, mark in head.tensors:
        if not content.startswith(mark, start - len(mark)):
            return None
        array: Array = np.frombuffer(content, dtype, size, start)
        if start % dtype.itemsize:
            # Not everything that runs models takes elements between their places.
            array = array.copy()
            array.flags.writeable = False
        inputs[name] = array.reshape(shape)
    return inputs


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
