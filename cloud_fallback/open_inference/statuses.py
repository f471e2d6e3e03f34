"""How an error travels over gRPC: a status for its kind, its sentence as details, its code in trailing metadata."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import grpc

from edge_runtime.errors import ErrorCode, HybridgeError, Kind

__all__ = ["CODE_KEY", "STATUSES", "abort", "from_status"]

# The trailing metadata key that holds an `ErrorCode`, for clients that know them.
CODE_KEY = "hybridge-code"

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
    grpc.StatusCode.CANCELLED: ErrorCode.CLOUD_UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED: ErrorCode.CLOUD_DEADLINE,
    grpc.StatusCode.NOT_FOUND: ErrorCode.MODEL_UNKNOWN,
    # Too many calls at once; a message over a limit has the same status and is told apart below.
    grpc.StatusCode.RESOURCE_EXHAUSTED: ErrorCode.CLOUD_OVERLOADED,
    grpc.StatusCode.UNAUTHENTICATED: ErrorCode.UNAUTHENTICATED,
    grpc.StatusCode.PERMISSION_DENIED: ErrorCode.NOT_PERMITTED,
    grpc.StatusCode.UNAVAILABLE: ErrorCode.CLOUD_UNAVAILABLE,
}
# A header larger than 8 KB is refused by most peers, and an error that does not arrive is none.
_MAX_DETAILS = 1024


def abort(context: Any, error: HybridgeError) -> None:
    """Ends the call of a `grpc.ServicerContext` with an error; raises what gRPC raises for that."""
    context.set_trailing_metadata(((CODE_KEY, error.code.value),))
    context.abort(STATUSES[error.code.kind], error.message[:_MAX_DETAILS])


def from_status(error: Any, target: str) -> HybridgeError:
    """What a failed call means to the one who made it.

    Args:
        error: The `grpc.RpcError` of a call.
        target: Whom it called, for the message.

    Returns:
        An error with the code `cloud-unavailable`, `cloud-deadline`, `cloud-overloaded`, `message-too-large`,
        `model-unknown`, `unauthenticated`, `not-permitted`, or `cloud-refused` for every other reason.
    """
    status: grpc.StatusCode = error.code()
    details = error.details() or ""
    code = _CLIENT_CODES.get(status, ErrorCode.CLOUD_REFUSED)
    if status is grpc.StatusCode.RESOURCE_EXHAUSTED and _is_about_size(error, details):
        code = ErrorCode.MESSAGE_TOO_LARGE
    return HybridgeError(code, f"cloud at {target}", received=f"{status.name}: {details[:_MAX_DETAILS]}")


def _is_about_size(error: Any, details: str) -> bool:
    ours = dict(error.trailing_metadata() or ()).get(CODE_KEY)
    # gRPC's own wording on both sides: "Received message larger than max", "Sent message larger than max".
    return ours == ErrorCode.MESSAGE_TOO_LARGE or "larger than max" in details
