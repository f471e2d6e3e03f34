"""Unary gRPC calls at the level of HTTP/2 frames, all with the same request: what a load generator needs, and no more.

gRPC's own client takes more of the processor for a call than some of the servers do, and would be what is measured.
Here the request is encoded once and an answer's frames are only counted, except for those that are kept to be checked.

Frames and flow control are RFC 9113, header fields RFC 7541, calls gRPC's own "gRPC over HTTP2". Header compression is
switched off by the setting for it, so that a status is read without the peer's dynamic table.
"""

from __future__ import annotations

import re
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from edge_runtime.errors import ErrorCode, HybridgeError

__all__ = ["RESET", "UNKNOWN", "Call", "Connection"]

# In place of a status, for a stream that the server reset, and for trailers without one.
RESET, UNKNOWN = -1, -2

_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, _GOAWAY, _WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
_ACK = _END_STREAM = 1
_END_HEADERS, _PADDED = 4, 8
_HEADER_TABLE_SIZE, _ENABLE_PUSH, _INITIAL_WINDOW_SIZE, _MAX_FRAME_SIZE = 1, 2, 4, 5
_FRAME_HEADER_BYTES = 9
_LARGEST_WINDOW = 2**31 - 1
_DEFAULT_WINDOW = 2**16 - 1
_DEFAULT_FRAME = 2**14
_BUFFER_BYTES = 2**20
# A window that is given back in small pieces is a write for each of them.
_GIVE_BACK_BYTES = 2**26
_STATUS = re.compile(rb"\x0bgrpc-status[\x01\x02](\d{1,2})")


@dataclass(slots=True)
class Call:
    """One call.

    Attributes:
        started: When it was due, in seconds of `time.perf_counter`.
        ended: When its status had come.
        status: gRPC's number for how it ended, `RESET` or `UNKNOWN`.
        content: The answer's message, when it was to be kept.
    """

    started: float
    content: bytearray | None = None
    ended: float = 0.0
    status: int = UNKNOWN
    sent: int = 0
    window: int = 0


@dataclass(slots=True)
class _Outgoing:
    """What is to be written, and what the peer lets us send."""

    content: bytearray = field(default_factory=bytearray)
    window: int = _DEFAULT_WINDOW
    stream_window: int = _DEFAULT_WINDOW
    max_frame: int = _DEFAULT_FRAME


class Connection:
    """One connection to a server, in clear, for calls of one method.

    Args:
        address: The server, as ``host:port``.
        method: Full name of the method, such as ``/inference.GRPCInferenceService/ModelInfer``.
        request: The encoded request of every call.
        on_end: Called with each call that ended.
        timeout_s: The deadline that the server is told.

    Raises:
        HybridgeError: `cloud-unavailable` when nothing listens there, and from `receive` when the server hangs up.
    """

    def __init__(
        self,
        address: str,
        method: str,
        request: bytes,
        *,
        on_end: Callable[[Connection, Call], None],
        timeout_s: float | None = None,
    ):
        self._address = address
        self._on_end = on_end
        host, _, port = address.rpartition(":")
        try:
            self.socket = socket.create_connection((host, int(port)))
        except OSError as error:
            raise self._gone(str(error)) from error
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self._headers = _request_headers(address, method, timeout_s)
        self._message = memoryview(b"\0" + len(request).to_bytes(4, "big") + request)
        self._calls: dict[int, Call] = {}
        self._unsent: dict[int, Call] = {}
        self._next_stream = 1
        self._out = _Outgoing()
        self._out.content += b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _first_frames()
        self._buffer = memoryview(bytearray(_BUFFER_BYTES))
        self._filled = 0
        # The stream of the DATA frame that is being read, and how much of it is still to come.
        self._data_stream, self._data_left = 0, 0
        self._taken = 0

    def fileno(self) -> int:
        """The socket's, for a selector."""
        return self.socket.fileno()

    @property
    def in_flight(self) -> int:
        """Calls that have not ended."""
        return len(self._calls)

    def call(self, *, started: float | None = None, keep: bool = False) -> None:
        """Begins a call; `flush` sends what there is of it.

        Args:
            started: When it was due, if not now.
            keep: Whether to keep the answer.
        """
        stream, self._next_stream = self._next_stream, self._next_stream + 2
        call = Call(time.perf_counter() if started is None else started, bytearray() if keep else None)
        call.window = self._out.stream_window
        self._calls[stream] = self._unsent[stream] = call
        self._out.content += _frame(_HEADERS, _END_HEADERS, stream, self._headers)
        self._send_messages()

    def flush(self) -> bool:
        """Writes what can be written without waiting; returns whether that was all."""
        content = self._out.content
        while content:
            try:
                written = self.socket.send(content)
            except BlockingIOError:
                return False
            except OSError as error:
                raise self._gone(str(error)) from error
            del content[:written]
        return True

    def receive(self) -> None:
        """Reads what has come, and ends the calls that it completes."""
        try:
            count = self.socket.recv_into(self._buffer[self._filled :])
        except BlockingIOError:
            return
        except OSError as error:
            raise self._gone(str(error)) from error
        if not count:
            raise self._gone("the end of the connection")
        end = self._filled + count
        start = self._read(self._buffer[:end])
        self._filled = end - start
        self._buffer[: self._filled] = bytes(self._buffer[start:end])
        if self._taken > _GIVE_BACK_BYTES:
            self._out.content += _frame(_WINDOW_UPDATE, 0, 0, self._taken.to_bytes(4, "big"))
            self._taken = 0

    def close(self) -> None:
        """Closes the connection; calls in flight never end."""
        self.socket.close()

    def _read(self, content: memoryview) -> int:
        """Reads frames, and returns where the first one begins that is not whole."""
        at, end = 0, len(content)
        while True:
            if self._data_left:
                # Messages are large, and are not waited for as a whole.
                part = content[at : at + self._data_left]
                call = self._calls.get(self._data_stream)
                if call is not None and call.content is not None:
                    call.content += part
                at += len(part)
                self._data_left -= len(part)
            if end - at < _FRAME_HEADER_BYTES:
                return at
            length = int.from_bytes(content[at : at + 3], "big")
            kind, flags = content[at + 3], content[at + 4]
            stream = int.from_bytes(content[at + 5 : at + 9], "big")
            if kind == _DATA and not flags & _PADDED:
                self._data_stream, self._data_left = stream, length
                self._taken += length
                at += _FRAME_HEADER_BYTES
                continue
            after = at + _FRAME_HEADER_BYTES + length
            if after > end:
                return at
            self._handle(kind, flags, stream, bytes(content[at + _FRAME_HEADER_BYTES : after]))
            at = after

    def _handle(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == _HEADERS:
            if flags & _END_STREAM:
                found = _STATUS.search(payload)
                self._end(stream, int(found[1]) if found else UNKNOWN)
        elif kind == _WINDOW_UPDATE:
            self._widen(stream, int.from_bytes(payload, "big"))
        elif kind == _SETTINGS and not flags & _ACK:
            self._apply(payload)
        elif kind == _PING and not flags & _ACK:
            self._out.content += _frame(_PING, _ACK, 0, payload)
        elif kind == _RST_STREAM:
            self._end(stream, RESET)
        elif kind in (_GOAWAY, _DATA):
            raise self._gone(f"a frame of type {kind}: {payload!r}")

    def _end(self, stream: int, status: int) -> None:
        self._unsent.pop(stream, None)
        call = self._calls.pop(stream, None)
        if call is not None:
            call.ended, call.status = time.perf_counter(), status
            self._on_end(self, call)

    def _widen(self, stream: int, by: int) -> None:
        if not stream:
            self._out.window += by
        elif stream in self._unsent:
            self._unsent[stream].window += by
        self._send_messages()

    def _apply(self, settings: bytes) -> None:
        for key, value in struct.iter_unpack(">HI", settings):
            if key == _INITIAL_WINDOW_SIZE:
                for call in self._unsent.values():
                    call.window += value - self._out.stream_window
                self._out.stream_window = value
            elif key == _MAX_FRAME_SIZE:
                self._out.max_frame = value
        self._out.content += _frame(_SETTINGS, _ACK, 0)
        self._send_messages()

    def _send_messages(self) -> None:
        """Puts as much of the requests into frames as the peer has room for."""
        out, message = self._out, self._message
        for stream in list(self._unsent):
            call = self._unsent[stream]
            while (size := min(out.window, call.window, out.max_frame, len(message) - call.sent)) > 0:
                is_last = call.sent + size == len(message)
                out.content += _frame_header(_DATA, _END_STREAM if is_last else 0, stream, size)
                out.content += message[call.sent : call.sent + size]
                call.sent += size
                call.window -= size
                out.window -= size
            if call.sent == len(message):
                del self._unsent[stream]
            if out.window <= 0:
                return

    def _gone(self, received: str) -> HybridgeError:
        return HybridgeError(ErrorCode.CLOUD_UNAVAILABLE, f"server at {self._address}", received=received)


def _frame_header(kind: int, flags: int, stream: int, length: int) -> bytes:
    return length.to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big")


def _frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return _frame_header(kind, flags, stream, len(payload)) + payload


def _first_frames() -> bytes:
    settings = {
        _HEADER_TABLE_SIZE: 0,
        _ENABLE_PUSH: 0,
        _INITIAL_WINDOW_SIZE: _LARGEST_WINDOW,
        _MAX_FRAME_SIZE: 2**24 - 1,
    }
    payload = b"".join(struct.pack(">HI", key, value) for key, value in settings.items())
    window = (_LARGEST_WINDOW - _DEFAULT_WINDOW).to_bytes(4, "big")
    return _frame(_SETTINGS, 0, 0, payload) + _frame(_WINDOW_UPDATE, 0, 0, window)


def _request_headers(address: str, method: str, timeout_s: float | None) -> bytes:
    fields = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", method),
        (":authority", address),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
    ]
    if timeout_s is not None:
        fields.append(("grpc-timeout", f"{timeout_s * 1e3:.0f}m"))
    return b"".join(_literal(name.encode(), value.encode()) for name, value in fields)


def _literal(name: bytes, value: bytes) -> bytes:
    """A field without indexing; both are short enough for a length of one byte."""
    return b"\0" + bytes((len(name),)) + name + bytes((len(value),)) + value
