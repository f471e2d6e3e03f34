"""How many elements are added around the spatial axes of convolutions and pools."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from convert.onnx.node import Node

__all__ = ["Pads", "pads_of", "same_pads"]

# Before and after, for each spatial axis.
Pads: TypeAlias = list[tuple[int, int]]


def same_pads(
    sizes: Sequence[int | None], kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int]
) -> Pads | None:
    """What TensorFlow's SAME adds, the larger half after; None where it depends on a size that is not known."""
    pads = []
    for size, taps, stride, dilation in zip(sizes, kernel, strides, dilations, strict=True):
        reach = (taps - 1) * dilation + 1
        if size is None and stride != 1:
            return None
        rest = stride if size is None or size % stride == 0 else size % stride
        total = max(reach - rest, 0)
        pads.append((total // 2, total - total // 2))
    return pads


def pads_of(
    node: Node,
    sizes: Sequence[int | None],
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
) -> Pads:
    """What a node's `pads` or `auto_pad` adds.

    Raises:
        ValueError: For `auto_pad` with a stride and a size that is not known.
    """
    automatic = node.attribute("auto_pad", "NOTSET")
    spatial = len(sizes)
    if automatic == "VALID":
        return [(0, 0)] * spatial
    if automatic.startswith("SAME"):
        pads = same_pads(sizes, kernel, strides, dilations)
        if pads is None:
            raise ValueError("auto_pad depends on a size that is not known; fix it with --input NAME:SHAPE")
        return pads if automatic == "SAME_UPPER" else [(high, low) for low, high in pads]
    flat = list(node.attribute("pads", [0] * (2 * spatial)))
    return list(zip(flat[:spatial], flat[spatial:], strict=True))
