"""Smooth random fields, which walls, boards and light are made of."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from edge_runtime.tensor_spec import Array

__all__ = ["octaves"]


def octaves(
    size: tuple[int, int],
    wavelengths: Sequence[float],
    strengths: Sequence[float],
    random: np.random.Generator,
    *,
    stretch: tuple[float, float] = (1.0, 1.0),
) -> Array:
    """A sum of smooth fields of unit variance.

    Args:
        size: Height and width.
        wavelengths: Of each field, pixels.
        strengths: Of each field.
        random: Where the values come from.
        stretch: Factors on the wavelengths down and across.

    Returns:
        float32 of shape `size`.
    """
    height, width = size
    total = np.zeros(size, np.float32)
    for wavelength, strength in zip(wavelengths, strengths, strict=True):
        down = min(height, max(2, round(height / max(wavelength * stretch[0], 1.0)) + 2))
        across = min(width, max(2, round(width / max(wavelength * stretch[1], 1.0)) + 2))
        coarse = random.standard_normal((down, across), dtype=np.float32) * np.float32(strength)
        total += cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    return total
