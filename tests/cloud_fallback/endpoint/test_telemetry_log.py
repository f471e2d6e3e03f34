"""The log of requests: one line each, what it says, and what it never does."""

from __future__ import annotations

import io
import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import numpy as np
import pytest

pytest.importorskip("aiohttp", reason="needs the 'serve' extra")

from cloud_fallback import Repository
from cloud_fallback.endpoint.data_plane import DataPlane, InferenceRequest
from cloud_fallback.endpoint.request_log import LOGGER_NAME, RequestLine, RequestLog, log_requests_to
from cloud_fallback.endpoint.telemetry import Telemetry, Transport
from edge_runtime import ErrorCode, HybridgeError
from tests.cloud_fallback.endpoint.rest_models import Echo, Gated, served

HTTP = httpx.Client(verify=False, trust_env=False)


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    stream = io.StringIO()
    handler = log_requests_to(stream)
    yield stream
    logger = logging.getLogger(LOGGER_NAME)
    logger.removeHandler(handler)
    logger.setLevel(logging.NOTSET)
    logger.propagate = True


def _lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def _ask(data_plane: DataPlane, model: str, **options: Any) -> None:
    with data_plane.telemetry.record(Transport.GRPC, lambda: "ipv4:192.0.2.1:7") as record:
        record.client = "device-7"
        record.received(100)
        record.request = InferenceRequest(model, "", options.pop("inputs", {}), **options)
        data_plane.infer(record.request)
        record.bytes_out = 7


def test_a_line_says_who_asked_what_and_how_it_went(stream: io.StringIO) -> None:
    model = Gated()
    model.gate.set()
    data_plane = DataPlane(Repository([model]), telemetry=Telemetry(RequestLog()))
    _ask(data_plane, "gated", id="42", time_left=lambda: 0.5, inputs={"x": np.ones(1, np.float32)})
    (line,) = _lines(stream)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", line.pop("time"))
    assert 0 < line.pop("total_ms") < 10_000
    for name in ("queue_ms", "run_ms", "rows"):
        line.pop(name)
    assert line == {
        "id": "42", "client": "device-7", "peer": "ipv4:192.0.2.1:7", "transport": "grpc", "model": "gated",
        "version": "3", "code": "ok", "status": "OK", "bytes_in": 100, "bytes_out": 7, "deadline_left_ms": 500.0,
    }  # fmt: skip


def test_the_line_shown_has_every_field() -> None:
    page = Path(__file__).parents[3].joinpath("docs", "serve.md").read_text()
    (shown,) = re.findall(r"```json\n(.*)\n```", page)
    assert list(json.loads(shown)) == [field.name for field in msgspec.structs.fields(RequestLine)]


def test_a_refusal_says_its_code_and_the_transports_word_for_it(stream: io.StringIO) -> None:
    with served(Echo(), telemetry=Telemetry(RequestLog())) as server:
        HTTP.post(f"{server.address}/v2/models/none/versions/9/infer", json={"inputs": []})
        HTTP.post(f"{server.address}/v2/models/echo/infer", content=b"[")
        HTTP.post(f"{server.address}/v2/models/echo/infer", content=b"", headers={"Content-Encoding": "br"})
        HTTP.post(
            f"{server.address}/v2/models/echo/infer", json={"inputs": []}, headers={"x-request-id": "r-1"}
        )
        HTTP.get(f"{server.address}/v2/health/ready")
    data_plane = DataPlane(Repository([Echo()]), telemetry=Telemetry(RequestLog()))
    with pytest.raises(HybridgeError):
        _ask(data_plane, "none")
    assert [(line["model"], line["version"], line["code"], line["status"]) for line in _lines(stream)] == [
        ("none", "9", "model-unknown", "404"),
        ("echo", "", "input-invalid", "400"),
        ("echo", "", "input-invalid", "415"),
        ("echo", "1", "ok", "200"),
        ("none", "", "model-unknown", "NOT_FOUND"),
    ]
    assert _lines(stream)[3]["id"] == "r-1"
    assert _lines(stream)[3]["peer"].startswith("127.0.0.1:")
    assert len({line["id"] for line in _lines(stream)}) == 5


def test_inputs_tokens_and_what_a_model_says_are_never_in_it(stream: io.StringIO) -> None:
    class Telling(Echo):
        def infer(self, inputs: Any, *, time_left: Any = None) -> Any:  # noqa: ARG002
            raise HybridgeError(ErrorCode.INVOKE_FAILED, "model", received="secret-data")

    with served(Telling(), telemetry=Telemetry(RequestLog())) as server:
        tensor = {"name": "BYTES", "datatype": "BYTES", "shape": [1], "data": ["secret-data"]}
        HTTP.post(
            f"{server.address}/v2/models/echo/infer",
            json={"inputs": [tensor]},
            headers={"Authorization": "Bearer secret-token", "idempotency-key": "secret-key"},
        )
    assert _lines(stream)[0]["code"] == "invoke-failed"
    assert "secret" not in stream.getvalue()


def test_names_of_a_caller_make_one_line_of_bounded_length(stream: io.StringIO) -> None:
    data_plane = DataPlane(Repository([Echo()]), telemetry=Telemetry(RequestLog()))
    with pytest.raises(HybridgeError):
        _ask(data_plane, 'a"\n{' * 100_000, id="\r\n\0" * 100_000)
    assert len(_lines(stream)) == 1
    assert len(stream.getvalue()) < 3000


def test_of_a_sample_all_that_failed_are_written(stream: io.StringIO) -> None:
    data_plane = DataPlane(Repository([Echo()]), telemetry=Telemetry(RequestLog(one_in=10)))
    for index in range(100):
        _ask(data_plane, "echo")
        if index % 10 == 0:
            with pytest.raises(HybridgeError):
                _ask(data_plane, "none")
    codes = [line["code"] for line in _lines(stream)]
    assert (codes.count("ok"), codes.count("model-unknown")) == (10, 10)
    with pytest.raises(HybridgeError) as refusal:
        RequestLog(one_in=0)
    assert refusal.value.code is ErrorCode.USAGE


def test_nothing_is_written_unless_it_is_asked_for(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        _ask(DataPlane(Repository([Echo()])), "echo")
    assert [each for each in caplog.records if each.name == LOGGER_NAME] == []
