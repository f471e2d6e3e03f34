"""Handwritten digits as a runtime of MLServer; run by its own Python."""

import asyncio
from pathlib import Path

import numpy as np
from mlserver import MLModel  # type: ignore[import-not-found]
from mlserver.codecs import NumpyCodec  # type: ignore[import-not-found]
from mlserver.types import InferenceRequest, InferenceResponse  # type: ignore[import-not-found]


class Digits(MLModel):  # type: ignore[misc]
    """A linear classifier; darkness below zero is a delay in seconds."""

    async def load(self) -> bool:
        """Reads the weights that lie beside this file."""
        trained = np.load(Path(__file__).with_name("digits.npz"))
        self._weights, self._bias = trained["weights"], trained["bias"]
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Answers one request."""
        image = NumpyCodec.decode_input(payload.inputs[0])
        if image.min() < 0:
            await asyncio.sleep(float(-image.min()))
        logits = image.reshape(1, 64) @ self._weights + self._bias
        return InferenceResponse(model_name=self.name, outputs=[NumpyCodec.encode_output("logits", logits)])
