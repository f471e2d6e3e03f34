"""Questions that are deferred: kept on disk, asked later, and their answers delivered under the prediction's id."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from cloud_fallback import Action, CloudFallback, Decision, HourlyBudget, Link, OffloadPolicy
from cloud_fallback.client.breaker import BreakerSettings
from cloud_fallback.client.deferral import LateAnswer, SharedOutbox, drain_deferred
from cloud_fallback.outbox import Outbox, Request
from edge_runtime import ErrorCode, HybridgeError, Query, Reason, Source
from tests.cloud_fallback.client.peer import Peer, Serving, question

Ask = Callable[..., CloudFallback]
DEFERS = OffloadPolicy(unanswered="defer", refuse_below=0.05)


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    with Outbox(tmp_path / "outbox.db") as outbox:
        yield outbox


class _Answers:
    """Collects late answers until so many have come."""

    def __init__(self) -> None:
        self.all: list[LateAnswer] = []
        self._came = threading.Condition()

    def take(self, late: LateAnswer) -> None:
        with self._came:
            self.all.append(late)
            self._came.notify_all()

    def wait(self, count: int) -> list[LateAnswer]:
        with self._came:
            assert self._came.wait_for(lambda: len(self.all) >= count, 20)
        return self.all


def test_a_question_that_nobody_could_be_asked_is_answered_later_under_its_id(
    ask: Ask, outbox: Outbox
) -> None:
    serving = Serving(Peer())
    serving.start()
    serving.stop()
    client = ask(
        serving.address,
        policy=DEFERS,
        outbox=outbox,
        outputs={"y": "logits"},
        breaker=BreakerSettings(open_s=0.05),
    )
    asked = [
        client.resolve(
            Query("read", {"x": np.full(2, n, np.float32)}, {"logits": np.zeros(2, np.float32)}, 0.1, 0.5)
        )
        for n in range(5)
    ]
    assert {answer.source for answer in asked} == {Source.DEFERRED}
    assert {answer.reason for answer in asked} <= {Reason.CLOUD_UNAVAILABLE, Reason.OFFLINE}
    assert not any(answer.refused for answer in asked)
    assert (client.figures().deferred, outbox.depth) == (5, 5)
    answers = _Answers()
    with drain_deferred([client], answers.take, requests_per_s=1000, first_backoff_s=0.05), serving:
        late = {each.request_id: each for each in answers.wait(5)}
    assert late.keys() == {answer.request_id for answer in asked}
    for number, answer in enumerate(asked):
        outputs = late[answer.request_id].outputs
        assert outputs is not None
        assert (late[answer.request_id].stage, outputs["logits"][0]) == ("read", 2 * number)
    # The endpoint is told which question it is, to run one that comes twice once.
    assert {header["idempotency-key"] for header in serving.peer.headers} == set(late)


def test_a_late_answer_teaches_the_policy_that_asked_once(ask: Ask, outbox: Outbox) -> None:
    class Pupil(OffloadPolicy):
        def heard(self, query: Query, outputs: Mapping[str, Any]) -> None:
            assert query.agrees is not None
            lessons.append((self.threshold, query.confidence, dict(query.inputs), query.agrees(outputs)))

    def same(outputs: Mapping[str, Any]) -> bool:
        # In the device's type, as an answer that comes in time.
        return bool(outputs["y"].dtype == np.float64)

    def other(_outputs: Mapping[str, Any]) -> bool:
        return False

    lessons: list[tuple[float | None, float | None, dict[str, Any], bool]] = []
    serving = Serving(Peer())
    serving.start()
    serving.stop()
    # Two stages may ask the same model.
    clients = [
        ask(serving.address, policy=Pupil(threshold, unanswered="defer"), outbox=outbox)
        for threshold in (0.5, 0.6)
    ]
    for client, low, confidence, is_same in ((0, 1.0, 0.1, True), (1, 2.0, 0.2, False)):
        query = Query(
            "read",
            {"x": np.full(2, low, np.float32)},
            {"y": np.zeros(2, np.float64)},
            confidence,
            agrees=same if is_same else other,
        )
        assert clients[client].resolve(query).source is Source.DEFERRED
    failed = threading.Event()
    answers = _Answers()

    def take(late: LateAnswer) -> None:
        if not failed.is_set():
            failed.set()
            raise RuntimeError
        answers.take(late)

    with drain_deferred(clients, take, requests_per_s=1000, first_backoff_s=0.05), serving:
        assert max(each.number for each in answers.wait(2)) == 2
    assert sorted(lessons) == [(0.5, 0.1, {}, True), (0.6, 0.2, {}, False)]


def test_what_is_asked_later_is_taken_off_the_budget_and_waits_while_it_is_spent(
    ask: Ask, outbox: Outbox
) -> None:
    policy = OffloadPolicy(unanswered="defer", budget=HourlyBudget(requests=3))
    answers = _Answers()
    with Serving(Peer()) as serving:
        client = ask(serving.address, policy=policy, outbox=outbox)
        assert [client.resolve(question()).source for _ in range(4)].count(Source.DEFERRED) == 1
        with pytest.raises(HybridgeError, match="request-budget") as caught:
            client.send(Request(b"", client.destination))
        assert caught.value.retry_after_s == 60
        with drain_deferred([client], answers.take, requests_per_s=1000, first_backoff_s=0.05):
            time.sleep(0.3)
        assert (outbox.depth, len(answers.all), len(serving.peer.headers)) == (1, 0, 3)
        # An hour later, as it were.
        budget = HourlyBudget(requests=3)
        other = ask(serving.address, policy=OffloadPolicy(unanswered="defer", budget=budget), outbox=outbox)
        with drain_deferred([other], answers.take, requests_per_s=1000):
            answers.wait(1)
        assert budget.left()[0] == 2


def test_what_the_cloud_refuses_is_not_deferred(ask: Ask, outbox: Outbox) -> None:
    def infer(request: Any, context: Any) -> Any:
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, "never")

    client = ask(Peer(infer=infer), policy=DEFERS, outbox=outbox, max_message_bytes=1000)
    kept = client.resolve(question())
    assert (kept.source, kept.reason, outbox.depth) == (Source.DEVICE, Reason.CLOUD_REFUSED, 0)
    large = client.resolve(question(*[0.0] * 1000))
    assert (large.source, large.reason, outbox.depth) == (Source.DEVICE, Reason.MESSAGE_TOO_LARGE, 0)
    assert client.figures().decisions == {
        (Action.KEEP, Reason.CLOUD_REFUSED): 1,
        (Action.KEEP, Reason.MESSAGE_TOO_LARGE): 1,
    }


def test_private_data_are_never_deferred(ask: Ask, outbox: Outbox) -> None:
    client = ask("127.0.0.1:1", policy=DEFERS, outbox=outbox)
    private = Query("s", {}, {"y": np.zeros(2, np.float32)}, 0.1, 0.5, private=True)
    assert (client.resolve(private).reason, outbox.depth) == (Reason.PRIVATE, 0)


@pytest.mark.parametrize("action", Action)
def test_no_policy_can_have_private_data_asked_about_or_deferred(
    ask: Ask, outbox: Outbox, action: Action
) -> None:
    class Careless(OffloadPolicy):
        def admit(self, query: Query, link: Link) -> Decision:  # noqa: ARG002
            return Decision(action, Reason.UNSURE)

    peer = Peer()
    private = Query("s", {}, {"y": np.zeros(2, np.float32)}, 0.1, 0.5, private=True)
    assert ask(peer, policy=Careless(), outbox=outbox).resolve(private).source is Source.DEVICE
    assert (outbox.depth, peer.seen) == (0, [])


def test_a_deferred_answer_may_be_refused_until_then(ask: Ask, outbox: Outbox) -> None:
    client = ask("127.0.0.1:1", policy=DEFERS, outbox=outbox)
    answer = client.resolve(question(confidence=0.01))
    assert (answer.source, answer.refused, bool(answer.request_id)) == (Source.DEFERRED, True, True)


def test_without_an_outbox_the_devices_answer_is_kept(ask: Ask) -> None:
    client = ask("127.0.0.1:1", policy=DEFERS)
    assert client.resolve(question()).source is Source.DEVICE
    refused = client.resolve(question(confidence=0.01))
    assert (refused.source, refused.refused) == (Source.DEVICE, True)


@pytest.mark.parametrize("fault", ["full", "closed", "damaged"])
def test_an_outbox_that_takes_nothing_keeps_the_devices_answer_and_says_so(
    ask: Ask, tmp_path: Path, fault: str
) -> None:
    with Outbox(tmp_path / "outbox.db", max_requests=1, max_bytes=1000) as outbox:
        client = ask("127.0.0.1:1", policy=DEFERS, outbox=outbox)
        if fault == "full":
            assert client.resolve(question()).source is Source.DEFERRED
        elif fault == "closed":
            outbox.close()
        else:
            outbox._file.connection.execute("DROP TABLE requests")
        answer = client.resolve(question())
        assert (answer.source, answer.request_id) == (Source.DEVICE, "")
        assert "not deferred: " in answer.detail
        assert client.figures().outbox_failures == 1


def test_questions_of_several_stages_share_an_outbox_and_find_their_way(ask: Ask, outbox: Outbox) -> None:
    first, second = Serving(Peer()), Serving(Peer())
    for serving in (first, second):
        serving.start()
        serving.stop()
    clients = [
        ask(serving.address, model=model, policy=DEFERS, outbox=outbox)
        for serving, model in ((first, "a"), (second, "b"), (second, "c"))
    ]
    asked = {client.resolve(question()).request_id: client.model for client in clients}
    assert all(asked)
    answers = _Answers()
    with drain_deferred(clients, answers.take, requests_per_s=1000, first_backoff_s=0.05), first, second:
        assert {late.request_id for late in answers.wait(3)} == set(asked)
    assert [request.model_name for request in first.peer.seen] == ["a"]
    assert sorted(request.model_name for request in second.peer.seen) == ["b", "c"]


def test_stages_that_ask_one_model_each_get_the_outputs_by_their_own_names(ask: Ask, outbox: Outbox) -> None:
    serving = Serving(Peer())
    serving.start()
    serving.stop()
    clients = [
        ask(serving.address, policy=DEFERS, outbox=outbox, outputs={"y": name})
        for name in ("logits", "scores")
    ]
    asked = {}
    for client, name in zip(clients, ("logits", "scores"), strict=True):
        own = {name: np.zeros(2, np.float32)}
        asked[client.resolve(Query("s", {"x": np.ones(2, np.float32)}, own, 0.1, 0.5)).request_id] = name
    answers = _Answers()
    with drain_deferred(clients, answers.take, requests_per_s=1000, first_backoff_s=0.05), serving:
        late = answers.wait(2)
    assert {each.request_id: list(each.outputs or ()) for each in late} == {
        request_id: [name] for request_id, name in asked.items()
    }


def test_a_refusal_and_a_broken_answer_are_delivered_as_such(ask: Ask, outbox: Outbox) -> None:
    def infer(request: Any, context: Any) -> Any:
        if len(peer.seen) == 1:
            context.abort(grpc.StatusCode.NOT_FOUND, "no such model")
        peer.infer = None
        response = peer.ModelInfer(request, context)
        peer.infer = infer
        response.outputs[0].datatype = "FP128"
        return response

    peer = Peer(infer=infer)
    serving = Serving(peer)
    serving.start()
    serving.stop()
    client = ask(serving.address, policy=DEFERS, outbox=outbox)
    for _ in range(2):
        assert client.resolve(question()).request_id
    answers = _Answers()
    with drain_deferred([client], answers.take, max_in_flight=1, first_backoff_s=0.05), serving:
        late = answers.wait(2)
    assert [each.outputs for each in late] == [None, None]
    assert [each.error and each.error.code for each in late] == [
        ErrorCode.MODEL_UNKNOWN,
        ErrorCode.CLOUD_REFUSED,
    ]


def test_a_drain_needs_one_outbox(ask: Ask, outbox: Outbox, tmp_path: Path) -> None:
    with Outbox(tmp_path / "another.db") as another:
        different = [ask("127.0.0.1:1", model=m, outbox=o) for m, o in (("a", outbox), ("b", another))]
        for fallbacks in ([], [ask("127.0.0.1:1")], different):
            with pytest.raises(HybridgeError) as caught:
                drain_deferred(fallbacks, print)
            assert caught.value.code is ErrorCode.USAGE


def test_an_outbox_that_is_named_twice_is_opened_once_and_closed_with_the_last(tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    first, second = (
        SharedOutbox(path, max_age_s=5.0),
        SharedOutbox(tmp_path / "." / "outbox.db", max_age_s=5.0),
    )
    assert first.outbox is second.outbox
    with pytest.raises(HybridgeError) as caught:
        SharedOutbox(path)
    assert caught.value.code is ErrorCode.USAGE
    first.release()
    first.release()
    assert not second.outbox.is_closed
    second.release()
    assert second.outbox.is_closed
    Outbox(path).close()
