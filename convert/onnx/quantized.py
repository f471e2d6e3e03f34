"""Which operators of a graph compute on integers, and which on real numbers.

An operator is quantised where all its operands come out of a `DequantizeLinear` and its result goes into a
`QuantizeLinear`. `Reshape`, `MaxPool` or `Concat` between a `QuantizeLinear` and its `DequantizeLinear` move elements
without computing: they give the same on integers and on what they stand for. Both are computed, and the device is left
with the one that is read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from convert.onnx.grid import apart, is_on_grid
from convert.onnx.node import Node
from convert.onnx.value import Value

__all__ = ["carry_real", "kept_apart"]

_MOVES = frozenset(
    {
        "Concat",
        "DepthToSpace",
        "Expand",
        "Flatten",
        "Gather",
        "GatherElements",
        "GatherND",
        "Identity",
        "MaxPool",
        "Pad",
        "Reshape",
        "Slice",
        "SpaceToDepth",
        "Split",
        "Squeeze",
        "Tile",
        "Transpose",
        "Unsqueeze",
    }
)

# The integers of several operands, and of the result, have one scale.
_CHOOSES = frozenset({"Clip", "Concat", "Max", "Min", "Pad", "Where"})

# Operators whose second operand, or either of them, the converter would quantise on its own.
_WEIGHTED = frozenset({"Add", "Conv", "ConvTranspose", "Div", "Gemm", "MatMul", "Mul", "PRelu", "Sub"})


def kept_apart(node: Node, inputs: Sequence[Value | None]) -> Sequence[Value | None]:
    """The inputs of a node, behind a boundary where the converter must not give grids of some of them to others.

    A `QuantizeLinear` after it takes the boundary away again, where there is one grid for all.
    """
    if node.domain or not _has_boundary(node, inputs):
        return inputs
    return [
        value.like(apart(value.flat))
        if value is not None and value.array is None and value.dtype.kind == "f" and is_on_grid(value.flat)
        else value
        for value in inputs
    ]


def _has_boundary(node: Node, inputs: Sequence[Value | None]) -> bool:
    if node.operator in _CHOOSES:
        return len(inputs) > 1
    # Single numbers are the same on a grid of their own.
    return node.operator in _WEIGHTED and any(
        value is not None and value.array is not None and value.grid is None and value.array.size > 1
        for value in inputs[:2]
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
    if node.operator == "Pad" and len(reals) < 3 and grid.zero_point.any():
        return  # edges are filled with the integer 0
    for output, real in zip(outputs, compute(reals), strict=True):
        if output is not None and real is not None:
            output.grid, output.real = grid, real


def _alone(node: Node) -> bool:
    return node.operator not in ("Concat", "Pad")
