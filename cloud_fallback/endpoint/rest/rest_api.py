"""The paths of the Open Inference Protocol over HTTP, each a thin adapter from JSON to the data plane."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from http import HTTPStatus
from typing import Any, TypeVar

import msgspec
from aiohttp import web

from cloud_fallback.endpoint.access import Access
from cloud_fallback.endpoint.data_plane import DataPlane
from cloud_fallback.endpoint.endpoint_metrics import EndpointMetrics
from cloud_fallback.endpoint.rest.body_reader import BodyReader
from cloud_fallback.endpoint.rest.caller import admitted, given_header, model_of
from cloud_fallback.endpoint.rest.http_status import error_response, http_failure
from cloud_fallback.endpoint.rest.inference_handler import InferenceHandler
from cloud_fallback.endpoint.rest.patience import Patience
from cloud_fallback.open_inference.tensors import datatype, wire_shape
from edge_runtime import __version__
from edge_runtime.errors import ErrorCode, HybridgeError
from edge_runtime.tensor_spec import TensorSpec

__all__ = ["EXTENSIONS", "RestApi"]

# Of the protocol, by the names that Triton gives them.
EXTENSIONS = ("binary_tensor_data", "model_repository")

_log = logging.getLogger(__name__)
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_Body = TypeVar("_Body", bound=msgspec.Struct)


class _IndexRequest(msgspec.Struct):
    ready: bool = False


class _RepositoryRequest(msgspec.Struct):
    parameters: dict[str, Any] | None = None


class RestApi:
    """Answers over HTTP for a data plane.

    Args:
        data_plane: What decides.
        inference: Answers requests to run a model.
        bodies: Reads the bodies of others.
        access: Lets callers in; without it, everybody.
        metrics: What Prometheus is told at ``/metrics``; without it there is no such path.
        patience: How long a caller may take to take an answer.

    Attributes:
        busy: Connections with a request that has not been answered yet.
    """

    def __init__(
        self,
        data_plane: DataPlane,
        *,
        inference: InferenceHandler,
        bodies: BodyReader,
        patience: Patience,
        access: Access | None = None,
        metrics: EndpointMetrics | None = None,
    ):
        self._data_plane = data_plane
        self._inference = inference
        self._bodies = bodies
        self._access = access
        self._metrics = metrics
        self._patience = patience
        self.busy: set[object] = set()

    def application(self) -> web.Application:
        """What an HTTP server runs."""
        application = web.Application(middlewares=[self._reported])
        model = "/v2/models/{model}"
        version = model + "/versions/{version}"
        for path, get in {
            "/v2": self._server_metadata,
            "/v2/": self._server_metadata,
            "/v2/health/live": self._live,
            "/v2/health/ready": self._ready,
            model: self._model_metadata,
            version: self._model_metadata,
            f"{model}/ready": self._model_ready,
            f"{version}/ready": self._model_ready,
        }.items():
            application.router.add_get(path, get)
        for path, post in {
            f"{model}/infer": self._inference.answer,
            f"{version}/infer": self._inference.answer,
            "/v2/repository/index": self._index,
            "/v2/repository/models/{model}/load": self._load,
            "/v2/repository/models/{model}/unload": self._unload,
        }.items():
            application.router.add_post(path, post, expect_handler=_nothing_yet)
        if self._metrics is not None:
            application.router.add_get("/metrics", self._prometheus)
        return application

    @web.middleware
    async def _reported(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        """Sends a handler's response, or that of the `HybridgeError` that it ends with."""
        connection = request.protocol
        self.busy.add(connection)
        try:
            return await self._sent(request, await self._response(request, handler))
        finally:
            self.busy.discard(connection)

    async def _response(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        try:
            if request.headers.get("Sec-Fetch-Site") == "cross-site":
                # A page of somebody else's, in the browser of who can reach the endpoint.
                raise HybridgeError(
                    ErrorCode.NOT_PERMITTED,
                    "caller",
                    received="a page of another site",
                    expected="no browser",
                )
            return await handler(request)
        except HybridgeError as error:
            return error_response(request, error)
        except web.HTTPException as error:
            return http_failure(request, error)
        except Exception:
            # What it says may hold paths or data; it is for the one who runs the endpoint.
            _log.exception("%s failed", request.path)
            return error_response(
                request, HybridgeError(ErrorCode.INTERNAL, "internal error of the endpoint")
            )

    async def _sent(self, request: web.Request, response: web.StreamResponse) -> web.StreamResponse:
        response.headers["Server"] = "hybridge"
        transport = request.transport
        if transport is None:
            return response
        # Written means gone from this process, so that who does not read is noticed here and not kept for ever.
        transport.set_write_buffer_limits(0)
        body = response.body if isinstance(response, web.Response) else None
        size = len(body) if isinstance(body, bytes) else 0
        try:
            async with asyncio.timeout(self._patience.time_for(size)):
                await response.prepare(request)
                await response.write_eof()
        except (TimeoutError, ConnectionError):
            transport.abort()
        return response

    async def _live(self, request: web.Request) -> web.Response:  # noqa: ARG002
        return _json({"live": True})

    async def _ready(self, request: web.Request) -> web.Response:  # noqa: ARG002
        return _readiness({"ready": self._data_plane.is_ready()})

    async def _model_ready(self, request: web.Request) -> web.Response:
        name, version = model_of(request)
        admitted(request, self._access, "infer", name)
        return _readiness({"name": name, "ready": self._data_plane.is_model_ready(name, version)})

    async def _server_metadata(self, request: web.Request) -> web.Response:
        admitted(request, self._access, "infer")
        return _json({"name": "hybridge", "version": __version__, "extensions": EXTENSIONS})

    async def _model_metadata(self, request: web.Request) -> web.Response:
        name, version = model_of(request)
        admitted(request, self._access, "infer", name)
        model = self._data_plane.describe(name, version)
        return _json(
            {
                "name": model.name,
                "versions": model.versions,
                "platform": model.platform,
                "inputs": _metadata(model.inputs),
                "outputs": _metadata(model.outputs),
            }
        )

    async def _index(self, request: web.Request) -> web.Response:
        admitted(request, self._access, "admin")
        asked = await self._parsed(request, _IndexRequest)
        return _json(
            [
                {"name": each.name, "version": each.version, "state": each.state, "reason": each.reason}
                for each in self._data_plane.index(only_ready=asked.ready)
            ]
        )

    async def _load(self, request: web.Request) -> web.Response:
        name, _ = model_of(request)
        admitted(request, self._access, "admin", name)
        asked = await self._parsed(request, _RepositoryRequest)
        if asked.parameters:
            # Triton takes a model's configuration and files in them; ignoring these would load something else.
            raise HybridgeError(
                ErrorCode.INPUT_INVALID,
                f"load of model '{name[:128]}'",
                received=f"parameters {', '.join(sorted(asked.parameters))[:128]}",
                expected="none: what is loaded is what the endpoint was started on",
            )
        # Not by a worker: loading takes long, and others wait for those.
        await asyncio.to_thread(self._data_plane.load, name)
        return _json({})

    async def _unload(self, request: web.Request) -> web.Response:
        name, _ = model_of(request)
        admitted(request, self._access, "admin", name)
        await self._parsed(request, _RepositoryRequest)
        await asyncio.to_thread(self._data_plane.unload, name)
        return _json({})

    async def _prometheus(self, request: web.Request) -> web.Response:
        # It tells of all models, and of how much each is asked.
        admitted(request, self._access, "admin")
        assert self._metrics is not None  # noqa: S101 - there is no such path without it
        text, content_type = await asyncio.to_thread(self._metrics.text, given_header(request, "Accept"))
        return web.Response(body=text, headers={"Content-Type": content_type})

    async def _parsed(self, request: web.Request, kind: type[_Body]) -> _Body:
        """A body that may be empty."""
        async with self._bodies.read(request) as body:
            try:
                return msgspec.json.decode(body or b"{}", type=kind)
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
                raise HybridgeError(
                    ErrorCode.INPUT_INVALID, "body", received=str(error), expected="a JSON object, or nothing"
                ) from error


async def _nothing_yet(request: web.Request) -> None:
    """Leaves it to who reads a body to ask for it: one who is refused before need not send it."""


def _json(value: object, status: HTTPStatus = HTTPStatus.OK) -> web.Response:
    return web.Response(status=status, body=msgspec.json.encode(value), content_type="application/json")


def _readiness(value: dict[str, object]) -> web.Response:
    return _json(value, HTTPStatus.OK if value["ready"] else HTTPStatus.SERVICE_UNAVAILABLE)


def _metadata(specs: Sequence[TensorSpec]) -> list[dict[str, object]]:
    return [
        {"name": spec.name, "datatype": datatype(spec.dtype), "shape": wire_shape(spec.shape)}
        for spec in specs
    ]
