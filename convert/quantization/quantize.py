"""From a float `.tflite` and a recipe to a quantised one, by litert-quantizer."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from convert.sources.export import SIGNATURE_KEY
from convert.quantization.flatbuffer import Operation, in_order, operations
from convert.libraries import load_library
from convert.recipes import Precision, Recipe
from edge_runtime.errors import ErrorCode, HybridgeError
from edge_runtime.model import Model
from edge_runtime.tensor_spec import Array

__all__ = ["Coverage", "coverage", "quantize"]

# What moves values between types and computes nothing.
_CASTS = ("QUANTIZE", "DEQUANTIZE")
# A loop's own operators are in the graphs that it runs.
_LOOPS = ("WHILE", "IF", "CALL_ONCE")


@dataclass(frozen=True)
class Coverage:
    """How often each operator was quantised, and how often it stayed float, by operator name.

    For `int8` an operator is quantised when no tensor it reads or makes is float; for recipes that quantise weights
    only operators with weights are counted.
    """

    quantized: Mapping[str, int]
    left_float: Mapping[str, int]


def quantize(content: bytes, recipe: Recipe, representative: Iterable[Mapping[str, Array]] = ()) -> bytes:
    """Quantises a float `.tflite` file's bytes.

    Args:
        content: The file, with one signature.
        recipe: What to make smaller.
        representative: Inputs of the model as it is fed in use, for a recipe that needs them.

    Returns:
        The quantised file, with the names and the order of the float one; `content` itself for `float32`.

    Raises:
        HybridgeError: `data-invalid` without the representative inputs that the recipe needs; `conversion-failed`
            for a model that cannot be quantised that way.
    """
    if recipe.precision is Precision.FLOAT32:
        return content
    samples = [dict(sample) for sample in representative] if recipe.needs_representative else []
    if recipe.needs_representative and not samples:
        raise HybridgeError(
            ErrorCode.DATA_INVALID,
            f"recipe '{recipe.name}'",
            received="no representative dataset",
            expected="some hundred inputs as the device will see them",
            fix="give them (representative=, or --recipe int8 --representative data.npz)",
        )
    float_model = Model(content)
    try:
        with _quiet():
            quantized = _quantized(content, recipe.precision, samples)
        quantized = in_order(
            quantized,
            tuple(spec.name for spec in float_model.inputs),
            tuple(spec.name for spec in float_model.outputs),
        )
        Model(quantized)
    except Exception as error:
        # The library raises bare ValueErrors, RuntimeErrors and KeyErrors for models beyond it.
        raise _failed(error, recipe, content) from error
    return quantized


def coverage(content: bytes, recipe: Recipe) -> Coverage:
    """Which operators of a converted `.tflite` are quantised as the recipe says, and which stayed float."""
    quantized: Counter[str] = Counter()
    left_float: Counter[str] = Counter()
    for operation in operations(content):
        if operation.name in _CASTS or operation.name in _LOOPS:
            continue
        verdict = _is_float(operation, recipe.precision)
        if verdict is not None:
            (left_float if verdict else quantized)[operation.name] += 1
    return Coverage(dict(sorted(quantized.items())), dict(sorted(left_float.items())))


def _is_float(operation: Operation, precision: Precision) -> bool | None:
    if precision in (Precision.INT8, Precision.FLOAT32):
        return operation.computes_float
    return "FLOAT32" in operation.weights if operation.weights else None


def _quantized(content: bytes, precision: Precision, samples: list[dict[str, Array]]) -> bytes:
    manager = load_library("litert_quantizer.recipe_manager").RecipeManager()
    algorithms = load_library("litert_quantizer.algorithm_manager").AlgorithmName
    everything = load_library("litert_quantizer.qtyping").TFLOperationName.ALL_SUPPORTED
    if precision is Precision.FLOAT16_WEIGHTS:
        manager.add_weight_only_config(".*", everything, num_bits=16, algorithm_key=algorithms.FLOAT_CASTING)
    elif precision is Precision.INT8_WEIGHTS:
        manager.add_dynamic_config(".*", everything, num_bits=8)
    else:
        manager.add_static_config(".*", everything, activation_num_bits=8, weight_num_bits=8)
    ranges = _calibrate(content, manager, samples) if samples else None
    quantizer = load_library("litert_quantizer").Quantizer(content, manager.get_quantization_recipe())
    result = quantizer.quantize(ranges, enable_progress_bar=False, enable_progress_report=False)
    return bytes(result.quantized_model)


def _calibrate(content: bytes, manager: Any, samples: list[dict[str, Array]]) -> Any:
    # Quantizer.calibrate keeps a moving average of each sample's own range, in which one sample of batch size one
    # weighs 5%: ranges come out far too narrow and depend on the order of the samples. The true minimum and maximum
    # over all samples are what a calibration means; only the calibrator itself lets one ask for them.
    library = load_library("litert_quantizer.calibrator")
    calibrator = library.Calibrator(
        content,
        num_threads=1,
        # Gathers ranges in the runtime instead of from a copy of every tensor: the same ranges, five times as fast.
        mode=library.CalibrationMode.CALIBRATION_PROFILER_BASED,
        qsv_update_func=load_library("litert_quantizer.utils.qsv_utils").min_max_update,
    )
    calibrator.calibrate({SIGNATURE_KEY: samples}, manager)
    return calibrator.get_model_qsvs()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hides the library's progress bar, its warnings, and what it logs through the root logger."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        root.setLevel(level)


def _failed(error: Exception, recipe: Recipe, content: bytes) -> HybridgeError:
    looped = any(operation.name in _LOOPS for operation in operations(content))
    if looped and recipe.precision is Precision.INT8:
        return HybridgeError(
            ErrorCode.CONVERSION_FAILED,
            f"recipe '{recipe.name}'",
            received="a model with a loop, such as an LSTM or GRU layer",
            expected="a model without loops",
            fix="use the recipe dynamic-int8 or float16",
        )
    message = error.message if isinstance(error, HybridgeError) else f"{type(error).__name__}: {error}"
    return HybridgeError(
        ErrorCode.CONVERSION_FAILED,
        f"recipe '{recipe.name}'",
        received=" ".join(message.split()),
        expected="a model that litert-quantizer can quantise",
        fix="use a milder recipe",
    )
