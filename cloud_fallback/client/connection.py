"""A connection to an endpoint, and the one call that the device's hot path makes over it."""

from __future__ import annotations

import os
import threading
from typing import Any

import grpc

from cloud_fallback.open_inference.open_inference_pb2 import ModelInferRequest, ModelInferResponse
from cloud_fallback.open_inference.open_inference_pb2_grpc import GRPCInferenceServiceStub
from cloud_fallback.open_inference.statuses import from_status
from edge_runtime.errors import ErrorCode, HybridgeError

__all__ = ["Connection"]

_OPTIONS = (
    # A connection and a reconnection schedule of its own: gRPC shares those between channels with equal arguments.
    ("grpc.use_local_subchannel_pool", 1),
    # While the cloud is away a call fails at once; these say how soon it is noticed that it came back.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 5_000),
    # The longest that one attempt to connect may take, and with it how long calls wait for a network that is silent.
    ("grpc.min_reconnect_backoff_ms", 1_000),
    # A connection on which nothing is acknowledged for two seconds is given up, rather than after the system's
    # quarter of an hour.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 2_000),
    # The device has an answer already; a late second attempt helps nobody.
    ("grpc.enable_retries", 0),
)


class Connection:
    """A channel that the first call opens, in the process that makes it; safe from many threads.

    Args:
        target: The endpoint, as ``host:port`` or another gRPC name.
        max_message_bytes: Size of the largest request and response.
        credentials: For TLS; without them the connection is in clear.
    """

    def __init__(self, target: str, max_message_bytes: int, credentials: grpc.ChannelCredentials | None):
        self._target = target
        self._credentials = credentials
        self._options = (
            *_OPTIONS,
            ("grpc.max_send_message_length", max_message_bytes),
            ("grpc.max_receive_message_length", max_message_bytes),
        )
        self._lock = threading.Lock()
        self._closed = False
        self._channel: Any = None
        self._model_infer: Any = None
        self._process = 0

    def infer(self, request: ModelInferRequest, timeout_s: float) -> ModelInferResponse:
        """Sends a request once, and waits at most `timeout_s` seconds for the answer.

        Raises:
            HybridgeError: What `from_status` makes of a failed call; `cloud-deadline` for no time at all,
                `cloud-unavailable` after `close` or in a forked child.
        """
        if timeout_s <= 0:
            raise self._failure(ErrorCode.CLOUD_DEADLINE, "no time left to ask in")
        if self._model_infer is None:
            self._open()
        if self._process != os.getpid():
            raise self._failure(
                ErrorCode.CLOUD_UNAVAILABLE,
                "a connection of the process that this one was forked from",
                "make the first question after the fork",
            )
        try:
            response: ModelInferResponse = self._model_infer(request, timeout=timeout_s, wait_for_ready=False)
        except grpc.RpcError as error:
            raise from_status(error, self._target) from error
        except ValueError as error:
            # What gRPC raises for a channel that was closed.
            raise self._failure(ErrorCode.CLOUD_UNAVAILABLE, str(error)) from error
        return response

    def close(self) -> None:
        """Cancels calls under way and refuses later ones."""
        with self._lock:
            self._closed = True
            # In a forked child the channel is the parent's, and touching it waits for threads that are not there.
            if self._channel is not None and self._process == os.getpid():
                self._channel.close()

    def _open(self) -> None:
        with self._lock:
            if self._closed:
                raise self._failure(ErrorCode.CLOUD_UNAVAILABLE, "a fallback that was closed")
            if self._channel is not None:
                return
            if self._credentials is None:
                self._channel = grpc.insecure_channel(self._target, self._options)
            else:
                self._channel = grpc.secure_channel(self._target, self._credentials, self._options)
            self._process = os.getpid()
            self._model_infer = GRPCInferenceServiceStub(self._channel).ModelInfer

    def _failure(self, code: ErrorCode, received: str, fix: str = "") -> HybridgeError:
        return HybridgeError(code, f"cloud at {self._target}", received=received, fix=fix)
