"""The share of predictions for which the cloud is asked, and what accuracy comes with it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from edge_runtime.bundle import Bundle
from edge_runtime.errors import ErrorCode, HybridgeError
from edge_runtime.manifest import CurvePoint

__all__ = ["OffloadPoint", "bundle_curve", "share_curve"]


@dataclass(frozen=True, slots=True)
class OffloadPoint:
    """A share offloaded, in 0..1, with accuracy and threshold where a bundle's curve gives them."""

    offloaded: float
    accuracy: float | None = None
    threshold: float | None = None


def share_curve(offloaded: float) -> tuple[OffloadPoint, list[OffloadPoint]]:
    """The point to plan for, and shares from 0 to 1 by twentieths, that point among them.

    Raises:
        HybridgeError: `usage` for a share outside 0..1.
    """
    if not 0 <= offloaded <= 1:
        raise HybridgeError(
            ErrorCode.USAGE, "share offloaded", received=f"{offloaded:g}", expected="a number in 0..1"
        )
    shares = sorted({offloaded, *(step / 20 for step in range(21))})
    return OffloadPoint(offloaded), [OffloadPoint(share) for share in shares]


def bundle_curve(bundle: Bundle, threshold: float | None) -> tuple[OffloadPoint, list[OffloadPoint]]:
    """The point of a bundle's curve at a threshold, and the curve by rising share, that point on it.

    Args:
        bundle: One whose confidence was fitted: its manifest has the curve.
        threshold: Confidence below which the cloud is asked; by default the bundle's own. Between two points of the
            curve, which a manifest has thinned, it is taken as straight. Where several tiers were fitted together it
            is no other than the bundle's own: what one tier passes on, another may answer.

    Raises:
        HybridgeError: `confidence-invalid` for a bundle without a curve, or without a threshold when none is given;
            `usage` for a threshold outside 0..1, or of one tier among several.
    """
    confidence = bundle.manifest.confidence
    curve = sorted(confidence.curve, key=lambda point: point.threshold) if confidence else []
    if confidence is None or not curve:
        raise _unfitted(bundle, "no curve of accuracy against share offloaded")
    asked = confidence.threshold if threshold is None else threshold
    if asked is None:
        raise _unfitted(bundle, "no threshold")
    if not 0 <= asked <= 1:
        raise HybridgeError(
            ErrorCode.USAGE, "threshold", received=f"{asked:g}", expected="a confidence in 0..1"
        )
    if asked != confidence.threshold and confidence.guarantee and len(confidence.guarantee.tiers) > 1:
        raise HybridgeError(
            ErrorCode.USAGE,
            f"threshold of bundle '{bundle.file_name}'",
            received=f"{asked:g}, of one of {len(confidence.guarantee.tiers)} tiers",
            expected=f"{confidence.threshold}, with which they were fitted together",
            fix="give --offload, or fit the tiers for another goal",
        )
    chosen = _at(curve, asked)
    points = {OffloadPoint(point.offloaded, point.accuracy, point.threshold) for point in curve}
    return chosen, sorted({chosen, *points}, key=lambda point: point.offloaded)


def _at(curve: Sequence[CurvePoint], threshold: float) -> OffloadPoint:
    for point in curve:
        if point.threshold == threshold:
            return OffloadPoint(point.offloaded, point.accuracy, threshold)
    inside = min(max(threshold, curve[0].threshold), curve[-1].threshold)
    for low, high in pairwise(curve):
        if low.threshold <= inside <= high.threshold and low.threshold < high.threshold:
            weight = (inside - low.threshold) / (high.threshold - low.threshold)
            return OffloadPoint(
                _between(low.offloaded, high.offloaded, weight),
                _between(low.accuracy, high.accuracy, weight),
                threshold,
            )
    return OffloadPoint(curve[0].offloaded, curve[0].accuracy, threshold)


def _between(low: float, high: float, weight: float) -> float:
    return math.fsum((low * (1 - weight), high * weight))


def _unfitted(bundle: Bundle, received: str) -> HybridgeError:
    return HybridgeError(
        ErrorCode.CONFIDENCE_INVALID,
        f"confidence of bundle '{bundle.file_name}'",
        received=received,
        expected="what 'hybridge fallback fit' writes into a bundle",
        fix="fit it, or give --offload",
    )
