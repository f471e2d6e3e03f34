"""From a float `.tflite` and a recipe to a quantised one, by litert-quantizer."""

from __future__ import annotations

from convert.libraries import load_library
from convert.quantization.calibration import Ranges
from convert.quantization.flatbuffer import in_order, operations
from convert.quantization.packing import compact
from convert.quantization.plan import Plan, make_plan
from convert.quantization.pooling import with_means
from convert.quantization.quiet import quiet
from convert.quantization.rounding import rounded
from convert.recipes import Precision, Quantization
from edge_runtime.errors import ErrorCode, HybridgeError
from edge_runtime.model import Model

__all__ = ["quantize"]

# What to try next where one fails.
_MILDER = {
    Precision.INT4: "int4-block32 or dynamic-int8",
    Precision.INT4_BLOCK32: "dynamic-int8",
    Precision.INT8: "int16x8 or dynamic-int8",
    Precision.INT16X8: "dynamic-int8",
    Precision.DYNAMIC_INT8: "weight-only-int8 or float16",
    Precision.WEIGHT_ONLY_INT8: "float16",
}


def quantize(content: bytes, quantization: Quantization, ranges: Ranges | None = None) -> bytes:
    """Quantises a float `.tflite` file's bytes; the same arguments give the same bytes.

    With `int8` and `int16x8` the model's own inputs and outputs are of that type, unless a rule keeps the operators
    ``INPUT`` or ``OUTPUT`` float. Weights that were clustered are given one scale, so that they deflate well.

    Args:
        content: The file, with one signature.
        quantization: What to store and compute in fewer bits.
        ranges: Of the same file's tensors, for a quantization that needs them.

    Returns:
        The quantised file, with the names and the order of the float one; `content` itself where nothing changes.

    Raises:
        HybridgeError: `data-invalid` without the ranges that are needed; `recipe-unknown` for a rule that matches no
            operator; `conversion-failed` for a model that cannot be quantised that way.
    """
    if quantization.needs_representative and ranges is None:
        raise HybridgeError(
            ErrorCode.DATA_INVALID,
            f"quantising to {quantization.precision}",
            received="no representative dataset",
            expected="some hundred inputs as the device will see them",
            fix="give them (representative=, or --representative data.npz)",
        )
    float_model = Model(content)
    prepared = _prepared(content, quantization)
    plan = make_plan(prepared, quantization, ranges)
    if not plan.entries:
        return content
    try:
        with quiet():
            if plan.grids and ranges is not None:
                prepared = rounded(prepared, plan.grids, ranges.kept)
            quantized = in_order(
                _quantized(prepared, plan, quantization, ranges),
                tuple(spec.name for spec in float_model.inputs),
                tuple(spec.name for spec in float_model.outputs),
            )
            quantized = compact(quantized)
        Model(quantized)
    except Exception as error:
        # The library raises bare ValueErrors, RuntimeErrors and KeyErrors for models beyond it.
        raise _failed(error, quantization, content) from error
    return quantized


def _prepared(content: bytes, quantization: Quantization) -> bytes:
    parts = (quantization.precision, *(rule.precision for rule in quantization.rules))
    named = any("AVERAGE_POOL_2D" in rule.operators for rule in quantization.rules)
    return content if named or not any(part.needs_representative for part in parts) else with_means(content)


def _quantized(content: bytes, plan: Plan, quantization: Quantization, ranges: Ranges | None) -> bytes:
    statistics = None
    if ranges is not None and (plan.needs_ranges or plan.needs_squares):
        statistics = ranges.statistics(
            quantization.calibration, bits=plan.activation_bits, squares=plan.needs_squares
        )
    quantizer = load_library("litert_quantizer").Quantizer(content, list(plan.entries))
    result = quantizer.quantize(statistics, enable_progress_bar=False, enable_progress_report=False)
    return bytes(result.quantized_model)


def _failed(error: Exception, quantization: Quantization, content: bytes) -> HybridgeError:
    message = error.message if isinstance(error, HybridgeError) else f"{type(error).__name__}: {error}"
    # The library says which tensor; whose it is helps more.
    guilty = next(
        (
            f"{each.name} '{each.names[0]}': "
            for each in operations(content)
            if any(name in message for name in (*each.outputs, *each.constants))
        ),
        "",
    )
    milder = _MILDER.get(quantization.precision)
    return HybridgeError(
        ErrorCode.CONVERSION_FAILED,
        f"quantising to {quantization.precision}",
        received=guilty + " ".join(message.split()),
        expected="a model that litert-quantizer can quantise",
        fix=f"use {milder}, or a rule that keeps the layer float"
        if milder
        else "keep the layer float by a rule",
    )
