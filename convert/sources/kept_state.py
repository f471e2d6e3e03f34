"""Models that remember from run to run, and the converter making one of a model that does not.

`tf_keras` marks the body of its LSTM and GRU as what they compute, and the converter replaces a marked LSTM by
UNIDIRECTIONAL_SEQUENCE_LSTM, whose states are variable tensors that nobody sets back: the first run is right, and each
later one begins where the last ended. Without the mark it becomes a loop, which begins at zero.
"""

from __future__ import annotations

import re
from typing import Any

from convert.quantization.flatbuffer import schema
from convert.sources.saved_graph import change_functions
from edge_runtime.errors import ErrorCode, HybridgeError

__all__ = ["check_stateless", "is_marked", "refuse_state", "remove_marks"]

# How TensorFlow names operators that change a variable.
_ASSIGNING = re.compile(
    r"Assign\w*VariableOp|Resource(Apply|Scatter|StridedSliceAssign)\w*|StatefulRandom\w*|RngSkip"
)
_MARKS = ("api_implements", "api_preferred_device")


def check_stateless(operators: frozenset[str], name: str) -> None:
    """Refuses a function that changes variables.

    Args:
        operators: TensorFlow's names of what it computes with.
        name: What to call the model in errors.

    Raises:
        HybridgeError: `source-invalid`.
    """
    if changing := sorted(filter(_ASSIGNING.fullmatch, operators)):
        raise HybridgeError(
            ErrorCode.SOURCE_INVALID,
            f"source model '{name}'",
            received=f"a model that changes its variables as it runs ({', '.join(changing)})",
            expected="a model whose outputs depend on its inputs alone",
            fix="make the state an input and an output of it, such as the states of a recurrent layer",
        )


def is_marked(definition: Any) -> bool:
    """Whether a `GraphDef` has functions that the converter would replace."""
    return any(mark in function.attr for function in definition.library.function for mark in _MARKS)


def remove_marks(folder: str) -> None:
    """Removes the marks from a saved model, in place."""

    def remove(library: Any) -> None:
        for function in library.function:
            for marked in (function, *function.node_def):
                for mark in _MARKS:
                    marked.attr.pop(mark, None)

    change_functions(folder, remove)


def refuse_state(content: bytes, name: str) -> None:
    """The hard check of what was converted.

    Raises:
        HybridgeError: `conversion-failed` for a file with tensors that keep their values.
    """
    model = schema().Model.GetRootAs(content, 0)
    graphs = map(model.Subgraphs, range(model.SubgraphsLength()))
    if any(graph.Tensors(index).IsVariable() for graph in graphs for index in range(graph.TensorsLength())):
        raise HybridgeError(
            ErrorCode.CONVERSION_FAILED,
            f"source model '{name}'",
            received="a layer that the TFLite converter makes remember its state from run to run",
            expected="a model whose outputs depend on its inputs alone",
            fix="save it with Keras 3, or unroll its recurrent layers (unroll=True)",
        )
