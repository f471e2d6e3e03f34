"""Choosing the confidence below which the cloud is asked, from validation data.

A device that asks a larger model when it is unsure is a cascade of two (Viola and Jones, "Rapid Object Detection using
a Boosted Cascade of Simple Features", CVPR 2001; Wang et al., "IDK Cascades: Fast Deep Learning by Learning not to
Overthink", UAI 2018), and its curve of accuracy against the share offloaded is the risk-coverage curve of selective
classification (El-Yaniv and Wiener, "On the Foundations of Noise-free Selective Classification", JMLR 11, 2010; Geifman
and El-Yaniv, "Selective Classification for Deep Neural Networks", NIPS 2017) with the cloud's answers in the place of
abstention. The curve is what to judge a confidence by: a better calibrated one can make a worse cascade.

Use other data than the accuracy is reported on; a threshold fits what it was chosen from.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from cloud_fallback.threshold.examples import Examples
from cloud_fallback.threshold.grid import Grid
from edge_runtime.errors import ErrorCode, HybridgeError
from edge_runtime.manifest import CurvePoint

__all__ = ["choose", "sweep", "thin"]


def sweep(
    confidence: npt.ArrayLike, device_correct: npt.ArrayLike, cloud_correct: npt.ArrayLike
) -> tuple[CurvePoint, ...]:
    """Accuracy of device and cloud together at every threshold that makes a difference, exactly.

    Args:
        confidence: The device's confidence in each example, in 0..1; shape (examples,). NaN is unsure at any
            threshold.
        device_correct: Whether the device's answer was right; shape (examples,), bool.
        cloud_correct: Whether the cloud's was; shape (examples,), bool.

    Returns:
        Points by rising threshold, from 0, where only NaN is offloaded. Examples of one confidence go together. Each
        threshold lies halfway between two confidences, so that rounding on another machine moves no example across
        it. A confidence of exactly 1 is below no threshold: with one, the curve ends short of offloading everything.

    Raises:
        HybridgeError: `data-invalid` for no examples, lengths that differ, or confidences outside 0..1.

    Example:
        >>> curve = sweep([0.4, 0.9], [False, True], [True, True])
        >>> [(point.threshold, point.accuracy, point.offloaded) for point in curve]
        [(0.0, 0.5, 0.0), (0.65, 1.0, 0.5), (0.95, 1.0, 1.0)]
    """
    examples = Examples.check([confidence], [device_correct], cloud_correct)
    grid = Grid.count(examples, combinations=len(examples) + 1)
    count = len(examples)
    return tuple(
        CurvePoint(float(threshold), float(right / count), float(offloaded / count))
        for threshold, right, offloaded in zip(grid.thresholds[0], grid.right, grid.offloaded, strict=True)
    )


def choose(
    curve: Sequence[CurvePoint], *, max_offload: float | None = None, target_accuracy: float | None = None
) -> CurvePoint:
    """The point of a curve to run at.

    Args:
        curve: What `sweep` or `thin` gave.
        max_offload: Share of examples, in 0..1, that may be offloaded: the most accurate point within it, and of
            several the one that offloads most. A tie on few examples says little, and the share is there to be used.
        target_accuracy: Accuracy to reach, in 0..1: the point that offloads least and does. Give one of the two.

    Raises:
        HybridgeError: `confidence-invalid` when no point is within the share or reaches the accuracy, `usage` for
            both limits or neither.
    """
    if (max_offload is None) == (target_accuracy is None):
        raise HybridgeError(
            ErrorCode.USAGE,
            "choice of a threshold",
            received="both limits" if max_offload is not None else "no limit",
            expected="either max_offload or target_accuracy",
        )
    if max_offload is not None:
        within = [point for point in curve if point.offloaded <= max_offload]
        if within:
            return max(within, key=lambda point: (point.accuracy, point.offloaded))
        raise _unreachable(f"at most {max_offload:.4g} offloaded", "it offloads more at every threshold")
    reaching = [point for point in curve if point.accuracy >= (target_accuracy or 0)]
    if reaching:
        return min(reaching, key=lambda point: point.offloaded)
    best = max((point.accuracy for point in curve), default=0.0)
    raise _unreachable(f"an accuracy of {target_accuracy:.4g}", f"its best is {best:.4g}")


def thin(curve: Sequence[CurvePoint], count: int = 32) -> tuple[CurvePoint, ...]:
    """At most `count` points of a curve, for a manifest: its ends, its best, the others evenly by share offloaded.

    Raises:
        HybridgeError: `usage` for a count below 3.
    """
    if count < 3:
        raise HybridgeError(ErrorCode.USAGE, "points of a curve", received=str(count), expected="3 or more")
    if len(curve) <= count:
        return tuple(curve)
    best = max(range(len(curve)), key=lambda index: (curve[index].accuracy, -curve[index].offloaded))
    kept = {0, len(curve) - 1, best}
    shares = np.array([point.offloaded for point in curve])
    # The best one may fall between two steps, so that one step fewer is taken.
    for share in np.linspace(shares[0], shares[-1], count - 1):
        kept.add(int(np.abs(shares - share).argmin()))
    return tuple(curve[index] for index in sorted(kept))


def _unreachable(expected: str, received: str) -> HybridgeError:
    return HybridgeError(
        ErrorCode.CONFIDENCE_INVALID,
        "choice of a threshold",
        received=received,
        expected=expected,
        fix="relax the limit, or use a larger cloud model",
    )
