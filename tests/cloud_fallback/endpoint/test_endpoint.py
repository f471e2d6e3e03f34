"""The endpoint over a real socket: the six calls, tritonclient, and every way to ask wrongly."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from cloud_fallback import Endpoint, Repository
from cloud_fallback.endpoint.served import Batching, ModelQueue, TimeLeft, no_limit
from cloud_fallback.endpoint.served.onnx_model import OnnxModel
from cloud_fallback.endpoint.served.served_model import Then
from cloud_fallback.open_inference import SERVICE_NAME
from cloud_fallback.open_inference.open_inference_pb2 import (
    ModelInferRequest,
    ModelMetadataRequest,
    ModelReadyRequest,
    ServerLiveRequest,
    ServerMetadataRequest,
    ServerReadyRequest,
)
from cloud_fallback.open_inference.open_inference_pb2_grpc import GRPCInferenceServiceStub
from cloud_fallback.open_inference.tensors import decode_response, encode_request
from edge_runtime import Bundle, ErrorCode, HybridgeError, Model, __version__
from edge_runtime.tensor_spec import TensorSpec
from tests.cloud_fallback.onnx_models import LINEAR_WEIGHTS, write_linear

Array = np.ndarray[Any, Any]


@pytest.fixture
def stub(endpoint: Endpoint) -> Iterator[GRPCInferenceServiceStub]:
    limit = 16 * 2**20
    options = [("grpc.max_receive_message_length", limit), ("grpc.max_send_message_length", limit)]
    with grpc.insecure_channel(endpoint.address, options) as channel:
        yield GRPCInferenceServiceStub(channel)


def _refusal(call: Callable[[], Any]) -> tuple[grpc.StatusCode, str | None, str]:
    """Status, hybridge code and details of a call that fails."""
    with pytest.raises(grpc.RpcError) as caught:
        call()
    metadata = dict(caught.value.trailing_metadata())
    return caught.value.code(), metadata.get("hybridge-code"), caught.value.details()


def test_the_server_says_that_it_lives_and_what_it_is(stub: GRPCInferenceServiceStub) -> None:
    assert stub.ServerLive(ServerLiveRequest()).live
    assert stub.ServerReady(ServerReadyRequest()).ready
    metadata = stub.ServerMetadata(ServerMetadataRequest())
    assert (metadata.name, metadata.version) == ("hybridge", __version__)


def test_a_model_says_that_it_is_ready_and_what_it_takes(stub: GRPCInferenceServiceStub) -> None:
    assert stub.ModelReady(ModelReadyRequest(name="linear", version="1")).ready
    metadata = stub.ModelMetadata(ModelMetadataRequest(name="linear"))
    assert (metadata.name, list(metadata.versions), metadata.platform) == ("linear", ["1"], "onnx_onnxv1")
    assert [(t.name, t.datatype, list(t.shape)) for t in metadata.inputs] == [("x", "FP32", [-1, 3])]
    assert [(t.name, t.datatype, list(t.shape)) for t in metadata.outputs] == [("y", "FP32", [-1, 2])]


def test_an_inference_gives_the_outputs_and_the_id_back(stub: GRPCInferenceServiceStub) -> None:
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    request = encode_request("linear", {"x": x})
    request.id = "request-7"
    response = stub.ModelInfer(request)
    assert (response.model_name, response.model_version, response.id) == ("linear", "1", "request-7")
    np.testing.assert_array_equal(decode_response(response)["y"], x @ LINEAR_WEIGHTS)


def test_typed_contents_are_understood(stub: GRPCInferenceServiceStub) -> None:
    request = ModelInferRequest(model_name="linear")
    tensor = request.inputs.add(name="x", datatype="FP32", shape=[1, 3])
    tensor.contents.fp32_contents.extend([1.0, 2.0, 3.0])
    np.testing.assert_array_equal(
        decode_response(stub.ModelInfer(request))["y"], np.array([[1, 2, 3]], np.float32) @ LINEAR_WEIGHTS
    )


def test_only_the_outputs_asked_for_come_back_in_that_order(stub: GRPCInferenceServiceStub) -> None:
    x = np.array([1.5], np.float32)
    everything = stub.ModelInfer(encode_request("doubles", {"x": x}))
    assert [output.name for output in everything.outputs] == ["y", "rounded"]
    some = stub.ModelInfer(encode_request("doubles", {"x": x}, outputs=["rounded"]))
    assert [output.name for output in some.outputs] == ["rounded"]
    refusal = _refusal(lambda: stub.ModelInfer(encode_request("doubles", {"x": x}, outputs=["z"])))
    assert refusal[:2] == (grpc.StatusCode.INVALID_ARGUMENT, "output-unknown")


def test_an_unknown_model_or_version_is_not_found_by_any_call(stub: GRPCInferenceServiceStub) -> None:
    expected = (grpc.StatusCode.NOT_FOUND, "model-unknown")
    for name, version in (("nobody", ""), ("linear", "2")):
        for call in (
            lambda name=name, version=version: stub.ModelReady(ModelReadyRequest(name=name, version=version)),
            lambda name=name, version=version: stub.ModelMetadata(
                ModelMetadataRequest(name=name, version=version)
            ),
            lambda name=name, version=version: stub.ModelInfer(encode_request(name, {}, version=version)),
        ):
            assert _refusal(call)[:2] == expected


def _request(datatype: str, shape: list[int], content: bytes) -> ModelInferRequest:
    request = ModelInferRequest(model_name="linear", raw_input_contents=[content])
    request.inputs.add(name="x", datatype=datatype, shape=shape)
    return request


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (lambda: _request("FP64", [1, 3], bytes(24)), "input-dtype"),
        (lambda: _request("COMPLEX", [1, 3], bytes(24)), "input-dtype"),
        (lambda: _request("FP32", [1, 4], bytes(16)), "input-shape"),
        (lambda: _request("FP32", [-1, 3], bytes(12)), "input-shape"),
        (lambda: _request("FP32", [1, 3], bytes(11)), "input-invalid"),
        (lambda: encode_request("linear", {}), "input-missing"),
        (lambda: encode_request("strings", {"text": np.array([b"\xff"], object)}), "input-invalid"),
    ],
)
def test_a_wrong_input_is_an_invalid_argument_with_its_code(
    stub: GRPCInferenceServiceStub, make: Callable[[], ModelInferRequest], code: str
) -> None:
    assert _refusal(lambda: stub.ModelInfer(make()))[:2] == (grpc.StatusCode.INVALID_ARGUMENT, code)


@pytest.mark.parametrize("extension", ["shared_memory_region", "classification"])
def test_an_extension_that_would_change_the_answer_is_refused(
    stub: GRPCInferenceServiceStub, extension: str
) -> None:
    request = encode_request("linear", {"x": np.zeros((1, 3), np.float32)}, outputs=["y"])
    request.outputs[0].parameters[extension].int64_param = 1
    assert _refusal(lambda: stub.ModelInfer(request))[:2] == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "input-invalid",
    )


def test_a_request_over_the_limit_is_refused(stub: GRPCInferenceServiceStub) -> None:
    request = encode_request("linear", {"x": np.zeros((100_000, 3), np.float32)})
    assert _refusal(lambda: stub.ModelInfer(request))[0] is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_a_response_over_the_limit_is_refused(stub: GRPCInferenceServiceStub) -> None:
    small, large = (encode_request("ones", {"shape": np.array([count])}) for count in (200_000, 300_000))
    assert decode_response(stub.ModelInfer(small))["ones"].sum() == 200_000
    refusal = _refusal(lambda: stub.ModelInfer(large))
    assert refusal[:2] == (grpc.StatusCode.RESOURCE_EXHAUSTED, "message-too-large")


class _Leaking:
    """A model with a defect that its error would give away."""

    name, version, platform = "leaking", "1", "none"
    inputs = outputs = (TensorSpec("x", (1,), "float32"),)

    def infer(self, inputs: Mapping[str, Array], *, time_left: TimeLeft = no_limit) -> dict[str, Array]:
        raise KeyError(f"/etc/secret {list(inputs)} {time_left()}")


def test_an_unexpected_failure_is_logged_and_not_told(caplog: pytest.LogCaptureFixture) -> None:
    with (
        Endpoint(Repository([_Leaking()])) as endpoint,
        grpc.insecure_channel(endpoint.address) as channel,
        caplog.at_level(logging.ERROR),
    ):
        stub = GRPCInferenceServiceStub(channel)
        refusal = _refusal(lambda: stub.ModelInfer(encode_request("leaking", {"x": np.zeros(1, np.float32)})))
    assert refusal == (grpc.StatusCode.INTERNAL, "internal", "internal error of the endpoint")
    assert "/etc/secret" in caplog.text


class _Failing:
    """A model whose runs go wrong in a way that its request says."""

    name, version, platform = "failing", "1", "none"
    inputs = outputs = (TensorSpec("x", (1,), "float32"),)
    closed = 0

    def __init__(self) -> None:
        self.queue = ModelQueue("failing", [self], _Failing.run)
        self.running, self.gate = threading.Semaphore(0), threading.Event()

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        self.running.release()
        match int(inputs["x"][0]):
            case 1:
                return {}
            case 2:
                raise SystemExit(1)
            case 3:
                assert self.gate.wait(10)
        return {"x": inputs["x"]}

    def infer(self, inputs: Mapping[str, Array], *, time_left: TimeLeft = no_limit) -> dict[str, Array]:
        return self.queue.infer(inputs, time_left)

    def close(self) -> None:
        self.closed += 1
        raise RuntimeError("cannot be closed")


class _FailingLater(_Failing):
    def begin(self, inputs: Mapping[str, Array], time_left: TimeLeft, then: Then) -> None:
        if inputs["x"][0] == 4:
            raise SystemExit(1)
        self.queue.begin(inputs, time_left, then)


@pytest.mark.parametrize("kind", [_Failing, _FailingLater])
@pytest.mark.parametrize("usual_s", [0.0, 0.01])
def test_however_a_model_fails_its_calls_end(kind: type[_Failing], usual_s: float) -> None:
    model = kind()
    with (
        Endpoint(Repository([model, _Leaking()])) as endpoint,
        grpc.insecure_channel(endpoint.address) as channel,
    ):
        infer = GRPCInferenceServiceStub(channel).ModelInfer
        requests = [encode_request("failing", {"x": np.full(1, how, np.float32)}) for how in range(5)]
        codes = []
        for request in (*requests[:3], requests[4], requests[0]):
            endpoint.calls._unary._usual_s = usual_s
            codes.append(infer.future(request, timeout=10).code())
        ok, internal = grpc.StatusCode.OK, grpc.StatusCode.INTERNAL
        assert codes == [ok, internal, internal, internal if kind is _FailingLater and usual_s else ok, ok]
        held = infer.future(requests[3], timeout=10)
        for _ in range(5 + (codes[3] is ok)):
            assert model.running.acquire(timeout=10)
        endpoint.repository.unload_model("failing")
        model.gate.set()
        assert held.code() is ok
        figures = endpoint.data_plane.telemetry.figures()
        assert figures.in_flight == dict.fromkeys(figures.in_flight, 0)
    assert model.closed == 1


def test_versions_get_their_shares_whether_or_not_their_requests_hold_a_thread(
    tmp_path: Path, onnx_models: Path
) -> None:
    for version in ("1", "2"):
        (tmp_path / "linear" / version).mkdir(parents=True)
        (tmp_path / "linear" / version / "model.onnx").write_bytes((onnx_models / "linear.onnx").read_bytes())
    repository = Repository.load([tmp_path], splits={"linear": {"1": 1, "2": 1}})
    setattr(repository.find("linear", "1"), "begin", None)  # noqa: B010 - the protocol has none
    with Endpoint(repository) as endpoint, grpc.insecure_channel(endpoint.address) as channel:
        infer = GRPCInferenceServiceStub(channel).ModelInfer
        request = encode_request("linear", {"x": np.ones((1, 3), np.float32)})
        versions = []
        for _ in range(400):
            endpoint.calls._unary._usual_s = 0.01
            versions.append(infer(request, timeout=10).model_version)
    # Five standard deviations.
    assert 150 < versions.count("1") < 250


def test_a_port_in_use_is_an_error_that_gives_the_systems_reason(
    endpoint: Endpoint, onnx_models: Path
) -> None:
    with pytest.raises(HybridgeError, match="Address already in use") as caught:
        Endpoint([onnx_models / "linear.onnx"], port=endpoint.port).start()
    assert caught.value.code is ErrorCode.ADDRESS_IN_USE


def test_an_address_of_another_machine_is_an_error(onnx_models: Path) -> None:
    with pytest.raises(HybridgeError) as caught:
        Endpoint([onnx_models / "linear.onnx"], host="192.0.2.1").start()
    assert caught.value.code is ErrorCode.ADDRESS_IN_USE


@pytest.mark.skipif(not socket.has_ipv6, reason="this machine has no IPv6")
def test_an_ipv6_address_is_served(onnx_models: Path) -> None:
    with Endpoint([onnx_models / "linear.onnx"], host="::1") as endpoint:
        assert endpoint.address == f"[::1]:{endpoint.port}"
        with grpc.insecure_channel(endpoint.address) as channel:
            assert GRPCInferenceServiceStub(channel).ServerLive(ServerLiveRequest(), timeout=5).live


def test_health_and_reflection_are_served(endpoint: Endpoint) -> None:
    from google.protobuf.descriptor_pool import DescriptorPool
    from grpc_health.v1 import health_pb2, health_pb2_grpc
    from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

    with grpc.insecure_channel(endpoint.address) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        for service in ("", SERVICE_NAME):
            status = health.Check(health_pb2.HealthCheckRequest(service=service)).status
            assert status == health_pb2.HealthCheckResponse.SERVING
        database = ProtoReflectionDescriptorDatabase(channel)
        assert {SERVICE_NAME, "grpc.health.v1.Health"} < set(database.get_services())
        pool = DescriptorPool(database)
        assert (
            pool.FindMessageTypeByName("inference.ModelInferRequest")
            .fields_by_name["raw_input_contents"]
            .number
            == 7
        )
        assert pool.FindServiceByName("grpc.health.v1.Health").methods_by_name["Check"]


def test_requests_whose_deadline_passes_while_they_wait_are_not_run(
    onnx_models: Path, busy: Callable[[float], dict[str, Array]]
) -> None:
    model = OnnxModel(onnx_models / "busy.onnx", instances=1)
    with (
        Endpoint(Repository([model]), max_workers=2) as endpoint,
        grpc.insecure_channel(endpoint.address) as channel,
    ):
        stub = GRPCInferenceServiceStub(channel)
        first = stub.ModelInfer.future(encode_request("busy", busy(1.0)))
        late = [stub.ModelInfer.future(encode_request("busy", busy(1.0)), timeout=0.3) for _ in range(10)]
        cancelled = [stub.ModelInfer.future(encode_request("busy", busy(1.0))) for _ in range(10)]
        time.sleep(0.1)
        for call in cancelled:
            call.cancel()
        assert first.result().model_name == "busy"
        # Those that came when it was plain that their turn would come too late heard so at once.
        assert {call.code() for call in late} <= {
            grpc.StatusCode.DEADLINE_EXCEEDED,
            grpc.StatusCode.RESOURCE_EXHAUSTED,
        }
        start = time.perf_counter()
        stub.ModelInfer(encode_request("busy", busy(0.01)))
        # Any two of the twenty would have taken longer.
        assert time.perf_counter() - start < 1.5


def test_more_calls_than_may_wait_are_refused(
    onnx_models: Path, busy: Callable[[float], dict[str, Array]]
) -> None:
    repository = Repository([OnnxModel(onnx_models / "busy.onnx", instances=1)])
    with (
        Endpoint(repository, max_workers=1, max_waiting=2) as endpoint,
        grpc.insecure_channel(endpoint.address) as channel,
    ):
        stub = GRPCInferenceServiceStub(channel)
        calls = [stub.ModelInfer.future(encode_request("busy", busy(0.2))) for _ in range(20)]
        codes = [call.code() for call in calls]
    assert codes.count(grpc.StatusCode.OK) >= 3
    assert set(codes) == {grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED}


def test_stopping_finishes_calls_under_way_and_refuses_new_ones(
    onnx_models: Path, busy: Callable[[float], dict[str, Array]]
) -> None:
    endpoint = Endpoint([onnx_models / "busy.onnx"]).start()
    with grpc.insecure_channel(endpoint.address) as channel:
        stub = GRPCInferenceServiceStub(channel)
        call = stub.ModelInfer.future(encode_request("busy", busy(1.0)))
        time.sleep(0.2)
        stopping = threading.Thread(target=endpoint.stop)
        stopping.start()
        time.sleep(0.1)
        assert not endpoint.wait(0.01)
        assert _refusal(lambda: stub.ServerLive(ServerLiveRequest()))[0] is grpc.StatusCode.UNAVAILABLE
        assert decode_response(call.result())["y"] == pytest.approx(3.0)
        stopping.join()
    assert endpoint.wait(1.0)


def test_hundreds_of_calls_at_once_each_get_their_own_answer(stub: GRPCInferenceServiceStub) -> None:
    inputs = [np.full((1 + index % 4, 3), index, np.float32) for index in range(500)]
    calls = [stub.ModelInfer.future(encode_request("linear", {"x": x})) for x in inputs]
    for x, call in zip(inputs, calls, strict=True):
        np.testing.assert_array_equal(decode_response(call.result())["y"], x @ LINEAR_WEIGHTS)


def test_waiting_for_one_model_takes_no_thread_from_another(
    onnx_models: Path, busy: Callable[[float], dict[str, Array]]
) -> None:
    models = [OnnxModel(onnx_models / "busy.onnx", instances=1), OnnxModel(onnx_models / "linear.onnx")]
    with (
        Endpoint(Repository(models), max_workers=2) as endpoint,
        grpc.insecure_channel(endpoint.address) as channel,
    ):
        stub = GRPCInferenceServiceStub(channel)
        stub.ModelInfer(encode_request("busy", busy(0.1)))
        slow = [stub.ModelInfer.future(encode_request("busy", busy(0.4))) for _ in range(6)]
        start = time.perf_counter()
        for row in range(20):
            # With a name each, so that every one of them is read on a thread.
            request = encode_request("linear", {"x": np.full((1, 3), row, np.float32)})
            request.id = str(row)
            answer = decode_response(stub.ModelInfer(request))["y"]
            np.testing.assert_array_equal(answer, np.full((1, 3), row, np.float32) @ LINEAR_WEIGHTS)
        assert time.perf_counter() - start < 1.0
        assert not slow[-1].done()
        assert {call.result().model_name for call in slow} == {"busy"}
    figures = endpoint.data_plane.telemetry.figures()
    assert figures.in_flight == dict.fromkeys(figures.in_flight, 0)
    (series,) = (each for each in figures.series if each.model == "busy")
    assert (series.codes, sum(series.queued.counts)) == ({"ok": 7}, 7)


@pytest.fixture(scope="module")
def tflite_endpoint(
    models: Path, make_bundle: Callable[..., Bundle], tmp_path_factory: Any
) -> Iterator[Endpoint]:
    folder = tmp_path_factory.mktemp("served")
    make_bundle(raw=True).save(folder)
    with Endpoint([folder, models]) as endpoint:
        yield endpoint


@pytest.mark.tensorflow
@pytest.mark.parametrize("name", ["classifier", "classifier-int8"])
def test_tritonclient_gets_the_numbers_that_the_local_model_gives(
    tflite_endpoint: Endpoint, models: Path, name: str
) -> None:
    import tritonclient.grpc as triton

    local = Model(models / f"{name}.tflite")
    rng = np.random.default_rng(0)
    with triton.InferenceServerClient(tflite_endpoint.address) as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready(name)
        assert client.get_model_metadata(name).inputs[0].datatype == "FP32"
        for _ in range(5):
            image = rng.random((1, 8, 8, 1), dtype=np.float32)
            tensor = triton.InferInput("image", [1, 8, 8, 1], "FP32")
            tensor.set_data_from_numpy(image)
            answer = client.infer(name, [tensor], outputs=[triton.InferRequestedOutput("logits")])
            np.testing.assert_array_equal(answer.as_numpy("logits"), local.run(image)["logits"])


@pytest.mark.tensorflow
def test_tritonclient_gives_a_bundle_its_raw_input(
    tflite_endpoint: Endpoint, make_bundle: Callable[..., Bundle]
) -> None:
    import tritonclient.grpc as triton

    raw = np.random.default_rng(0).integers(0, 17, (1, 8, 8, 1), np.uint8)
    tensor = triton.InferInput("image", [1, 8, 8, 1], "UINT8")
    tensor.set_data_from_numpy(raw)
    with triton.InferenceServerClient(tflite_endpoint.address) as client:
        logits = client.infer("digits", [tensor]).as_numpy("logits")
    local = Model(make_bundle()).run(raw.astype(np.float32) * np.float32(0.0625))
    np.testing.assert_allclose(logits, local["logits"], rtol=1e-6)


def test_tritonclient_sends_strings(endpoint: Endpoint) -> None:
    import tritonclient.grpc as triton

    tensor = triton.InferInput("text", [2], "BYTES")
    tensor.set_data_from_numpy(np.array(["é", "plain"], object))
    with triton.InferenceServerClient(endpoint.address) as client:
        assert client.infer("strings", [tensor]).as_numpy("same").tolist() == ["é".encode(), b"plain"]


@pytest.mark.tensorflow
def test_a_tflite_model_answers_many_threads_correctly(tflite_endpoint: Endpoint) -> None:
    weights = np.arange(6, dtype=np.float32).reshape(3, 2)
    inputs = [np.full((1 + index % 4, 3), index, np.float32) for index in range(300)]
    with grpc.insecure_channel(tflite_endpoint.address) as channel:
        stub = GRPCInferenceServiceStub(channel)
        calls = [stub.ModelInfer.future(encode_request("any-batch", {"x": x})) for x in inputs]
        for x, call in zip(inputs, calls, strict=True):
            np.testing.assert_allclose(decode_response(call.result())["y"], x @ weights, rtol=1e-6)


def test_tritonclient_lists_loads_and_unloads_models(onnx_models: Path, tmp_path: Path) -> None:
    from tritonclient.grpc import InferenceServerClient
    from tritonclient.utils import InferenceServerException

    path = tmp_path / "linear.onnx"
    write_linear(path)
    with Endpoint([path, onnx_models / "strings.onnx"]) as endpoint:
        client = InferenceServerClient(endpoint.address)

        def states() -> dict[str, str]:
            return {each.name: each.state for each in client.get_model_repository_index().models}

        assert states() == {"linear": "READY", "strings": "READY"}
        client.unload_model("linear")
        assert states() == {"linear": "UNAVAILABLE", "strings": "READY"}
        with pytest.raises(InferenceServerException, match="linear"):
            client.is_model_ready("linear")
        client.load_model("linear")
        assert client.is_model_ready("linear")
        path.write_bytes(b"rubbish")
        with pytest.raises(InferenceServerException, match="model 'linear'"):
            client.load_model("linear")
        assert client.is_model_ready("linear")
        with pytest.raises(InferenceServerException, match="parameters"):
            client.load_model("linear", config="{}")
        client.close()


def test_a_request_that_comes_twice_is_run_once(onnx_models: Path) -> None:
    runs = []

    class Counting:
        name, version, platform = "counting", "1", "python"
        inputs = outputs = (TensorSpec("x", (), "float32"),)

        def infer(self, inputs: Mapping[str, Array], *, time_left: TimeLeft = no_limit) -> dict[str, Array]:  # noqa: ARG002
            runs.append(1)
            return {"x": np.array(len(runs), np.float32)}

    with Endpoint(Repository([Counting()])) as endpoint, grpc.insecure_channel(endpoint.address) as channel:
        infer = GRPCInferenceServiceStub(channel).ModelInfer
        request = encode_request("counting", {"x": np.array(0, np.float32)})
        answers = [
            decode_response(infer(request, metadata=(("idempotency-key", key),) if key else ()))["x"].item()
            for key in ("a", "a", "b", "", "", "a")
        ]
    assert answers == [1, 1, 2, 3, 4, 1]


def test_a_full_queue_is_refused_with_a_time_to_come_back_after(
    onnx_models: Path, busy: Callable[[float], dict[str, Array]]
) -> None:
    repository = Repository.load([onnx_models / "busy.onnx"], instances=1, batching=Batching(max_waiting=1))
    with Endpoint(repository) as endpoint, grpc.insecure_channel(endpoint.address) as channel:
        infer = GRPCInferenceServiceStub(channel).ModelInfer
        calls = [infer.future(encode_request("busy", busy(0.5))) for _ in range(4)]
        refused = [call for call in calls if call.code() is grpc.StatusCode.RESOURCE_EXHAUSTED]
        assert [call.code() for call in calls if call not in refused] == [grpc.StatusCode.OK] * 2
        for call in refused:
            trailing = dict(call.trailing_metadata())
            assert trailing["hybridge-code"] == "cloud-overloaded"
            assert 0 < int(trailing["grpc-retry-pushback-ms"]) < 5000
