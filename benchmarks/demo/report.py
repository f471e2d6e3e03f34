"""The demo's report: one HTML page with its plots inside."""

from __future__ import annotations

import html
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.demo.digits import FULL_SCALE, Samples
from benchmarks.demo.scenario import Scenario
from cloud_fallback import sweep
from edge_runtime import Source, __version__
from edge_runtime.errors import missing_extra
from edge_runtime.latency import machine_name
from edge_runtime.manifest import Confidence

__all__ = ["render_report", "require_plots", "summary_rows"]

_BLUE, _ORANGE, _GREY, _GREEN = "#2563eb", "#ea580c", "#94a3b8", "#16a34a"
_EXAMPLES = 8
_TITLES = {
    "online": "the cloud is up",
    "slow": "the cloud is slower than the deadline",
    "offline": "the cloud is gone",
}

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>hybridge demo</title><style>
body {{ font: 16px/1.5 system-ui, sans-serif; color: #0f172a; max-width: 62rem; margin: 2rem auto; padding: 0 1rem }}
h1 {{ margin-bottom: 0 }} h2 {{ margin-top: 2.5rem }} .lead {{ font-size: 1.15rem; color: #334155 }}
table {{ border-collapse: collapse; width: 100% }} .wide {{ overflow-x: auto }}
th, td {{ padding: .35rem .5rem; font-size: .92rem; text-align: right; white-space: nowrap }}
td {{ border-bottom: 1px solid #e2e8f0 }}
th:first-child, td:first-child {{ text-align: left }} th {{ color: #475569; font-weight: 600 }}
figure {{ margin: 1rem 0 }} figcaption {{ color: #475569 }}
figure svg {{ width: 100%; height: auto }}
footer {{ margin-top: 3rem; color: #64748b; font-size: .9rem }} code {{ background: #f1f5f9; padding: 0 .25em }}
</style></head><body>
<h1>A device that asks when it is unsure</h1>
<p class="lead">{lead}</p>
<h2>What each way of answering reached</h2><div class="wide">{accuracy_table}</div>
<figure>{accuracy_plot}</figure>
<h2>When the device asks</h2>
<figure>{curve_plot}<figcaption>{curve_caption}</figcaption></figure>
<h2>What it costs in time</h2><div class="wide">{latency_table}</div>
<figure>{latency_plot}<figcaption>Time of each answer of the hybrid chain, by where it came from.</figcaption></figure>
<h2>What the cloud corrected</h2><figure>{examples_plot}<figcaption>{examples_caption}</figcaption></figure>
<h2>What was carried to the device</h2><div class="wide">{bundle_table}</div>
<footer>hybridge {version} on {machine}. Figures are of {samples} images that neither training nor the choice of the
threshold saw. Made by <code>hybridge demo</code>.</footer></body></html>
"""


def require_plots() -> None:
    """Says at once when the plotting library is missing, rather than after minutes of work.

    Raises:
        HybridgeError: `extra-missing`.
    """
    try:
        import matplotlib  # noqa: F401
    except ModuleNotFoundError as error:
        raise missing_extra("bench", "matplotlib") from error


def render_report(
    scenarios: Sequence[Scenario],
    samples: Samples,
    confidence: Confidence,
    bundles: Mapping[str, Mapping[str, Any]],
) -> str:
    """The page, with nothing outside itself.

    Args:
        scenarios: The conditions of the cloud; the first is the one with the cloud up.
        samples: The images they ran on.
        confidence: The device's confidence, with its curve and threshold.
        bundles: For each bundle by name, rows of what is said about it.
    """
    online = scenarios[0]
    figures = online.figures()
    accuracy = figures["accuracy"]
    corrected = _corrected(online)
    spoiled = int(np.sum((online.device.digits == online.labels) & (online.hybrid.digits != online.labels)))
    return _PAGE.format(
        lead=(
            f"A model of {bundles['device']['bytes']:,} bytes reads handwritten digits right {accuracy['device']:.1%} "
            f"of the time. Asking a larger one about the {figures['offloaded']:.1%} it is least sure of makes that "
            f"{accuracy['hybrid']:.1%}; asking about every image would make it {accuracy['cloud']:.1%}. When the "
            "cloud is slow or gone, the device's own answer stands."
        ),
        accuracy_table=_table(*summary_rows(scenarios)),
        accuracy_plot=_accuracy_plot(scenarios),
        curve_plot=_curve_plot(confidence, online),
        curve_caption=(
            f"Each point is a threshold. The one chosen, on the validation images, asks below a confidence of "
            f"{confidence.threshold:.3f}; the cross is what it came to on the held-back images."
        ),
        latency_table=_table(*_latency_rows(scenarios)),
        latency_plot=_latency_plot(scenarios),
        examples_plot=_examples_plot(samples, online, corrected),
        examples_caption=(
            f"{len(corrected)} images that the device alone got wrong and the hybrid got right"
            f"{f', {_EXAMPLES} of them shown' if len(corrected) > _EXAMPLES else ''}; {spoiled} went the other way."
        ),
        bundle_table=_bundle_table(bundles),
        version=__version__,
        machine=html.escape(machine_name()),
        samples=len(samples),
    )


def summary_rows(scenarios: Sequence[Scenario]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Header and rows of the table that sums up the conditions."""
    header = (
        "condition",
        "device alone",
        "hybrid",
        "cloud alone",
        "offloaded",
        "device p50 / p95",
        "cloud p50 / p95",
    )
    rows: list[tuple[str, ...]] = []
    for scenario in scenarios:
        figures = scenario.figures()
        accuracy, latency = figures["accuracy"], figures["latency_ms"]
        by_source = [latency.get(f"hybrid_{source}") for source in (Source.DEVICE, Source.CLOUD)]
        shares = [accuracy[way] for way in ("device", "hybrid", "cloud")] + [figures["offloaded"]]
        times = [f"{each['p50']:.2f} / {each['p95']:.2f} ms" if each else "-" for each in by_source]
        rows.append((_TITLES[scenario.name], *(f"{share:.1%}" for share in shares), *times))
    return header, rows


def _latency_rows(scenarios: Sequence[Scenario]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    rows: list[tuple[str, ...]] = []
    for scenario in scenarios:
        for reason in sorted(set(scenario.hybrid.reasons)):
            chosen = np.asarray(scenario.hybrid.reasons) == reason
            milliseconds = scenario.hybrid.seconds[chosen] * 1e3
            rows.append(
                (
                    _TITLES[scenario.name],
                    reason,
                    str(int(chosen.sum())),
                    f"{np.median(milliseconds):.2f}",
                    f"{np.percentile(milliseconds, 95):.2f}",
                    f"{scenario.deadline_ms:.0f}",
                )
            )
    return ("condition", "why the answer came from there", "answers", "p50 ms", "p95 ms", "deadline ms"), rows


def _corrected(scenario: Scenario) -> list[int]:
    right = (scenario.device.digits != scenario.labels) & (scenario.hybrid.digits == scenario.labels)
    return [int(index) for index in np.flatnonzero(right)]


def _accuracy_plot(scenarios: Sequence[Scenario]) -> str:
    figure, axes = _figure(8, 3)
    ways = (("device", _GREY), ("hybrid", _BLUE), ("cloud", _ORANGE))
    for place, (way, color) in enumerate(ways):
        values = [scenario.figures()["accuracy"][way] * 100 for scenario in scenarios]
        at = np.arange(len(scenarios)) + (place - 1) * 0.26
        bars = axes.bar(at, values, 0.24, color=color, label=f"{way} alone" if way != "hybrid" else way)
        axes.bar_label(bars, fmt="%.1f", fontsize=8, padding=2)
    axes.set_xticks(range(len(scenarios)), [_TITLES[scenario.name] for scenario in scenarios])
    axes.set_ylabel("accuracy, %")
    axes.set_ylim(0, 125)
    axes.legend(ncols=3, loc="upper center", frameon=False, fontsize=9)
    return _svg(figure)


def _curve_plot(confidence: Confidence, online: Scenario) -> str:
    figure, axes = _figure(8, 3.6)
    right = (online.device.digits == online.labels, online.cloud.digits == online.labels)
    held_back = sweep(online.device.confidences, *right)
    for curve, style, color, label in (
        (confidence.curve, ".-", _BLUE, "validation images"),
        (held_back, "-", _ORANGE, "held-back images"),
    ):
        axes.plot(
            [p.offloaded * 100 for p in curve],
            [p.accuracy * 100 for p in curve],
            style,
            color=color,
            label=label,
        )
    ends = (held_back[0].accuracy * 100, held_back[-1].accuracy * 100)
    axes.plot((0, 100), ends, "--", color=_GREY, label="held-back images, asked at random")
    chosen = min(confidence.curve, key=lambda point: abs(point.threshold - (confidence.threshold or 0.0)))
    axes.plot(
        chosen.offloaded * 100, chosen.accuracy * 100, "o", ms=11, mfc="none", color=_GREEN, label="chosen"
    )
    reached = (online.hybrid.share(Source.CLOUD) * 100, online.hybrid.accuracy(online.labels) * 100)
    axes.plot(*reached, "x", ms=9, mew=2, color=_GREEN, label="what it came to")
    axes.set_xlabel("share of images sent to the cloud, %")
    axes.set_ylabel("accuracy, %")
    axes.legend(frameon=False, fontsize=9)
    return _svg(figure)


def _latency_plot(scenarios: Sequence[Scenario]) -> str:
    figure, axes = _figure(8, 3.2)
    styles = ("-", "--", ":")
    for scenario, style in zip(scenarios, styles, strict=False):
        sources = np.asarray(scenario.hybrid.sources)
        for source, color in ((Source.DEVICE, _BLUE), (Source.CLOUD, _ORANGE)):
            milliseconds = np.sort(scenario.hybrid.seconds[sources == source] * 1e3)
            if milliseconds.size:
                share = np.arange(1, milliseconds.size + 1) / milliseconds.size * 100
                axes.step(
                    milliseconds,
                    share,
                    style,
                    color=color,
                    where="post",
                    label=f"{source}, {_TITLES[scenario.name]}",
                )
    axes.axvline(scenarios[0].deadline_ms, color=_GREY, linewidth=1)
    axes.annotate(
        "deadline", (scenarios[0].deadline_ms, 4), color="#475569", fontsize=8, ha="right", rotation=90
    )
    axes.set_xscale("log")
    axes.set_xlabel("milliseconds")
    axes.set_ylabel("share of answers, %")
    axes.legend(frameon=False, fontsize=8, loc="center right")
    return _svg(figure)


def _examples_plot(samples: Samples, scenario: Scenario, corrected: Sequence[int]) -> str:
    from matplotlib.figure import Figure

    shown = corrected[:_EXAMPLES]
    figure = Figure(figsize=(8, 1.75))
    for place, index in enumerate(shown):
        axes = figure.add_subplot(1, _EXAMPLES, place + 1)
        axes.imshow(
            samples.images[index, :, :, 0], cmap="gray_r", vmin=0, vmax=FULL_SCALE, interpolation="nearest"
        )
        axes.set_title(
            f"device {scenario.device.digits[index]} ({scenario.device.confidences[index]:.0%})\n"
            f"cloud {scenario.hybrid.digits[index]} ({scenario.hybrid.confidences[index]:.0%})",
            fontsize=7.5,
        )
        axes.set_axis_off()
    return _svg(figure)


def _figure(width: float, height: float) -> tuple[Any, Any]:
    # The object interface: pyplot would look for a display and keep every figure.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height))
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _svg(figure: Any) -> str:
    from matplotlib import rc_context

    buffer = io.StringIO()
    figure.tight_layout()
    with rc_context({"svg.hashsalt": "hybridge"}):  # identifiers that are the same every time
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue().partition("<svg")[1] + buffer.getvalue().partition("<svg")[2]


def _bundle_table(bundles: Mapping[str, Mapping[str, Any]]) -> str:
    names = list(next(iter(bundles.values())))
    rows = []
    for bundle, facts in bundles.items():
        cells = [f"{fact:,}" if isinstance(fact, int) else str(fact) for fact in facts.values()]
        rows.append((bundle, *cells))
    return _table(("runs on", *names), rows)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    def line(cells: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    return f"<table>{line(header, 'th')}{''.join(line(row, 'td') for row in rows)}</table>"
