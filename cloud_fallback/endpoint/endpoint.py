"""An endpoint: a gRPC server that speaks the Open Inference Protocol, with health checking and reflection."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterable
from os import PathLike
from types import TracebackType
from typing import Any, Self

import grpc
from google.protobuf.descriptor_pool import DescriptorPool

from cloud_fallback.endpoint.access import Access
from cloud_fallback.endpoint.data_plane import DataPlane
from cloud_fallback.endpoint.repository import Repository
from cloud_fallback.endpoint.rpc.call_server import CallServer
from cloud_fallback.endpoint.rpc.servicer import InferenceServicer
from cloud_fallback.endpoint.server_tls import ServerTls
from cloud_fallback.endpoint.telemetry import Telemetry
from cloud_fallback.open_inference import SERVICE_NAME, open_inference_pb2
from edge_runtime.errors import ErrorCode, HybridgeError, missing_extra

try:
    from grpc_health.v1 import health, health_pb2, health_pb2_grpc
    from grpc_reflection.v1alpha import reflection, reflection_pb2
except ModuleNotFoundError as error:
    raise missing_extra("serve", error.name or "grpc_health") from error

__all__ = ["DEFAULT_MAX_MESSAGE_BYTES", "Endpoint"]

DEFAULT_MAX_MESSAGE_BYTES = 64 * 2**20


class Endpoint:
    """Serves models until it is stopped.

    A thread pool answers rather than an event loop: with models that hold a core for milliseconds it is the faster of
    the two, and interpreters release the lock that threads share while they run.

    Args:
        models: A repository, or the sources to load one from.
        host: Address to listen on. The default is reached from this machine only.
        port: Port to listen on; 0 lets the system choose one, which `port` then tells.
        max_message_bytes: Size of the largest request and response.
        max_workers: Threads, for calls that are not left to a model's own.
        max_waiting: Calls that may be under way besides; more are refused as RESOURCE_EXHAUSTED.
        access: Who may ask what; by default anybody may ask models, and load and unload them from this machine.
        tls: For connections with TLS; without it they are in clear.
        credentials: In place of `tls`, from `grpc.ssl_server_credentials`.
        tokens_in_clear: Whether tokens may come over connections in clear from other machines, because something
            before the endpoint ends TLS.
        telemetry: Counts and logs requests.

    Raises:
        HybridgeError: `usage` for tokens that others could read on the way; what loading the models raises.

    Example:
        >>> with Endpoint(["digits-large-1.0.edge"]) as endpoint:
        ...     fallback = CloudFallback(endpoint.address, model="digits-large")
    """

    def __init__(
        self,
        models: Repository | Iterable[str | PathLike[str]],
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        max_message_bytes: int = DEFAULT_MAX_MESSAGE_BYTES,
        max_workers: int = 64,
        max_waiting: int = 512,
        access: Access | None = None,
        tls: ServerTls | None = None,
        credentials: grpc.ServerCredentials | None = None,
        tokens_in_clear: bool = False,
        telemetry: Telemetry | None = None,
    ):
        self.access = access or Access()
        self._credentials = credentials if tls is None else tls.grpc_credentials()
        if self._credentials is None and not tokens_in_clear:
            self.access.check_in_clear(host)
        self.repository = models if isinstance(models, Repository) else Repository.load(models)
        self.host = host
        self.port = port
        self._stopping = threading.Event()
        self._is_started = False
        # Not otherwise: it then sends while it holds its lock, and a client who watches and does not read stops it.
        self._health = health.HealthServicer(experimental_non_blocking=False)
        self.calls = CallServer(
            self.access,
            workers=max_workers,
            max_waiting=max_waiting,
            max_message_bytes=max_message_bytes,
            by_certificate=tls is not None and tls.asks_clients,
        )
        self.data_plane = DataPlane(
            self.repository, telemetry=telemetry, is_accepting=lambda: not self._stopping.is_set()
        )
        servicer = InferenceServicer(self.data_plane, max_message_bytes=max_message_bytes)
        self.calls.add_inference(servicer)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self.calls)
        _add_reflection(self.calls)

    @property
    def address(self) -> str:
        """Where clients reach it, as ``host:port``."""
        return _joined(self.host, self.port)

    def start(self) -> Self:
        """Binds the port and begins to answer.

        Raises:
            HybridgeError: `address-in-use` when the address cannot be bound, with the system's reason; the models are
                then closed.
        """
        try:
            if self._credentials is None:
                self.port = self.calls.server.add_insecure_port(self.address)
            else:
                self.port = self.calls.server.add_secure_port(self.address, self._credentials)
        except RuntimeError as error:
            self.repository.close()
            raise HybridgeError(
                ErrorCode.ADDRESS_IN_USE,
                f"address {self.address}",
                received=_bind_failure(self.host, self.port),
                expected="an address of this machine and a free port",
                fix="choose another port, or 0 for the system to choose one",
            ) from error
        self.calls.start()
        self._is_started = True
        for service in ("", SERVICE_NAME):
            self._health.set(service, health_pb2.HealthCheckResponse.SERVING)
        return self

    def stop(self, grace_s: float = 10.0) -> None:
        """Refuses new calls at once, lets those under way finish, closes the models, and returns.

        Args:
            grace_s: Seconds after which calls still under way are cancelled.
        """
        self._stopping.set()
        if self._is_started:
            self._health.enter_graceful_shutdown()
            self.calls.stop(grace_s)
        self.repository.close()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Waits until the endpoint was stopped; returns whether it was, within `timeout_s` seconds."""
        return not self.calls.server.wait_for_termination(timeout_s)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def _add_reflection(server: Any) -> None:
    # Our messages are in a pool of their own and the others in the default one; reflection looks into one.
    every = DescriptorPool()
    for file in (open_inference_pb2.DESCRIPTOR, health_pb2.DESCRIPTOR, reflection_pb2.DESCRIPTOR):
        every.AddSerializedFile(file.serialized_pb)
    services = (SERVICE_NAME, health.SERVICE_NAME, reflection.SERVICE_NAME)
    reflection.enable_server_reflection(services, server, every)


def _joined(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _bind_failure(host: str, port: int) -> str:
    """The system's reason, which gRPC does not pass on."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as attempt:
            attempt.bind(address)
    except OSError as error:
        return error.strerror or os.strerror(error.errno or 0)
    return "an address that gRPC cannot bind"
