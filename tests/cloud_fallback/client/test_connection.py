"""The way to the endpoint over real sockets: shared, tried again, left alone, and asked twice when that is wanted."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import numpy as np
import pytest

from cloud_fallback import CloudFallback, HourlyBudget, OffloadPolicy
from cloud_fallback.client.breaker import BreakerSettings, BreakerState
from cloud_fallback.client.hedging import Hedge
from cloud_fallback.open_inference.open_inference_pb2 import ModelInferRequest, ModelInferResponse
from cloud_fallback.open_inference.tensors import encode_response
from edge_runtime import ErrorCode, HybridgeError, Reason, Source
from tests.cloud_fallback.client.peer import Peer, Serving, question
from tests.cloud_fallback.client.relay import Relay

Ask = Callable[..., CloudFallback]
Serve = Callable[..., Serving]


def _fails(
    code: grpc.StatusCode, *, times: int = 1, pushback_ms: int | None = None
) -> Callable[[ModelInferRequest, Any], ModelInferResponse]:
    """A peer's answer: a status so many times, then two numbers."""
    left = [times]

    def infer(request: ModelInferRequest, context: Any) -> ModelInferResponse:
        if left[0] > 0:
            left[0] -= 1
            if pushback_ms is not None:
                context.set_trailing_metadata((("grpc-retry-pushback-ms", str(pushback_ms)),))
            context.abort(code, "not now")
        return encode_response("m", {"y": np.zeros(2, np.float32)})

    return infer


def _until(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.005)


def _free_address() -> str:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{listener.getsockname()[1]}"


def test_fallbacks_to_one_endpoint_share_a_connection_until_the_last_is_closed(
    serve: Serve, ask: Ask
) -> None:
    peers = set()

    def infer(request: ModelInferRequest, context: Any) -> ModelInferResponse:
        peers.add(context.peer())
        return encode_response("m", {"y": np.zeros(2, np.float32)})

    address = serve(Peer(infer=infer)).address
    first, second = ask(address, model="one"), ask(address, model="two")
    other = ask(address, max_message_bytes=2**20)
    for client in (first, second):
        assert client.resolve(question()).source is Source.CLOUD
    assert len(peers) == 1
    assert other.resolve(question()).source is Source.CLOUD
    assert len(peers) == 2
    first.close()
    first.close()
    assert first.resolve(question()).reason is Reason.CLOUD_UNAVAILABLE
    assert second.resolve(question()).source is Source.CLOUD
    assert len(peers) == 2
    second.close()
    assert ask(address).resolve(question()).source is Source.CLOUD
    assert len(peers) == 3


def test_an_endpoint_that_is_away_for_a_blink_is_asked_again_within_the_deadline(ask: Ask) -> None:
    peer = Peer(infer=_fails(grpc.StatusCode.UNAVAILABLE))
    client = ask(peer)
    assert client.resolve(question()).source is Source.CLOUD
    assert len(peer.seen) == 2
    assert peer.headers[1]["grpc-previous-rpc-attempts"] == "1"


def test_a_large_question_is_tried_again_too(ask: Ask) -> None:
    peer = Peer(infer=_fails(grpc.StatusCode.UNAVAILABLE))
    assert ask(peer).resolve(question(*[0.5] * 200_000)).source is Source.CLOUD
    assert len(peer.seen) == 2


def test_only_what_may_pass_is_tried_again(ask: Ask) -> None:
    for code in (
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
    ):
        peer = Peer(infer=_fails(code))
        ask(peer).resolve(question())
        assert len(peer.seen) == 1


def test_a_wait_that_the_endpoint_asks_for_is_kept_before_the_next_attempt(ask: Ask) -> None:
    peer = Peer(infer=_fails(grpc.StatusCode.UNAVAILABLE, pushback_ms=150))
    start = time.monotonic()
    assert ask(peer).resolve(question()).source is Source.CLOUD
    assert 0.15 <= time.monotonic() - start < 1
    assert len(peer.seen) == 2


def test_an_overloaded_endpoint_is_left_alone_for_as_long_as_it_says(ask: Ask) -> None:
    peer = Peer(infer=_fails(grpc.StatusCode.RESOURCE_EXHAUSTED, pushback_ms=200))
    client = ask(peer)
    first = client.resolve(question())
    assert (first.reason, "RESOURCE_EXHAUSTED" in first.detail) == (Reason.CLOUD_OVERLOADED, True)
    start = time.monotonic()
    second = client.resolve(question())
    assert (second.reason, len(peer.seen)) == (Reason.CLOUD_OVERLOADED, 1)
    assert "wait" in second.detail
    _until(lambda: client.resolve(question()).source is Source.CLOUD)
    assert 0.15 < time.monotonic() - start < 1
    assert client.figures().breaker_openings == 0


@pytest.mark.parametrize("said", ["-1", "99999999999999999999999", "soon", "1e9", ""])
def test_a_wait_that_makes_no_sense_does_no_harm(ask: Ask, said: str) -> None:
    def infer(request: ModelInferRequest, context: Any) -> ModelInferResponse:
        context.set_trailing_metadata((("grpc-retry-pushback-ms", said),))
        context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "not now")
        raise AssertionError

    client = ask(Peer(infer=infer))
    assert {client.resolve(question()).reason for _ in range(3)} == {Reason.CLOUD_OVERLOADED}
    assert client._connection._not_before < time.monotonic() + 301


def test_a_dead_cloud_is_offline_after_the_first_question_and_back_when_it_is(ask: Ask) -> None:
    address = _free_address()
    client = ask(address)
    start = time.monotonic()
    first = client.resolve(question())
    assert (first.reason, time.monotonic() - start < 0.5) == (Reason.CLOUD_UNAVAILABLE, True)
    assert client.figures().is_offline
    for _ in range(20):
        answer = client.resolve(question())
        assert (answer.reason, "Connection refused" in answer.detail) == (Reason.OFFLINE, True)
    assert client.figures().asked == 1
    peer = Peer()
    with Serving(peer, port=int(address.rpartition(":")[2])):
        _until(lambda: not client.figures().is_offline)
        assert peer.lives == 1
        assert client.resolve(question()).source is Source.CLOUD


def test_a_breaker_that_opened_because_nobody_was_there_does_not_wait_when_somebody_is(ask: Ask) -> None:
    address = _free_address()
    client = ask(address, breaker=BreakerSettings(failures=2, open_s=600, max_open_s=600))
    for _ in range(2):
        with pytest.raises(HybridgeError):
            client.infer({"x": np.zeros(2, np.float32)})
    assert client.figures().breaker is BreakerState.OPEN
    with Serving(Peer(), port=int(address.rpartition(":")[2])):
        _until(lambda: client.resolve(question()).source is Source.CLOUD)
    assert client.figures().breaker is BreakerState.CLOSED


def test_what_the_endpoint_itself_says_to_be_unavailable_is_not_offline(ask: Ask) -> None:
    peer = Peer(infer=_fails(grpc.StatusCode.UNAVAILABLE, times=2))
    client = ask(peer)
    assert client.resolve(question()).reason is Reason.CLOUD_UNAVAILABLE
    _until(lambda: not client.figures().is_offline)
    assert client.resolve(question()).source is Source.CLOUD


def test_a_restarted_endpoint_costs_no_answer(serve: Serve, ask: Ask) -> None:
    serving = serve(Peer())
    client = ask(serving.address)
    for _ in range(3):
        assert client.resolve(question()).source is Source.CLOUD
        serving.stop()
        serving.start()
        # It may have looked for it in between.
        _until(lambda: not client.figures().is_offline)
    assert client.resolve(question()).source is Source.CLOUD


def test_the_breaker_opens_on_deadlines_and_closes_by_a_probe_and_one_question(ask: Ask) -> None:
    peer = Peer(delay_s=(0.3, 0.3, 0.3, 0.0))
    client = ask(peer, deadline_s=0.05, breaker=BreakerSettings(failures=3, open_s=0.1))
    for _ in range(3):
        assert client.resolve(question()).reason is Reason.CLOUD_DEADLINE
    kept = client.resolve(question())
    assert (kept.reason, "DEADLINE_EXCEEDED" in kept.detail) == (Reason.CLOUD_BREAKER_OPEN, True)
    assert (len(peer.seen), peer.lives) == (3, 0)
    _until(lambda: client.resolve(question()).source is Source.CLOUD)
    figures = client.figures()
    assert (peer.lives, figures.probes, len(peer.seen)) == (1, 1, 4)
    assert (figures.breaker, figures.breaker_openings) == (BreakerState.CLOSED, 1)


def test_refusals_of_the_application_do_not_open_the_breaker(ask: Ask) -> None:
    peer = Peer(infer=_fails(grpc.StatusCode.NOT_FOUND, times=50))
    client = ask(peer, breaker=BreakerSettings(failures=2))
    for _ in range(10):
        assert client.resolve(question()).reason is Reason.CLOUD_REFUSED
    assert len(peer.seen) == 10
    assert client.figures().failures == {ErrorCode.MODEL_UNKNOWN: 10}


def test_while_the_breaker_is_open_nobody_waits_and_no_budget_is_spent(ask: Ask) -> None:
    budget = HourlyBudget(requests=100)
    peer = Peer(infer=_fails(grpc.StatusCode.INTERNAL, times=100))
    client = ask(peer, policy=OffloadPolicy(budget=budget), breaker=BreakerSettings(failures=3, open_s=60))
    start = time.monotonic()
    for _ in range(500):
        client.resolve(question())
    assert time.monotonic() - start < 2
    assert (len(peer.seen), budget.left()[0]) == (3, 97)
    assert not client.is_up()
    # Who asks in any case is let through, and tells the breaker.
    with pytest.raises(HybridgeError):
        client.infer({"x": np.zeros(2, np.float32)})
    assert len(peer.seen) == 4


def test_a_question_that_may_not_be_asked_leaves_the_trial_to_the_next(ask: Ask) -> None:
    peer = Peer(infer=_fails(grpc.StatusCode.INTERNAL))
    client = ask(
        peer,
        breaker=BreakerSettings(failures=1, open_s=0.02),
        payload={"x": "uint8"},
    )
    client.resolve(question())
    _until(lambda: client._connection.obstacle() is None)
    client._connection.withdraw()
    # Neither what has no time nor what cannot be sent is the trial.
    assert client.resolve(question(deadline=time.monotonic() - 1)).reason is Reason.NO_TIME
    assert client.resolve(question(0.5)).reason is Reason.CLOUD_REFUSED
    assert client.resolve(question()).source is Source.CLOUD
    assert client.figures().breaker is BreakerState.CLOSED


def test_a_slow_answer_is_asked_for_again_elsewhere_and_the_first_that_comes_counts(ask: Ask) -> None:
    cancelled = threading.Event()

    def infer(request: ModelInferRequest, context: Any) -> ModelInferResponse:
        if len(peer.seen) == 11:
            context.add_callback(cancelled.set)
            cancelled.wait(4)
        return encode_response("m", {"y": np.array([1.0, len(peer.seen)], np.float32)})

    peer = Peer(infer=infer)
    client = ask(peer, hedge=Hedge(after_ms=50))
    for _ in range(10):
        assert client.resolve(question()).source is Source.CLOUD
    start = time.monotonic()
    answer = client.resolve(question())
    assert (answer.source, time.monotonic() - start < 1) == (Source.CLOUD, True)
    figures = client.figures()
    assert (figures.hedges, figures.hedges_won, len(peer.seen), figures.asked) == (1, 1, 12, 11)
    # The other is not waited for by anybody, and the endpoint is told so.
    assert cancelled.wait(2)


def test_second_attempts_spend_the_budget_and_stay_few(ask: Ask) -> None:
    budget = HourlyBudget(requests=1000)
    peer = Peer(delay_s=(0.012,))
    client = ask(peer, hedge=Hedge(after_ms=2), policy=OffloadPolicy(budget=budget))
    for _ in range(40):
        assert client.resolve(question()).source is Source.CLOUD
    figures = client.figures()
    assert 1 <= figures.hedges <= 4
    assert budget.left()[0] == 1000 - 40 - figures.hedges
    assert figures.bytes_sent == (40 + figures.hedges) * peer.seen[0].ByteSize()
    spent = HourlyBudget(requests=20)
    limited = ask(peer, hedge=Hedge(after_ms=2, share=1.0), policy=OffloadPolicy(budget=spent))
    for _ in range(20):
        limited.resolve(question())
    assert limited.figures().asked + limited.figures().hedges == 20


def test_both_attempts_in_vain_cost_the_deadline_and_say_why(ask: Ask) -> None:
    client = ask(Peer(delay_s=(1.0,)), deadline_s=0.1, hedge=Hedge(after_ms=20, share=1.0))
    start = time.monotonic()
    assert client.resolve(question()).reason is Reason.CLOUD_DEADLINE
    assert 0.09 < time.monotonic() - start < 0.3
    refused = ask(Peer(infer=_fails(grpc.StatusCode.NOT_FOUND, times=9)), hedge=Hedge(after_ms=1, share=1.0))
    assert refused.resolve(question()).reason is Reason.CLOUD_REFUSED
    nobody = ask(_free_address(), hedge=True)
    assert nobody.resolve(question()).reason is Reason.CLOUD_UNAVAILABLE


def test_a_failed_attempt_does_not_take_the_other_with_it(ask: Ask) -> None:
    def infer(request: ModelInferRequest, context: Any) -> ModelInferResponse:
        if len(peer.seen) == 1:
            time.sleep(0.1)
            context.abort(grpc.StatusCode.INTERNAL, "lost it")
        time.sleep(0.2)
        return encode_response("m", {"y": np.zeros(2, np.float32)})

    peer = Peer(infer=infer)
    client = ask(peer, hedge=Hedge(after_ms=10, share=1.0))
    assert client.resolve(question()).source is Source.CLOUD
    assert client.figures().hedges_won == 1


def test_there_is_no_time_when_even_a_quick_answer_would_be_late_and_that_is_tried_again(ask: Ask) -> None:
    peer = Peer(delay_s=(*[0.03] * 8, 0.0))
    client = ask(peer)
    for _ in range(8):
        assert client.resolve(question()).source is Source.CLOUD
    expected = client.figures().expected_ms
    assert expected is not None
    assert 30 <= expected < 100
    assert client.resolve(question(deadline=time.monotonic() + 0.02)).reason is Reason.NO_TIME
    assert len(peer.seen) == 8
    _until(lambda: client.resolve(question(deadline=time.monotonic() + 0.02)).source is Source.CLOUD)


def test_a_silent_connection_is_given_up_and_made_again(serve: Serve, ask: Ask) -> None:
    peer = Peer()
    with Relay(serve(peer).port) as relay:
        client = ask(relay.address, deadline_s=0.2, breaker=BreakerSettings(failures=2, open_s=0.1))
        assert client.resolve(question()).source is Source.CLOUD
        relay.holds_received = True
        for _ in range(2):
            assert client.resolve(question()).reason is Reason.CLOUD_DEADLINE
        assert client.resolve(question()).reason is Reason.CLOUD_BREAKER_OPEN
        relay.reset()
        relay.holds_received = False
        _until(lambda: client.resolve(question()).source is Source.CLOUD)


def _devices(count: int, serving: list[Serving], ask: Ask) -> list[CloudFallback]:
    """Devices that reach two replicas by one name, each over a connection of its own."""
    name = f"ipv4:{','.join(each.address for each in serving)}"
    # Those who agree on everything share one.
    return [ask(name, max_message_bytes=2**20 + number) for number in range(count)]


def test_devices_are_spread_over_the_replicas_behind_a_name(serve: Serve, ask: Ask) -> None:
    replicas = [Peer(), Peer()]
    for client in _devices(16, [serve(each) for each in replicas], ask):
        for _ in range(2):
            assert client.resolve(question()).source is Source.CLOUD
    counts = [len(each.seen) for each in replicas]
    assert sum(counts) == 32
    assert all(count and count % 2 == 0 for count in counts), "a device keeps to one of them"


def test_a_replica_that_dies_leaves_its_devices_to_the_other(serve: Serve, ask: Ask) -> None:
    replicas = [Peer(), Peer()]
    serving = [serve(each) for each in replicas]
    devices = _devices(8, serving, ask)
    stop = threading.Event()

    def work(client: CloudFallback) -> list[tuple[Source, Reason]]:
        decided = []
        while not stop.wait(0.005):
            answer = client.resolve(question())
            decided.append((answer.source, answer.reason))
        return decided

    with ThreadPoolExecutor(len(devices)) as pool:
        under_way = [pool.submit(work, client) for client in devices]
        time.sleep(0.5)
        serving[0].stop()
        died, before = len(replicas[0].seen), len(replicas[1].seen)
        time.sleep(1.0)
        stop.set()
        decided = [each.result(10) for each in under_way]
    asked = (Source.CLOUD, Reason.UNSURE)
    # The device's own answer stands in at the moment of the death, and nowhere else.
    moment = {(Source.DEVICE, Reason.CLOUD_UNAVAILABLE), (Source.DEVICE, Reason.OFFLINE)}
    for one in decided:
        assert set(one) - {asked} <= moment
        assert sum(each != asked for each in one) < 10
        assert one[-1] == asked
    assert len(replicas[0].seen) == died
    assert len(replicas[1].seen) > before


def test_threads_that_ask_while_it_is_closed_all_come_back(ask: Ask) -> None:
    client = ask(Peer(delay_s=(0.005,)))
    with ThreadPoolExecutor(8) as pool:
        answers = [pool.submit(client.resolve, question()) for _ in range(200)]
        time.sleep(0.05)
        client.close()
        reasons = {answer.result(10).reason for answer in answers}
    assert reasons <= {Reason.UNSURE, Reason.CLOUD_UNAVAILABLE, Reason.CLOUD_REFUSED, Reason.OFFLINE}
    assert Reason.CLOUD_UNAVAILABLE in reasons


def test_every_query_is_counted_once_whatever_happens_to_the_endpoint(serve: Serve, ask: Ask) -> None:
    def infer(request: ModelInferRequest, context: Any) -> ModelInferResponse:
        if (number := len(peer.seen)) % 7 == 0:
            context.abort(grpc.StatusCode.INTERNAL, "no")
        time.sleep(0.03 if number % 11 == 0 else 0.0)
        return encode_response("m", {"y": np.zeros(2, np.float32)})

    peer = Peer(infer=infer)
    serving = serve(peer)
    settings = BreakerSettings(failures=3, open_s=0.01, max_open_s=0.05)
    client = ask(serving.address, deadline_s=0.1, breaker=settings, hedge=Hedge(after_ms=5, share=0.5))
    stop = threading.Event()

    def restart() -> None:
        while not stop.wait(0.15):
            serving.stop()
            serving.start()

    restarter = threading.Thread(target=restart)
    restarter.start()
    slowest = []

    def work(seed: int) -> int:
        count, end = 0, time.monotonic() + 1.5
        while time.monotonic() < end:
            start = time.monotonic()
            client.resolve(question(seed, count, confidence=0.9 if count % 5 == 0 else 0.1))
            slowest.append(time.monotonic() - start)
            count += 1
            time.sleep(0.001)
        return count

    try:
        with ThreadPoolExecutor(8) as pool:
            total = sum(pool.map(work, range(8)))
    finally:
        stop.set()
        restarter.join()
    figures = client.figures()
    assert sum(figures.decisions.values()) == total
    assert figures.asked == figures.answered + sum(figures.failures.values())
    assert figures.answered > 20
    assert figures.hedges > 0
    assert sorted(slowest)[int(0.99 * total)] < 0.5
    _until(lambda: client.resolve(question()).source is Source.CLOUD)
