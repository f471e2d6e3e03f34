"""The curve of a fit as a picture: accuracy against share offloaded, the point that was chosen, and the promise."""

from __future__ import annotations

from typing import Any

from cloud_fallback.plot import (
    BLUE,
    GREEN,
    GREY,
    INK,
    LINE,
    ORANGE,
    TEXT,
    mark,
    new_figure,
    percent,
    render,
)
from cloud_fallback.threshold.examples import JointPoint
from cloud_fallback.threshold.fit import Fit, Promise
from cloud_fallback.threshold.tradeoff import Line, Tradeoff

__all__ = ["draw_curve"]


def draw_curve(tradeoff: Tradeoff, fit: Fit, *, suffix: str) -> bytes:
    """The picture's file.

    Args:
        tradeoff: The curve and the lines beside it.
        fit: The point that was chosen, or of which most can be promised.
        suffix: Type of the file, one that `require_plots` takes; the same curve gives the same bytes.
    """
    figure, (axes,) = new_figure()
    for axis in (axes.xaxis, axes.yaxis):
        percent(axis)
    axes.set_xlabel("share offloaded")
    axes.set_ylabel("accuracy of device and cloud together")
    _lines(axes, tradeoff)
    _promise(axes, fit)
    _caption(axes, tradeoff, fit)
    _limits(axes, tradeoff, fit)
    return render(figure, suffix)


def _lines(axes: Any, tradeoff: Tradeoff) -> None:
    axes.plot(*_columns(tradeoff.oracle), color=GREEN, linewidth=1.2, linestyle="--", label="oracle")
    shown = tradeoff.points
    name = "thresholds" if len(shown[0].thresholds) == 1 else "best thresholds of all tiers"
    axes.plot(
        [point.offloaded for point in shown],
        [point.accuracy for point in shown],
        color=BLUE,
        linewidth=2,
        label=f"{name}, {tradeoff.captured:.0%} of the area between",
    )
    axes.plot(*_columns(tradeoff.random), color=GREY, linewidth=1.2, linestyle="--", label="random")


def _promise(axes: Any, fit: Fit) -> None:
    """The limit that was asked for, the point, and the exact bound as a whisker from it."""
    point, color = fit.point, BLUE if fit.promised else ORANGE
    accuracy = fit.goal.promise is Promise.ACCURACY
    line = axes.axhline if accuracy else axes.axvline
    line(fit.goal.limit, color=ORANGE, linewidth=1, linestyle=":", label="asked for")
    end = (point.offloaded, fit.bound) if accuracy else (fit.bound, point.accuracy)
    axes.plot(
        *_columns(((point.offloaded, point.accuracy), end)),
        color=INK,
        linewidth=1.4,
        marker="_" if accuracy else "|",
        markevery=[1],
        markersize=9,
        zorder=4,
        clip_on=False,
    )
    mark(axes, point.offloaded, point.accuracy, color=color)


def _caption(axes: Any, tradeoff: Tradeoff, fit: Fit) -> None:
    """Figures of the point, in the lower corner that the lines leave free."""
    (_, alone), (_, cloud) = tradeoff.random
    is_right = cloud >= alone
    axes.text(
        0.975 if is_right else 0.025,
        0.05,
        _figures(fit.point, fit),
        transform=axes.transAxes,
        ha="right" if is_right else "left",
        va="bottom",
        fontsize=TEXT,
        color=INK,
        linespacing=1.4,
        bbox={"boxstyle": "round,pad=0.35", "fc": "white", "ec": LINE, "alpha": 0.92},
        zorder=6,
    )


def _figures(point: JointPoint, fit: Fit) -> str:
    # What was asked for is the promise; where it cannot be given, the bound is.
    limit = fit.goal.limit if fit.promised else fit.bound
    accuracy = fit.goal.promise is Promise.ACCURACY
    promise = f"≥ {limit:.2%} right" if accuracy else f"≤ {limit:.2%} offloaded"
    return (
        f"{point.accuracy:.2%} right, {point.offloaded:.1%} offloaded\n"
        f"{'promised' if fit.promised else 'at best, promised'}: {promise}, "
        f"with {fit.goal.confidence * 100:g}% confidence"
    )


def _limits(axes: Any, tradeoff: Tradeoff, fit: Fit) -> None:
    heights = [y for _, y in (*tradeoff.oracle, *tradeoff.random)]
    heights += [point.accuracy for point in tradeoff.points]
    if fit.goal.promise is Promise.ACCURACY:
        heights += [fit.goal.limit, fit.bound]
    room = max(0.06 * (max(heights) - min(heights)), 1e-3)
    axes.set_ylim(max(min(heights) - room, 0), min(max(heights) + room, 1 + room / 4))
    axes.set_xlim(0, 1)


def _columns(line: Line) -> tuple[tuple[float, ...], tuple[float, ...]]:
    shares, accuracies = zip(*line, strict=True)
    return shares, accuracies
