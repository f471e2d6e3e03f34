"""The operator that finds lines of text in a text detector's probability map; it needs the `vision` extra.

Source: Liao et al., "Real-time Scene Text Detection with Differentiable Binarization" (AAAI 2020), with the settings
of PP-OCR. A detector that is trained so marks the shrunken middle of each line, from which the line is grown back.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from edge_runtime.errors import ErrorCode, HybridgeError
from edge_runtime.operators.opencv import opencv
from edge_runtime.operators.regions import transform_points
from edge_runtime.operators.registry import operator
from edge_runtime.tensor_spec import Array

__all__ = ["text_boxes"]

# Lines whose middles differ by less than this share of their height are read from left to right.
_SAME_LINE = 0.5


@operator(
    "text-boxes",
    takes={"probabilities": "float32[...]", "transform": "float32[3, 3]"},
    gives={"quads": "float32[n, 4, 2]", "scores": "float32[n]"},
)
def text_boxes(
    probabilities: Array,
    transform: Array,
    *,
    threshold: float = 0.3,
    box_threshold: float = 0.6,
    unclip_ratio: float = 1.5,
    min_side: float = 3.0,
    dilation: int = 0,
    max_boxes: int = 1000,
) -> dict[str, Array]:
    """A rectangle, which may be turned, for each line of text.

    Pixels above `threshold` that touch are a line. Around each lies the rectangle of least area; it is kept when the
    mean probability within it is high enough, grown on all sides by area x `unclip_ratio` / perimeter, clipped to the
    map, and taken back to the image that the map was made from.

    Args:
        probabilities: The map, float32 of shape (height, width), with axes of size one before or behind. NaN is 0.
        transform: From a point of the map to one of the image, as `resize-to-stride` and `letterbox` give it.
        threshold: Above which a pixel belongs to a line.
        box_threshold: Rectangles whose mean probability is less are left out.
        unclip_ratio: How far a rectangle is grown; 0 leaves it as it is.
        min_side: Rectangles with a side below this many pixels of the map are left out.
        dilation: Side of the square by which lines are thickened first, such as 2, which joins broken ones; 0 for none.
        max_boxes: Of more lines than this only those that take most room are looked at.

    Returns:
        `quads`, corners (x, y) in pixels of the image, clockwise from top left, and their `scores`, in reading order:
        from top to bottom and, in a line, from left to right.

    Raises:
        HybridgeError: `input-shape` for what is no map, `extra-missing`.
    """
    cv2 = opencv()
    chances = _map(probabilities)
    mask = (chances > threshold).view(np.uint8)
    if dilation > 1:
        mask = cv2.dilate(mask, np.ones((dilation, dilation), np.uint8))
    contours, hierarchy = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    # With two levels, the outlines are those that lie in nothing; the others are holes in them.
    lines = [] if hierarchy is None else [contours[at] for at in np.flatnonzero(hierarchy[0, :, 3] < 0)]
    if len(lines) > max_boxes:
        lines = sorted(lines, key=lambda line: -math.prod(cv2.boundingRect(line)[2:]))[:max_boxes]
    rectangles = [(*centre, *sides, turn) for centre, sides, turn in map(cv2.minAreaRect, lines)]
    found = np.array(rectangles, np.float32).reshape(-1, 5)
    found = found[found[:, 2:4].min(axis=1, initial=np.inf) >= min_side]
    scores = _means_inside(cv2, chances, _corners(found))
    sure = scores >= box_threshold
    found, scores = found[sure], scores[sure]
    sides = found[:, 2:4]
    # Offsetting a polygon comes, for a rectangle, to moving its sides.
    sides += (sides[:, :1] * sides[:, 1:] * unclip_ratio) / (sides[:, :1] + sides[:, 1:])
    # Contours run through the middles of pixels, and points are counted from the corner of the first; a square of even
    # side has its middle half a pixel further on.
    shift = 0.0 if dilation > 1 and dilation % 2 == 0 else 0.5
    quads = np.clip(_clockwise(_corners(found)) + np.float32(shift), 0, chances.shape[::-1])
    placed = transform_points(quads.astype(np.float32), transform)
    order = _reading_order(placed)
    return {"quads": placed[order], "scores": scores[order]}


def _map(probabilities: Array) -> Array:
    chances = probabilities
    while chances.ndim > 2 and (chances.shape[0] == 1 or chances.shape[-1] == 1):
        chances = chances[0] if chances.shape[0] == 1 else chances[..., 0]
    if chances.ndim != 2 or not chances.size:
        raise HybridgeError(
            ErrorCode.INPUT_SHAPE,
            "probabilities",
            received=f"shape {probabilities.shape}",
            expected="(height, width), with axes of size one before or behind",
        )
    return np.ascontiguousarray(chances, np.float32)


def _corners(rectangles: Array) -> Array:
    """Corners (x, y) of rows (x, y, width, height, degrees clockwise), going round; float32 of shape (n, 4, 2)."""
    centres, sides, turns = rectangles[:, :2], rectangles[:, 2:4] / 2, np.deg2rad(rectangles[:, 4])
    cosine, sine = np.cos(turns), np.sin(turns)
    across = np.stack([cosine, sine], axis=1) * sides[:, :1]
    down = np.stack([-sine, cosine], axis=1) * sides[:, 1:]
    return np.stack(
        [
            centres - across - down,
            centres + across - down,
            centres + across + down,
            centres - across + down,
        ],
        axis=1,
    )


def _means_inside(cv2: Any, chances: Array, quads: Array) -> Array:
    """Mean of the map over each rectangle; what of one lies outside the map does not count."""
    limits = np.array(chances.shape[::-1]) - 1
    starts = np.clip(np.floor(quads.min(axis=1)), 0, limits).astype(np.int32)
    ends = np.clip(np.ceil(quads.max(axis=1)), 0, limits).astype(np.int32) + 1
    outlines = (quads - starts[:, np.newaxis]).astype(np.int32)
    means = np.zeros(len(quads), np.float32)
    for index, ((left, top), (right, bottom)) in enumerate(zip(starts.tolist(), ends.tolist(), strict=True)):
        patch = chances[top:bottom, left:right]
        inside = np.zeros(patch.shape, np.uint8)
        cv2.fillConvexPoly(inside, outlines[index], 1)
        mean = cv2.mean(patch, inside)[0]
        means[index] = mean if mean == mean else cv2.mean(np.nan_to_num(patch), inside)[0]
    return means


def _clockwise(quads: Array) -> Array:
    """Corners in order: of the two leftmost the upper, of the two rightmost the upper, and so round."""
    by_x = np.take_along_axis(quads, np.argsort(quads[:, :, :1], axis=1, kind="stable"), axis=1)
    left, right = by_x[:, :2], by_x[:, 2:]
    left = np.take_along_axis(left, np.argsort(left[:, :, 1:], axis=1, kind="stable"), axis=1)
    right = np.take_along_axis(right, np.argsort(right[:, :, 1:], axis=1, kind="stable"), axis=1)
    return np.stack([left[:, 0], right[:, 0], right[:, 1], left[:, 1]], axis=1)


def _reading_order(quads: Array) -> list[int]:
    middles = quads.mean(axis=1).tolist()
    heights = (quads[:, :, 1].max(axis=1) - quads[:, :, 1].min(axis=1)).tolist()
    rows: list[list[int]] = []
    for index in sorted(range(len(middles)), key=lambda at: middles[at][1]):
        # Against the first of its row, so that a staircase does not become one.
        if rows:
            first = rows[-1][0]
            if middles[index][1] - middles[first][1] < _SAME_LINE * min(heights[index], heights[first]):
                rows[-1].append(index)
                continue
        rows.append([index])
    return [index for row in rows for index in sorted(row, key=lambda at: middles[at][0])]
