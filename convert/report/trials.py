"""What a search tried, and which trials are worth having."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from convert.report.content import ReportContent, TrialRow
from convert.report.markup import Raw, bytes_text, percent, points, section, table
from convert.report.plots import pareto_plot

__all__ = ["trials_section"]

_Read: TypeAlias = Callable[[TrialRow], float | None]
_Show: TypeAlias = Callable[[float], str]
_NOISE = "signal to noise"
_COLUMNS: tuple[tuple[str, _Read, _Show], ...] = (
    ("on disk", lambda trial: trial.size, bytes_text),
    ("over the air", lambda trial: trial.deflated, bytes_text),
    ("points", lambda trial: None if trial.drop is None else -trial.drop, points),
    ("same class", lambda trial: trial.agreement, percent),
    (_NOISE, lambda trial: trial.snr_db, lambda ratio: f"{ratio:.1f} dB"),
    ("latency", lambda trial: trial.latency_ms, lambda time: f"{time:.3g} ms"),
    ("took", lambda trial: trial.seconds, lambda time: f"{time:.1f} s"),
)


def trials_section(content: ReportContent) -> Raw:
    """The Pareto plot and a line for each trial."""
    trials = content.trials
    if not trials:
        return Raw("")
    loss, title, limit = _loss(content)
    made = [trial for trial in trials if trial.size is not None]
    budget = content.budget
    plot: str = ""
    if any(loss(trial) is not None for trial in made):
        plot = pareto_plot(
            made,
            loss,
            title,
            most_loss=limit,
            most_size=budget.max_size if budget else None,
            most_latency_ms=budget.max_latency_ms if budget else None,
        )
    order = sorted(trials, key=lambda each: (each.size is None, each.size or 0))
    columns = [column for column in _COLUMNS if any(column[1](trial) is not None for trial in trials)]
    # Where classes tell what was lost, the ratio only fills the page.
    if any(trial.drop is not None or trial.agreement is not None for trial in trials):
        columns = [column for column in columns if column[0] != _NOISE]
    header = ("recipe", *(name for name, _, _ in columns), "")
    rows = [
        (trial.name, *(_cell(trial, read, show) for _, read, show in columns), _remark(trial))
        for trial in order
    ]
    return section(
        "Recipes that were tried",
        plot,
        table(header, rows, tones=[_tone(each) for each in order], ends_in_prose=True),
        about="Blue: no other recipe beats it in loss, size and latency together. Filled: within the budget, "
        "whose limits are dashed. Ringed in green: chosen.",
    )


def _loss(content: ReportContent) -> tuple[Callable[[TrialRow], float | None], str, float | None]:
    """What trials lose, the most telling that was measured: its title and its limit, in the same unit."""
    budget = content.budget
    if any(trial.drop is not None for trial in content.trials):
        limit = budget.max_drop if budget else None
        return lambda trial: _hundred(trial.drop), "accuracy lost, points", _hundred(limit)
    if any(trial.agreement is not None for trial in content.trials):
        least = budget.min_agreement if budget else None
        return (
            lambda trial: None if trial.agreement is None else 100 - trial.agreement * 100,
            "class changed, %",
            None if least is None else 100 - least * 100,
        )
    return lambda trial: None if trial.snr_db is None else -trial.snr_db, "noise to signal, dB", None


def _hundred(share: float | None) -> float | None:
    return None if share is None else share * 100


def _cell(trial: TrialRow, read: _Read, show: _Show) -> str:
    value = read(trial)
    return "-" if value is None else show(value)


def _remark(trial: TrialRow) -> str:
    said = ["chosen" if trial.chosen else "", trial.note, "made by an earlier search" if trial.cached else ""]
    return "; ".join(each for each in said if each)


def _tone(trial: TrialRow) -> str:
    if trial.chosen:
        return "chosen front" if trial.on_front else "chosen"
    if trial.on_front:
        return "front"
    return "faint" if trial.size is None or not trial.within_budget else ""
