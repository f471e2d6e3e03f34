"""y = x + 1 as MLServer's runtimes: by its own codec, and by NumPy from the list that it has made already."""

import numpy as np
from mlserver import MLModel  # type: ignore[import-not-found]
from mlserver.codecs import NumpyCodec  # type: ignore[import-not-found]
from mlserver.types import (  # type: ignore[import-not-found]
    InferenceRequest,
    InferenceResponse,
    ResponseOutput,
)

_ONE = np.float32(1)


class ByCodec(MLModel):  # type: ignore[misc]
    """As its documentation has it."""

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Answers one request."""
        y = NumpyCodec.decode_input(payload.inputs[0]) + _ONE
        return InferenceResponse(model_name=self.name, outputs=[NumpyCodec.encode_output("y", y)])


class ByList(MLModel):  # type: ignore[misc]
    """Without the codec's copies and the checks of messages that are right by construction."""

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Answers one request."""
        given = payload.inputs[0]
        y = np.asarray(given.data.root, np.float32) + _ONE
        output = ResponseOutput.model_construct(name="y", datatype="FP32", shape=given.shape, data=y.tolist())
        return InferenceResponse.model_construct(model_name=self.name, id=None, outputs=[output])
