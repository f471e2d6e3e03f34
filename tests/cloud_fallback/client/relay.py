"""A relay between a client and a peer on loopback that counts bytes, falls silent either way, or breaks off."""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import threading
from types import TracebackType
from typing import Self


class Relay:
    """Listens on a port of its own and passes bytes on to another.

    Attributes:
        port: Where it listens.
        sent: Bytes from the client to the peer.
        received: Bytes from the peer to the client.
        holds_sent: While true, nothing of the client's is passed on.
        holds_received: While true, nothing of the peer's is.
    """

    def __init__(self, target_port: int):
        self._target_port = target_port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._is_over = False
        self.port: int = self._listener.getsockname()[1]
        self.sent = 0
        self.received = 0
        self.holds_sent = False
        self.holds_received = False

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def reset(self) -> None:
        """Breaks off all connections, as a router does that has forgotten them."""
        sockets, self._sockets = self._sockets, []
        for each in sockets:
            with contextlib.suppress(OSError):
                each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                each.shutdown(socket.SHUT_RD)

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_over = True
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RD)
        self._listener.close()
        self.reset()
        for thread in self._threads:
            thread.join(5)

    def _start(self, target: object, *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._is_over:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(("127.0.0.1", self._target_port), 5)
            except OSError:
                near.close()
                continue
            self._sockets += [near, far]
            self._start(self._pump, near, far)

    def _pump(self, near: socket.socket, far: socket.socket) -> None:
        with near, far, contextlib.suppress(OSError, ValueError):
            while not self._is_over:
                # What is held stays in the system's buffers, so that the other side sees a window that closes.
                readers = [near] * (not self.holds_sent) + [far] * (not self.holds_received)
                for reader in select.select(readers, [], [], 0.02)[0]:
                    content = reader.recv(65536)
                    if not content:
                        return
                    if reader is near:
                        self.sent += len(content)
                        far.sendall(content)
                    else:
                        self.received += len(content)
                        near.sendall(content)
