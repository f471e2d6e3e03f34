"""An endpoint's metrics for Prometheus, by its own client library (extra `metrics`)."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from cloud_fallback.endpoint.telemetry import Histogram
from edge_runtime import __version__
from edge_runtime.errors import ErrorCode, HybridgeError, missing_extra

if TYPE_CHECKING:
    from cloud_fallback.endpoint.access import Access
    from cloud_fallback.endpoint.data_plane import DataPlane
    from cloud_fallback.endpoint.served.model_queue import QueueFigures

__all__ = ["EndpointMetrics"]

_PREFIX = "hybridge_endpoint_"
_MODEL = ("model", "version")
_REQUEST = (*_MODEL, "transport")
# Type, name, what it is, and where it is among a queue's figures; the depth has the name that autoscaling asks for.
_QUEUE = (
    ("gauge", "hybridge_queue_depth", "Requests that wait for a model.", "waiting"),
    ("gauge", f"{_PREFIX}running", "Runs of a model under way.", "running"),
    ("counter", f"{_PREFIX}runs", "Runs of a model since it was loaded.", "runs"),
    ("counter", f"{_PREFIX}busy_seconds", "Seconds of those runs.", "busy_s"),
    ("counter", f"{_PREFIX}shed", "Requests refused as too many, since the model was loaded.", "shed"),
    ("counter", f"{_PREFIX}expired", "Requests not run as nobody waited any more, likewise.", "expired"),
)


class EndpointMetrics:
    """Reads what an endpoint counts, anew at each scrape.

    Args:
        data_plane: What counts.
        access: What lets callers in, and counts those that it does not.

    Raises:
        HybridgeError: `extra-missing`.
    """

    def __init__(self, data_plane: DataPlane, access: Access | None = None):
        self._client = _client()
        self._registry = self._client.CollectorRegistry()
        self._registry.register(_Collector(data_plane, access))
        # Memory, processor time and open files, by the names that all of Prometheus's clients give them.
        self._client.ProcessCollector(registry=self._registry)

    def text(self, accept: str = "") -> tuple[bytes, str]:
        """The metrics in one of Prometheus's formats, and the name of that.

        Args:
            accept: The formats that a scraper takes, as its header Accept has them.
        """
        from prometheus_client.exposition import choose_encoder

        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type

    def serve(self, *, port: int, host: str = "127.0.0.1") -> Any:
        """Answers scrapes on a port of their own, from a thread; returns the server, to be shut down.

        Raises:
            HybridgeError: `address-in-use`.
        """
        try:
            server, _ = self._client.start_http_server(port, addr=host, registry=self._registry)
        except OSError as error:
            raise HybridgeError(
                ErrorCode.ADDRESS_IN_USE,
                f"address {host}:{port} for metrics",
                received=error.strerror or str(error),
                expected="an address of this machine and a free port",
            ) from error
        return server


class _Collector:
    def __init__(self, data_plane: DataPlane, access: Access | None):
        self._data_plane, self._access = data_plane, access

    def describe(self) -> Iterable[Any]:
        """Nothing: what there is, is known when it is read."""
        return ()

    def collect(self) -> Iterator[Any]:
        yield from self._requests()
        yield from self._queues()
        yield from self._models()
        if self._access is not None:
            refused = _family(
                "counter", f"{_PREFIX}refused", "Calls that were not let in, by why.", ("code",)
            )
            for code, count in self._access.refused().items():
                refused.add_metric([code.value], count)
            yield refused
        build = _family(
            "gauge", f"{_PREFIX}build_info", "The endpoint's version; always 1.", ("version", "python")
        )
        build.add_metric([__version__, platform.python_version()], 1)
        yield build

    def _requests(self) -> Iterator[Any]:
        figures = self._data_plane.telemetry.figures()
        requests = _family(
            "counter", f"{_PREFIX}requests", "Requests answered, by outcome.", (*_MODEL, "code", "transport")
        )
        received = _family("counter", f"{_PREFIX}received_bytes", "Size of requests.", _REQUEST)
        sent = _family("counter", f"{_PREFIX}sent_bytes", "Size of answers.", _REQUEST)
        histograms = {
            "seconds": _family(
                "histogram",
                f"{_PREFIX}request_seconds",
                "From a request's last byte to its answer.",
                _REQUEST,
            ),
            "queued": _family(
                "histogram", f"{_PREFIX}queue_seconds", "A request's wait for the model.", _REQUEST
            ),
            "run": _family(
                "histogram", f"{_PREFIX}run_seconds", "The run that answered a request.", _REQUEST
            ),
            "rows": _family(
                "histogram", f"{_PREFIX}batch_rows", "Rows of the run that answered a request.", _REQUEST
            ),
        }
        for each in figures.series:
            labels = [each.model, each.version, str(each.transport)]
            for code, count in each.codes.items():
                requests.add_metric([each.model, each.version, code, str(each.transport)], count)
            received.add_metric(labels, each.bytes_in)
            sent.add_metric(labels, each.bytes_out)
            for name, family in histograms.items():
                histogram: Histogram = getattr(each, name)
                family.add_metric(labels, _buckets(histogram), histogram.total)
        in_flight = _family("gauge", f"{_PREFIX}in_flight", "Requests under way.", ("transport",))
        for transport, count in figures.in_flight.items():
            in_flight.add_metric([str(transport)], count)
        yield from (requests, received, sent, in_flight, *histograms.values())

    def _queues(self) -> Iterator[Any]:
        queues: list[tuple[list[str], QueueFigures]] = [
            ([model.name, model.version], model.queue.figures())
            for model in self._data_plane.repository.models
            # A program's own model need not have one.
            if hasattr(model, "queue")
        ]
        for kind, name, text, attribute in _QUEUE:
            family = _family(kind, name, text, _MODEL)
            for labels, figures in queues:
                family.add_metric(labels, getattr(figures, attribute))
            yield family

    def _models(self) -> Iterator[Any]:
        ready = _family("gauge", f"{_PREFIX}model_ready", "Whether a model answers: 1 or 0.", _MODEL)
        for state in self._data_plane.index():
            ready.add_metric([state.name, state.version], int(state.is_ready))
        yield ready


def _family(kind: str, name: str, text: str, labels: Sequence[str]) -> Any:
    from prometheus_client import core

    families = {
        "counter": core.CounterMetricFamily,
        "gauge": core.GaugeMetricFamily,
        "histogram": core.HistogramMetricFamily,
    }
    return families[kind](name, text, labels=labels)


def _buckets(histogram: Histogram) -> list[tuple[str, float]]:
    """Counts up to each bound, as Prometheus has them."""
    counts, below = [], 0
    for bound, count in zip((*map(float, histogram.bounds), float("inf")), histogram.counts, strict=True):
        below += count
        counts.append((_bound_text(bound), float(below)))
    return counts


def _bound_text(bound: float) -> str:
    return "+Inf" if bound == float("inf") else repr(bound)


def _client() -> Any:
    try:
        import prometheus_client
    except ModuleNotFoundError as error:
        raise missing_extra("metrics", "prometheus_client") from error
    return prometheus_client
