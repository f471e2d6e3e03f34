"""Fixtures of the fallback's tests: ONNX models, an endpoint that serves them, and requests that take long."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cloud_fallback import CloudFallback, Endpoint, EndpointProcess, Repository
from cloud_fallback.endpoint.served.onnx_model import OnnxModel
from edge_runtime import Query
from tests.cloud_fallback.faults.fault_table import FaultTable
from tests.cloud_fallback.onnx_models import write_models

Array = np.ndarray[Any, Any]


@pytest.fixture(scope="session")
def onnx_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the models that `write_models` names."""
    folder = tmp_path_factory.mktemp("onnx")
    write_models(folder)
    return folder


@pytest.fixture(scope="session")
def endpoint(onnx_models: Path) -> Iterator[Endpoint]:
    """An endpoint in this process that serves all of them, with messages of up to 1 MiB."""
    with Endpoint(Repository.load([onnx_models]), max_message_bytes=2**20) as endpoint:
        yield endpoint


@pytest.fixture
def fallback(endpoint: Endpoint) -> Iterator[Callable[..., CloudFallback]]:
    """Opens fallbacks on the endpoint, by model and options, and closes them."""
    opened: list[CloudFallback] = []

    def open_one(model: str, **options: Any) -> CloudFallback:
        options.setdefault("deadline_s", 10.0)
        opened.append(CloudFallback(options.pop("target", endpoint.address), model=model, **options))
        return opened[-1]

    yield open_one
    for one in opened:
        one.close()


@pytest.fixture(scope="session")
def busy(onnx_models: Path) -> Callable[[float], dict[str, Array]]:
    """Inputs for the model `busy` that keep one core of this machine at work for about as many seconds as asked."""
    model = OnnxModel(onnx_models / "busy.onnx")
    steps, elapsed = 50, 0.0
    while elapsed < 0.2:
        steps *= 2
        start = time.perf_counter()
        model.infer({"x": np.ones(1, np.float32), "steps": np.array(steps)})
        elapsed = time.perf_counter() - start

    def make(seconds: float) -> dict[str, Array]:
        return {"x": np.full(1, 3.0, np.float32), "steps": np.array(max(1, round(steps * seconds / elapsed)))}

    return make


@pytest.fixture(scope="session")
def fault_table() -> Iterator[FaultTable]:
    """Takes a row from each test of a fault: `fault_table(fault, happened)`, and what was lost unless it is nothing."""
    table = FaultTable()
    yield table
    table.write()


@pytest.fixture
def endpoint_process(onnx_models: Path) -> Iterator[Callable[..., EndpointProcess]]:
    """Starts `hybridge serve` on a model or a folder, and kills what is left at the end."""
    started: list[EndpointProcess] = []

    def start(model: str = "", *arguments: str) -> EndpointProcess:
        started.append(EndpointProcess([onnx_models / model], arguments=arguments))
        return started[-1]

    yield start
    for process in started:
        process.kill()


def unsure(inputs: dict[str, Array], **outputs: Array) -> Query:
    """A query that the default policy asks about, for a stage whose device outputs are `outputs`."""
    return Query("stage", inputs, outputs, confidence=0.1, threshold=0.5)
