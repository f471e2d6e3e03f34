"""What every gRPC call passes before it reaches a servicer: who asks, is there room, and is it a message.

A call is let in by its metadata alone, before any of its message is read. Then the message is waited for, no longer
than it may take, checked in its bytes, and only then made into what the servicer gets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from cloud_fallback.endpoint.access import Access, bearer
from cloud_fallback.endpoint.rpc.call_room import CallRoom
from cloud_fallback.endpoint.rpc.call_threads import CallThreads
from cloud_fallback.endpoint.rpc.coming_messages import ComingMessages
from cloud_fallback.endpoint.rpc.connection_settings import connection_options
from cloud_fallback.endpoint.rpc.ended_calls import EndedCalls
from cloud_fallback.endpoint.rpc.memory_limit import memory_limit
from cloud_fallback.endpoint.rpc.open_streams import MAX_STREAM_THREADS, OpenStreams
from cloud_fallback.endpoint.rpc.request_reader import InferRequest, RequestReader, not_a_message
from cloud_fallback.endpoint.rpc.servicer import InferenceServicer
from cloud_fallback.endpoint.rpc.unary_calls import UnaryCall, UnaryCalls
from cloud_fallback.endpoint.rpc.unsent_answers import UnsentAnswers
from cloud_fallback.endpoint.token_file import Scope
from cloud_fallback.open_inference import SERVICE_NAME
from cloud_fallback.open_inference.open_inference_pb2_grpc import (
    add_GRPCInferenceServiceServicer_to_server,
)
from cloud_fallback.open_inference.statuses import abort
from edge_runtime.errors import ErrorCode, HybridgeError

__all__ = ["CallServer"]

_AUTHORIZATION = "authorization"
# Only inference has a reason to be larger.
_MAX_OTHER_BYTES = 64 * 2**10
# Of the memory that there is, what messages may take of which a part has come, all of them as large as may be; but not
# fewer than that.
_COMING_SHARE, _MIN_COMING = 0.25, 16
# What of a message that is read on the thread that polls may have to be copied there.
_MAX_BRIEF_BYTES = 4 * 2**20
# Calls beside inference.
_MAX_ASIDE, _COMING_ASIDE, _ASIDE_HURRY_S = 128, 8, 0.25
# Messages of the largest size that are held at once, of those that have come, and of answers that nobody has taken.
_HELD = 4
# How long a message may be on its way, and an answer that is small: 64 KB take as long at 4.8 kbit/s.
_PATIENCE_S = 110.0
# How long streams have to tell their clients that the endpoint ends.
_LAST_WORDS_S = 0.2


@dataclass(frozen=True, slots=True)
class _Rule:
    """What a method needs.

    Attributes:
        scope: What a client must be allowed to; None for a call that anybody may make, and that takes no time.
        model: The field of its message that names a model, or empty.
    """

    scope: Scope | None
    model: str = ""


_INFER = f"/{SERVICE_NAME}/ModelInfer"
_RULES = {
    f"/{SERVICE_NAME}/ServerLive": _Rule(None),
    f"/{SERVICE_NAME}/ServerReady": _Rule(None),
    f"/{SERVICE_NAME}/ServerMetadata": _Rule("infer"),
    f"/{SERVICE_NAME}/ModelReady": _Rule("infer", "name"),
    f"/{SERVICE_NAME}/ModelMetadata": _Rule("infer", "name"),
    _INFER: _Rule("infer", "model_name"),
    f"/{SERVICE_NAME}/RepositoryIndex": _Rule("admin"),
    f"/{SERVICE_NAME}/RepositoryModelLoad": _Rule("admin", "model_name"),
    f"/{SERVICE_NAME}/RepositoryModelUnload": _Rule("admin", "model_name"),
    "/grpc.health.v1.Health/Check": _Rule(None),
    "/grpc.health.v1.Health/Watch": _Rule(None),
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": _Rule("infer"),
}
# Whatever is added and forgotten here is for administrators.
_ANY_OTHER = _Rule("admin")


class CallServer:
    """A gRPC server behind the gate; services are added to it as to a `grpc.Server`.

    Attributes:
        ended: Calls that were ended because they stalled.

    Args:
        access: Lets clients in.
        workers: Threads, for calls that are not left to a model's own.
        max_waiting: Calls that may be under way besides; more are refused, with a time to come again.
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
        self.ended = EndedCalls()
        self.patience_s = _PATIENCE_S
        self._gate = _Gate(access, by_certificate=by_certificate)
        held = _HELD * max_message_bytes
        self.unsent = UnsentAnswers(self.ended, max_bytes=held)
        most = max(_MIN_COMING, int(memory_limit() * _COMING_SHARE) // max_message_bytes)
        self.coming = ComingMessages(most, self.ended)
        room = CallRoom(workers + max_waiting, self.coming, max_bytes=held)
        self._bounds = _Bounds(room, self.coming, self.unsent)
        # Calls that anybody may make, and that are nothing but a name.
        aside = ComingMessages(_COMING_ASIDE, self.ended, hurry_s=_ASIDE_HURRY_S)
        room = CallRoom(_MAX_ASIDE, aside, max_bytes=_MAX_ASIDE * _MAX_OTHER_BYTES)
        self._bounds_aside = _Bounds(room, aside, self.unsent)
        self._streams = _Streams(self._gate, self.ended)
        self.server = grpc.server(
            self._streams.threads,
            options=connection_options(max_message_bytes=max_message_bytes),
            maximum_concurrent_rpcs=MAX_STREAM_THREADS,
        )
        self._threads = CallThreads(workers, "endpoint")
        self._unary = UnaryCalls(self.server, self._threads, look=self._end_stalled)

    def add_inference(self, servicer: InferenceServicer) -> None:
        """Adds the service of the Open Inference Protocol."""
        self._begin_infer = servicer.begin_infer
        add_GRPCInferenceServiceServicer_to_server(servicer, self)

    def add_generic_rpc_handlers(self, handlers: Iterable[grpc.GenericRpcHandler]) -> None:
        """Nothing, as each service is also added by `add_registered_method_handlers`."""

    def add_registered_method_handlers(
        self, service: str, handlers: Mapping[str, grpc.RpcMethodHandler]
    ) -> None:
        """Puts the gate before a service's methods; see `grpc.Server`."""
        streams = {}
        for name, handler in handlers.items():
            method = f"/{service}/{name}"
            rule = _RULES.get(method, _ANY_OTHER)
            if handler.request_streaming or handler.response_streaming:
                streams[name] = self._streams.guarded(rule, handler)
            else:
                bounds = self._bounds_aside if rule.scope is None else self._bounds
                if method == _INFER:
                    guarded: _GuardedMethod = _GuardedInfer(
                        self._gate, rule, handler, bounds, self._begin_infer
                    )
                else:
                    read = partial(_read, handler.request_deserializer)
                    guarded = _GuardedMethod(self._gate, rule, handler, bounds, read)
                self._unary.add(method, guarded)
        self.server.add_registered_method_handlers(service, streams)

    def start(self) -> None:
        """Begins to answer on the ports that were added to the server."""
        self.server.start()
        self._unary.start()

    def stop(self, grace_s: float) -> None:
        """Refuses new calls at once, lets those under way finish, and returns.

        Args:
            grace_s: Seconds after which calls still under way are cancelled.
        """
        ended = self.server.stop(grace_s)
        if not ended.wait(min(_LAST_WORDS_S, grace_s)):
            # They would stay open as long as their clients want.
            self._streams.end()
        ended.wait()
        self._unary.join()
        self._threads.shutdown()
        self._streams.threads.shutdown(wait=False)

    def _end_stalled(self) -> None:
        for bounds in (self._bounds, self._bounds_aside):
            bounds.coming.end_stalled(self.patience_s)
        self.unsent.end_stalled(self.patience_s)


class _Gate:
    """Lets calls in, and makes their bytes into messages."""

    def __init__(self, access: Access, *, by_certificate: bool):
        self.access = access
        self._by_certificate = by_certificate

    def admit(self, rule: _Rule, call: Any) -> str:
        """The name of the client that a call is let in for."""
        if rule.scope is None:
            return ""
        header = None
        for key, value in call.invocation_metadata():
            if key == _AUTHORIZATION:
                header = value
        names = _certificate_names(call) if self._by_certificate else ()
        return self.access.admit(bearer(header), rule.scope, call.peer, certificate=names)

    def check_model(self, rule: _Rule, request: Any, client: str) -> None:
        """Whether a client may ask for the model that its message names."""
        if rule.model:
            self.access.check_model(client, getattr(request, rule.model))


@dataclass(frozen=True, slots=True)
class _Bounds:
    """What calls share, and what bounds them."""

    room: CallRoom
    coming: ComingMessages
    unsent: UnsentAnswers


class _GuardedMethod:
    """A method of one message and one answer; see `UnaryHandler`."""

    def __init__(
        self,
        gate: _Gate,
        rule: _Rule,
        handler: Any,
        bounds: _Bounds,
        read: Callable[[bytes], Any],
    ):
        self._gate, self._rule, self._bounds = gate, rule, bounds
        self._read, self._answer, self._serialize = read, handler.unary_unary, handler.response_serializer
        # They are answered when all threads are busy, as whoever restarts what does not answer has to know the
        # difference.
        self.is_quick = rule.scope is None

    def admit(self, call: UnaryCall) -> None:
        call.client = self._gate.admit(self._rule, call)
        self._bounds.room.enter(call)
        call.is_counted = True
        self._bounds.coming.receive(call)

    def received(self, call: UnaryCall) -> None:
        self._bounds.coming.has_come(call)
        self._gate.access.received(call.client, call.peer, call.received_bytes)
        self._bounds.room.hold(call.received_bytes)
        call.held_bytes = call.received_bytes

    def begin(self, content: bytes, call: UnaryCall, *, is_brief: bool) -> bool:  # noqa: ARG002 - as the protocol has it
        return False

    def answer(self, content: bytes, call: UnaryCall) -> bytes:
        request = self._read(content)
        self._gate.check_model(self._rule, request, call.client)
        response = self._answer(request, call)
        # A servicer that needs to know the size of its answer has serialised it.
        return response if isinstance(response, bytes) else self._serialize(response)

    def answered(self, call: UnaryCall, size: int) -> None:
        if call.is_counted:
            call.is_counted = False
            self._bounds.room.leave(call.held_bytes)
        self._bounds.unsent.add(call, size)

    def ended(self, call: UnaryCall) -> None:
        self._bounds.unsent.remove(call)


class _GuardedInfer(_GuardedMethod):
    """Inference, whose requests are mostly alike, and answered by the threads of models."""

    def __init__(
        self,
        gate: _Gate,
        rule: _Rule,
        handler: Any,
        bounds: _Bounds,
        begin: Callable[[InferRequest, UnaryCall], bool],
    ):
        reader = RequestReader()
        super().__init__(gate, rule, handler, bounds, reader.read)
        self._read_known, self._begin = reader.read_known, begin

    def begin(self, content: bytes, call: UnaryCall, *, is_brief: bool) -> bool:
        if is_brief:
            request = self._read_known(content) if len(content) <= _MAX_BRIEF_BYTES else None
            if request is None:
                return False
        else:
            request = self._read(content)
        self._gate.check_model(self._rule, request, call.client)
        return self._begin(request, call)


class _Streams:
    """Calls of many messages or many answers, each with a thread while it is open."""

    def __init__(self, gate: _Gate, ended: EndedCalls):
        self._gate = gate
        self._open = OpenStreams(ended)
        self.threads = ThreadPoolExecutor(MAX_STREAM_THREADS, "endpoint-streams")

    def guarded(self, rule: _Rule, handler: Any) -> grpc.RpcMethodHandler:
        """A method's handler with the gate before it.

        A call of one message is served as a stream of which one is read: only so does gRPC hand it over before the
        message has come. On the wire the two are the same.
        """

        def stream(messages: Iterator[bytes], context: Any) -> Iterator[Any]:
            with self._entered(context):
                self._gate.admit(rule, context)
                requests = (
                    _read(handler.request_deserializer, content)
                    for content in self._open.received(messages, context)
                )
                if handler.request_streaming:
                    yield from handler.stream_stream(requests, context)
                else:
                    for request in requests:
                        yield from handler.unary_stream(request, context)
                        return
                    raise HybridgeError(
                        ErrorCode.INPUT_INVALID, "call", received="no message", expected="one"
                    )

        return grpc.stream_stream_rpc_method_handler(stream, response_serializer=handler.response_serializer)

    def end(self) -> None:
        """Ends all that are open."""
        self._open.end()

    @contextmanager
    def _entered(self, context: Any) -> Iterator[None]:
        try:
            with self._open.enter(context):
                yield
        except HybridgeError as error:
            abort(context, error)


def _read(deserialize: Callable[[bytes], Any], content: bytes) -> Any:
    """The message of a call beside inference."""
    if len(content) > _MAX_OTHER_BYTES:
        raise HybridgeError(
            ErrorCode.MESSAGE_TOO_LARGE,
            "call",
            received=f"a message of {len(content)} bytes",
            expected=f"at most {_MAX_OTHER_BYTES} bytes for anything but inference",
        )
    try:
        return deserialize(content)
    except DecodeError as error:
        raise not_a_message(content) from error


def _certificate_names(context: Any) -> tuple[str, ...]:
    """The names in a client's certificate, which the handshake has verified: alternative ones first."""
    found = context.auth_context()
    names = (*found.get("x509_subject_alternative_name", ()), *found.get("x509_common_name", ()))
    return tuple(dict.fromkeys(name.decode(errors="replace") for name in names))
