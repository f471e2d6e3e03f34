"""An HTTP server beside the gRPC one, for the same data plane."""

from __future__ import annotations

import asyncio
import logging
import resource
import socket
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from edge_runtime.errors import ErrorCode, HybridgeError, missing_extra

try:
    from aiohttp import web
    from aiohttp.http_exceptions import HttpProcessingError
except ModuleNotFoundError as error:
    raise missing_extra("serve", error.name or "aiohttp") from error

from cloud_fallback.endpoint.refusal_log import RefusalLog
from cloud_fallback.endpoint.rest.body_reader import BodyReader
from cloud_fallback.endpoint.rest.inference_handler import InferenceHandler
from cloud_fallback.endpoint.rest.patience import Patience
from cloud_fallback.endpoint.rest.rest_api import RestApi

if TYPE_CHECKING:
    from cloud_fallback.endpoint.access import Access
    from cloud_fallback.endpoint.data_plane import DataPlane
    from cloud_fallback.endpoint.endpoint_metrics import EndpointMetrics
    from cloud_fallback.endpoint.server_tls import ServerTls

__all__ = ["RestServer"]

_log = logging.getLogger(__name__)
# Connections that the system keeps for us while the loop is busy.
_BACKLOG = 1024
# Bodies of the largest size that are held at once.
_HELD_BODIES = 4
# Only inference has a reason to be larger.
_MAX_OTHER_BYTES = 64 * 2**10
_HANDSHAKE_S = 10.0
_MAX_CONNECTIONS = 1000
_DRAIN_CHECK_S = 0.02


class RestServer:
    """Answers over HTTP/1.1 from a thread of its own, until it is stopped.

    One event loop moves bytes, for any number of slow connections; a thread pool decodes, runs and encodes. aiohttp is
    the server: as fast as uvicorn with httptools, and it bounds headers, hands over certificates, and reads on for a
    moment what a refused caller still sends, so that it gets to see why.

    Args:
        data_plane: What decides.
        host: Address to listen on.
        port: Port to listen on; 0 lets the system choose one, which `port` then tells.
        max_body_bytes: Size of the largest request, compressed or not.
        max_workers: Requests that are answered at once.
        max_waiting: Requests that may wait for one of them; more are refused.
        max_connections: Connections at once; more are closed as they come. By default 1000, or half of the files that
            the process may have open.
        idle_s: Seconds for which a connection may do nothing, or not come to the end of a request's head.
        patience: How long a body may take to come, and an answer to be taken.
        tls: Its certificate, for HTTPS.
        access: Lets callers in; without it, everybody.
        metrics: What is at ``/metrics``; without it there is no such path.

    Example:
        >>> with RestServer(endpoint.data_plane, port=8000) as rest:
        ...     print(rest.address)
    """

    def __init__(
        self,
        data_plane: DataPlane,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        max_body_bytes: int = 64 * 2**20,
        max_workers: int = 64,
        max_waiting: int = 512,
        max_connections: int | None = None,
        idle_s: float = 75.0,
        patience: Patience = Patience(),  # noqa: B008 - it is frozen
        tls: ServerTls | None = None,
        access: Access | None = None,
        metrics: EndpointMetrics | None = None,
    ):
        self.host, self.port = host, port
        self._tls = None if tls is None else tls.ssl_context()
        self._max_connections = max_connections or _room_for_connections()
        self._idle_s = idle_s
        self._workers = ThreadPoolExecutor(max_workers, thread_name_prefix="rest")
        bodies = BodyReader(
            max_bytes=max_body_bytes, max_held_bytes=_HELD_BODIES * max_body_bytes, patience=patience
        )
        inference = InferenceHandler(
            data_plane,
            workers=self._workers,
            max_under_way=max_workers + max_waiting,
            bodies=bodies,
            access=access,
        )
        self._api = RestApi(
            data_plane,
            inference=inference,
            bodies=BodyReader(
                max_bytes=_MAX_OTHER_BYTES, max_held_bytes=_HELD_BODIES * max_body_bytes, patience=patience
            ),
            access=access,
            metrics=metrics,
            patience=patience,
        )
        self._refusals = RefusalLog(_log)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Future[float] | None = None
        self._thread: threading.Thread | None = None

    @property
    def address(self) -> str:
        """Where clients reach it, as ``http://host:port``."""
        scheme = "http" if self._tls is None else "https"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{scheme}://{host}:{self.port}"

    def start(self) -> Self:
        """Binds the port and begins to answer.

        Raises:
            HybridgeError: `address-in-use` when the address cannot be bound, with the system's reason.
        """
        listener = _bound(self.host, self.port)
        self.port = listener.getsockname()[1]
        began: Future[None] = Future()
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._serve(listener, began)), name="rest", daemon=True
        )
        self._thread.start()
        began.result()
        return self

    def stop(self, grace_s: float = 10.0) -> None:
        """Takes no more connections, lets requests under way finish, and returns.

        Args:
            grace_s: Seconds after which those still under way are cut off.
        """
        if self._thread is None or self._loop is None:
            return
        try:
            self._loop.call_soon_threadsafe(self._end, grace_s)
        except RuntimeError:
            # The loop is closed: it was stopped before.
            return
        self._thread.join()
        self._workers.shutdown(wait=False, cancel_futures=True)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _end(self, grace_s: float) -> None:
        if self._stop is not None and not self._stop.done():
            self._stop.set_result(grace_s)

    async def _serve(self, listener: socket.socket, began: Future[None]) -> None:
        loop = self._loop = asyncio.get_running_loop()
        try:
            self._stop = loop.create_future()
            runner = web.AppRunner(
                self._api.application(),
                access_log=None,
                logger=_connection_log(),
                keepalive_timeout=self._idle_s,
                # Compressed bodies are for workers, and bounded there.
                auto_decompress=False,
            )
            await runner.setup()
            server = runner.server
            assert server is not None  # noqa: S101 - setup has made it
            listener.listen(_BACKLOG)
            listener.setblocking(False)
        except BaseException as error:
            listener.close()
            began.set_exception(error)
            return
        accepting = loop.create_task(self._accept(listener, server))
        began.set_result(None)
        until = await self._stop + loop.time()
        accepting.cancel()
        await asyncio.wait({accepting})
        listener.close()
        server.pre_shutdown()
        for connection in server.connections:
            # aiohttp would keep it open and not answer on it.
            if connection not in self._api.busy:
                connection.force_close()
        while self._api.busy and loop.time() < until:
            await asyncio.sleep(_DRAIN_CHECK_S)
        await server.shutdown(_DRAIN_CHECK_S)
        await runner.cleanup()

    async def _accept(self, listener: socket.socket, server: web.Server) -> None:
        """Takes connections while there is room; `asyncio`'s own server would take all of them."""
        loop = asyncio.get_running_loop()
        # Not among the server's connections yet.
        handshakes: set[asyncio.Task[Any]] = set()

        def done(handshake: asyncio.Task[Any]) -> None:
            handshakes.discard(handshake)
            if not handshake.cancelled():
                # Looked at: a caller who does not shake hands is no news.
                handshake.exception()

        while True:
            try:
                connection, address = await loop.sock_accept(listener)
            except OSError as error:
                # Too many open files, or a caller who has gone again.
                self._refusals.refused("connections", error.strerror or str(error))
                await asyncio.sleep(_DRAIN_CHECK_S)
                continue
            if len(handshakes) + len(server.connections) >= self._max_connections:
                connection.close()
                self._refusals.refused(address[0], f"more than {self._max_connections} connections at once")
                continue
            handshake = loop.create_task(
                loop.connect_accepted_socket(
                    server,
                    connection,
                    ssl=self._tls,
                    ssl_handshake_timeout=None if self._tls is None else _HANDSHAKE_S,
                )
            )
            handshakes.add(handshake)
            handshake.add_done_callback(done)


def _connection_log() -> logging.Logger:
    """aiohttp's, without the traceback that anybody gets into it by sending what is not HTTP."""
    log = logging.getLogger(f"{__name__}.connections")
    log.addFilter(_is_of_the_server)
    return log


def _is_of_the_server(record: logging.LogRecord) -> bool:
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, HttpProcessingError)


def _room_for_connections() -> int:
    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _MAX_CONNECTIONS if allowed == resource.RLIM_INFINITY else min(_MAX_CONNECTIONS, allowed // 2)


def _bound(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        try:
            # A port that an endpoint before has just left may be taken at once.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
        except BaseException:
            listener.close()
            raise
    except OSError as error:
        raise HybridgeError(
            ErrorCode.ADDRESS_IN_USE,
            f"address {host}:{port} for REST",
            received=error.strerror or str(error),
            expected="an address of this machine and a free port",
            fix="choose another port, or 0 for the system to choose one",
        ) from error
    return listener
