"""What random bytes are given to, and what must never come of it."""

from __future__ import annotations

import time
import tracemalloc
from collections import Counter
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Protocol, Self

import grpc
import numpy as np
from google.protobuf.message import DecodeError

from cloud_fallback.endpoint.rpc.request_bounds import check_bounds
from cloud_fallback.open_inference.open_inference_pb2 import ModelInferRequest
from cloud_fallback.open_inference.open_inference_pb2_grpc import GRPCInferenceServiceStub
from cloud_fallback.open_inference.tensors import decode_request, decode_response, encode_request
from edge_runtime import HybridgeError
from tests.cloud_fallback.faults.http2 import INFER
from tests.cloud_fallback.onnx_models import LINEAR_WEIGHTS

__all__ = ["Decoder", "FindingError", "LiveEndpoint", "Target"]

_MAX_SECONDS = 2.0
# An array of objects and a list of them for each byte, and what Python takes for itself.
_MAX_TIMES, _MAX_MORE = 64, 2**20
# A request was wrong in one of these ways; all others are the endpoint's fault.
_ANSWERS = (
    grpc.StatusCode.OK,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
)
# What a model itself says of inputs that are of the right type and shape, such as a size of -1.
_OF_THE_MODEL = "invoke-failed"


class FindingError(AssertionError):
    """Something that must never be."""


class Target(Protocol):
    """Takes bytes in place of a request; `outcomes` counts what came of them.

    Raises:
        FindingError: From `try_out`, for what must never be.
    """

    outcomes: Counter[str]

    def try_out(self, content: bytes) -> None: ...


class Decoder(AbstractContextManager["Decoder"]):
    """The way of a message in this process: its bounds, the parser, the arrays."""

    def __init__(self) -> None:
        self.outcomes: Counter[str] = Counter()
        self._stops_tracing = False

    def __enter__(self) -> Self:
        self._stops_tracing = not tracemalloc.is_tracing()
        tracemalloc.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._stops_tracing:
            tracemalloc.stop()

    def try_out(self, content: bytes) -> None:
        """Decodes; whatever it raises but a `HybridgeError` is a finding of its own."""
        tracemalloc.reset_peak()
        before, _ = tracemalloc.get_traced_memory()
        start = time.perf_counter()
        self.outcomes[_decoded(content)] += 1
        seconds = time.perf_counter() - start
        _, peak = tracemalloc.get_traced_memory()
        if seconds > _MAX_SECONDS:
            raise FindingError(f"{len(content)} bytes took {seconds:.1f} s")
        if peak - before > _MAX_TIMES * len(content) + _MAX_MORE:
            raise FindingError(f"{len(content)} bytes took {peak - before} bytes of memory")


def _decoded(content: bytes) -> str:
    try:
        check_bounds(content)
        request = ModelInferRequest.FromString(content)
    except DecodeError:
        return "no message"
    except HybridgeError as error:
        return error.code
    try:
        arrays = decode_request(request)
    except HybridgeError as error:
        return error.code
    for tensor in request.inputs:
        array = arrays[tensor.name]
        if array.shape != tuple(tensor.shape):
            raise FindingError(f"shape {array.shape} for {tuple(tensor.shape)}")
    return "decoded"


class LiveEndpoint:
    """A `ModelInfer` call to an endpoint that runs, and now and then a right one between.

    Args:
        address: Where it is.
    """

    def __init__(self, address: str):
        self.outcomes: Counter[str] = Counter()
        self._channel = grpc.insecure_channel(address)
        self._infer = self._channel.unary_unary(INFER)
        self._stub = GRPCInferenceServiceStub(self._channel)
        self._times = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._channel.close()

    def try_out(self, content: bytes) -> None:
        """Sends; a status that says that the endpoint failed, or no answer in time, is a finding."""
        call = self._infer.future(content, timeout=10)
        status = call.code()
        code = dict(call.trailing_metadata() or ()).get("hybridge-code", "")
        if status not in _ANSWERS and code != _OF_THE_MODEL:
            raise FindingError(f"{status.name} {code} {call.details()}")
        self.outcomes[f"{status.name} {code}".strip()] += 1
        self._times += 1
        if self._times % 100 == 0:
            x = np.full((1, 3), self._times, np.float32)
            response = self._stub.ModelInfer(encode_request("linear", {"x": x}), timeout=10)
            if not np.array_equal(decode_response(response)["y"], x @ LINEAR_WEIGHTS):
                raise FindingError("a right request was answered wrongly")
