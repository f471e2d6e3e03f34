"""Answers in the forms that servers of the protocol give them: typed or raw, more than was asked for, any version."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from cloud_fallback import CloudFallback
from cloud_fallback.open_inference.open_inference_pb2 import ModelInferRequest, ModelInferResponse
from cloud_fallback.open_inference.tensors import encode_request, encode_response, serialize_request
from edge_runtime import Query, Reason, Source
from tests.cloud_fallback.client.peer import Peer

Array = np.ndarray[Any, Any]
X = {"x": np.ones(2, np.float32)}


def _typed() -> ModelInferResponse:
    """As MLServer answers: typed contents, with parameters on everything."""
    response = ModelInferResponse(model_name="m", model_version="v0.1.0", id="abc")
    response.parameters["content_type"].string_param = "np"
    scores = response.outputs.add(name="scores", datatype="FP32", shape=[1, 2])
    scores.contents.fp32_contents.extend([0.25, 0.75])
    scores.parameters["content_type"].string_param = "np"
    label = response.outputs.add(name="label", datatype="BYTES", shape=[1])
    label.contents.bytes_contents.append("süß".encode())
    response.outputs.add(name="index", datatype="INT64", shape=[1]).contents.int64_contents.append(1)
    return response


def _raw() -> ModelInferResponse:
    """As Triton answers: raw contents, outputs in its own order and one that nobody asked for."""
    outputs: dict[str, Array] = {
        "embedding": np.zeros((1, 64), np.float16),
        "index": np.array([1], np.int32),
        "label": np.array(["süß".encode()], object),
        "scores": np.array([[0.25, 0.75]], np.float64),
    }
    response = encode_response("m", outputs, version="3")
    response.parameters["triton_final_response"].bool_param = True
    return response


@pytest.mark.parametrize("answer", [_typed, _raw])
def test_the_same_answer_in_any_form_is_the_same_answer(
    ask: Callable[..., CloudFallback], answer: Callable[[], ModelInferResponse]
) -> None:
    peer = Peer(infer=lambda _request, _context: answer())
    own = {
        "scores": np.zeros((1, 2), np.float32),
        "label": np.array(["?"]),
        "index": np.zeros(1, np.int64),
    }
    got = ask(peer, model_version="2").resolve(Query("s", X, own, 0.1, 0.5))
    assert (got.source, got.reason, got.detail) == (Source.CLOUD, Reason.UNSURE, "")
    assert got.outputs is not None
    assert got.outputs.keys() == own.keys()
    assert got.outputs["scores"].dtype == np.float32
    assert got.outputs["scores"].tolist() == [[0.25, 0.75]]
    assert got.outputs["label"].tolist() == ["süß"]
    assert got.outputs["index"].tolist() == [1]
    (request,) = peer.seen
    assert (request.model_name, request.model_version) == ("m", "2")
    assert [output.name for output in request.outputs] == ["scores", "label", "index"]


@pytest.mark.parametrize(
    "inputs",
    [
        {},
        {"x": np.arange(6, dtype=np.float32).reshape(2, 3)},
        {"x": np.asfortranarray(np.arange(6.0).reshape(2, 3)), "y": np.arange(10)[::2]},
        {"x": np.array(5, np.int8), "y": np.zeros((0, 3), np.uint16), "z": np.array(True)},
        {
            "x": np.array(["a", "bcd", "süß"]),
            "y": np.array([b"\0", "text"], object),
            "z": np.array([], object),
        },
        {"x": np.arange(3, dtype=">i4"), "half": np.array([1.5], np.float16)},
        {
            "long": np.zeros(200, np.uint8),
            "longer": np.zeros(20_000, np.uint8),
            "most": np.zeros(3_000_000, np.uint8),
        },
    ],
)
def test_a_request_is_the_same_bytes_as_protobuf_makes(inputs: dict[str, Array]) -> None:
    for outputs in ((), ("y", "z")):
        expected = encode_request("model", inputs, version="7", outputs=outputs)
        assert (
            serialize_request("model", inputs, version="7", outputs=outputs) == expected.SerializeToString()
        )
        assert ModelInferRequest.FromString(serialize_request("model", inputs)) == encode_request(
            "model", inputs
        )
