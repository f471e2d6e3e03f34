"""The converted model on the device runtime, one batch after the other."""

from __future__ import annotations

import numpy as np

from convert.batch import batch_of
from convert.data import Dataset
from edge_runtime.model import Model
from edge_runtime.tensor_spec import Array

__all__ = ["run_converted"]


def run_converted(model: Model, data: Dataset) -> dict[str, Array]:
    """Outputs of the converted model for every sample, real values of shape (samples, ...).

    Each batch is one run, as on the device: a larger batch would take other kernels and other ranges. Outputs
    without the batch in front get an axis of runs there.
    """
    batch = batch_of(model.inputs)
    if batch is None:
        return _stacked([model.run(inputs) for inputs in data.batches(None)], None, len(data))
    batch = 1 if isinstance(batch, str) else batch
    batches = data.batches(batch)
    first = model.run(next(batches))
    if any(output.shape[:1] != (batch,) for output in first.values()):
        return _stacked([first, *(model.run(inputs) for inputs in batches)], batch, len(data))
    rows = -(-len(data) // batch) * batch
    outputs: dict[str, Array] = {}
    for name, output in first.items():
        outputs[name] = np.empty((rows, *output.shape[1:]), output.dtype)
        outputs[name][:batch] = output
    for start, inputs in zip(range(batch, rows, batch), batches, strict=True):
        # Written where they belong: a new array for each run and one copy of all at the end are saved.
        model.run(inputs, out={name: array[start : start + batch] for name, array in outputs.items()})
    return {name: array[: len(data)] for name, array in outputs.items()}


def _stacked(runs: list[dict[str, Array]], batch: int | None, samples: int) -> dict[str, Array]:
    """Outputs of all runs; those whose first dimension is not the batch get an axis of runs in front."""
    joined = {}
    for name, first in runs[0].items():
        parts = [run[name] for run in runs]
        batched = batch is not None and first.shape[:1] == (batch,)
        joined[name] = (np.concatenate(parts) if batched else np.stack(parts))[:samples]
    return joined
