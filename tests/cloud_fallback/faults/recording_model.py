"""A model for an endpoint in a process of its own, which notes each of its runs in a file."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cloud_fallback.endpoint.served.model_queue import Batching, ModelQueue
from cloud_fallback.endpoint.served.served_model import TimeLeft, no_limit
from edge_runtime.tensor_spec import TensorSpec

__all__ = ["RUNS", "RecordingModel", "make", "runs"]

Array = np.ndarray[Any, Any]
# Names the file in the environment.
RUNS = "HYBRIDGE_TEST_RUNS"


class RecordingModel:
    """Takes as many seconds as its input says, with two runs at once, and gives the input back."""

    version, platform = "1", "none"
    inputs = outputs = (TensorSpec("seconds", (1,), "float32"),)

    def __init__(self, name: str = "recording"):
        self.name = name
        self._file = os.open(os.environ[RUNS], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        batching = Batching(max_waiting=100_000)
        self._queue: ModelQueue[str] = ModelQueue(name, ["one", "two"], self._run, batching=batching)

    def infer(self, inputs: Mapping[str, Array], *, time_left: TimeLeft = no_limit) -> dict[str, Array]:
        return self._queue.infer(inputs, time_left)

    def close(self) -> None:
        os.close(self._file)

    def _run(self, _runner: str, inputs: Mapping[str, Array]) -> dict[str, Array]:
        seconds = inputs["seconds"]
        if seconds[0] > 0:
            # Zero is a warm-up's.
            os.write(self._file, b".")
            time.sleep(float(seconds[0]))
        return {"seconds": seconds}


def make(name: str | None, **_options: int) -> RecordingModel:
    """What `hybridge serve` calls."""
    return RecordingModel(name or "recording")


def runs(path: Path) -> int:
    """How many runs there were."""
    return path.stat().st_size if path.exists() else 0
