"""What a converted model computes in which precision, what stayed float, and what a device may not have."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

from convert.quantization.flatbuffer import Operation, operations
from convert.recipes import Precision, Quantization

__all__ = ["Coverage", "coverage"]

# What moves values between types and computes nothing.
_CASTS = ("QUANTIZE", "DEQUANTIZE", "DENSIFY")
# A loop's own operators are in the graphs that it runs.
_LOOPS = ("WHILE", "IF", "CALL_ONCE")
# Precisions in which everything is computed in integers, or nothing is.
_WHOLE = (Precision.FLOAT32, Precision.INT8, Precision.INT16X8)


@dataclass(frozen=True)
class Coverage:
    """How often each operator was quantised, and how often it stayed float, by operator name.

    For `int8` and `int16x8` an operator stays float when it has float weights, or none and reads or makes a float
    tensor; for recipes that quantise weights only operators with weights are counted.

    Attributes:
        quantized: How many of each operator are quantised.
        left_float: How many are not.
        precisions: How many of each operator compute in which precision, such as ``{"CONV_2D": {"int8": 5}}``.
        float_layers: Those left float, each as its operator and its layer.
        weight_bytes: Bytes of weights by the type they are stored in.
        not_builtin: Operators that no device runtime has, such as those of TensorFlow itself.
        newer_than_tflite: Operators that tflite-runtime 2.14, the runtime of 32-bit systems, does not know.
    """

    quantized: Mapping[str, int]
    left_float: Mapping[str, int]
    precisions: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    float_layers: tuple[str, ...] = ()
    weight_bytes: Mapping[str, int] = field(default_factory=dict)
    not_builtin: tuple[str, ...] = ()
    newer_than_tflite: tuple[str, ...] = ()


def coverage(content: bytes, quantization: Quantization) -> Coverage:
    """Which operators of a converted `.tflite` are quantised as the recipe says, and which stayed float."""
    found = operations(content)
    counted = [each for each in found if each.name not in _CASTS and each.name not in _LOOPS]
    quantized: Counter[str] = Counter()
    left_float: Counter[str] = Counter()
    precisions: defaultdict[str, Counter[str]] = defaultdict(Counter)
    float_layers = []
    for each in counted:
        precisions[each.name][each.precision] += 1
        verdict = _is_float(each, quantization.precision)
        if verdict is None:
            continue
        (left_float if verdict else quantized)[each.name] += 1
        if verdict:
            float_layers.append(f"{each.name} {each.names[0]}" if each.names else each.name)
    return Coverage(
        dict(sorted(quantized.items())),
        dict(sorted(left_float.items())),
        precisions={name: dict(sorted(kinds.items())) for name, kinds in sorted(precisions.items())},
        float_layers=tuple(float_layers),
        weight_bytes=_weight_bytes(found),
        not_builtin=tuple(sorted({each.name for each in found if each.name.startswith("CUSTOM")})),
        newer_than_tflite=tuple(sorted({each.name for each in found if each.is_newer_than_tflite})),
    )


def _is_float(operation: Operation, precision: Precision) -> bool | None:
    if operation.weights:
        return precision is Precision.FLOAT32 or any(each.dtype == "FLOAT32" for each in operation.weights)
    return operation.computes_float if precision in _WHOLE else None


def _weight_bytes(found: list[Operation]) -> dict[str, int]:
    # A weight that several operators read is stored once.
    sizes = {weight.name: (weight.dtype, weight.size) for each in found for weight in each.weights}
    total: Counter[str] = Counter()
    for dtype, size in sizes.values():
        total[dtype] += size
    return dict(sorted(total.items()))
