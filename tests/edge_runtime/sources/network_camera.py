"""A camera in the network: Motion JPEG over HTTP, as most of them and `mjpg-streamer` send it."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np

from tests.edge_runtime.sources.media import jpeg


class NetworkCamera(ThreadingHTTPServer):
    """Sends pictures of one colour until it is stopped; stopping cuts every connection."""

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, port: int = 0, fps: float = 50.0):
        self.on = True
        self.frozen = False
        self.fps = fps
        self.connections: list[socket.socket] = []
        super().__init__(("127.0.0.1", port), _Stream)
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://user:secret@127.0.0.1:{self.server_port}/stream.mjpg"

    def stop(self) -> None:
        self.on = False
        self.shutdown()
        self.server_close()
        for connection in self.connections:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:  # cut by the other side
                continue

    def handle_error(self, request: object, client_address: object) -> None:
        """The other side hangs up whenever it likes."""


class _Stream(BaseHTTPRequestHandler):
    server: NetworkCamera

    def do_GET(self) -> None:
        self.server.connections.append(self.connection)
        picture = jpeg(np.full((48, 64, 3), (200, 40, 10), np.uint8))
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        while self.server.on:
            if not self.server.frozen:
                head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(picture)}\r\n\r\n"
                self.wfile.write(head.encode() + picture + b"\r\n")
            time.sleep(1 / self.server.fps)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Nobody reads it."""


@contextmanager
def network_camera(port: int = 0, fps: float = 50.0) -> Iterator[NetworkCamera]:
    camera = NetworkCamera(port, fps)
    try:
        yield camera
    finally:
        camera.stop()
