"""The calls of the Open Inference Protocol over gRPC, each a thin adapter from messages to the data plane."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cloud_fallback.endpoint.data_plane import DataPlane, InferenceRequest
from cloud_fallback.endpoint.rpc.request_reader import InferRequest
from cloud_fallback.endpoint.rpc.unary_calls import UnaryCall
from cloud_fallback.endpoint.served.served_model import sooner
from cloud_fallback.endpoint.telemetry import RequestRecord, Transport
from cloud_fallback.open_inference.open_inference_pb2 import (
    ModelMetadataRequest,
    ModelMetadataResponse,
    ModelReadyRequest,
    ModelReadyResponse,
    RepositoryIndexRequest,
    RepositoryIndexResponse,
    RepositoryModelLoadRequest,
    RepositoryModelLoadResponse,
    RepositoryModelUnloadRequest,
    RepositoryModelUnloadResponse,
    ServerLiveRequest,
    ServerLiveResponse,
    ServerMetadataRequest,
    ServerMetadataResponse,
    ServerReadyRequest,
    ServerReadyResponse,
)
from cloud_fallback.open_inference.open_inference_pb2_grpc import GRPCInferenceServiceServicer
from cloud_fallback.open_inference.tensors import datatype, serialize_response, wire_shape
from edge_runtime import __version__
from edge_runtime.errors import ErrorCode, HybridgeError
from edge_runtime.tensor_spec import TensorSpec

__all__ = ["EXTENSIONS", "InferenceServicer"]

# Of the protocol, by the names that Triton gives them.
EXTENSIONS = ("model_repository",)

# gRPC metadata of a request.
_STICKY_KEY, _IDEMPOTENCY_KEY = "sticky-key", "idempotency-key"


class InferenceServicer(GRPCInferenceServiceServicer):
    """Answers over gRPC for a data plane.

    Args:
        data_plane: What decides.
        max_message_bytes: Size above which a response is refused rather than sent.
    """

    def __init__(self, data_plane: DataPlane, *, max_message_bytes: int):
        self._data_plane = data_plane
        self._max_message_bytes = max_message_bytes

    def ServerLive(self, request: ServerLiveRequest, context: Any) -> ServerLiveResponse:  # noqa: ARG002, D102, N802
        return ServerLiveResponse(live=True)

    def ServerReady(self, request: ServerReadyRequest, context: Any) -> ServerReadyResponse:  # noqa: ARG002, D102, N802
        return ServerReadyResponse(ready=self._data_plane.is_ready())

    def ModelReady(self, request: ModelReadyRequest, context: Any) -> ModelReadyResponse:  # noqa: ARG002, D102, N802
        return ModelReadyResponse(ready=self._data_plane.is_model_ready(request.name, request.version))

    def ServerMetadata(self, request: ServerMetadataRequest, context: Any) -> ServerMetadataResponse:  # noqa: ARG002, D102, N802
        return ServerMetadataResponse(name="hybridge", version=__version__, extensions=EXTENSIONS)

    def ModelMetadata(self, request: ModelMetadataRequest, context: Any) -> ModelMetadataResponse:  # noqa: ARG002, D102, N802
        model = self._data_plane.describe(request.name, request.version)
        return ModelMetadataResponse(
            name=model.name,
            versions=model.versions,
            platform=model.platform,
            inputs=_metadata(model.inputs),
            outputs=_metadata(model.outputs),
        )

    # Of messages that are read and written here rather than by the parser.
    def ModelInfer(self, request: InferRequest, context: UnaryCall) -> bytes:  # type: ignore[override]  # noqa: D102, N802
        with self._data_plane.telemetry.record(Transport.GRPC, context.peer) as record:
            record.client = context.client
            record.model = request.model_name, request.model_version
            record.bytes_in = context.received_bytes
            response = self._answer(request, context, record)
            record.bytes_out = len(response)
            return response

    def _answer(self, request: InferRequest, context: UnaryCall, record: RequestRecord) -> bytes:
        metadata = dict(context.invocation_metadata())
        record.request = InferenceRequest(
            request.model_name,
            request.model_version,
            request.inputs,
            request.outputs,
            request.id,
            context.time_left if request.timeout_s is None else sooner(context.time_left, request.timeout_s),
            context.client,
            metadata.get(_STICKY_KEY, ""),
            metadata.get(_IDEMPOTENCY_KEY, ""),
        )
        answer = self._data_plane.infer(record.request)
        response = serialize_response(
            answer.model, answer.outputs, version=answer.version, request_id=request.id
        )
        if len(response) > self._max_message_bytes:
            raise HybridgeError(
                ErrorCode.MESSAGE_TOO_LARGE,
                f"response of model '{answer.model}'",
                received=f"{len(response)} bytes",
                expected=f"at most {self._max_message_bytes}",
                fix="ask for fewer outputs, or raise the endpoint's --max-message-mb",
            )
        return response

    def RepositoryIndex(self, request: RepositoryIndexRequest, context: Any) -> RepositoryIndexResponse:  # noqa: ARG002, D102, N802
        return RepositoryIndexResponse(
            models=[
                RepositoryIndexResponse.ModelIndex(
                    name=each.name, version=each.version, state=each.state, reason=each.reason
                )
                for each in self._data_plane.index(only_ready=request.ready)
            ]
        )

    def RepositoryModelLoad(  # noqa: D102, N802
        self,
        request: RepositoryModelLoadRequest,
        context: Any,  # noqa: ARG002
    ) -> RepositoryModelLoadResponse:
        _refuse_parameters(request)
        self._data_plane.load(request.model_name)
        return RepositoryModelLoadResponse()

    def RepositoryModelUnload(  # noqa: D102, N802
        self,
        request: RepositoryModelUnloadRequest,
        context: Any,  # noqa: ARG002
    ) -> RepositoryModelUnloadResponse:
        self._data_plane.unload(request.model_name)
        return RepositoryModelUnloadResponse()


def _metadata(specs: Sequence[TensorSpec]) -> list[ModelMetadataResponse.TensorMetadata]:
    return [
        ModelMetadataResponse.TensorMetadata(
            name=spec.name, datatype=datatype(spec.dtype), shape=wire_shape(spec.shape)
        )
        for spec in specs
    ]


def _refuse_parameters(request: RepositoryModelLoadRequest) -> None:
    # Triton takes a model's configuration and files in them; ignoring these would load something else.
    if request.parameters:
        raise HybridgeError(
            ErrorCode.INPUT_INVALID,
            f"load of model '{request.model_name}'",
            received=f"parameters {', '.join(sorted(request.parameters))}",
            expected="none: what is loaded is what the endpoint was started on",
        )
