"""Models and a server for the tests of REST: one that gives back what it gets, and one that waits to be let go on."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from cloud_fallback import Repository
from cloud_fallback.endpoint.data_plane import DataPlane
from cloud_fallback.endpoint.rest import RestServer
from cloud_fallback.endpoint.served import Batching, ModelQueue, ServedModel, TimeLeft, no_limit
from cloud_fallback.endpoint.telemetry import Telemetry
from edge_runtime.tensor_spec import TensorSpec

__all__ = ["DTYPES", "Echo", "Gated", "served"]

Array = np.ndarray[Any, Any]

# By the protocol's name.
DTYPES = {
    "BOOL": "bool", "UINT8": "uint8", "UINT16": "uint16", "UINT32": "uint32", "UINT64": "uint64", "INT8": "int8",
    "INT16": "int16", "INT32": "int32", "INT64": "int64", "FP16": "float16", "FP32": "float32", "FP64": "float64",
    "BYTES": "string",
}  # fmt: skip


class Echo:
    """Has a tensor of every type, in any shape, and gives back those that a request has, and the others empty."""

    platform = "python"
    inputs = outputs = tuple(TensorSpec(name, ("any",), dtype) for name, dtype in DTYPES.items())

    def __init__(self, name: str = "echo", version: str = "1"):
        self.name, self.version = name, version

    def infer(self, inputs: Mapping[str, Array], *, time_left: TimeLeft = no_limit) -> dict[str, Array]:  # noqa: ARG002
        return {spec.name: np.zeros(0, spec.dtype) for spec in self.inputs if spec.dtype != "string"} | {
            "BYTES": np.zeros(0, object),
            **inputs,
        }


class Gated:
    """Gives `x` back once it may; runs one request at a time, and lets two wait.

    Attributes:
        gate: Set while it may.
        runs: How often it ran.
    """

    name, version, platform = "gated", "3", "python"
    inputs = outputs = (TensorSpec("x", ("n",), "float32"),)

    def __init__(self) -> None:
        self.gate, self.entered, self.runs = threading.Event(), threading.Event(), 0
        self.queue = ModelQueue(self.name, [self], Gated._run, batching=Batching(max_waiting=2))

    def infer(self, inputs: Mapping[str, Array], *, time_left: TimeLeft = no_limit) -> dict[str, Array]:
        return self.queue.infer(inputs, time_left)

    def _run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        self.runs += 1
        self.entered.set()
        assert self.gate.wait(20)
        return dict(inputs)


@contextmanager
def served(*models: ServedModel, telemetry: Telemetry | None = None, **options: Any) -> Iterator[RestServer]:
    """A server of some models."""
    server = RestServer(DataPlane(Repository(models), telemetry=telemetry), **options).start()
    try:
        yield server
    finally:
        server.stop(0.5)
