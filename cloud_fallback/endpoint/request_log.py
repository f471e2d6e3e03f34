"""One line of JSON for each request: who asked which model, how it ended and how long it took; never what was in it."""

from __future__ import annotations

import itertools
import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TextIO

import msgspec

from cloud_fallback.endpoint.telemetry import OK, Transport
from cloud_fallback.open_inference.statuses import STATUSES
from edge_runtime.errors import ErrorCode, HybridgeError

if TYPE_CHECKING:
    from cloud_fallback.endpoint.telemetry import RequestRecord

__all__ = ["LOGGER_NAME", "RequestLine", "RequestLog", "log_requests_to"]

LOGGER_NAME = "cloud_fallback.requests"
# Names of the caller's are cut: a line is one, however long what was sent is.
_MAX_NAME = 128
# gRPC's idea of no deadline is more seconds than this.
_NO_DEADLINE_S = 10 * 365 * 86400.0

_log = logging.getLogger(LOGGER_NAME)


class RequestLine(msgspec.Struct, frozen=True, kw_only=True):
    """A line.

    Attributes:
        time: When the request had been answered, in UTC (RFC 3339).
        id: What the caller or a proxy calls it, or the endpoint where nobody does.
        client: Who asked, as the endpoint knows them; empty for anybody.
        peer: From where.
        transport: ``grpc`` or ``rest``.
        model: The model's name, as it was asked for.
        version: The version that answered, or was asked for.
        code: ``ok``, or an `ErrorCode`.
        status: The transport's word for that: ``200``, or ``OK``.
        total_ms: Milliseconds from the last byte of the request to the answer.
        queue_ms: Those that it waited for the model; null for one that did not run.
        run_ms: Those of the run that answered it.
        rows: Rows of that run, its own and others'.
        bytes_in: Size of the request as it was received.
        bytes_out: Size of the answer as it was sent.
        deadline_left_ms: What was left of its deadline then; null without one, and 0 when the caller had gone.
    """

    time: str
    id: str
    client: str
    peer: str
    transport: Transport
    model: str
    version: str
    code: str
    status: str
    total_ms: float
    queue_ms: float | None
    run_ms: float | None
    rows: int | None
    bytes_in: int
    bytes_out: int
    deadline_left_ms: float | None


class RequestLog:
    """Writes requests to the logger `cloud_fallback.requests`, at level INFO.

    Args:
        one_in: Of how many requests that went well one is written; those that failed always are.

    Raises:
        HybridgeError: `usage` for less than one.
    """

    def __init__(self, *, one_in: int = 1):
        if one_in < 1:
            raise HybridgeError(
                ErrorCode.USAGE,
                "sample of requests to log",
                received=f"1 in {one_in}",
                expected="1 in 1 or more",
            )
        self._one_in = one_in
        # Counting has no lock and need not be exact.
        self._seen = itertools.count()

    def write(self, record: RequestRecord, code: str) -> None:
        """Writes one request, or passes over it."""
        if code == OK and self._one_in > 1 and next(self._seen) % self._one_in:
            return
        if _log.isEnabledFor(logging.INFO):
            _log.info("%s", msgspec.json.encode(_line(record, code)).decode())


def log_requests_to(stream: TextIO) -> logging.Handler:
    """Sends the lines of requests to a stream, as they are and nowhere else; returns the handler, to be taken away."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("%(message)s"))
    _log.addHandler(handler)
    _log.setLevel(logging.INFO)
    _log.propagate = False
    return handler


def _line(record: RequestRecord, code: str) -> RequestLine:
    request = record.request
    turn = None if request is None else request.turn
    name, version = record.model if request is None else (request.model, request.version)
    if request is not None and request.resolved[0]:
        name, version = request.resolved
    return RequestLine(
        time=datetime.now(UTC).isoformat(timespec="milliseconds"),
        id=record.request_id[:_MAX_NAME],
        client=record.client,
        peer=record.peer,
        transport=record.transport,
        model=name[:_MAX_NAME],
        version=version[:_MAX_NAME],
        code=code,
        status=str(record.status) or _grpc_status(code),
        total_ms=round(record.seconds * 1e3, 3),
        queue_ms=None if turn is None else round(turn.queued_s * 1e3, 3),
        run_ms=None if turn is None else round(turn.run_s * 1e3, 3),
        rows=None if turn is None else turn.rows,
        bytes_in=record.bytes_in,
        bytes_out=record.bytes_out,
        deadline_left_ms=None if request is None else _left_ms(request.time_left()),
    )


def _grpc_status(code: str) -> str:
    return "OK" if code == OK else str(STATUSES[ErrorCode(code).kind].name)


def _left_ms(seconds: float | None) -> float | None:
    return None if seconds is None or seconds > _NO_DEADLINE_S else round(max(seconds, 0.0) * 1e3, 3)
