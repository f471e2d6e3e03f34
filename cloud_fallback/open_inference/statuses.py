"""How an error travels over gRPC: a status for its kind, its sentence as details, its code in trailing metadata."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import grpc

from edge_runtime.errors import ErrorCode, HybridgeError, Kind

__all__ = ["CODE_KEY", "PUSHBACK_KEY", "STATUSES", "abort", "from_status", "is_outage"]

# The trailing metadata key that holds an `ErrorCode`, for clients that know them.
CODE_KEY = "hybridge-code"
# The one in which a server says, in milliseconds, when to ask again: gRFC A6, client retries.
PUSHBACK_KEY = "grpc-retry-pushback-ms"

STATUSES: Mapping[Kind, grpc.StatusCode] = {
    Kind.INVALID: grpc.StatusCode.INVALID_ARGUMENT,
    Kind.NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    Kind.EXISTS: grpc.StatusCode.ALREADY_EXISTS,
    Kind.DAMAGED: grpc.StatusCode.DATA_LOSS,
    Kind.UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
    Kind.DEADLINE: grpc.StatusCode.DEADLINE_EXCEEDED,
    Kind.EXHAUSTED: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Kind.UNAUTHENTICATED: grpc.StatusCode.UNAUTHENTICATED,
    Kind.FORBIDDEN: grpc.StatusCode.PERMISSION_DENIED,
    Kind.MISSING_DEPENDENCY: grpc.StatusCode.FAILED_PRECONDITION,
    Kind.CHECK_FAILED: grpc.StatusCode.FAILED_PRECONDITION,
    Kind.INTERNAL: grpc.StatusCode.INTERNAL,
}

# Statuses not named here mean that the server understood the call and will not answer it.
_CLIENT_CODES = {
    # A fault of the server, which may pass: a model that failed, a server that was changed meanwhile.
    grpc.StatusCode.ABORTED: ErrorCode.CLOUD_FAILED,
    grpc.StatusCode.DATA_LOSS: ErrorCode.CLOUD_FAILED,
    grpc.StatusCode.INTERNAL: ErrorCode.CLOUD_FAILED,
    grpc.StatusCode.UNKNOWN: ErrorCode.CLOUD_FAILED,
    grpc.StatusCode.CANCELLED: ErrorCode.CLOUD_UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED: ErrorCode.CLOUD_DEADLINE,
    grpc.StatusCode.NOT_FOUND: ErrorCode.MODEL_UNKNOWN,
    # Too many calls at once; a message over a limit has the same status and is told apart below.
    grpc.StatusCode.RESOURCE_EXHAUSTED: ErrorCode.CLOUD_OVERLOADED,
    grpc.StatusCode.UNAUTHENTICATED: ErrorCode.UNAUTHENTICATED,
    grpc.StatusCode.PERMISSION_DENIED: ErrorCode.NOT_PERMITTED,
    grpc.StatusCode.UNAVAILABLE: ErrorCode.CLOUD_UNAVAILABLE,
}
# The server understood the call and will say no to it again; what has another status may be better next time.
_REFUSALS = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.ALREADY_EXISTS,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.OUT_OF_RANGE,
    grpc.StatusCode.UNIMPLEMENTED,
    # Only this side cancels.
    grpc.StatusCode.CANCELLED,
}
# A header larger than 8 KB is refused by most peers, and an error that does not arrive is none.
_MAX_DETAILS = 1024


def abort(context: Any, error: HybridgeError) -> None:
    """Ends the call of a `grpc.ServicerContext` with an error; raises what gRPC raises for that."""
    trailing = [(CODE_KEY, error.code.value)]
    if error.retry_after_s is not None:
        trailing.append((PUSHBACK_KEY, str(max(1, round(error.retry_after_s * 1e3)))))
    context.set_trailing_metadata(trailing)
    context.abort(STATUSES[error.code.kind], error.message[:_MAX_DETAILS])


def from_status(error: Any, target: str) -> HybridgeError:
    """What a failed call means to the one who made it.

    Args:
        error: The `grpc.RpcError` of a call.
        target: Whom it called, for the message.

    Returns:
        An error with the code `cloud-unavailable`, `cloud-deadline`, `cloud-overloaded`, `cloud-failed`,
        `message-too-large`, `model-unknown`, `unauthenticated`, `not-permitted`, or `cloud-refused` for every other
        reason; with `retry_after_s` where the server pushed back, infinity where it said not to ask again.
    """
    status: grpc.StatusCode = error.code()
    details = error.details() or ""
    code = _CLIENT_CODES.get(status, ErrorCode.CLOUD_REFUSED)
    if status is grpc.StatusCode.RESOURCE_EXHAUSTED and _is_about_size(error, details):
        code = ErrorCode.MESSAGE_TOO_LARGE
    return HybridgeError(
        code,
        f"cloud at {target}",
        received=f"{status.name}: {details[:_MAX_DETAILS]}",
        retry_after_s=_pushback_s(error),
    )


def is_outage(error: Any) -> bool:
    """Whether a failed call, a `grpc.RpcError`, says something of the cloud's health rather than of the request."""
    status: grpc.StatusCode = error.code()
    if status is grpc.StatusCode.RESOURCE_EXHAUSTED:
        return not _is_about_size(error, error.details() or "")
    return status not in _REFUSALS


def _pushback_s(error: Any) -> float | None:
    """Seconds after which the server wants to be asked again; a negative number means not at all (gRFC A6)."""
    said = dict(error.trailing_metadata() or ()).get(PUSHBACK_KEY)
    if not isinstance(said, str) or not said.removeprefix("-").isdecimal():
        return None
    milliseconds = int(said[:20])
    return milliseconds / 1e3 if milliseconds >= 0 else math.inf


def _is_about_size(error: Any, details: str) -> bool:
    ours = dict(error.trailing_metadata() or ()).get(CODE_KEY)
    # gRPC's own wording on both sides: "Received message larger than max", "Sent message larger than max".
    return ours == ErrorCode.MESSAGE_TOO_LARGE or "larger than max" in details
