"""Flags of `hybridge serve` about what it answers besides gRPC: REST, metrics, and a log of requests."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from cloud_fallback.endpoint.endpoint import Endpoint
    from cloud_fallback.endpoint.rest import RestServer
    from cloud_fallback.endpoint.server_tls import ServerTls
    from cloud_fallback.endpoint.telemetry import Telemetry

__all__ = ["Outlets", "outlet_flags"]

_Command = TypeVar("_Command", bound=Callable[..., Any])
_FLAGS = (
    click.option(
        "--rest-port",
        type=click.IntRange(0, 65535),
        help="Port for the protocol over HTTP; 0 lets the system choose.  [default: no HTTP]",
    ),
    click.option(
        "--metrics-port",
        type=click.IntRange(0, 65535),
        help="Port for Prometheus, which needs no token; with --rest-port they are at /metrics there, too.",
    ),
    click.option(
        "--log-requests", is_flag=True, help="Write a line of JSON for each request to standard error."
    ),
    click.option(
        "--log-one-in",
        type=click.IntRange(min=1),
        default=1,
        show_default=True,
        help="Of how many requests that went well one is written; those that failed always are.",
    ),
)


def outlet_flags(command: _Command) -> _Command:
    """Adds the flags to a click command, which hands them to `Outlets.of`."""
    for flag in reversed(_FLAGS):
        command = flag(command)
    return command


@dataclass(frozen=True, slots=True)
class Outlets:
    """What the flags come to.

    Attributes:
        telemetry: For the endpoint's data plane.
    """

    telemetry: Telemetry
    rest_port: int | None
    metrics_port: int | None

    @classmethod
    def of(
        cls, *, rest_port: int | None, metrics_port: int | None, log_requests: bool, log_one_in: int
    ) -> Outlets:
        """Reads the flags."""
        from cloud_fallback.endpoint.request_log import RequestLog, log_requests_to
        from cloud_fallback.endpoint.telemetry import Telemetry

        if log_requests:
            log_requests_to(sys.stderr)
        return cls(
            Telemetry(RequestLog(one_in=log_one_in) if log_requests else None), rest_port, metrics_port
        )

    @contextmanager
    def open(
        self, endpoint: Endpoint, *, max_body_bytes: int, tls: ServerTls | None, grace_s: float
    ) -> Iterator[dict[str, Any]]:
        """Serves REST and metrics of an endpoint while the block runs; gives their addresses, for who prints them.

        Args:
            endpoint: What is served.
            max_body_bytes: Size of the largest request.
            tls: For HTTPS.
            grace_s: How long requests under way may take when the block ends.

        Raises:
            HybridgeError: `address-in-use`; `extra-missing`.
        """
        addresses: dict[str, Any] = {}
        if self.rest_port is None and self.metrics_port is None:
            yield addresses
            return
        from cloud_fallback.endpoint.endpoint_metrics import EndpointMetrics

        metrics = EndpointMetrics(endpoint.data_plane, endpoint.access)
        with ExitStack() as stack:
            if self.metrics_port is not None:
                server = metrics.serve(port=self.metrics_port, host=endpoint.host)
                stack.callback(server.server_close)
                stack.callback(server.shutdown)
                addresses["metrics_port"] = server.server_port
            if self.rest_port is not None:
                from cloud_fallback.endpoint.rest import RestServer

                rest = RestServer(
                    endpoint.data_plane,
                    host=endpoint.host,
                    port=self.rest_port,
                    max_body_bytes=max_body_bytes,
                    tls=tls,
                    access=endpoint.access,
                    metrics=metrics,
                ).start()
                stack.callback(_stop_together, endpoint, rest, grace_s)
                addresses |= {"rest_port": rest.port, "rest_address": rest.address}
            yield addresses


def _stop_together(endpoint: Endpoint, rest: RestServer, grace_s: float) -> None:
    """Stops both at once: neither is ready any more, and requests under way have one grace, not two."""
    with ThreadPoolExecutor(1, "endpoint-stop") as pool:
        pool.submit(endpoint.stop, grace_s)
        rest.stop(grace_s)
