"""One node of an ONNX graph, as the importers of operators see it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

from convert.libraries import load_library
from convert.onnx.problems import Unsupported
from convert.onnx.value import Value

__all__ = ["Body", "Node"]

# A branch of an If or the body of a Loop or Scan: values for its inputs in, values of its outputs out.
Body: TypeAlias = Callable[[Sequence[Value]], list[Value]]


@dataclass(frozen=True)
class Node:
    """An operator's name, version and attributes.

    Attributes:
        operator: Name of the operator.
        domain: Of its operator set; empty for ONNX's own.
        version: Of the operator set, as the model imports it.
        name: Of the node, or of its first output.
        inputs: Names of its inputs; empty for one that is left out.
        outputs: Names of its outputs; empty for one that nobody reads.
        dtypes: Types of its outputs, where the graph says them.
        bodies: Its subgraphs, by attribute.
    """

    operator: str
    domain: str
    version: int
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]
    dtypes: tuple[np.dtype[Any] | None, ...] = ()
    bodies: Mapping[str, Body] = field(default_factory=dict)

    def attribute(self, name: str, default: Any = None) -> Any:
        """Value of an attribute: a number, text, a list of them, or a numpy array for a tensor."""
        return self.attributes.get(name, default)

    def known(self, value: Value | None, what: str) -> list[int]:
        """The integers of an input that must be a constant.

        Raises:
            Unsupported: For one that is computed.
        """
        return [int(each) for each in self.constant(value, what).reshape(-1)]

    def constant(self, value: Value | None, what: str) -> np.ndarray[Any, Any]:
        """The values of an input that must be a constant.

        Raises:
            Unsupported: For one that is computed.
        """
        if value is None or value.array is None:
            raise Unsupported(
                f"its {what} is computed as the model runs",
                f"make the {what} a constant, with an initializer or by fixing the input that it depends on",
            )
        return value.array


def attributes_of(node: Any, given: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The attributes of a node as plain values; subgraphs stay as they are.

    Args:
        node: The node.
        given: Values for references to the attributes of the function that the node is part of.
    """
    onnx = load_library("onnx")
    result: dict[str, Any] = {}
    for attribute in node.attribute:
        if attribute.ref_attr_name:
            if given is not None and attribute.ref_attr_name in given:
                result[attribute.name] = given[attribute.ref_attr_name]
            continue
        value = onnx.helper.get_attribute_value(attribute)
        if isinstance(value, bytes):
            value = value.decode("utf-8", "replace")
        elif isinstance(value, onnx.TensorProto):
            value = onnx.numpy_helper.to_array(value)
        elif attribute.type == onnx.AttributeProto.STRINGS:
            value = [each.decode("utf-8", "replace") for each in value]
        elif isinstance(value, Sequence) and not isinstance(value, str):
            value = list(value)
        result[attribute.name] = value
    return result
