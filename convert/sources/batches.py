"""Running a model on more samples than memory holds at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from edge_runtime.tensor_spec import Array

__all__ = ["predict_in_batches"]

# Large enough to keep the cores busy, small enough for a laptop's memory.
_ROWS_AT_ONCE = 128


def predict_in_batches(
    inputs: Mapping[str, Array],
    batch_size: int | str | None,
    call_for: Callable[[int], Callable[[Mapping[str, Array]], Mapping[str, Any]]],
) -> dict[str, Array]:
    """Outputs for all samples.

    Args:
        inputs: For each input an array of shape (samples, ...).
        batch_size: The batch that the model takes; a string if it takes any; None if it takes no batches, and each
            sample is what a whole run takes.
        call_for: What runs one batch, given how many there are. Every batch has the same size.

    Returns:
        For each output an array of shape (samples, ...); one whose first dimension is not the batch, such as time, gets
        an axis of runs in front.
    """
    samples = len(next(iter(inputs.values())))
    if batch_size is None:
        call = call_for(samples)
        runs = [call({name: array[index, ...] for name, array in inputs.items()}) for index in range(samples)]
        return {name: np.stack([np.asarray(run[name]) for run in runs]) for name in runs[0]}
    rows = batch_size if isinstance(batch_size, int) else min(_ROWS_AT_ONCE, samples)
    starts = range(0, samples, rows)
    call = call_for(len(starts))
    parts: list[dict[str, Array]] = []
    for start in starts:
        # The last batch is filled up with its last sample; the filling is cut off below.
        index = np.minimum(np.arange(start, start + rows), samples - 1)
        outputs = call({name: array[index] for name, array in inputs.items()})
        parts.append({name: np.asarray(output) for name, output in outputs.items()})
    return {name: _joined([part[name] for part in parts], rows)[:samples] for name in parts[0]}


def _joined(parts: list[Array], rows: int) -> Array:
    if all(part.shape[:1] == (rows,) for part in parts):
        return np.concatenate(parts)
    return np.stack(parts)
