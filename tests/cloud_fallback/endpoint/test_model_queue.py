"""Turns, batches, limits and deadlines of the queue in front of a model."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any

import numpy as np
import pytest

from cloud_fallback.endpoint.served import Batching, ModelQueue, no_limit
from cloud_fallback.endpoint.served.turn import Turn
from edge_runtime import ErrorCode, HybridgeError

Array = np.ndarray[Any, Any]


@pytest.fixture(autouse=True, params=["infer", "begin"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Whether callers wait, or are called; what becomes of their requests is the same."""
    monkeypatch.setattr(Gated, "begins", request.param == "begin")
    return str(request.param)


class Gated:
    """A model that doubles its input, notes the rows of each run, and runs only when it is let."""

    begins = False

    def __init__(self, *, runners: int = 1, open_: bool = False, seconds: float = 0.0, **batching: Any):
        self.seconds = seconds
        self.rows: list[int] = []
        self.running = threading.Semaphore(0)
        self.gate = threading.Semaphore(10**6 if open_ else 0)
        self.queue = ModelQueue(
            "double", [self] * runners, type(self).run, batching=Batching(**batching), batchable=True
        )
        # As after the first batch, which is held against one of its requests alone.
        self.queue._is_tried = True
        self.pool = ThreadPoolExecutor(32)

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        self.running.release()
        assert self.gate.acquire(timeout=10)
        time.sleep(self.seconds)
        x = inputs["x"]
        self.rows.append(len(x))
        if (x < 0).any():
            raise HybridgeError(ErrorCode.INPUT_INVALID, "less than nothing")
        return {"y": 2 * x}

    def ask(
        self, *values: float, time_left: Callable[[], float | None] = no_limit, width: int = 1
    ) -> Future[dict[str, Array]]:
        x = np.repeat(np.array(values, np.float32)[:, None], width, axis=1)
        if not self.begins:
            return self.pool.submit(self.queue.infer, {"x": x}, time_left)
        return self._begun(x, time_left)

    def answer(self, x: Array, time_left: Callable[[], float | None]) -> Array:
        """The answer to one request, in the calling thread where it waits."""
        if not self.begins:
            return self.queue.infer({"x": x}, time_left)["y"]
        return self._begun(x, time_left).result(30)["y"]

    def _begun(self, x: Array, time_left: Callable[[], float | None]) -> Future[dict[str, Array]]:
        future: Future[dict[str, Array]] = Future()

        def then(outcome: dict[str, Array] | BaseException, turn: Turn | None) -> None:
            if isinstance(outcome, BaseException):
                future.set_exception(outcome)
            else:
                assert turn is not None
                future.set_result(outcome)

        try:
            self.queue.begin({"x": x}, time_left, then)
        except HybridgeError as error:
            future.set_exception(error)
        return future

    def hold(self) -> Future[dict[str, Array]]:
        """A run that is under way until the gate opens."""
        first = self.ask(0.0)
        assert self.running.acquire(timeout=10)
        return first

    def wait_for(self, waiting: int) -> None:
        give_up = time.monotonic() + 10
        while self.queue.figures().waiting != waiting:
            assert time.monotonic() < give_up
            time.sleep(0.001)

    def open(self, runs: int = 1000) -> None:
        self.gate.release(runs)


def _code(future: Future[Any]) -> ErrorCode:
    error = future.exception(10)
    assert isinstance(error, HybridgeError)
    return error.code


def test_each_gets_its_own_answer_from_a_run_together() -> None:
    model = Gated(max_batch_size=8)
    first = model.hold()
    futures = [model.ask(float(n), float(n) + 0.5) for n in range(1, 4)]
    model.wait_for(3)
    model.open()
    for n, future in enumerate(futures, 1):
        np.testing.assert_array_equal(future.result(10)["y"], [[2 * n], [2 * n + 1]])
    assert first.result(10)["y"] == 0
    assert model.rows == [1, 6]


def test_a_run_takes_no_more_rows_than_it_may_and_leaves_none_behind() -> None:
    model = Gated(max_batch_size=4)
    first = model.hold()
    futures = [model.ask(*[1.0] * rows) for rows in (3, 2, 2, 1, 4, 5)]
    model.wait_for(6)
    model.open()
    for future in (first, *futures):
        future.result(10)
    assert max(model.rows[1:]) == 5  # one request is never cut in two
    assert sum(model.rows) == 18
    assert sorted(model.rows)[-2] <= 4


def test_inputs_of_other_shapes_run_apart() -> None:
    model = Gated(max_batch_size=8)
    model.hold()
    futures = [model.ask(1.0, width=width) for width in (2, 3, 2, 3)]
    model.wait_for(4)
    model.open()
    for future, width in zip(futures, (2, 3, 2, 3), strict=True):
        assert future.result(10)["y"].shape == (1, width)
    assert model.rows == [1, 2, 2]


def test_one_bad_request_fails_alone() -> None:
    model = Gated(max_batch_size=8)
    model.hold()
    futures = [model.ask(value) for value in (1.0, -1.0, 2.0)]
    model.wait_for(3)
    model.open()
    assert [futures[0].result(10)["y"].item(), futures[2].result(10)["y"].item()] == [2.0, 4.0]
    assert _code(futures[1]) is ErrorCode.INPUT_INVALID


def test_a_preferred_size_begins_at_once_and_others_wait_for_more() -> None:
    model = Gated(open_=True, max_batch_size=8, preferred_batch_sizes=(4,), queue_delay_ms=60_000)
    futures = [model.ask(float(n)) for n in range(4)]
    for n, future in enumerate(futures):
        assert future.result(10)["y"].item() == 2 * n
    assert model.rows == [4]


def test_the_delay_ends_a_wait_for_more() -> None:
    model = Gated(open_=True, max_batch_size=8, queue_delay_ms=50)
    start = time.perf_counter()
    model.ask(1.0).result(10)
    assert 0.045 < time.perf_counter() - start < 5
    assert model.rows == [1]


def test_the_largest_preferred_size_that_is_there_is_taken() -> None:
    model = Gated(max_batch_size=8, preferred_batch_sizes=(2, 4))
    model.hold()
    futures = [model.ask(float(n)) for n in range(7)]
    model.wait_for(7)
    model.open()
    for future in futures:
        future.result(10)
    assert model.rows == [1, 4, 2, 1]


def test_too_many_are_refused_with_a_time_to_come_back_after() -> None:
    model = Gated(max_waiting=2)
    model.hold()
    waiting = [model.ask(1.0) for _ in range(2)]
    model.wait_for(2)
    refused = model.ask(1.0).exception(10)
    assert isinstance(refused, HybridgeError)
    assert refused.code is ErrorCode.CLOUD_OVERLOADED
    assert refused.retry_after_s is not None
    assert 0 < refused.retry_after_s < 1
    model.open()
    for future in waiting:
        future.result(10)
    assert model.queue.figures().shed == 1


def test_what_would_come_too_late_is_refused_at_once() -> None:
    model = Gated(open_=True, seconds=0.03)
    for _ in range(5):
        model.ask(1.0).result(10)
    model.gate = threading.Semaphore(0)
    model.hold()
    waiting = [model.ask(1.0) for _ in range(5)]
    model.wait_for(5)
    start = time.perf_counter()
    assert _code(model.ask(1.0, time_left=lambda: 0.1)) is ErrorCode.CLOUD_OVERLOADED
    assert time.perf_counter() - start < 0.09
    patient = model.ask(1.0, time_left=lambda: 10.0)
    model.wait_for(6)
    model.open()
    for future in (*waiting, patient):
        future.result(10)
    assert model.queue.figures().shed == 1


def test_what_nobody_waits_for_is_not_run(way: str) -> None:
    model = Gated(max_batch_size=4)
    model.hold()
    alive = [True]
    end = time.monotonic() + 0.2
    late = model.ask(1.0, time_left=lambda: end - time.monotonic())
    gone = model.ask(2.0, time_left=lambda: None if alive[0] else 0.0)
    kept = model.ask(3.0)
    if way == "infer":
        assert _code(late) is ErrorCode.CLOUD_DEADLINE
        model.wait_for(2)
    else:
        # Nobody waits to hear of it.
        time.sleep(0.25)
    alive[0] = False
    model.open()
    assert _code(late) is ErrorCode.CLOUD_DEADLINE
    assert _code(gone) is ErrorCode.CLOUD_DEADLINE
    assert kept.result(10)["y"].item() == 6.0
    assert sum(model.rows) == 2
    figures = model.queue.figures()
    assert (figures.expired, figures.answered, figures.waiting, figures.running) == (2, 2, 0, 0)


def test_requests_are_answered_in_the_order_they_came() -> None:
    model = Gated()
    model.hold()
    order: list[int] = []
    futures = []
    for n in range(6):
        future = model.ask(float(n))
        future.add_done_callback(lambda _, n=n: order.append(n))  # type: ignore[misc]
        futures.append(future)
        model.wait_for(n + 1)
    for _ in range(7):
        model.open(1)
        time.sleep(0.01)
    for future in futures:
        future.result(10)
    assert order == sorted(order)


@pytest.mark.parametrize("runners", [1, 3])
def test_nothing_is_lost_or_mixed_up_when_many_come_and_go_at_once(runners: int) -> None:
    model = Gated(open_=True, runners=runners, max_batch_size=8, queue_delay_ms=1, max_waiting=16)
    rng = np.random.default_rng(0)
    lefts = rng.choice([0.0005, 0.002, 10.0], 3000).tolist()

    def one(index: int) -> str:
        deadline = time.monotonic() + lefts[index]
        x = np.full((1 + index % 3, 1), index, np.float32)
        try:
            y = model.answer(x, lambda: deadline - time.monotonic())
        except HybridgeError as error:
            time.sleep(error.retry_after_s or 0.0)
            return str(error.code)
        assert y.shape == x.shape
        assert (y == 2 * index).all()
        return "answered"

    with ThreadPoolExecutor(24) as pool:
        outcomes = list(pool.map(one, range(3000), timeout=60))
    counts = {outcome: outcomes.count(outcome) for outcome in set(outcomes)}
    assert counts.keys() <= {"answered", "cloud-deadline", "cloud-overloaded"}
    assert counts["answered"] > 300
    assert model.queue.is_idle()
    assert model.queue.figures().shed == counts.get("cloud-overloaded", 0)


@pytest.mark.parametrize(
    ("run", "complaint"),
    [
        (lambda x: x - x.mean(axis=0), "mixes the rows"),
        (lambda x: x.shape[0] * np.ones(x.shape, np.int64), "mixes the rows"),
        (lambda x: np.full(x.shape, b"x" * len(x), object), "mixes the rows"),
        (lambda x: x[:1], "gives other rows"),
        (lambda x: np.repeat(x, 2, axis=0), "gives other rows"),
        (lambda x: x.sum(), "gives other rows"),
    ],
)
def test_a_model_whose_rows_depend_on_each_other_runs_each_request_alone(
    run: Callable[[Array], Array], complaint: str, caplog: pytest.LogCaptureFixture
) -> None:
    model = Gated(open_=True, max_batch_size=8, queue_delay_ms=30)
    model.queue._is_tried = False
    model.queue._run = lambda _, inputs: {"y": np.asarray(run(inputs["x"]))}
    for _ in range(2):
        futures = [model.ask(float(n), float(n + 2)) for n in range(4)]
        for n, future in enumerate(futures):
            expected = run(np.array([[n], [n + 2]], np.float32))
            np.testing.assert_array_equal(future.result(10)["y"], expected)
    assert caplog.text.count(complaint) == 1


def test_what_nobody_waits_for_makes_room_for_others(way: str) -> None:
    model = Gated(max_waiting=4)
    model.hold()
    end = time.monotonic() + 0.1
    late = [model.ask(1.0, time_left=lambda: end - time.monotonic()) for _ in range(4)]
    if way == "begin":
        model.wait_for(4)
    time.sleep(0.15)
    kept = model.ask(2.0)
    assert [_code(each) for each in late] == [ErrorCode.CLOUD_DEADLINE] * 4
    model.open()
    assert kept.result(10)["y"].item() == 4.0
    assert (model.queue.figures().expired, model.queue.figures().shed) == (4, 0)


def test_threads_that_wait_are_fewer_than_requests_may_be(way: str) -> None:
    model = Gated(max_waiting=100)
    model.pool = ThreadPoolExecutor(64)
    model.hold()
    waiting = [model.ask(1.0) for _ in range(48)]
    model.wait_for(48)
    over = [model.ask(2.0) for _ in range(4)]
    if way == "infer":
        assert [_code(each) for each in over] == [ErrorCode.CLOUD_OVERLOADED] * 4
        over = []
    model.open()
    assert [each.result(10)["y"].item() for each in (*waiting, *over)] == [2.0] * 48 + [4.0] * len(over)


def test_a_caller_that_fails_costs_nobody_else_an_answer(caplog: pytest.LogCaptureFixture) -> None:
    model = Gated(open_=True, max_batch_size=4)

    def then(outcome: object, turn: object) -> None:
        raise KeyError("in then")

    model.queue.begin({"x": np.ones((1, 1), np.float32)}, no_limit, then)
    assert model.ask(3.0).result(10)["y"].item() == 6.0
    _until(model.queue.is_idle)
    assert "KeyError: 'in then'" in caplog.text


def test_what_does_not_fit_beside_others_does_not_wait_while_an_instance_is_free() -> None:
    model = Gated(runners=2, max_batch_size=4, queue_delay_ms=200)
    first = model.ask(1.0, 1.0, 1.0)
    _until(lambda: model.queue._wanted is not None)
    more = model.ask(2.0, 2.0)
    model.wait_for(1)
    for _ in range(2):
        assert model.running.acquire(timeout=10)
    assert model.queue.figures().running == 2
    model.open()
    assert len(first.result(10)["y"]) == 3
    assert len(more.result(10)["y"]) == 2
    assert sorted(model.rows) == [2, 3]


def test_a_run_that_gives_nothing_costs_no_instance(way: str) -> None:
    queue: ModelQueue[str] = ModelQueue("nothing", ["instance"], lambda *_: None)  # type: ignore[arg-type]
    outcomes: SimpleQueue[object] = SimpleQueue()
    for _ in range(3):
        if way == "begin":
            queue.begin({}, no_limit, lambda outcome, _: outcomes.put(outcome))
        else:
            outcomes.put(queue.infer({}, no_limit))
    assert [outcomes.get(timeout=10) for _ in range(3)] == [None] * 3
    _until(queue.is_idle)


def test_a_turn_can_be_taken_without_a_run() -> None:
    queue: ModelQueue[str] = ModelQueue("own", ["instance"])
    with queue.take(no_limit) as instance:
        assert instance == "instance"
        start = time.monotonic()
        with pytest.raises(HybridgeError) as caught, queue.take(lambda: start + 0.05 - time.monotonic()):
            raise AssertionError("two turns at one instance")
        assert caught.value.code in (ErrorCode.CLOUD_DEADLINE, ErrorCode.CLOUD_OVERLOADED)
    with pytest.raises(ValueError, match="own"), queue.take(no_limit):
        raise ValueError("own")
    with queue.take(no_limit):
        assert queue.figures().running == 1
    assert queue.is_idle()


def _until(condition: Callable[[], bool]) -> None:
    give_up = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.001)
