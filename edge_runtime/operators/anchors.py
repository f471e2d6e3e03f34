"""The operator that reads a single-shot detector's output: boxes and keypoints relative to fixed anchors.

Sources: Liu et al., "SSD: Single Shot MultiBox Detector" (2016); Bazarevsky et al., "BlazeFace" (2019), and the options
of MediaPipe's SsdAnchors and TensorsToDetections calculators.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from edge_runtime.errors import ErrorCode, HybridgeError
from edge_runtime.operators.registry import operator
from edge_runtime.tensor_spec import Array

__all__ = ["decode_anchors"]

_LARGEST_EXPONENT = 80.0


@operator(
    "decode-anchors",
    takes={"offsets": "float32[..., anchors, values]", "scores": "float32[..., anchors, classes]"},
    gives={
        "boxes": "float32[n, 4]",
        "keypoints": "float32[n, k, 2]",
        "scores": "float32[n]",
        "classes": "int64[n]",
    },
)
def decode_anchors(
    offsets: Array,
    scores: Array,
    *,
    height: int = 128,
    width: int = 128,
    strides: Sequence[int] = (8, 16, 16, 16),
    min_scale: float = 0.1484375,
    max_scale: float = 0.75,
    aspect_ratios: Sequence[float] = (1.0,),
    interpolated_aspect_ratio: float = 1.0,
    reduced_lowest_layer: bool = False,
    fixed_size: bool = True,
    anchor_offset: float = 0.5,
    order: str = "xywh",
    scales: Sequence[float] = (128.0, 128.0, 128.0, 128.0),
    exponential: bool = False,
    score_threshold: float = 0.5,
    score_limit: float = 100.0,
    logits: bool = True,
) -> dict[str, Array]:
    """Boxes, keypoints, scores and classes of the anchors whose best class is likely enough.

    The defaults are those of MediaPipe's short-range face detector. A TensorFlow SSD MobileNet has ``order="yxhw"``,
    ``scales=[10, 10, 5, 5]`` and ``exponential=true``.

    Args:
        offsets: For each anchor the box's centre and size and then its keypoints (x, y); shape (anchors, 4 + 2 k), or
            with axes of size one before.
        scores: For each anchor and class; shape (anchors, classes), likewise.
        height: Of the model's input, in pixels.
        width: Of the model's input.
        strides: Of the layers that the anchors belong to; layers of one stride that follow each other share a grid.
        min_scale: Size of the first layer's anchors as a share of the input,
        max_scale: and of the last layer's; those between lie evenly.
        aspect_ratios: Of each layer's anchors.
        interpolated_aspect_ratio: Of one more anchor between a layer's size and the next; 0 for none.
        reduced_lowest_layer: Whether the first layer has SSD's three smaller anchors.
        fixed_size: Whether all anchors are 1x1, so that sizes do not depend on them.
        anchor_offset: Where in its cell an anchor has its centre.
        order: ``xywh`` or ``yxhw``: how offsets begin; keypoints are (x, y) or (y, x) likewise.
        scales: What centre x, centre y, width and height are divided by; keypoints by the first two.
        exponential: Whether sizes are logarithms.
        score_threshold: Anchors whose best score is less are left out, as are those with a NaN.
        score_limit: Logits are clipped to plus and minus this.
        logits: Whether scores are logits, or probabilities.

    Returns:
        `boxes` (top, left, bottom, right) and `keypoints` in pixels of the model's input, `scores` in 0..1 and
        `classes`, in the order of the anchors.

    Raises:
        HybridgeError: `input-shape` for outputs that do not fit the anchors of these settings.
    """
    pairs = offsets.shape[-1] // 2 if offsets.ndim else 0
    grid = _Grid(
        height, width, tuple(strides), min_scale, max_scale, tuple(aspect_ratios),
        interpolated_aspect_ratio, reduced_lowest_layer, fixed_size, anchor_offset,
    )  # fmt: skip
    table = _table(grid, tuple(scales), exponential, pairs)
    count = len(table.factors)
    offsets, scores = _rows(offsets, count, "offsets"), _rows(scores, count, "scores")
    if offsets.shape[1] < 4 or offsets.shape[1] % 2 or not scores.shape[1] or order not in ("xywh", "yxhw"):
        raise HybridgeError(
            ErrorCode.INPUT_SHAPE,
            "detector outputs",
            received=f"{offsets.shape[1]} offsets and {scores.shape[1]} scores an anchor, order {order}",
            expected="4 offsets and 2 a keypoint, a score at least, order xywh or yxhw",
        )
    best = scores[:, 0] if scores.shape[1] == 1 else np.fmax.reduce(scores, axis=1)
    # Thresholding logits saves most sigmoids: of 896 anchors a handful is left.
    chosen = np.flatnonzero(best >= (_logit(score_threshold) if logits else score_threshold))
    placed = table.place(offsets[chosen].reshape(len(chosen), pairs, 2), chosen, order)
    sound = np.isfinite(placed).all(axis=(1, 2))
    if not sound.all():
        chosen, placed = chosen[sound], placed[sound]
    values = best[chosen].astype(np.float32)
    if logits:
        limit = min(score_limit, _LARGEST_EXPONENT)
        values = 1 / (1 + np.exp(-np.clip(values, -limit, limit)))
    classes = np.zeros(len(chosen), np.int64)
    if scores.shape[1] > 1:
        # Only classes that are numbers can be the best.
        likely = scores[chosen]
        classes = np.where(np.isnan(likely), -np.inf, likely).argmax(axis=1).astype(np.int64)
    centre, half = placed[:, 0, ::-1], placed[:, 1, ::-1]
    boxes = np.concatenate([centre - half, centre + half], axis=1)
    return {"boxes": boxes, "keypoints": placed[:, 2:], "scores": values, "classes": classes}


@dataclass(frozen=True, slots=True)
class _Table:
    """What offsets are multiplied by and added to, an anchor a row, to be pixels of the model's input.

    Attributes:
        factors: For the pairs of offsets (x, y) of an anchor: centre, half the size, keypoints; float32 of shape
            (anchors, pairs, 2).
        addends: Likewise.
        logarithm_scales: What offsets (width, height) are divided by to be logarithms, where that is what they are.
    """

    factors: Array
    addends: Array
    logarithm_scales: Array | None

    def place(self, pairs: Array, chosen: Array, order: str) -> Array:
        """Centre, half the size and keypoints of the chosen anchors, pairs (x, y) in pixels."""
        if order == "yxhw":
            pairs = pairs[:, :, ::-1]
        if self.logarithm_scales is not None:
            pairs = pairs.astype(np.float32)
            pairs[:, 1] = np.exp(np.minimum(pairs[:, 1] / self.logarithm_scales, _LARGEST_EXPONENT))
        placed: Array = np.multiply(pairs, self.factors[chosen], dtype=np.float32)
        placed += self.addends[chosen]
        return placed


@dataclass(frozen=True, slots=True)
class _Grid:
    """The settings that anchors follow from, as `decode_anchors` has them."""

    height: int
    width: int
    strides: tuple[int, ...]
    min_scale: float
    max_scale: float
    aspect_ratios: tuple[float, ...]
    interpolated: float
    reduced: bool
    fixed: bool
    offset: float

    def anchors(self) -> Array:
        """Rows (x, y, width, height) as shares of the input, float32."""
        layers = len(self.strides)
        step = (self.max_scale - self.min_scale) / max(layers - 1, 1)
        scale = [self.min_scale + step * layer for layer in range(layers)] + [1.0]
        grids = []
        layer = 0
        while layer < layers:
            stride, sizes = self.strides[layer], []
            while layer < layers and self.strides[layer] == stride:
                if layer == 0 and self.reduced:
                    pairs = [(0.1, 1.0), (scale[0], 2.0), (scale[0], 0.5)]
                else:
                    pairs = [(scale[layer], ratio) for ratio in self.aspect_ratios]
                    if self.interpolated > 0:
                        pairs.append((math.sqrt(scale[layer] * scale[layer + 1]), self.interpolated))
                sizes += [(size * math.sqrt(ratio), size / math.sqrt(ratio)) for size, ratio in pairs]
                layer += 1
            rows, columns = math.ceil(self.height / stride), math.ceil(self.width / stride)
            y, x = np.mgrid[:rows, :columns]
            grid = np.empty((rows, columns, len(sizes), 4), np.float32)
            grid[..., 0] = ((x + self.offset) / columns)[..., np.newaxis]
            grid[..., 1] = ((y + self.offset) / rows)[..., np.newaxis]
            grid[..., 2:] = 1.0 if self.fixed else sizes
            grids.append(grid.reshape(-1, 4))
        return np.concatenate(grids)


@lru_cache(maxsize=8)
def _table(grid: _Grid, scales: tuple[float, ...], exponential: bool, pairs: int) -> _Table:
    anchors, pairs = grid.anchors(), max(pairs, 2)
    size = np.array([grid.width, grid.height], np.float32)
    sizes = anchors[:, 2:] * size
    of_point, of_extent = np.asarray(scales[:2], np.float32), np.asarray(scales[2:], np.float32)
    factors = np.repeat((sizes / of_point)[:, np.newaxis], pairs, axis=1)
    addends = np.repeat((anchors[:, :2] * size)[:, np.newaxis], pairs, axis=1)
    factors[:, 1] = sizes / 2 if exponential else sizes / of_extent / 2
    addends[:, 1] = 0
    return _Table(factors, addends, of_extent if exponential else None)


def _rows(output: Array, anchors: int, name: str) -> Array:
    if output.ndim < 2 or output.shape[-2] != anchors or output.size != anchors * output.shape[-1]:
        raise HybridgeError(
            ErrorCode.INPUT_SHAPE,
            name,
            received=f"shape {output.shape}",
            expected=f"({anchors}, values): a row for each anchor, as height, width, strides and ratios make them",
        )
    return output.reshape(anchors, output.shape[-1])


def _logit(probability: float) -> float:
    if probability <= 0:
        return -math.inf
    return math.log(probability / (1 - probability)) if probability < 1 else math.inf
