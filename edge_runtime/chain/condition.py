"""Conditions of stages: ``when = "len(boxes) > 0 and confidence('detect') < 0.9"``.

A small part of Python's expressions, read once and evaluated without `eval`: names of tensors, numbers and texts,
``+ - * / %``, comparisons, ``in``, ``and``, ``or``, ``not``, and the functions

- ``len(x)``: items, or the size of the first axis; ``max(x)``, ``min(x)``, ``mean(x)``, ``any(x)``, ``all(x)`` over all
  values, and ``min`` and ``max`` of several numbers;
- ``confidence('stage')``, ``label('stage')``, ``source('stage')``: what a stage answered;
- ``tensor('name')``: a tensor whose name is no Python name.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from edge_runtime.errors import ErrorCode, HybridgeError
from edge_runtime.prediction import StageTrace
from edge_runtime.tensor_spec import Value

__all__ = ["Condition"]

_BINARY: Mapping[type[ast.AST], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Mod: operator.mod,
}
_COMPARE: Mapping[type[ast.AST], Callable[[Any, Any], Any]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.In: lambda left, right: left in right,
    ast.NotIn: lambda left, right: left not in right,
}


def _extreme(pick: Callable[..., Any]) -> Callable[..., Any]:
    def function(*values: Any) -> Any:
        if len(values) > 1:
            return pick(values)
        numbers = np.asarray(values[0])
        # Of nothing there is no largest; a comparison with NaN is false, whichever way it is written.
        return pick(numbers.ravel().tolist()) if numbers.size else float("nan")

    return function


_FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "len": len,
    "max": _extreme(max),
    "min": _extreme(min),
    "mean": lambda value: float(np.mean(value)) if np.size(value) else float("nan"),
    "any": lambda value: bool(np.any(value)),
    "all": lambda value: bool(np.all(value)),
}
_OF_STAGES = ("confidence", "label", "source")


class Condition:
    """A condition over the tensors and answers of a run.

    Args:
        text: The condition, as this module's text says.

    Raises:
        HybridgeError: `chain-invalid` for anything else.

    Example:
        >>> Condition("len(boxes) > 0").holds({"boxes": np.zeros((2, 4))}, {})
        True
    """

    def __init__(self, text: str):
        self.text = text
        self.tensors: set[str] = set()
        self.stages: set[str] = set()
        try:
            parsed = ast.parse(text.strip(), mode="eval").body
            self._check(parsed)
        except (MemoryError, RecursionError, SyntaxError, ValueError) as error:
            # The first two are what Python makes of brackets or a `not` that repeat a thousand times.
            raise self._invalid(str(error) or "more than can be read") from error
        self._expression = parsed

    def holds(self, tensors: Mapping[str, Value], traces: Mapping[str, StageTrace]) -> bool:
        """Whether the condition is true in a run; false when a tensor or an answer that it names is not there.

        Raises:
            HybridgeError: `chain-invalid` when its parts cannot be compared.
        """
        if not self.tensors <= tensors.keys() or any(
            name not in traces or traces[name].skipped for name in self.stages
        ):
            return False
        try:
            return bool(self._value(self._expression, tensors, traces))
        except (ArithmeticError, TypeError, ValueError) as error:
            raise self._invalid(str(error)) from error

    def _check(self, node: ast.expr) -> None:
        match node:
            case ast.Constant(value=value) if isinstance(value, bool | int | float | str):
                return
            case ast.Name(id=name):
                self.tensors.add(name)
                return
            case ast.Call(func=ast.Name(id="tensor"), args=[ast.Constant(value=str(name))], keywords=[]):
                self.tensors.add(name)
                return
            case ast.Call(func=ast.Name(id=function), args=[ast.Constant(value=str(name))], keywords=[]) if (
                function in _OF_STAGES
            ):
                self.stages.add(name)
                return
            case ast.Call(func=ast.Name(id=function), args=[_, *_] as arguments, keywords=[]) if (
                function in _FUNCTIONS
            ):
                parts = arguments
            case ast.BoolOp(values=values):
                parts = values
            case ast.UnaryOp(op=ast.Not() | ast.USub(), operand=operand):
                parts = [operand]
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
                parts = [left, right]
            case ast.Compare(left=left, ops=ops, comparators=comparators) if all(
                type(op) in _COMPARE for op in ops
            ):
                parts = [left, *comparators]
            case ast.Tuple(elts=elements) | ast.List(elts=elements):
                parts = elements
            case _:
                raise self._invalid(f"'{ast.unparse(node)}', which conditions do not have")
        for part in parts:
            self._check(part)

    def _value(self, node: ast.expr, tensors: Mapping[str, Value], traces: Mapping[str, StageTrace]) -> Any:
        def of(part: ast.expr) -> Any:
            return self._value(part, tensors, traces)

        match node:
            case ast.Constant(value=value):
                return value
            case ast.Name(id=name):
                return _plain(tensors[name])
            case ast.Call(func=ast.Name(id="tensor"), args=[ast.Constant(value=name)]):
                return _plain(tensors[str(name)])
            case ast.Call(func=ast.Name(id=function), args=[ast.Constant(value=name)]) if (
                function in _OF_STAGES
            ):
                answer = getattr(traces[str(name)], function)
                if answer is None:
                    return float("nan") if function == "confidence" else ""
                return answer
            case ast.Call(func=ast.Name(id=function), args=arguments):
                return _FUNCTIONS[function](*map(of, arguments))
            case ast.BoolOp(op=op, values=values):
                return all(map(of, values)) if isinstance(op, ast.And) else any(map(of, values))
            case ast.UnaryOp(op=op, operand=operand):
                return not of(operand) if isinstance(op, ast.Not) else -of(operand)
            case ast.BinOp(left=left, op=op, right=right):
                sides = of(left), of(right)
                if any(isinstance(side, str | list) for side in sides):
                    # A text times a large number would be all of the memory.
                    raise TypeError(f"'{ast.unparse(node)}', which is no arithmetic of numbers")
                return _BINARY[type(op)](*sides)
            case ast.Compare(left=left, ops=ops, comparators=comparators):
                values = [of(left), *map(of, comparators)]
                return all(
                    _COMPARE[type(op)](before, after)
                    for op, before, after in zip(ops, values, values[1:], strict=False)
                )
            case ast.Tuple(elts=elements) | ast.List(elts=elements):
                return [of(element) for element in elements]
        raise self._invalid(ast.unparse(node))  # pragma: no cover - _check has let nothing else through

    def _invalid(self, received: str) -> HybridgeError:
        return HybridgeError(
            ErrorCode.CHAIN_INVALID,
            f"condition '{self.text}'",
            received=received,
            expected="a comparison of tensors and answers, such as len(boxes) > 0",
        )


def _plain(value: Value) -> Any:
    """An array of one value as that value, so that it compares as a number or a text does."""
    return value.item() if isinstance(value, np.ndarray) and value.size == 1 and value.ndim == 0 else value
