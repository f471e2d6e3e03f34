"""The way to an endpoint: the calls that a device makes over it, and what is known of its state."""

from __future__ import annotations

import ipaddress
import math
import os
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from queue import Empty, SimpleQueue
from typing import Any

import grpc

from cloud_fallback.client.bearer_token import BearerToken
from cloud_fallback.client.breaker import BreakerSettings, BreakerState, CircuitBreaker
from cloud_fallback.client.channel import ChannelSettings, SharedChannel
from cloud_fallback.client.figures import Counts
from cloud_fallback.client.hedging import Hedge, HedgeCredit
from cloud_fallback.client.round_trips import RoundTrips
from cloud_fallback.open_inference.open_inference_pb2 import (
    ModelMetadataRequest,
    ModelMetadataResponse,
    ServerLiveRequest,
)
from cloud_fallback.open_inference.statuses import from_status, is_outage
from edge_runtime.errors import ErrorCode, HybridgeError
from edge_runtime.prediction import Reason

__all__ = ["Connection", "is_loopback"]

# A server that pushes back for longer than this is asked again all the same: it may have been a slip of the pen.
_MAX_PUSHBACK_S = 300.0
_PROBE_TIMEOUT_S = 2.0
_METADATA_TIMEOUT_S = 10.0
_NOT_MET = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)


class _Process:
    """This process, without asking the system each time."""

    def __init__(self) -> None:
        self.look()
        os.register_at_fork(after_in_child=self.look)

    def look(self) -> None:
        self.id = os.getpid()


_process = _Process()


class Connection:
    """Calls an endpoint over a shared channel, which the first call opens, in the process that makes it.

    It knows what stands in the way of a question: nobody was reached (the channel's state is watched from then on), the
    endpoint pushed back, or the breaker is open. Safe from many threads.

    Args:
        settings: The channel's.
        counts: Where calls are counted.
        token: What lets the device in, or None.
        compression: gRPC's, such as `grpc.Compression.Gzip`.
        breaker: When to leave the endpoint alone.
        hedge: How second attempts are made, or None for none.
    """

    def __init__(
        self,
        settings: ChannelSettings,
        counts: Counts,
        *,
        token: BearerToken | None = None,
        compression: Any = None,
        breaker: BreakerSettings | None = None,
        hedge: Hedge | None = None,
    ):
        self._settings = settings
        self._counts = counts
        self._token = token
        self._compression = compression
        self._hedge = hedge
        self._hedge_credit = HedgeCredit(hedge.share if hedge else 1.0)
        self._lock = threading.Lock()
        self._closed = False
        # The second is for second attempts.
        self._channels: list[SharedChannel | None] = [None, None]
        self._process = 0
        self._not_before = -math.inf
        self._times_back = 0
        self.breaker = CircuitBreaker(breaker)
        self.round_trips = RoundTrips()

    @property
    def is_offline(self) -> bool:
        """Whether the endpoint was not reached, and has not been since."""
        channel = self._channels[0]
        return channel is not None and channel.is_offline

    def obstacle(self) -> Reason | None:
        """Why nothing can be asked now; who is told None asks with `infer`, or says `withdraw`."""
        if self.is_offline:
            return Reason.OFFLINE
        if self._not_before > time.monotonic():
            return Reason.CLOUD_OVERLOADED
        if self.breaker.state is BreakerState.OPEN:
            self._look_again()
        return None if self.breaker.admits() else Reason.CLOUD_BREAKER_OPEN

    def withdraw(self) -> None:
        """Whoever was told that nothing stands in the way does not ask after all."""
        self.breaker.withdrew()

    def explain(self, obstacle: Reason) -> str:
        """More on an obstacle, for a person."""
        channel = self._channels[0]
        if obstacle is Reason.OFFLINE and channel is not None:
            return channel.why_offline
        if obstacle is Reason.CLOUD_BREAKER_OPEN:
            return f"after {self.breaker.last_failure}"
        if obstacle is Reason.CLOUD_OVERLOADED:
            return f"asked to wait for another {max(self._not_before - time.monotonic(), 0.0):.1f} s"
        return ""

    def infer(
        self, request: bytes, deadline: float, *, may_hedge: Callable[[], bool] = lambda: True
    ) -> bytes:
        """Sends a serialised request, and gives the serialised answer.

        Args:
            request: A `ModelInferRequest`.
            deadline: When the answer is too late, on the clock of `time.monotonic`.
            may_hedge: Asked before a second attempt is made.

        Raises:
            HybridgeError: What `from_status` makes of a failed call; `cloud-deadline` for no time at all,
                `cloud-unavailable` after `close` or in a forked child.
        """
        start = time.monotonic()
        if deadline <= start:
            self.breaker.withdrew()
            raise self._failure(ErrorCode.CLOUD_DEADLINE, "no time left to ask in")
        try:
            response = self._attempts(request, deadline, start, may_hedge)
        except HybridgeError as error:
            self._counts.failed(error.code, len(request))
            if error.code is ErrorCode.CLOUD_DEADLINE:
                self.breaker.failed(error.received)
                self.round_trips.add(time.monotonic() - start)
            else:
                self.breaker.withdrew()
            raise
        except grpc.RpcError as error:
            raise self._failed(error, len(request), time.monotonic() - start) from error
        self.breaker.succeeded()
        self.round_trips.add(time.monotonic() - start)
        self._counts.answered(len(request), len(response))
        return response

    def is_up(self) -> bool:
        """Whether asking may come to something now, as far as is known; looks again, where it is time to."""
        if self.is_offline or self._not_before > time.monotonic():
            return False
        if self.breaker.state is BreakerState.OPEN:
            self._look_again()
        return self.breaker.state is not BreakerState.OPEN

    def send(self, request: bytes, timeout_s: float, metadata: tuple[tuple[str, str], ...] = ()) -> bytes:
        """Sends a serialised request once and returns the serialised answer; for what is in no hurry.

        Raises:
            HybridgeError: As `infer`.
        """
        try:
            content: bytes = self._channel(0).model_infer(
                request,
                timeout=timeout_s,
                metadata=(*self._metadata(), *metadata),
                compression=self._compression,
            )
        except grpc.RpcError as error:
            raise self._failed(error, len(request)) from error
        except ValueError as error:
            raise self._failure(ErrorCode.CLOUD_UNAVAILABLE, str(error)) from error
        self.breaker.succeeded()
        self._counts.answered(len(request), len(content))
        return content

    def describe(
        self, model: str, version: str, told: Callable[[ModelMetadataResponse | None, bool], None]
    ) -> None:
        """Asks what a model takes, without waiting.

        Args:
            model: The model's name.
            version: Its version, or empty.
            told: Called from another thread with the answer; or with None, and whether asking again may help.
        """
        try:
            call = self._channel(0).model_metadata.future(
                ModelMetadataRequest(name=model, version=version),
                timeout=_METADATA_TIMEOUT_S,
                metadata=self._metadata(),
            )
        except (ValueError, HybridgeError):
            told(None, False)
            return

        def done(finished: Any) -> None:
            if finished.code() is grpc.StatusCode.OK:
                told(finished.result(), False)
            else:
                told(None, finished.code() in _NOT_MET)

        call.add_done_callback(done)

    def close(self) -> None:
        """Refuses later calls, and cancels those under way unless others share the channel."""
        with self._lock:
            self._closed = True
            channels, self._channels = self._channels, [None, None]
            # In a forked child the channel is the parent's, and touching it waits for threads that are not there.
            if self._process == _process.id:
                for channel in channels:
                    if channel is not None:
                        channel.release()

    def _attempts(
        self, request: bytes, deadline: float, start: float, may_hedge: Callable[[], bool]
    ) -> bytes:
        channel = self._channel(0)
        left = deadline - start
        try:
            if self._hedge is not None:
                self._hedge_credit.earn()
                hedge_after_s = self._hedge.delay_s(self.round_trips, left)
                if hedge_after_s is not None:
                    return self._hedged(request, deadline, hedge_after_s, may_hedge)
            answer: bytes = channel.model_infer(
                request, timeout=left, metadata=self._metadata(), compression=self._compression
            )
        except ValueError as error:
            # What gRPC raises for a channel that was closed.
            raise self._failure(ErrorCode.CLOUD_UNAVAILABLE, str(error)) from error
        return answer

    def _hedged(
        self, request: bytes, deadline: float, after_s: float, may_hedge: Callable[[], bool]
    ) -> bytes:
        """The first good answer of one attempt or two; the other attempt is cancelled."""
        finished: SimpleQueue[Any] = SimpleQueue()
        attempts: list[Any] = []
        failures: list[Any] = []

        def begin(lane: int) -> None:
            call = self._channel(lane).model_infer.future(
                request,
                timeout=deadline - time.monotonic(),
                metadata=self._metadata(),
                compression=self._compression,
            )
            attempts.append(call)
            call.add_done_callback(finished.put)

        def wait(seconds: float) -> Any:
            try:
                return finished.get(timeout=max(seconds, 0.0))
            except Empty:
                return None

        try:
            begin(0)
            call = wait(after_s)
            if call is None and self._hedge_credit.spend() and may_hedge():
                begin(1)
                self._counts.add(hedges=1, bytes_sent=len(request))
            while len(failures) < len(attempts):
                if call is None and (call := wait(deadline - time.monotonic())) is None:
                    raise self._failure(ErrorCode.CLOUD_DEADLINE, "no answer to either attempt")
                if call.code() is grpc.StatusCode.OK:
                    self._counts.add(hedges_won=int(call is not attempts[0]))
                    answer: bytes = call.result()
                    return answer
                failures.append(call)
                call = None
            raise failures[0]
        finally:
            for attempt in attempts:
                attempt.cancel()

    def _look_again(self) -> None:
        """While the breaker is open: does something say that the endpoint is back?"""
        channel = self._channels[0]
        if channel is not None and channel.times_back != self._times_back:
            self._times_back = channel.times_back
            self.breaker.reconnected()
        elif self.breaker.wants_probe():
            self._probe()

    def _probe(self) -> None:
        """Looks whether the endpoint is there, with the smallest call of the protocol and without waiting."""
        self._counts.add(probes=1)
        try:
            call = self._channel(0).server_live.future(
                ServerLiveRequest(), timeout=_PROBE_TIMEOUT_S, metadata=self._metadata()
            )
        except (ValueError, HybridgeError):
            self.breaker.probed(alive=False)
            return
        # Whatever it says of itself or of us, it says something.
        call.add_done_callback(lambda done: self.breaker.probed(alive=done.code() not in _NOT_MET))

    def _failed(self, error: Any, request_bytes: int, waited_s: float = 0.0) -> HybridgeError:
        """What a failed call means, for who made it and for the next."""
        failure = from_status(error, self._settings.target)
        self._counts.failed(failure.code, request_bytes)
        if failure.retry_after_s is not None:
            self._not_before = time.monotonic() + min(failure.retry_after_s, _MAX_PUSHBACK_S)
            self.breaker.withdrew()
        elif is_outage(error):
            self.breaker.failed(failure.received)
        else:
            self.breaker.succeeded()
        if failure.code is ErrorCode.CLOUD_DEADLINE and waited_s:
            self.round_trips.add(waited_s)
        channel = self._channels[0]
        if error.code() is grpc.StatusCode.UNAVAILABLE and channel is not None:
            channel.unreachable(failure.received)
        return failure

    def _metadata(self) -> tuple[tuple[str, str], ...]:
        return () if self._token is None else self._token.metadata()

    def _channel(self, lane: int) -> SharedChannel:
        channel = self._channels[lane]
        if channel is None or self._process != _process.id:
            return self._open(lane)
        return channel

    def _open(self, lane: int) -> SharedChannel:
        with self._lock:
            if self._process not in (0, _process.id):
                raise self._failure(
                    ErrorCode.CLOUD_UNAVAILABLE,
                    "a connection of the process that this one was forked from",
                    "make the first question after the fork",
                )
            if self._closed:
                raise self._failure(ErrorCode.CLOUD_UNAVAILABLE, "a fallback that was closed")
            channel = self._channels[lane]
            if channel is None:
                channel = SharedChannel.acquire(replace(self._settings, lane=lane))
                self._channels[lane] = channel
                self._process = _process.id
            return channel

    def _failure(self, code: ErrorCode, received: str, fix: str = "") -> HybridgeError:
        return HybridgeError(code, f"cloud at {self._settings.target}", received=received, fix=fix)


def is_loopback(target: str) -> bool:
    """Whether what is sent to a gRPC name does not leave this machine."""
    if target.startswith(("unix:", "unix-abstract:")):
        return True
    host = target.rpartition("/")[2].rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
