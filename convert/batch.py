"""Whether a model takes batches of samples, and how large they are."""

from __future__ import annotations

from collections.abc import Sequence

from edge_runtime.tensor_spec import TensorSpec

__all__ = ["batch_of", "sample_shape"]


def batch_of(inputs: Sequence[TensorSpec]) -> int | str | None:
    """The first dimension that all inputs share; None where they share none, and a sample is a whole run.

    Of the latter kind is a model that carries a state of shape (layers, batch, units), or that takes a scalar.
    """
    first = {spec.shape[0] if spec.shape else None for spec in inputs}
    return first.pop() if len(first) == 1 else None


def sample_shape(spec: TensorSpec, inputs: Sequence[TensorSpec]) -> tuple[int | str, ...]:
    """The shape that one sample of an input has: without the batch where there is one."""
    return spec.shape if batch_of(inputs) is None else spec.shape[1:]
