"""What is behind a sign: walls and streets."""

from __future__ import annotations

import cv2
import numpy as np

from benchmarks.sign.drawing.noise import octaves
from edge_runtime.tensor_spec import Array

__all__ = ["draw_backdrop"]


def draw_backdrop(size: tuple[int, int], random: np.random.Generator) -> Array:
    """A wall, a street or greenery of (height, width) pixels, uint8 RGB."""
    kinds = (_plaster, _bricks, _planks, _tiles, _street, _greenery)
    kind = kinds[int(random.integers(len(kinds)))]
    # Large pictures show no more of it, being sharp on the sign.
    coarse = (size[0] // 2, size[1] // 2) if min(size) > 480 else size
    image = np.clip(kind(coarse, random), 0, 255).astype(np.uint8)
    backdrop: Array = cv2.resize(image, size[::-1], interpolation=cv2.INTER_CUBIC)
    return backdrop


def _coloured(colour: tuple[float, float, float], gain: Array) -> Array:
    """A colour times a gain for each pixel."""
    coloured: Array = gain[:, :, np.newaxis] * np.asarray(colour, np.float32)
    return coloured


def _jitter(random: np.random.Generator, colour: tuple[int, int, int], by: float = 0.15) -> Array:
    return np.asarray(colour, np.float32) * random.uniform(1 - by, 1 + by, 3).astype(np.float32)


def _plaster(size: tuple[int, int], random: np.random.Generator) -> Array:
    colour = _pick(
        random, ((206, 198, 184), (160, 158, 154), (120, 116, 112), (214, 186, 140), (150, 168, 176))
    )
    short = min(size)
    gain = 1 + 0.05 * octaves(size, (short / 2, short / 12, 3.0), (1.0, 0.6, 0.5), random)
    return _coloured(tuple(_jitter(random, colour)), gain)


def _bricks(size: tuple[int, int], random: np.random.Generator) -> Array:
    height, width = size
    tall = max(6.0, height / random.uniform(11, 22))
    wide, joint = tall * random.uniform(2.4, 3.2), max(1.0, tall * 0.09)
    rows, columns = np.arange(height) / tall, np.arange(width) / wide
    row = rows.astype(int)
    across = columns[np.newaxis, :] + 0.5 * (row[:, np.newaxis] % 2)
    column = across.astype(int)
    shades = random.normal(1.0, 0.1, (row.max() + 1, column.max() + 1)).astype(np.float32)
    gain = shades[row[:, np.newaxis], column] + 0.05 * octaves(size, (4.0, height / 4), (1.0, 1.0), random)
    mortar = ((rows % 1) < joint / tall)[:, np.newaxis] | ((across % 1) < joint / wide)
    bricks = _coloured(
        tuple(
            _jitter(random, _pick(random, ((150, 78, 58), (172, 108, 78), (190, 180, 168), (110, 70, 62))))
        ),
        gain,
    )
    bricks[mortar] = _jitter(random, (176, 168, 156), 0.05)
    softened: Array = cv2.GaussianBlur(bricks, (0, 0), 0.7)
    return softened


def _planks(size: tuple[int, int], random: np.random.Generator) -> Array:
    width = size[1]
    wide = width / random.uniform(5, 12)
    plank = (np.arange(width) / wide).astype(int)
    shades = random.normal(1.0, 0.08, plank.max() + 1).astype(np.float32)
    grain = octaves(size, (width / 8, 4.0), (0.06, 0.05), random, stretch=(12.0, 1.0))
    gain = shades[plank][np.newaxis, :] + grain
    gain[:, (np.arange(width) / wide) % 1 < 2.0 / wide] *= 0.45
    colour = _pick(random, ((140, 104, 72), (96, 78, 62), (176, 160, 138), (70, 92, 96)))
    return _coloured(tuple(_jitter(random, colour)), gain)


def _tiles(size: tuple[int, int], random: np.random.Generator) -> Array:
    height, width = size
    side = max(8.0, height / random.uniform(6, 12))
    rows, columns = np.arange(height) / side, np.arange(width) / (side * random.choice((1.0, 2.0)))
    shades = random.normal(1.0, 0.03, (int(rows[-1]) + 1, int(columns[-1]) + 1)).astype(np.float32)
    gain = shades[rows.astype(int)[:, np.newaxis], columns.astype(int)]
    gain = gain + 0.06 * octaves(size, (height / 1.5,), (1.0,), random)
    gain[(rows % 1) < 1.5 / side] *= 0.7
    gain[:, (columns % 1) < 1.5 / side] *= 0.7
    colour = _pick(random, ((206, 208, 204), (176, 196, 200), (220, 210, 180), (90, 112, 104)))
    return _coloured(tuple(_jitter(random, colour, 0.06)), gain)


def _street(size: tuple[int, int], random: np.random.Generator) -> Array:
    """Sky, houses and a road, out of focus."""
    height, width = size
    image = np.empty((height, width, 3), np.float32)
    horizon = int(height * random.uniform(0.6, 0.85))
    down = np.linspace(0, 1, height, dtype=np.float32)[:, np.newaxis, np.newaxis]
    image[:] = (
        _jitter(random, (126, 160, 200), 0.1) * (1 - down) + _jitter(random, (226, 228, 226), 0.06) * down
    )
    left = 0
    while left < width:
        wide = int(width * random.uniform(0.1, 0.28))
        top = int(height * random.uniform(0.05, 0.5))
        house = _jitter(
            random, _pick(random, ((150, 110, 90), (180, 170, 150), (110, 114, 120), (190, 140, 100)))
        )
        image[top:horizon, left : left + wide] = house
        step = max(8, int(height * random.uniform(0.07, 0.12)))
        for window in range(top + step // 2, horizon - step, step):
            for across in range(left + step // 3, min(left + wide, width) - step // 2, step):
                image[window : window + step // 2, across : across + step // 3] = house * 0.45
        left += wide
    image[horizon:] = _jitter(random, (92, 92, 94), 0.1)
    image = cv2.GaussianBlur(image, (0, 0), height * random.uniform(0.004, 0.012))
    grained: Array = image * (1 + 0.02 * octaves(size, (3.0,), (1.0,), random))[:, :, np.newaxis]
    return grained


def _greenery(size: tuple[int, int], random: np.random.Generator) -> Array:
    short = min(size)
    leaves = octaves(size, (short / 4, short / 14, short / 40), (0.7, 0.7, 0.6), random)
    gain = np.clip(0.75 + 0.28 * leaves, 0.15, 1.6)
    warm = octaves(size, (short / 5,), (1.0,), random)
    image = _coloured(tuple(_jitter(random, (78, 96, 58), 0.15)), gain)
    image[:, :, :2] += 8 * warm[:, :, np.newaxis]
    softened: Array = cv2.GaussianBlur(image, (0, 0), short * random.uniform(0.002, 0.008))
    return softened


def _pick(random: np.random.Generator, colours: tuple[tuple[int, int, int], ...]) -> tuple[int, int, int]:
    return colours[int(random.integers(len(colours)))]
