"""An ONNX graph computed node by node as TensorFlow operators.

Traced inside a `tf.function` this gives the function that is converted. Nodes whose inputs are all constants are
computed on the way, so that the arithmetic on shapes which exporters leave behind is gone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from convert.libraries import load_library
from convert.onnx import operators as _  # noqa: F401 - registers them
from convert.onnx.carriers import carrier, element_type, from_carrier
from convert.onnx.model_file import dense
from convert.onnx.node import Body, Node, attributes_of
from convert.onnx.partial_shapes import propagated
from convert.onnx.problems import Problem, Unsupported, UnsupportedInside
from convert.onnx.quantized import carry_real, kept_apart
from convert.onnx.registry import Handler, find, folds
from convert.onnx.value import Value

__all__ = ["Importer"]

# Computing a node at conversion must not blow the file up: an Expand of one row may fill megabytes.
_FOLDED_ELEMENTS = 1 << 16
_RANDOM = (
    "RandomNormal",
    "RandomUniform",
    "RandomNormalLike",
    "RandomUniformLike",
    "Bernoulli",
    "Multinomial",
)


@dataclass(frozen=True)
class _Scope:
    """Names and what they stand for, in one graph; those of the graphs around it are seen too."""

    values: dict[str, Value | None]
    opsets: Mapping[str, int]
    attributes: Mapping[str, Any] | None = None
    types: Mapping[str, np.dtype[Any]] = field(default_factory=dict)
    outer: _Scope | None = None

    def find(self, name: str) -> Value | None:
        if name in self.values or self.outer is None:
            return self.values[name]
        return self.outer.find(name)


class Importer:
    """Computes the graph of an ONNX model.

    Args:
        model: A checked `onnx.ModelProto` whose weights are all inside it, with inferred types where there are any.

    Attributes:
        problems: What could not be imported, after a call.
    """

    def __init__(self, model: Any):
        self._model = model
        self._opsets = {_domain(each.domain): each.version for each in model.opset_import}
        self._functions = {(_domain(each.domain), each.name): each for each in model.functions}
        self.problems: list[Problem] = []

    def __call__(self, inputs: Mapping[str, Value]) -> list[Value | None]:
        """Values of the graph's outputs, in order; None for one that a problem keeps from being computed."""
        self.problems = []
        scope = _Scope(dict(inputs), self._opsets)
        return self._graph(self._model.graph, scope)

    def _graph(self, graph: Any, scope: _Scope) -> list[Value | None]:
        numpy_helper = load_library("onnx").numpy_helper
        types = {
            each.name: element_type(each.type.tensor_type.elem_type)
            for each in (*graph.value_info, *graph.output)
            if each.type.HasField("tensor_type") and each.type.tensor_type.elem_type
        }
        scope = _Scope(scope.values, scope.opsets, scope.attributes, types, scope.outer)
        for initializer in graph.initializer:
            scope.values.setdefault(initializer.name, Value.constant(numpy_helper.to_array(initializer)))
        for sparse in graph.sparse_initializer:
            scope.values.setdefault(sparse.values.name, Value.constant(dense(sparse)))
        return self._nodes(graph.node, [each.name for each in graph.output], scope)

    def _nodes(self, nodes: Any, outputs: Sequence[str], scope: _Scope) -> list[Value | None]:
        for node in nodes:
            self._node(node, scope)
        return [scope.find(name) for name in outputs]

    def _node(self, proto: Any, scope: _Scope) -> None:
        node = self._described(proto, scope)
        inputs = [scope.find(name) if name else None for name in proto.input]
        if any(name and value is None for name, value in zip(proto.input, inputs, strict=True)):
            # What it needs is among the problems already; that nobody knows its operator is one of its own.
            results: list[Value | None] = [None] * len(proto.output)
            self._check_known(node, proto)
        else:
            results = self._attempted(node, proto, inputs, scope)
        for name, value in zip(proto.output, results, strict=False):
            if name:
                scope.values[name] = value
        for name in proto.output[len(results) :]:
            scope.values[name] = None

    def _check_known(self, node: Node, proto: Any) -> None:
        own = (node.domain, node.operator) in self._functions
        if own or find(node.domain, node.operator, node.version):
            return
        try:
            self._function(node, proto, [])
        except Unsupported as unsupported:
            self.problems.append(_problem(node, unsupported.reason, unsupported.fix))

    def _attempted(
        self, node: Node, proto: Any, inputs: list[Value | None], scope: _Scope
    ) -> list[Value | None]:
        known = len(self.problems)
        try:
            return list(self._computed(node, proto, inputs, scope))
        except UnsupportedInside as unsupported:
            self.problems.extend(unsupported.problems)
            return [None] * len(node.outputs)
        except Unsupported as unsupported:
            reason, fix = unsupported.reason, unsupported.fix
        except Exception as error:
            # TensorFlow and numpy raise what they like for shapes and types that do not go together.
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            reason = f"{type(error).__name__}: {lines[0] if lines else 'no message'}"
            fix = "check shapes and types of its inputs"
        if (
            len(self.problems) == known
        ):  # else a node inside it, in a function or a branch, is the one to name
            self.problems.append(_problem(node, reason, fix))
        return [None] * len(node.outputs)

    def _computed(
        self, node: Node, proto: Any, inputs: list[Value | None], scope: _Scope
    ) -> Sequence[Value | None]:
        handler = None
        if (node.domain, node.operator) not in self._functions:
            handler = find(node.domain, node.operator, node.version)
        if handler is None:
            return self._expanded(node, proto, inputs, scope)
        constant = all(value is None or value.is_constant for value in inputs)
        if (
            constant
            and folds(node.domain, node.operator)
            and not node.bodies
            and node.operator not in _RANDOM
        ):
            folded = self._folded(handler, node, inputs)
            if folded is not None:
                carry_real(node, inputs, folded, lambda reals: _as_values(handler(node, *reals), node, reals))
                return folded
        known = propagated(node, inputs)
        if known is not None:
            return [known]
        tensorflow = load_library("tensorflow")
        # The converter names operators it cannot convert by their scope.
        with tensorflow.name_scope(re.sub(r"[^A-Za-z0-9_.]", "_", node.name).lstrip("_.") or "node"):
            inputs = list(kept_apart(node, inputs))
            values = _as_values(handler(node, *inputs), node, inputs)
            carry_real(node, inputs, values, lambda reals: _as_values(handler(node, *reals), node, reals))
            return values

    def _folded(self, handler: Handler, node: Node, inputs: list[Value | None]) -> list[Value | None] | None:
        with load_library("tensorflow").init_scope():
            values = _as_values(handler(node, *inputs), node, inputs)
            given = sum(value.array.size for value in inputs if value is not None and value.array is not None)
            made = sum(_elements(value) for value in values if value is not None)
            if made > max(_FOLDED_ELEMENTS, 4 * given):
                return None
            return [None if value is None else _evaluated(value) for value in values]

    def _expanded(
        self, node: Node, proto: Any, inputs: list[Value | None], scope: _Scope
    ) -> list[Value | None]:
        """Computes a node by the body of its function: the model's own, or the one that ONNX defines it by."""
        function, defaults = self._function(node, proto, inputs)
        given = {**defaults, **node.attributes}
        opsets = {**scope.opsets, **{_domain(each.domain): each.version for each in function.opset_import}}
        values: dict[str, Value | None] = dict.fromkeys(function.input)
        values.update(zip(function.input, inputs, strict=False))
        # An input that is left out is nobody's problem: inside, its name stands for nothing.
        left_out = {name for name in function.input if values[name] is None}
        inner = _Scope(values, opsets, given)
        for each in function.node:
            clean = each
            if left_out & set(each.input):
                clean = type(each)()
                clean.CopyFrom(each)
                clean.input[:] = ["" if name in left_out else name for name in each.input]
            self._node(clean, inner)
        # A body that ONNX writes for one node leaves out what the node does not return.
        return [inner.values.get(name) for name in function.output]

    def _function(self, node: Node, proto: Any, inputs: list[Value | None]) -> tuple[Any, dict[str, Any]]:
        onnx = load_library("onnx")
        function = self._functions.get((node.domain, node.operator))
        if function is not None:
            holder = onnx.NodeProto(attribute=function.attribute_proto)
            return function, attributes_of(holder)
        try:
            schema = onnx.defs.get_schema(node.operator, node.version, node.domain)
        except onnx.defs.SchemaError:
            raise Unsupported(
                f"no such operator in version {node.version} of the operator set "
                f"'{node.domain or 'ai.onnx'}'",
                "export the model with ONNX's own operators, or with the operator as a function in the file",
            ) from None
        defaults = {
            name: attribute
            for name, each in schema.attributes.items()
            if each.default_value.name
            for attribute in attributes_of(onnx.NodeProto(attribute=[each.default_value])).values()
        }
        body = None
        if schema.has_context_dependent_function:
            types = [
                onnx.helper.make_tensor_type_proto(
                    onnx.helper.np_dtype_to_tensor_dtype(value.dtype), value.shape
                ).SerializeToString()
                if value is not None
                else b""
                for value in inputs
            ]
            versions = schema.context_dependent_function_opset_versions
            version = max((each for each in versions if each <= node.version), default=max(versions))
            body = schema.get_context_dependent_function_with_opset_version(
                version, _resolved(proto, node.attributes).SerializeToString(), types
            )
        elif schema.has_function:
            versions = schema.function_opset_versions
            version = max((each for each in versions if each <= node.version), default=max(versions))
            body = schema.get_function_with_opset_version(version)
        if not body:
            raise Unsupported(
                "the importer does not know this operator",
                "replace it in the model by operators that are known, or leave that part to a chain's operator",
            )
        return onnx.FunctionProto.FromString(body), defaults

    def _described(self, proto: Any, scope: _Scope) -> Node:
        domain = _domain(proto.domain)
        attributes = attributes_of(proto, scope.attributes)
        graph_type = load_library("onnx").GraphProto
        bodies = {
            name: self._body(value, scope)
            for name, value in attributes.items()
            if isinstance(value, graph_type)
        }
        return Node(
            operator=proto.op_type,
            domain=domain,
            version=scope.opsets.get(domain, 1),
            name=proto.name or next((name for name in proto.output if name), proto.op_type),
            inputs=tuple(proto.input),
            outputs=tuple(proto.output),
            attributes=attributes,
            dtypes=tuple(scope.types.get(name) for name in proto.output),
            bodies=bodies,
        )

    def _body(self, graph: Any, scope: _Scope) -> Body:
        def run(inputs: Sequence[Value]) -> list[Value]:
            names = [each.name for each in graph.input]
            inner = _Scope(
                dict(zip(names, inputs, strict=False)), scope.opsets, scope.attributes, outer=scope
            )
            known = len(self.problems)
            outputs = self._graph(graph, inner)
            if inside := self.problems[known:]:
                # Whoever runs the body may have another way to run it; else the problems become known again.
                del self.problems[known:]
                raise UnsupportedInside(inside)
            return [value for value in outputs if value is not None]

        return run


def _problem(node: Node, reason: str, fix: str) -> Problem:
    operator = f"{node.domain}.{node.operator}" if node.domain else node.operator
    return Problem(operator, node.name, reason, fix)


def _resolved(proto: Any, attributes: Mapping[str, Any]) -> Any:
    """A node whose references to attributes of the function around it are replaced by what they stand for."""
    if not any(each.ref_attr_name for each in proto.attribute):
        return proto
    resolved = type(proto)()
    resolved.CopyFrom(proto)
    del resolved.attribute[:]
    for each in proto.attribute:
        if not each.ref_attr_name:
            resolved.attribute.append(each)
        elif each.name in attributes:
            make = load_library("onnx").helper.make_attribute
            resolved.attribute.append(make(each.name, attributes[each.name]))
    return resolved


def _domain(domain: str) -> str:
    return "" if domain == "ai.onnx" else domain


def _as_values(results: Any, node: Node, inputs: Sequence[Value | None]) -> list[Value | None]:
    listed = results if isinstance(results, list | tuple) else [results]
    values: list[Value | None] = []
    for index, result in enumerate(listed):
        if result is None or isinstance(result, Value):
            values.append(result)
        else:
            said = node.dtypes[index] if index < len(node.dtypes) else None
            values.append(Value.of(result, _result_type(result, said, inputs)))
    return values


def _result_type(tensor: Any, said: np.dtype[Any] | None, inputs: Sequence[Value | None]) -> np.dtype[Any]:
    """The type of a result that is given as a bare tensor: what the graph says, else that of the first input."""
    candidates = [said, *(value.dtype for value in inputs if value is not None)]
    for dtype in candidates[:2]:
        if dtype is not None and carrier(dtype) == tensor.dtype.name:
            return dtype
    natural: np.dtype[Any] = np.dtype(tensor.dtype.as_numpy_dtype)
    return natural


def _elements(value: Value) -> int:
    return int(np.prod([size or 0 for size in value.shape]))


def _evaluated(value: Value) -> Value:
    if value.array is not None:
        return value
    return Value.constant(from_carrier(np.asarray(value.tensor), value.dtype))
