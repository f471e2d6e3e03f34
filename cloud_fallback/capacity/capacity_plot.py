"""A plan as a picture: replicas over the share offloaded, late answers over replicas, accuracy over replicas."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cloud_fallback.capacity.plan import Plan
from cloud_fallback.capacity.queue import Queue
from cloud_fallback.plot import BLUE, GREEN, ORANGE, SOFT, mark, new_figure, percent, render, require_plots
from edge_runtime.files import write_file

__all__ = ["draw"]

# What is less likely is drawn as this, as a logarithm has to end somewhere.
_LEAST = 1e-12


def draw(plan: Plan, path: str, *, overwrite: bool = False) -> None:
    """Writes the plot of a plan to a `.png`, `.svg` or `.pdf` file; the same plan gives the same bytes.

    Raises:
        HybridgeError: As `require_plots`; `file-exists`, `file-unwritable`.
    """
    require_plots(path)
    panels = [_replicas_over_share]
    if plan.chosen.staffing.replicas:
        panels.append(_late_over_replicas)
    if plan.chosen.at.accuracy is not None:
        panels.append(_accuracy_over_replicas)
    figure, every = new_figure(len(panels))
    for panel, axes in zip(panels, every, strict=True):
        panel(axes, plan)
    write_file(path, render(figure, Path(path).suffix), overwrite=overwrite)


def _replicas_over_share(axes: Any, plan: Plan) -> None:
    shares = [point.at.offloaded for point in plan.curve]
    own_lines = [point.staffing.replicas for point in plan.curve]
    one_line = [point.staffing.one_line for point in plan.curve]
    axes.plot(shares, own_lines, ".-", color=BLUE, label="each replica with a line of its own")
    if one_line != own_lines:
        axes.plot(shares, one_line, "--", color=SOFT, linewidth=1.2, label="one line for all")
    mark(axes, plan.chosen.at.offloaded, plan.chosen.staffing.replicas, color=GREEN, label="planned")
    axes.set_xlabel("share offloaded")
    axes.set_ylabel("replicas at the peak")
    axes.set_ylim(bottom=0)
    percent(axes.xaxis)
    _whole(axes.yaxis)


def _late_over_replicas(axes: Any, plan: Plan) -> None:
    staffing, goal = plan.chosen.staffing, plan.goal
    busy = staffing.arrivals_per_s * plan.replica.service.mean_s / plan.replica.workers
    needed = staffing.spare_away.replicas
    first = int(busy) + 1
    step = max(1, (2 * needed - first) // 40)
    late = {
        count: Queue(staffing.arrivals_per_s / count, plan.replica.service, plan.replica.workers).late(
            goal.budget_s
        )
        for count in sorted({*range(first, 2 * needed + 1, step), needed, staffing.replicas})
    }
    # Beyond the plan, and far below the target, a model of this kind says nothing.
    shown = {
        count: max(share, _LEAST)
        for count, share in late.items()
        if share >= goal.late / 1e3 or count <= staffing.replicas
    }
    axes.semilogy(list(shown), list(shown.values()), ".-", color=BLUE)
    axes.axhline(goal.late, color=ORANGE, linewidth=1, linestyle=":", label="most that may be late")
    mark(axes, staffing.replicas, shown[staffing.replicas], color=GREEN)
    axes.set_xlabel("replicas at the peak")
    axes.set_ylabel("share of late answers")
    percent(axes.yaxis)
    _percent_between(axes.yaxis)
    _whole(axes.xaxis)


def _accuracy_over_replicas(axes: Any, plan: Plan) -> None:
    best: dict[int, float] = {}
    for point in plan.curve:
        replicas, accuracy = point.staffing.replicas, point.at.accuracy or 0.0
        best[replicas] = max(accuracy, best.get(replicas, 0.0))
    axes.step(list(best), list(best.values()), ".-", where="post", color=BLUE)
    mark(axes, plan.chosen.staffing.replicas, plan.chosen.at.accuracy or 0.0, color=GREEN)
    axes.set_xlabel("replicas at the peak")
    axes.set_ylabel("accuracy of device and cloud together")
    percent(axes.yaxis)
    _whole(axes.xaxis)


def _percent_between(axis: Any) -> None:
    """Has some of the ticks between powers of ten written as percentages, where there is but one such power or none."""
    from matplotlib.ticker import FuncFormatter

    low, high = axis.get_view_interval()
    is_short = high < 20 * low
    axis.set_minor_formatter(
        FuncFormatter(
            lambda share, _: f"{share * 100:.6g}%" if is_short and f"{share:e}"[0] in "2357" else ""
        )
    )


def _whole(axis: Any) -> None:
    """Has the counts along an axis written as such."""
    from matplotlib.ticker import MaxNLocator, StrMethodFormatter

    axis.set_major_locator(MaxNLocator("auto", integer=True))
    axis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
