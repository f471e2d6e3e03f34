"""A plan as a picture: replicas over the share offloaded, late answers over replicas, accuracy over replicas."""

from __future__ import annotations

import io
from importlib import import_module
from pathlib import Path
from typing import Any

from cloud_fallback.capacity.plan import Plan
from cloud_fallback.capacity.queue import Queue
from edge_runtime.errors import ErrorCode, HybridgeError, missing_extra
from edge_runtime.files import write_file

__all__ = ["check_plot", "draw"]

_SUFFIXES = (".png", ".svg", ".pdf")
_INK, _SOFT, _LINE = "#0f172a", "#475569", "#dbe2ea"
_BLUE, _GREEN, _RED = "#2563eb", "#15803d", "#c81e1e"


def check_plot(path: str) -> None:
    """Refuses a plot that cannot be drawn, before anything is worked out for it.

    Raises:
        HybridgeError: `usage` for a file of another kind; `extra-missing` without matplotlib.
    """
    if Path(path).suffix not in _SUFFIXES:
        raise HybridgeError(
            ErrorCode.USAGE,
            "plot",
            received=f"'{path}'",
            expected=f"a file that ends in {', '.join(_SUFFIXES)}",
        )
    _library("matplotlib")


def draw(plan: Plan, path: str, *, overwrite: bool = False) -> None:
    """Writes the plot of a plan to a `.png`, `.svg` or `.pdf` file.

    Raises:
        HybridgeError: As `check_plot`; `file-exists`, `file-unwritable`.
    """
    check_plot(path)
    with_accuracy = plan.chosen.at.accuracy is not None
    panels = [
        _replicas_over_share,
        _late_over_replicas,
        *([_accuracy_over_replicas] if with_accuracy else []),
    ]
    # The object interface: pyplot would look for a display and keep every figure.
    figure = _library("matplotlib.figure").Figure(figsize=(4.6 * len(panels), 4.0))
    _library("matplotlib.backends.backend_agg").FigureCanvasAgg(figure)
    for place, panel in enumerate(panels, 1):
        panel(_axes(figure, len(panels), place), plan)
    figure.tight_layout()
    buffer = io.BytesIO()
    kind = Path(path).suffix[1:]
    # The same plan gives the same bytes.
    undated = {} if kind == "png" else {"metadata": {"Date" if kind == "svg" else "CreationDate": None}}
    with _library("matplotlib").rc_context({"svg.hashsalt": "hybridge"}):
        figure.savefig(buffer, format=kind, dpi=150, facecolor="white", **undated)
    write_file(path, buffer.getvalue(), overwrite=overwrite)


def _replicas_over_share(axes: Any, plan: Plan) -> None:
    shares = [100 * point.at.offloaded for point in plan.curve]
    own_lines = [point.staffing.replicas for point in plan.curve]
    one_line = [point.staffing.one_line for point in plan.curve]
    axes.plot(shares, own_lines, ".-", color=_BLUE, label="each with a line of its own")
    if one_line != own_lines:
        axes.plot(shares, one_line, "--", color=_SOFT, lw=1, label="one line for all")
        axes.legend(frameon=False, fontsize=8, labelcolor=_SOFT)
    _ring(axes, 100 * plan.chosen.at.offloaded, plan.chosen.staffing.replicas)
    axes.set_xlabel("predictions offloaded, %")
    axes.set_ylabel("replicas at the peak")
    axes.set_ylim(bottom=0)
    axes.yaxis.get_major_locator().set_params(integer=True)


def _late_over_replicas(axes: Any, plan: Plan) -> None:
    staffing, goal = plan.chosen.staffing, plan.goal
    axes.set_xlabel("replicas")
    axes.set_ylabel("late answers, %")
    if not staffing.replicas:
        return
    # Far below the target a model of this kind says nothing.
    lowest = goal.late / 1e3
    busy = staffing.arrivals_per_s * plan.replica.service.mean_s / plan.replica.workers
    needed = staffing.spare_away.replicas
    first = int(busy) + 1
    step = max(1, (2 * needed - first) // 40)
    counts = sorted({*range(first, max(2 * needed, staffing.replicas) + 1, step), needed, staffing.replicas})
    late = [
        Queue(staffing.arrivals_per_s / count, plan.replica.service, plan.replica.workers).late(goal.budget_s)
        for count in counts
    ]
    axes.semilogy(counts, [100 * max(share, lowest) for share in late], ".-", color=_BLUE)
    axes.axhline(100 * goal.late, color=_RED, lw=1, ls="--")
    axes.annotate(
        f"target {100 * goal.late:g}%",
        (1, 100 * goal.late),
        xycoords=axes.get_yaxis_transform(),
        xytext=(-2, 3),
        textcoords="offset points",
        ha="right",
        fontsize=8,
        color=_RED,
    )
    _ring(axes, staffing.replicas, 100 * max(staffing.all_up.late, lowest))
    axes.yaxis.set_major_formatter(_library("matplotlib.ticker").FuncFormatter(lambda share, _: f"{share:g}"))
    axes.xaxis.get_major_locator().set_params(integer=True)


def _accuracy_over_replicas(axes: Any, plan: Plan) -> None:
    best: dict[int, float] = {}
    for point in plan.curve:
        replicas, accuracy = point.staffing.replicas, 100 * (point.at.accuracy or 0)
        best[replicas] = max(accuracy, best.get(replicas, 0.0))
    axes.step(list(best), list(best.values()), ".-", where="post", color=_BLUE)
    _ring(axes, plan.chosen.staffing.replicas, 100 * (plan.chosen.at.accuracy or 0))
    axes.set_xlabel("replicas at the peak")
    axes.set_ylabel("accuracy of device and cloud, %")
    axes.xaxis.get_major_locator().set_params(integer=True)


def _ring(axes: Any, x: float, y: float) -> None:
    axes.plot(x, y, "o", ms=12, mew=2, mfc="none", mec=_GREEN, clip_on=False)


def _axes(figure: Any, columns: int, place: int) -> Any:
    axes = figure.add_subplot(1, columns, place)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(_SOFT)
    axes.tick_params(colors=_SOFT, labelsize=8)
    axes.xaxis.label.set_color(_INK)
    axes.yaxis.label.set_color(_INK)
    axes.grid(color=_LINE, linewidth=0.6)
    axes.set_axisbelow(True)
    return axes


def _library(name: str) -> Any:
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        raise missing_extra("plot", error.name or name) from error
