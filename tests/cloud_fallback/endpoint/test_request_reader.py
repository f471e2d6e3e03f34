"""Requests over gRPC: read the same whether they are parsed or known, and held to what they ask for."""

from __future__ import annotations

import grpc
import numpy as np
import pytest

from cloud_fallback import Endpoint, Repository
from cloud_fallback.endpoint.rpc.request_reader import RequestReader
from cloud_fallback.open_inference.open_inference_pb2 import ModelInferRequest
from cloud_fallback.open_inference.open_inference_pb2_grpc import GRPCInferenceServiceStub
from cloud_fallback.open_inference.tensors import encode_request
from edge_runtime.errors import ErrorCode, HybridgeError
from tests.cloud_fallback.endpoint.rest_models import Gated


def _request(value: float, *, name: str = "") -> ModelInferRequest:
    x = np.full((2, 3), value, np.float32)
    request = encode_request("m", {"x": x, "long": x.astype(np.int64)}, version="2", outputs=("y",))
    request.id = name
    return request


@pytest.mark.parametrize("padding", range(8))
def test_inputs_are_whole_wherever_they_are_in_the_message(padding: int) -> None:
    reader = RequestReader()
    for value in (1.0, 2.0, 3.0):
        request = _request(value)
        request.parameters["padding"].string_param = "p" * padding
        read = reader.read(request.SerializeToString())
        assert (read.model_name, read.model_version, read.id, read.outputs) == ("m", "2", "", ("y",))
        assert list(read.inputs) == ["x", "long"]
        for array in read.inputs.values():
            assert (array == value).all()
            assert array.flags.aligned
            assert not array.flags.writeable
    assert len(reader._known._heads) == 1


def test_each_request_keeps_its_own_name() -> None:
    reader = RequestReader()
    for name in ("a", "b", "a"):
        assert reader.read(_request(1.0, name=name).SerializeToString()).id == name
    assert not reader._known._heads


def test_a_timeout_is_read_each_time() -> None:
    reader = RequestReader()
    request = _request(1.0)
    request.parameters["timeout"].int64_param = 250_000
    for _ in range(2):
        assert reader.read(request.SerializeToString()).timeout_s == 0.25
    assert reader.read(_request(1.0).SerializeToString()).timeout_s is None
    request.parameters["timeout"].int64_param = -1
    with pytest.raises(HybridgeError, match="timeout of request: received -1"):
        reader.read(request.SerializeToString())


def test_what_would_be_answered_wrongly_is_refused_each_time() -> None:
    reader = RequestReader()
    request = _request(1.0)
    request.outputs[0].parameters["classification"].int64_param = 3
    for _ in range(2):
        with pytest.raises(HybridgeError) as caught:
            reader.read(request.SerializeToString())
        assert caught.value.code is ErrorCode.INPUT_INVALID


def test_a_request_whose_timeout_passes_in_the_queue_is_not_run() -> None:
    gated = Gated()
    x = {"x": np.ones(2, np.float32)}
    with Endpoint(Repository([gated])) as endpoint, grpc.insecure_channel(endpoint.address) as channel:
        stub = GRPCInferenceServiceStub(channel)
        first = stub.ModelInfer.future(encode_request("gated", x), timeout=20)
        assert gated.entered.wait(10)
        late = encode_request("gated", x)
        late.parameters["timeout"].int64_param = 50_000
        with pytest.raises(grpc.RpcError) as caught:
            stub.ModelInfer(late, timeout=20)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        gated.gate.set()
        assert first.result(10).model_name == "gated"
    assert gated.runs == 1
