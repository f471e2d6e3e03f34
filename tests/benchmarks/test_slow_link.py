from __future__ import annotations

import socket
import socketserver
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest

from benchmarks.demo.slow_link import SlowLink


class _Echo(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        while content := self.request.recv(65536):
            self.request.sendall(content)


@pytest.fixture
def echo_port() -> Iterator[int]:
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Echo) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


def _exchange(port: int, content: bytes) -> tuple[bytes, float]:
    start = time.perf_counter()
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:

        def send() -> None:
            connection.sendall(content)
            connection.shutdown(socket.SHUT_WR)

        sender = threading.Thread(target=send)
        sender.start()
        received = b""
        while chunk := connection.recv(65536):
            received += chunk
        sender.join()
    return received, time.perf_counter() - start


def test_bytes_arrive_whole_and_late(echo_port: int) -> None:
    content = np.random.default_rng(0).bytes(2_000_000)
    with SlowLink(echo_port, delay_s=0.1) as link:
        received, seconds = _exchange(link.port, content)
    assert received == content
    # Late by the delay each way, once and not for every packet.
    assert 0.2 <= seconds < 1.5


def test_it_ends_with_connections_open_and_frees_its_port(echo_port: int) -> None:
    with SlowLink(echo_port, delay_s=5.0) as link:
        connection = socket.create_connection(("127.0.0.1", link.port), timeout=5)
        connection.sendall(b"on its way")
        started = time.perf_counter()
    assert time.perf_counter() - started < 2
    assert connection.recv(100) == b""
    connection.close()
    with pytest.raises(OSError):  # noqa: PT011 - refused, however this system says it
        socket.create_connection(("127.0.0.1", link.port), timeout=1)


def test_a_target_that_is_gone_closes_the_connection() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    with SlowLink(port, delay_s=0.01) as link:
        assert _exchange_closed(link.port)


def _exchange_closed(port: int) -> bool:
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        return connection.recv(10) == b""
