"""A link that is slow: relays TCP connections on loopback and holds every byte back for a while."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from types import TracebackType

__all__ = ["SlowLink"]


class SlowLink:
    """Listens on a port of its own and passes bytes on to another, each way `delay_s` late.

    Args:
        port: The port on 127.0.0.1 to pass on to.
        delay_s: Seconds that bytes spend on the way, in each direction.

    Example:
        >>> with SlowLink(endpoint_port, delay_s=0.1) as link:
        ...     fallback = CloudFallback(f"127.0.0.1:{link.port}", model="digits-large")
    """

    def __init__(self, port: int, *, delay_s: float):
        self._target = port
        self._delay_s = delay_s
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="slow-link", daemon=True)
        self._connections: set[asyncio.Task[None]] = set()
        self.port = 0

    def __enter__(self) -> SlowLink:
        self._thread.start()
        self._server = asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _listen(self) -> asyncio.Server:
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        return server

    async def _stop(self) -> None:
        # A connection that was just accepted takes a few turns of the loop until its handler runs; a server that is
        # closed before loses it, open.
        await asyncio.sleep(0.01)
        self._server.close()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a handler always runs in one
        self._connections.add(task)
        # Either side may go, and `_stop` cancels what is left: both end the connection and nothing else.
        with contextlib.suppress(asyncio.CancelledError, OSError):
            await self._connect(reader, writer)
        with contextlib.suppress(OSError):
            writer.close()
            await writer.wait_closed()
        self._connections.discard(task)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
        ways = [
            asyncio.ensure_future(self._relay(reader, far_writer)),
            asyncio.ensure_future(self._relay(far_reader, writer)),
        ]
        try:
            await asyncio.gather(*ways)
        finally:
            for way in ways:
                way.cancel()
            far_writer.close()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Reading goes on while earlier bytes are on their way: a slow link delays, it does not narrow.
        on_the_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

        async def deliver() -> None:
            while True:
                due, content = await on_the_way.get()
                await asyncio.sleep(due - self._loop.time())
                if not content:
                    break
                writer.write(content)
                await writer.drain()
            with contextlib.suppress(OSError):
                writer.write_eof()

        delivery = asyncio.ensure_future(deliver())
        try:
            while content := await reader.read(65536):
                on_the_way.put_nowait((self._loop.time() + self._delay_s, content))
            on_the_way.put_nowait((self._loop.time() + self._delay_s, b""))
            await delivery
        finally:
            delivery.cancel()
