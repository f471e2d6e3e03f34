"""Operators that cut regions out of images; all but `crop` and `crop-boxes` need the `vision` extra.

A region is a box, a row (top, left, bottom, right), or a quadrilateral of points (x, y), clockwise from the corner that
is top left once it is upright. Both are counted from the corner of the first pixel, so that the box (0, 0, height,
width) is the whole image.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from edge_runtime.errors import ErrorCode, HybridgeError
from edge_runtime.operators.image import resize
from edge_runtime.operators.opencv import interpolation_flag, opencv
from edge_runtime.operators.registry import operator
from edge_runtime.tensor_spec import Array

__all__ = ["crop", "crop_boxes", "crop_quads", "warp"]

# OpenCV 4's warps take no image with a side of 2**15 - 1 or more; what is half as long is no region of interest either.
_LONGEST = 2**14
# Of a result whose size follows from its quadrilateral, which may come from a model gone wrong.
_MOST_PIXELS = 2**24
# By how many pixels a quadrilateral may differ from a parallelogram and still be warped as one.
_PARALLEL = 0.01


@operator("crop", takes={"image": "T[h, w, ...]"}, gives={"image": "T[height, width, ...]"})
def crop(image: Array, *, top: int, left: int, height: int, width: int) -> Array:
    """A rectangle of the image, in pixels; it must lie within the image."""
    if top < 0 or left < 0 or top + height > image.shape[0] or left + width > image.shape[1]:
        raise HybridgeError(
            ErrorCode.INPUT_SHAPE,
            "crop",
            received=f"rows {top}..{top + height}, columns {left}..{left + width}",
            expected=f"within {image.shape[0]} rows and {image.shape[1]} columns",
        )
    return image[top : top + height, left : left + width]


@operator(
    "crop-boxes",
    takes={"image": "T[h, w, c]", "boxes": "float32[n, 4]"},
    gives={"images": "T[rows, columns, c]*"},
)
def crop_boxes(image: Array, boxes: Array, *, margin: float = 0.0) -> list[Array]:
    """An image for each box, of the pixels that it touches.

    A box is clipped to the image. One that is outside, or has no area, gives the one pixel nearest to it, and one that
    is not finite the first pixel, so that there are always as many images as boxes.

    Args:
        image: The image.
        boxes: Rows (top, left, bottom, right), float32 of shape (n, 4).
        margin: How much to enlarge each box at every side, as a share of its height and width.

    Returns:
        n images, copies.
    """
    _require_pixels(image)
    limits = np.array(image.shape[:2])
    sound = np.where(np.isfinite(boxes).all(axis=1, keepdims=True), boxes, 0).astype(np.float64)
    grown = (sound[:, 2:] - sound[:, :2]) * margin
    starts = np.clip(np.floor(sound[:, :2] - grown), 0, limits - 1).astype(np.int64)
    ends = np.clip(np.ceil(sound[:, 2:] + grown), starts + 1, limits).astype(np.int64)
    return [
        image[top:bottom, left:right].copy()
        for (top, left), (bottom, right) in zip(starts.tolist(), ends.tolist(), strict=True)
    ]


@operator(
    "warp",
    takes={"image": "T[h, w, c]", "quad": "float32[4, 2]"},
    gives={"image": "T[height, width, c]"},
)
def warp(
    image: Array,
    quad: Array,
    *,
    height: int | None = None,
    width: int | None = None,
    interpolation: str = "linear",
    half_pixel_centers: bool = True,
) -> Array:
    """The quadrilateral as an upright rectangle, as `crop-quads` makes it of many."""
    warped: list[Array] = crop_quads(
        image,
        quad[np.newaxis],
        height=height,
        width=width,
        interpolation=interpolation,
        half_pixel_centers=half_pixel_centers,
    )
    return warped[0]


@operator(
    "crop-quads",
    takes={"image": "T[h, w, c]", "quads": "float32[n, 4, 2]"},
    gives={"images": "T[height, width, c]*"},
)
def crop_quads(
    image: Array,
    quads: Array,
    *,
    height: int | None = None,
    width: int | None = None,
    max_width: int | None = None,
    turn_ratio: float = 0.0,
    interpolation: str = "linear",
    half_pixel_centers: bool = True,
) -> list[Array]:
    """An upright image for each quadrilateral, warped in perspective.

    Without `height` and `width` an image has the lengths of its quadrilateral's longer sides; with one of them the
    other follows from its aspect, up to 16384. Beyond the image its edge goes on. A quadrilateral that is not finite
    gives zeros, and one that is larger than any photograph is shrunk.

    Args:
        image: The image.
        quads: Corners (x, y) in pixels, clockwise from top left, float32 of shape (n, 4, 2).
        height: Of every result, such as 48 for PP-OCR's text reader.
        width: Of every result.
        max_width: A result that would be wider is squeezed to this.
        turn_ratio: Quadrilaterals at least so many times higher than wide are turned left to lie flat, as text that
            runs down a sign is; PP-OCR takes 1.5. 0 turns none.
        interpolation: As for `resize`; area warps a region that shrinks at its own size first, which costs more and
            keeps thin lines.
        half_pixel_centers: As for `letterbox`; false for MediaPipe's models of landmarks.

    Returns:
        n images.
    """
    _require_pixels(image)
    sampling = _Sampling(interpolation_flag(interpolation), 0.5 if half_pixel_centers else 0.0)
    cut = []
    for quad in np.asarray(quads, np.float32):
        points: list[list[float]] = quad.tolist()
        if not all(math.isfinite(value) for point in points for value in point):
            cut.append(np.zeros((height or 1, width or 1, *image.shape[2:]), image.dtype))
            continue
        across = max(math.dist(points[0], points[1]), math.dist(points[3], points[2]))
        down = max(math.dist(points[0], points[3]), math.dist(points[1], points[2]))
        if turn_ratio and down >= across * turn_ratio:
            # What was at the right is then at the top.
            points, across, down = points[1:] + points[:1], down, across
        rows, columns = _size(across, down, height, width, max_width)
        if interpolation == "area" and (rows < down or columns < across):
            natural = _warped(image, points, _size(across, down, None, None, None), sampling)
            cut.append(resize(natural, height=rows, width=columns, interpolation=interpolation))
        else:
            cut.append(_warped(image, points, (rows, columns), sampling))
    return cut


@dataclass(frozen=True, slots=True)
class _Sampling:
    """How a warp takes pixels: OpenCV's interpolation, and where in a pixel it is measured."""

    interpolation: int
    centre: float


def _size(
    across: float, down: float, height: int | None, width: int | None, max_width: int | None
) -> tuple[int, int]:
    across, down = max(across, 1.0), max(down, 1.0)
    if not height and not width:
        shrink = min(1.0, math.sqrt(_MOST_PIXELS / (across * down)))
        across, down = across * shrink, down * shrink
    rows = height or (math.ceil(width * down / across) if width else round(down))
    columns = width or (math.ceil(height * across / down) if height else round(across))
    return max(1, min(rows, _LONGEST)), max(1, min(columns, max_width or _LONGEST, _LONGEST))


def _warped(image: Array, points: list[list[float]], size: tuple[int, int], sampling: _Sampling) -> Array:
    """The quadrilateral of `points` as an image of `size` (rows, columns)."""
    cv2 = opencv()
    patch, left, top = _around(image, points)
    # OpenCV counts from the middle of the first pixel, so a middle is at a whole number there and here at a half.
    centre = sampling.centre
    corners = [(x - left - centre, y - top - centre) for x, y in points]
    rows, columns = size
    # OpenCV interpolates four channels with vector instructions and three one by one, twice as slowly; a patch that
    # shrinks a lot is larger than what that saves.
    is_widened = patch.shape[2:] == (3,) and patch.dtype == np.uint8 and patch.size < 24 * rows * columns
    if is_widened:
        patch = cv2.cvtColor(patch, cv2.COLOR_RGB2RGBA)
    settings: dict[str, Any] = {
        # A warp cannot average areas.
        "flags": cv2.WARP_INVERSE_MAP
        | (cv2.INTER_LINEAR if sampling.interpolation == cv2.INTER_AREA else sampling.interpolation),
        "borderMode": cv2.BORDER_REPLICATE,
    }
    (x0, y0), (x1, y1), (x2, y2), (x3, y3) = corners
    if abs(x0 + x2 - x1 - x3) < _PARALLEL and abs(y0 + y2 - y1 - y3) < _PARALLEL:
        # A parallelogram needs no division for each pixel.
        a, b, c, d = (x1 - x0) / columns, (x3 - x0) / rows, (y1 - y0) / columns, (y3 - y0) / rows
        affine = np.array([[a, b, x0 + (a + b) * centre], [c, d, y0 + (c + d) * centre]])
        warped: Array = cv2.warpAffine(patch, affine, (columns, rows), **settings)
    else:
        upright = np.array([(0, 0), (columns, 0), (columns, rows), (0, rows)], np.float32) - np.float32(
            centre
        )
        matrix = cv2.getPerspectiveTransform(upright, np.array(corners, np.float32))
        warped = cv2.warpPerspective(patch, matrix, (columns, rows), **settings)
    if is_widened:
        warped = cv2.cvtColor(warped, cv2.COLOR_RGBA2RGB)
    return warped.reshape(rows, columns, *image.shape[2:])


def _around(image: Array, points: list[list[float]]) -> tuple[Array, int, int]:
    """The part of the image that a quadrilateral needs, and where it begins (x, y)."""
    bounds = []
    for axis, limit in ((0, image.shape[1]), (1, image.shape[0])):
        values = [point[axis] for point in points]
        start = min(max(math.floor(min(values)) - 2, 0), limit - 1)
        bounds.append(
            (start, min(max(math.ceil(max(values)) + 2, start + 1), limit, start + 2 * _LONGEST - 2))
        )
    (left, right), (top, bottom) = bounds
    return image[top:bottom, left:right], left, top


def _require_pixels(image: Array) -> None:
    if image.ndim < 2 or not image.size:
        raise HybridgeError(
            ErrorCode.INPUT_SHAPE,
            "image",
            received=f"shape {image.shape}",
            expected="(height, width, channels), with a pixel at least",
        )
