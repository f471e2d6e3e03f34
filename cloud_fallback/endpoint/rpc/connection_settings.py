"""How an endpoint treats connections, so that nobody's idle or broken ones keep others out."""

from __future__ import annotations

import resource

__all__ = ["connection_options", "raise_file_limit"]

_MINUTE_MS = 60_000
_OPTIONS = (
    # Two endpoints on one port would each get half of the requests.
    ("grpc.so_reuseport", 0),
    # Who connects and does not speak, or does not end its handshake, goes.
    ("grpc.server_handshake_timeout_ms", 10_000),
    # A device that does not ask costs no connection; when it asks again it makes one.
    ("grpc.max_connection_idle_ms", 10 * _MINUTE_MS),
    # Then a device connects anew, without losing a call: to another replica perhaps, and its certificate is looked at
    # again. gRPC spreads this by a tenth.
    ("grpc.max_connection_age_ms", 30 * _MINUTE_MS),
    ("grpc.max_connection_age_grace_ms", 5 * _MINUTE_MS),
    # One that is half open is noticed while a call is under way; without calls it is idle, and pings would cost a
    # device bytes and battery.
    ("grpc.keepalive_time_ms", _MINUTE_MS),
    ("grpc.keepalive_timeout_ms", 20_000),
    # A device may ask as often whether the endpoint is still there; who does so more often is cut off.
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    # Calls on one connection; a client keeps further ones to itself until there is room. gRPC's protection from
    # overload counts a call for a moment longer than the client does, and breaks off calls that were right.
    ("grpc.max_concurrent_streams", 256),
    ("grpc.http.overload_protection", 0),
    # Calls that have come and that nobody has looked at yet: above that gRPC ends some of them, as CANCELLED, and all
    # that are twice as many. By default that begins at a thousand, where the gate tells each when to come again.
    ("grpc.server.max_pending_requests", 4096),
    ("grpc.server.max_pending_requests_hard_limit", 8192),
)
# Of the files that the process may have open, which models, logs and REST need some of.
_SHARE_OF_FILES = 0.4
# More connections than that take more memory than there is.
_MAX_FILES = 65_536


def raise_file_limit() -> None:
    """Lets the process open as many files as the system allows it, each connection being one.

    The limit that most systems begin with, of 1024, is for programs that use select().
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _MAX_FILES if hard == resource.RLIM_INFINITY else min(hard, _MAX_FILES)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def connection_options(*, max_message_bytes: int) -> list[tuple[str, int]]:
    """Options of a `grpc.server`.

    Args:
        max_message_bytes: Size of the largest message, either way; also of one that is compressed, when it is not.
    """
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    limited = () if files == resource.RLIM_INFINITY else (int(files * _SHARE_OF_FILES),)
    return [
        ("grpc.max_receive_message_length", max_message_bytes),
        ("grpc.max_send_message_length", max_message_bytes),
        *_OPTIONS,
        *(("grpc.max_allowed_incoming_connections", most) for most in limited),
    ]
