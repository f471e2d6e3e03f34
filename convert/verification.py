"""What a conversion lost: the converted bytes run on the device runtime, beside the source, on the same samples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from convert.data import Dataset
from convert.recipes import ParityBounds
from edge_runtime.errors import ErrorCode, HybridgeError
from edge_runtime.manifest import Accuracy, Parity
from edge_runtime.model import Model
from edge_runtime.tensor_spec import Array

__all__ = ["check_informative", "check_parity", "measure_accuracy", "measure_parity", "run_converted"]

# Variation of an output over the samples, relative to its size, that float32 cannot tell from rounding.
_ROUNDING = 1e-6


def run_converted(model: Model, data: Dataset) -> dict[str, Array]:
    """Outputs of the converted model for every sample, real values of shape (samples, ...)."""
    batch = int(model.inputs[0].shape[0])
    runs = [model.run(inputs) for inputs in data.batches(batch)]
    return {name: np.concatenate([run[name] for run in runs])[: len(data)] for name in runs[0]}


@dataclass(frozen=True)
class _Difference:
    """How one output differs from the source's; None where undefined."""

    max_abs_error: float
    relative_error: float
    snr_db: float | None
    cosine: float | None


def measure_parity(
    source: Mapping[str, Array], converted: Mapping[str, Array], *, generated: bool, scores: str | None
) -> Parity:
    """How far the converted outputs are from the source's.

    SNR and cosine are those of the worst output, so that an output of large values hides no other.

    Args:
        source: Outputs of the source, by name.
        converted: Outputs of the converted model, of the same names and shapes.
        generated: Whether the inputs were generated.
        scores: The output with class scores, if there is one.
    """
    differences = [_difference(source[name], converted[name]) for name in source]
    elements = sum(output.size for output in source.values())
    total = sum(float(np.abs(_real(source[name]) - _real(converted[name])).sum()) for name in source)
    agreement = None
    if scores is not None:
        agreement = float((source[scores].argmax(-1) == converted[scores].argmax(-1)).mean())
    return Parity(
        max_abs_error=max(each.max_abs_error for each in differences),
        mean_abs_error=total / elements,
        samples=len(next(iter(source.values()))),
        data="generated" if generated else "user",
        snr_db=min((each.snr_db for each in differences if each.snr_db is not None), default=None),
        cosine=min((each.cosine for each in differences if each.cosine is not None), default=None),
        label_agreement=agreement,
    )


def check_informative(source: Mapping[str, Array], name: str) -> None:
    """Refuses to compare models on samples that all give the same outputs.

    Any conversion agrees with a source whose outputs do not depend on its inputs, as those of an untrained deep network
    or of a saturated one may not; agreement there shows nothing.

    Args:
        source: Outputs of the source, by name, of shape (samples, ...).
        name: What to call the model in errors.

    Raises:
        HybridgeError: `parity-failed` when no output of two or more samples varies.
    """
    samples = len(next(iter(source.values())))
    if samples < 2 or any(_varies(_real(output)) for output in source.values()):
        return
    raise HybridgeError(
        ErrorCode.PARITY_FAILED,
        f"outputs of source model '{name}'",
        received=f"the same values for all {samples} samples, on which any conversion looks right",
        expected="outputs that depend on the inputs",
        fix="give evaluation data with different inputs, and check that the model is trained",
    )


def _varies(output: Array) -> bool:
    if not np.isfinite(output).all():
        return True  # for `check_parity` to refuse
    return float(np.ptp(output, axis=0).max(initial=0.0)) > _ROUNDING * float(np.abs(output).max(initial=0.0))


def check_parity(
    source: Mapping[str, Array], converted: Mapping[str, Array], bounds: ParityBounds, name: str
) -> None:
    """Refuses a conversion that changed what the model computes.

    Args:
        source: Outputs of the source, by name.
        converted: Outputs of the converted model, of the same names.
        bounds: What every output must keep within.
        name: What to call the model in errors.

    Raises:
        HybridgeError: `parity-failed` for an output that is out of bounds, of another shape, or not finite.
    """
    for key, expected in source.items():
        received = converted[key]
        what = f"output '{key}' of model '{name}'"
        if received.shape != expected.shape:
            raise _failed(
                what, f"shape {received.shape[1:]}", f"shape {expected.shape[1:]} as the source has"
            )
        for values, owner in ((expected, "source"), (received, "converted model")):
            if not np.isfinite(_real(values)).all():
                raise _failed(what, f"values from the {owner} that are not finite", "finite values")
        difference = _difference(expected, received)
        limit = bounds.max_relative_error
        if limit is not None and difference.relative_error > limit:
            raise _failed(
                what,
                f"an error of {difference.relative_error:.2g} of the output's range",
                f"at most {limit:g} (max_relative_error)",
            )
        if bounds.min_snr_db is not None and _snr_or_worst(difference) < bounds.min_snr_db:
            raise _failed(
                what,
                f"a signal-to-noise ratio of {_snr_or_worst(difference):.1f} dB",
                f"at least {bounds.min_snr_db:g} dB (min_snr_db)",
            )


def measure_accuracy(source: Array, converted: Array, labels: Array) -> Accuracy:
    """Top-1 accuracy of both on the same samples.

    Args:
        source: Class scores of the source, shape (samples, classes).
        converted: Class scores of the converted model, the same shape.
        labels: Index of the true class for each sample.

    Raises:
        HybridgeError: `data-invalid` for a class that the model does not have.
    """
    if labels.max() >= source.shape[-1]:
        raise HybridgeError(
            ErrorCode.DATA_INVALID,
            "array 'label'",
            received=f"class {labels.max()}",
            expected=f"0 to {source.shape[-1] - 1}, the classes that the model has",
            fix="check that the labels belong to this model",
        )
    return Accuracy(
        source=float((source.argmax(-1) == labels).mean()),
        converted=float((converted.argmax(-1) == labels).mean()),
        samples=len(labels),
    )


def _difference(source: Array, converted: Array) -> _Difference:
    expected, received = _real(source), _real(converted)
    error = np.abs(received - expected)
    largest = float(error.max(initial=0.0))
    span = float(expected.max(initial=-np.inf) - expected.min(initial=np.inf)) or float(
        np.abs(expected).max(initial=0.0)
    )
    signal, noise = float(np.square(expected).sum()), float(np.square(error).sum())
    norms = float(np.sqrt(signal * np.square(received).sum()))
    return _Difference(
        max_abs_error=largest,
        relative_error=0.0 if largest == 0.0 else largest / span if span > 0.0 else float("inf"),
        snr_db=float(10 * np.log10(signal / noise)) if signal > 0.0 and noise > 0.0 else None,
        # Rounding may push it past one.
        cosine=min(float((expected * received).sum()) / norms, 1.0) if norms > 0.0 else None,
    )


def _snr_or_worst(difference: _Difference) -> float:
    if difference.snr_db is not None:
        return difference.snr_db
    return float("inf") if difference.max_abs_error == 0.0 else float("-inf")


def _real(values: Array) -> Array:
    return values.astype(np.float64)


def _failed(what: str, received: str, expected: str) -> HybridgeError:
    return HybridgeError(
        ErrorCode.PARITY_FAILED,
        what,
        received=received,
        expected=expected,
        fix="use a milder recipe or more representative data, or allow it with bounds of your own",
    )
