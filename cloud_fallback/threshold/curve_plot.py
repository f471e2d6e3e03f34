"""The curve of a fit as a picture: accuracy against share offloaded, the point that was chosen, and the promise."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from cloud_fallback.threshold.examples import JointPoint
from cloud_fallback.threshold.fit import Fit, Promise
from cloud_fallback.threshold.tradeoff import Line, Tradeoff
from edge_runtime.errors import ErrorCode, HybridgeError, missing_extra

__all__ = ["PLOT_TYPES", "draw_curve", "require_plots"]

PLOT_TYPES = (".png", ".svg", ".pdf")

# The colours of the conversion's reports.
_INK, _SOFT, _LINE = "#0f172a", "#475569", "#dbe2ea"
_BLUE, _ORANGE, _GREEN, _GREY = "#2563eb", "#ea580c", "#15803d", "#94a3b8"
_TEXT = 9


def require_plots(path: str) -> None:
    """Says at once, rather than after the work, that there will be no picture.

    Raises:
        HybridgeError: `usage` for a name of another type, `extra-missing` without matplotlib.
    """
    if Path(path).suffix.lower() not in PLOT_TYPES:
        raise HybridgeError(
            ErrorCode.USAGE,
            f"plot '{path}'",
            received=f"'{Path(path).suffix}'",
            expected=f"a name that ends in {', '.join(PLOT_TYPES)}",
        )
    try:
        import matplotlib  # noqa: F401
    except ModuleNotFoundError as error:
        raise missing_extra("plot", "matplotlib") from error


def draw_curve(tradeoff: Tradeoff, fit: Fit, *, suffix: str) -> bytes:
    """The picture's file.

    Args:
        tradeoff: The curve and the lines beside it.
        fit: The point that was chosen, or of which most can be promised.
        suffix: Type of the file, one of `PLOT_TYPES`; the same curve gives the same bytes.
    """
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # The object interface: pyplot would look for a display and keep every figure.
    figure = Figure(figsize=(7.2, 4.6), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    _style(axes)
    _lines(axes, tradeoff)
    _promise(axes, fit)
    _limits(axes, tradeoff, fit)
    figure.legend(loc="outside upper left", ncols=4, frameon=False, fontsize=_TEXT, labelcolor=_SOFT)
    buffer = io.BytesIO()
    kind = suffix.lower().removeprefix(".")
    dateless = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}
    # Identifiers that are the same every time.
    with rc_context({"svg.hashsalt": "hybridge"}):
        figure.savefig(buffer, format=kind, dpi=130, metadata=dateless.get(kind))
    return buffer.getvalue()


def _style(axes: Any) -> None:
    from matplotlib.ticker import FuncFormatter

    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(_GREY)
    axes.tick_params(colors=_SOFT, labelsize=_TEXT)
    axes.grid(color=_LINE, linewidth=0.6)
    axes.set_axisbelow(True)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda share, _: f"{share * 100:.6g}%"))
        axis.label.set_color(_SOFT)
    axes.set_xlabel("share offloaded")
    axes.set_ylabel("accuracy of device and cloud together")


def _lines(axes: Any, tradeoff: Tradeoff) -> None:
    axes.plot(*_columns(tradeoff.oracle), color=_GREEN, linewidth=1.2, linestyle="--", label="oracle")
    shown = tradeoff.points
    name = "thresholds" if len(shown[0].thresholds) == 1 else "best thresholds of all tiers"
    axes.plot(
        [point.offloaded for point in shown],
        [point.accuracy for point in shown],
        color=_BLUE,
        linewidth=2,
        label=f"{name}, {tradeoff.captured:.0%} of the area between",
    )
    axes.plot(*_columns(tradeoff.random), color=_GREY, linewidth=1.2, linestyle="--", label="random")


def _promise(axes: Any, fit: Fit) -> None:
    """The limit that was asked for, the point, and the exact bound as a whisker from it."""
    point, color = fit.point, _BLUE if fit.promised else _ORANGE
    accuracy = fit.goal.promise is Promise.ACCURACY
    line = axes.axhline if accuracy else axes.axvline
    line(fit.goal.limit, color=_ORANGE, linewidth=1, linestyle=":", label="asked for")
    end = (point.offloaded, fit.bound) if accuracy else (fit.bound, point.accuracy)
    axes.plot(
        *_columns(((point.offloaded, point.accuracy), end)),
        color=_INK,
        linewidth=1.4,
        marker="_" if accuracy else "|",
        markevery=[1],
        markersize=9,
        zorder=4,
        clip_on=False,
    )
    axes.plot(
        point.offloaded, point.accuracy, "o", ms=8, mfc=color, mec="white", mew=1.5, zorder=5, clip_on=False
    )
    beside = 14 if point.offloaded < 0.55 else -14
    axes.annotate(
        _caption(point, fit),
        (point.offloaded, point.accuracy),
        (beside, -14),
        textcoords="offset points",
        ha="left" if beside > 0 else "right",
        va="top",
        fontsize=_TEXT,
        color=_INK,
        linespacing=1.4,
        bbox={"boxstyle": "round,pad=0.35", "fc": "white", "ec": _LINE, "alpha": 0.92},
        zorder=6,
    )


def _caption(point: JointPoint, fit: Fit) -> str:
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
