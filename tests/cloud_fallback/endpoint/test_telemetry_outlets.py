"""The flags for REST, metrics and the log of requests, and what they open beside an endpoint."""

from __future__ import annotations

import json
import logging
from typing import Any

import click
import httpx
import pytest
from click.testing import CliRunner

pytest.importorskip("aiohttp", reason="needs the 'serve' extra")
pytest.importorskip("prometheus_client", reason="needs the 'metrics' extra")

from cloud_fallback import Endpoint, Repository
from cloud_fallback.endpoint.outlet_flags import Outlets, outlet_flags
from cloud_fallback.endpoint.request_log import LOGGER_NAME
from edge_runtime import ErrorCode, HybridgeError
from tests.cloud_fallback.endpoint.rest_models import Echo


def _parsed(*arguments: str) -> dict[str, Any]:
    parsed: dict[str, Any] = {}

    @click.command()
    @outlet_flags
    def command(**flags: Any) -> None:
        parsed.update(flags)

    result = CliRunner().invoke(command, arguments)
    assert result.exit_code == 0, result.output
    return parsed


def test_rest_and_metrics_are_open_beside_an_endpoint_and_closed_with_the_block() -> None:
    outlets = Outlets.of(**_parsed("--rest-port", "0", "--metrics-port", "0"))
    with Endpoint(Repository([Echo()])) as endpoint:
        with outlets.open(endpoint, max_body_bytes=2**20, tls=None, grace_s=1.0) as addresses:
            metrics = f"http://127.0.0.1:{addresses['metrics_port']}/metrics"
            with httpx.Client(base_url=addresses["rest_address"]) as client:
                assert client.get("/v2/models/echo/ready").json()["ready"]
                assert "hybridge_endpoint_build_info" in client.get("/metrics").text
            assert "hybridge_endpoint_build_info" in httpx.get(metrics).text
            assert json.dumps(addresses)
            taken = Outlets.of(**_parsed("--metrics-port", str(addresses["metrics_port"])))
            with pytest.raises(HybridgeError) as refusal:
                taken.open(endpoint, max_body_bytes=1, tls=None, grace_s=1.0).__enter__()
            assert refusal.value.code is ErrorCode.ADDRESS_IN_USE
        for address in (addresses["rest_address"], metrics):
            with pytest.raises(httpx.TransportError):
                httpx.get(address)


def test_nothing_is_open_without_flags() -> None:
    with (
        Endpoint(Repository([Echo()])) as endpoint,
        Outlets.of(**_parsed()).open(endpoint, max_body_bytes=1, tls=None, grace_s=1.0) as addresses,
    ):
        assert addresses == {}


def test_requests_are_logged_to_standard_error_when_that_is_asked_for(
    capsys: pytest.CaptureFixture[str],
) -> None:
    logger = logging.getLogger(LOGGER_NAME)
    try:
        outlets = Outlets.of(**_parsed("--rest-port", "0", "--log-requests", "--log-one-in", "2"))
        with (
            Endpoint(Repository([Echo()])) as endpoint,
            outlets.open(endpoint, max_body_bytes=2**20, tls=None, grace_s=1.0) as addresses,
            httpx.Client(base_url=addresses["rest_address"]) as client,
        ):
            # Its own telemetry is the endpoint's to be given.
            endpoint.data_plane.telemetry = outlets.telemetry
            for _ in range(4):
                client.post("/v2/models/echo/infer", json={"inputs": []})
        lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
        assert [(line["model"], line["status"]) for line in lines] == [("echo", "200")] * 2
    finally:
        for handler in list(logger.handlers):
            logger.removeHandler(handler)
        logger.setLevel(logging.NOTSET)
        logger.propagate = True
