"""A `.edge` bundle or a bare `.tflite`, served by the device runtime."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from os import PathLike
from pathlib import Path

from cloud_fallback.endpoint.served.free_batch import free_batch
from cloud_fallback.endpoint.served.model_queue import Batching, ModelQueue, can_batch
from cloud_fallback.endpoint.served.served_model import Then, TimeLeft, no_limit
from cloud_fallback.open_inference.tensors import datatype
from edge_runtime.bundle import Bundle
from edge_runtime.manifest import Manifest
from edge_runtime.model import Model
from edge_runtime.preprocessing import Preprocessor
from edge_runtime.tensor_spec import Array, TensorSpec

__all__ = ["TfliteModel"]

_log = logging.getLogger(__name__)

_VERSION = "1"


class TfliteModel:
    """A `.tflite`, bare or in a bundle, on as many interpreters as may run at once.

    A bundle's preprocessing is part of the model: requests give what the bundle takes, before any of its steps.

    Args:
        source: A `Bundle`, or a path to an `.edge` or `.tflite` file.
        name: What requests call it, in place of the manifest's name or the file's stem.
        version: Its version, in place of the manifest's.
        instances: Interpreters that may run at once; they share the file's weights.
        num_threads: Threads that each of them may use.
        batching: How requests are run together, for a model with a free batch, or with one of a single row that can be
            freed (see `free_batch`).

    Raises:
        HybridgeError: `file-not-found`, `bundle-damaged`, `model-invalid`; `input-dtype` for a tensor of a type that
            the protocol does not have.
    """

    platform = "litert_tflite"

    def __init__(
        self,
        source: Bundle | str | PathLike[str],
        *,
        name: str | None = None,
        version: str | None = None,
        instances: int = 1,
        num_threads: int = 1,
        batching: Batching = Batching(),  # noqa: B008 - it is frozen
    ):
        # Read and verified once, however many interpreters follow.
        is_bundle_file = not isinstance(source, Bundle) and Path(source).suffix == ".edge"
        content = source if isinstance(source, Bundle) else Bundle.open(source) if is_bundle_file else source
        model = Model(content, num_threads=num_threads)
        manifest = model.bundle.manifest if model.bundle else None
        self.name = name or model.name
        if model.stateful:
            # Its runs depend on each other, so that only one may be under way.
            instances = 1
        else:
            freed = self._freed(model, manifest) if batching.max_batch_size > 1 else None
            if freed is not None or instances > 1:
                model = Model(freed or content, num_threads=num_threads, instances=instances, name=self.name)
        self.version = version or (manifest.version if manifest else _VERSION)
        raw = {entry.name: entry.takes for entry in manifest.preprocessing} if manifest else {}
        self.inputs = tuple(_real(raw.get(spec.name, spec)) for spec in model.inputs)
        self.outputs = tuple(_real(spec) for spec in model.outputs)
        self._preprocess = Preprocessor(manifest.preprocessing) if manifest and raw else None
        for spec in (*self.inputs, *self.outputs):
            datatype(spec.dtype)
        self.queue = ModelQueue(
            self.name,
            [model] * instances,
            self._run,
            batching=batching,
            batchable=can_batch(self.inputs, self.outputs),
        )

    def infer(self, inputs: Mapping[str, Array], *, time_left: TimeLeft = no_limit) -> dict[str, Array]:
        """Runs the model once; see `ServedModel`."""
        return self.queue.infer(inputs, time_left)

    def begin(self, inputs: Mapping[str, Array], time_left: TimeLeft, then: Then) -> None:
        """`infer` for a caller who does not wait; see `ServedModel`."""
        self.queue.begin(inputs, time_left, then)

    def _freed(self, model: Model, manifest: Manifest | None) -> bytes | None:
        """The model for any number of rows, where its file is for one; what prepares its inputs may know only one."""
        if can_batch(model.inputs, model.outputs) or (manifest and manifest.preprocessing):
            return None
        freed = free_batch(model.content, num_threads=model.num_threads)
        if freed is None:
            _log.info("model '%s' runs each request alone: it is made for one at a time", self.name)
        return freed

    def _run(self, model: Model, inputs: Mapping[str, Array]) -> dict[str, Array]:
        return model.run(self._preprocess(inputs) if self._preprocess else inputs)


def _real(spec: TensorSpec) -> TensorSpec:
    if spec.quantization is None:
        return spec
    return replace(spec, dtype="float32", quantization=None)
