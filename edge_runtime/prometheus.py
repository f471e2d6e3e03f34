"""The metrics of a chain and its fallbacks for Prometheus, by its own client library (extra `metrics`)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from edge_runtime.errors import ErrorCode, HybridgeError, missing_extra

if TYPE_CHECKING:
    from edge_runtime.metrics import Measure, Metrics

__all__ = ["families", "prometheus_text", "serve_metrics"]


def prometheus_text(metrics: Sequence[Metrics]) -> str:
    """The metrics of chains in Prometheus's text format.

    Raises:
        HybridgeError: `extra-missing`.
    """
    client = _client()
    registry = client.CollectorRegistry()
    registry.register(_Collector(metrics))
    text: str = client.generate_latest(registry).decode()
    return text


def serve_metrics(metrics: Sequence[Metrics], *, port: int, address: str = "127.0.0.1") -> Any:
    """Answers Prometheus's scrapes over HTTP from a thread of its own; returns the server, to be shut down.

    Raises:
        HybridgeError: `extra-missing`; `address-in-use`.
    """
    client = _client()
    registry = client.CollectorRegistry()
    registry.register(_Collector(metrics))
    try:
        server, _ = client.start_http_server(port, addr=address, registry=registry)
    except OSError as error:
        raise HybridgeError(
            ErrorCode.ADDRESS_IN_USE,
            f"address {address}:{port} for metrics",
            received=error.strerror or str(error),
            expected="a free port",
        ) from error
    return server


def families(measures: Iterable[tuple[Mapping[str, str], Measure]]) -> list[Any]:
    """Measures as Prometheus's metric families, each with the labels that tell it from the same of others.

    Raises:
        HybridgeError: `extra-missing`.
    """
    client = _client().metrics_core
    made: dict[str, Any] = {}
    for owner, measure in measures:
        labels = {**owner, **measure.labels}
        if measure.name not in made:
            kind = client.CounterMetricFamily if measure.is_count else client.GaugeMetricFamily
            made[measure.name] = kind(f"hybridge_{measure.name}", measure.text, labels=tuple(labels))
        made[measure.name].add_metric(tuple(labels.values()), measure.value)
    return list(made.values())


class _Collector:
    """Reads the figures anew at each scrape."""

    def __init__(self, metrics: Sequence[Metrics]):
        self._metrics = metrics

    def collect(self) -> Iterator[Any]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

        all_figures = [each.figures() for each in self._metrics]
        chain = ("chain",)

        def counter(
            name: str, text: str, labels: Sequence[str], rows: Iterable[tuple[list[str], float]]
        ) -> Any:
            family = CounterMetricFamily(f"hybridge_{name}", text, labels=labels)
            for values, count in rows:
                family.add_metric(values, count)
            return family

        def gauge(
            name: str, text: str, labels: Sequence[str], rows: Iterable[tuple[list[str], float]]
        ) -> Any:
            family = GaugeMetricFamily(f"hybridge_{name}", text, labels=labels)
            for values, value in rows:
                family.add_metric(values, value)
            return family

        yield counter("chain_runs", "Answers given.", chain, (([f.chain], f.runs) for f in all_figures))
        for name, text, what in (
            ("chain_errors", "Runs that gave no answer, by error code.", "errors"),
            ("chain_dropped", "Frames of streams that were dropped, by why.", "dropped"),
            ("chain_answers", "Answers by where they came from.", "sources"),
        ):
            label = {"errors": "code", "dropped": "reason", "sources": "source"}[what]
            yield counter(
                name,
                text,
                ("chain", label),
                (([f.chain, str(key)], n) for f in all_figures for key, n in getattr(f, what).items()),
            )
        latency = Metric("hybridge_chain_latency_seconds", "Time from call to answer.", "summary")
        by_stage = Metric("hybridge_stage_latency_seconds", "Time of a stage.", "summary")
        for f in all_figures:
            _add_summary(latency, {"chain": f.chain}, f, f.runs)
            for stage in f.stages:
                _add_summary(by_stage, {"chain": f.chain, "stage": stage.stage}, stage, stage.runs)
        yield latency
        yield by_stage
        stages = [(f.chain, stage) for f in all_figures for stage in f.stages]
        own = ("chain", "stage")
        yield counter("stage_errors", "Failed runs.", own, (([c, s.stage], s.errors) for c, s in stages))
        yield counter(
            "stage_skipped", "Runs passed over.", own, (([c, s.stage], s.skipped) for c, s in stages)
        )
        yield counter("stage_items", "Items run for.", own, (([c, s.stage], s.items) for c, s in stages))
        yield counter(
            "stage_decisions",
            "Answers of scored stages by why they came from there.",
            ("chain", "stage", "reason"),
            (([c, s.stage, str(why)], n) for c, s in stages for why, n in s.reasons.items()),
        )
        yield counter(
            "stage_refused", "Answers refused.", own, (([c, s.stage], s.refused) for c, s in stages)
        )
        yield gauge(
            "stage_waiting", "Frames that wait for it.", own, (([c, s.stage], s.waiting) for c, s in stages)
        )
        yield gauge(
            "queue_depth", "Frames at the entrance.", chain, (([f.chain], f.queue_depth) for f in all_figures)
        )
        yield gauge("in_flight", "Frames under way.", chain, (([f.chain], f.in_flight) for f in all_figures))
        if all_figures:
            yield gauge("resident_bytes", "Memory of the process.", (), [([], all_figures[0].memory_bytes)])
        yield from families(
            ({"chain": each.chain, "stage": stage}, measure)
            for each in self._metrics
            for stage, measures in each.measures().items()
            for measure in measures
        )


def _add_summary(family: Any, labels: dict[str, str], figures: Any, count: int) -> None:
    name = family.name
    for quantile, milliseconds in (
        ("0.5", figures.p50_ms),
        ("0.95", figures.p95_ms),
        ("0.99", figures.p99_ms),
    ):
        family.add_sample(name, {**labels, "quantile": quantile}, milliseconds / 1e3)
    family.add_sample(f"{name}_sum", labels, figures.total_ms / 1e3)
    family.add_sample(f"{name}_count", labels, count)


def _client() -> Any:
    try:
        import prometheus_client
    except ModuleNotFoundError as error:
        raise missing_extra("metrics", "prometheus_client") from error
    return prometheus_client
