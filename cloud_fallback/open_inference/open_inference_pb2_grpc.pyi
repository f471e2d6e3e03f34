from typing import Any, Generic, TypeVar

from cloud_fallback.open_inference.open_inference_pb2 import (
    ModelInferRequest,
    ModelInferResponse,
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

_Request = TypeVar("_Request", contravariant=True)
_Response = TypeVar("_Response", covariant=True)

class _Method(Generic[_Request, _Response]):
    def __call__(
        self,
        request: _Request,
        timeout: float | None = ...,
        metadata: tuple[tuple[str, str], ...] | None = ...,
        credentials: Any = ...,
        wait_for_ready: bool | None = ...,
        compression: Any = ...,
    ) -> _Response: ...
    def future(
        self,
        request: _Request,
        timeout: float | None = ...,
        metadata: tuple[tuple[str, str], ...] | None = ...,
        credentials: Any = ...,
        wait_for_ready: bool | None = ...,
        compression: Any = ...,
    ) -> Any: ...

class GRPCInferenceServiceStub:
    ServerLive: _Method[ServerLiveRequest, ServerLiveResponse]
    ServerReady: _Method[ServerReadyRequest, ServerReadyResponse]
    ModelReady: _Method[ModelReadyRequest, ModelReadyResponse]
    ServerMetadata: _Method[ServerMetadataRequest, ServerMetadataResponse]
    ModelMetadata: _Method[ModelMetadataRequest, ModelMetadataResponse]
    ModelInfer: _Method[ModelInferRequest, ModelInferResponse]
    RepositoryIndex: _Method[RepositoryIndexRequest, RepositoryIndexResponse]
    RepositoryModelLoad: _Method[RepositoryModelLoadRequest, RepositoryModelLoadResponse]
    RepositoryModelUnload: _Method[RepositoryModelUnloadRequest, RepositoryModelUnloadResponse]
    def __init__(self, channel: Any) -> None: ...

class GRPCInferenceServiceServicer:
    def ServerLive(self, request: ServerLiveRequest, context: Any) -> ServerLiveResponse: ...
    def ServerReady(self, request: ServerReadyRequest, context: Any) -> ServerReadyResponse: ...
    def ModelReady(self, request: ModelReadyRequest, context: Any) -> ModelReadyResponse: ...
    def ServerMetadata(self, request: ServerMetadataRequest, context: Any) -> ServerMetadataResponse: ...
    def ModelMetadata(self, request: ModelMetadataRequest, context: Any) -> ModelMetadataResponse: ...
    def ModelInfer(self, request: ModelInferRequest, context: Any) -> ModelInferResponse: ...
    def RepositoryIndex(self, request: RepositoryIndexRequest, context: Any) -> RepositoryIndexResponse: ...
    def RepositoryModelLoad(self, request: RepositoryModelLoadRequest, context: Any) -> RepositoryModelLoadResponse: ...
    def RepositoryModelUnload(self, request: RepositoryModelUnloadRequest, context: Any) -> RepositoryModelUnloadResponse: ...

def add_GRPCInferenceServiceServicer_to_server(servicer: GRPCInferenceServiceServicer, server: Any) -> None: ...
