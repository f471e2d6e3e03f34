"""A `.edge` bundle in Triton's Python backend: the one bundle in this file's folder, run by the device's own runtime.

As behind `hybridge serve`, a bundle's preprocessing is part of the model, and quantised tensors travel as the real
numbers that they stand for.
"""

import json
from pathlib import Path

import numpy as np
import triton_python_backend_utils as pb_utils

from edge_runtime import Bundle, HybridgeError, Model, Preprocessor

_HERE = Path(__file__).parent
_KINDS = {"f": "FP", "i": "INT", "u": "UINT"}


class TritonPythonModel:
    """What Triton makes for each instance of the model."""

    @staticmethod
    def auto_complete_config(config):
        """Fills in the inputs and outputs that `config.pbtxt` leaves out."""
        manifest = _bundle().manifest
        raw = {each.name: each.takes for each in manifest.preprocessing}
        for spec in manifest.signature.inputs:
            config.add_input(_tensor(raw.get(spec.name, spec)))
        for spec in manifest.signature.outputs:
            config.add_output(_tensor(spec))
        return config

    def initialize(self, args):
        """Loads the bundle, every byte of which is verified."""
        parameters = json.loads(args["model_config"]).get("parameters", {})
        threads = parameters.get("num_threads", {}).get("string_value", "1")
        bundle = _bundle()
        self._model = Model(bundle, num_threads=int(threads))
        self._preprocess = Preprocessor(bundle.manifest.preprocessing)

    def execute(self, requests):
        """Answers each request, or says what is wrong with it."""
        return [self._answer(request) for request in requests]

    def _answer(self, request):
        inputs = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
        try:
            outputs = self._model.run(self._preprocess(inputs))
        except HybridgeError as error:
            refused = pb_utils.TritonError(error.message, pb_utils.TritonError.INVALID_ARG)
            return pb_utils.InferenceResponse(error=refused)
        wanted = request.requested_output_names()
        return pb_utils.InferenceResponse([pb_utils.Tensor(name, outputs[name]) for name in wanted])


def _bundle():
    (path,) = _HERE.glob("*.edge")
    return Bundle.open(path)


def _tensor(spec):
    """How Triton describes a tensor; -1 is a dimension that may vary."""
    dtype = np.dtype("float32" if spec.quantization else spec.dtype)
    kind = "BOOL" if dtype.kind == "b" else f"{_KINDS[dtype.kind]}{8 * dtype.itemsize}"
    dims = [-1 if isinstance(size, str) else size for size in spec.shape]
    return {"name": spec.name, "data_type": f"TYPE_{kind}", "dims": dims}
