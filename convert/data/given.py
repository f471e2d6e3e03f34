"""Samples as a user gave them, whatever they came from, before they are chosen, checked and prepared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from convert.data.dataset import LABEL, invalid
from edge_runtime.tensor_spec import Array

__all__ = ["Given", "Rows", "chosen_samples", "label_slice", "slice_values"]


class Rows(Protocol):
    """One input of every sample, without an axis of samples: an array, or what is decoded when it is asked for."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Array: ...


@dataclass(frozen=True)
class Given:
    """Samples of one source.

    Attributes:
        name: What to call it in errors.
        columns: For each input, one row a sample.
        labels: True classes, shape (samples,), if known.
        slices: Groups of samples, by name, shape (samples,).
        notes: What was left out, a sentence each.
    """

    name: str
    columns: Mapping[str, Rows]
    labels: Array | None
    slices: Mapping[str, Array]
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))


def chosen_samples(count: int, limit: int | None, labels: Array | None) -> Array | None:
    """Indices of an even choice of at most `limit` samples, in order; None for all of them.

    The choice is random, the same each time, and keeps the share of each class to within one sample (systematic
    sampling of the samples ordered by class).

    Args:
        count: How many samples there are.
        limit: How many are wanted.
        labels: Classes to keep in proportion.
    """
    if limit is None or limit >= count:
        return None
    order = np.random.default_rng(0).permutation(count)
    if labels is not None:
        order = order[np.argsort(labels[order], kind="stable")]
    chosen: Array = np.sort(order[(np.arange(limit) * count + count // 2) // limit])
    return chosen


def slice_values(name: str, key: str, values: Array, samples: int) -> Array:
    """The groups of samples, checked: integers, or text that stands for text, bytes or booleans.

    Args:
        name: Of the dataset, for errors.
        key: Of the slice.
        values: One for each sample.
        samples: How many there must be.

    Raises:
        HybridgeError: `data-invalid`.
    """
    if values.shape != (samples,) or values.dtype.kind not in "iubUS":
        raise invalid(
            f"array '{key}' of {name}, asked for as a slice",
            received=f"{values.dtype} of shape {values.shape}",
            expected=f"integers, text or booleans of shape ({samples},)",
            fix="give each sample one group; put numbers that vary into bins",
        )
    if values.dtype.kind == "b":
        return np.where(values, "true", "false")
    if values.dtype.kind == "S":
        return np.char.decode(values, "utf-8", "replace")
    return values


def label_slice(name: str, labels: Array | None, names: Sequence[str]) -> Array:
    """Classes as groups, under their names where they have some.

    Raises:
        HybridgeError: `data-invalid` without labels.
    """
    if labels is None:
        raise invalid(
            name,
            received="no labels to slice by",
            expected=f"an array '{LABEL}', or images with a folder a class",
            fix=f"add it, or leave --slice {LABEL} out",
        )
    if names and labels.max() < len(names):
        return np.asarray(names)[labels]
    return labels
