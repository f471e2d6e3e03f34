"""A fault of the TFLite converter that silently drops an activation, and the way around it.

A product of two matrices becomes FULLY_CONNECTED, into which a following relu (relu6, relu_n1_to_1, or a maximum with
zero) is folded when there is no bias or a constant zero one. Where the second matrix is no constant, the transposition
that FULLY_CONNECTED needs is folded next, and the two become BATCH_MATMUL, which has no activation: it is gone, and the
outputs are wrong without a word. TensorFlow 2.21 does so for

- two tensors that are computed, such as keys and queries without a batch dimension, or weights that another
  network makes;
- a weight in a variable that the same signature assigns, and which therefore cannot be frozen.

Frozen weights are safe: their transposition is a constant. Products of three or more dimensions are safe too, since
they never become FULLY_CONNECTED; so the product is written as one of three dimensions and converted again.
"""

from __future__ import annotations

from typing import Any

from convert.libraries import load_library
from convert.quantization.flatbuffer import builtin_names, schema
from convert.sources.saved_graph import change_functions
from edge_runtime.errors import ErrorCode, HybridgeError

__all__ = ["RECTIFIERS", "has_suspects", "lift_products", "refuse_suspects"]

# Operators of TensorFlow that can become the activation which is lost.
RECTIFIERS = frozenset({"Relu", "Relu6", "Maximum", "Minimum", "ClipByValue"})

# A second matrix that is read from one of these is frozen.
_FROZEN = ("Const", "ReadVariableOp")


def has_suspects(content: bytes) -> bool:
    """Whether a `.tflite` has a product of two matrices in the form that may have lost its activation."""
    model = schema().Model.GetRootAs(content, 0)
    codes = [model.OperatorCodes(index) for index in range(model.OperatorCodesLength())]
    names = [builtin_names()[max(code.BuiltinCode(), code.DeprecatedBuiltinCode())] for code in codes]
    if "BATCH_MATMUL" not in names:
        return False
    return any(
        names[operator.OpcodeIndex()] == "BATCH_MATMUL"
        and all(graph.Tensors(operator.Inputs(side)).ShapeLength() == 2 for side in (0, 1))
        for graph in map(model.Subgraphs, range(model.SubgraphsLength()))
        for operator in map(graph.Operators, range(graph.OperatorsLength()))
    )


def refuse_suspects(content: bytes, name: str) -> None:
    """The hard check of what was converted.

    Raises:
        HybridgeError: `conversion-failed` for a file with such a product.
    """
    if has_suspects(content):
        raise HybridgeError(
            ErrorCode.CONVERSION_FAILED,
            f"source model '{name}'",
            received="a product of two computed matrices, whose relu the TFLite converter loses without a word",
            expected="matrices with a batch dimension, or weights that are frozen",
            fix="write it as tf.matmul(a[None], b[None])[0], or give the product a bias that is not zero",
        )


def lift_products(folder: str) -> None:
    """Writes the products of computed matrices in a saved model with a third dimension of size one.

    Args:
        folder: The saved model, changed in place.
    """

    def lift(library: Any) -> None:
        added: dict[str, Any] = {}
        for function in library.function:
            _lift(function, added)
        library.function.extend(added.values())

    change_functions(folder, lift)


def _lift(function: Any, added: dict[str, Any]) -> None:
    nodes = {node.name: node for node in function.node_def}
    lifted: dict[str, str] = {}
    for node in function.node_def:
        if node.op != "MatMul" or _is_frozen(node.input[1], nodes):
            continue
        dtype, sides = node.attr["T"].type, (node.attr["transpose_a"].b, node.attr["transpose_b"].b)
        definition = _lifted_product(dtype, *sides)
        added[definition.signature.name] = definition
        lifted[f"{node.name}:product:0"] = f"{node.name}:output:0"
        node.op = "PartitionedCall"
        node.attr.clear()
        node.attr["Tin"].list.type.extend([dtype, dtype])
        node.attr["Tout"].list.type.append(dtype)
        node.attr["f"].func.name = definition.signature.name
    for node in function.node_def:
        node.input[:] = [lifted.get(each, each) for each in node.input]
    for key, value in function.ret.items():
        function.ret[key] = lifted.get(value, value)


def _is_frozen(tensor: str, nodes: dict[str, Any]) -> bool:
    node = nodes.get(tensor.partition(":")[0])
    while node is not None and node.op in ("Identity", "Cast"):
        node = nodes.get(node.input[0].partition(":")[0])
    return node is not None and node.op in _FROZEN


def _lifted_product(dtype: int, transpose_a: bool, transpose_b: bool) -> Any:
    tensorflow = load_library("tensorflow")
    matrix = tensorflow.TensorSpec((None, None), tensorflow.dtypes.as_dtype(dtype))

    @tensorflow.function(input_signature=[matrix, matrix], autograph=False)  # type: ignore[untyped-decorator]
    def lifted_product(a: Any, b: Any) -> Any:
        a, b = tensorflow.expand_dims(a, 0), tensorflow.expand_dims(b, 0)
        product = tensorflow.raw_ops.BatchMatMulV2(x=a, y=b, adj_x=transpose_a, adj_y=transpose_b)
        return tensorflow.squeeze(product, [0])

    return lifted_product.get_concrete_function().function_def
