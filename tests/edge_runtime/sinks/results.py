"""Results of a stream, as a chain would give them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from edge_runtime import ErrorCode, HybridgeError, Prediction
from edge_runtime.frame import Frame, StreamResult
from edge_runtime.tensor_spec import Array, Value


def answered(
    index: int = 0,
    outputs: Mapping[str, Value] | None = None,
    *,
    image: Array | None = None,
    name: str = "",
    time_s: float = 0.0,
    label: str | None = None,
) -> StreamResult:
    inputs = {} if image is None else {"image": image}
    prediction = Prediction(outputs or {}, label=label, confidence=None if label is None else 0.5)
    return StreamResult(index, Frame(inputs, name or f"frame {index}", time_s), prediction)


def failed(index: int = 0, *, image: Array | None = None, time_s: float = 0.0) -> StreamResult:
    inputs = {} if image is None else {"image": image}
    error = HybridgeError(ErrorCode.OPERATOR_FAILED, "operator 'x'", received="ValueError")
    return StreamResult(index, Frame(inputs, f"frame {index}", time_s), None, error)


def grey(value: int = 50, height: int = 48, width: int = 64) -> Array:
    return np.full((height, width, 3), value, np.uint8)
