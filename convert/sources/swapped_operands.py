"""A fault of the TFLite converter that swaps the operands of differences and quotients, and the way around it.

The converter pushes transpositions behind elementwise operators, so that they meet and cancel. Where the other operand
is a constant, it puts the transposed one first on the way, whatever their order was: ``1 - transpose(x)`` becomes
``transpose(x - 1)``, and a reciprocal of a transposed tensor becomes the tensor itself. TensorFlow 2.21 does so in
`PushTransposeThroughEwisePass`, also through what lies between the two, and where a sum with a negative is such a
difference; outputs are wrong without a word.

Such differences are written with the constant second and negated, and such quotients as products with a reciprocal that
is computed in another shape, through which nothing is pushed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from convert.libraries import load_library
from convert.sources.saved_graph import change_functions

__all__ = ["keep_operands", "may_swap"]

_DIVISIONS = frozenset({"RealDiv", "Div", "TruncateDiv"})
_AFFECTED = _DIVISIONS | {"Sub", "Neg", "Reciprocal", "Inv"}

# What gives a constant whatever it is given.
_OF_SHAPES = frozenset({"Shape", "ShapeN", "Size", "Rank", "ZerosLike", "OnesLike"})
# Nothing is pushed through these.
_BARRIERS = frozenset(
    {
        *("Conv2D", "Conv3D", "DepthwiseConv2dNative", "Conv2DBackpropInput", "Conv3DBackpropInputV2"),
        *("MatMul", "BatchMatMul", "BatchMatMulV2", "BatchMatMulV3", "Einsum", "Softmax", "LogSoftmax"),
        *("MaxPool", "AvgPool", "Sum", "Mean", "Max", "Min", "Prod", "ArgMax", "ArgMin", "TopKV2"),
        *("ConcatV2", "GatherV2", "GatherNd", "ResizeBilinear", "ResizeNearestNeighbor"),
    }
)


def may_swap(operators: frozenset[str]) -> bool:
    """Whether a graph of these operators can be concerned."""
    return "Transpose" in operators and bool(operators & _AFFECTED)


def keep_operands(folder: str) -> None:
    """Writes what the converter would swap in a saved model in a form that it does not.

    Args:
        folder: The saved model, changed in place.
    """

    def change(library: Any) -> None:
        added: dict[str, Any] = {}
        for function in library.function:
            _keep(function, added)
        library.function.extend(added.values())

    change_functions(folder, change)


def _keep(function: Any, added: dict[str, Any]) -> None:
    nodes = {node.name: node for node in function.node_def}
    constants: dict[str, bool] = {}
    transposed: dict[str, bool] = {}
    # A negative counts where it is added to a constant; elsewhere it may be part of what becomes GELU.
    added_to = {
        each.partition(":")[0]
        for node in function.node_def
        if node.op in ("Add", "AddV2")
        for each, other in (node.input[:2], node.input[1::-1])
        if _is_constant(other, nodes, constants)
    }

    def is_concerned(node: Any) -> bool:
        *first, last = _data(node)
        return (
            (node.op != "Neg" or node.name in added_to)
            and all(_is_constant(each, nodes, constants) for each in first)
            and _reaches_transposition(last, nodes, transposed)
        )

    concerned = [node for node in function.node_def if node.op in _AFFECTED and is_concerned(node)]
    renamed = {}
    for node in concerned:
        dtype, inputs = node.attr["T"].type, len(_data(node))
        definition = _safe(node.op, dtype)
        added[definition.signature.name] = definition
        for output in ("z", "y"):  # of operators with two operands and with one
            renamed[f"{node.name}:{output}:0"] = f"{node.name}:output:0"
        node.op = "PartitionedCall"
        node.attr.clear()
        node.attr["Tin"].list.type.extend([dtype] * inputs)
        node.attr["Tout"].list.type.append(dtype)
        node.attr["f"].func.name = definition.signature.name
    for node in function.node_def:
        node.input[:] = [renamed.get(each, each) for each in node.input]
    for key, value in function.ret.items():
        function.ret[key] = renamed.get(value, value)


def _data(node: Any) -> list[str]:
    return [each for each in node.input if not each.startswith("^")]


def _is_constant(tensor: str, nodes: Mapping[str, Any], known: dict[str, bool]) -> bool:
    return _decided(
        tensor,
        nodes,
        known,
        lambda node: (
            True
            if node is not None and node.op in (*_OF_SHAPES, "Const", "ReadVariableOp")
            else False
            if node is None or not _data(node)
            else None
        ),
        all,
    )


def _reaches_transposition(tensor: str, nodes: Mapping[str, Any], known: dict[str, bool]) -> bool:
    # What a function is given may be transposed where it is called.
    return _decided(
        tensor,
        nodes,
        known,
        lambda node: (
            True if node is None or node.op == "Transpose" else False if node.op in _BARRIERS else None
        ),
        any,
    )


def _decided(
    tensor: str,
    nodes: Mapping[str, Any],
    known: dict[str, bool],
    decide: Callable[[Any], bool | None],
    combine: Callable[[list[bool]], bool],
) -> bool:
    """What is decided for a tensor by the node that it comes from, or else from that node's own inputs."""
    waiting = [tensor.partition(":")[0]]
    while waiting:
        name = waiting[-1]
        node = nodes.get(name)
        decision = decide(node)
        inputs = [] if node is None else [each.partition(":")[0] for each in _data(node)]
        missing = [] if decision is not None else [each for each in inputs if each not in known]
        if missing and name not in known:
            known[name] = False  # ends a cycle, of which a function has none
            waiting.extend(missing)
            continue
        known[name] = decision if decision is not None else combine([known[each] for each in inputs])
        waiting.pop()
    return known[tensor.partition(":")[0]]


def _safe(kind: str, dtype: int) -> Any:
    tensorflow = load_library("tensorflow")
    element = tensorflow.dtypes.as_dtype(dtype)
    tensor = tensorflow.TensorSpec(None, element)

    def reciprocal(x: Any) -> Any:
        flat = tensorflow.reshape(x, [-1])
        return tensorflow.reshape(tensorflow.ones((), element) / flat, tensorflow.shape(x))

    def negative(x: Any) -> Any:
        return x * tensorflow.constant(-1, element)

    def difference(a: Any, b: Any) -> Any:
        return tensorflow.negative(b - a)

    def quotient(a: Any, b: Any) -> Any:
        if element.is_floating:
            return a * reciprocal(b)
        # FLOOR_DIV is not among what transpositions are pushed through.
        size = tensorflow.math.floordiv(tensorflow.maximum(a, -a), tensorflow.maximum(b, -b))
        return tensorflow.where(tensorflow.equal(a < 0, b < 0), size, -size)

    forms = {"Sub": difference, "Neg": negative, "Reciprocal": reciprocal, "Inv": reciprocal}
    form = forms.get(kind, quotient)
    signature = [tensor] * (1 if kind in ("Neg", "Reciprocal", "Inv") else 2)
    traced = tensorflow.function(form, input_signature=signature, autograph=False)
    return traced.get_concrete_function().function_def
