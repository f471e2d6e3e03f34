"""What happened inside: sensitivity, ranges, coverage, sparse weights, and fine-tuning."""

from __future__ import annotations

from typing import TYPE_CHECKING

from convert.report.content import ReportContent
from convert.report.markup import (
    Raw,
    bars,
    bytes_text,
    folded,
    histogram,
    paragraphs,
    percent,
    section,
    table,
)
from convert.report.plots import training_plot

if TYPE_CHECKING:
    from convert.quantization import ValueRange

__all__ = [
    "coverage_section",
    "ranges_section",
    "sensitivity_section",
    "sparsity_section",
    "training_section",
]

_LAYERS_SHOWN = 20
_RANGES_SHOWN = 6
# Above it, outputs are as good as unchanged; the longest bar.
_SAFE_DB = 60.0


def sensitivity_section(content: ReportContent) -> Raw:
    """What quantising each layer alone costs."""
    layers = content.sensitivity
    if not layers:
        return Raw("")
    shown = layers[:_LAYERS_SHOWN]
    # The less signal remains above the noise, the longer the bar.
    rows = [
        (
            each.layer,
            0.0 if each.snr_db is None else max(_SAFE_DB - each.snr_db, 0.0),
            "unchanged" if each.snr_db is None else f"{each.snr_db:.1f} dB",
            "orange" if index < _RANGES_SHOWN else "grey",
        )
        for index, each in enumerate(shown)
    ]
    figures = table(
        ("layer", "operator", "signal to noise", "same class", "largest error", "float", "quantised"),
        [
            (
                each.layer,
                each.operator,
                "unchanged" if each.snr_db is None else f"{each.snr_db:.1f} dB",
                "-" if each.agreement is None else percent(each.agreement),
                f"{each.max_abs_error:.3g}",
                bytes_text(each.float_bytes),
                bytes_text(each.quantized_bytes),
            )
            for each in layers
        ],
        text_columns=2,
    )
    return section(
        "Sensitivity",
        bars(rows),
        folded(f"All {len(layers)} layers", figures),
        about="What remains of the outputs when one layer alone is quantised: the longer the bar, the more it costs. "
        "Keep a layer float with --keep-float.",
    )


def ranges_section(content: ReportContent) -> Raw:
    """How weights and activations of the worst layers are distributed."""
    parts = []
    for title, ranges in (("Weights", content.weights), ("Activations", content.activations)):
        if ranges:
            tiles = "".join(_tile(each) for each in ranges[:_RANGES_SHOWN])
            parts.append(f'<h3>{title}</h3><div class="grid">{tiles}</div>')
    return section(
        "Ranges of the most sensitive layers" if content.sensitivity else "Ranges",
        *parts,
        about="Heights are logarithmic; dashed lines mark the 1st and 99th percentile. Eight bits are spread over the "
        "whole range: what lies far outside of the lines takes steps from all other values.",
    )


def coverage_section(content: ReportContent) -> Raw:
    """Operators by precision, and those left float."""
    coverage = content.coverage
    if coverage is None:
        return Raw("")
    names = sorted({*coverage.quantized, *coverage.left_float, *coverage.precisions})
    rows = [
        (
            name,
            coverage.quantized.get(name, 0),
            coverage.left_float.get(name, 0),
            ", ".join(
                f"{precision} x{count}" for precision, count in coverage.precisions.get(name, {}).items()
            ),
        )
        for name in names
    ]
    said = []
    if coverage.float_layers:
        said.append(f"Left float: {', '.join(coverage.float_layers)}.")
    if coverage.not_builtin:
        said.append(f"No device runtime has {', '.join(coverage.not_builtin)}.")
    if coverage.newer_than_tflite:
        said.append(
            f"tflite-runtime 2.14 (32-bit systems) does not know {', '.join(coverage.newer_than_tflite)}."
        )
    weights = [
        (dtype, float(size), bytes_text(size), "blue")
        for dtype, size in coverage.weight_bytes.items()
        if size
    ]
    return section(
        "Operators",
        table(("operator", "quantised", "left float", "computed in"), rows),
        paragraphs(said, "note"),
        f"<h3>Weights by type</h3>{bars(weights)}" if weights else "",
    )


def sparsity_section(content: ReportContent) -> Raw:
    """Which weights are stored without their zeros, and why others are not."""
    report = content.sparsity
    if report is None or not report.weights:
        return Raw("")
    rows = [
        (
            each.name,
            each.dtype.lower(),
            percent(each.zeros, 1),
            bytes_text(each.before),
            bytes_text(each.after),
            each.reason or "stored sparse",
        )
        for each in report.weights
    ]
    return section(
        "Sparse weights",
        table(
            ("weight", "type", "zeros", "dense", "stored", "why"),
            rows,
            tones=["" if not each.reason else "faint" for each in report.weights],
            ends_in_prose=True,
        ),
        about=f"The model takes {report.after:,} bytes; with dense weights it took {report.before:,}.",
    )


def training_section(content: ReportContent) -> Raw:
    """What fine-tuning did."""
    epochs = content.training
    if not epochs:
        return Raw("")
    rows = [
        (
            each.part,
            each.epoch,
            f"{each.loss:.4g}",
            "-" if each.accuracy is None else percent(each.accuracy),
            "-" if each.sparsity is None else percent(each.sparsity, 1),
        )
        for each in epochs
    ]
    return section(
        "Fine-tuning",
        training_plot(epochs),
        folded("All epochs", table(("part", "epoch", "loss", "held back", "zeros"), rows)),
        about="Held back is accuracy on samples that were not trained on, or without labels agreement with the source.",
    )


def _tile(values: ValueRange) -> str:
    spread = (
        f"; widest channel {values.channel_spread:.1f}x the median one"
        if values.channel_spread > 1.05
        else ""
    )
    return histogram(
        f"{values.layer} ({values.operator})",
        values.histogram,
        (values.minimum, values.maximum),
        (values.p1, values.p99),
        f"98 % within {values.p1:.3g} to {values.p99:.3g}{spread}",
    )
