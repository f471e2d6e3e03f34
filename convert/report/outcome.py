"""What a conversion came to: the verdict, its figures, accuracy by slice, confusion and parity."""

from __future__ import annotations

import math

from convert.report.content import ReportContent, TrialRow
from convert.report.markup import (
    Raw,
    bars,
    bytes_text,
    card,
    dumbbells,
    escaped,
    paragraphs,
    percent,
    points,
    section,
    table,
)
from convert.verification import Confusion, Drop
from edge_runtime.manifest import Accuracy, Metrics, Size, Slice

__all__ = ["accuracy_section", "cards", "confusion_section", "parity_section", "size_section", "verdict"]

_SLICES_SHOWN = 30


def verdict(content: ReportContent) -> str:
    """The page in a sentence or two."""
    sentences = []
    if content.trials:
        sentences.append(_search_verdict(content))
    if content.manifest is not None:
        name = content.manifest.lineage.recipe if content.manifest.lineage else content.manifest.name
        missed = content.trials and not any(trial.chosen for trial in content.trials)
        sentences.append(
            _conversion_verdict(content.manifest.metrics, f"The nearest, {name}," if missed else name)
        )
    if content.sensitivity and content.manifest is None and not content.trials:
        worst = content.sensitivity[0]
        cost = "nothing" if worst.snr_db is None else f"most: {worst.snr_db:.1f} dB of signal to noise remain"
        sentences.append(
            f"Of {len(content.sensitivity)} layers, quantising {worst.layer} alone costs {cost}."
        )
    if content.drop is not None and content.manifest is not None:
        sentences.append(_drop_text(content.drop))
    return " ".join(sentences)


def cards(content: ReportContent) -> Raw:
    """The figures that matter, side by side."""
    if content.manifest is None:
        return Raw("")
    metrics = content.manifest.metrics
    size, accuracy, parity = metrics.size, metrics.accuracy, metrics.parity
    found = []
    if accuracy is not None:
        found.append(
            card(
                "accuracy",
                percent(accuracy.converted),
                f"{points(-accuracy.drop)} points from {percent(accuracy.source)}, {accuracy.samples:,} samples",
                tone=_tone(content, "drop"),
            )
        )
    if size is not None:
        times = f"{size.source / size.model:.1f}x smaller than the weights" if size.model else ""
        found.append(card("on disk", bytes_text(size.model), times, tone=_tone(content, "size")))
        found.append(card("over the air", bytes_text(size.deflated), f"{size.deflated:,} bytes deflated"))
    if parity is not None and parity.label_agreement is not None:
        found.append(
            card(
                "same class as the source",
                percent(parity.label_agreement),
                f"on {parity.samples:,} {'generated' if parity.data == 'generated' else 'given'} samples",
                tone=_tone(content, "agreement"),
            )
        )
    if parity is not None:
        snr = "identical" if parity.snr_db is None else f"{parity.snr_db:.1f} dB"
        found.append(card("signal to noise", snr, f"largest error {parity.max_abs_error:.3g}"))
    for latency in metrics.latency[:1]:
        threads = "one thread" if latency.num_threads == 1 else f"{latency.num_threads} threads"
        found.append(
            card(
                "a run takes",
                f"{latency.median_ms:.3g} ms",
                f"p95 {latency.p95_ms:.3g} ms, {threads}, {latency.machine}",
                tone=_tone(content, "latency"),
            )
        )
    return Raw(f'<div class="cards">{"".join(found)}</div>' if found else "")


def size_section(content: ReportContent) -> Raw:
    """Bytes before and after."""
    size = content.manifest.metrics.size if content.manifest else None
    if size is None:
        return Raw("")
    rows = [
        ("source's weights", float(size.source), f"{size.source:,} bytes", "grey"),
        ("model on disk", float(size.model), _shrunk(size.model, size), "blue"),
        ("over the air", float(size.deflated), _shrunk(size.deflated, size), "green"),
    ]
    return section("Size", bars(rows), about="Over the air is the model deflated, as an update travels.")


def accuracy_section(content: ReportContent) -> Raw:
    """Accuracy in total and of each slice, the worst hit first."""
    accuracy = content.manifest.metrics.accuracy if content.manifest else None
    if accuracy is None:
        return Raw("")
    low = _low_end(accuracy)
    parts = [dumbbells([_dumbbell("all", accuracy)], low=low)]
    for name in dict.fromkeys(each.name for each in accuracy.slices):
        group = sorted((each for each in accuracy.slices if each.name == name), key=lambda each: -each.drop)
        rows = [_dumbbell(each.value, each) for each in group[:_SLICES_SHOWN]]
        rest = len(group) - len(rows)
        more = [f"{rest} more lose less; the bundle's manifest has them all."] if rest else []
        parts += [Raw(f"<h3>By {escaped(name)}</h3>"), dumbbells(rows, low=low), paragraphs(more, "about")]
    about = "Hollow: the source. Filled: the converted model."
    return section(
        "Accuracy", *parts, about=f"{about} Those that lose most come first." if accuracy.slices else about
    )


def confusion_section(content: ReportContent) -> Raw:
    """The mistakes that a conversion added."""
    confusion = content.confusion
    if confusion is None:
        return Raw("")
    worse = confusion.worsened()
    names = content.class_names
    rows = [
        (
            _class_name(each.true, names),
            _class_name(each.predicted, names),
            each.before,
            each.after,
            f"+{each.after - each.before}",
            ", ".join(map(str, each.examples)),
        )
        for each in worse
    ]
    counts = (
        f"{len(confusion.lost):,} samples that the source had right are wrong now, and {len(confusion.won):,} the "
        f"other way; {_unchanged(confusion):,} stayed as they were."
    )
    shown = table(
        ("true class", "taken for", "before", "after", "more", "samples, for example"), rows, text_columns=2
    )
    return section(
        "Confusion that got worse",
        shown or paragraphs(["No pair of classes is mistaken more often."], "note"),
        about=counts,
    )


def parity_section(content: ReportContent) -> Raw:
    """How each output differs."""
    rows = [
        (
            each.name,
            "identical" if each.snr_db is None and each.max_abs_error == 0 else _decibels(each.snr_db),
            "-" if each.cosine is None else f"{each.cosine:.6f}",
            f"{each.max_abs_error:.3g}",
            f"{each.mean_abs_error:.3g}",
            percent(each.relative_error),
        )
        for each in content.parity
    ]
    header = ("output", "signal to noise", "cosine", "largest error", "mean error", "largest of range")
    return section("Parity with the source", table(header, rows))


def _conversion_verdict(metrics: Metrics, name: str) -> str:
    accuracy, size, parity = metrics.accuracy, metrics.size, metrics.parity
    kept = ""
    if accuracy is not None:
        kept = f"keeps {percent(accuracy.converted, 1)} accuracy of {percent(accuracy.source, 1)}"
    elif parity is not None and parity.label_agreement is not None:
        kept = f"gives the same class on {percent(parity.label_agreement, 1)} of the samples"
    elif parity is not None:
        kept = (
            "gives the same outputs"
            if parity.snr_db is None
            else f"keeps {parity.snr_db:.1f} dB of signal to noise"
        )
    parts = [kept] if kept else []
    if size is not None:
        parts.append(
            f"{bytes_text(size.model)} instead of {bytes_text(size.source)} "
            f"({_ratio(size)}; {bytes_text(size.deflated)} over the air)"
        )
    return f"{name} {', '.join(parts)}." if parts else ""


def _search_verdict(content: ReportContent) -> str:
    made = sum(trial.size is not None for trial in content.trials)
    chosen = next((trial for trial in content.trials if trial.chosen), None)
    tried = (
        f"{len(content.trials)} recipes"
        if made == len(content.trials)
        else f"{len(content.trials)} recipes ({made} made a model)"
    )
    if chosen is None:
        return f"None of {tried} is within the budget."
    return f"{chosen.name} is the smallest of {tried} within the budget{_trial_figures(chosen, content)}."


def _trial_figures(trial: TrialRow, content: ReportContent) -> str:
    if content.manifest is not None or trial.size is None:
        return ""  # said by the conversion's own sentence
    lost = "" if trial.drop is None else f", {points(-trial.drop)} points"
    return f": {bytes_text(trial.size)}{lost}"


def _drop_text(drop: Drop) -> str:
    interval = f"{points(drop.low)} to {points(drop.high)} points at {drop.confidence:.0%} confidence"
    sure = "is more than chance" if drop.is_certain else "may be chance"
    change = "drop" if drop.value >= 0 else "gain"
    return (
        f"The {change} of {abs(drop.value) * 100:.2f} points on {drop.samples:,} samples {sure}: "
        f"the true drop is within {interval}."
    )


def _tone(content: ReportContent, what: str) -> str:
    budget = content.budget
    limits = {
        "drop": budget and budget.max_drop,
        "size": budget and budget.max_size,
        "latency": budget and budget.max_latency_ms,
        "agreement": budget and budget.min_agreement,
    }
    if limits[what] is None:
        return ""
    # Misses are sentences that begin with what is out of bounds.
    return "bad" if any(miss.startswith(what) for miss in content.misses) else "good"


def _dumbbell(label: str, accuracy: Accuracy | Slice) -> tuple[str, float, float, str]:
    figures = f"{percent(accuracy.converted, 1)} ({points(-accuracy.drop)}) of {accuracy.samples:,}"
    return label, accuracy.source, accuracy.converted, figures


def _low_end(accuracy: Accuracy) -> float:
    """Where the axis begins, a multiple of five points."""
    every: tuple[Accuracy | Slice, ...] = (accuracy, *accuracy.slices)
    lowest = min(min(each.source, each.converted) for each in every)
    return max(math.floor(lowest * 20 - 0.2), 0) / 20


def _unchanged(confusion: Confusion) -> int:
    return int(confusion.source.sum()) - len(confusion.lost) - len(confusion.won)


def _class_name(index: int, names: tuple[str, ...]) -> str:
    return names[index] if index < len(names) else str(index)


def _decibels(ratio: float | None) -> str:
    return "-" if ratio is None else f"{ratio:.1f} dB"


def _shrunk(count: int, size: Size) -> str:
    return f"{count:,} bytes, {count / size.source:.2f}x" if size.source else f"{count:,} bytes"


def _ratio(size: Size) -> str:
    if not size.model or not size.source:
        return "no weights"
    times = size.source / size.model
    return f"{times:.1f}x smaller" if times >= 1 else f"{1 / times:.2f}x larger"
