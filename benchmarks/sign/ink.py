"""What a line of text is printed with: its colours, where its ink is, how sharp it is, and its letters' shapes."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from edge_runtime import operator
from edge_runtime.errors import ErrorCode, HybridgeError
from edge_runtime.tensor_spec import Array

__all__ = ["STRIP_SIZE", "sign_ink"]

STRIP_SIZE = (48, 160)
"""Height and width of the letters that the font model looks at."""

# Crops are looked at in at most this height; more shows no more.
_HEIGHT = 48
# Below it, what a stroke lost to blur is not guessed.
_LEAST_REACHED = 0.7
# Steepness times width of a bar that is no wider than its blur: it has no flat top.
_HILL = 1.5
# Height of the ink in a strip.
_INK_HEIGHT = 40
_AROUND = np.ones((3, 3), np.uint8)


@operator(
    "sign-ink",
    takes={"crop": "uint8[h, w, 3]"},
    gives={
        "ink": "uint8[3]",
        "paper": "uint8[3]",
        "extent": "float32[4]",
        "softness": "float32[]",
        "weight": "float32[]",
        "strip": "uint8[48, 160, 1]",
    },
)
def sign_ink(crop: Array) -> dict[str, Array]:
    """How an upright line of text is printed.

    Light may be uneven, and a shadow may cross the line: ink is told from paper by what is around it. The direction in
    which colours change at edges says how they differ, as letters have far more edges than shadows have.

    Args:
        crop: The line, upright, with a little paper around it, RGB.

    Returns:
        - `ink` and `paper`: their colours as seen.
        - `extent`: the box of the ink (top, left, bottom, right), as shares of the crop's height and width.
        - `softness`: the standard deviation of the blur of its edges, as a share of the crop's height.
        - `weight`: the share of that box that is ink, which blur leaves as it is.
        - `strip`: the part with the most ink, scaled to one height, 0 where there is paper and 255 where there is ink,
          whatever their colours.

        A crop without text has one colour for both, an `extent` of all, and an empty `strip`.

    Raises:
        HybridgeError: `input-shape` for a crop without pixels.
    """
    if crop.ndim != 3 or crop.shape[2] != 3 or 0 in crop.shape:
        raise HybridgeError(
            ErrorCode.INPUT_SHAPE,
            "crop",
            received=str(crop.shape),
            expected="(height, width, 3), none of them 0",
        )
    scale = min(1.0, _HEIGHT / crop.shape[0])
    width = max(1, round(crop.shape[1] * scale))
    small = cv2.resize(crop, (width, max(1, round(crop.shape[0] * scale))), interpolation=cv2.INTER_AREA)
    level = _levels(small)
    letters = None if level is None else _separated(level)
    if letters is None:
        colour = np.median(small.reshape(-1, 3), axis=0).astype(np.uint8)
        return {
            "ink": colour,
            "paper": colour.copy(),
            "extent": np.array([0, 0, 1, 1], np.float32),
            "softness": np.array(0.02, np.float32),
            "weight": np.array(0.25, np.float32),
            "strip": np.zeros((*STRIP_SIZE, 1), np.uint8),
        }
    ink, paper = _colours(small, letters)
    box = _extent(letters.mask)
    height, width = letters.mask.shape
    inked = letters.coverage[box[0] : box[2], box[1] : box[3]]
    return {
        "ink": ink,
        "paper": paper,
        "extent": np.array(box, np.float32) / np.array([height, width, height, width], np.float32),
        "softness": np.array(letters.blur / height, np.float32),
        "weight": np.array(inked.mean() * letters.reached, np.float32),
        "strip": _strip(letters.coverage, box),
    }


@dataclass(frozen=True, slots=True)
class _Letters:
    """Where ink is: sharply (bool), and by how much of each pixel (float32, 0..1).

    Attributes:
        blur: Standard deviation of the blur of the edges, pixels.
        reached: The share of the way from paper to ink that the middle of a stroke goes.
    """

    mask: Array
    coverage: Array
    blur: float
    reached: float


def _levels(crop: Array) -> Array | None:
    """The crop along the one axis of colour in which its edges differ most, float32 (height, width)."""
    lab = cv2.cvtColor(crop.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    lab = cv2.GaussianBlur(lab, (0, 0), 0.7)
    down, across = np.diff(lab, axis=0).reshape(-1, 3), np.diff(lab, axis=1).reshape(-1, 3)
    values, axes = np.linalg.eigh(down.T @ down + across.T @ across)
    if not values[-1] > 1e-3:
        return None
    level: Array = np.ascontiguousarray(lab @ axes[:, -1].astype(np.float32))
    return level


def _separated(level: Array) -> _Letters | None:
    """Ink from paper, where both may be brighter in one place than in another."""
    height, width = level.shape
    window = (min(width, max(3, int(1.6 * height))) | 1, max(3, int(0.9 * height)) | 1)
    kernel = np.ones(window[::-1], np.uint8)
    high, low = cv2.dilate(level, kernel), cv2.erode(level, kernel)
    spread = high - low
    contrast = float(np.percentile(spread, 75))
    if contrast < 3.0:
        return None
    middle = cv2.blur((high + low) / 2, window)
    upper = level > middle
    # Between letters further apart than the window there is nothing to tell apart.
    flat = spread < 0.35 * contrast
    if _is_paper(upper):
        level, mask = -level, ~upper & ~flat
    else:
        mask = upper & ~flat
    if mask.sum() < 4 or (~mask).sum() < 4:
        return None
    near = cv2.dilate(mask.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool)
    paper = _local_mean(level, ~near if (~near).sum() > 16 else ~mask, window)
    above = level - paper
    full = float(np.percentile(above[mask], 80))
    if full < 2.0:
        return None
    # Ink in the shade differs less from the paper there.
    close = (min(width, max(3, int(0.8 * height))) | 1, window[1])
    peak = cv2.dilate(cv2.min(above, 1.1 * full), np.ones(close[::-1], np.uint8))
    peak = cv2.max(cv2.blur(peak, close) * np.float32(0.9), 0.28 * full)
    coverage = np.clip(above / peak, 0, 1)
    mask = coverage > 0.5
    if mask.sum() < 4:
        return None
    return _Letters(mask, coverage, *_strokes(coverage, mask))


def _is_paper(side: Array) -> bool:
    """Whether the side is paper rather than ink: it holds more of the rim, and more of all."""
    deep = max(1, side.shape[0] // 16)
    rim = [side[:deep].ravel(), side[-deep:].ravel(), side[:, :deep].ravel(), side[:, -deep:].ravel()]
    return bool(2 * np.concatenate(rim).mean() + side.mean() > 1.5)


def _local_mean(values: Array, where: Array, window: tuple[int, int]) -> Array:
    """The mean over a window, of the values that count; the mean of all where there are none."""
    weight = where.astype(np.float32)
    total = float((values * weight).sum() / max(float(weight.sum()), 1.0))
    sums, weights = cv2.blur((values - total) * weight, window), cv2.blur(weight, window)
    mean: Array = total + sums / np.maximum(weights, 0.02)
    return mean


def _strokes(coverage: Array, mask: Array) -> tuple[float, float]:
    """The blur of the edges in pixels, and the share of its colour that a stroke of this width reaches under it.

    Taken as an edge between wide areas, which says too little of strokes thinner than their blur: what they lost cannot
    be told from what they never had.
    """
    across, down = cv2.Sobel(coverage, -1, 1, 0, scale=0.125), cv2.Sobel(coverage, -1, 0, 1, scale=0.125)
    small = mask.astype(np.uint8)
    edge = cv2.magnitude(across, down)[cv2.morphologyEx(small, cv2.MORPH_GRADIENT, _AROUND) > 0]
    steep = max(float(np.percentile(edge, 88)), 1e-3)
    perimeter = cv2.countNonZero(small - cv2.erode(small, _AROUND))
    width = 2 * cv2.countNonZero(small) / max(perimeter, 1)
    blur = 1 / (np.sqrt(2 * np.pi) * steep)
    if steep * width < _HILL:
        # Between an edge and a hill, whose sides are half as steep again for the same blur.
        blur *= 1.25
    # The look itself adds the last term, by its smoothing and its derivative.
    blur = float(np.sqrt(max(blur**2 - 1.1, 0.0)))
    # Colours are read where strokes are widest.
    reached = _erf(1.15 * width / (2 * np.sqrt(2) * max(blur, 1e-3)))
    return blur, max(reached, _LEAST_REACHED)


def _erf(x: float) -> float:
    # Abramowitz and Stegun, Handbook of Mathematical Functions, 7.1.27; NumPy has none.
    return 1 - 1 / (1 + 0.278393 * x + 0.230389 * x**2 + 0.000972 * x**3 + 0.078108 * x**4) ** 4


def _colours(crop: Array, letters: _Letters) -> tuple[Array, Array]:
    """Ink from the middle of the strokes, where least paper shines through; paper from what is far from any."""
    # The strongest pixels of thin strokes; of wide ones, where these would be noise, the usual.
    share = 50 if letters.reached > 0.95 else 80
    strong = letters.mask & (letters.coverage >= np.percentile(letters.coverage[letters.mask], share))
    depth = cv2.distanceTransform(letters.mask.astype(np.uint8), cv2.DIST_L2, 3)
    core = strong & (depth >= min(4.0, 0.8 * float(np.percentile(depth[strong], 80))))
    away = cv2.distanceTransform((~letters.mask).astype(np.uint8), cv2.DIST_L2, 3)
    far = away > min(3.0 + letters.blur, 0.6 * float(away.max()))
    # A thousand pixels say it as well as all of them.
    found = [crop[where] for where in (core, far)]
    ink, paper = (np.median(pixels[:: max(1, len(pixels) // 1000)], axis=0) for pixels in found)
    ink = paper + (ink - paper) / letters.reached
    return np.clip(ink, 0, 255).astype(np.uint8), paper.astype(np.uint8)


def _extent(mask: Array) -> tuple[int, int, int, int]:
    """The box of the letters (top, left, bottom, right), without specks and without a border at the crop's rim."""
    height, width = mask.shape
    count, _, stats, centres = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    x, y, wide, tall, area = stats[1:].T
    middle = centres[1:, 1]
    rim = (y == 0) | (y + tall == height)
    outside = rim & ((middle < 0.15 * height) | (middle > 0.85 * height))
    side = ((x == 0) | (x + wide == width)) & (tall > 0.9 * height) & (wide < 0.12 * height)
    kept = (area >= max(3, 0.002 * height * height)) & ~outside & ~side
    if count < 2 or not kept.any():
        return 0, 0, height, width
    return (
        int(y[kept].min()),
        int(x[kept].min()),
        int((y + tall)[kept].max()),
        int((x + wide)[kept].max()),
    )


def _strip(coverage: Array, box: tuple[int, int, int, int]) -> Array:
    top, left, bottom, right = box
    ink = np.ascontiguousarray(coverage[top:bottom, left:right])
    rows, columns = STRIP_SIZE
    width = max(1, round((right - left) * _INK_HEIGHT / (bottom - top)))
    ink = cv2.resize(ink, (min(width, 4000), _INK_HEIGHT), interpolation=cv2.INTER_LINEAR)
    if ink.shape[1] > columns:
        # The window with the most ink.
        total = np.concatenate([[0.0], np.cumsum(ink.sum(axis=0))])
        start = int(np.argmax(total[columns:] - total[:-columns]))
        ink = ink[:, start : start + columns]
    strip = np.zeros((rows, columns), np.float32)
    above, before = (rows - _INK_HEIGHT) // 2, (columns - ink.shape[1]) // 2
    strip[above : above + _INK_HEIGHT, before : before + ink.shape[1]] = ink
    return (strip * 255).astype(np.uint8)[:, :, np.newaxis]
