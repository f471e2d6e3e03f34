"""The client over real sockets: right answers, and the device's own with the reason whenever there is none."""

from __future__ import annotations

import math
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from cloud_fallback import CloudFallback, Endpoint, OffloadPolicy
from cloud_fallback.client.tls import Tls
from cloud_fallback.open_inference.open_inference_pb2 import ModelInferRequest, ModelInferResponse
from cloud_fallback.open_inference.open_inference_pb2_grpc import (
    GRPCInferenceServiceServicer,
    add_GRPCInferenceServiceServicer_to_server,
)
from cloud_fallback.open_inference.tensors import encode_response
from edge_runtime import (
    Answer,
    Bundle,
    Chain,
    ErrorCode,
    Fallback,
    HybridgeError,
    Model,
    Query,
    Reason,
    Source,
    open_fallback,
)
from tests.cloud_fallback.client.certificates import Authority
from tests.cloud_fallback.client.peer import Peer, question
from tests.cloud_fallback.conftest import unsure
from tests.cloud_fallback.onnx_models import LINEAR_WEIGHTS

Array = np.ndarray[Any, Any]
Open = Callable[..., CloudFallback]

X = np.arange(6, dtype=np.float32).reshape(2, 3)
OWN_Y = np.zeros((2, 2), np.float32)


def _code(call: Callable[[], Any]) -> ErrorCode:
    with pytest.raises(HybridgeError) as caught:
        call()
    return caught.value.code


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
    return port


def test_an_unsure_query_gets_the_clouds_outputs(fallback: Open) -> None:
    answer = fallback("linear").resolve(unsure({"x": X}, y=OWN_Y))
    assert (answer.source, answer.reason, answer.detail) == (Source.CLOUD, Reason.UNSURE, "")
    assert answer.outputs is not None
    np.testing.assert_array_equal(answer.outputs["y"], X @ LINEAR_WEIGHTS)
    # The arrays are the caller's own, as those of a model on the device are.
    answer.outputs["y"][0, 0] = 7.0


def test_a_sure_query_is_kept_without_asking(fallback: Open) -> None:
    nowhere = fallback("linear", target=f"127.0.0.1:{_free_port()}")
    assert nowhere.resolve(Query("s", {"x": X}, {"y": OWN_Y}, 0.9, 0.5)) == Answer.keep(Reason.CONFIDENT)
    assert nowhere.resolve(Query("s", {"x": X}, {"y": OWN_Y}, 0.9)) == Answer.keep(Reason.NO_THRESHOLD)


def test_it_is_a_fallback_that_the_runtime_finds_by_url(endpoint: Endpoint) -> None:
    opened = open_fallback(f"grpc://{endpoint.address}/linear/1?deadline_ms=10000&threshold=0.3")
    assert isinstance(opened, Fallback)
    assert isinstance(opened, CloudFallback)
    assert (opened.target, opened.model, opened.model_version) == (endpoint.address, "linear", "1")
    assert (opened.deadline_s, opened.policy) == (10.0, OffloadPolicy(0.3))
    assert opened.resolve(Query("s", {"x": X}, {"y": OWN_Y}, 0.2)).source is Source.CLOUD
    opened.close()


def test_an_option_comes_before_the_urls_setting() -> None:
    url = "grpc://[::1]:8001/name%20with%2Fslash?deadline_ms=100"
    opened = CloudFallback.from_url(url, deadline_s=0.05)
    assert (opened.target, opened.model, opened.deadline_s) == ("[::1]:8001", "name with/slash", 0.05)


@pytest.mark.parametrize(
    "url",
    [
        "http://host:1/m",
        "grpc://host/m",
        "grpc://host:1",
        "grpc://host:1/",
        "grpc://host:1/m/1/2",
        "grpc://host:99999/m",
        "grpc://host:port/m",
        "grpc://user:word@host:1/m",
        "grpc://host:1/m?deadline=1",
        "grpc://host:1/m?deadline_ms=soon",
        "grpc://host:1/m?deadline_ms=nan",
        "grpc://host:1/m?max_message_mb=inf",
        "grpc://host:1/m#1",
        "host:1/m",
    ],
)
def test_a_url_of_another_form_is_refused(url: str) -> None:
    assert _code(lambda: CloudFallback.from_url(url)) is ErrorCode.FALLBACK_UNKNOWN


@pytest.mark.parametrize("deadline_s", [0.0, -1.0, math.nan, math.inf])
def test_a_deadline_that_is_none_is_refused(deadline_s: float) -> None:
    assert _code(lambda: CloudFallback("host:1", model="m", deadline_s=deadline_s)) is ErrorCode.USAGE


def test_names_are_translated_both_ways(fallback: Open) -> None:
    client = fallback("linear", inputs={"image": "x"}, outputs={"y": "logits"})
    answer = client.resolve(unsure({"image": X, "not sent": X}, logits=OWN_Y))
    assert answer.outputs is not None
    np.testing.assert_array_equal(answer.outputs["logits"], X @ LINEAR_WEIGHTS)
    kept = client.resolve(unsure({"x": X}, logits=OWN_Y))
    assert (kept.outputs, kept.reason) == (None, Reason.CLOUD_REFUSED)
    assert "image" in kept.detail


def test_answers_come_in_the_devices_types(fallback: Open) -> None:
    client = fallback("doubles")
    x = np.array([1.5, -2.5], np.float32)
    answer = client.resolve(unsure({"x": x}, y=np.zeros(2, np.float32), rounded=np.zeros(2, np.int32)))
    assert answer.outputs is not None
    assert {name: (array.dtype, array.tolist()) for name, array in answer.outputs.items()} == {
        "y": (np.float32, [1.5, -2.5]),
        "rounded": (np.int32, [1, -2]),
    }
    kept = client.resolve(unsure({"x": np.array([300.0], np.float32)}, rounded=np.zeros(1, np.int8)))
    assert (kept.reason, "do not fit" in kept.detail) == (Reason.CLOUD_REFUSED, True)
    kept = client.resolve(unsure({"x": np.array([1.0], np.float32)}, y=np.zeros(1, np.int64)))
    assert kept.reason is Reason.CLOUD_REFUSED


@pytest.mark.parametrize(
    ("model", "inputs", "own", "reason", "detail"),
    [
        ("nobody", {"x": X}, {"y": OWN_Y}, Reason.CLOUD_REFUSED, "nobody"),
        ("linear", {"x": X[0]}, {"y": OWN_Y}, Reason.CLOUD_REFUSED, "shape (3,)"),
        ("linear", {"x": X.astype(np.float64)}, {"y": OWN_Y}, Reason.CLOUD_REFUSED, "FP64"),
        ("linear", {"z": X}, {"y": OWN_Y}, Reason.CLOUD_REFUSED, "received z"),
        ("linear", {"x": X.astype(np.complex64)}, {"y": OWN_Y}, Reason.CLOUD_REFUSED, "complex64"),
        ("linear", {"x": X}, {"logits": OWN_Y}, Reason.CLOUD_REFUSED, "logits"),
        ("linear", {"x": X}, {"y": OWN_Y[:1]}, Reason.CLOUD_REFUSED, "shape (2, 2)"),
        (
            "logarithm",
            {"x": np.zeros(1, np.float32)},
            {"y": OWN_Y[0, :1]},
            Reason.CLOUD_REFUSED,
            "not finite",
        ),
        (
            "logarithm",
            {"x": -np.ones(1, np.float32)},
            {"y": OWN_Y[0, :1]},
            Reason.CLOUD_REFUSED,
            "not finite",
        ),
    ],
)
def test_a_refusal_or_an_answer_of_no_use_keeps_the_devices_own(
    fallback: Open, model: str, inputs: dict[str, Array], own: dict[str, Array], reason: Reason, detail: str
) -> None:
    answer = fallback(model).resolve(unsure(inputs, **own))
    assert (answer.outputs, answer.source, answer.reason) == (None, Source.DEVICE, reason)
    assert detail in answer.detail


def test_a_message_too_large_either_way_keeps_the_devices_own(fallback: Open) -> None:
    many = np.zeros((100_000, 3), np.float32)
    own = np.zeros((100_000, 2), np.float32)
    # Refused here before anything is sent, and by the endpoint, whose limit is 1 MiB.
    for limit in (2**20, 2**24):
        answer = fallback("linear", max_message_bytes=limit).resolve(unsure({"x": many}, y=own))
        assert (answer.outputs, answer.reason) == (None, Reason.MESSAGE_TOO_LARGE)
    # The response, refused by the endpoint, and by this side's limit.
    for count, limit in ((300_000, 2**24), (10_000, 2**14)):
        answer = fallback("ones", max_message_bytes=limit).resolve(
            unsure({"shape": np.array([count])}, ones=np.zeros(count, np.float32))
        )
        assert (answer.outputs, answer.reason) == (None, Reason.MESSAGE_TOO_LARGE)


def test_an_explicit_question_raises_what_went_wrong(fallback: Open) -> None:
    np.testing.assert_array_equal(fallback("linear").infer({"x": X})["y"], X @ LINEAR_WEIGHTS)
    assert _code(lambda: fallback("nobody").infer({"x": X})) is ErrorCode.MODEL_UNKNOWN
    assert _code(lambda: fallback("linear", model_version="9").infer({"x": X})) is ErrorCode.MODEL_UNKNOWN
    assert _code(lambda: fallback("linear").infer({"x": X[:, :2]})) is ErrorCode.CLOUD_REFUSED
    assert _code(lambda: fallback("linear").infer({"x": X}, 0.0)) is ErrorCode.CLOUD_DEADLINE
    too_large = {"x": np.zeros((100_000, 3), np.float32)}
    assert _code(lambda: fallback("linear").infer(too_large)) is ErrorCode.MESSAGE_TOO_LARGE
    nowhere = fallback("linear", target=f"127.0.0.1:{_free_port()}")
    assert _code(lambda: nowhere.infer({"x": X})) is ErrorCode.CLOUD_UNAVAILABLE


def test_a_cloud_slower_than_the_deadline_costs_the_deadline_and_no_more(ask: Open) -> None:
    client = ask(Peer(delay_s=(0.0, 1.0)), deadline_s=0.2)
    client.infer({"x": X})
    start = time.perf_counter()
    answer = client.resolve(question())
    assert 0.15 < time.perf_counter() - start < 0.6
    assert (answer.outputs, answer.reason) == (None, Reason.CLOUD_DEADLINE)


def test_the_querys_own_deadline_counts_when_it_is_nearer(ask: Open) -> None:
    client = ask(Peer(delay_s=(1.0,)))
    start = time.perf_counter()
    answer = client.resolve(question(deadline=time.monotonic() + 0.1))
    assert (answer.reason, time.perf_counter() - start < 0.5) == (Reason.CLOUD_DEADLINE, True)
    assert client.resolve(question(deadline=time.monotonic() - 1)).reason is Reason.NO_TIME


def test_a_silent_host_costs_the_deadline(fallback: Open) -> None:
    # Connections are accepted by the system's backlog, and nobody ever speaks HTTP/2 on them.
    with socket.create_server(("127.0.0.1", 0)) as silent:
        client = fallback("linear", target=f"127.0.0.1:{silent.getsockname()[1]}", deadline_s=0.1)
        start = time.perf_counter()
        answer = client.resolve(unsure({"x": X}, y=OWN_Y))
        assert time.perf_counter() - start < 0.5
    assert answer.reason is Reason.CLOUD_DEADLINE


def test_a_cloud_that_is_away_costs_almost_nothing_after_the_first_question(fallback: Open) -> None:
    client = fallback("linear", target=f"127.0.0.1:{_free_port()}", deadline_s=1.0)
    assert client.resolve(unsure({"x": X}, y=OWN_Y)).reason is Reason.CLOUD_UNAVAILABLE
    start = time.perf_counter()
    answers = {client.resolve(unsure({"x": X}, y=OWN_Y)).reason for _ in range(50)}
    assert answers == {Reason.OFFLINE}
    assert (time.perf_counter() - start) / 50 < 0.002


def test_a_closed_fallback_keeps_the_devices_own(ask: Open) -> None:
    peer = Peer(delay_s=(1.5,))
    unused, used = ask("127.0.0.1:1"), ask(peer)
    with ThreadPoolExecutor(1) as pool:
        under_way = pool.submit(used.resolve, question())
        while not peer.seen:
            time.sleep(0.005)
        for client in (unused, used):
            client.close()
            client.close()
        assert under_way.result().reason is Reason.CLOUD_UNAVAILABLE
    for client in (unused, used):
        answer = client.resolve(question())
        assert (answer.outputs, answer.reason) == (None, Reason.CLOUD_UNAVAILABLE)


def test_many_threads_share_one_client(fallback: Open) -> None:
    client = fallback("linear", deadline_s=30.0)

    def ask(index: int) -> bool:
        x = np.full((1 + index % 3, 3), index, np.float32)
        answer = client.resolve(unsure({"x": x}, y=np.zeros((len(x), 2), np.float32)))
        return answer.outputs is not None and np.array_equal(answer.outputs["y"], x @ LINEAR_WEIGHTS)

    with ThreadPoolExecutor(32) as pool:
        assert all(pool.map(ask, range(600)))


_FORKS = """
import os, sys
import numpy as np
from cloud_fallback import CloudFallback
from edge_runtime import Query

x = np.ones((1, 3), np.float32)
query = Query("s", {"x": x}, {"y": np.zeros((1, 2), np.float32)}, 0.1, 0.5)
fallback = CloudFallback(sys.argv[1], model="linear", deadline_s=10.0)
if sys.argv[2] == "asked":
    print(fallback.resolve(query).source, flush=True)
if os.fork() == 0:
    answer = fallback.resolve(query)
    print(answer.source, answer.reason, flush=True)
    fallback.close()
    os._exit(0)
os.wait()
print(fallback.resolve(query).source)
"""


@pytest.mark.parametrize(
    ("when", "expected"),
    [("asked", ["cloud", "device cloud-unavailable", "cloud"]), ("unasked", ["cloud unsure", "cloud"])],
)
def test_a_forked_child_asks_only_if_its_parent_has_not(
    endpoint: Endpoint, when: str, expected: list[str]
) -> None:
    run = subprocess.run(
        [sys.executable, "-c", _FORKS, endpoint.address, when], capture_output=True, text=True, timeout=60
    )
    assert run.stdout.splitlines() == expected, run.stderr


class _Misbehaving(GRPCInferenceServiceServicer):
    """A peer that does not follow the protocol; the model's name says how."""

    def ModelInfer(self, request: ModelInferRequest, context: Any) -> ModelInferResponse:  # noqa: N802
        response = encode_response(request.model_name, {"y": OWN_Y + 1})
        if request.model_name == "short":
            response.raw_output_contents[0] = response.raw_output_contents[0][:-1]
        elif request.model_name == "contents-missing":
            del response.raw_output_contents[:]
        elif request.model_name == "twice":
            response.MergeFrom(encode_response("", {"y": OWN_Y}))
        elif request.model_name == "datatype":
            response.outputs[0].datatype = "FP128"
        elif request.model_name == "shape":
            response.outputs[0].shape[:] = [-2, -2]
        elif request.model_name == "renamed":
            response.outputs[0].name = "z"
        elif request.model_name == "nothing":
            return ModelInferResponse()
        elif request.model_name == "status":
            context.abort(grpc.StatusCode.DATA_LOSS, "a peer's own reason " * 150)
        return response


@pytest.fixture(scope="module")
def misbehaving() -> Iterator[str]:
    server = grpc.server(ThreadPoolExecutor(2))
    add_GRPCInferenceServiceServicer_to_server(_Misbehaving(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None).wait()


@pytest.mark.parametrize(
    "defect", ["short", "contents-missing", "twice", "datatype", "shape", "renamed", "nothing", "status"]
)
def test_a_peer_that_breaks_the_protocol_is_refused(fallback: Open, misbehaving: str, defect: str) -> None:
    assert fallback("sound", target=misbehaving).resolve(unsure({"x": X}, y=OWN_Y)).source is Source.CLOUD
    answer = fallback(defect, target=misbehaving).resolve(unsure({"x": X}, y=OWN_Y))
    expected = Reason.CLOUD_FAILED if defect == "status" else Reason.CLOUD_REFUSED
    assert (answer.outputs, answer.reason) == (None, expected)
    assert 0 < len(answer.detail) < 2000


def test_a_peer_that_speaks_no_grpc_is_refused_or_unavailable(fallback: Open) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer_with_http() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        peer = threading.Thread(target=answer_with_http)
        peer.start()
        client = fallback("linear", target=f"127.0.0.1:{listener.getsockname()[1]}", deadline_s=2.0)
        answer = client.resolve(unsure({"x": X}, y=OWN_Y))
        client.close()
        peer.join()
    assert (answer.outputs, answer.reason) == (None, Reason.CLOUD_UNAVAILABLE)


def test_a_connection_may_have_credentials_that_grpc_made(onnx_models: Path, authority: Authority) -> None:
    server_side = authority.server_credentials(["127.0.0.1"])
    client_side = grpc.ssl_channel_credentials(authority.ca.read_bytes())
    with Endpoint([onnx_models / "linear.onnx"], credentials=server_side) as endpoint:
        options: dict[str, Any] = {"model": "linear", "deadline_s": 10.0}
        with CloudFallback(endpoint.address, credentials=client_side, **options) as client:
            assert client.resolve(unsure({"x": X}, y=OWN_Y)).source is Source.CLOUD
        with CloudFallback(endpoint.address, **options) as in_clear:
            assert in_clear.resolve(unsure({"x": X}, y=OWN_Y)).reason is Reason.CLOUD_UNAVAILABLE
    assert (
        _code(lambda: CloudFallback("h:1", credentials=client_side, tls=Tls(), model="m")) is ErrorCode.USAGE
    )


@pytest.mark.tensorflow
def test_a_chain_takes_the_clouds_answer_when_the_device_is_unsure(
    make_bundle: Callable[..., Bundle], models: Path, tmp_path: Path
) -> None:
    # The cloud's model is another one, behind the same raw input.
    cloud_bundle = make_bundle(name="large", model="classifier-int8", raw=True)
    cloud_bundle.save(tmp_path)
    raw = np.random.default_rng(0).integers(0, 17, (1, 8, 8, 1), np.uint8)
    expected = Model(models / "classifier-int8.tflite").run(raw.astype(np.float32) * np.float32(0.0625))[
        "logits"
    ]
    with Endpoint([tmp_path]) as endpoint:
        url = f"grpc://{endpoint.address}/large?deadline_ms=10000"
        with Chain.from_bundle(make_bundle(raw=True, threshold=1.0), fallback=open_fallback(url)) as chain:
            prediction = chain.run({"image": raw})
            assert (prediction.source, prediction.reason) == (Source.CLOUD, Reason.UNSURE)
            np.testing.assert_allclose(prediction.outputs["logits"], expected, atol=0.01)
            endpoint.stop()
            local = chain.run({"image": raw})
            assert (local.source, local.reason) == (Source.DEVICE, Reason.CLOUD_UNAVAILABLE)
        with Chain.from_bundle(make_bundle(raw=True, threshold=0.0), fallback=open_fallback(url)) as chain:
            assert chain.run({"image": raw}).reason is Reason.CONFIDENT
