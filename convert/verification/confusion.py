"""Which classes are taken for which, before and after a conversion."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from convert.verification.accuracy import check_labels
from edge_runtime.tensor_spec import Array

__all__ = ["Confusion", "Worsened", "measure_confusion"]


@dataclass(frozen=True)
class Worsened:
    """A class that is taken for another more often than before.

    Attributes:
        true: Index of the true class.
        predicted: Index of the class it is taken for.
        before: How many samples the source mistook so.
        after: How many the converted model mistakes so.
        examples: Places of samples that the source had right and the converted model mistakes so, some of them.
    """

    true: int
    predicted: int
    before: int
    after: int
    examples: tuple[int, ...] = ()


@dataclass(frozen=True)
class Confusion:
    """Counts of each true class (rows) and each predicted class (columns).

    Attributes:
        source: Of the source, shape (classes, classes).
        converted: Of the converted model.
        lost: Places of the samples that only the source has right, ascending.
        won: Places of the samples that only the converted model has right, ascending.
        lost_as: What the converted model takes each lost sample for.
        lost_from: The true class of each lost sample.
    """

    source: Array
    converted: Array
    lost: Array
    won: Array
    lost_from: Array
    lost_as: Array

    def worsened(self, limit: int = 10, *, examples: int = 5) -> tuple[Worsened, ...]:
        """The mistakes whose number rose most, most first.

        Args:
            limit: How many at most.
            examples: Places of samples to name for each, at most.
        """
        rise = self.converted - self.source
        np.fill_diagonal(rise, 0)
        order = np.argsort(-rise, axis=None, kind="stable")[:limit]
        found = []
        for true, predicted in zip(*np.unravel_index(order, rise.shape), strict=True):
            if rise[true, predicted] <= 0:
                break
            places = self.lost[(self.lost_from == true) & (self.lost_as == predicted)]
            found.append(
                Worsened(
                    int(true),
                    int(predicted),
                    before=int(self.source[true, predicted]),
                    after=int(self.converted[true, predicted]),
                    examples=tuple(int(place) for place in places[:examples]),
                )
            )
        return tuple(found)


def measure_confusion(source: Array, converted: Array, labels: Array) -> Confusion:
    """Counts which classes both models take for which.

    Args:
        source: Class scores of the source, shape (samples, classes).
        converted: Class scores of the converted model, the same shape.
        labels: Index of the true class for each sample.

    Raises:
        HybridgeError: `data-invalid` for a class that the model does not have.
    """
    classes = source.shape[-1]
    check_labels(labels, classes)
    before, after = source.argmax(-1), converted.argmax(-1)
    lost = np.flatnonzero((before == labels) & (after != labels))
    return Confusion(
        source=_counts(labels, before, classes),
        converted=_counts(labels, after, classes),
        lost=lost,
        won=np.flatnonzero((before != labels) & (after == labels)),
        lost_from=labels[lost],
        lost_as=after[lost],
    )


def _counts(labels: Array, predicted: Array, classes: int) -> Array:
    pairs = labels.astype(np.int64) * classes + predicted
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)
