"""Samples that a model can take as they are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from edge_runtime.errors import ErrorCode, HybridgeError
from edge_runtime.tensor_spec import Array

__all__ = ["LABEL", "Dataset", "check_varied", "invalid"]

LABEL = "label"


@dataclass(frozen=True)
class Dataset:
    """Samples that a model can take as they are.

    Attributes:
        inputs: For each input an array of shape (samples, ...).
        labels: For each sample the index of its true class, shape (samples,), where it is known.
        digest: SHA-256 of the inputs that were used, as they were given, before any preprocessing; 64 hexadecimal
            digits.
        slices: For each name that was asked for, the group of each sample: text or integers of shape (samples,).
        notes: What was left out, a sentence each.
    """

    inputs: Mapping[str, Array]
    labels: Array | None
    digest: str
    slices: Mapping[str, Array] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        """The number of samples."""
        return len(next(iter(self.inputs.values())))

    def batches(self, size: int | None) -> Iterator[dict[str, Array]]:
        """The inputs, `size` samples at a time; the last batch is filled up with its last sample.

        Whole batches are views of the inputs. Without a size each sample is what a whole run takes.
        """
        if size is None:
            for sample in range(len(self)):
                yield {name: array[sample, ...] for name, array in self.inputs.items()}
            return
        whole = len(self) - len(self) % size
        for start in range(0, whole, size):
            yield {name: array[start : start + size] for name, array in self.inputs.items()}
        if whole < len(self):
            index = np.minimum(np.arange(whole, whole + size), len(self) - 1)
            yield {name: array[index] for name, array in self.inputs.items()}


def check_varied(dataset: Dataset, what: str = "representative dataset") -> None:
    """Refuses samples from which no range of an activation can be read.

    Args:
        dataset: The samples.
        what: What to call them in the error.

    Raises:
        HybridgeError: `data-invalid` when all samples are the same, or every input holds a single value.
    """
    arrays = list(dataset.inputs.values())
    if all(bool((array == array.flat[0]).all()) for array in arrays):
        received = f"one constant value in all of {len(dataset)} sample{'s' * (len(dataset) > 1)}"
    elif len(dataset) > 1 and all(bool((array == array[:1]).all()) for array in arrays):
        received = f"{len(dataset)} samples that are all the same"
    else:
        return
    raise invalid(
        what,
        received=received,
        expected="different inputs, as the device will see them",
        fix="check how the data was written",
    )


def invalid(what: str, *, received: str, expected: str, fix: str) -> HybridgeError:
    """The error for data that cannot be used."""
    return HybridgeError(ErrorCode.DATA_INVALID, what, received=received, expected=expected, fix=fix)
