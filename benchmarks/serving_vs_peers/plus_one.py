"""y = x + 1: the model that costs next to nothing, so that what is measured is the server."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from cloud_fallback.endpoint.served import TimeLeft, no_limit
from edge_runtime.tensor_spec import Array, TensorSpec

__all__ = ["plus_one"]

_ONE = np.float32(1)


class _PlusOne:
    version = "1"
    platform = "numpy_python"
    inputs = (TensorSpec("x", (1, "size"), "float32"),)
    outputs = (TensorSpec("y", (1, "size"), "float32"),)

    def __init__(self, name: str):
        self.name = name

    def infer(self, inputs: Mapping[str, Array], *, time_left: TimeLeft = no_limit) -> dict[str, Array]:  # noqa: ARG002
        return {"y": inputs["x"] + _ONE}


def plus_one(*, name: str | None = None, instances: int = 1, num_threads: int = 1) -> _PlusOne:  # noqa: ARG001
    """What `hybridge serve` makes of ``benchmarks.serving_vs_peers.plus_one:plus_one``."""
    return _PlusOne(name or "plus-one")
