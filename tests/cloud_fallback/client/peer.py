"""A small endpoint of the protocol whose behaviour a test sets, and a question for it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import grpc
import numpy as np

from cloud_fallback.open_inference.open_inference_pb2 import (
    ModelInferRequest,
    ModelInferResponse,
    ModelMetadataRequest,
    ModelMetadataResponse,
    ServerLiveRequest,
    ServerLiveResponse,
)
from cloud_fallback.open_inference.open_inference_pb2_grpc import (
    GRPCInferenceServiceServicer,
    add_GRPCInferenceServiceServicer_to_server,
)
from cloud_fallback.open_inference.tensors import decode_request, encode_response
from edge_runtime import Query

Array = np.ndarray[Any, Any]
Infer = Callable[[ModelInferRequest, Any], ModelInferResponse]
# Tests are quick where a server's threads are not made anew each time.
_THREADS = 16


@dataclass
class Peer(GRPCInferenceServiceServicer):
    """Answers ``y``, two numbers: the sum of all inputs' elements, and how many questions came before.

    Attributes:
        infer: Answers in its place.
        delay_s: Seconds that an answer takes, by the number of the question; the last goes on.
        token: What a call has to bring.
        version: The version that says it answers.
        metadata: What the model says that it takes.
        seen: Questions as they came, and their metadata.
        lives: Probes that came.
    """

    infer: Infer | None = None
    delay_s: tuple[float, ...] = (0.0,)
    token: str = ""
    version: str = "1"
    metadata: ModelMetadataResponse | None = None
    seen: list[ModelInferRequest] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    lives: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def ModelInfer(self, request: ModelInferRequest, context: Any) -> ModelInferResponse:  # noqa: N802
        headers = dict(context.invocation_metadata())
        with self._lock:
            number = len(self.seen)
            self.seen.append(request)
            self.headers.append(headers)
        if self.token and headers.get("authorization") != f"Bearer {self.token}":
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "no token, or a wrong one")
        time.sleep(self.delay_s[min(number, len(self.delay_s) - 1)])
        if self.infer is not None:
            return self.infer(request, context)
        total = sum(
            float(np.sum(array)) for array in decode_request(request).values() if array.dtype != object
        )
        y = np.array([total, number], np.float32)
        return encode_response(request.model_name, {"y": y}, version=self.version)

    def ModelMetadata(self, request: ModelMetadataRequest, context: Any) -> ModelMetadataResponse:  # noqa: ARG002, N802
        if self.metadata is None:
            context.abort(grpc.StatusCode.UNIMPLEMENTED, "no metadata")
        return self.metadata or ModelMetadataResponse()

    def ServerLive(self, request: ServerLiveRequest, context: Any) -> ServerLiveResponse:  # noqa: ARG002, N802
        self.lives += 1
        return ServerLiveResponse(live=True)


class Serving:
    """A `Peer` on a loopback port, from entering to leaving; `stop` and `start` again on the same port."""

    def __init__(self, peer: Peer, credentials: Any = None, *, host: str = "127.0.0.1", port: int = 0):
        self.peer = peer
        self.host = host
        self.port = port
        self._credentials = credentials
        self._server: Any = None

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"

    def start(self) -> None:
        options = [("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", -1)]
        self._server = grpc.server(ThreadPoolExecutor(_THREADS), options=options)
        add_GRPCInferenceServiceServicer_to_server(self.peer, self._server)
        if self._credentials is None:
            self.port = self._server.add_insecure_port(self.address)
        else:
            self.port = self._server.add_secure_port(self.address, self._credentials)
        self._server.start()

    def stop(self) -> None:
        """Ends all connections at once."""
        if self._server is not None:
            self._server.stop(None).wait()
            self._server = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def question(*values: float, confidence: float = 0.1, deadline: float | None = None) -> Query:
    """An unsure query for `Peer`."""
    x = np.array(values or (1.0, 2.0), np.float32)
    return Query("stage", {"x": x}, {"y": np.zeros(2, np.float32)}, confidence, 0.5, deadline)
