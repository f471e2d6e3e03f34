"""Handwritten digits as a model of KServe's own server; run by its Python, with the port of gRPC."""

import asyncio
import sys
from pathlib import Path

import numpy as np
from kserve import InferOutput, InferRequest, InferResponse, Model, ModelServer  # type: ignore[import-not-found]


class Digits(Model):  # type: ignore[misc]
    """A linear classifier; darkness below zero is a delay in seconds."""

    def load(self) -> bool:
        """Reads the weights that lie beside this file."""
        trained = np.load(Path(__file__).with_name("digits.npz"))
        self._weights, self._bias = trained["weights"], trained["bias"]
        self.ready = True
        return True

    async def get_input_types(self) -> list[dict[str, object]]:
        """What it takes."""
        return [{"name": "image", "datatype": "FP32", "shape": [1, 8, 8, 1]}]

    async def get_output_types(self) -> list[dict[str, object]]:
        """What it gives."""
        return [{"name": "logits", "datatype": "FP32", "shape": [1, 10]}]

    async def predict(self, payload: InferRequest, *_headers: object, **_more: object) -> InferResponse:
        """Answers one request."""
        image = payload.inputs[0].as_numpy()
        if image.min() < 0:
            await asyncio.sleep(float(-image.min()))
        logits = image.reshape(1, 64) @ self._weights + self._bias
        output = InferOutput("logits", list(logits.shape), "FP32")
        output.set_data_from_numpy(logits.astype(np.float32), binary_data=True)
        return InferResponse(payload.id, self.name, [output])


if __name__ == "__main__":
    model = Digits("digits")
    model.load()
    ModelServer(http_port=int(sys.argv[1]), grpc_port=int(sys.argv[2]), workers=1).start([model])
