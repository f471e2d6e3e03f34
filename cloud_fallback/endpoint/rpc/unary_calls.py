"""Calls of one message and one answer, served on a completion queue and one thread that polls it.

gRPC's Python server gives each call a thread, which asks for the message and waits for the thread that polls to bring
it: several hand-overs of Python's lock for a call, which is most of the processor time of a small one, and a thread
held by each message that is slow to come. Here the thread that polls lets a call in, receives its message, and hands
both over once, when all of it is there. Ports, credentials, limits and streams stay with gRPC's server.

It stands on `grpc._cython.cygrpc`, as gRPC's own server does: the one module that does.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Protocol

import grpc
from grpc._cython import cygrpc

from cloud_fallback.endpoint.rpc.call_threads import CallThreads
from cloud_fallback.open_inference.statuses import abort
from edge_runtime.errors import ErrorCode, HybridgeError

__all__ = ["UnaryCall", "UnaryCalls", "UnaryHandler"]

_log = logging.getLogger(__name__)

_NO_FLAGS = 0
# Calls of a method that gRPC may take before the thread that polls has heard of one.
_REQUESTED = 16
_LOOK_S = 0.25
# Answers that take no longer are given by the thread that polls: handing one over takes as long. How long each is
# taken to be at most, and its weight in what they usually take.
_QUICK_S, _LONG_S, _NEW = 0.00025, 0.001, 0.05
# Of those that are handed over one in so many is not, to see; and less often while it turns out to be long.
_TRIED_ONE_IN, _TRIED_ONE_IN_AT_LEAST = 64, 4096
# An answer that takes so long holds the thread, and another polls; it stops to look after so many looks in vain.
_HELD_S, _IDLE_LOOKS = 0.01, 4
_STATUSES = {code: getattr(cygrpc.StatusCode, code.name.lower()) for code in grpc.StatusCode}
_OK = _STATUSES[grpc.StatusCode.OK]


class UnaryHandler(Protocol):
    """What becomes of a method's calls. All but `answer` must not block.

    Attributes:
        is_quick: Whether `answer` does not block either, and needs no thread.
    """

    is_quick: bool

    def admit(self, call: UnaryCall) -> None:
        """Lets a call in, before any of its message is read, and has it `receive` that, now or later; as `receive`.

        Raises:
            HybridgeError: For one that is not let in.
        """

    def received(self, call: UnaryCall) -> None:
        """A call's message is there, or will not come; on the thread that polls.

        Raises:
            HybridgeError: For one that is not to be answered.
        """

    def begin(self, content: bytes, call: UnaryCall, *, is_brief: bool) -> bool:
        """Has a serialised message answered without a thread that waits, by `UnaryCall.finish` or `refuse`, if it can.

        Args:
            content: The message.
            call: Its call.
            is_brief: Whether it is asked on the thread that polls, where reading it must take no more than
                microseconds; else it is on one of the threads.

        Returns:
            False for a message that `answer` has to answer.

        Raises:
            HybridgeError: For one that is not answered.
        """

    def answer(self, content: bytes, call: UnaryCall) -> bytes:
        """The serialised answer of a serialised message; on one of the threads.

        Raises:
            HybridgeError: For one that is not answered.
        """

    def answered(self, call: UnaryCall, size: int) -> None:
        """A call's answer of that many bytes is about to be sent, or no answer but its status; on any thread.

        Raises:
            HybridgeError: For an answer that is not to be sent; then it is called once more, with 0 bytes.
        """

    def ended(self, call: UnaryCall) -> None:
        """What a call was answered is sent, or its client has gone; on the thread that polls."""


class UnaryCall:
    """One call: what a servicer of one message and one answer uses of a `grpc.ServicerContext`.

    Attributes:
        client: The name of the client that it was let in for; empty for one that has none.
        received_bytes: Size of its message.
        is_counted: Whether it has a place in a `CallRoom`.
        held_bytes: The room of its message there.
    """

    __slots__ = (
        "_call",
        "_calls",
        "_details",
        "_handler",
        "_is_gone",
        "_is_waiting",
        "_is_watched",
        "_metadata",
        "_peer",
        "_status",
        "_trailing",
        "_until",
        "client",
        "held_bytes",
        "is_counted",
        "received_bytes",
    )

    def __init__(self, event: Any, handler: UnaryHandler, calls: UnaryCalls):
        self._call, self._handler, self._calls = event.call, handler, calls
        self._metadata: Sequence[tuple[str, str]] = event.invocation_metadata or ()
        # The calendar's time may jump while the call waits.
        self._until: float = time.monotonic() + (event.call_details.deadline - time.time())
        self._peer = ""
        self._trailing: Sequence[tuple[str, str]] | None = None
        self._status, self._details = _OK, b""
        self._is_gone = False
        self._is_waiting = self._is_watched = False
        self.client = ""
        self.received_bytes = self.held_bytes = 0
        self.is_counted = False

    def invocation_metadata(self) -> Sequence[tuple[str, str]]:
        """What came with the call."""
        return self._metadata

    def time_remaining(self) -> float:
        """Seconds until its deadline."""
        return max(self._until - time.monotonic(), 0.0)

    def time_left(self) -> float:
        """Seconds for which the client still waits; 0 once it has left."""
        return 0.0 if self._is_gone else self.time_remaining()

    def is_active(self) -> bool:
        """Whether the client still waits."""
        return not self._is_gone

    def peer(self) -> str:
        """Where it comes from."""
        # gRPC gives up Python's lock to tell it, so it is asked only where it matters.
        if not self._peer:
            self._peer = self._call.peer().decode(errors="replace")
        return self._peer

    def auth_context(self) -> Mapping[str, Sequence[bytes]]:
        """What the handshake has verified."""
        return {key.decode(): values for key, values in cygrpc.auth_context(self._call).items()}

    def set_trailing_metadata(self, metadata: Sequence[tuple[str, str]]) -> None:
        """What is sent after the answer."""
        self._trailing = metadata

    def set_code(self, code: grpc.StatusCode) -> None:
        """Its status; with any other than OK no answer is sent."""
        self._status = _STATUSES[code]

    def set_details(self, details: str) -> None:
        """What its status is about."""
        self._details = details.encode()

    def abort(self, code: grpc.StatusCode, details: str) -> None:
        """Ends it with a status; raises."""
        self.set_code(code)
        self.set_details(details)
        raise _AbortedError

    def cancel(self) -> None:
        """Ends it, from any thread; its client sees RESOURCE_EXHAUSTED."""
        self._call.cancel(_STATUSES[grpc.StatusCode.RESOURCE_EXHAUSTED], "it took room and did not go on")

    def begin(self) -> None:
        """Begins it; on the thread that polls, as all that follows from an event."""
        # Its answer, which another thread may send.
        self._calls.due += 1
        try:
            self._handler.admit(self)
        except HybridgeError as error:
            self.refuse(error)
        except Exception:
            self.fail()

    def receive(self) -> None:
        """Asks for its message."""
        self._is_waiting = False
        self._calls.due += 1
        self._start((cygrpc.ReceiveMessageOperation(_NO_FLAGS),), self._on_message)

    def wait(self) -> None:
        """Has it wait for its turn to `receive`; if its client leaves before, it is over."""
        self._is_waiting = True
        self.watch()

    def watch(self) -> None:
        """Asks to be told when its client leaves, for a call that does not end at once."""
        with self._calls.lock:
            if self._is_watched:
                return
            self._is_watched = True
        self._calls.due += 1
        self._start((cygrpc.ReceiveCloseOnServerOperation(_NO_FLAGS),), self._on_close)

    def _on_close(self, event: Any) -> None:
        self._is_gone = event.batch_operations[0].cancelled()
        if self._is_waiting:
            self._is_waiting = False
            self.refuse(_no_message())

    def _on_message(self, event: Any) -> None:
        content = event.batch_operations[0].message()
        self.received_bytes = 0 if content is None else len(content)
        try:
            self._handler.received(self)
            # Its client has left, or it was larger than may be, or there was none.
            if content is None:
                raise _no_message()
            if self._handler.is_quick:
                self.answer(content)
            elif self._calls.answers_itself():
                self._calls.answer(self, content)
            else:
                self.watch()
                if not self._handler.begin(content, self, is_brief=True):
                    self._calls.threads.start(self._begin_or_answer, content)
        except HybridgeError as error:
            self.refuse(error)
        except Exception:
            self.fail()

    def _begin_or_answer(self, content: bytes) -> None:
        """Has its message answered, on one of the threads."""
        try:
            if self._handler.begin(content, self, is_brief=False):
                return
        except HybridgeError as error:
            self.refuse(error)
        except Exception:
            self.fail()
        else:
            self.answer(content)

    def answer(self, content: bytes) -> None:
        """Has its message answered; on any thread."""
        try:
            answer = self._handler.answer(content, self)
            # It is kept for no longer than it is read.
            del content
            if self._status != _OK:
                raise _AbortedError
        except HybridgeError as error:
            self.refuse(error)
        except _AbortedError:
            self._end()
        except Exception:
            self.fail()
        else:
            self.finish(answer)

    def finish(self, answer: bytes) -> None:
        """Sends its serialised answer; on any thread."""
        try:
            self._handler.answered(self, len(answer))
        except HybridgeError as error:
            self.refuse(error)
        except Exception:
            self.fail()
        else:
            self._send(cygrpc.SendMessageOperation(answer, _NO_FLAGS))

    def refuse(self, error: HybridgeError) -> None:
        """Ends it with an error's status; on any thread."""
        with suppress(_AbortedError):
            abort(self, error)
        self._end()

    def fail(self) -> None:
        """Ends it for an error that nobody foresaw, or an endpoint that stops would wait for it."""
        _log.exception("a call failed")
        self.refuse(HybridgeError(ErrorCode.INTERNAL, "internal error of the endpoint"))

    def _end(self) -> None:
        self._handler.answered(self, 0)
        self._send()

    def _send(self, *answer: Any) -> None:
        operations = [
            cygrpc.SendInitialMetadataOperation(None, _NO_FLAGS),
            *answer,
            cygrpc.SendStatusFromServerOperation(self._trailing, self._status, self._details, _NO_FLAGS),
        ]
        # gRPC is to be asked for its end once.
        with self._calls.lock:
            is_watched, self._is_watched = self._is_watched, True
        if not is_watched:
            operations.append(cygrpc.ReceiveCloseOnServerOperation(_NO_FLAGS))
        self._start(operations, self._on_sent)

    def _on_sent(self, _event: Any) -> None:
        self._handler.ended(self)

    def _start(self, operations: Sequence[Any], then: Callable[[Any], None]) -> None:
        # It keeps the call until it is done.
        self._call.start_server_batch(operations, then)


class _AbortedError(Exception):
    """A call was ended with a status."""


def _no_message() -> HybridgeError:
    return HybridgeError(ErrorCode.INPUT_INVALID, "call", received="no message", expected="one")


class UnaryCalls:
    """Serves methods of one message and one answer; `start` after the server, `join` after its end.

    While answers are quick, the thread that polls gives them itself: handing one over costs more than a trivial model
    does. A second thread stands by, and polls in its place when one takes long after all.

    Args:
        server: A gRPC server that has not started.
        threads: Give answers that are not quick.
        look: Called a few times a second on the thread that polls.

    Raises:
        HybridgeError: `extra-missing` for a version of gRPC whose server is another.
    """

    def __init__(self, server: Any, threads: CallThreads, *, look: Callable[[], None]):
        self.threads, self._look = threads, look
        try:
            self._core = server._state.server
            self._core.request_registered_call  # noqa: B018 - whether there is one
        except AttributeError as error:
            raise HybridgeError(
                ErrorCode.EXTRA_MISSING,
                "gRPC's Python package",
                received=f"version {grpc.__version__}, whose server is built in another way",
                expected="one like 1.81 to 1.85",
                fix="pip install 'grpcio<1.86'",
            ) from error
        self._queue = cygrpc.CompletionQueue()
        self._core.register_completion_queue(self._queue)
        self._methods: list[_Method] = []
        # Events that are to come; only the thread that polls counts them.
        self.due = 0
        self._both = [
            threading.Thread(target=self._run, name=f"endpoint-calls-{number}", daemon=True)
            for number in (1, 2)
        ]
        self._polls = self._both[0]
        # Since when it gives an answer, and to which call; 0 while it does not.
        self._since = 0.0
        self._answered: UnaryCall | None = None
        self._other_is_held = False
        self.lock = threading.Lock()
        # Set while the other thread looks whether it is to poll.
        self._looks = threading.Event()
        self._usual_s = 0.0
        self._num_answers = 0
        self._tried_one_in = _TRIED_ONE_IN

    def add(self, method: str, handler: UnaryHandler) -> None:
        """Has a handler get the calls of a method, which the server itself is not told of.

        Args:
            method: Its full name, as ``/package.Service/Method``.
            handler: Gets them.
        """
        self._core.register_method(method)
        self._methods.append(_Method(method, handler, self))

    def start(self) -> None:
        """Begins to answer."""
        for method in self._methods:
            for _ in range(_REQUESTED):
                self.request(method)
        for thread in self._both:
            thread.start()

    def join(self) -> None:
        """Waits until the last call has ended."""
        for thread in self._both:
            thread.join()

    def answers_itself(self) -> bool:
        """Whether the thread that polls gives the next answer."""
        self._num_answers += 1
        return not self._other_is_held and (
            self._usual_s <= _QUICK_S or not self._num_answers % self._tried_one_in
        )

    def answer(self, call: UnaryCall, content: bytes) -> None:
        """Has the thread that polls, which calls this, answer a call."""
        self._answered = call
        start = self._since = time.monotonic()
        if not self._looks.is_set():
            self._looks.set()
        call.answer(content)
        with self.lock:
            # Else the other thread polls by now, and has handed all answers over meanwhile.
            if self._since == start:
                self._since, self._answered = 0.0, None
            else:
                self._other_is_held = False
        # What the machine itself delays, now and then, says little.
        seconds = time.monotonic() - start
        if seconds < _LONG_S:
            self._tried_one_in = _TRIED_ONE_IN
        else:
            seconds = _LONG_S
            self._tried_one_in = min(2 * self._tried_one_in, _TRIED_ONE_IN_AT_LEAST)
        self._usual_s += (seconds - self._usual_s) * _NEW

    def _run(self) -> None:
        me = threading.current_thread()
        while self.due:
            if self._polls is me:
                self._poll(me)
            else:
                self._stand_by(me)
        self._looks.set()

    def _poll(self, me: threading.Thread) -> None:
        next_look = 0.0
        while self.due and self._polls is me:
            if time.monotonic() >= next_look:
                self._look()
                next_look = time.monotonic() + _LOOK_S
            event = self._queue.poll(time.time() + _LOOK_S)
            then = event.tag
            # There was none within that time.
            if then is None:
                continue
            self.due -= 1
            try:
                then(event)
            except Exception:
                _log.exception("a call failed")
            # They would keep the call until the next one.
            del event, then

    def _stand_by(self, me: threading.Thread) -> None:
        """Polls in the other's place once that is held by an answer; looks for that while there are any."""
        self._looks.wait()
        seen, idle = self._num_answers, 0
        while self.due:
            time.sleep(_HELD_S)
            with self.lock:
                is_held = bool(self._since) and time.monotonic() - self._since >= _HELD_S
                if is_held:
                    self._polls, self._since, self._other_is_held = me, 0.0, True
                    held, self._answered = self._answered, None
            if is_held:
                assert held is not None  # noqa: S101 - it is set before the time is
                held.watch()
                return
            idle = idle + 1 if seen == self._num_answers else 0
            seen = self._num_answers
            if idle >= _IDLE_LOOKS:
                self._looks.clear()
                # One may have begun before.
                if not self._since:
                    return

    def request(self, method: _Method) -> None:
        """Has gRPC take one more call of a method."""
        try:
            self._core.request_registered_call(self._queue, self._queue, method.name, method.begun)
        except ValueError:
            # It is shutting down, which is said by an exception, too.
            return
        self.due += 1


class _Method:
    """A method whose calls are served."""

    def __init__(self, name: str, handler: UnaryHandler, calls: UnaryCalls):
        self.name, self._handler, self._calls = name, handler, calls
        # Made once; each call would make its own.
        self.begun = self._begun

    def _begun(self, event: Any) -> None:
        # Without a call the server takes no more.
        if event.success:
            self._calls.request(self)
            UnaryCall(event, self._handler, self._calls).begin()
