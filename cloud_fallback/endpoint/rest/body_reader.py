"""Reading the body of a request: never more than may be, never for longer than a slow network needs."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import NoReturn

from aiohttp import web

from cloud_fallback.endpoint.rest.http_status import refuse
from cloud_fallback.endpoint.rest.patience import Patience
from edge_runtime.errors import ErrorCode, HybridgeError

__all__ = ["BodyReader"]

# Seconds after which to come again when too much is held, each at another moment.
_COME_AGAIN_S = (0.25, 0.75)


class BodyReader:
    """Reads bodies, and knows how many bytes of them are held at once.

    Args:
        max_bytes: Size of the largest body.
        max_held_bytes: Size of all that are held: of what has come, not of what is announced, so that nobody takes the
            room of others without sending.
        patience: How long a body may take.
    """

    def __init__(self, *, max_bytes: int, max_held_bytes: int, patience: Patience):
        self.max_bytes = max_bytes
        self._max_held_bytes = max_held_bytes
        self._patience = patience
        self._held = 0

    @asynccontextmanager
    async def read(self, request: web.Request) -> AsyncIterator[bytes]:
        """The body, for as long as the block runs.

        Raises:
            HybridgeError: `message-too-large`, before more of it is read; `cloud-overloaded` when too much is held;
                `cloud-deadline` when it does not come; `input-invalid` when it breaks off.
        """
        body = await self._receive(request)
        try:
            yield body
        finally:
            self._held -= len(body)

    async def _receive(self, request: web.Request) -> bytes:
        if (request.content_length or 0) > self.max_bytes:
            raise self._too_large(f"{request.content_length} bytes announced")
        if not request.can_read_body:
            return b""
        chunks: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(self._patience.grace_s) as limit:
                await _ask_for_it(request)
                began = asyncio.get_running_loop().time()
                while not request.content.at_eof():
                    chunk = await request.content.readany()
                    size += len(chunk)
                    self._held += len(chunk)
                    chunks.append(chunk)
                    if size > self.max_bytes:
                        raise self._too_large(f"more than {self.max_bytes} bytes")
                    if self._held > self._max_held_bytes:
                        raise self._too_many()
                    if not request.content.at_eof():
                        limit.reschedule(began + self._patience.time_for(size))
        except BaseException as error:
            self._held -= size
            if isinstance(error, TimeoutError):
                self._refuse_stalled(request, size)
            if isinstance(error, (web.RequestPayloadError, ConnectionError)):
                raise HybridgeError(
                    ErrorCode.INPUT_INVALID,
                    "body of the request",
                    received=f"{size} bytes, and then {str(error)[:128] or 'nothing'}",
                    expected="all of it",
                ) from error
            raise
        return b"".join(chunks)

    def _too_large(self, received: str) -> HybridgeError:
        return HybridgeError(
            ErrorCode.MESSAGE_TOO_LARGE,
            "body of the request",
            received=received,
            expected=f"at most {self.max_bytes} bytes",
            fix="send less at once, or raise the endpoint's --max-message-mb",
        )

    def _too_many(self) -> HybridgeError:
        return HybridgeError(
            ErrorCode.CLOUD_OVERLOADED,
            "endpoint",
            received=f"bodies of more than {self._max_held_bytes} bytes at once",
            fix="ask again later",
            retry_after_s=random.uniform(*_COME_AGAIN_S),  # noqa: S311 - no secret
        )

    def _refuse_stalled(self, request: web.Request, size: int) -> NoReturn:
        error = HybridgeError(
            ErrorCode.CLOUD_DEADLINE,
            "body of the request",
            received=f"{size} bytes in {self._patience.time_for(size):.0f} s",
            expected="all of it by then",
        )
        refuse(request, HTTPStatus.REQUEST_TIMEOUT, error)


async def _ask_for_it(request: web.Request) -> None:
    """Here rather than before, as aiohttp would: who is refused need not send a body."""
    if request.headers.get("Expect", "").lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        # Which is no part of the answer.
        request.writer.output_size = 0
