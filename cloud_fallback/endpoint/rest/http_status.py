"""How an error travels over HTTP: a status for its kind, its sentence in JSON, its code in a header."""

from __future__ import annotations

import math
from collections.abc import Mapping
from http import HTTPStatus
from typing import NoReturn

import msgspec
from aiohttp import web

from edge_runtime.errors import ErrorCode, HybridgeError, Kind

__all__ = [
    "CODE_HEADER",
    "REQUEST_ID",
    "REQUEST_ID_HEADER",
    "STATUSES",
    "error_response",
    "http_failure",
    "refuse",
    "status_of",
]

CODE_HEADER = "hybridge-code"
# What an answer calls the request, where its body does not.
REQUEST_ID_HEADER = "x-request-id"
REQUEST_ID = web.RequestKey("request_id", str)
STATUSES: Mapping[Kind, HTTPStatus] = {
    Kind.INVALID: HTTPStatus.BAD_REQUEST,
    Kind.NOT_FOUND: HTTPStatus.NOT_FOUND,
    Kind.EXISTS: HTTPStatus.CONFLICT,
    # Models of the endpoint's own, and what it lacks itself.
    Kind.DAMAGED: HTTPStatus.INTERNAL_SERVER_ERROR,
    Kind.MISSING_DEPENDENCY: HTTPStatus.INTERNAL_SERVER_ERROR,
    Kind.CHECK_FAILED: HTTPStatus.INTERNAL_SERVER_ERROR,
    Kind.INTERNAL: HTTPStatus.INTERNAL_SERVER_ERROR,
    Kind.UNAVAILABLE: HTTPStatus.SERVICE_UNAVAILABLE,
    Kind.DEADLINE: HTTPStatus.GATEWAY_TIMEOUT,
    Kind.EXHAUSTED: HTTPStatus.TOO_MANY_REQUESTS,
    Kind.UNAUTHENTICATED: HTTPStatus.UNAUTHORIZED,
    Kind.FORBIDDEN: HTTPStatus.FORBIDDEN,
}
# HTTP has words of its own for some of what has to do with itself.
_OWN = {ErrorCode.MESSAGE_TOO_LARGE: HTTPStatus.REQUEST_ENTITY_TOO_LARGE}
_STATUS = web.RequestKey("status", HTTPStatus)
_MAX_MESSAGE = 1024


def refuse(request: web.Request, status: HTTPStatus, error: HybridgeError) -> NoReturn:
    """Ends a request with an error, and with another status than the one of the error's kind."""
    request[_STATUS] = status
    raise error


def status_of(request: web.Request, error: HybridgeError) -> HTTPStatus:
    """The status that a request ends with."""
    by_code = _OWN.get(error.code, STATUSES[error.code.kind])
    status: HTTPStatus = request.get(_STATUS, by_code)
    return status


def error_response(request: web.Request, error: HybridgeError) -> web.Response:
    """The response of a request that ends with an error."""
    status = status_of(request, error)
    headers = {CODE_HEADER: error.code.value}
    if REQUEST_ID in request:
        headers[REQUEST_ID_HEADER] = request[REQUEST_ID]
    if error.retry_after_s is not None and math.isfinite(error.retry_after_s):
        # HTTP counts in whole seconds (RFC 9110, 10.2.3), which for a model that takes milliseconds is long.
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after_s)))
        headers["retry-after-ms"] = str(max(1, round(error.retry_after_s * 1e3)))
    elif status is HTTPStatus.SERVICE_UNAVAILABLE:
        headers["Retry-After"] = "1"
    if status is HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    return web.Response(
        status=status,
        headers=headers,
        # A message quotes what came, which need not be text.
        body=msgspec.json.encode({"error": _plain(error.message[:_MAX_MESSAGE])}),
        content_type="application/json",
    )


def http_failure(request: web.Request, failure: web.HTTPException) -> web.Response:
    """The response for what is HTTP's own: no such path, no such method."""
    status = HTTPStatus(failure.status)
    request[_STATUS] = status
    response = error_response(
        request,
        HybridgeError(ErrorCode.USAGE, status.phrase, received=f"{request.method} {request.path[:128]}"),
    )
    if "Allow" in failure.headers:
        response.headers["Allow"] = failure.headers["Allow"]
    return response


def _plain(text: str) -> str:
    return text.encode(errors="backslashreplace").decode()
