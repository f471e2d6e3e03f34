"""Handwritten digits for the Python backend of Triton; run by its own Python."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils  # type: ignore[import-not-found]


class TritonPythonModel:
    """A linear classifier; darkness below zero is a delay in seconds."""

    def initialize(self, args: dict[str, str]) -> None:  # noqa: ARG002 - the backend's signature
        """Reads the weights that lie beside this file."""
        trained = np.load(Path(__file__).with_name("digits.npz"))
        self._weights, self._bias = trained["weights"], trained["bias"]

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answers the requests that the server has put together."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        image = pb_utils.get_input_tensor_by_name(request, "image").as_numpy()
        if image.min() < 0:
            time.sleep(float(-image.min()))
        logits = image.reshape(1, 64) @ self._weights + self._bias
        return pb_utils.InferenceResponse([pb_utils.Tensor("logits", logits)])
