"""More calls than there is room for, and an endpoint that is told to stop in the midst of them."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from cloud_fallback import EndpointProcess
from cloud_fallback.open_inference.open_inference_pb2 import ModelInferResponse
from cloud_fallback.open_inference.open_inference_pb2_grpc import GRPCInferenceServiceStub
from cloud_fallback.open_inference.statuses import CODE_KEY, PUSHBACK_KEY
from cloud_fallback.open_inference.tensors import decode_response, encode_request
from tests.cloud_fallback.faults.attacked import Attacked, until
from tests.cloud_fallback.faults.fault_table import FaultTable
from tests.cloud_fallback.faults.http2 import INFER
from tests.cloud_fallback.faults.recording_model import RUNS, make, runs
from tests.cloud_fallback.onnx_models import LINEAR_WEIGHTS

OK, EXHAUSTED, UNAVAILABLE = (
    grpc.StatusCode.OK,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.UNAVAILABLE,
)
Start = Callable[..., EndpointProcess]


@pytest.mark.parametrize("count", [2_000, pytest.param(10_000, marks=pytest.mark.heavy)])
def test_thousands_of_requests_at_once_are_each_answered_or_told_when_to_come_again(
    attacked: Attacked, fault_table: FaultTable, count: int
) -> None:
    infer = attacked.own_channel().unary_unary(INFER)
    inputs = [np.full((1, 3), number, np.float32) for number in range(count)]
    requests = [encode_request("linear", {"x": x}).SerializeToString() for x in inputs]
    start = time.monotonic()
    with attacked.memory() as memory:
        calls = [infer.future(request, timeout=60) for request in requests]
        statuses = Counter(call.code() for call in calls)
        seconds = time.monotonic() - start
        waited = attacked.answers(30)
    assert set(statuses) <= {OK, EXHAUSTED}, statuses
    assert statuses[OK] > count / 10
    for x, call in zip(inputs, calls, strict=True):
        if call.code() is OK:
            y = decode_response(ModelInferResponse.FromString(call.result()))["y"]
            np.testing.assert_array_equal(y, x @ LINEAR_WEIGHTS)
        else:
            trailing = dict(call.trailing_metadata())
            assert trailing[CODE_KEY] == "cloud-overloaded"
            assert int(trailing[PUSHBACK_KEY]) > 0
    assert seconds < 60
    assert memory.grew < 400
    until(lambda: attacked.memory_mb() < memory.before + 200, 10)
    fault_table(
        f"{count:,} requests at once",
        f"{statuses[OK]:,} answered and {statuses[EXHAUSTED]:,} told when to come again, in {seconds:.1f} s; "
        f"the next was answered in {waited * 1e3:.0f} ms",
    )


@pytest.fixture
def recording(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Start, Path]]:
    """Starts an endpoint whose model notes its runs, and the file that it notes them in."""
    path = tmp_path / "runs"
    monkeypatch.setenv(RUNS, str(path))
    started: list[EndpointProcess] = []

    def start(*arguments: str) -> EndpointProcess:
        started.append(EndpointProcess([f"{make.__module__}:make"], arguments=arguments))
        return started[-1]

    yield start, path
    for process in started:
        process.kill()


def _request(seconds: float) -> Any:
    return encode_request("recording", {"seconds": np.array([seconds], np.float32)})


def test_an_endpoint_told_to_stop_under_load_answers_every_request_that_it_took(
    recording: tuple[Start, Path], fault_table: FaultTable
) -> None:
    start, path = recording
    process = start()
    statuses: Counter[grpc.StatusCode] = Counter()
    lock, is_over = threading.Lock(), threading.Event()

    def ask() -> None:
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]
        with grpc.insecure_channel(process.address, options) as channel:
            stub = GRPCInferenceServiceStub(channel)
            while not is_over.is_set():
                status = stub.ModelInfer.future(_request(0.005), timeout=30).code()
                with lock:
                    statuses[status] += 1
                if status is UNAVAILABLE:
                    return

    threads = [threading.Thread(target=ask) for _ in range(32)]
    for thread in threads:
        thread.start()
    until(lambda: runs(path) > 50, 20)
    os.kill(process.pid, signal.SIGTERM)
    assert process._process.wait(20) == 0
    is_over.set()
    for thread in threads:
        thread.join(30)
    # Whoever was refused is told to go elsewhere, and the model has not run for it.
    # gRPC ends as CANCELLED what had come and was not looked at yet.
    assert {OK, UNAVAILABLE} <= set(statuses) <= {OK, UNAVAILABLE, grpc.StatusCode.CANCELLED}, statuses
    assert statuses[OK] == runs(path)
    fault_table(
        "SIGTERM while 32 clients ask without pause",
        f"all {statuses[OK]} requests that were taken were answered, others refused as UNAVAILABLE, exit code 0",
    )


@pytest.mark.heavy
def test_requests_that_nobody_waits_for_any_more_are_not_run(
    recording: tuple[Start, Path], fault_table: FaultTable
) -> None:
    start, path = recording
    process = start()
    with grpc.insecure_channel(process.address) as channel:
        stub = GRPCInferenceServiceStub(channel)
        long = [stub.ModelInfer.future(_request(0.6)) for _ in range(2)]
        until(lambda: runs(path) == 2, 10)
        late = [stub.ModelInfer.future(_request(0.1), timeout=0.2) for _ in range(40)]
        left = [stub.ModelInfer.future(_request(0.1)) for _ in range(40)]
        time.sleep(0.1)
        for call in left:
            call.cancel()
        # Or refused at once, where it can be seen that they would be late.
        assert {call.code() for call in late} <= {grpc.StatusCode.DEADLINE_EXCEEDED, EXHAUSTED}
        assert {call.code() for call in long} == {OK}
        assert stub.ModelInfer(_request(0.001), timeout=10).model_name == "recording"
    assert runs(path) == 3
    fault_table(
        "80 requests whose deadline passes, or whose caller leaves, while they wait",
        "the model ran for none of them",
    )
