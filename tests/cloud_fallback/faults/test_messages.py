"""Messages that are no requests: too large, endless, made to take memory, malformed, or about what there is not."""

from __future__ import annotations

import gzip
import random
import time
import zlib
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import grpc
import numpy as np
import pytest

from cloud_fallback.open_inference.open_inference_pb2 import ModelInferRequest
from cloud_fallback.open_inference.tensors import encode_request
from tests.cloud_fallback.faults.attacked import Attacked, X
from tests.cloud_fallback.faults.conftest import LIMIT
from tests.cloud_fallback.faults.fault_table import FaultTable
from tests.cloud_fallback.faults.http2 import DATA, INFER, frame, grpc_message

GIGABYTE = 2**30


def _status(call: Any, *arguments: Any, **options: Any) -> grpc.StatusCode:
    with pytest.raises(grpc.RpcError) as caught:
        call(*arguments, **options)
    status: grpc.StatusCode = caught.value.code()
    return status


def test_a_message_of_a_gigabyte_is_refused_at_its_first_bytes(
    attacked: Attacked, fault_table: FaultTable
) -> None:
    with attacked.memory() as memory:
        connection = attacked.connect()
        connection.call(1, None)
        connection.send(frame(DATA, 0, 1, grpc_message(b"", size=GIGABYTE)))
        part = frame(DATA, 0, 1, bytes(16_384))
        with suppress(OSError):
            # Until it takes no more.
            for _ in range(GIGABYTE // 16_384):
                connection.send(part)
        attacked.answers()
    assert memory.grew < 32
    fault_table(
        "a client sends a message of 1 GB, and does not stop when it is refused",
        "refused at its first bytes, and the rest not kept",
    )


@pytest.mark.heavy
def test_a_gigabyte_in_messages_over_the_limit_is_refused_one_by_one(
    attacked: Attacked, fault_table: FaultTable
) -> None:
    infer = attacked.own_channel().unary_unary(INFER)
    content = bytes(GIGABYTE // 16)
    with attacked.memory() as memory:
        statuses = {_status(infer, content, timeout=60) for _ in range(16)}
    assert statuses == {grpc.StatusCode.RESOURCE_EXHAUSTED}
    assert memory.grew < 64
    fault_table("a client sends 1 GB in messages over the limit", "each refused with RESOURCE_EXHAUSTED")


def test_a_stream_that_never_ends_is_answered_once_and_read_no_further(
    attacked: Attacked, fault_table: FaultTable
) -> None:
    large = encode_request("linear", {"x": np.zeros((300_000, 3), np.float32)}).SerializeToString()
    taken = 0

    def messages() -> Iterator[bytes]:
        nonlocal taken
        while True:
            taken += 1
            yield large

    with attacked.memory() as memory:
        response = attacked.own_channel().stream_unary(INFER)(messages(), timeout=60)
    assert len(response) > 300_000 * 8
    assert taken < 20
    assert memory.grew < 16 * len(large) / 2**20
    fault_table("a client streams requests without end in one call", "the first one answered, no more read")


@pytest.mark.parametrize(
    ("kind", "unit"),
    [("empty tensors", b"\x2a\x00"), ("empty outputs", b"\x32\x00"), ("empty contents", b"\x3a\x00")],
)
def test_a_small_message_that_asks_for_much_memory_is_refused(
    attacked: Attacked, fault_table: FaultTable, kind: str, unit: bytes
) -> None:
    message = b"\x0a\x06linear" + unit * ((LIMIT - 100) // len(unit))
    with attacked.memory() as memory:
        start = time.monotonic()
        assert _status(attacked.channel.unary_unary(INFER), message, timeout=60) is (
            grpc.StatusCode.INVALID_ARGUMENT
        )
        seconds = time.monotonic() - start
    # Parsed, it would take a gigabyte.
    assert memory.grew < 8 * LIMIT / 2**20
    assert seconds < 5
    fault_table(f"a message of 8 MB of {kind}", "refused before it was parsed")


def test_typed_contents_that_would_hold_everybody_up_are_refused(
    attacked: Attacked, fault_table: FaultTable
) -> None:
    request = ModelInferRequest(model_name="linear")
    tensor = request.inputs.add(name="x", datatype="UINT8", shape=[LIMIT - 1024])
    tensor.contents.uint_contents.extend(bytes(LIMIT - 1024))
    start = time.monotonic()
    status = _status(attacked.channel.unary_unary(INFER), request.SerializeToString(), timeout=60)
    assert status is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert time.monotonic() - start < 2
    fault_table("8 million elements in typed fields", "refused; raw contents of the size are read at once")


@pytest.mark.parametrize("coding", ["gzip", pytest.param("deflate", marks=pytest.mark.heavy)])
def test_a_message_that_grows_when_it_is_unpacked_is_refused(
    attacked: Attacked, fault_table: FaultTable, coding: str
) -> None:
    pack = gzip.compress if coding == "gzip" else zlib.compress
    bomb = pack(bytes(256 * 2**20), 1)
    assert len(bomb) < LIMIT
    with attacked.memory() as memory:
        connection = attacked.connect()
        connection.call(1, grpc_message(bomb, compressed=True), ("grpc-encoding", coding))
        answer = connection.read(20, b"grpc-status")
    assert b"grpc-status\x018" in answer, answer
    assert memory.grew < 8 * LIMIT / 2**20
    fault_table(
        f"{len(bomb) / 2**20:.0f} MB of {coding} that unpacks to 256 MB", "refused when the limit was passed"
    )


def test_random_bytes_are_no_message_and_no_crash(attacked: Attacked, fault_table: FaultTable) -> None:
    infer = attacked.channel.unary_unary(INFER)
    rng = random.Random(6)
    statuses = {_status(infer, rng.randbytes(rng.randrange(1, 4000)), timeout=20) for _ in range(300)}
    assert statuses <= {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND}
    for method in ("ServerLive", "ServerReady", "ModelReady", "ModelMetadata", "RepositoryIndex"):
        call = attacked.channel.unary_unary(f"/inference.GRPCInferenceService/{method}")
        assert _status(call, b"\xff" * 50, timeout=20) is grpc.StatusCode.INVALID_ARGUMENT
    assert _status(
        attacked.channel.unary_unary("/grpc.health.v1.Health/Check"), b"\xff" * 50, timeout=20
    ) is (grpc.StatusCode.INVALID_ARGUMENT)
    fault_table("random bytes as messages", "each INVALID_ARGUMENT, without a line in the log")


def test_requests_that_are_wrong_are_told_so(attacked: Attacked, fault_table: FaultTable) -> None:
    wrong: list[tuple[ModelInferRequest, grpc.StatusCode]] = []
    for name, version in (("none", ""), ("x" * 100_000, ""), ("../../etc/passwd", ""), ("linear", "9")):
        wrong.append((encode_request(name, {"x": X}, version=version), grpc.StatusCode.NOT_FOUND))
    for contents in ([bytes(23)], [bytes(24), b""]):
        request = encode_request("linear", {"x": X})
        request.raw_input_contents[:] = contents
        wrong.append((request, grpc.StatusCode.INVALID_ARGUMENT))
    for shape in ([2, 4], [-1, 3], [2**62, 2**62], [0, 3, 2**40], [1] * 40):
        request = encode_request("linear", {"x": X})
        request.inputs[0].shape[:] = shape
        wrong.append((request, grpc.StatusCode.INVALID_ARGUMENT))
    for request, status in wrong:
        assert _status(attacked.stub.ModelInfer, request, timeout=20) is status
    fault_table("unknown models and versions, wrong sizes and shapes", "each told what is wrong with it")
