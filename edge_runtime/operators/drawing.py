"""Operators that draw what was found on a copy of an image; they need the `vision` extra.

Images are uint8 of shape (height, width, 3) or (height, width, 1), colours are [red, green, blue], and lengths are
pixels. What lies outside the image is not drawn, and neither is what is not finite.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from edge_runtime.errors import ErrorCode, HybridgeError
from edge_runtime.operators.opencv import opencv
from edge_runtime.operators.regions import quads_from_boxes
from edge_runtime.operators.registry import operator
from edge_runtime.tensor_spec import Array

__all__ = ["draw_boxes", "draw_labels", "draw_points", "draw_quads"]

_GREEN = (0, 200, 0)
_BLACK = (0, 0, 0)
# Beyond this OpenCV's drawing takes no coordinates; they keep four binary places.
_FARTHEST = 2**14
_PLACES = 4


@operator(
    "draw-boxes",
    takes={"image": "uint8[h, w, c]", "boxes": "float32[n, 4]"},
    gives={"image": "uint8[h, w, c]"},
)
def draw_boxes(image: Array, boxes: Array, *, color: Sequence[int] = _GREEN, thickness: int = 2) -> Array:
    """The image with the outline of each box (top, left, bottom, right)."""
    drawn: Array = draw_quads(image, quads_from_boxes(boxes), color=color, thickness=thickness)
    return drawn


@operator(
    "draw-quads",
    takes={"image": "uint8[h, w, c]", "quads": "float32[n, p, 2]"},
    gives={"image": "uint8[h, w, c]"},
)
def draw_quads(image: Array, quads: Array, *, color: Sequence[int] = _GREEN, thickness: int = 2) -> Array:
    """The image with the outline of each quadrilateral, or polygon of any number of points (x, y)."""
    cv2, drawn = opencv(), _canvas(image)
    outlines = [_fixed(quad) for quad in quads if np.isfinite(quad).all()]
    cv2.polylines(
        drawn, outlines, True, _paint(drawn, color), thickness=thickness, lineType=cv2.LINE_AA, shift=_PLACES
    )
    return drawn


@operator(
    "draw-points",
    takes={"image": "uint8[h, w, c]", "points": "float32[..., d]"},
    gives={"image": "uint8[h, w, c]"},
)
def draw_points(image: Array, points: Array, *, color: Sequence[int] = _GREEN, radius: float = 1.5) -> Array:
    """The image with a dot at each point (x, y), whatever is behind; points have any axes before."""
    cv2, drawn = opencv(), _canvas(image)
    paint = _paint(drawn, color)
    places = points.reshape(-1, points.shape[-1])[:, :2]
    size = max(round(radius * 2**_PLACES), 1)
    for x, y in _fixed(places[np.isfinite(places).all(axis=1)]).tolist():
        cv2.circle(drawn, (x, y), size, paint, -1, lineType=cv2.LINE_AA, shift=_PLACES)
    return drawn


@operator(
    "draw-labels",
    takes={"image": "uint8[h, w, c]", "regions": "float32[n, ...]", "texts": "text[n]"},
    gives={"image": "uint8[h, w, c]"},
)
def draw_labels(
    image: Array,
    regions: Array,
    texts: Array,
    *,
    color: Sequence[int] = _BLACK,
    background: Sequence[int] = _GREEN,
    height: int = 14,
) -> Array:
    """The image with a line of text at the top left of each region, above it where there is room.

    Args:
        image: The image.
        regions: Boxes of shape (n, 4), points of shape (n, 2), or polygons of shape (n, p, 2).
        texts: A text for each region. OpenCV's letters are those of ASCII; another may come out as a question mark.
        color: Of the text.
        background: Of the rectangle behind it.
        height: Of a capital letter.

    Raises:
        HybridgeError: `input-shape` for regions of another shape, or not as many texts as regions.
    """
    cv2, drawn = opencv(), _canvas(image)
    if texts.shape != regions.shape[:1]:
        raise HybridgeError(
            ErrorCode.INPUT_SHAPE,
            "texts",
            received=f"shape {texts.shape}",
            expected=f"a text for each of {len(regions)} regions",
        )
    colors = _paint(drawn, color), _paint(drawn, background)
    for (x, y), text in zip(_top_left(regions).tolist(), texts.tolist(), strict=True):
        if np.isfinite(x) and np.isfinite(y) and text:
            _label(cv2, drawn, text, (x, y), colors, height)
    return drawn


def _label(
    cv2: Any,
    drawn: Array,
    text: str,
    place: tuple[float, float],
    colors: tuple[tuple[int, ...], tuple[int, ...]],
    height: int,
) -> None:
    font = cv2.FONT_HERSHEY_SIMPLEX
    scale = cv2.getFontScaleFromHeight(font, height, 1)
    (width, tall), below = cv2.getTextSize(text, font, scale, 1)
    left = int(np.clip(place[0], 0, max(drawn.shape[1] - width, 0)))
    bottom = int(np.clip(place[1], tall + below, max(drawn.shape[0], tall + below)))
    cv2.rectangle(drawn, (left, bottom - tall - below), (left + width, bottom), colors[1], -1)
    cv2.putText(drawn, text, (left, bottom - below), font, scale, colors[0], 1, cv2.LINE_AA)


def _top_left(regions: Array) -> Array:
    if regions.ndim == 3 and regions.shape[2] == 2:
        corners: Array = regions.min(axis=1)
        return corners
    if regions.ndim == 2 and regions.shape[1] == 4:
        return regions[:, 1::-1]
    if regions.ndim == 2 and regions.shape[1] == 2:
        return regions
    raise HybridgeError(
        ErrorCode.INPUT_SHAPE,
        "regions",
        received=f"shape {regions.shape}",
        expected="boxes (n, 4), points (n, 2) or polygons (n, p, 2)",
    )


def _canvas(image: Array) -> Array:
    if image.ndim != 3 or image.shape[2] not in (1, 3) or image.dtype != np.uint8 or not image.size:
        raise HybridgeError(
            ErrorCode.INPUT_SHAPE,
            "image",
            received=f"{image.dtype} of shape {image.shape}",
            expected="uint8 of shape (height, width, 3) or (height, width, 1), with a pixel at least",
        )
    return np.array(image, order="C")


def _paint(drawn: Array, color: Sequence[int]) -> tuple[int, ...]:
    """The colour, or on a grey image how bright it is (ITU-R BT.601)."""
    if drawn.shape[2] == 3 or len(color) == 1:
        return tuple(color)
    return (round(0.299 * color[0] + 0.587 * color[1] + 0.114 * color[2]),)


def _fixed(points: Array) -> Array:
    # A point is counted from the corner of the first pixel, OpenCV counts from its middle.
    near = np.clip(points - 0.5, -_FARTHEST, _FARTHEST)
    fixed: Array = np.rint(near * 2**_PLACES).astype(np.int32)
    return fixed
