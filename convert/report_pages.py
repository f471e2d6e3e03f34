"""What a report shows of a conversion, a search or an explanation, gathered for `convert.report`."""

from __future__ import annotations

from convert.budget import Budget
from convert.conversion import Conversion
from convert.explanation import Explanation, explain
from convert.progress import Progress
from convert.recipes import Precision, recipe_toml
from convert.report import EpochRow, ReportContent, TrialRow, render_report
from convert.search import SearchResult, Trial
from convert.verification import Confusion, Drop, measure_confusion, measure_drop, measure_outputs
from convert.workbench import Workbench

__all__ = ["conversion_page", "explanation_page", "search_page"]

# Layers that a page shows the ranges of.
_WORST = 6


def conversion_page(conversion: Conversion, budget: Budget, command: str, *, progress: Progress) -> str:
    """The page of one conversion; ranks its layers for it when it quantised any.

    Args:
        conversion: What was made.
        budget: What it might cost.
        command: The command line that repeats it.
        progress: Shows the ranking's.
    """
    workbench, manifest = conversion.workbench, conversion.bundle.manifest
    drop, confusion = _judged(conversion)
    precision = conversion.recipe.quantization.precision
    explanation = None
    if precision is not Precision.FLOAT32:
        explanation = explain(workbench, precision, progress=progress.advance)
    tuned = conversion.fine_tuned
    return render_report(
        ReportContent(
            name=manifest.name,
            version=manifest.version,
            command=command,
            manifest=manifest,
            recipe=recipe_toml(conversion.recipe),
            budget=budget,
            misses=conversion.misses(budget),
            warnings=workbench.warnings,
            notes=() if tuned is None else tuple(f"{where}: {why}" for where, why in tuned.skipped.items()),
            drop=drop,
            confusion=confusion,
            parity=measure_outputs(workbench.expected, conversion.outputs),
            coverage=conversion.coverage,
            sparsity=conversion.sparsity,
            training=()
            if tuned is None
            else tuple(
                EpochRow(
                    part=each.part,
                    epoch=number,
                    loss=each.loss,
                    accuracy=each.quality,
                    sparsity=each.sparsity,
                )
                for number, each in enumerate(tuned.history, 1)
            ),
            sensitivity=() if explanation is None else explanation.layers,
            weights=() if explanation is None else explanation.weights[:_WORST],
            activations=() if explanation is None else explanation.activations[:_WORST],
        )
    )


def search_page(found: SearchResult, workbench: Workbench, command: str) -> str:
    """The page of a search, with the bundle that was chosen or came nearest.

    Args:
        found: What it found.
        workbench: The source and its data.
        command: The command line that repeats it.
    """
    manifest = None if found.bundle is None else found.bundle.manifest
    front = {trial.key for trial in found.front}
    return render_report(
        ReportContent(
            name=workbench.source.name if manifest is None else manifest.name,
            version="" if manifest is None else manifest.version,
            command=command,
            manifest=manifest,
            recipe="" if found.nearest is None else recipe_toml(found.nearest.recipe),
            budget=found.goal.budget,
            misses=found.misses,
            warnings=workbench.warnings,
            notes=found.notes,
            trials=tuple(_row(trial, found, front) for trial in found.trials),
        )
    )


def explanation_page(explanation: Explanation, workbench: Workbench, command: str) -> str:
    """The page of an explanation.

    Args:
        explanation: What quantising costs, layer by layer.
        workbench: The source and its data.
        command: The command line that repeats it.
    """
    return render_report(
        ReportContent(
            name=workbench.source.name,
            command=command,
            warnings=workbench.warnings,
            notes=(f"each layer alone was quantised to {explanation.precision}",),
            sensitivity=explanation.layers,
            weights=explanation.weights[:_WORST],
            activations=explanation.activations[:_WORST],
        )
    )


def _judged(conversion: Conversion) -> tuple[Drop | None, Confusion | None]:
    workbench, scores = conversion.workbench, conversion.workbench.scores
    data = workbench.evaluation
    if data is None or data.labels is None or scores is None:
        return None, None
    before, after = workbench.expected[scores], conversion.outputs[scores]
    return measure_drop(before, after, data.labels), measure_confusion(before, after, data.labels)


def _row(trial: Trial, found: SearchResult, front: set[str]) -> TrialRow:
    return TrialRow(
        name=trial.recipe.name,
        size=None if trial.size is None else trial.size.model,
        deflated=None if trial.size is None else trial.size.deflated,
        drop=trial.drop,
        agreement=trial.agreement,
        snr_db=trial.snr_db,
        latency_ms=trial.latency_ms,
        seconds=trial.seconds,
        cached=trial.cached,
        within_budget=not trial.misses and trial.failure is None,
        on_front=trial.key in front,
        chosen=found.chosen is not None and trial.key == found.chosen.key,
        note=", ".join(trial.misses) if trial.failure is None else trial.failure.message,
    )
