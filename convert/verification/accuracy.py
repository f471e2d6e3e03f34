"""Top-1 accuracy of source and converted model on the same labelled samples, in total and by slice."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from edge_runtime.errors import ErrorCode, HybridgeError
from edge_runtime.manifest import Accuracy, Slice
from edge_runtime.tensor_spec import Array

__all__ = ["check_labels", "measure_accuracy"]

# More groups than that is no breakdown, but a column of identifiers.
_MOST_VALUES = 100


def measure_accuracy(
    source: Array, converted: Array, labels: Array, *, slices: Mapping[str, Array] | None = None
) -> Accuracy:
    """Top-1 accuracy of both on the same samples.

    Args:
        source: Class scores of the source, shape (samples, classes).
        converted: Class scores of the converted model, the same shape.
        labels: Index of the true class for each sample.
        slices: For each name the group of each sample; values are sorted, numbers by size.

    Raises:
        HybridgeError: `data-invalid` for a class that the model does not have, or a slice of over 100 values.
    """
    check_labels(labels, source.shape[-1])
    before, after = source.argmax(-1) == labels, converted.argmax(-1) == labels
    return Accuracy(
        source=float(before.mean()),
        converted=float(after.mean()),
        samples=len(labels),
        slices=tuple(
            each for name, groups in (slices or {}).items() for each in _by_group(name, groups, before, after)
        ),
    )


def check_labels(labels: Array, classes: int) -> None:
    """Refuses labels of another model.

    Raises:
        HybridgeError: `data-invalid`.
    """
    if labels.max() >= classes:
        raise HybridgeError(
            ErrorCode.DATA_INVALID,
            "array 'label'",
            received=f"class {labels.max()}",
            expected=f"0 to {classes - 1}, the classes that the model has",
            fix="check that the labels belong to this model",
        )


def _by_group(name: str, groups: Array, before: Array, after: Array) -> list[Slice]:
    values, members = np.unique(groups, return_inverse=True)
    if len(values) > _MOST_VALUES:
        raise HybridgeError(
            ErrorCode.DATA_INVALID,
            f"slice '{name}'",
            received=f"{len(values)} different values",
            expected=f"at most {_MOST_VALUES}",
            fix="put them into fewer groups",
        )
    samples = np.bincount(members)
    return [
        Slice(
            name,
            str(value),
            source=int(right) / int(count),
            converted=int(kept) / int(count),
            samples=int(count),
        )
        for value, count, right, kept in zip(
            values,
            samples,
            np.bincount(members, weights=before),
            np.bincount(members, weights=after),
            strict=True,
        )
    ]
