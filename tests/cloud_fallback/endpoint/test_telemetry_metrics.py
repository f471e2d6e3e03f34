"""Metrics as Prometheus reads them, over real sockets, from an endpoint that was used."""

from __future__ import annotations

import re
import time
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

pytest.importorskip("aiohttp", reason="needs the 'serve' extra")
pytest.importorskip("prometheus_client", reason="needs the 'metrics' extra")
from prometheus_client.parser import text_string_to_metric_families

from cloud_fallback import Repository
from cloud_fallback.endpoint.access import Access
from cloud_fallback.endpoint.data_plane import DataPlane
from cloud_fallback.endpoint.endpoint_metrics import EndpointMetrics
from cloud_fallback.endpoint.rest import RestServer
from cloud_fallback.endpoint.token_file import TokenFile, token_digest
from edge_runtime import ErrorCode, HybridgeError, __version__
from tests.cloud_fallback.endpoint.rest_models import Echo, Gated

HTTP = httpx.Client(verify=False, trust_env=False)
ASK = {"inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": [1]}]}


def _samples(text: str) -> dict[str, dict[tuple[str, ...], float]]:
    """Values by name and by the values of labels, in the order of the labels' names."""
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = tuple(value for _, value in sorted(sample.labels.items()))
            assert labels not in found.setdefault(sample.name, {}), "twice"
            found[sample.name][labels] = sample.value
    return found


def _until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_what_an_endpoint_did_and_what_waits_is_read_at_each_scrape() -> None:
    model = Gated()
    data_plane = DataPlane(Repository([model, Echo()]))
    with (
        RestServer(data_plane, metrics=EndpointMetrics(data_plane)) as server,
        ThreadPoolExecutor(3) as aside,
    ):
        url = f"{server.address}/v2/models/gated/infer"
        asked = [aside.submit(HTTP.post, url, json=ASK) for _ in range(3)]
        _until(lambda: model.queue.figures().waiting == 2)
        assert HTTP.post(url, json=ASK).status_code == 429
        busy = _samples(HTTP.get(f"{server.address}/metrics").text)
        model.gate.set()
        for each in asked:
            each.result()
        HTTP.post(f"{server.address}/v2/models/echo/infer", content=b"[")
        idle = _samples(HTTP.get(f"{server.address}/metrics").text)
    gated, rest = ("gated", "3"), ("gated", "rest", "3")
    assert busy["hybridge_queue_depth"] == {gated: 2}
    assert busy["hybridge_endpoint_running"] == {gated: 1}
    assert busy["hybridge_endpoint_in_flight"] == {("grpc",): 0, ("rest",): 3}
    assert idle["hybridge_queue_depth"] == {gated: 0}
    assert idle["hybridge_endpoint_in_flight"] == {("grpc",): 0, ("rest",): 0}
    assert idle["hybridge_endpoint_runs_total"] == {gated: 3}
    assert idle["hybridge_endpoint_shed_total"] == {gated: 1}
    assert idle["hybridge_endpoint_expired_total"] == {gated: 0}
    assert idle["hybridge_endpoint_busy_seconds_total"][gated] > 0
    assert idle["hybridge_endpoint_requests_total"] == {
        ("ok", *rest): 3,
        ("cloud-overloaded", *rest): 1,
        ("input-invalid", "", "rest", ""): 1,
    }
    assert idle["hybridge_endpoint_received_bytes_total"][rest] > 200
    assert idle["hybridge_endpoint_sent_bytes_total"][rest] > 200
    assert idle["hybridge_endpoint_request_seconds_count"][rest] == 4
    assert idle["hybridge_endpoint_model_ready"] == {gated: 1, ("echo", "1"): 1}
    assert next(iter(idle["hybridge_endpoint_build_info"]))[1] == __version__
    assert idle["process_resident_memory_bytes"][()] > 2**20


def test_every_metric_is_listed_with_its_type_and_labels() -> None:
    model = Gated()
    model.gate.set()
    data_plane, access = DataPlane(Repository([model])), Access()
    with RestServer(data_plane, metrics=EndpointMetrics(data_plane, access)) as server:
        HTTP.post(f"{server.address}/v2/models/gated/infer", json=ASK)
        with pytest.raises(HybridgeError):
            access.admit(None, "admin", lambda: "192.0.2.1:7")
        text = HTTP.get(f"{server.address}/metrics").text
    exposed = {
        family.name: (family.type, sorted(set(family.samples[0].labels) - {"le"}))
        for family in text_string_to_metric_families(text)
        if family.name.startswith("hybridge")
    }
    page = Path(__file__).parents[3].joinpath("docs", "serve.md").read_text()
    listed = {
        name: (kind, sorted(labels.split(", ")))
        for name, kind, labels in re.findall(
            r"^\| `(hybridge\w+)` \| (\w+) \| ([\w, ]+) \|", page, re.MULTILINE
        )
    }
    assert listed == exposed


def test_a_histogram_counts_everything_below_each_bound() -> None:
    data_plane = DataPlane(Repository([Echo()]))
    with RestServer(data_plane, metrics=EndpointMetrics(data_plane)) as server:
        for _ in range(3):
            HTTP.post(f"{server.address}/v2/models/echo/infer", json={"inputs": []})
        samples = _samples(HTTP.get(f"{server.address}/metrics").text)
    buckets = samples["hybridge_endpoint_request_seconds_bucket"]
    counts = {labels[0]: count for labels, count in buckets.items()}
    assert counts["+Inf"] == 3
    ordered = [counts[bound] for bound in sorted(counts, key=float)]
    assert ordered == sorted(ordered)


def test_a_model_that_is_unloaded_is_not_ready(onnx_models: Path) -> None:
    data_plane = DataPlane(Repository.load([onnx_models / "linear.onnx", onnx_models / "ones.onnx"]))
    metrics = EndpointMetrics(data_plane)
    data_plane.unload("ones")
    text, content_type = metrics.text()
    assert _samples(text.decode())["hybridge_endpoint_model_ready"] == {("linear", "1"): 1, ("ones", "1"): 0}
    assert content_type.startswith("text/plain")
    data_plane.repository.close()


def test_metrics_have_a_port_of_their_own_and_the_format_that_is_asked_for() -> None:
    data_plane = DataPlane(Repository([Echo()]))
    metrics = EndpointMetrics(data_plane)
    server = metrics.serve(port=0)
    try:
        url = f"http://127.0.0.1:{server.server_port}/metrics"
        request = urllib.request.Request(
            url, headers={"Accept": "application/openmetrics-text; version=1.0.0"}
        )
        with urllib.request.urlopen(request, timeout=10) as response:
            assert response.headers["content-type"].startswith("application/openmetrics-text")
            assert response.read().endswith(b"# EOF\n")
        with pytest.raises(HybridgeError) as refusal:
            metrics.serve(port=server.server_port)
        assert refusal.value.code is ErrorCode.ADDRESS_IN_USE
    finally:
        server.shutdown()
        server.server_close()


def test_metrics_beside_rest_are_for_administrators_and_tell_who_was_not_let_in(tmp_path: Path) -> None:
    tokens = tmp_path / "tokens.toml"
    tokens.write_text(
        f'[clients.device]\ntoken_sha256 = ["{token_digest("d")}"]\n'
        f'[clients.operator]\ntoken_sha256 = ["{token_digest("o")}"]\nscopes = ["admin"]\n'
    )
    data_plane = DataPlane(Repository([Echo()]))
    access = Access(TokenFile(tokens))
    with RestServer(data_plane, access=access, metrics=EndpointMetrics(data_plane, access)) as server:
        responses = {
            token: HTTP.get(f"{server.address}/metrics", headers={"Authorization": f"Bearer {token}"})
            for token in ("x", "d", "o")
        }
    assert {token: response.status_code for token, response in responses.items()} == {
        "x": 401,
        "d": 403,
        "o": 200,
    }
    refused = _samples(responses["o"].text)["hybridge_endpoint_refused_total"]
    assert refused == {("unauthenticated",): 1, ("not-permitted",): 1}
