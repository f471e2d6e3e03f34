"""The demo's data: the handwritten digits that scikit-learn ships, split once and fixed.

1,797 images of 8 by 8 pixels in 0..16 (E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI
Machine Learning Repository, 1998).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edge_runtime.errors import missing_extra
from edge_runtime.tensor_spec import Array

__all__ = ["FULL_SCALE", "Digits", "Samples", "load_digits"]

# The value of a fully inked pixel.
FULL_SCALE = 16
_TRAIN, _VALIDATION = 1000, 297
_SPLIT_SEED = 2026


@dataclass(frozen=True, slots=True)
class Samples:
    """Images, uint8 of shape (n, 8, 8, 1) in 0..16, and the digit of each, int64 of shape (n,)."""

    images: Array
    labels: Array

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, slots=True)
class Digits:
    """1,000 images to train on, 297 to choose the threshold by, and 500 held back for the figures of the report."""

    train: Samples
    validation: Samples
    test: Samples


def load_digits() -> Digits:
    """The digits, shuffled by a fixed seed and split.

    Raises:
        HybridgeError: `extra-missing` without scikit-learn.
    """
    try:
        from sklearn import datasets
    except ModuleNotFoundError as error:
        raise missing_extra("bench", "sklearn") from error
    loaded = datasets.load_digits()
    order = np.random.default_rng(_SPLIT_SEED).permutation(len(loaded.target))
    images = loaded.images[order].astype(np.uint8)[..., np.newaxis]
    labels = loaded.target[order].astype(np.int64)

    def part(start: int, stop: int | None) -> Samples:
        return Samples(images[start:stop], labels[start:stop])

    end = _TRAIN + _VALIDATION
    return Digits(part(0, _TRAIN), part(_TRAIN, end), part(end, None))
