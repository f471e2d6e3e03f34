"""An endpoint is the queue that plans are made for: real calls that arrive at random, over a real socket."""

from __future__ import annotations

import heapq
import time
from collections.abc import Mapping
from typing import Any

import grpc
import numpy as np
import pytest

from cloud_fallback import Endpoint, Repository
from cloud_fallback.open_inference.open_inference_pb2_grpc import GRPCInferenceServiceStub
from cloud_fallback.open_inference.tensors import encode_request
from edge_runtime import TensorSpec

Array = np.ndarray[Any, Any]

WORKERS = 2
CALLS = 400
MEAN_S = 0.040


class Busy:
    """A model that takes a worker as long as a request says, and no core: the machine would be measured otherwise."""

    name, version, platform = "busy", "1", "test_busy"
    inputs = outputs = (TensorSpec("call", (2,), "float32"),)

    def __init__(self) -> None:
        self.took = np.zeros(CALLS)

    def infer(self, inputs: Mapping[str, Array], **_: Any) -> dict[str, Array]:
        start = time.perf_counter()
        index, seconds = inputs["call"].tolist()
        time.sleep(seconds)
        self.took[int(index)] = time.perf_counter() - start
        return dict(inputs)


@pytest.mark.heavy
def test_requests_wait_in_one_line_for_the_workers_and_for_nothing_else() -> None:
    model = Busy()
    sent, done = _play(model, np.random.default_rng(3))
    # The same arrivals and times, played as the model of a queue has them.
    free, expected = [0.0] * WORKERS, np.empty(CALLS)
    for index, (arrival, took) in enumerate(zip(sent.tolist(), model.took.tolist(), strict=True)):
        expected[index] = max(arrival, free[0]) + took
        heapq.heapreplace(free, expected[index])
    waits = expected - sent - model.took
    assert np.quantile(waits, 0.9) > MEAN_S, "hardly anything waited, so that this would say nothing"
    # What the wire and the threads add; a plan counts it to the network.
    assert np.median(done - expected) < MEAN_S / 2
    assert np.mean(done - sent) == pytest.approx(np.mean(expected - sent), rel=0.3)


def _play(model: Busy, random: np.random.Generator) -> tuple[Array, Array]:
    """When each call was sent and answered, of calls that do not wait for each other's answers."""
    gaps = random.exponential(MEAN_S / WORKERS / 0.75, CALLS)
    seconds = random.gamma(4.0, MEAN_S / 4, CALLS)
    sent, done = np.zeros(CALLS), np.zeros(CALLS)
    with (
        Endpoint(Repository([model]), max_workers=WORKERS) as endpoint,
        grpc.insecure_channel(endpoint.address) as channel,
    ):
        infer = GRPCInferenceServiceStub(channel).ModelInfer
        infer(encode_request("busy", {"call": np.zeros(2, np.float32)}))
        calls, due = [], time.perf_counter()
        for index in range(CALLS):
            request = encode_request("busy", {"call": np.array([index, seconds[index]], np.float32)})
            due += gaps[index]
            time.sleep(max(0.0, due - time.perf_counter()))
            sent[index] = time.perf_counter()
            call = infer.future(request, timeout=30)

            def answered(_: object, index: int = index) -> None:
                done[index] = time.perf_counter()

            call.add_done_callback(answered)
            calls.append(call)
        for call in calls:
            call.result()
        # A call's result may be there before its callback has run.
        until = time.monotonic() + 5
        while not done.all() and time.monotonic() < until:
            time.sleep(0.01)
    return sent, done
