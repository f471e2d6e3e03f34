from __future__ import annotations

import logging
import math
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from cloud_fallback.outbox import Delivery, Drain, Dropped, Outbox, Request
from edge_runtime import ErrorCode, HybridgeError
from tests.cloud_fallback.outbox.conftest import drain_all, echo, is_empty, wait_for

OpenOutbox = Callable[..., Outbox]
QUICK: dict[str, Any] = {"requests_per_s": 1e6, "first_backoff_s": 0.01, "max_backoff_s": 0.02}


@pytest.fixture
def outbox(open_outbox: OpenOutbox) -> Outbox:
    return open_outbox()


def put(outbox: Outbox, *ids: str, destination: str = "d", size: int = 3) -> None:
    outbox.put_many(Request(b"x" * size, destination, id=each) for each in ids)


def unavailable() -> HybridgeError:
    return HybridgeError(ErrorCode.CLOUD_UNAVAILABLE, "cloud")


def ignore(_delivery: Delivery) -> None:
    pass


def test_requests_go_in_order_of_priority_then_age_and_so_do_their_answers(outbox: Outbox) -> None:
    outbox.put_many(
        Request(str(number).encode(), "d", priority=number % 3, metadata={"number": number})
        for number in range(12)
    )
    delivered = drain_all(outbox, echo, max_in_flight=1)
    order = [2, 5, 8, 11, 1, 4, 7, 10, 0, 3, 6, 9]
    assert [each.metadata for each in delivered] == [{"number": number} for number in order]
    assert [each.answer for each in delivered] == [str(number).encode() for number in order]
    assert {each.number for each in delivered} == {1}


def test_what_comes_while_it_runs_is_sent_at_once(outbox: Outbox) -> None:
    delivered: list[Delivery] = []
    with Drain(outbox, echo, on_answer=delivered.append):
        time.sleep(0.05)
        start = time.monotonic()
        put(outbox, "a")
        wait_for(lambda: len(delivered) == 1)
        assert time.monotonic() - start < 1


def test_no_more_are_under_way_at_once_than_allowed(outbox: Outbox) -> None:
    lock = threading.Lock()
    under_way = [0, 0]

    def send(request: Request) -> bytes:
        with lock:
            under_way[0] += 1
            under_way[1] = max(under_way)
        time.sleep(0.02)
        with lock:
            under_way[0] -= 1
        return b""

    put(outbox, *map(str, range(15)))
    assert len(drain_all(outbox, send, max_in_flight=3)) == 15
    assert under_way == [0, 3]


@pytest.mark.parametrize(
    "code",
    [ErrorCode.CLOUD_REFUSED, ErrorCode.MODEL_UNKNOWN, ErrorCode.MESSAGE_TOO_LARGE, ErrorCode.INPUT_SHAPE],
)
def test_a_refusal_for_good_is_delivered_once_and_holds_up_nobody(outbox: Outbox, code: ErrorCode) -> None:
    sent: Counter[str] = Counter()

    def send(request: Request) -> bytes:
        sent[request.id] += 1
        if request.id == "bad":
            raise HybridgeError(code, "model 'x'", received="this", expected="that", fix="do so")
        return b"yes"

    put(outbox, "bad", "good")
    delivered = {each.id: each for each in drain_all(outbox, send, max_in_flight=1)}
    assert sent == {"bad": 1, "good": 1}
    assert delivered["good"].answer == b"yes"
    error = delivered["bad"].error
    assert delivered["bad"].answer is None
    assert error is not None
    assert (error.code, error.what, error.received, error.expected, error.fix) == (
        code, "model 'x'", "this", "that", "do so",
    )  # fmt: skip
    assert (outbox.figures().answered, outbox.figures().failed) == (1, 1)


@pytest.mark.parametrize(
    "error",
    [
        unavailable(),
        HybridgeError(ErrorCode.CLOUD_DEADLINE, "cloud"),
        HybridgeError(ErrorCode.CLOUD_OVERLOADED, "cloud"),
        HybridgeError(ErrorCode.UNAUTHENTICATED, "token"),
        HybridgeError(ErrorCode.CREDENTIALS_INVALID, "certificate"),
        HybridgeError(ErrorCode.FILE_NOT_FOUND, "token"),
        TypeError("a fault of the sender"),
        SystemExit(3),
    ],
)
def test_what_passes_is_tried_again_until_it_is_answered(
    outbox: Outbox, error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)
    sent: Counter[str] = Counter()

    def send(request: Request) -> bytes:
        sent[request.id] += 1
        if sent[request.id] < 4:
            raise error
        return b"yes"

    put(outbox, "a", "b")
    delivered = drain_all(outbox, send)
    assert sorted((each.id, each.answer) for each in delivered) == [("a", b"yes"), ("b", b"yes")]
    figures = outbox.figures()
    assert sent == {"a": 4, "b": 4}
    assert (figures.sent, figures.retries, figures.answered) == (8, 6, 2)


def test_an_endpoint_that_pushes_back_is_left_alone_for_as_long_as_it_asks(outbox: Outbox) -> None:
    sent: list[float] = []

    def send(_request: Request) -> bytes:
        sent.append(time.monotonic())
        if len(sent) == 1:
            raise HybridgeError(ErrorCode.CLOUD_OVERLOADED, "cloud", retry_after_s=0.3)
        return b""

    put(outbox, "a", "b")
    drain_all(outbox, send, max_in_flight=1, max_backoff_s=10)
    assert len(sent) == 3
    assert sent[1] - sent[0] >= 0.3


def test_a_sender_that_returns_something_else_than_bytes_loses_nothing(outbox: Outbox) -> None:
    answers: list[Any] = [None, "text", b"bytes"]
    put(outbox, "a")
    (delivery,) = drain_all(outbox, lambda _request: answers.pop(0))
    assert delivery.answer == b"bytes"


def test_a_request_that_always_fails_does_not_hold_up_those_behind_it(outbox: Outbox) -> None:
    def send(request: Request) -> bytes:
        if request.id == "poison":
            raise HybridgeError(ErrorCode.CLOUD_DEADLINE, "cloud")
        return b"yes"

    outbox.put(Request(b"x", "d", priority=5, id="poison"))
    put(outbox, *map(str, range(20)))
    with Drain(outbox, send, on_answer=ignore, **QUICK):
        wait_for(lambda: outbox.figures().acknowledged == 20)
    assert outbox.depth == 1


def test_a_destination_in_trouble_is_probed_by_one_and_the_others_go_on(outbox: Outbox) -> None:
    sent: Counter[str] = Counter()
    lock = threading.Lock()
    probes, most = 0, 0
    is_back = False

    def send(request: Request) -> bytes:
        nonlocal probes, most
        with lock:
            sent[request.destination] += 1
            # The first four may go before one of them has failed.
            is_probe = request.destination == "down" and sent["down"] > 4 and not is_back
            probes += is_probe
            most = max(most, probes)
        time.sleep(0.002)
        with lock:
            probes -= is_probe
        if request.destination == "down" and not is_back:
            raise unavailable()
        return b""

    put(outbox, *(f"down-{number}" for number in range(50)), destination="down")
    put(outbox, *(f"up-{number}" for number in range(50)), destination="up")
    with Drain(outbox, send, on_answer=ignore, requests_per_s=1e6, first_backoff_s=0.01, max_backoff_s=0.05):
        wait_for(lambda: sent["up"] == 50)
        wait_for(lambda: sent["down"] > 12)
        assert most == 1
        is_back = True
        wait_for(lambda: is_empty(outbox))


def test_nothing_is_sent_without_a_connection_and_all_at_once_with_it(
    outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cloud_fallback.outbox.drain._POLL_S", 0.02)
    is_up = False
    asked = 0

    def is_connected() -> bool:
        nonlocal asked
        asked += 1
        if asked % 2:
            raise RuntimeError("a broken probe")
        return is_up

    sent: list[str] = []
    drain = Drain(
        outbox,
        lambda request: sent.append(request.id) or b"",  # type: ignore[func-returns-value]
        on_answer=ignore,
        is_connected=is_connected,
    )
    with drain:
        time.sleep(0.05)
        assert asked == 0  # nothing waits, so nobody asks
        put(outbox, "a")
        wait_for(lambda: asked == 2)
        assert sent == []
        is_up = True
        wait_for(lambda: sent == ["a"])


def test_a_connection_that_comes_back_ends_the_waits(outbox: Outbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cloud_fallback.outbox.drain._POLL_S", 0.02)
    state = {"up": True, "works": False}
    tried = threading.Event()

    def send(request: Request) -> bytes:
        tried.set()
        if not state["works"]:
            state["up"] = False
            raise unavailable()
        return b""

    put(outbox, "a")
    with Drain(
        outbox,
        send,
        on_answer=ignore,
        is_connected=lambda: state["up"],
        first_backoff_s=1000,
        max_backoff_s=1000,
    ):
        assert tried.wait(10)
        time.sleep(0.05)
        put(outbox, "b")  # so that it is asked whether there is a connection
        time.sleep(0.05)
        state |= {"up": True, "works": True}
        wait_for(lambda: is_empty(outbox), 5)


def test_the_rate_of_requests_is_held(outbox: Outbox) -> None:
    put(outbox, *map(str, range(41)))
    start = time.monotonic()
    drain_all(outbox, echo, requests_per_s=100)
    assert 0.38 <= time.monotonic() - start < 1.5


def test_the_rate_of_bytes_is_held(outbox: Outbox) -> None:
    put(outbox, *map(str, range(9)), size=10_000)
    start = time.monotonic()
    drain_all(outbox, echo, bytes_per_s=200_000)
    assert 0.38 <= time.monotonic() - start < 1.5


def test_an_answer_is_on_the_disk_before_it_is_delivered_and_gone_when_it_was_taken(
    outbox: Outbox, open_outbox: OpenOutbox
) -> None:
    seen: list[tuple[int, int]] = []

    def take(_delivery: Delivery) -> None:
        figures = outbox.figures()
        seen.append((figures.depth, figures.unacknowledged))

    put(outbox, "a")
    with Drain(outbox, echo, on_answer=take):
        wait_for(lambda: is_empty(outbox))
    assert seen == [(0, 1)]
    assert is_empty(open_outbox())


def test_an_answer_that_was_not_taken_is_delivered_again_with_its_id_and_a_higher_number(
    outbox: Outbox, open_outbox: OpenOutbox, caplog: pytest.LogCaptureFixture
) -> None:
    delivered: list[Delivery] = []

    def take(delivery: Delivery) -> None:
        delivered.append(delivery)
        if delivery.number < 6:
            raise RuntimeError("not today")

    put(outbox, "a")
    with Drain(outbox, echo, on_answer=take, **QUICK):
        wait_for(lambda: len(delivered) >= 3)
    with Drain(outbox, echo, on_answer=take, **QUICK):  # again in the same process
        wait_for(lambda: len(delivered) >= 4)
    outbox = open_outbox()  # and in another
    with Drain(outbox, echo, on_answer=take, **QUICK):
        wait_for(lambda: is_empty(outbox))
    numbers = [each.number for each in delivered]
    assert numbers == sorted(set(numbers))
    assert numbers[:3] == [1, 2, 3]
    assert {each.id for each in delivered} == {"a"}
    assert {each.answer for each in delivered} == {b"xxx"}
    assert "on_answer failed for request 'a'" in caplog.text


def test_an_answer_that_is_never_taken_does_not_hold_up_the_others(outbox: Outbox) -> None:
    taken: list[str] = []

    def take(delivery: Delivery) -> None:
        if delivery.id == "a":
            raise RuntimeError("never")
        taken.append(delivery.id)

    put(outbox, "a", "b", "c")
    with Drain(outbox, echo, on_answer=take, **QUICK):
        wait_for(lambda: sorted(taken) == ["b", "c"])
    assert outbox.figures().unacknowledged == 1


def test_what_is_too_old_is_dropped_and_told_without_being_sent_or_waiting_for_a_put(
    open_outbox: OpenOutbox,
) -> None:
    dropped: list[Dropped] = []
    outbox = open_outbox(on_drop=dropped.append)
    sent: list[str] = []

    def send(request: Request) -> bytes:
        sent.append(request.id)
        raise unavailable()

    with Drain(outbox, send, on_answer=ignore, first_backoff_s=1e-3, max_backoff_s=1e-3):
        outbox.put(Request(b"x", "d", id="a", max_age_s=0.1))
        wait_for(lambda: bool(dropped))
    assert dropped[0].id == "a"
    assert 0.1 <= dropped[0].age_s < 2
    assert is_empty(outbox)


def test_stopping_waits_for_what_is_under_way_and_keeps_the_rest(outbox: Outbox) -> None:
    began = threading.Event()

    def send(request: Request) -> bytes:
        began.set()
        time.sleep(0.1)
        return b"yes"

    put(outbox, *map(str, range(10)))
    drain = Drain(outbox, send, on_answer=ignore, max_in_flight=2)
    drain.start()
    assert began.wait(10)
    assert drain.stop()
    figures = outbox.figures()
    assert 1 <= figures.answered <= 2
    assert figures.depth == 10 - figures.answered
    assert figures.in_flight == 0
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("hybridge-outbox-send")]
    assert len(drain_all(outbox, echo)) == 10


def test_a_sender_that_hangs_does_not_hold_up_a_stop_with_a_limit(outbox: Outbox) -> None:
    began, go_on = threading.Event(), threading.Event()

    def send(_request: Request) -> bytes:
        began.set()
        go_on.wait(20)
        return b"late"

    put(outbox, "a")
    drain = Drain(outbox, send, on_answer=ignore)
    drain.start()
    assert began.wait(10)
    assert not drain.stop(timeout_s=0.05)
    with pytest.raises(HybridgeError):
        drain.start()
    go_on.set()
    assert drain.stop()
    assert outbox.figures().answered == 1


def test_an_outbox_has_one_drain_at_a_time(outbox: Outbox) -> None:
    with Drain(outbox, echo, on_answer=ignore), pytest.raises(HybridgeError) as caught:
        Drain(outbox, echo, on_answer=ignore).start()
    assert caught.value.code is ErrorCode.USAGE
    drain = Drain(outbox, echo, on_answer=ignore)
    for _ in range(5):
        drain.start()
        assert drain.stop()
        assert drain.stop()


def test_a_callback_may_put_more_and_stop_the_drain(outbox: Outbox) -> None:
    delivered: list[str] = []

    def take(delivery: Delivery) -> None:
        delivered.append(delivery.id)
        if delivery.id == "a":
            put(outbox, "b")
        else:
            assert not drain.stop()

    put(outbox, "a")
    drain = Drain(outbox, echo, on_answer=take)
    drain.start()
    wait_for(lambda: delivered == ["a", "b"])
    assert drain.stop()
    assert is_empty(outbox)


def test_closing_the_outbox_ends_a_drain_that_was_left_running(outbox: Outbox) -> None:
    drain = Drain(outbox, echo, on_answer=ignore)
    drain.start()
    outbox.close()
    assert drain.stop(timeout_s=10)


@pytest.mark.parametrize(
    "options",
    [
        {"max_in_flight": 0},
        {"requests_per_s": 0},
        {"bytes_per_s": -1},
        {"requests_per_s": math.nan},
        {"first_backoff_s": 0},
        {"first_backoff_s": 10, "max_backoff_s": 1},
        {"max_backoff_s": math.inf},
    ],
)
def test_settings_that_cannot_be_are_refused(outbox: Outbox, options: dict[str, Any]) -> None:
    with pytest.raises(HybridgeError) as caught:
        Drain(outbox, echo, on_answer=ignore, **options)
    assert caught.value.code is ErrorCode.USAGE
