"""Operators on regions of an image and the points in them: boxes, quadrilaterals, keypoints.

Boxes are rows (top, left, bottom, right), points are (x, y) with anything behind, quadrilaterals are four points
clockwise from top left; all in pixels, float32.
"""

from __future__ import annotations

import math

import numpy as np

from edge_runtime.errors import ErrorCode, HybridgeError
from edge_runtime.operators.registry import operator
from edge_runtime.tensor_spec import Array

__all__ = ["points_from_quads", "quads_from_boxes", "rotated_regions", "transform_boxes", "transform_points"]

# Of an upright square around the origin, clockwise from top left, x + iy.
_UPRIGHT = np.array([-1 - 1j, 1 - 1j, 1 + 1j, -1 + 1j])
# Where in a box (top, left, bottom, right) the corners of its quadrilateral are.
_BOX_CORNERS = np.array([[1, 0], [3, 0], [3, 2], [1, 2]])


@operator(
    "transform-points",
    takes={"points": "float32[..., d]", "transform": "float32[3, 3]"},
    gives={"points": "float32[..., d]"},
)
def transform_points(points: Array, transform: Array) -> Array:
    """Points (x, y), with anything behind, through a matrix such as `letterbox` gives: back to the original image."""
    placed = np.array(points, np.float32)
    matrix = np.asarray(transform, np.float32)
    mapped = placed[..., :2] @ matrix[:2, :2].T + matrix[:2, 2]
    if matrix[2, 0] or matrix[2, 1] or matrix[2, 2] != 1:
        mapped /= (placed[..., :2] @ matrix[2, :2] + matrix[2, 2])[..., np.newaxis]
    placed[..., :2] = mapped
    return placed


@operator(
    "transform-boxes",
    takes={"boxes": "float32[n, 4]", "transform": "float32[3, 3]"},
    gives={"boxes": "float32[n, 4]"},
)
def transform_boxes(boxes: Array, transform: Array) -> Array:
    """Boxes through a matrix such as `letterbox` gives: back to the original image.

    A matrix that turns gives the upright boxes around what is turned.
    """
    corners = transform_points(quads_from_boxes(boxes), transform)
    return np.concatenate([corners.min(axis=1)[:, ::-1], corners.max(axis=1)[:, ::-1]], axis=1)


@operator("quads-from-boxes", takes={"boxes": "float32[n, 4]"}, gives={"quads": "float32[n, 4, 2]"})
def quads_from_boxes(boxes: Array) -> Array:
    """The four corners of each box."""
    return np.asarray(boxes, np.float32)[:, _BOX_CORNERS]


@operator(
    "rotated-regions",
    takes={"boxes": "float32[n, 4]", "keypoints": "float32[n, k, 2]"},
    gives={"quads": "float32[n, 4, 2]"},
)
def rotated_regions(
    boxes: Array,
    keypoints: Array,
    *,
    start: int = 0,
    end: int = 1,
    angle: float = 0.0,
    scale: float = 1.5,
    shift: float = 0.0,
    square: bool = True,
) -> Array:
    """For each detection the region that a model of its landmarks takes: enlarged, and turned by two of its keypoints.

    As MediaPipe's DetectionsToRects and RectTransformation calculators, whose settings for its face mesh are the
    defaults here.

    Args:
        boxes: The detections' boxes, shape (n, 4).
        keypoints: Their keypoints (x, y), shape (n, k, 2).
        start: Number of the keypoint from which a line is drawn, such as an eye;
        end: that to which it is drawn, such as the other.
        angle: Direction of that line in an upright detection, in degrees counter-clockwise from the x axis; 90 for a
            line that goes up.
        scale: By how much the box is enlarged.
        shift: By how much the box is moved downwards in its own upright frame, as a share of its height.
        square: Whether both sides get the length of the longer one.

    Returns:
        Quadrilaterals of shape (n, 4, 2), clockwise from the corner that is top left when the detection is upright.
    """
    boxes, keypoints = np.asarray(boxes, np.float32), np.asarray(keypoints, np.float32)
    if len(boxes) and not -keypoints.shape[1] <= min(start, end) <= max(start, end) < keypoints.shape[1]:
        raise HybridgeError(
            ErrorCode.INPUT_SHAPE,
            "keypoints",
            received=f"{keypoints.shape[1]} a detection",
            expected=f"numbers {start} and {end} among them",
        )
    if not len(boxes):
        return np.empty((0, 4, 2), np.float32)
    # Points as complex numbers x + iy: to turn is to multiply.
    line = _complex(keypoints[:, end] - keypoints[:, start])
    across = np.exp(1j * (np.angle(line) + math.radians(angle)))
    first, last = _complex(boxes[:, 1::-1]), _complex(boxes[:, :1:-1])
    sides = last - first
    centres = (first + last) / 2 + 1j * across * (shift * sides.imag)
    width, height = sides.real, sides.imag
    if square:
        width = height = np.maximum(width, height)
    corners = (width * (scale / 2))[:, np.newaxis] * _UPRIGHT.real + (height * (scale / 2))[:, np.newaxis] * (
        1j * _UPRIGHT.imag
    )
    turned = centres[:, np.newaxis] + across[:, np.newaxis] * corners
    regions: Array = turned.view(np.float64).reshape(-1, 4, 2).astype(np.float32)
    return regions


def _complex(points: Array) -> Array:
    complexes: Array = np.ascontiguousarray(points, np.float64).view(np.complex128)
    return complexes[:, 0]


@operator(
    "points-from-quads",
    takes={"points": "float32[n, p, d]", "quads": "float32[n, 4, 2]"},
    gives={"points": "float32[n, p, d]"},
)
def points_from_quads(points: Array, quads: Array, *, height: int, width: int) -> Array:
    """Points found in crops of quadrilaterals, such as landmarks of a face, as points of the image they were cut from.

    Args:
        points: (x, y), or (x, y, z), in pixels of crops of `height` and `width`; shape (n, p, 2) or more.
        quads: The quadrilaterals that were cut, as `crop-quads` takes them, parallelograms; shape (n, 4, 2).
        height: Of each crop.
        width: Of each crop.

    Returns:
        The points in pixels of the image, likewise; z is scaled as x is along the quadrilateral's top side.
    """
    quads = np.asarray(quads, np.float32)
    across, down = (quads[:, 1] - quads[:, 0]) / width, (quads[:, 3] - quads[:, 0]) / height
    placed = np.array(points, np.float32)
    axes = np.stack([across, down], axis=1)
    placed[..., :2] = placed[..., :2] @ axes + quads[:, :1]
    if placed.shape[-1] > 2:
        placed[..., 2] *= np.hypot(across[:, 0], across[:, 1])[:, np.newaxis]
    return placed
