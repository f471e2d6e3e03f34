"""Kinds of examples of which the true accuracy at any thresholds is known, because they are drawn from a table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from cloud_fallback.threshold.examples import Examples

__all__ = ["Population", "coarse", "declining", "two_tiers", "usual"]

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Population:
    """Sorts of examples, each with its share, confidences, and chances that a tier and the cloud are right.

    Attributes:
        share: Of each sort, which together are 1; shape (sorts,).
        confidence: Of each tier in each sort; shape (tiers, sorts).
        device: Chance that each tier is right; shape (tiers, sorts).
        cloud: Chance that the cloud is right; shape (sorts,).
    """

    share: Array
    confidence: Array
    device: Array
    cloud: Array

    def draw(self, count: int, rng: np.random.Generator) -> Examples:
        sort = rng.choice(len(self.share), count, p=self.share)
        # One number for all models: what is hard for one is hard for the others.
        hard = rng.random(count)
        return Examples.check(
            list(self.confidence[:, sort]), list(hard < self.device[:, sort]), hard < self.cloud[sort]
        )

    def truth(self, thresholds: tuple[float, ...]) -> tuple[float, float]:
        """The accuracy and the share offloaded of all examples there are."""
        right, offloaded = self.cloud.copy(), np.ones(len(self.share))
        for tier in reversed(range(len(self.confidence))):
            sure = self.confidence[tier] >= thresholds[tier]
            right[sure], offloaded[sure] = self.device[tier][sure], 0.0
        return float(right @ self.share), float(offloaded @ self.share)


def usual() -> Population:
    """A confidence that is the chance of being right, and a cloud that is better everywhere."""
    confidence = np.linspace(0.35, 0.99, 40)
    share = np.linspace(1, 4, 40)
    return Population(share / share.sum(), confidence[None], confidence[None], 0.5 + confidence / 2 - 0.02)


def declining() -> Population:
    """A cloud that is worse than the device where that is sure: accuracy rises and falls with the threshold."""
    confidence = np.linspace(0.4, 0.99, 40)
    return Population(np.full(40, 1 / 40), confidence[None], confidence[None], np.linspace(0.9, 0.84, 40))


def coarse() -> Population:
    """A quantised confidence of five levels, many of exactly 1, and a cloud that is worse than the device there."""
    confidence = np.array([96, 128, 192, 240, 256]) / 256
    device = np.array([0.3, 0.4, 0.6, 0.85, 0.93])
    share = np.array([0.15, 0.2, 0.2, 0.2, 0.25])
    return Population(share, confidence[None], device[None], np.array([0.95, 0.95, 0.95, 0.95, 0.8]))


def two_tiers() -> Population:
    """A small and a middle tier whose confidences differ, and a cloud."""
    small, middle = np.meshgrid(np.linspace(0.3, 0.98, 12), np.linspace(0.5, 0.99, 12))
    confidence = np.stack([small.ravel(), middle.ravel()])
    both = confidence.mean(0)
    device = np.stack([both * 0.97, np.minimum(both + 0.08, 0.99)])
    share = both**3
    return Population(share / share.sum(), confidence, device, np.minimum(both + 0.2, 0.97))
