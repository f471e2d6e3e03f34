"""Which operator of a float model is quantised how: a recipe's rules against what the library has kernels for.

litert-quantizer skips what its own rules do not fit, and such an operator silently stays float. Here each operator is
looked at before: it takes the first way that exists for it, and the library is told exactly that.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Literal

import numpy as np

from convert.libraries import load_library
from convert.quantization.calibration import Ranges
from convert.quantization.flatbuffer import Operation, Weight, operations, schema
from convert.quantization.rounding import LARGEST_ROW, Grid
from convert.recipes import Method, Precision, Quantization, Rule
from edge_runtime.errors import ErrorCode, HybridgeError

__all__ = ["Plan", "make_plan"]

# What the library calls the ends of a model, which are no operators in the file.
_ENDS = ("INPUT", "OUTPUT")
# Operators whose weights methods beyond min-max look at; other constants are rounded as they are.
_WEIGHTED = ("FULLY_CONNECTED", "CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV", "EMBEDDING_LOOKUP")
_ROUNDED = ("FULLY_CONNECTED", "CONV_2D", "DEPTHWISE_CONV_2D")
# The library cuts the text its rules match.
_SCOPE_LENGTH = 10_000
# A layer with so few distinct weights, each shared by so many, was clustered.
_CLUSTERED = 64
_SHARED_BY = 8
# The pattern of a rule that names no layer.
_ANY = ".*"
# Names that a message shows.
_SHOWN = 20


@dataclass(frozen=True)
class _Way:
    """One way to quantise an operator, in the terms of litert-quantizer."""

    kind: Literal["cast", "weights", "dynamic", "static"]
    bits: int = 8
    activation_bits: int = 8
    granularity: str = "CHANNELWISE"
    method: Method = Method.MIN_MAX
    only: tuple[str, ...] = ()


_DYNAMIC = _Way("dynamic")
# The first way that an operator has a kernel for is taken.
_WAYS: dict[Precision, tuple[_Way, ...]] = {
    Precision.FLOAT32: (),
    Precision.FLOAT16: (_Way("cast", bits=16),),
    Precision.WEIGHT_ONLY_INT8: (_Way("weights"),),
    Precision.DYNAMIC_INT8: (_DYNAMIC,),
    Precision.INT8: (_Way("static"), _DYNAMIC),
    Precision.INT16X8: (_Way("static", activation_bits=16), _DYNAMIC),
    Precision.INT4: (_Way("dynamic", bits=4), _DYNAMIC),
    Precision.INT4_BLOCK32: (
        _Way("dynamic", bits=4, granularity="BLOCKWISE_32"),
        # Rows that 32 does not divide. An int4 convolution is several times slower than one in int8.
        _Way("dynamic", bits=4, only=("FULLY_CONNECTED", "EMBEDDING_LOOKUP")),
        _DYNAMIC,
    ),
}


@dataclass(frozen=True)
class Plan:
    """How a float model is quantised.

    Attributes:
        entries: The recipe as litert-quantizer reads it; empty when everything stays float.
        needs_ranges: Whether ranges of activations are read.
        activation_bits: Of those that are computed in integers of calibrated ranges, the most.
        needs_squares: Whether OSCAR needs more than ranges.
        grids: Layers whose weights GPTQ rounds before.
    """

    entries: tuple[dict[str, Any], ...]
    needs_ranges: bool
    activation_bits: int
    needs_squares: bool
    grids: tuple[Grid, ...]


def make_plan(content: bytes, quantization: Quantization, ranges: Ranges | None) -> Plan:
    """Decides for each operator of a float model how it is quantised.

    Args:
        content: The float `.tflite`.
        quantization: What to do.
        ranges: Of its tensors, if they were calibrated; an operator on a tensor without one is not computed in
            integers.

    Raises:
        HybridgeError: `recipe-unknown` for a rule that matches no operator, or that is no regular expression.
    """
    found = operations(content)
    candidates = [*found, *_ends(content)]
    for rule in quantization.rules:
        _check(rule, candidates)
    constants = _Constants(content)
    ways = [(each, _way(each, quantization, ranges, constants)) for each in candidates]
    used = {way for _, way in ways if way is not None}
    return Plan(
        tuple(_entries(ways)),
        needs_ranges=any(way.kind == "static" for way in used),
        activation_bits=max((way.activation_bits for way in used if way.kind == "static"), default=8),
        needs_squares=any(way.method is Method.OSCAR for way in used),
        grids=tuple(
            Grid(each, way.bits, block=32 if way.granularity.startswith("BLOCKWISE") else 0)
            for each, way in ways
            if way is not None and way.method is Method.GPTQ
        ),
    )


def matches(rule: Rule, operation: Operation) -> bool:
    """Whether a rule speaks of an operator."""
    if rule.operators and operation.name not in rule.operators:
        return False
    if operation.name in _ENDS and not rule.operators:
        return False  # keeping a layer float is no wish for another input type
    return any(re.search(rule.layers, name) for name in operation.names or ("",))


def _way(
    operation: Operation, quantization: Quantization, ranges: Ranges | None, constants: _Constants
) -> _Way | None:
    precision, asked = quantization.precision, quantization.method
    for rule in quantization.rules:
        if matches(rule, operation):
            precision, asked = rule.precision, rule.method
    method = asked or (Method.MIN_MAX if constants.are_clustered(operation) else precision.usual_method)
    for way in _WAYS[precision]:
        if way.only and operation.name not in way.only:
            continue
        for chosen in (method, Method.MIN_MAX):
            candidate = replace(way, method=chosen, only=())
            if _applies(candidate, operation, ranges):
                return constants.with_granularity(candidate, operation)
    return None


def _applies(way: _Way, operation: Operation, ranges: Ranges | None) -> bool:
    name = _library_names().get(operation.name)
    weight = next((each for each in operation.weights if each.dtype == "FLOAT32"), None)
    if name is None or (way.kind != "static" and weight is None):
        return False
    if way.kind == "static" and not _is_calibrated(operation, ranges):
        return False
    if way.granularity.startswith("BLOCKWISE") and (weight is None or weight.shape[-1] % 32):
        return False
    if not _covers(way, operation, weight):
        return False
    manager = load_library("litert_quantizer.algorithm_manager")
    try:
        manager.check_op_quantization_config(_algorithm(way), name, _config(way))
    except ValueError:
        return False
    return True


def _covers(way: _Way, operation: Operation, weight: Weight | None) -> bool:
    """Whether the way's method works for the operator's weights; the library's own table promises more."""
    if way.method is Method.MIN_MAX:
        return True
    if weight is None or operation.name not in _WEIGHTED:
        return False
    if way.method is Method.MSE:
        return not way.granularity.startswith("BLOCKWISE")
    if way.method is Method.GPTQ:
        row = weight.size // 4 // weight.shape[0 if operation.name != "DEPTHWISE_CONV_2D" else 3]
        return operation.name in _ROUNDED and operation.main and row <= LARGEST_ROW and way.kind != "cast"
    if way.method is Method.OSCAR:
        # It knows of no activations in integers, and of no weights dequantised before they are used.
        return way.kind == "dynamic" and operation.main and len(weight.shape) == 2
    return True


def _is_calibrated(operation: Operation, ranges: Ranges | None) -> bool:
    # The tensors that enter and leave a loop keep their type, so what is inside of one does too.
    if not operation.main:
        return False
    if ranges is None:
        return True
    constants = set(operation.constants)
    tensors = [name for name in (*operation.inputs, *operation.outputs) if name not in constants]
    return "FLOAT32" not in operation.activations or any(name in ranges.bounds for name in tensors)


class _Constants:
    """The weights of a float model, looked into where a decision depends on their values."""

    def __init__(self, content: bytes):
        model = schema().Model.GetRootAs(content, 0)
        self._buffers = {
            (graph.Tensors(index).Name() or b"").decode(): model.Buffers(graph.Tensors(index).Buffer())
            for graph in map(model.Subgraphs, range(model.SubgraphsLength()))
            for index in range(graph.TensorsLength())
        }
        self._clustered: dict[str, bool] = {}

    def with_granularity(self, way: _Way, operation: Operation) -> _Way:
        """The way with one scale for a whole weight whose values were clustered.

        With a scale for each channel the few values that clustering left become other integers in every channel, and
        the file no longer deflates as well.
        """
        # The runtime's hybrid depthwise kernel computes nonsense with a single scale.
        hybrid_depthwise = way.kind == "dynamic" and operation.name == "DEPTHWISE_CONV_2D"
        if way.bits != 8 or way.kind == "cast" or hybrid_depthwise or way.method.needs_representative:
            return way
        return replace(way, granularity="TENSORWISE") if self.are_clustered(operation) else way

    def are_clustered(self, operation: Operation) -> bool:
        """Whether all of an operator's weights have few values."""
        weights = [each for each in operation.weights if each.dtype == "FLOAT32"]
        return bool(weights) and all(map(self._is_clustered, weights))

    def _is_clustered(self, weight: Weight) -> bool:
        if weight.name not in self._clustered:
            buffer = self._buffers[weight.name]
            values = np.frombuffer(buffer.DataAsNumpy(), np.float32) if buffer.DataLength() else np.empty(0)
            # A look at the beginning spares sorting weights that were never clustered.
            distinct = np.unique(values[: 16 * _CLUSTERED]).size
            if distinct <= _CLUSTERED:
                distinct = np.unique(values).size
            self._clustered[weight.name] = bool(
                distinct <= _CLUSTERED and np.count_nonzero(values) >= _SHARED_BY * distinct
            )
        return self._clustered[weight.name]


def _entries(ways: Sequence[tuple[Operation, _Way | None]]) -> list[dict[str, Any]]:
    chosen: defaultdict[str, defaultdict[_Way | None, list[str]]] = defaultdict(lambda: defaultdict(list))
    for operation, way in ways:
        chosen[operation.name][way].append(operation.scope[:_SCOPE_LENGTH])
    return [
        {
            "regex": ".*" if len(groups) == 1 and name not in _ENDS else _exactly(scopes),
            "operation": _library_names()[name],
            "algorithm_key": _algorithm(way),
            "op_config": _config(way).to_dict(),
        }
        for name, groups in chosen.items()
        for way, scopes in groups.items()
        if way is not None
    ]


def _exactly(scopes: list[str]) -> str:
    return f"^(?:{'|'.join(map(re.escape, scopes))})$"


def _algorithm(way: _Way) -> Any:
    names = load_library("litert_quantizer.algorithm_manager").AlgorithmName
    if way.kind == "cast":
        return names.FLOAT_CASTING
    return {
        Method.MIN_MAX: names.MIN_MAX_UNIFORM_QUANT,
        Method.MSE: names.MSE,
        Method.OCTAV: names.OCTAV,
        Method.GPTQ: names.MIN_MAX_UNIFORM_QUANT,  # of weights that are on the grid already
        Method.OSCAR: names.OSCAR,
    }[way.method]


@cache
def _config(way: _Way) -> Any:
    types = load_library("litert_quantizer.qtyping")
    in_integers = way.kind in ("dynamic", "static")
    return types.OpQuantizationConfig(
        # int16 is symmetric, as its kernels ask for.
        activation_tensor_config=types.TensorQuantizationConfig(
            num_bits=way.activation_bits, symmetric=way.activation_bits == 16
        )
        if way.kind == "static"
        else None,
        weight_tensor_config=types.TensorQuantizationConfig(
            num_bits=way.bits,
            symmetric=True,
            granularity=types.QuantGranularity[way.granularity],
            dtype=types.TensorDataType.FLOAT if way.kind == "cast" else types.TensorDataType.INT,
        ),
        compute_precision=types.ComputePrecision.INTEGER if in_integers else types.ComputePrecision.FLOAT,
        explicit_dequantize=not in_integers,
    )


@cache
def _library_names() -> dict[str, Any]:
    """Names that litert-quantizer gives to operators, by those of the schema."""
    from convert.quantization.flatbuffer import builtin_names

    table = load_library("litert_quantizer.utils.tfl_flatbuffer_utils").TFL_OP_CODE_TO_NAME
    names = load_library("litert_quantizer.qtyping").TFLOperationName
    known = {builtin_names()[code]: name for code, name in table.items()}
    return {**known, **{end: names[end] for end in _ENDS}}


def _ends(content: bytes) -> list[Operation]:
    """The model's inputs and outputs as the library sees them: operators that make, and that read."""
    model = schema().Model.GetRootAs(content, 0)
    index = model.SignatureDefs(0).SubgraphIndex() if model.SignatureDefsLength() else 0
    graph = model.Subgraphs(index)

    def end(name: str, places: Sequence[int]) -> Operation:
        tensors = [graph.Tensors(place) for place in places]
        names = tuple((tensor.Name() or b"").decode() for tensor in tensors)
        types = frozenset("FLOAT32" if tensor.Type() == 0 else "OTHER" for tensor in tensors)
        inputs, outputs = (names, ()) if name == "OUTPUT" else ((), names)
        return Operation(name, index, -1, True, inputs, outputs, (), (), types)

    return [
        end("INPUT", graph.InputsAsNumpy().tolist()),
        end("OUTPUT", graph.OutputsAsNumpy().tolist()),
    ]


def _check(rule: Rule, candidates: Sequence[Operation]) -> None:
    try:
        matched = any(matches(rule, operation) for operation in candidates)
    except re.error as error:
        raise HybridgeError(
            ErrorCode.RECIPE_UNKNOWN,
            f"rule for layers '{rule.layers}'",
            received=str(error),
            expected="a regular expression",
        ) from error
    if matched or (rule.layers == _ANY and set(rule.operators) <= {*_library_names(), *_ENDS}):
        return  # a kind of operator that a model need not have
    of_type = [each for each in candidates if each.name in rule.operators] if rule.operators else []
    named = ", ".join(dict.fromkeys(each.name for each in candidates))
    layers = list(dict.fromkeys(name for each in of_type or candidates for name in each.names[:1]))
    more = f" and {len(layers) - _SHOWN} more" if len(layers) > _SHOWN else ""
    raise HybridgeError(
        ErrorCode.RECIPE_UNKNOWN,
        f"rule for layers '{rule.layers}'"
        + (f" of type {', '.join(rule.operators)}" if rule.operators else ""),
        received="a pattern that matches no operator",
        expected=f"one of the layers {', '.join(layers[:_SHOWN])}{more}"
        if of_type or not rule.operators
        else f"operators among {named}",
        fix="correct the pattern",
    )
