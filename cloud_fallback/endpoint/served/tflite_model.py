"""A `.edge` bundle or a bare `.tflite`, served by the device runtime."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from os import PathLike
from pathlib import Path

from cloud_fallback.endpoint.served.served_model import ServedModel, TimeLeft, no_limit
from cloud_fallback.endpoint.served.turns import Turns
from cloud_fallback.open_inference.tensors import datatype
from edge_runtime.bundle import Bundle
from edge_runtime.model import Model
from edge_runtime.preprocessing import Preprocessor
from edge_runtime.tensor_spec import Array, TensorSpec

__all__ = ["TfliteModel"]

_VERSION = "1"


class TfliteModel:
    """A `.tflite`, bare or in a bundle, on as many interpreters as may run at once.

    A bundle's preprocessing is part of the model: requests give what the bundle takes, before any of its steps.

    Args:
        source: A `Bundle`, or a path to an `.edge` or `.tflite` file.
        name: What requests call it, in place of the manifest's name or the file's stem.
        instances: Interpreters, each with the model's memory to itself.
        num_threads: Threads that each of them may use.

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
        instances: int = 1,
        num_threads: int = 1,
    ):
        # Read and verified once, however many interpreters follow.
        is_bundle_file = not isinstance(source, Bundle) and Path(source).suffix == ".edge"
        content = source if isinstance(source, Bundle) else Bundle.open(source) if is_bundle_file else source
        models = [Model(content, num_threads=num_threads) for _ in range(instances)]
        manifest = models[0].bundle.manifest if models[0].bundle else None
        self.name = name or models[0].name
        self.version = manifest.version if manifest else _VERSION
        raw = {entry.name: entry.takes for entry in manifest.preprocessing} if manifest else {}
        self.inputs = tuple(_real(raw.get(spec.name, spec)) for spec in models[0].inputs)
        self.outputs = tuple(_real(spec) for spec in models[0].outputs)
        self._preprocess = Preprocessor(manifest.preprocessing) if manifest and raw else None
        self._turns = Turns(self.name, models)
        _check_servable(self)

    def infer(self, inputs: Mapping[str, Array], *, time_left: TimeLeft = no_limit) -> dict[str, Array]:
        """Runs the model once; see `ServedModel`."""
        with self._turns.take(time_left) as model:
            return model.run(self._preprocess(inputs) if self._preprocess else inputs)


def _real(spec: TensorSpec) -> TensorSpec:
    if spec.quantization is None:
        return spec
    return replace(spec, dtype="float32", quantization=None)


def _check_servable(model: ServedModel) -> None:
    for spec in (*model.inputs, *model.outputs):
        datatype(spec.dtype)
