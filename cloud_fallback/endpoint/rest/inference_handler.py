"""Requests to run a model, over HTTP: head and body in, the answer out, and the work between them on a worker."""

from __future__ import annotations

import asyncio
import os
import random
import re
import threading
import time
from concurrent.futures import Executor
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus

from aiohttp import web

from cloud_fallback.endpoint.access import Access
from cloud_fallback.endpoint.data_plane import DataPlane, InferenceRequest
from cloud_fallback.endpoint.rest.body_reader import BodyReader
from cloud_fallback.endpoint.rest.caller import (
    admitted,
    given_header,
    model_of,
    peer_of,
    time_left_of,
    timeout_s,
)
from cloud_fallback.endpoint.rest.content_coding import CODINGS, accepted_coding, compress, decompress
from cloud_fallback.endpoint.rest.http_status import REQUEST_ID, REQUEST_ID_HEADER, refuse, status_of
from cloud_fallback.endpoint.rest.inference_body import InferenceBody, decode_inference, encode_inference
from cloud_fallback.endpoint.served.served_model import TimeLeft, sooner
from cloud_fallback.endpoint.telemetry import RequestRecord, Transport
from edge_runtime.errors import ErrorCode, HybridgeError

__all__ = ["InferenceHandler"]

_JSON_SIZE = "Inference-Header-Content-Length"
_STICKY_KEY, _IDEMPOTENCY_KEY = "sticky-key", "idempotency-key"
_SIZE = re.compile(r"[0-9]{1,12}")
# Names longer than this are nobody's.
_MAX_NAME = 128
# What is larger, or may become so, is decoded by a few workers at once: JSON takes ten times its size meanwhile.
_LARGE_BYTES = 2**20
# Below this, compressing costs more than it saves.
_MIN_COMPRESSED = 1024
# Seconds after which to come again when too many wait for a worker, each at another moment.
_COME_AGAIN_S = (0.25, 0.75)


@dataclass(frozen=True, slots=True)
class _Head:
    """What the head of a request says."""

    model: str
    version: str
    client: str
    json_size: int | None
    coding: str
    accepted: str | None
    sticky_key: str
    idempotency_key: str
    time_left: TimeLeft


class InferenceHandler:
    """Answers requests to run a model.

    Args:
        data_plane: What decides.
        workers: Decodes, runs and encodes; the event loop only moves bytes.
        max_under_way: Requests that may have a worker or wait for one; more are refused.
        bodies: Reads bodies.
        access: Lets callers in; without it, everybody.
    """

    def __init__(
        self,
        data_plane: DataPlane,
        *,
        workers: Executor,
        max_under_way: int,
        bodies: BodyReader,
        access: Access | None = None,
    ):
        self._data_plane = data_plane
        self._workers = workers
        self._max_under_way = max_under_way
        self._bodies = bodies
        self._access = access
        self._under_way = 0
        self._large_bodies = threading.BoundedSemaphore(max(2, os.cpu_count() or 1))

    async def answer(self, request: web.Request) -> web.Response:
        """The response to a request.

        Raises:
            HybridgeError: What `DataPlane.infer` and `Access.admit` raise; ``input-*`` for a head or a body that does
                not follow the protocol.
        """
        with self._data_plane.telemetry.record(Transport.REST, lambda: peer_of(request)) as record:
            # Unless it is known better.
            record.status = int(HTTPStatus.INTERNAL_SERVER_ERROR)
            try:
                response = await self._answer(request, record)
            except HybridgeError as error:
                record.status = int(status_of(request, error))
                if record.request is None or record.request_id != record.request.id:
                    request[REQUEST_ID] = record.request_id
                raise
            record.status = response.status
            return response

    async def _answer(self, request: web.Request, record: RequestRecord) -> web.Response:
        record.request_id = given_header(request, REQUEST_ID_HEADER)[:_MAX_NAME]
        record.model = model_of(request)
        record.client = admitted(request, self._access, "infer", record.model[0])
        head = _head(request, record)
        async with self._bodies.read(request) as body:
            record.received(len(body))
            if self._access is not None:
                self._access.received(record.client, partial(peer_of, request), len(body))
            if self._under_way >= self._max_under_way:
                raise self._overloaded()
            self._under_way += 1
            try:
                content, headers = await self._worked(head, body, record)
            finally:
                self._under_way -= 1
        record.bytes_out = len(content)
        return web.Response(body=content, headers=headers)

    async def _worked(self, head: _Head, body: bytes, record: RequestRecord) -> tuple[bytes, dict[str, str]]:
        """What a worker makes of a request, if one has time for it before its deadline."""
        work = self._workers.submit(self._work, head, body, record)
        left = head.time_left()
        # Does nothing to work that has begun, which the model's queue looks after.
        timer = None if left is None else asyncio.get_running_loop().call_later(left, work.cancel)
        try:
            return await asyncio.wrap_future(work)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if work.cancelled() and task is not None and not task.cancelling():
                raise _too_late() from None
            raise
        finally:
            if timer is not None:
                timer.cancel()

    def _work(self, head: _Head, body: bytes, record: RequestRecord) -> tuple[bytes, dict[str, str]]:
        """The body of the answer and its headers; on a worker."""
        left = head.time_left()
        if left is not None and left <= 0:
            raise _too_late()
        with self._large_bodies if head.coding or len(body) > _LARGE_BYTES else nullcontext():
            asked = self._decoded(head, body)
        record.request = InferenceRequest(
            head.model,
            head.version,
            asked.inputs,
            asked.outputs,
            asked.id,
            head.time_left if asked.timeout_s is None else sooner(head.time_left, asked.timeout_s),
            head.client,
            head.sticky_key,
            head.idempotency_key,
        )
        answer = self._data_plane.infer(record.request)
        content, json_size = encode_inference(
            answer.model, answer.version, answer.outputs, binary=asked.binary, request_id=asked.id
        )
        headers = {"Content-Type": "application/json" if json_size is None else "application/octet-stream"}
        if json_size is not None:
            headers[_JSON_SIZE] = str(json_size)
        if record.request_id != asked.id:
            headers[REQUEST_ID_HEADER] = record.request_id
        if head.accepted and len(content) >= _MIN_COMPRESSED:
            headers["Content-Encoding"] = head.accepted
            headers["Vary"] = "Accept-Encoding"
            content = compress(content, head.accepted)
        return content, headers

    def _decoded(self, head: _Head, body: bytes) -> InferenceBody:
        if head.coding:
            body = decompress(body, max_bytes=self._bodies.max_bytes)
        return decode_inference(
            body, head.json_size, lambda: self._data_plane.describe(head.model, head.version).inputs
        )

    def _overloaded(self) -> HybridgeError:
        return HybridgeError(
            ErrorCode.CLOUD_OVERLOADED,
            "endpoint",
            received=f"a request while {self._under_way} are under way",
            expected=f"at most {self._max_under_way}",
            fix="ask again later",
            retry_after_s=random.uniform(*_COME_AGAIN_S),  # noqa: S311 - no secret
        )


def _head(request: web.Request, record: RequestRecord) -> _Head:
    seconds = timeout_s(request)
    deadline = None if seconds is None else time.monotonic() + seconds
    return _Head(
        *record.model,
        record.client,
        _json_size(request),
        _coding(request),
        accepted_coding(given_header(request, "Accept-Encoding")),
        given_header(request, _STICKY_KEY),
        given_header(request, _IDEMPOTENCY_KEY),
        time_left_of(request, deadline),
    )


def _json_size(request: web.Request) -> int | None:
    value = request.headers.get(_JSON_SIZE)
    if value is None:
        return None
    if _SIZE.fullmatch(value) is None:
        raise HybridgeError(
            ErrorCode.INPUT_INVALID,
            f"header {_JSON_SIZE}",
            received=f"'{value[:32]}'",
            expected="the bytes of the JSON object in the body",
        )
    return int(value)


def _coding(request: web.Request) -> str:
    coding = request.headers.get("Content-Encoding", "").strip().lower()
    if coding in ("", "identity"):
        return ""
    if coding not in CODINGS:
        error = HybridgeError(
            ErrorCode.INPUT_INVALID,
            "content encoding of the body",
            received=f"'{coding[:32]}'",
            expected=f"none, {' or '.join(CODINGS)}",
        )
        refuse(request, HTTPStatus.UNSUPPORTED_MEDIA_TYPE, error)
    return coding


def _too_late() -> HybridgeError:
    return HybridgeError(
        ErrorCode.CLOUD_DEADLINE,
        "endpoint",
        received="a request whose deadline passed, or whose caller left, before there was a worker for it",
        fix="give it a longer deadline, or the endpoint more workers",
    )
