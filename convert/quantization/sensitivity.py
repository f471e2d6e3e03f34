"""What quantising each layer alone costs, measured on the device interpreter."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import islice

import numpy as np
from msgspec.structs import replace

from convert.quantization.calibration import Ranges
from convert.quantization.flatbuffer import Operation, layer_names, operations
from convert.quantization.pooling import with_means
from convert.quantization.quantize import quantize
from convert.recipes import Method, Precision, Quantization, Rule
from edge_runtime.model import Model
from edge_runtime.tensor_spec import Array

__all__ = ["LayerSensitivity", "mixed", "rank_layers"]

# More samples change the order of layers no more, and each layer runs them all.
_SAMPLES = 128
# Operators that move values and compute none; the rounding they see is their neighbours'.
_MOVING = (
    "RESHAPE",
    "TRANSPOSE",
    "SQUEEZE",
    "EXPAND_DIMS",
    "SLICE",
    "STRIDED_SLICE",
    "SPLIT",
    "PACK",
    "UNPACK",
    "PAD",
)
# Stands for the power of an output that is zero throughout.
_SILENCE = 1e-12


@dataclass(frozen=True)
class LayerSensitivity:
    """What a model's outputs lose when one operator alone is quantised.

    Attributes:
        layer: A name that only this operator goes by; a rule may use it.
        operator: Such as ``CONV_2D``.
        snr_db: Power of the worst output over that of its error, in decibels; None where nothing changed.
        max_abs_error: Largest error of any output.
        agreement: Share of samples whose class stayed, where the output with scores is known.
        float_bytes: Bytes of its weights in float.
        quantized_bytes: Bytes of its weights when quantised.
    """

    layer: str
    operator: str
    snr_db: float | None
    max_abs_error: float
    agreement: float | None
    float_bytes: int
    quantized_bytes: int

    @property
    def rule(self) -> Rule:
        """What speaks of this operator and no other; it keeps it float."""
        return Rule(layers=f"^{re.escape(self.layer)}$", operators=(self.operator,))


def rank_layers(
    content: bytes,
    samples: Iterable[Mapping[str, Array]],
    ranges: Ranges | None,
    *,
    precision: Precision = Precision.INT8,
    scores: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[LayerSensitivity, ...]:
    """Quantises each operator of a float model alone and compares outputs, the most sensitive first.

    Args:
        content: The float `.tflite`.
        samples: Inputs of the model, an array for each name; the first 128 are used.
        ranges: Of the model's tensors, for a precision that needs them.
        precision: What each operator is quantised to.
        scores: Name of the output with class scores.
        progress: Called with the number of operators done and of all, after each.

    Raises:
        HybridgeError: `data-invalid` without ranges that are needed; `conversion-failed`.
    """
    if precision.needs_representative:
        content = with_means(content)  # as `quantize` does
    taken = [dict(sample) for sample in islice(samples, _SAMPLES)]
    expected = _outputs(content, taken)
    found = operations(content)
    named = [
        (layer, each)
        for layer, each in zip(layer_names(found), found, strict=True)
        if each.name not in _MOVING and layer and (each.weights or precision.needs_representative)
    ]
    before = _weight_bytes(content)
    ranked = []
    for done, (layer, operation) in enumerate(named, 1):
        alone = _Alone(layer, operation)
        quantized = quantize(content, alone.quantization(precision), ranges)
        if quantized is not content:
            received = _outputs(quantized, taken)
            saved = before - _weight_bytes(quantized)
            ranked.append(alone.compared(expected, received, scores=scores, saved=saved))
        if progress is not None:
            progress(done, len(named))
    return tuple(sorted(ranked, key=_order))


def mixed(sensitivities: Iterable[LayerSensitivity], base: Quantization, keep: int) -> Quantization:
    """The quantization with its most sensitive layers in more bits.

    Args:
        sensitivities: Of all layers, the most sensitive first.
        base: What to change. Layers kept compute in float from int8 weights, as it is their activations that lose most
            and their weights that fill the file; where the base is int4 they are `dynamic-int8`, where it is no
            more than int8 weights already, float.
        keep: How many layers.
    """
    in_int4 = base.precision in (Precision.INT4, Precision.INT4_BLOCK32)
    milder, method = Precision.FLOAT32, None
    if in_int4:
        milder = Precision.DYNAMIC_INT8
    elif base.precision.needs_representative:
        milder, method = Precision.WEIGHT_ONLY_INT8, Method.GPTQ
    rules = tuple(replace(each.rule, precision=milder, method=method) for each in islice(sensitivities, keep))
    return replace(base, rules=base.rules + rules)


@dataclass(frozen=True)
class _Alone:
    """One operator to be quantised."""

    layer: str
    operation: Operation

    def quantization(self, precision: Precision) -> Quantization:
        rule = Rule(
            layers=f"^{re.escape(self.layer)}$",
            operators=(self.operation.name,),
            precision=precision,
            method=Method.MIN_MAX,  # what a layer costs before anything makes up for it, and many times as fast
        )
        return Quantization(rules=(rule,))

    def compared(
        self,
        expected: Mapping[str, Array],
        received: Mapping[str, Array],
        *,
        scores: str | None,
        saved: int,
    ) -> LayerSensitivity:
        errors = {name: received[name].astype(np.float64) - expected[name] for name in expected}
        ratios = [
            10 * np.log10(max(float(np.square(expected[name]).sum()), _SILENCE) / power)
            for name, error in errors.items()
            if (power := float(np.square(error).sum())) > 0
        ]
        agreement = None
        if scores is not None:
            agreement = float((expected[scores].argmax(-1) == received[scores].argmax(-1)).mean())
        own = sum(weight.size for weight in self.operation.weights)
        return LayerSensitivity(
            layer=self.layer,
            operator=self.operation.name,
            snr_db=float(min(ratios)) if ratios else None,
            max_abs_error=max(float(np.abs(error).max(initial=0.0)) for error in errors.values()),
            agreement=agreement,
            float_bytes=own,
            quantized_bytes=own - saved,
        )


def _order(each: LayerSensitivity) -> tuple[float, str]:
    return (float("inf") if each.snr_db is None else each.snr_db, each.layer)


def _outputs(content: bytes, samples: list[dict[str, Array]]) -> dict[str, Array]:
    model = Model(content)
    runs = [model.run(sample) for sample in samples]
    return {name: np.concatenate([np.atleast_1d(run[name]) for run in runs]) for name in runs[0]}


def _weight_bytes(content: bytes) -> int:
    sizes = {weight.name: weight.size for each in operations(content) for weight in each.weights}
    return sum(sizes.values())
