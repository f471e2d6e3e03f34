"""Operators that choose among overlapping detections. Boxes are rows of (top, left, bottom, right)."""

from __future__ import annotations

import math

import numpy as np

from edge_runtime.operators.registry import operator
from edge_runtime.tensor_spec import Array

__all__ = ["non_max_suppression", "non_max_suppression_by_class", "weighted_suppression"]

# Overlaps are computed for so many boxes at once: large enough for NumPy, small enough for the cache.
_BLOCK = 256
# Of what overlaps are divided by, so that boxes without an area overlap nothing.
_LEAST_AREA = np.finfo(np.float32).tiny


@operator(
    "non-max-suppression",
    takes={"boxes": "float32[n, 4]", "scores": "float32[n]"},
    gives={"boxes": "float32[kept, 4]", "scores": "float32[kept]", "indices": "int64[kept]"},
)
def non_max_suppression(
    boxes: Array,
    scores: Array,
    *,
    iou_threshold: float = 0.5,
    score_threshold: float = 0.0,
    max_boxes: int = 100,
) -> dict[str, Array]:
    """Greedy non-max suppression: the best box is kept, what overlaps it goes, and so on.

    Args:
        boxes: Boxes, float of shape (n, 4), rows of (top, left, bottom, right).
        scores: A score for each box, shape (n,); one whose score is NaN is left out.
        iou_threshold: Intersection over union above which the lower-scored of two boxes goes.
        score_threshold: Boxes with a score not above it are left out.
        max_boxes: At most so many are kept.

    Returns:
        The kept `boxes`, `scores` and their `indices` (int64) in the input, best first.
    """
    indices = _kept(boxes, scores, None, iou_threshold, score_threshold, max_boxes)
    return {"boxes": boxes[indices], "scores": scores[indices], "indices": indices}


@operator(
    "non-max-suppression-by-class",
    takes={"boxes": "float32[n, 4]", "scores": "float32[n]", "classes": "int64[n]"},
    gives={
        "boxes": "float32[kept, 4]",
        "scores": "float32[kept]",
        "classes": "int64[kept]",
        "indices": "int64[kept]",
    },
)
def non_max_suppression_by_class(
    boxes: Array,
    scores: Array,
    classes: Array,
    *,
    iou_threshold: float = 0.5,
    score_threshold: float = 0.0,
    max_boxes: int = 100,
) -> dict[str, Array]:
    """As `non-max-suppression`, but a box only suppresses those of its own class; `max_boxes` are kept of all."""
    indices = _kept(boxes, scores, classes, iou_threshold, score_threshold, max_boxes)
    return {
        "boxes": boxes[indices],
        "scores": scores[indices],
        "classes": classes[indices],
        "indices": indices,
    }


@operator(
    "weighted-suppression",
    takes={"boxes": "float32[n, 4]", "scores": "float32[n]", "keypoints": "float32[n, k, 2]"},
    gives={"boxes": "float32[kept, 4]", "scores": "float32[kept]", "keypoints": "float32[kept, k, 2]"},
)
def weighted_suppression(
    boxes: Array,
    scores: Array,
    keypoints: Array,
    *,
    iou_threshold: float = 0.3,
    score_threshold: float = 0.0,
    max_boxes: int = 100,
) -> dict[str, Array]:
    """Non-max suppression that blends: a kept box is the mean of all that it suppresses, weighted by their scores.

    Detections of a video jitter less for it (Bazarevsky et al., "BlazeFace", 2019). The best box of a group decides
    what belongs to it, and gives it its score, as in MediaPipe's weighted mode.

    Args:
        boxes: Shape (n, 4).
        scores: Shape (n,); a box whose score is NaN is left out.
        keypoints: Points that belong to each box, blended alike; shape (n, k, 2), where k may be 0.
        iou_threshold: Intersection over union above which a box belongs to the group of a better one.
        score_threshold: Boxes with a score not above it are left out.
        max_boxes: At most so many groups.

    Returns:
        The blended `boxes` and `keypoints`, and each group's best of `scores`, best first.
    """
    rest = _ranked(scores, score_threshold)
    best: list[int] = []
    blended: list[Array] = []
    while rest.size and len(blended) < max_boxes:
        alike = _overlaps(boxes[rest[:1]], boxes[rest])[0] > iou_threshold
        # The best belongs to its own group, even where it has no area.
        alike[0] = True
        group, rest = rest[alike], rest[~alike]
        values = np.concatenate([boxes[group], keypoints[group].reshape(len(group), -1)], axis=1)
        best.append(int(group[0]))
        blended.append(_shares(scores[group]) @ values)
    rows = np.array(blended, boxes.dtype).reshape(len(best), 4 + math.prod(keypoints.shape[1:]))
    return {
        "boxes": rows[:, :4],
        "scores": scores[best],
        "keypoints": rows[:, 4:].reshape(len(best), *keypoints.shape[1:]).astype(keypoints.dtype, copy=False),
    }


def _ranked(scores: Array, threshold: float) -> Array:
    """Indices of the scores above a threshold, best first; those of equal score in their own order."""
    candidates = np.flatnonzero(scores > threshold)
    chosen = scores[candidates]
    # An integer's complement orders it downwards without the overflow of a minus.
    ranked: Array = candidates[np.argsort(-chosen if chosen.dtype.kind == "f" else ~chosen, kind="stable")]
    return ranked


def _shares(scores: Array) -> Array:
    """Weights that sum to one; the first score's alone where the scores are none, being negative or infinite."""
    shares: Array = np.maximum(scores, 0)
    total = shares.sum()
    if not 0 < total < np.inf:
        shares, total = (np.arange(len(scores)) == 0).astype(scores.dtype), 1
    shares /= total
    return shares


def _kept(
    boxes: Array, scores: Array, classes: Array | None, iou: float, threshold: float, most: int
) -> Array:
    order = _ranked(scores, threshold)
    kept = np.empty(0, np.int64)
    for start in range(0, len(order), _BLOCK):
        if len(kept) >= most:
            break
        block = order[start : start + _BLOCK]
        if len(kept):
            block = block[~_suppressed(boxes, classes, kept, block, iou).any(axis=0)]
        # Row by row, each box that is still there removes what overlaps it further down.
        spared = ~_suppressed(boxes, classes, block, block, iou)
        alive = np.ones(len(block), bool)
        for row in range(len(block)):
            if alive[row]:
                alive[row + 1 :] &= spared[row, row + 1 :]
        kept = np.concatenate([kept, block[alive]])
    return kept[:most]


def _suppressed(boxes: Array, classes: Array | None, better: Array, worse: Array, iou: float) -> Array:
    over: Array = _overlaps(boxes[better], boxes[worse]) > iou
    if classes is not None:
        over &= classes[better, np.newaxis] == classes[worse]
    return over


def _overlaps(boxes: Array, others: Array) -> Array:
    """Intersection over union of each of some boxes with each of others; of what has no area, 0."""
    dtype = np.result_type(boxes, np.float32)
    # Rows of ends, so that inner loops run along the boxes.
    mine = np.array(boxes.T, dtype, order="C")[:, :, np.newaxis]
    theirs = np.array(others.T, dtype, order="C")[:, np.newaxis]
    # Boxes without bounds have overlaps that are not numbers, and suppress nothing.
    with np.errstate(invalid="ignore", over="ignore"):
        sides = np.minimum(mine[2:], theirs[2:])
        sides -= np.maximum(mine[:2], theirs[:2])
        np.maximum(sides, 0, out=sides)
        overlap: Array = np.multiply(sides[0], sides[1], out=sides[0])
        mine, theirs = np.maximum(mine[2:] - mine[:2], 0), np.maximum(theirs[2:] - theirs[:2], 0)
        union = mine[0] * mine[1] + theirs[0] * theirs[1]
        union -= overlap
        overlap /= np.maximum(union, _LEAST_AREA, out=union)
    return overlap
