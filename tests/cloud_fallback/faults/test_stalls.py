"""Who is slow and who stalls: the first is waited for, the second holds nothing for long."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from cloud_fallback import Endpoint, Repository
from cloud_fallback.endpoint.rpc import call_server
from cloud_fallback.endpoint.rpc.ended_calls import Stall
from cloud_fallback.endpoint.served.onnx_model import OnnxModel
from cloud_fallback.open_inference.open_inference_pb2 import ServerLiveRequest
from cloud_fallback.open_inference.open_inference_pb2_grpc import GRPCInferenceServiceStub
from cloud_fallback.open_inference.tensors import encode_request
from tests.cloud_fallback.faults.attacked import X, until
from tests.cloud_fallback.faults.fault_table import FaultTable
from tests.cloud_fallback.faults.http2 import DATA, END_STREAM, RawConnection, frame, grpc_message

Array = np.ndarray[Any, Any]
OK = grpc.StatusCode.OK


@pytest.fixture
def endpoint(onnx_models: Path) -> Iterator[Endpoint]:
    repository = Repository.load([onnx_models / "linear.onnx", onnx_models / "ones.onnx"])
    with Endpoint(repository, max_workers=4, max_message_bytes=2**20) as endpoint:
        yield endpoint


@pytest.fixture
def stub(endpoint: Endpoint) -> Iterator[GRPCInferenceServiceStub]:
    with grpc.insecure_channel(endpoint.address) as channel:
        yield GRPCInferenceServiceStub(channel)


def _is_answered(stub: GRPCInferenceServiceStub) -> bool:
    return stub.ModelInfer.future(encode_request("linear", {"x": X}), timeout=10).code() is OK


def test_a_message_that_comes_slowly_is_waited_for_while_it_holds_nobody_up(
    endpoint: Endpoint, stub: GRPCInferenceServiceStub, fault_table: FaultTable
) -> None:
    message = grpc_message(encode_request("linear", {"x": X}).SerializeToString())
    with RawConnection(endpoint.address) as slow:
        slow.call(1, None)
        for byte in message[:-1]:
            slow.send(frame(DATA, 0, 1, bytes((byte,))))
            time.sleep(0.01)
        assert _is_answered(stub)
        slow.send(frame(DATA, END_STREAM, 1, message[-1:]))
        assert b"grpc-status\x010" in slow.read(10, b"grpc-status")
    assert endpoint.calls.ended.counts() == {}
    fault_table("a client that sends its request byte by byte", "answered, as were others meanwhile")


def _stall(endpoint: Endpoint, count: int, *, source: str) -> list[RawConnection]:
    """Calls of which nearly all of a message comes, and then nothing."""
    stalled = []
    for _ in range(count):
        stalled.append(RawConnection(endpoint.address, source=source))
        stalled[-1].call(1, None)
        stalled[-1].data_as_allowed(1, grpc_message(bytes(2**17), size=2**19), 0.2)
    return stalled


def test_no_more_messages_come_at_once_than_memory_holds_and_each_host_has_its_share(
    onnx_models: Path, monkeypatch: pytest.MonkeyPatch, fault_table: FaultTable
) -> None:
    monkeypatch.setattr(call_server, "memory_limit", lambda: 64 * 2**20)
    repository = Repository.load([onnx_models / "linear.onnx"])
    with (
        Endpoint(repository, max_message_bytes=2**20) as endpoint,
        grpc.insecure_channel(endpoint.address) as channel,
    ):
        stub = GRPCInferenceServiceStub(channel)
        assert _is_answered(stub)
        stalled = _stall(endpoint, 20, source="127.0.0.2")
        until(lambda: endpoint.calls.coming.received_now == 16, 5)
        start = time.monotonic()
        assert _is_answered(stub)
        # It takes the place of a call of the host that has more than its share.
        beside = time.monotonic() - start
        assert beside < 1
        assert set(endpoint.calls.ended.counts()) == {Stall.ROOM}
        for each in stalled:
            each.close()
        until(lambda: endpoint.calls.coming.received_now == 0, 5)
        stalled = _stall(endpoint, 20, source="127.0.0.1")
        start = time.monotonic()
        assert _is_answered(stub)
        waited = time.monotonic() - start
        assert waited < 8
        assert endpoint.calls.coming.received_now <= 16
        for each in stalled:
            each.close()
        until(lambda: endpoint.calls.coming.received_now == 0, 10)
    fault_table(
        "more large messages on their way than memory holds, and none of them goes on",
        f"a call of another address was answered after {beside:.1f} s, one of the same after {waited:.1f} s",
    )


def test_a_message_that_never_comes_is_given_up(endpoint: Endpoint, stub: GRPCInferenceServiceStub) -> None:
    endpoint.calls.patience_s = 0.3
    with RawConnection(endpoint.address) as stalled:
        stalled.call(1, None)
        stalled.data(1, grpc_message(b"abc", size=100))
        until(lambda: endpoint.calls.ended.counts() == {Stall.MESSAGE: 1}, 5)
    assert _is_answered(stub)


def test_an_answer_that_is_never_taken_is_given_up(
    endpoint: Endpoint, stub: GRPCInferenceServiceStub
) -> None:
    endpoint.calls.patience_s = 0.3
    request = encode_request("ones", {"shape": np.array([10_000])}).SerializeToString()
    no_window = (4).to_bytes(2, "big") + (0).to_bytes(4, "big")
    with RawConnection(endpoint.address, settings=no_window) as stalled:
        stalled.call(1, grpc_message(request))
        # Patience, and a second more for each kilobyte; so a small answer is the first to go.
        stalled.call(3, grpc_message(encode_request("linear", {"x": X}).SerializeToString()))
        until(lambda: endpoint.calls.ended.counts() == {Stall.ANSWER: 1}, 5)
        assert next(iter(endpoint.calls.unsent._answers.values()))[1] > 40_000
    until(lambda: not len(endpoint.calls.unsent), 5)
    assert endpoint.calls.unsent._bytes == 0
    assert _is_answered(stub)


def test_it_is_told_whether_it_lives_while_all_threads_are_busy(
    onnx_models: Path, busy: Callable[[float], dict[str, Array]], fault_table: FaultTable
) -> None:
    model = OnnxModel(onnx_models / "busy.onnx", instances=1)
    with (
        Endpoint(Repository([model]), max_workers=2, max_waiting=2) as endpoint,
        grpc.insecure_channel(endpoint.address) as channel,
    ):
        stub, health = GRPCInferenceServiceStub(channel), health_pb2_grpc.HealthStub(channel)
        calls = [stub.ModelInfer.future(encode_request("busy", busy(0.15))) for _ in range(8)]
        time.sleep(0.1)
        start = time.monotonic()
        check = health.Check(health_pb2.HealthCheckRequest(), timeout=10)
        assert check.status == health_pb2.HealthCheckResponse.SERVING
        assert stub.ServerLive(ServerLiveRequest(), timeout=10).live
        waited = time.monotonic() - start
        assert not all(call.done() for call in calls)
        statuses = [call.code() for call in calls]
    assert statuses.count(OK) >= 3
    assert set(statuses) == {OK, grpc.StatusCode.RESOURCE_EXHAUSTED}
    fault_table("all threads busy, and as many calls waiting as may", f"health told in {waited * 1e3:.0f} ms")


def test_streams_that_stay_open_hold_up_nobody_else(
    endpoint: Endpoint, stub: GRPCInferenceServiceStub
) -> None:
    is_over = threading.Event()

    def never() -> Iterator[Any]:
        is_over.wait(60)
        yield from ()

    with grpc.insecure_channel(endpoint.address) as channel:
        reflection = reflection_pb2_grpc.ServerReflectionStub(channel)
        idle = [reflection.ServerReflectionInfo(never()) for _ in range(4)]
        watches = [
            health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest()) for _ in range(50)
        ]
        for watch in watches:
            assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
        assert _is_answered(stub)
        listed = reflection.ServerReflectionInfo(
            iter([reflection_pb2.ServerReflectionRequest(list_services="")]), timeout=20
        )
        assert next(listed).list_services_response.service
        for each in (*idle, *watches):
            each.cancel()
        is_over.set()


def test_who_watches_its_health_and_does_not_read_stops_nobody(
    onnx_models: Path, fault_table: FaultTable
) -> None:
    endpoint = Endpoint([onnx_models / "linear.onnx"]).start()
    no_window = (4).to_bytes(2, "big") + (0).to_bytes(4, "big")
    with (
        grpc.insecure_channel(endpoint.address) as channel,
        RawConnection(endpoint.address, settings=no_window) as silent,
    ):
        for number in range(20):
            silent.call(2 * number + 1, grpc_message(b""), path="/grpc.health.v1.Health/Watch")
        time.sleep(0.2)
        check = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=5)
        assert check.status == health_pb2.HealthCheckResponse.SERVING
        start = time.monotonic()
        endpoint.stop(0.3)
        seconds = time.monotonic() - start
    assert seconds < 5
    fault_table(
        "a client that watches the endpoint's health and reads nothing",
        f"others were told of it; the endpoint stopped when it was told to, in {seconds:.1f} s",
    )


def test_an_open_stream_does_not_keep_an_endpoint_from_stopping(onnx_models: Path) -> None:
    endpoint = Endpoint([onnx_models / "linear.onnx"]).start()
    with grpc.insecure_channel(endpoint.address) as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        told: list[int] = []

        def follow() -> None:
            with suppress(grpc.RpcError):
                told.extend(answer.status for answer in watch)

        follower = threading.Thread(target=follow)
        follower.start()
        until(lambda: len(told) == 1, 5)
        start = time.monotonic()
        endpoint.stop(20.0)
        assert time.monotonic() - start < 5
        follower.join(5)
    status = health_pb2.HealthCheckResponse
    assert told == [status.SERVING, status.NOT_SERVING]


def test_an_endpoint_that_stops_ends_its_threads_and_streams(onnx_models: Path) -> None:
    endpoint = Endpoint([onnx_models / "linear.onnx"]).start()
    with grpc.insecure_channel(endpoint.address) as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
        with RawConnection(endpoint.address) as stalled:
            stalled.call(1, None)
            stalled.data(1, grpc_message(b"abc", size=100))
            until(lambda: endpoint.calls.coming.received_now == 1, 5)
            start = time.monotonic()
            endpoint.stop(0.3)
            assert time.monotonic() - start < 5
    assert not endpoint.calls._unary._both[0].is_alive()
