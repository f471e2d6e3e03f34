"""HTTP/2 and gRPC as bytes on a socket, as a client writes them that does not keep to the rules.

Frames are those of RFC 9113, headers are literals without indexing (RFC 7541, section 6.2.2), and messages have gRPC's
five bytes before them (PROTOCOL-HTTP2.md). What comes back is not understood, only read.
"""

from __future__ import annotations

import socket
import time
from types import TracebackType
from typing import Self

__all__ = ["DATA", "HEADERS", "INFER", "RawConnection", "frame", "grpc_message", "header_block"]

INFER = "/inference.GRPCInferenceService/ModelInfer"
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, WINDOW_UPDATE, CONTINUATION = 0x0, 0x1, 0x3, 0x4, 0x6, 0x8, 0x9
END_STREAM, ACK, END_HEADERS = 0x1, 0x1, 0x4
CANCEL = 8
_MAX_FRAME = 16_384
_WINDOW = 65_535
_INITIAL_WINDOW_SIZE = 4


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """One frame."""
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def header_block(path: str = INFER, *more: tuple[str, str]) -> bytes:
    """The headers of a call."""
    headers = (
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "endpoint"),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
        *more,
    )
    return b"".join(b"\0" + _string(name) + _string(value) for name, value in headers)


def grpc_message(content: bytes, *, compressed: bool = False, size: int | None = None) -> bytes:
    """A message with its prefix, which may tell another size than it has."""
    return bytes((compressed,)) + (len(content) if size is None else size).to_bytes(4, "big") + content


class RawConnection:
    """A connection on which anything can be sent.

    Args:
        address: The endpoint's ``host:port``.
        settings: Payload of the SETTINGS frame, such as a window of nothing.
        speaks: Whether it begins as HTTP/2 does.
        source: The address that it comes from.
    """

    def __init__(
        self, address: str, *, settings: bytes = b"", speaks: bool = True, source: str = "127.0.0.1"
    ):
        host, _, port = address.rpartition(":")
        self.socket = socket.create_connection((host, int(port)), 20, (source, 0))
        if speaks:
            self.send(PREFACE + frame(SETTINGS, 0, 0, settings) + frame(SETTINGS, ACK, 0))

    def send(self, content: bytes) -> None:
        self.socket.sendall(content)

    def call(self, stream: int, content: bytes | None, *more: tuple[str, str], path: str = INFER) -> None:
        """Begins a call, and with content also sends that and says that it was all."""
        self.send(frame(HEADERS, END_HEADERS, stream, header_block(path, *more)))
        if content is not None:
            self.data(stream, content, end=True)

    def data(self, stream: int, content: bytes, *, end: bool = False) -> None:
        """Sends content, whatever the windows say."""
        for start in range(0, len(content), _MAX_FRAME):
            part = content[start : start + _MAX_FRAME]
            is_last = end and start + _MAX_FRAME >= len(content)
            self.send(frame(DATA, END_STREAM if is_last else 0, stream, part))

    def data_as_allowed(self, stream: int, content: bytes, seconds: float) -> int:
        """Sends content as the endpoint's windows allow; returns how much went in the time, or until it hung up."""
        windows, received, sent = {0: _WINDOW, stream: _WINDOW}, b"", 0
        limit = time.monotonic() + seconds
        try:
            while sent < len(content) and (left := limit - time.monotonic()) > 0:
                if room := min(*windows.values(), len(content) - sent, _MAX_FRAME):
                    self.send(frame(DATA, 0, stream, content[sent : sent + room]))
                    sent += room
                    windows = {each: window - room for each, window in windows.items()}
                    continue
                self.socket.settimeout(left)
                part = self.socket.recv(65_536)
                if not part:
                    break
                received = _opened(received + part, windows, stream)
        except OSError:
            pass
        return sent

    def read(self, seconds: float, until: bytes = b"\0no such bytes\0") -> bytes:
        """What comes within a time, or until some bytes do, or the connection is closed."""
        received, limit = b"", time.monotonic() + seconds
        while until not in received and (left := limit - time.monotonic()) > 0:
            self.socket.settimeout(left)
            try:
                part = self.socket.recv(65_536)
            except TimeoutError:
                break
            except ConnectionError:
                return received
            if not part:
                break
            received += part
        return received

    def is_closed(self, seconds: float) -> bool:
        """Whether the endpoint closes the connection within a time."""
        limit = time.monotonic() + seconds
        while (left := limit - time.monotonic()) > 0:
            self.socket.settimeout(left)
            try:
                if not self.socket.recv(65_536):
                    return True
            except TimeoutError:
                return False
            except ConnectionError:
                return True
        return False

    def close(self) -> None:
        self.socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _opened(received: bytes, windows: dict[int, int], stream: int) -> bytes:
    """Takes what whole frames say of windows; returns the rest."""
    while len(received) >= 9 and len(received) >= 9 + (size := int.from_bytes(received[:3], "big")):
        kind, number, payload = received[3], int.from_bytes(received[5:9], "big"), received[9 : 9 + size]
        if kind == WINDOW_UPDATE and number in windows:
            windows[number] += int.from_bytes(payload, "big")
        elif kind == SETTINGS:
            for start in range(0, size, 6):
                if int.from_bytes(payload[start : start + 2], "big") == _INITIAL_WINDOW_SIZE:
                    windows[stream] += int.from_bytes(payload[start + 2 : start + 6], "big") - _WINDOW
        elif kind == RST_STREAM:
            raise ConnectionResetError
        received = received[9 + size :]
    return received


def _string(text: str) -> bytes:
    content = text.encode()
    if len(content) < 127:
        return bytes((len(content),)) + content
    # An integer of 7 bits and more (RFC 7541, section 5.1).
    rest, encoded = len(content) - 127, bytearray([127])
    while rest >= 128:
        encoded.append(rest & 127 | 128)
        rest >>= 7
    encoded.append(rest)
    return bytes(encoded) + content
