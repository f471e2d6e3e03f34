"""Lines of text in a picture, as quadrilaterals: what is near each, and its own upright coordinates."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from edge_runtime.errors import ErrorCode, HybridgeError
from edge_runtime.tensor_spec import Array

__all__ = ["Reach", "check_lines", "grown", "ink_quad", "reach_of", "side_lengths"]

# A quadrilateral whose sides are shorter, in pixels, holds no text.
_LEAST = 3.0


@dataclass(frozen=True, slots=True)
class Reach:
    """The part of an image around a quadrilateral.

    Attributes:
        rows: Rows of the image that it takes.
        columns: Columns of the image that it takes.
        quad: The quadrilateral, moved into the part.
        height: Mean height of the quadrilateral, pixels.
        up: The direction of its upper side, seen from the lower, a unit vector (x, y).
    """

    rows: slice
    columns: slice
    quad: Array
    height: float
    up: Array

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the part."""
        return self.rows.stop - self.rows.start, self.columns.stop - self.columns.start

    def at_height(self, height: float) -> Reach:
        """The same in an image that is so much smaller that the quadrilateral is not higher than `height` pixels."""
        ratio = height / self.height
        if ratio >= 1:
            return self
        rows, columns = (max(1, round(side * ratio)) for side in self.size)
        moved = (self.quad * np.array([columns / self.size[1], rows / self.size[0]])).astype(np.float32)
        return Reach(slice(0, rows), slice(0, columns), moved, height, self.up)

    def polygon(self, margin: float) -> Array:
        """Where the quadrilateral is, grown by a share of its height, uint8, 0 or 255."""
        mask = np.zeros(self.size, np.uint8)
        # Sixteenths of a pixel.
        points = np.round(grown(self.quad, margin) * 16).astype(np.int32)
        cv2.fillConvexPoly(mask, points, 255, lineType=cv2.LINE_8, shift=4)
        return mask


def side_lengths(quad: Array) -> tuple[float, float]:
    """Mean height and width of a quadrilateral, pixels."""
    left, right = np.linalg.norm(quad[3] - quad[0]), np.linalg.norm(quad[2] - quad[1])
    top, bottom = np.linalg.norm(quad[1] - quad[0]), np.linalg.norm(quad[2] - quad[3])
    return float(left + right) / 2, float(top + bottom) / 2


def grown(quad: Array, margin: float) -> Array:
    """The quadrilateral with each side moved out by a share of its height."""
    height, width = side_lengths(quad)
    across, down = margin * height / max(width, 1e-6), margin
    top, bottom, left, right = quad[1] - quad[0], quad[2] - quad[3], quad[3] - quad[0], quad[2] - quad[1]
    moved = [
        quad[0] - top * across - left * down,
        quad[1] + top * across - right * down,
        quad[2] + bottom * across + right * down,
        quad[3] - bottom * across + left * down,
    ]
    return np.array(moved, np.float32)


def ink_quad(quad: Array, extent: Array) -> Array:
    """The corners of a part of a quadrilateral, given as shares (top, left, bottom, right) of its height and width."""
    top, left, bottom, right = (float(each) for each in extent)
    unit = np.array([(0, 0), (1, 0), (1, 1), (0, 1)], np.float32)
    part = np.array([[(left, top), (right, top), (right, bottom), (left, bottom)]], np.float32)
    turn = cv2.getPerspectiveTransform(unit, quad.astype(np.float32))
    corners: Array = cv2.perspectiveTransform(part, turn)[0].astype(np.float32)
    return corners


def reach_of(quad: Array, size: tuple[int, int], *, margin: float) -> Reach | None:
    """What is within a share of its height from a quadrilateral; None when it is too small or outside the image.

    Args:
        quad: Corners, clockwise from the top left of the text, float32 (4, 2).
        size: Height and width of the image.
        margin: The share.
    """
    height, width = side_lengths(quad)
    if not (np.isfinite(quad).all() and height >= _LEAST and width >= _LEAST):
        return None
    outer = grown(quad, margin)
    low = np.maximum(np.floor(outer.min(0)), 0)
    high = np.minimum(np.ceil(outer.max(0)) + 1, (size[1], size[0]))
    if (high - low < 2).any():
        return None
    (left, top), (right, bottom) = low.astype(int), high.astype(int)
    up = (quad[0] + quad[1] - quad[2] - quad[3]).astype(np.float64)
    return Reach(
        slice(int(top), int(bottom)),
        slice(int(left), int(right)),
        (quad - low).astype(np.float32),
        height,
        up / max(float(np.linalg.norm(up)), 1e-6),
    )


def check_lines(image: Array, quads: Array, **each: Array) -> None:
    """Refuses an image that is none, and values of which there are not as many as quadrilaterals.

    Raises:
        HybridgeError: `input-shape`.
    """
    if image.ndim != 3 or image.shape[2] != 3 or quads.shape[1:] != (4, 2):
        raise HybridgeError(
            ErrorCode.INPUT_SHAPE,
            "image and quadrilaterals",
            received=f"{image.shape} and {quads.shape}",
            expected="(height, width, 3) and (n, 4, 2)",
        )
    for name, values in each.items():
        if len(values) != len(quads):
            raise HybridgeError(
                ErrorCode.INPUT_SHAPE,
                name,
                received=f"{len(values)} of them",
                expected=f"one for each of {len(quads)} quadrilaterals",
            )
