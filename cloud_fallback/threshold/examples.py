"""What the tiers of a device and the cloud said of the same examples, and what any thresholds make of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge_runtime.errors import ErrorCode, HybridgeError

__all__ = ["Examples", "JointPoint"]

_Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class JointPoint:
    """What thresholds of all tiers together come to on some examples.

    Attributes:
        thresholds: Of each tier: the next one, and after the last the cloud, is asked below it.
        accuracy: Share of right answers of all together.
        answered: Share of examples that each tier answers.
        offloaded: Share that the cloud answers.
    """

    thresholds: tuple[float, ...]
    accuracy: float
    answered: tuple[float, ...]
    offloaded: float


@dataclass(frozen=True, slots=True)
class Examples:
    """Labelled examples as tiers and cloud answered them; made and checked by `check`.

    Attributes:
        confidence: How sure each tier is of each, in 0..1, or -1 for what is sure at no threshold; float64 of shape
            (tiers, examples).
        device_correct: Whether each tier is right; bool of shape (tiers, examples).
        cloud_correct: Whether the cloud is; bool of shape (examples,).
    """

    confidence: npt.NDArray[np.float64]
    device_correct: _Bools
    cloud_correct: _Bools

    @classmethod
    def check(
        cls,
        confidence: Sequence[npt.ArrayLike],
        device_correct: Sequence[npt.ArrayLike],
        cloud_correct: npt.ArrayLike,
    ) -> Examples:
        """Examples from plain arrays.

        Args:
            confidence: For each tier, the cheapest first, its confidence in each example, in 0..1; NaN is unsure at
                any threshold.
            device_correct: For each tier whether its answer to each example was right.
            cloud_correct: Whether the cloud's was.

        Raises:
            HybridgeError: `data-invalid` for no tiers or examples, lengths that differ, or confidences outside 0..1.
        """
        sure = [np.array(each, np.float64) for each in confidence]
        right = [np.asarray(each, bool) for each in device_correct]
        cloud = np.asarray(cloud_correct, bool)
        shapes = {each.shape for each in (*sure, *right, cloud)}
        if not sure or len(sure) != len(right) or len(shapes) > 1 or cloud.ndim != 1 or not cloud.size:
            listed = ", ".join(str(each.shape) for each in (*sure, *right, cloud))
            raise _invalid(
                f"shapes {listed}", "for each tier two of one shape (examples,), and one of the cloud"
            )
        for each in sure:
            if ((each < 0) | (each > 1)).any():
                raise _invalid(
                    f"confidences from {np.nanmin(each)} to {np.nanmax(each)}", "confidences in 0..1"
                )
            each[np.isnan(each)] = -1.0
        return cls(np.stack(sure), np.stack(right), cloud)

    def __len__(self) -> int:
        """The number of examples."""
        return len(self.cloud_correct)

    @property
    def tiers(self) -> int:
        """The number of models on the device."""
        return len(self.confidence)

    def take(self, index: npt.NDArray[np.intp]) -> Examples:
        """Some of the examples."""
        return Examples(self.confidence[:, index], self.device_correct[:, index], self.cloud_correct[index])

    def outcome(self, thresholds: Sequence[float]) -> tuple[_Bools, npt.NDArray[np.intp]]:
        """Whether each example is answered rightly, and by which tier; the cloud counts as the one after the last."""
        right, by = self.cloud_correct.copy(), np.full(len(self), self.tiers)
        for tier in reversed(range(self.tiers)):
            sure = self.confidence[tier] >= thresholds[tier]
            right[sure], by[sure] = self.device_correct[tier, sure], tier
        return right, by

    def point(self, thresholds: Sequence[float]) -> JointPoint:
        """What these thresholds come to."""
        right, by = self.outcome(thresholds)
        *answered, offloaded = np.bincount(by, minlength=self.tiers + 1) / len(self)
        return JointPoint(
            tuple(float(each) for each in thresholds),
            float(right.mean()),
            tuple(float(share) for share in answered),
            float(offloaded),
        )


def _invalid(received: str, expected: str) -> HybridgeError:
    return HybridgeError(
        ErrorCode.DATA_INVALID, "validation data for a threshold", received=received, expected=expected
    )
