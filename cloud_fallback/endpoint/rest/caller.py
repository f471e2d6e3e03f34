"""Who waits for an answer, and how long still."""

from __future__ import annotations

import re
import time
from functools import partial

from aiohttp import web

from cloud_fallback.endpoint.access import Access, bearer
from cloud_fallback.endpoint.served.served_model import TimeLeft
from cloud_fallback.endpoint.server_tls import certificate_names
from cloud_fallback.endpoint.token_file import Scope
from edge_runtime.errors import ErrorCode, HybridgeError

__all__ = ["admitted", "given_header", "model_of", "peer_of", "time_left_of", "timeout_s"]

# As gRPC writes it (PROTOCOL-HTTP2.md, Timeout), and gateways from HTTP to gRPC take it.
_TIMEOUT_HEADER = "grpc-timeout"
_TIMEOUT = re.compile(r"([0-9]{1,8})([HMSmun])")
_UNITS_S = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}


def admitted(request: web.Request, access: Access | None, scope: Scope, model: str = "") -> str:
    """The name of the client that a request is from, once it is let in; empty for anybody.

    Args:
        request: The request, whose body is not read yet.
        access: Lets callers in; None for everybody.
        scope: What the request is for.
        model: The model that it is about.

    Raises:
        HybridgeError: `unauthenticated`, `not-permitted`, `cloud-overloaded`.
    """
    if access is None:
        return ""
    certificate = None if request.transport is None else request.transport.get_extra_info("peercert")
    return access.admit(
        bearer(request.headers.get("Authorization")),
        scope,
        partial(peer_of, request),
        model=model,
        certificate=() if certificate is None else certificate_names(certificate),
    )


def model_of(request: web.Request) -> tuple[str, str]:
    """Name and version of the model in a request's path.

    Raises:
        HybridgeError: `input-invalid` for what is no text.
    """
    name, version = request.match_info["model"], request.match_info.get("version", "")
    _check_text("path", name + version)
    return name, version


def given_header(request: web.Request, name: str) -> str:
    """A header that is text; empty without it.

    Raises:
        HybridgeError: `input-invalid` for one that is none.
    """
    value = request.headers.get(name, "")
    _check_text(f"header {name}", value)
    return value


def timeout_s(request: web.Request) -> float | None:
    """Seconds that the caller gives a request, by the header grpc-timeout such as ``50m``; None without it.

    Raises:
        HybridgeError: `input-invalid`.
    """
    value = given_header(request, _TIMEOUT_HEADER)
    if not value:
        return None
    parts = _TIMEOUT.fullmatch(value)
    if parts is None:
        raise HybridgeError(
            ErrorCode.INPUT_INVALID,
            f"header {_TIMEOUT_HEADER}",
            received=f"'{value[:32]}'",
            expected="at most 8 digits and one of H, M, S, m, u, n, such as 50m for 50 milliseconds",
        )
    return int(parts[1]) * _UNITS_S[parts[2]]


def time_left_of(request: web.Request, deadline: float | None) -> TimeLeft:
    """Tells, on any thread, how long the caller still waits: until `deadline` of `time.monotonic`, or it hangs up."""
    protocol = request.protocol

    def time_left() -> float | None:
        transport = protocol.transport
        if transport is None or transport.is_closing():
            return 0.0
        return None if deadline is None else deadline - time.monotonic()

    return time_left


def peer_of(request: web.Request) -> str:
    """Where a request came from, as ``host:port``."""
    address = request.protocol.peername
    if not isinstance(address, tuple):
        return ""
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _check_text(what: str, value: str) -> None:
    # Bytes that are none come from aiohttp as half of a surrogate pair.
    try:
        value.encode()
    except UnicodeEncodeError:
        raise HybridgeError(
            ErrorCode.INPUT_INVALID, what, received="bytes that are no UTF-8", expected="text"
        ) from None
