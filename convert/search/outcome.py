"""What a search found, for programs and for people."""

from __future__ import annotations

from typing import Any

from convert.search.search import SearchResult
from convert.search.trial import Trial, TrialStatus
from edge_runtime.console import table

__all__ = ["as_data", "as_rows", "as_text"]

_HEADER = ("recipe", "bytes", "over the air", "accuracy", "drop", "agreement", "SNR dB", "ms", "")


def as_rows(result: SearchResult) -> list[dict[str, Any]]:
    """The trials as tables, in the order they were tried; what was not measured is None."""
    front = {trial.key for trial in result.front}
    return [
        {
            "name": trial.recipe.name,
            "status": trial.status.value,
            "size_bytes": trial.size and trial.size.model,
            "deflated_size_bytes": trial.size and trial.size.deflated,
            "accuracy": trial.accuracy and trial.accuracy.converted,
            "drop": trial.drop,
            "agreement": trial.agreement,
            "snr_db": trial.snr_db,
            "latency_ms": trial.latency_ms,
            "seconds": trial.seconds,
            "cached": trial.cached,
            "on_front": trial.key in front,
            "chosen": result.chosen is not None and trial.key == result.chosen.key,
            "misses": trial.misses,
            "error": trial.failure,
            "digest": trial.digest,
            "recipe_definition": trial.recipe.to_builtins(),
        }
        for trial in result.trials
    ]


def as_data(result: SearchResult) -> dict[str, Any]:
    """The search as tables and lists, with every trial's recipe."""
    return {
        "chosen": result.chosen and result.chosen.recipe.name,
        "nearest": result.nearest and result.nearest.recipe.name,
        "misses": result.misses,
        "budget": result.goal.budget,
        "min_snr_db": result.goal.min_snr_db,
        "notes": result.notes,
        "seconds": result.seconds,
        "trials": as_rows(result),
    }


def as_text(result: SearchResult) -> str:
    """The trials as a table, the smallest first; what is on the Pareto front has a ``*``."""
    models = [trial for trial in result.trials if trial.size is not None]
    ordered = sorted(models, key=lambda trial: trial.size.model if trial.size else 0)
    front = {trial.key for trial in result.front}
    lines = []
    if ordered:
        lines += [
            table([_cells(trial, result, on_front=trial.key in front) for trial in ordered], header=_HEADER),
            "",
            "* no other is better in what it loses, in bytes and in ms together",
        ]
    lines += [
        f"failed: {trial.recipe.name}: {trial.failure.message}"
        for trial in result.trials
        if trial.failure is not None
    ]
    lines += result.notes
    if result.chosen is not None:
        lines.append(f"chosen: {result.chosen.recipe.name}, the smallest within the budget")
    elif result.nearest is not None:
        lines.append(
            f"nothing is within the budget; nearest: {result.nearest.recipe.name}: {', '.join(result.misses)}"
        )
    return "\n".join(lines)


def _cells(trial: Trial, result: SearchResult, *, on_front: bool) -> tuple[str, ...]:
    chosen = result.chosen is not None and trial.key == result.chosen.key
    verdict = "chosen" if chosen else "" if trial.status is TrialStatus.OK else "out of budget"
    return (
        f"{'*' if on_front else ' '} {trial.recipe.name}",
        f"{trial.size.model:,}" if trial.size else "",
        f"{trial.size.deflated:,}" if trial.size else "",
        f"{trial.accuracy.converted:.4f}" if trial.accuracy else "",
        "" if trial.drop is None else f"{trial.drop:+.4f}",
        "" if trial.agreement is None else f"{trial.agreement:.4f}",
        "" if trial.snr_db is None else f"{trial.snr_db:.1f}",
        "" if trial.latency_ms is None else f"{trial.latency_ms:.3f}",
        verdict,
    )
