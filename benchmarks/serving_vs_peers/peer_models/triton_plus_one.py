"""y = x + 1 for the Python backend of Triton."""

from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils  # type: ignore[import-not-found]

_ONE = np.float32(1)


class TritonPythonModel:
    """The name that the backend looks for."""

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answers the requests that the server has put together."""
        answers = []
        for request in requests:
            x = pb_utils.get_input_tensor_by_name(request, "x").as_numpy()
            answers.append(pb_utils.InferenceResponse([pb_utils.Tensor("y", x + _ONE)]))
        return answers
