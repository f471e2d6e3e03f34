"""The six calls of the Open Inference Protocol, each a thin adapter from messages to a repository of models."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, TypeVar

from cloud_fallback.endpoint.repository import Repository
from cloud_fallback.endpoint.served import ServedModel
from cloud_fallback.open_inference.open_inference_pb2 import (
    ModelInferRequest,
    ModelInferResponse,
    ModelMetadataRequest,
    ModelMetadataResponse,
    ModelReadyRequest,
    ModelReadyResponse,
    ServerLiveRequest,
    ServerLiveResponse,
    ServerMetadataRequest,
    ServerMetadataResponse,
    ServerReadyRequest,
    ServerReadyResponse,
)
from cloud_fallback.open_inference.open_inference_pb2_grpc import GRPCInferenceServiceServicer
from cloud_fallback.open_inference.statuses import abort
from cloud_fallback.open_inference.tensors import datatype, decode_request, encode_response, wire_shape
from edge_runtime import __version__
from edge_runtime.errors import ErrorCode, HybridgeError, Kind
from edge_runtime.tensor_spec import TensorSpec

__all__ = ["InferenceServicer"]

_log = logging.getLogger(__name__)
_Method = TypeVar("_Method", bound=Callable[..., Any])
# Extensions of Triton that change what a tensor means; ignoring one would give a wrong answer for a right one.
_UNSUPPORTED = {"classification", "shared_memory_region"}


def _reported(method: _Method) -> _Method:
    """Ends the call with the status of a `HybridgeError`, or with INTERNAL and no more for anything else."""

    @wraps(method)
    def call(self: InferenceServicer, request: Any, context: Any) -> Any:
        try:
            return method(self, request, context)
        except HybridgeError as error:
            if error.code.kind is Kind.INTERNAL:
                _log.warning("%s failed", method.__name__, exc_info=True)
            abort(context, error)
        except Exception:
            # What it says may hold paths or data; it is for the one who runs the endpoint.
            _log.exception("%s failed", method.__name__)
            abort(context, HybridgeError(ErrorCode.INTERNAL, "internal error of the endpoint"))

    return call  # type: ignore[return-value]


class InferenceServicer(GRPCInferenceServiceServicer):
    """Answers for a repository.

    Args:
        repository: The models.
        max_message_bytes: Size above which a response is refused rather than sent.
        is_ready: Whether requests are still taken.
    """

    def __init__(self, repository: Repository, *, max_message_bytes: int, is_ready: Callable[[], bool]):
        self._repository = repository
        self._max_message_bytes = max_message_bytes
        self._is_ready = is_ready

    @_reported
    def ServerLive(self, request: ServerLiveRequest, context: Any) -> ServerLiveResponse:  # noqa: ARG002, D102, N802
        return ServerLiveResponse(live=True)

    @_reported
    def ServerReady(self, request: ServerReadyRequest, context: Any) -> ServerReadyResponse:  # noqa: ARG002, D102, N802
        return ServerReadyResponse(ready=self._is_ready())

    @_reported
    def ModelReady(self, request: ModelReadyRequest, context: Any) -> ModelReadyResponse:  # noqa: ARG002, D102, N802
        self._repository.find(request.name, request.version)
        return ModelReadyResponse(ready=self._is_ready())

    @_reported
    def ServerMetadata(self, request: ServerMetadataRequest, context: Any) -> ServerMetadataResponse:  # noqa: ARG002, D102, N802
        return ServerMetadataResponse(name="hybridge", version=__version__)

    @_reported
    def ModelMetadata(self, request: ModelMetadataRequest, context: Any) -> ModelMetadataResponse:  # noqa: ARG002, D102, N802
        model = self._repository.find(request.name, request.version)
        return ModelMetadataResponse(
            name=model.name,
            versions=self._repository.versions(model.name),
            platform=model.platform,
            inputs=_metadata(model.inputs),
            outputs=_metadata(model.outputs),
        )

    @_reported
    def ModelInfer(self, request: ModelInferRequest, context: Any) -> ModelInferResponse:  # noqa: D102, N802
        model = self._repository.find(request.model_name, request.model_version)
        wanted = _wanted_outputs(request, model)
        inputs = decode_request(request)

        def time_left() -> float | None:
            left: float | None = context.time_remaining()
            return left if context.is_active() else 0.0

        outputs = model.infer(inputs, time_left=time_left)
        response = encode_response(
            model.name,
            {name: outputs[name] for name in wanted},
            version=model.version,
            request_id=request.id,
        )
        if response.ByteSize() > self._max_message_bytes:
            raise HybridgeError(
                ErrorCode.MESSAGE_TOO_LARGE,
                f"response of model '{model.name}'",
                received=f"{response.ByteSize()} bytes",
                expected=f"at most {self._max_message_bytes}",
                fix="ask for fewer outputs, or raise the endpoint's --max-message-mb",
            )
        return response


def _metadata(specs: Sequence[TensorSpec]) -> list[ModelMetadataResponse.TensorMetadata]:
    return [
        ModelMetadataResponse.TensorMetadata(
            name=spec.name, datatype=datatype(spec.dtype), shape=wire_shape(spec.shape)
        )
        for spec in specs
    ]


def _wanted_outputs(request: ModelInferRequest, model: ServedModel) -> tuple[str, ...]:
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
    names = tuple(spec.name for spec in model.outputs)
    wanted = tuple(output.name for output in request.outputs) or names
    if unknown := sorted(set(wanted) - set(names)):
        raise HybridgeError(
            ErrorCode.OUTPUT_UNKNOWN,
            f"outputs of model '{model.name}'",
            received=", ".join(unknown),
            expected=", ".join(names),
        )
    return wanted
