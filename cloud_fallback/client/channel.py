"""gRPC channels that are shared: a device that asks several models of one endpoint has one connection to it."""

from __future__ import annotations

import json
import os
import threading
from dataclasses import dataclass
from typing import Any

import grpc

from cloud_fallback.client.tls import TlsFiles
from cloud_fallback.open_inference.open_inference_pb2 import (
    ModelMetadataRequest,
    ModelMetadataResponse,
    ServerLiveRequest,
    ServerLiveResponse,
)

__all__ = ["ChannelSettings", "SharedChannel"]

_SERVICE = "inference.GRPCInferenceService"
# gRFC A6. One more attempt, for an endpoint that is away for a blink: it was restarted, or a balancer closed the
# connection. A dead one costs the wait between the two attempts once, as the tokens are then gone until answers have
# brought them back.
# gRFC A62. One connection, to any of the replicas behind a name: where its addresses come in one order, all devices
# would be with the first.
_SERVICE_CONFIG = json.dumps(
    {
        "loadBalancingConfig": [{"pick_first": {"shuffleAddressList": True}}],
        "methodConfig": [
            {
                "name": [{"service": _SERVICE, "method": "ModelInfer"}],
                "retryPolicy": {
                    "maxAttempts": 2,
                    "initialBackoff": "0.01s",
                    "maxBackoff": "0.05s",
                    "backoffMultiplier": 2,
                    "retryableStatusCodes": ["UNAVAILABLE"],
                },
            }
        ],
        "retryThrottling": {"maxTokens": 4, "tokenRatio": 0.1},
    }
)
# How long a connection is waited for before a question tries again.
_WAIT_S = 300.0
_UNANSWERED = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.CANCELLED,
)
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
    # Without questions for so long the connection is closed, and nobody tries to make it again until the next: that
    # costs bytes, and balancers forget a connection about then (AWS after 350 s) without a word to either side.
    ("grpc.client_idle_timeout_ms", 300_000),
    ("grpc.service_config", _SERVICE_CONFIG),
)


@dataclass(frozen=True, slots=True)
class ChannelSettings:
    """What makes two channels the same.

    Attributes:
        target: The endpoint, as ``host:port`` or another gRPC name.
        max_message_bytes: Size of the largest request and response.
        credentials: A `grpc.ChannelCredentials` of the caller's, or None.
        tls: What the files of TLS held, or None; with neither the connection is in clear.
        lane: Another number is another connection to the same endpoint, perhaps to another replica.
    """

    target: str
    max_message_bytes: int
    credentials: Any = None
    tls: TlsFiles | None = None
    lane: int = 0


class SharedChannel:
    """One channel of this process for all who ask for the same; safe from many threads.

    Attributes:
        model_infer: Takes a serialised request, and gives the serialised response.
        server_live: The cheapest call of the protocol, to see whether the endpoint is there.
        model_metadata: What a model takes.
        is_offline: Whether the endpoint was not reached, and has not been since: a call would only fail.
        times_back: How often it was reached again.
        why_offline: The failure, for a person.
    """

    def __init__(self, settings: ChannelSettings):
        """Use `acquire`, which shares."""
        tls = settings.tls
        credentials = settings.credentials if tls is None else tls.credentials()
        options = (
            *_OPTIONS,
            *(() if tls is None else tls.options()),
            ("grpc.max_send_message_length", settings.max_message_bytes),
            ("grpc.max_receive_message_length", settings.max_message_bytes),
            # What does not fit here is not asked again.
            ("grpc.per_rpc_retry_buffer_size", settings.max_message_bytes),
        )
        self._channel: Any = (
            grpc.insecure_channel(settings.target, options)
            if credentials is None
            else grpc.secure_channel(settings.target, credentials, options)
        )
        self._settings = settings
        self._holders = 0
        self._lock = threading.Lock()
        self.is_offline = False
        self.times_back = 0
        self.why_offline = ""
        method = f"/{_SERVICE}/"
        self.model_infer = self._channel.unary_unary(f"{method}ModelInfer")
        self.server_live = self._channel.unary_unary(
            f"{method}ServerLive",
            request_serializer=ServerLiveRequest.SerializeToString,
            response_deserializer=ServerLiveResponse.FromString,
        )
        self.model_metadata = self._channel.unary_unary(
            f"{method}ModelMetadata",
            request_serializer=ModelMetadataRequest.SerializeToString,
            response_deserializer=ModelMetadataResponse.FromString,
        )

    @classmethod
    def acquire(cls, settings: ChannelSettings) -> SharedChannel:
        """The channel with these settings, a new one where nobody has one; `release` it."""
        with _registry.lock:
            channel = _registry.open.get(settings)
            if channel is None:
                channel = _registry.open[settings] = cls(settings)
            channel._holders += 1
            return channel

    def release(self) -> None:
        """Closes the channel when nobody else holds it, which cancels its calls."""
        with _registry.lock:
            self._holders -= 1
            if self._holders:
                return
            if _registry.open.get(self._settings) is self:
                del _registry.open[self._settings]
        self._channel.close()

    def unreachable(self, why: str) -> None:
        """A call found nobody: from now on the channel is offline, until somebody answers.

        A call that waits for a connection tells when there is one. It costs no bytes before, unlike asking again and
        again, and no wake-ups, unlike a subscription to the channel's state, which gRPC's Python reads five times a
        second. After a while without it nobody knows, so the next question is let through to see.
        """
        with self._lock:
            self.why_offline = why
            if self.is_offline:
                return
            self.is_offline = True
        try:
            call = self.server_live.future(ServerLiveRequest(), timeout=_WAIT_S, wait_for_ready=True)
        except ValueError:  # it was closed
            return
        call.add_done_callback(self._ended)

    def _ended(self, call: Any) -> None:
        with self._lock:
            # Any answer shows that it was reached, even one that says no.
            self.times_back += call.code() not in _UNANSWERED
            self.is_offline = False


class _Registry:
    """The channels of this process; a forked child begins with none, as gRPC's threads stay behind."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.open: dict[ChannelSettings, SharedChannel] = {}


_registry = _Registry()
os.register_at_fork(after_in_child=lambda: _registry.__init__())  # type: ignore[misc]
