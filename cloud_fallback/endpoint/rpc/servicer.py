"""The calls of the Open Inference Protocol over gRPC, each a thin adapter from messages to the data plane."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cloud_fallback.endpoint.data_plane import DataPlane, Inference, InferenceRequest
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
        with self._record(request, context) as record:
            record.request = _asked(request, context)
            return self._response(self._data_plane.infer(record.request), request, record)

    def begin_infer(self, request: InferRequest, call: UnaryCall) -> bool:
        """Has a request answered on a thread of its model, and returns; False if it needs one of its own.

        Raises:
            HybridgeError: `model-unknown`.
        """
        # A client hears of its own deadline by itself, and of one that it only mentions from here, in time.
        if request.timeout_s is not None:
            return False
        record = self._record(request, call)
        record.request = _asked(request, call)
        inference = self._data_plane.begin(record.request)
        if inference is None:
            return False

        def then(answer: Inference | HybridgeError) -> None:
            try:
                if isinstance(answer, HybridgeError):
                    raise answer
                response = self._response(answer, request, record)
            except HybridgeError as error:
                record.end(error)
                call.refuse(error)
            except Exception as error:
                record.end(error)
                call.fail()
            else:
                record.end()
                call.finish(response)

        record.begin()
        inference.run(then)
        return True

    def _record(self, request: InferRequest, call: UnaryCall) -> RequestRecord:
        record = self._data_plane.telemetry.record(Transport.GRPC, call.peer)
        record.client = call.client
        record.model = request.model_name, request.model_version
        record.bytes_in = call.received_bytes
        return record

    def _response(self, answer: Inference, request: InferRequest, record: RequestRecord) -> bytes:
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
        record.bytes_out = len(response)
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


def _asked(request: InferRequest, call: UnaryCall) -> InferenceRequest:
    metadata = dict(call.invocation_metadata())
    return InferenceRequest(
        request.model_name,
        request.model_version,
        request.inputs,
        request.outputs,
        request.id,
        call.time_left if request.timeout_s is None else sooner(call.time_left, request.timeout_s),
        call.client,
        metadata.get(_STICKY_KEY, ""),
        metadata.get(_IDEMPOTENCY_KEY, ""),
    )


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
