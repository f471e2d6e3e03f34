"""Operators on boxes: rows of (top, left, bottom, right)."""

from __future__ import annotations

import numpy as np

from edge_runtime.operators.registry import operator
from edge_runtime.tensor_spec import Array

__all__ = ["non_max_suppression"]


@operator("non-max-suppression", outputs=("boxes", "scores", "indices"))
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
        scores: A score for each box, shape (n,).
        iou_threshold: Intersection over union above which the lower-scored of two boxes goes.
        score_threshold: Boxes with a score not above it are left out.
        max_boxes: At most so many are kept.

    Returns:
        The kept `boxes`, `scores` and their `indices` (int64) in the input, best first.
    """
    order = np.argsort(-scores, kind="stable")
    order = order[scores[order] > score_threshold]
    sides = np.maximum(boxes[:, 2:] - boxes[:, :2], 0)
    areas = sides[:, 0] * sides[:, 1]
    kept: list[int] = []
    while order.size and len(kept) < max_boxes:
        best, order = int(order[0]), order[1:]
        kept.append(best)
        corner = np.maximum(boxes[best, :2], boxes[order, :2])
        opposite = np.minimum(boxes[best, 2:], boxes[order, 2:])
        overlap = np.prod(np.maximum(opposite - corner, 0), axis=1)
        union = np.maximum(areas[best] + areas[order] - overlap, np.finfo(np.float32).tiny)
        order = order[overlap / union <= iou_threshold]
    indices = np.asarray(kept, np.int64)
    return {"boxes": boxes[indices], "scores": scores[indices], "indices": indices}
