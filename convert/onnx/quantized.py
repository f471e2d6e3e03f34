"""Operators that move quantised elements without computing with them.

`Reshape`, `MaxPool` or `Concat` between a `QuantizeLinear` and its `DequantizeLinear` give the same on integers and on
what they stand for. Both are computed, and the device is left with the one that is read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from convert.onnx.node import Node
from convert.onnx.value import Value

__all__ = ["carry_real"]

_MOVES = frozenset(
    "Concat DepthToSpace Expand Flatten Gather GatherElements GatherND Identity MaxPool Pad Reshape Slice "
    "SpaceToDepth Split Squeeze Tile Transpose Unsqueeze".split()
)


def carry_real(
    node: Node,
    inputs: Sequence[Value | None],
    outputs: Sequence[Value | None],
    compute: Callable[[Sequence[Value | None]], Sequence[Value | None]],
) -> None:
    """Gives quantised outputs the real numbers that they stand for, where the node only moves elements.

    Args:
        node: The node.
        inputs: Its inputs.
        outputs: What it makes of them.
        compute: Computes the node on other inputs.
    """
    if node.domain or node.operator not in _MOVES or not inputs or inputs[0] is None:
        return
    first = inputs[0]
    grid, dtype = first.grid, first.dtype
    if grid is None or grid.axis is not None:
        return
    if first.array is not None and dtype.kind == "f":
        for output in outputs:
            if output is not None and output.array is not None and output.dtype == dtype and _alone(node):
                output.grid = grid
        return
    reals: list[Value | None] = []
    for value in inputs:
        if value is None or value.dtype != dtype:
            reals.append(value)
        elif value.real is not None and value.grid == grid:
            reals.append(value.real)
        elif value.array is not None and value.real is None:
            reals.append(Value.constant(grid.real(value.array), grid=grid))
        else:
            return
    if node.operator == "Pad" and len(reals) < 3:
        if grid.zero_point.any():  # edges are filled with the integer 0
            return
    for output, real in zip(outputs, compute(reals), strict=True):
        if output is not None and real is not None:
            output.grid, output.real = grid, real


def _alone(node: Node) -> bool:
    return node.operator not in ("Concat", "Pad")
