"""The load generator on a real endpoint: what it counts is what happened."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from benchmarks.serving_vs_peers.comparison import make_question
from benchmarks.serving_vs_peers.load import Job, LoadGenerator
from benchmarks.serving_vs_peers.load.run import run_job
from benchmarks.serving_vs_peers.server_process import free_port
from cloud_fallback import Endpoint
from cloud_fallback.endpoint.served import TimeLeft, no_limit
from cloud_fallback.open_inference.tensors import encode_request
from edge_runtime import ErrorCode, HybridgeError
from edge_runtime.tensor_spec import Array, TensorSpec

if not os.path.exists("/proc/self/stat"):
    pytest.skip("processor time is read from /proc, which this system has not", allow_module_level=True)


class _Slow:
    """Gives its input back after a while."""

    version, platform = "1", "python"
    inputs = outputs = (TensorSpec("x", (1, "size"), "float32"),)

    def __init__(self, name: str):
        self.name = name

    def infer(self, inputs: Mapping[str, Array], *, time_left: TimeLeft = no_limit) -> dict[str, Array]:  # noqa: ARG002
        time.sleep(0.05)
        return {"x": inputs["x"]}


def slow(*, name: str | None, **_: Any) -> _Slow:
    return _Slow(name or "slow")


@pytest.fixture(scope="module")
def endpoint() -> Iterator[Endpoint]:
    models = ["benchmarks.serving_vs_peers.plus_one:plus_one", f"slow={__name__}:slow"]
    with Endpoint([f"plus-one={models[0]}", models[1]]) as endpoint:
        yield endpoint


@pytest.fixture
def make_job(endpoint: Endpoint, tmp_path: Path) -> Callable[..., Job]:
    """A short job with a request of so many bytes; the rest may be given."""

    def make(size: int = 4096, **given: Any) -> Job:
        request, expected = make_question(tmp_path, size)
        settings: dict[str, Any] = {
            "address": endpoint.address,
            "request": str(request),
            "expected": str(expected),
            "session": os.getsid(0),
            "connections": 4,
            "in_flight": 8,
            "warmup_s": 0.1,
            "seconds": 0.4,
        }
        return Job(**(settings | given))

    return make


def test_answers_are_counted_timed_and_checked(make_job: Callable[..., Job]) -> None:
    outcome = run_job(make_job())
    assert (outcome.failed, outcome.unanswered, outcome.wrong) == ({}, 0, 0)
    assert outcome.checked >= 1
    assert outcome.answered == outcome.in_time == round(outcome.per_second * outcome.seconds) > 20
    assert 0 < outcome.p50_ms <= outcome.p99_ms < 400
    # This process is both; the server's time is counted in ticks of the system's clock.
    assert outcome.server_us > 0.7 * outcome.generator_us > 0


@pytest.mark.parametrize("connections", [1, 3])
def test_messages_larger_than_every_window_arrive_whole(
    make_job: Callable[..., Job], connections: int
) -> None:
    outcome = run_job(make_job(5_000_000, connections=connections, in_flight=3, seconds=0.8))
    assert (outcome.failed, outcome.wrong) == ({}, 0)
    assert outcome.checked >= 1


def test_wrong_answers_are_found(make_job: Callable[..., Job], tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_bytes(bytes(4096))
    outcome = run_job(make_job(expected=str(other)))
    assert outcome.wrong == outcome.checked >= 1


def test_refusals_are_counted_by_their_status(make_job: Callable[..., Job], tmp_path: Path) -> None:
    unknown = tmp_path / "unknown"
    unknown.write_bytes(encode_request("none", {"x": np.zeros((1, 4), np.float32)}).SerializeToString())
    outcome = run_job(make_job(request=str(unknown)))
    assert outcome.answered == outcome.checked == 0
    assert set(outcome.failed) == {"NOT_FOUND"}
    assert outcome.p99_ms == 0


def test_calls_at_a_rate_begin_when_they_are_due_and_late_ones_are_told_apart(
    make_job: Callable[..., Job], tmp_path: Path
) -> None:
    x = np.ones((1, 4), np.float32)
    request, expected = tmp_path / "slow", tmp_path / "slow.expected"
    request.write_bytes(encode_request("slow", {"x": x}).SerializeToString())
    expected.write_bytes(x.tobytes())
    job = make_job(request=str(request), expected=str(expected), in_flight=0, rate=100.0, seconds=1.0)
    relaxed = run_job(job)
    assert relaxed.failed == {}
    assert relaxed.wrong == 0
    # Of a Poisson process; with this seed it is always the same number, but for the ends.
    assert 70 < relaxed.answered < 130
    hurried = run_job(msgspec.structs.replace(job, deadline_s=0.01))
    assert hurried.in_time == 0
    assert set(hurried.failed) <= {"DEADLINE_EXCEEDED", "RST_STREAM"}
    assert hurried.answered + sum(hurried.failed.values()) == pytest.approx(relaxed.answered, abs=3)


def test_nothing_listens(make_job: Callable[..., Job]) -> None:
    with pytest.raises(HybridgeError) as caught:
        run_job(make_job(address=f"127.0.0.1:{free_port()}"))
    assert caught.value.code is ErrorCode.CLOUD_UNAVAILABLE


def test_a_server_that_hangs_up_is_an_error_and_the_generator_goes_on(make_job: Callable[..., Job]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, LoadGenerator() as generator:

        def hang_up() -> None:
            for _ in range(4):
                listener.accept()[0].close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        with pytest.raises(HybridgeError) as caught:
            generator.run(make_job(address=f"127.0.0.1:{listener.getsockname()[1]}"))
        thread.join()
        assert caught.value.code is ErrorCode.CLOUD_UNAVAILABLE
        assert generator.run(make_job()).failed == {}
