"""How far the converted outputs are from the source's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from convert.recipes import ParityBounds
from edge_runtime.errors import ErrorCode, HybridgeError
from edge_runtime.manifest import Parity
from edge_runtime.tensor_spec import Array

__all__ = ["OutputParity", "check_informative", "check_parity", "measure_outputs", "measure_parity"]

# Variation of an output over the samples, relative to its size, that float32 cannot tell from rounding.
_ROUNDING = 1e-6


@dataclass(frozen=True)
class OutputParity:
    """How one output differs from the source's.

    Attributes:
        name: Of the output.
        max_abs_error: Largest difference of any element.
        mean_abs_error: Mean difference.
        relative_error: The largest over the range of the source's output.
        snr_db: Power of the source's output over that of the error, in decibels; None where outputs are identical or
            the source's is all zero.
        cosine: Of the angle between both outputs over all samples; None where one is all zero.
    """

    name: str
    max_abs_error: float
    mean_abs_error: float
    relative_error: float
    snr_db: float | None
    cosine: float | None


def measure_outputs(source: Mapping[str, Array], converted: Mapping[str, Array]) -> tuple[OutputParity, ...]:
    """How far each converted output is from the source's.

    Args:
        source: Outputs of the source, by name.
        converted: Outputs of the converted model, of the same names and shapes.
    """
    return tuple(_compared(name, output, converted[name]) for name, output in source.items())


def measure_parity(
    source: Mapping[str, Array], converted: Mapping[str, Array], *, generated: bool, scores: str | None
) -> Parity:
    """How far the converted outputs are from the source's, in all.

    SNR and cosine are those of the worst output, so that an output of large values hides no other.

    Args:
        source: Outputs of the source, by name.
        converted: Outputs of the converted model, of the same names and shapes.
        generated: Whether the inputs were generated.
        scores: The output with class scores, if there is one.
    """
    outputs = measure_outputs(source, converted)
    elements = [output.size for output in source.values()]
    agreement = None
    if scores is not None:
        agreement = float((source[scores].argmax(-1) == converted[scores].argmax(-1)).mean())
    return Parity(
        max_abs_error=max(each.max_abs_error for each in outputs),
        mean_abs_error=sum(each.mean_abs_error * size for each, size in zip(outputs, elements, strict=True))
        / sum(elements),
        samples=len(next(iter(source.values()))),
        data="generated" if generated else "user",
        snr_db=min((each.snr_db for each in outputs if each.snr_db is not None), default=None),
        cosine=min((each.cosine for each in outputs if each.cosine is not None), default=None),
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
        compared = _compared(key, expected, received)
        limit = bounds.max_relative_error
        if limit is not None and compared.relative_error > limit:
            raise _failed(
                what,
                f"an error of {compared.relative_error:.2g} of the output's range",
                f"at most {limit:g} (max_relative_error)",
            )
        if bounds.min_snr_db is not None and _snr_or_worst(compared) < bounds.min_snr_db:
            agreement = _row_agreement(expected, received)
            if agreement is None or bounds.min_agreement is None:
                raise _failed(
                    what,
                    f"a signal-to-noise ratio of {_snr_or_worst(compared):.1f} dB",
                    f"at least {bounds.min_snr_db:g} dB (min_snr_db)",
                )
            if agreement < bounds.min_agreement:
                raise _failed(
                    what,
                    f"a signal-to-noise ratio of {_snr_or_worst(compared):.1f} dB, and the same class in "
                    f"{agreement:.1%} of its rows of probabilities",
                    f"at least {bounds.min_snr_db:g} dB (min_snr_db), or {bounds.min_agreement:.1%} of the rows",
                )


def _row_agreement(source: Array, converted: Array) -> float | None:
    """Share of rows with the same largest element, for a sequence of probabilities; None for other outputs."""
    if source.ndim < 3 or source.dtype.kind != "f" or source.shape[-1] < 2 or (source < 0).any():
        return None
    if not np.allclose(source.sum(-1), 1.0, atol=1e-3):
        return None
    return float((source.argmax(-1) == converted.argmax(-1)).mean())


def _varies(output: Array) -> bool:
    if not np.isfinite(output).all():
        return True  # for `check_parity` to refuse
    return float(np.ptp(output, axis=0).max(initial=0.0)) > _ROUNDING * float(np.abs(output).max(initial=0.0))


def _compared(name: str, source: Array, converted: Array) -> OutputParity:
    expected, received = _real(source), _real(converted)
    error = np.abs(received - expected)
    largest = float(error.max(initial=0.0))
    span = float(expected.max(initial=-np.inf) - expected.min(initial=np.inf)) or float(
        np.abs(expected).max(initial=0.0)
    )
    signal, noise = float(np.square(expected).sum()), float(np.square(error).sum())
    norms = float(np.sqrt(signal * np.square(received).sum()))
    return OutputParity(
        name,
        max_abs_error=largest,
        mean_abs_error=float(error.mean()) if error.size else 0.0,
        relative_error=0.0 if largest == 0.0 else largest / span if span > 0.0 else float("inf"),
        snr_db=float(10 * np.log10(signal / noise)) if signal > 0.0 and noise > 0.0 else None,
        # Rounding may push it past one.
        cosine=min(float((expected * received).sum()) / norms, 1.0) if norms > 0.0 else None,
    )


def _snr_or_worst(compared: OutputParity) -> float:
    if compared.snr_db is not None:
        return compared.snr_db
    return float("inf") if compared.max_abs_error == 0.0 else float("-inf")


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
