"""Connections that are not used as they are meant: rubbish, floods, stalls, and clients that do not read."""

from __future__ import annotations

import random
import time
from contextlib import suppress

import grpc
import numpy as np
import pytest

from cloud_fallback.open_inference.tensors import encode_request
from tests.cloud_fallback.faults.attacked import Attacked, until
from tests.cloud_fallback.faults.fault_table import FaultTable
from tests.cloud_fallback.faults.http2 import (
    CANCEL,
    CONTINUATION,
    END_HEADERS,
    HEADERS,
    INFER,
    PING,
    PREFACE,
    RST_STREAM,
    SETTINGS,
    RawConnection,
    frame,
    grpc_message,
    header_block,
)

OK = grpc.StatusCode.OK


def test_rubbish_on_a_connection_closes_that_and_nothing_else(
    attacked: Attacked, fault_table: FaultTable
) -> None:
    rng = random.Random(6)
    with attacked.memory() as memory:
        for _ in range(100):
            connection = attacked.connect(speaks=False)
            connection.send(rng.randbytes(rng.randrange(30, 3000)))
            assert connection.is_closed(5)
            connection = attacked.connect()
            try:
                for _ in range(20):
                    connection.send(
                        frame(
                            rng.randrange(12),
                            rng.randrange(256),
                            rng.randrange(8),
                            rng.randbytes(rng.randrange(60)),
                        )
                    )
            except OSError:
                # Closed already.
                continue
        attacked.answers()
    assert memory.grew < 32
    fault_table("random bytes, and random HTTP/2 frames, on 200 connections", "those connections closed")


def _flood(connection: RawConnection, content: bytes, times: int) -> None:
    """Sends the same again and again, while it is taken."""
    with suppress(OSError):
        for _ in range(times):
            connection.send(content)


def test_floods_of_frames_that_cost_nothing_to_send_are_bounded(
    attacked: Attacked, fault_table: FaultTable
) -> None:
    with attacked.memory() as memory:
        _flood(attacked.connect(), frame(PING, 0, 0, b"12345678") * 100, 500)
        _flood(attacked.connect(), frame(SETTINGS, 0, 0) * 100, 200)
        endless = attacked.connect()
        endless.send(frame(HEADERS, 0, 1, header_block()))
        _flood(endless, frame(CONTINUATION, 0, 1, header_block(INFER, ("name", "v" * 8000))), 1000)
        attacked.answers()
    assert memory.grew < 64
    fault_table(
        "floods of PING, SETTINGS and CONTINUATION frames",
        "cut off, or read and forgotten; others answered meanwhile",
    )


def test_calls_that_are_begun_and_broken_off_at_once_are_survived(
    attacked: Attacked, fault_table: FaultTable
) -> None:
    connection, block = attacked.connect(), header_block()
    with attacked.memory() as memory:
        for number in range(5000):
            stream = 2 * number + 1
            connection.send(
                frame(HEADERS, END_HEADERS, stream, block)
                + frame(RST_STREAM, 0, stream, CANCEL.to_bytes(4, "big"))
            )
        waited = attacked.answers(30)
    assert memory.grew < 256
    fault_table(
        "5,000 calls begun and broken off at once (CVE-2023-44487)",
        f"a request in the midst of them was answered after {waited:.1f} s",
    )


def test_headers_over_the_limit_end_the_call(attacked: Attacked, fault_table: FaultTable) -> None:
    connection = attacked.connect()
    block = header_block(INFER, ("large", "v" * 200_000))
    connection.send(frame(HEADERS, 0, 1, block[:16_000]))
    for start in range(16_000, len(block), 16_000):
        is_last = start + 16_000 >= len(block)
        connection.send(frame(CONTINUATION, END_HEADERS if is_last else 0, 1, block[start : start + 16_000]))
    assert b"grpc-status\x018" in connection.read(10, b"grpc-status")
    fault_table("a header of 200 KB", "refused with RESOURCE_EXHAUSTED")


def test_idle_connections_keep_nobody_out(attacked: Attacked, fault_table: FaultTable) -> None:
    with attacked.memory() as memory:
        for _ in range(150):
            attacked.connect()
            # Nothing at all, and half of what a connection begins with.
            attacked.connect(speaks=False)
            attacked.connect(speaks=False).send(PREFACE[:10])
        waited = attacked.answers()
    assert waited < 2
    assert memory.grew < 64
    fault_table("450 connections opened and left idle", f"others answered in {waited * 1e3:.0f} ms")


@pytest.mark.heavy
def test_connections_that_never_begin_to_speak_are_closed(
    attacked: Attacked, fault_table: FaultTable
) -> None:
    silent, half = attacked.connect(speaks=False), attacked.connect(speaks=False)
    half.send(PREFACE[:10])
    start = time.monotonic()
    assert silent.is_closed(15)
    assert half.is_closed(15)
    assert time.monotonic() - start > 5
    fault_table("connections that never begin to speak", "closed after 10 s")


HEALTH = "/grpc.health.v1.Health"


@pytest.mark.parametrize(
    ("path", "count"),
    [
        (INFER, 100),
        # More than there are places, on either way.
        pytest.param(INFER, 1000, marks=pytest.mark.heavy),
        (f"{HEALTH}/Check", 40),
        pytest.param(f"{HEALTH}/Check", 300, marks=pytest.mark.heavy),
        pytest.param(f"{HEALTH}/Watch", 300, marks=pytest.mark.heavy),
    ],
)
def test_requests_that_are_sent_half_keep_nobody_out(
    attacked: Attacked, fault_table: FaultTable, path: str, count: int
) -> None:
    with attacked.memory() as memory:
        for number in range(count):
            if number % 100 == 0:
                connection = attacked.connect()
            stream = 2 * (number % 100) + 1
            connection.call(stream, None, path=path)
            connection.data(stream, grpc_message(b"abc", size=100))
        waited = attacked.answers_in_the_end(30)
    assert waited < (1 if path == INFER and count == 100 else 8)
    assert memory.grew < 300
    fault_table(
        f"{count} calls of {path.rpartition('/')[2]} of which half is sent",
        f"others answered after {waited:.1f} s",
    )


def test_who_does_not_read_its_answers_takes_bounded_memory(
    attacked: Attacked, fault_table: FaultTable
) -> None:
    # An answer of a megabyte each.
    request = encode_request("ones", {"shape": np.array([2**18])}).SerializeToString()
    no_window = (4).to_bytes(2, "big") + (0).to_bytes(4, "big")

    def attack() -> float:
        """The seconds that others wait for an answer meanwhile."""
        for number in range(5):
            connection = attacked.connect(settings=no_window if number % 2 else b"")
            for call in range(100):
                connection.call(2 * call + 1, grpc_message(request))
        waited = attacked.answers_in_the_end(60)
        # Who reads its answer gets it, if not at once: others' requests wait for the same model.
        until(lambda: attacked.channel.unary_unary(INFER).future(request, timeout=60).code() is OK, 10)
        return waited

    with attacked.memory() as first:
        waited = attack()
    attacked.hang_up()
    with attacked.memory() as second:
        attack()
    # 500 MB if all were kept; some are in the making.
    assert first.grew < 350
    # What was taken is used again.
    assert second.peak < first.before + 350
    fault_table(
        "500 answers of 1 MB that nobody reads",
        f"32 MB of them were kept, and the calls of the others ended; others answered after {waited:.1f} s",
    )
