"""What the command says about a conversion, a search or an explanation, for programs and for people."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_runtime.console import table

if TYPE_CHECKING:
    from convert.conversion import Conversion
    from convert.explanation import Explanation
    from convert.search import SearchResult
    from convert.workbench import Workbench

__all__ = ["as_data", "as_text", "explanation_data", "explanation_text", "search_data", "search_text"]

# Enough to see which layers stand out.
_SHOWN_LAYERS = 20


def as_data(conversion: Conversion, target: Path) -> dict[str, Any]:
    """The outcome as tables and lists, the same figures that the manifest holds."""
    manifest, accuracy, tuned = conversion.bundle.manifest, conversion.accuracy, conversion.fine_tuned
    return {
        "name": manifest.name,
        "version": manifest.version,
        "recipe": conversion.recipe.name,
        "recipe_definition": conversion.recipe.to_builtins(),
        "source_size_bytes": conversion.size.source,
        "size_bytes": conversion.size.model,
        "deflated_size_bytes": conversion.size.deflated,
        "bundle_size_bytes": len(conversion.bundle.to_bytes()),
        "accuracy": accuracy and {
            "source": accuracy.source,
            "converted": accuracy.converted,
            "samples": accuracy.samples,
            "slices": accuracy.slices,
        },
        "drop": accuracy and accuracy.drop,
        "parity": conversion.parity,
        "latency_ms": conversion.latency_ms,
        "operators": manifest.requirements.operators,
        "coverage": conversion.coverage,
        "sparsity": conversion.sparsity,
        "training": tuned and {
            "sparsity": tuned.sparsity,
            "seconds": tuned.seconds,
            "history": tuned.history,
            "skipped": tuned.skipped,
        },
        "warnings": conversion.workbench.warnings,
        "digest": conversion.bundle.digest,
        "output": str(target),
    }  # fmt: skip


def as_text(conversion: Conversion, target: Path) -> str:
    """The outcome as lines."""
    size, parity, accuracy = conversion.size, conversion.parity, conversion.accuracy
    rows = [
        ("size, weights to model (bytes)", f"{size.source:,}", f"{size.model:,}"),
        ("over the air, deflated (bytes)", "", f"{size.deflated:,}"),
    ]
    if accuracy is not None:
        rows.append(
            (f"accuracy on {accuracy.samples} samples", f"{accuracy.source:.4f}", f"{accuracy.converted:.4f}")
        )
        rows += [
            (f"  {each.name}={each.value} ({each.samples})", f"{each.source:.4f}", f"{each.converted:.4f}")
            for each in accuracy.slices
        ]
    measured = f"{parity.samples} {'generated' if parity.data == 'generated' else 'given'} samples"
    lines = [table(rows, header=("", "source", "converted")), ""]
    snr = "identical" if parity.snr_db is None else f"SNR {parity.snr_db:.1f} dB"
    lines.append(f"parity on {measured}: {snr}, largest error {parity.max_abs_error:.3g}")
    if parity.label_agreement is not None:
        lines.append(f"the same class on {parity.label_agreement:.2%} of them")
    if conversion.latency_ms is not None:
        lines.append(f"a run takes {conversion.latency_ms:.3f} ms here, on one thread")
    if conversion.fine_tuned is not None:
        lines.append(
            f"trained for {conversion.fine_tuned.seconds:.0f} s; {conversion.fine_tuned.sparsity:.0%} zeros"
        )
    if conversion.coverage.left_float and conversion.recipe.needs_representative:
        left = ", ".join(f"{name} x{count}" for name, count in conversion.coverage.left_float.items())
        lines.append(f"stayed float: {left}")
    lines += conversion.sparsity.sentences()
    lines.append(f"operators: {', '.join(conversion.bundle.manifest.requirements.operators)}")
    lines.append(f"digest: {conversion.bundle.digest}")
    lines.append(f"written: {target}")
    return "\n".join(lines)


def search_data(found: SearchResult, workbench: Workbench, target: Path) -> dict[str, Any]:
    """The bundle that was chosen, with the figures of any conversion, and every trial under ``search``."""
    from convert.search import as_data as trials_as_data

    if found.bundle is None:
        raise found.refusal()
    manifest = found.bundle.manifest
    metrics = manifest.metrics
    size, accuracy = metrics.size, metrics.accuracy
    return {
        "name": manifest.name,
        "version": manifest.version,
        "recipe": manifest.lineage and manifest.lineage.recipe,
        "source_size_bytes": size and size.source,
        "size_bytes": size and size.model,
        "deflated_size_bytes": size and size.deflated,
        "bundle_size_bytes": len(found.bundle.to_bytes()),
        "accuracy": accuracy and {
            "source": accuracy.source,
            "converted": accuracy.converted,
            "samples": accuracy.samples,
            "slices": accuracy.slices,
        },
        "drop": accuracy and accuracy.drop,
        "parity": metrics.parity,
        "latency_ms": found.chosen and found.chosen.latency_ms,
        "operators": manifest.requirements.operators,
        "warnings": workbench.warnings,
        "digest": found.bundle.digest,
        "output": str(target),
        "search": trials_as_data(found),
    }  # fmt: skip


def search_text(found: SearchResult, target: Path) -> str:
    """The trials, and where the chosen one was written."""
    from convert.search import as_text as trials_as_text

    lines = [trials_as_text(found)]
    if found.bundle is not None:
        lines.append(f"digest: {found.bundle.digest}")
    lines.append(f"written: {target}")
    return "\n".join(lines)


def explanation_data(explanation: Explanation) -> dict[str, Any]:
    """The layers, the most sensitive first, and the ranges behind them."""
    return {
        "precision": explanation.precision,
        "layers": explanation.layers,
        "weights": explanation.weights,
        "activations": explanation.activations,
    }


def explanation_text(explanation: Explanation) -> str:
    """The most sensitive layers as a table."""
    spreads = {each.layer: each.channel_spread for each in explanation.weights}
    rows = [
        (
            each.layer,
            each.operator,
            "identical" if each.snr_db is None else f"{each.snr_db:.1f}",
            "" if each.agreement is None else f"{each.agreement:.2%}",
            f"{each.float_bytes:,}",
            f"{each.quantized_bytes:,}",
            f"{spreads[each.layer]:.1f}" if each.layer in spreads else "",
        )
        for each in explanation.layers[:_SHOWN_LAYERS]
    ]
    header = (
        "layer",
        "operator",
        "SNR dB",
        "same class",
        "bytes",
        f"as {explanation.precision}",
        "channel spread",
    )
    lines = [
        f"each layer alone in {explanation.precision}, the most sensitive first",
        "",
        table(rows, header=header),
    ]
    if len(explanation.layers) > _SHOWN_LAYERS:
        lines.append(f"and {len(explanation.layers) - _SHOWN_LAYERS} more")
    lines += ["", "keep one float with --keep-float and its name"]
    return "\n".join(lines)
