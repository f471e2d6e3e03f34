"""A model made in Python for the endpoint: it shouts what the device does not know."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from cloud_fallback.endpoint.served import TimeLeft, no_limit
from edge_runtime.tensor_spec import TensorSpec

Array = np.ndarray[Any, Any]


class Shouting:
    version, platform = "1", "python"
    inputs = (TensorSpec("text", (), "string"),)
    outputs = (
        TensorSpec("translation", (), "string"),
        TensorSpec("confidence", (), "float32"),
        TensorSpec("translated", (), "bool"),
    )

    def __init__(self, name: str):
        self.name = name

    def infer(self, inputs: Mapping[str, Array], *, time_left: TimeLeft = no_limit) -> dict[str, Array]:  # noqa: ARG002
        return {
            "translation": np.array(inputs["text"].item().decode().upper() + "!", object),
            "confidence": np.array(1.0, np.float32),
            "translated": np.array(True),
        }


def model(*, name: str | None, instances: int, num_threads: int) -> Shouting:
    return Shouting(name or "shouting")
