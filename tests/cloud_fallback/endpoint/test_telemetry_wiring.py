"""What an endpoint counts of calls over gRPC, and of what its queues did with them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np
import pytest

from cloud_fallback import Endpoint, Repository
from cloud_fallback.endpoint.served import Batching
from cloud_fallback.endpoint.telemetry import Transport
from cloud_fallback.open_inference.open_inference_pb2 import ModelInferRequest
from cloud_fallback.open_inference.open_inference_pb2_grpc import GRPCInferenceServiceStub
from cloud_fallback.open_inference.tensors import encode_request


def _linear(rows: int, model: str = "linear") -> ModelInferRequest:
    return encode_request(model, {"x": np.ones((rows, 3), np.float32)})


def test_calls_over_grpc_are_counted_with_their_queue_run_and_batch(onnx_models: Path) -> None:
    batching = Batching(max_batch_size=4, queue_delay_ms=2000)
    repository = Repository.load([onnx_models / "linear.onnx"], instances=1, batching=batching)
    with (
        Endpoint(repository) as endpoint,
        grpc.insecure_channel(endpoint.address) as channel,
        ThreadPoolExecutor(2) as callers,
    ):
        stub = GRPCInferenceServiceStub(channel)
        for answer in [callers.submit(stub.ModelInfer, _linear(2), timeout=10) for _ in range(2)]:
            answer.result()
        with pytest.raises(grpc.RpcError):
            stub.ModelInfer(_linear(1, "none"))
        series = {(each.model, each.version): each for each in endpoint.data_plane.telemetry.figures().series}
    linear = series["linear", "1"]
    assert (linear.transport, dict(linear.codes), linear.rows.total) == (Transport.GRPC, {"ok": 2}, 8)
    assert 0 < linear.run.total < linear.seconds.total
    assert linear.bytes_in == 2 * _linear(2).ByteSize()
    assert linear.bytes_out > 2 * 16
    assert dict(series["", ""].codes) == {"model-unknown": 1}
