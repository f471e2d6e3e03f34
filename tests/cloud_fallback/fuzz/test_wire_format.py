"""Properties of the wire format: what is right comes back as it was, and what is not does no harm."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from cloud_fallback import Endpoint
from cloud_fallback.endpoint.rpc.request_bounds import check_bounds
from cloud_fallback.open_inference.open_inference_pb2 import ModelInferRequest, ModelInferResponse
from cloud_fallback.open_inference.tensors import (
    decode_request,
    decode_response,
    encode_request,
    encode_response,
    serialize_request,
)
from edge_runtime import ErrorCode, HybridgeError
from tests.cloud_fallback.fuzz.generator import Generator
from tests.cloud_fallback.fuzz.targets import Decoder, LiveEndpoint


def test_every_tensor_comes_back_as_it_was() -> None:
    generator = Generator(1)
    for _ in range(500):
        arrays = generator.arrays()
        request = encode_request("m", arrays).SerializeToString()
        assert serialize_request("m", arrays) == request
        response = encode_response("m", arrays).SerializeToString()
        for back in (
            decode_request(ModelInferRequest.FromString(request)),
            decode_response(ModelInferResponse.FromString(response)),
        ):
            assert list(back) == list(arrays)
            for name, array in arrays.items():
                assert back[name].dtype == array.dtype
                assert back[name].shape == array.shape
                # By their bits: there are numbers that are not equal to themselves.
                assert back[name].tobytes() == array.tobytes() or array.dtype == object
                if array.dtype == object:
                    assert back[name].tolist() == array.tolist()


def test_typed_contents_are_what_raw_ones_are() -> None:
    generator = Generator(2)
    seen = 0
    for _ in range(400):
        request = generator.request()
        typed = ModelInferRequest.FromString(request.SerializeToString())
        raw = decode_request(typed)
        if not typed.inputs or typed.raw_input_contents:
            continue
        seen += 1
        again = decode_request(encode_request("m", raw))
        for name, array in raw.items():
            np.testing.assert_array_equal(again[name], array)
    assert seen > 50


def test_a_right_request_of_any_size_is_within_its_bounds() -> None:
    generator = Generator(3)
    for _ in range(200):
        check_bounds(generator.request().SerializeToString())
    large = {f"x{index}": np.zeros(2**20, np.float32) for index in range(8)}
    large["text"] = np.array([b"word"] * 200_000, object)
    check_bounds(encode_request("m", large).SerializeToString())


@pytest.mark.parametrize(
    ("head", "unit", "code"),
    [
        # Empty inputs, outputs and parameters; empty strings, dimensions; and elements in typed fields.
        (b"", b"\x2a\x00", ErrorCode.INPUT_INVALID),
        (b"", b"\x32\x00", ErrorCode.INPUT_INVALID),
        (b"", b"\x22\x00", ErrorCode.INPUT_INVALID),
        (b"", b"\x3a\x00", ErrorCode.INPUT_INVALID),
        (b"\x2a\x80\x80\x40\x2a\xfc\xff\x3f", b"\x42\x00", ErrorCode.INPUT_INVALID),
        (b"\x2a\x80\x80\x40\x1a\xfc\xff\x3f", b"\x01\x01", ErrorCode.INPUT_INVALID),
        (
            b"\x2a\x80\x80\xc0\x02\x2a\xfb\xff\xbf\x02\x22\xf6\xff\xbf\x02",
            b"\x01\x01",
            ErrorCode.MESSAGE_TOO_LARGE,
        ),
    ],
)
def test_a_message_that_asks_for_more_than_it_is_worth_is_refused_unparsed(
    head: bytes, unit: bytes, code: ErrorCode
) -> None:
    with pytest.raises(HybridgeError) as caught:
        check_bounds(head + unit * (3 * 2**20))
    assert caught.value.code is code


def test_changed_bytes_are_refused_or_read_and_never_do_more() -> None:
    generator = Generator(4)
    with Decoder() as decoder:
        for _ in range(2000):
            decoder.try_out(generator.bytes())
    # They are no use if all are refused by the parser, or none.
    assert decoder.outcomes["decoded"] > 200
    assert decoder.outcomes["no message"] > 100
    assert {"input-invalid", "input-shape", "input-dtype"} <= set(decoder.outcomes)


@pytest.fixture(scope="module")
def live(onnx_models: Path) -> Iterator[LiveEndpoint]:
    with Endpoint([onnx_models]) as endpoint, LiveEndpoint(endpoint.address) as live:
        yield live


def test_an_endpoint_that_is_sent_changed_bytes_answers_right_ones_between_them(live: LiveEndpoint) -> None:
    generator = Generator(5)
    for _ in range(500):
        live.try_out(generator.bytes())
    assert {"OK", "NOT_FOUND model-unknown", "INVALID_ARGUMENT input-invalid"} <= set(live.outcomes)
    assert live.outcomes["OK"] > 10


def test_the_fuzz_command_says_what_came_of_it() -> None:
    run = subprocess.run(
        [
            sys.executable,
            "-m",
            "tests.cloud_fallback.fuzz",
            *("--seconds", "0.3", "--seed", "7", "--target", "decoder"),
        ],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert run.returncode == 0, run.stderr
    said = json.loads(run.stdout)
    assert said["requests"] > 50
    assert sum(said["outcomes"]["decoder"].values()) == said["requests"]


@pytest.mark.heavy
def test_a_minute_of_changed_bytes_finds_nothing() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "tests.cloud_fallback.fuzz", *("--seconds", "60", "--seed", "8")],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.returncode == 0, run.stderr
    assert set(json.loads(run.stdout)["outcomes"]) == {"decoder", "endpoint"}
