"""What every gRPC call passes before it reaches a servicer: is there room, who asks, and is it a message.

A call is let in by its metadata alone, before any of its message is read. Then the message is waited for, no longer
than it may take, checked in its bytes, and only then made into what the servicer gets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from cloud_fallback.endpoint.access import Access, bearer
from cloud_fallback.endpoint.call_lane import HeldMessages, Lane, no_room
from cloud_fallback.endpoint.request_bounds import check_bounds
from cloud_fallback.endpoint.stalled_calls import StalledCalls
from cloud_fallback.endpoint.token_file import Scope
from cloud_fallback.open_inference import SERVICE_NAME
from cloud_fallback.open_inference.statuses import abort
from edge_runtime.errors import ErrorCode, HybridgeError

__all__ = ["AdmittedCall", "CallGate"]

_AUTHORIZATION = "authorization"
# Calls that answer whether the endpoint lives have threads of their own: they are answered when all others are busy, as
# whoever restarts what does not answer has to know the difference. So do streams, which may stay open.
_ASIDE_WORKERS, _ASIDE_WAITING = 8, 1024
_STREAM_WORKERS, _STREAM_WAITING = 4, 64
# Only inference has a reason to be larger.
_MAX_OTHER_BYTES = 64 * 2**10
# Memory for messages of which a part has come, all of them as large as may be.
_RECEIVING_BYTES = 2**29
_MIN_RECEIVERS = 4
# How long messages may be on their way while others wait for their turn: several times what a busy endpoint takes to
# hear of one that is there. Those of health checks are nothing but a name.
_HURRY_S, _ASIDE_HURRY_S = 0.5, 0.25
# Messages of the largest size that are held at once, of those that have come, and of answers that nobody has taken.
_HELD = 4


def _is_short(content: bytes) -> None:
    if len(content) > _MAX_OTHER_BYTES:
        raise HybridgeError(
            ErrorCode.MESSAGE_TOO_LARGE,
            "call",
            received=f"a message of {len(content)} bytes",
            expected=f"at most {_MAX_OTHER_BYTES} bytes for anything but inference",
        )


@dataclass(frozen=True, slots=True)
class _Rule:
    """What a method needs.

    Attributes:
        scope: What a client must be allowed to; None for a call that anybody may make.
        model: The field of its message that names a model, or empty.
        check: Looks at the bytes of its message.
    """

    scope: Scope | None
    model: str = ""
    check: Callable[[bytes], None] = _is_short


_RULES = {
    f"/{SERVICE_NAME}/ServerLive": _Rule(None),
    f"/{SERVICE_NAME}/ServerReady": _Rule(None),
    f"/{SERVICE_NAME}/ServerMetadata": _Rule("infer"),
    f"/{SERVICE_NAME}/ModelReady": _Rule("infer", "name"),
    f"/{SERVICE_NAME}/ModelMetadata": _Rule("infer", "name"),
    f"/{SERVICE_NAME}/ModelInfer": _Rule("infer", "model_name", check_bounds),
    f"/{SERVICE_NAME}/RepositoryIndex": _Rule("admin"),
    f"/{SERVICE_NAME}/RepositoryModelLoad": _Rule("admin", "model_name"),
    f"/{SERVICE_NAME}/RepositoryModelUnload": _Rule("admin", "model_name"),
    "/grpc.health.v1.Health/Check": _Rule(None),
    "/grpc.health.v1.Health/Watch": _Rule(None),
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": _Rule("infer"),
}
# Whatever is added and forgotten here is for administrators.
_ANY_OTHER = _Rule("admin")


class AdmittedCall:
    """A `grpc.ServicerContext` with what is known of the call already.

    Attributes:
        client: The client's name; empty for one that has none.
        address: Where it comes from, as `peer` gives it.
        received_bytes: Size of its message; 0 for a stream, whose messages are yet to come.
    """

    def __init__(self, context: Any, client: str, address: str, received_bytes: int = 0):
        self._context = context
        self.client, self.address = client, address
        self.received_bytes = received_bytes

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)


class CallGate(grpc.ServerInterceptor):  # type: ignore[misc]
    """Stands before all services of a server; between `start` and `stop` it also ends calls that stall.

    Args:
        access: Lets clients in.
        workers: The server's threads.
        max_waiting: Calls that may wait for one of them; more are refused, with a time to come again.
        max_message_bytes: Size of the largest message.
        by_certificate: Whether clients are known by their certificates, where they bring no token.
    """

    def __init__(
        self,
        access: Access,
        *,
        workers: int,
        max_waiting: int,
        max_message_bytes: int,
        by_certificate: bool = False,
    ):
        self._access = access
        self._by_certificate = by_certificate
        fitting = max(_MIN_RECEIVERS, _RECEIVING_BYTES // max_message_bytes)
        receivers = max(1, min(workers // 2, fitting))
        self._main = Lane(workers, max_waiting, receivers, hurry_s=_HURRY_S)
        self._aside = Lane(_ASIDE_WORKERS, _ASIDE_WAITING, _ASIDE_WORKERS // 2, hurry_s=_ASIDE_HURRY_S)
        self._streams = Lane(_STREAM_WORKERS, _STREAM_WAITING, _STREAM_WORKERS // 2, hurry_s=_HURRY_S)
        self._aside_pool = ThreadPoolExecutor(_ASIDE_WORKERS, thread_name_prefix="endpoint-aside")
        self._stream_pool = ThreadPoolExecutor(_STREAM_WORKERS, thread_name_prefix="endpoint-streams")
        self._held = HeldMessages(_HELD * max_message_bytes)
        self.stalled = StalledCalls(
            (self._main, self._aside, self._streams), max_unsent_bytes=_HELD * max_message_bytes
        )
        self._handlers: dict[str, tuple[Lane, Any]] = {}
        self._full = grpc.stream_unary_rpc_method_handler(self._on(self._aside_pool, _refuse_full))

    def start(self) -> None:
        """Begins to end calls that stall."""
        self.stalled.start()

    def stop(self) -> None:
        """Ends its threads, once the server has ended."""
        self.stalled.stop()
        self._aside_pool.shutdown(wait=False)
        self._stream_pool.shutdown(wait=False)

    def intercept_service(
        self, continuation: Callable[[Any], Any], handler_call_details: Any
    ) -> grpc.RpcMethodHandler | None:
        """Puts itself before a method's handler; see `grpc.ServerInterceptor`."""
        method = handler_call_details.method
        known = self._handlers.get(method)
        if known is None:
            handler = continuation(handler_call_details)
            if handler is None:
                return None
            known = self._handlers[method] = self._guarded(method, handler)
        lane, guarded = known
        return guarded if lane.enter() else self._full

    def _guarded(self, method: str, handler: Any) -> tuple[Lane, Any]:
        """A method's lane, and its handler with the gate before it.

        A call of one message is served as a stream of which one is read: only so does gRPC hand it over before the
        message has come. On the wire the two are the same.
        """
        rule = _RULES.get(method, _ANY_OTHER)
        if handler.request_streaming:
            stream = self._on(self._stream_pool, self._streaming(rule, handler.stream_stream))
            return self._streams, grpc.stream_stream_rpc_method_handler(
                stream, handler.request_deserializer, handler.response_serializer
            )
        if handler.response_streaming:
            watch = self._on(self._aside_pool, self._watching(rule, handler))
            # It hands over where to send what happens, and leaves its thread.
            watch.experimental_non_blocking = True  # type: ignore[attr-defined]
            return self._aside, grpc.stream_stream_rpc_method_handler(
                watch, None, handler.response_serializer
            )
        if rule.scope is None:
            unary = self._on(self._aside_pool, self._unary(rule, handler, self._aside))
            return self._aside, grpc.stream_unary_rpc_method_handler(unary)
        return self._main, grpc.stream_unary_rpc_method_handler(self._unary(rule, handler, self._main))

    @staticmethod
    def _on(pool: ThreadPoolExecutor, behaviour: Callable[..., Any]) -> Callable[..., Any]:
        """Has gRPC run a behaviour on these threads."""
        behaviour.experimental_thread_pool = pool  # type: ignore[attr-defined]
        return behaviour

    def _unary(self, rule: _Rule, handler: Any, lane: Lane) -> Callable[[Iterator[bytes], Any], bytes]:
        answer, serialize = handler.unary_unary, handler.response_serializer

        def call(messages: Iterator[bytes], context: Any) -> bytes:
            try:
                admitted, content = self._received(rule, lane, messages, context)
                with self._held.hold(len(content)):
                    request = self._parsed(rule, handler, admitted, content)
                    # The message has its own copy.
                    del content
                    response = answer(request, admitted)
                    # A servicer that needs to know the size of its answer has serialised it.
                    answered: bytes = response if isinstance(response, bytes) else serialize(response)
                self.stalled.answers(context, admitted.address, len(answered))
                return answered
            except HybridgeError as error:
                abort(context, error)
                raise
            finally:
                lane.leave()

        return call

    def _watching(self, rule: _Rule, handler: Any) -> Callable[..., None]:
        def watch(messages: Iterator[bytes], context: Any, send: Callable[[Any], None]) -> None:
            try:
                admitted, content = self._received(rule, self._aside, messages, context)
                handler.unary_stream(self._parsed(rule, handler, admitted, content), admitted, send)
            except HybridgeError as error:
                abort(context, error)
            finally:
                self._aside.leave()

        return watch

    def _streaming(self, rule: _Rule, answer: Callable[..., Iterator[Any]]) -> Callable[..., Iterator[Any]]:
        def stream(messages: Iterator[Any], context: Any) -> Iterator[Any]:
            try:
                peer = context.peer()
                client = self._admit(rule, context, peer)
                yield from answer(self._each(messages, context), AdmittedCall(context, client, peer))
            except HybridgeError as error:
                abort(context, error)
            finally:
                self._streams.leave()

        return stream

    def _each(self, messages: Iterator[Any], context: Any) -> Iterator[Any]:
        while True:
            try:
                yield self._streams.next(messages, context)
            except StopIteration:
                return

    def _received(
        self, rule: _Rule, lane: Lane, messages: Iterator[bytes], context: Any
    ) -> tuple[AdmittedCall, bytes]:
        """Lets a call in and waits for its message."""
        peer = context.peer()
        client = self._admit(rule, context, peer)
        try:
            content: bytes = lane.next(messages, context)
        except StopIteration:
            raise HybridgeError(
                ErrorCode.INPUT_INVALID, "call", received="no message", expected="one"
            ) from None
        self._access.received(client, peer, len(content))
        return AdmittedCall(context, client, peer, len(content)), content

    def _parsed(self, rule: _Rule, handler: Any, admitted: AdmittedCall, content: bytes) -> Any:
        """The message that a servicer gets."""
        rule.check(content)
        try:
            request = handler.request_deserializer(content)
        except DecodeError as error:
            raise HybridgeError(
                ErrorCode.INPUT_INVALID,
                "call",
                received=f"{len(content)} bytes that are not its message",
                expected="a message of the Open Inference Protocol",
            ) from error
        if rule.model:
            self._access.check_model(admitted.client, getattr(request, rule.model))
        return request

    def _admit(self, rule: _Rule, context: Any, peer: str) -> str:
        if rule.scope is None:
            return ""
        header = None
        for key, value in context.invocation_metadata():
            if key == _AUTHORIZATION:
                header = value
        names = _certificate_names(context) if self._by_certificate else ()
        return self._access.admit(bearer(header), rule.scope, peer, certificate=names)


def _certificate_names(context: Any) -> tuple[str, ...]:
    """The names in a client's certificate, which the handshake has verified: alternative ones first."""
    found = context.auth_context()
    names = (*found.get("x509_subject_alternative_name", ()), *found.get("x509_common_name", ()))
    return tuple(dict.fromkeys(name.decode(errors="replace") for name in names))


def _refuse_full(_messages: Iterator[bytes], context: Any) -> None:
    abort(context, no_room("a call while as many wait as may"))
