"""Calls on a completion queue: answered by whichever thread is free, ended however they end, and none left behind."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import grpc
import pytest

from cloud_fallback.endpoint.rpc.call_threads import CallThreads
from cloud_fallback.endpoint.rpc.unary_calls import UnaryCall, UnaryCalls
from edge_runtime.errors import ErrorCode, HybridgeError

METHOD = "/test.Test/Go"
Infer = Callable[..., bytes]


class _Handler:
    """Answers as the message says; counts what it is told."""

    is_quick = False

    def __init__(self) -> None:
        self.told: Counter[str] = Counter()
        self.release = threading.Event()
        self.threads: set[str] = set()
        self.seen: list[bool] = []

    def admit(self, call: UnaryCall) -> None:
        self.told["admit"] += 1
        if ("secret", "wrong") in call.invocation_metadata():
            raise HybridgeError(ErrorCode.UNAUTHENTICATED, "caller", received="a wrong secret")
        if ("bug", "admit") in call.invocation_metadata():
            raise KeyError("in admit")
        call.receive()

    def received(self, call: UnaryCall) -> None:
        self.told["received"] += 1
        if ("bug", "received") in call.invocation_metadata():
            raise KeyError("in received")
        if call.received_bytes > 2**16:
            raise HybridgeError(ErrorCode.CLOUD_OVERLOADED, "test", received="much", retry_after_s=0.5)

    def begin(self, content: bytes, call: UnaryCall, *, is_brief: bool) -> bool:
        if content.startswith(b"read, ") and not is_brief:
            content = content.removeprefix(b"read, ")
        match content:
            case b"later":
                threading.Timer(0.05, call.finish, [b"at last"]).start()
            case b"later, refused":
                error = HybridgeError(ErrorCode.CLOUD_OVERLOADED, "test", received="much", retry_after_s=0.5)
                threading.Timer(0.05, call.refuse, [error]).start()
            case b"later, left":
                threading.Timer(0.2, self._look_and_finish, [call]).start()
            case b"at once":
                call.finish(b"here")
            case b"refused":
                raise HybridgeError(ErrorCode.MODEL_UNKNOWN, "test")
            case b"broken":
                raise KeyError("in begin")
            case _:
                return False
        return True

    def _look_and_finish(self, call: UnaryCall) -> None:
        self.seen.append(call.is_active())
        call.finish(b"")

    def answer(self, content: bytes, call: UnaryCall) -> bytes:
        self.threads.add(threading.current_thread().name)
        match content:
            case b"hold":
                self.release.wait(20)
            case b"watch":
                while call.is_active() and call.time_left() > 0 and not self.release.wait(0.01):
                    pass
                self.seen.append(call.is_active())
            case b"abort":
                call.set_trailing_metadata((("k", "v"),))
                call.abort(grpc.StatusCode.NOT_FOUND, "nö")
            case b"code":
                call.set_code(grpc.StatusCode.OUT_OF_RANGE)
                call.set_details("too far")
            case b"raise":
                raise KeyError("a secret")
            case b"peer":
                return f"{call.peer()} {call.time_remaining() > 0}".encode()
        return content[::-1]

    def answered(self, call: UnaryCall, size: int) -> None:  # noqa: ARG002
        self.told["answered"] += 1

    def ended(self, call: UnaryCall) -> None:  # noqa: ARG002
        self.told["ended"] += 1


@contextmanager
def _serving(
    handler: _Handler, *, grace_s: float = 5.0, workers: int = 4, told: threading.Event | None = None
) -> Iterator[tuple[Infer, UnaryCalls]]:
    """Serves a handler; before the channel is closed the client is `told` of what is still under way."""
    threads = CallThreads(workers)
    server = grpc.server(ThreadPoolExecutor(1), options=[("grpc.max_receive_message_length", 2**20)])
    calls = UnaryCalls(server, threads, look=lambda: None)
    calls.add(METHOD, handler)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    calls.start()
    with grpc.insecure_channel(f"127.0.0.1:{port}", [("grpc.use_local_subchannel_pool", 1)]) as channel:
        try:
            yield channel.unary_unary(METHOD), calls
        finally:
            server.stop(grace_s).wait()
            handler.release.set()
            calls.join()
            threads.shutdown()
            assert told is None or told.wait(10)
    assert calls.due == 0
    assert handler.told["ended"] == handler.told["answered"] == handler.told["admit"]


def _failure(call: Callable[[], object]) -> grpc.RpcError:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value


def test_calls_are_answered_and_end_with_the_status_that_they_get(caplog: pytest.LogCaptureFixture) -> None:
    handler = _Handler()
    with _serving(handler) as (infer, _):
        assert infer(b"abc", timeout=5) == b"cba"
        assert infer(b"", timeout=5) == b""
        where, has_time = infer(b"peer", timeout=5).split()
        assert where.startswith(b"ipv4:127.0.0.1:")
        assert has_time == b"True"
        aborted = _failure(lambda: infer(b"abort", timeout=5))
        assert (aborted.code(), aborted.details()) == (grpc.StatusCode.NOT_FOUND, "nö")
        assert ("k", "v") in aborted.trailing_metadata()
        coded = _failure(lambda: infer(b"code", timeout=5))
        assert (coded.code(), coded.details()) == (grpc.StatusCode.OUT_OF_RANGE, "too far")
        failed = _failure(lambda: infer(b"raise", timeout=5))
        assert (failed.code(), failed.details()) == (
            grpc.StatusCode.INTERNAL,
            "internal error of the endpoint",
        )
        assert "KeyError: 'a secret'" in caplog.text
        metadata = (("secret", "wrong"),)
        refused = _failure(lambda: infer(bytes(2**15), timeout=5, metadata=metadata))
        assert refused.code() is grpc.StatusCode.UNAUTHENTICATED
        for where_it_is in ("admit", "received"):
            metadata = (("bug", where_it_is),)
            broken = _failure(lambda: infer(b"abc", timeout=5, metadata=metadata))  # noqa: B023 - called at once
            assert broken.code() is grpc.StatusCode.INTERNAL
        full = _failure(lambda: infer(bytes(2**17), timeout=5))
        assert ("grpc-retry-pushback-ms", "500") in full.trailing_metadata()
        large = _failure(lambda: infer(bytes(2**21), timeout=5))
        assert large.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert infer(b"again", timeout=5) == b"niaga"


def test_quick_answers_are_given_by_the_thread_that_polls_and_slow_ones_by_others() -> None:
    handler = _Handler()
    with _serving(handler) as (infer, calls):
        for _ in range(50):
            infer(b"abc", timeout=5)
        assert all(name.startswith("endpoint-calls") for name in handler.threads)
        calls._usual_s = 0.01
        handler.threads.clear()
        for _ in range(10):
            infer(b"abc", timeout=5)
        assert any(name.startswith("calls") for name in handler.threads)


@pytest.mark.parametrize("read", [b"", b"read, "])
def test_a_call_is_answered_later_without_a_thread(read: bytes) -> None:
    handler = _Handler()
    with _serving(handler, workers=1) as (infer, calls), ThreadPoolExecutor(32) as pool:
        infer(b"abc", timeout=5)
        calls._usual_s, calls._num_answers = 0.01, 1
        start = time.monotonic()
        answers = list(pool.map(lambda _: infer(read + b"later", timeout=5), range(32)))
        assert answers == [b"at last"] * 32
        assert time.monotonic() - start < 32 * 0.05 / 2
        assert infer(read + b"at once", timeout=5) == b"here"
        later = _failure(lambda: infer(read + b"later, refused", timeout=5))
        assert ("grpc-retry-pushback-ms", "500") in later.trailing_metadata()
        refused = _failure(lambda: infer(read + b"refused", timeout=5))
        assert refused.code() is grpc.StatusCode.NOT_FOUND
        broken = _failure(lambda: infer(read + b"broken", timeout=5))
        assert broken.code() is grpc.StatusCode.INTERNAL
        late = _failure(lambda: infer(read + b"later, left", timeout=0.1))
        assert late.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        _until(lambda: handler.seen == [False], 5)
    assert not any(name.startswith("calls") for name in handler.threads)


def test_one_long_answer_keeps_no_other_call_waiting() -> None:
    handler = _Handler()
    with _serving(handler) as (infer, calls):
        infer(b"abc", timeout=5)
        polled = calls._polls
        for _ in range(3):
            held = infer.future(b"hold", timeout=20)  # type: ignore[attr-defined]
            start = time.monotonic()
            assert [infer(b"abc", timeout=5) for _ in range(20)] == [b"cba"] * 20
            assert time.monotonic() - start < 2
            handler.release.set()
            assert held.result() == b"dloh"
            handler.release.clear()
        assert calls._polls is not polled or not calls._other_is_held
        assert infer(b"abc", timeout=5) == b"cba"


@pytest.mark.parametrize("usual_s", [0.0, 0.01])
def test_an_answer_learns_that_its_client_has_left(usual_s: float) -> None:
    handler = _Handler()
    with _serving(handler) as (infer, calls):
        infer(b"abc", timeout=5)
        calls._usual_s, calls._num_answers = usual_s, 1
        for _ in range(2):
            call = infer.future(b"watch", timeout=10)  # type: ignore[attr-defined]
            time.sleep(0.1)
            call.cancel()
            _until(lambda: handler.told["ended"] == handler.told["admit"] or bool(handler.seen), 2)
            calls._usual_s = 0.01
        late = _failure(lambda: infer(b"watch", timeout=0.2))
        assert late.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        _until(lambda: handler.told["ended"] == handler.told["admit"], 5)


def test_a_server_that_stops_lets_calls_finish_and_cancels_those_that_do_not() -> None:
    handler, told = _Handler(), threading.Event()
    with _serving(handler, told=told) as (infer, _):
        infer(b"abc", timeout=5)
        held = infer.future(b"hold", timeout=20)  # type: ignore[attr-defined]
        held.add_done_callback(lambda _: told.set())
        _until(lambda: handler.told["received"] == 2, 5)
        threading.Timer(0.2, handler.release.set).start()
    assert held.result() == b"dloh"
    handler, told = _Handler(), threading.Event()
    start = time.monotonic()
    with _serving(handler, grace_s=0.2, told=told) as (infer, _):
        infer(b"abc", timeout=5)
        held = infer.future(b"watch", timeout=20)  # type: ignore[attr-defined]
        held.add_done_callback(lambda _: told.set())
        _until(lambda: handler.told["received"] == 2, 5)
    assert held.code() in (grpc.StatusCode.CANCELLED, grpc.StatusCode.UNAVAILABLE)
    assert time.monotonic() - start < 5


def test_many_at_once_are_all_answered_each_with_its_own() -> None:
    handler = _Handler()
    with _serving(handler) as (infer, _), ThreadPoolExecutor(32) as pool:
        messages = [str(number).encode() for number in range(3000)]
        answers = pool.map(lambda message: infer(message, timeout=30), messages)
        assert list(answers) == [message[::-1] for message in messages]


def test_a_server_of_another_make_is_refused_in_words() -> None:
    with pytest.raises(HybridgeError, match="one like 1") as caught:
        UnaryCalls(object(), CallThreads(1), look=lambda: None)
    assert caught.value.code is ErrorCode.EXTRA_MISSING


def _until(condition: Callable[[], bool], seconds: float) -> None:
    give_up = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.005)
