"""The first run of a model, before a request pays for it."""

from __future__ import annotations

import logging

import numpy as np

from cloud_fallback.endpoint.served.served_model import ServedModel
from edge_runtime.errors import HybridgeError
from edge_runtime.tensor_spec import Array, TensorSpec

__all__ = ["warm_up"]

_log = logging.getLogger(__name__)


def warm_up(model: ServedModel) -> None:
    """Runs a model once on zeros, with free sizes of one.

    What the first run allocates and compiles is then there. Failing is no error: there are models that zeros, empty
    text, or an image of one pixel are nothing to, and requests will tell.
    """
    try:
        model.infer({spec.name: _zeros(spec) for spec in model.inputs})
    except HybridgeError as error:
        _log.info("model '%s' was not warmed up: %s", model.name, error.message)


def _zeros(spec: TensorSpec) -> Array:
    shape = tuple(size if isinstance(size, int) else 1 for size in spec.shape)
    if spec.dtype == "string":
        return np.full(shape, b"", object)
    return np.zeros(shape, spec.dtype)
