"""REST against callers who do not mean well, or do not speak HTTP: over raw sockets."""

from __future__ import annotations

import http.client
import json
import logging
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress

import pytest

pytest.importorskip("aiohttp", reason="needs the 'serve' extra")

from cloud_fallback.endpoint.rest import RestServer
from cloud_fallback.endpoint.rest.patience import Patience
from cloud_fallback.endpoint.telemetry import Telemetry, Transport
from tests.cloud_fallback.endpoint.rest_models import Echo, served

IDLE_S, STALL_S = 0.6, 0.4
LIMIT = 2**20
BODY = b'{"inputs": [{"name": "FP32", "datatype": "FP32", "shape": [1], "data": [1]}], "outputs": [{"name": "FP32"}]}'
HEAD = b"POST /v2/models/echo/infer HTTP/1.1\r\nHost: x\r\n"


@pytest.fixture(scope="module")
def server() -> Iterator[RestServer]:
    with served(
        Echo(),
        max_body_bytes=LIMIT,
        max_connections=60,
        idle_s=IDLE_S,
        patience=Patience(STALL_S),
        telemetry=Telemetry(),
    ) as server:
        yield server


def _connect(server: RestServer) -> socket.socket:
    return socket.create_connection((server.host, server.port), timeout=10)


def _post(body: bytes = BODY, *headers: bytes) -> bytes:
    return b"%b%bContent-Length: %d\r\n\r\n%b" % (
        HEAD,
        b"".join(each + b"\r\n" for each in headers),
        len(body),
        body,
    )


def _answer(server: RestServer, request: bytes) -> bytes:
    """All that comes back until the server closes, or has said all."""
    with _connect(server) as caller:
        caller.sendall(request)
        return _received(caller)


def _received(caller: socket.socket) -> bytes:
    got = b""
    while chunk := caller.recv(2**16):
        got += chunk
        head, end, body = got.partition(b"\r\n\r\n")
        sizes = [
            int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")
        ]
        if end and sizes and len(body) >= sizes[0]:
            break
    return got


def _status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1]) if answer else 0


def _serves(server: RestServer) -> bool:
    return _status(_answer(server, _post())) == 200


def _open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def _until(condition: Callable[[], bool], seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.parametrize(
    "request_",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET /v2 HTTP/1.1\r\n\r\n",
        b"GET /v2/models/\xff HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        HEAD + b"X: " + b"a" * 20_000 + b"\r\n\r\n",
        HEAD + b"".join(b"X%d: a\r\n" % index for index in range(500)) + b"\r\n",
        HEAD + b"X: a\0b\r\n\r\n",
        HEAD + b"Content-Length: -5\r\n\r\n",
        HEAD + b"Content-Length: " + b"9" * 40 + b"\r\n\r\n",
        HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
        HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n0\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n-1\r\nabc\r\n0\r\n\r\n",
        _post(b""),
        _post(b"hello"),
        _post(b"\xff" * 100),
        _post(b"[" * LIMIT),
    ],
)
def test_what_is_no_request_is_refused_without_a_word_in_the_log(
    server: RestServer, request_: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        assert _status(_answer(server, request_)) == 400
    assert caplog.records == []
    assert _serves(server)


@pytest.mark.parametrize(
    "path", [b"/", b"/v2/../v2", b"/v2/models//infer", b"/v2/models/a/b/c/infer", b"/metrics"]
)
def test_paths_that_are_not_there_are_not_found(server: RestServer, path: bytes) -> None:
    assert (
        _status(_answer(server, b"POST " + path + b" HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"))
        == 404
    )


def test_a_body_in_chunks_is_read_and_one_that_becomes_too_large_is_not(server: RestServer) -> None:
    chunked = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
    pieces = b"".join(
        b"%x\r\n%b\r\n" % (len(BODY[at : at + 9]), BODY[at : at + 9]) for at in range(0, len(BODY), 9)
    )
    assert _status(_answer(server, chunked + pieces + b"0\r\n\r\n")) == 200
    piece = b"10000\r\n" + b" " * 2**16 + b"\r\n"
    assert _status(_answer(server, chunked + piece * (LIMIT // 2**16 + 1))) == 413


def test_a_gigabyte_is_refused_when_it_is_announced(server: RestServer) -> None:
    begin = time.monotonic()
    assert _status(_answer(server, HEAD + b"Content-Length: 1073741824\r\n\r\n")) == 413
    assert time.monotonic() - begin < 1


def test_who_sends_all_before_reading_still_hears_why_it_was_refused(server: RestServer) -> None:
    connection = http.client.HTTPConnection(server.host, server.port, timeout=10)
    connection.request("POST", "/v2/models/echo/infer", body=b" " * (8 * LIMIT))
    response = connection.getresponse()
    assert (response.status, json.loads(response.read())["error"][:19]) == (413, "body of the request")
    connection.close()


@pytest.mark.parametrize("sent", [b"", b"POST /v2/mod", HEAD, HEAD + b"X: a\r\n"])
def test_who_opens_and_stalls_is_shut_out(server: RestServer, sent: bytes) -> None:
    begin = time.monotonic()
    assert _answer(server, sent) == b""
    assert IDLE_S * 0.8 < time.monotonic() - begin < IDLE_S + 3


def test_bytes_that_come_one_by_one_do_not_keep_a_head_alive(server: RestServer) -> None:
    begin = time.monotonic()
    with _connect(server) as caller, suppress(ConnectionError):
        while time.monotonic() < begin + IDLE_S + 5:
            caller.sendall(b"X: a\r\n" if time.monotonic() > begin + 0.02 else HEAD)
            time.sleep(0.02)
    assert time.monotonic() - begin < IDLE_S + 3


def test_a_body_that_stalls_is_given_up(server: RestServer) -> None:
    begin = time.monotonic()
    assert _status(_answer(server, HEAD + b"Content-Length: 100\r\n\r\nabc")) == 408
    assert time.monotonic() - begin < STALL_S + 3


def test_who_breaks_off_in_the_middle_leaves_nothing_behind(server: RestServer) -> None:
    for _ in range(50):
        with _connect(server) as caller:
            caller.sendall(HEAD + b"Content-Length: 100000\r\n\r\n" + b"a" * 50_000)
    # A busy server may not have heard of all their ends, and has room for 60 connections.
    _until(lambda: _closed_or_serves(server))


def test_an_answer_that_nobody_reads_is_given_up() -> None:
    # More than the system takes from the server on its own account.
    size = 12_000_000
    tensor = {"name": "UINT8", "datatype": "UINT8", "shape": [size], "parameters": {"binary_data_size": size}}
    body = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    request = _post(body + bytes(size), b"Inference-Header-Content-Length: %d" % len(body))
    with (
        served(Echo(), patience=Patience(0.5, bytes_per_s=100_000_000)) as server,
        _connect(server) as caller,
    ):
        caller.sendall(request)
        _until(lambda: bool(caller.recv(1, socket.MSG_PEEK)))
        files = _open_files()
        _until(lambda: _open_files() < files)
        assert _serves(server)


def test_more_connections_than_there_is_room_for_are_closed_and_those_there_go_on() -> None:
    files = _open_files()
    with served(Echo(), max_connections=60) as server, ExitStack() as stack:
        kept = stack.enter_context(_connect(server))
        kept.sendall(_post())
        assert _status(_received(kept)) == 200
        others = [stack.enter_context(_connect(server)) for _ in range(300)]
        # Ours, those that were taken, and what the server has open besides.
        _until(lambda: _open_files() - files <= len(others) + 1 + 60 + 10)
        kept.sendall(_post())
        assert _status(_received(kept)) == 200
        for other in others:
            other.close()
        _until(lambda: _closed_or_serves(server))


def test_bodies_held_at_once_are_bounded() -> None:
    telemetry = Telemetry()
    with served(Echo(), max_body_bytes=LIMIT, telemetry=telemetry) as server, ExitStack() as stack:
        for _ in range(12):
            caller = stack.enter_context(_connect(server))
            caller.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % LIMIT + b" " * (LIMIT - 1))

        def codes() -> dict[str, int]:
            return {code: count for each in telemetry.figures().series for code, count in each.codes.items()}

        # Four are held; those that came when there was no room have been told.
        _until(lambda: codes().get("cloud-overloaded", 0) >= 12 - 4)
        assert set(codes()) == {"cloud-overloaded"}
        assert telemetry.figures().in_flight[Transport.REST] <= 4


def test_a_thousand_requests_at_once_are_all_answered() -> None:
    with served(Echo(), max_connections=400, max_waiting=30) as server, ExitStack() as stack:
        callers = [stack.enter_context(_connect(server)) for _ in range(200)]
        for _ in range(5):
            for caller in callers:
                caller.sendall(_post())
            assert {_status(_received(caller)) for caller in callers} <= {200, 429}
        assert _serves(server)


def _closed_or_serves(server: RestServer) -> bool:
    try:
        return _serves(server)
    except OSError:
        return False
