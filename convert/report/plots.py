"""Plots with axes, as SVG whose colours follow the reader's light or dark scheme."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from itertools import accumulate
from math import hypot
from operator import itemgetter
from typing import Any, TypeAlias

from convert.libraries import load_library
from convert.report.content import EpochRow, TrialRow
from convert.report.markup import Raw
from convert.report.style import COLORS

__all__ = ["pareto_plot", "training_plot"]

_TEXT_SIZE = 9
# Where a label may go around its point, in points: right, left, above, below, and the corners.
_BESIDE = (
    (7, 0, "left", "center"),
    (-7, 0, "right", "center"),
    (0, 7, "center", "bottom"),
    (0, -7, "center", "top"),
    (6, 6, "left", "bottom"),
    (6, -6, "left", "top"),
    (-6, 6, "right", "bottom"),
    (-6, -6, "right", "top"),
)
# Farther away, with a line to the point.
_AWAY = (
    (26, 26, "left", "bottom"),
    (-26, 26, "right", "bottom"),
    (26, -26, "left", "top"),
    (-26, -26, "right", "top"),
    (44, 44, "left", "bottom"),
    (44, -44, "left", "top"),
    (-44, -44, "right", "top"),
    (60, 8, "left", "center"),
    (-60, 8, "right", "center"),
)
# Above that ratio of largest to smallest an axis is logarithmic.
_WIDE = 6.0

_Cost: TypeAlias = Callable[[TrialRow], float | None]


def pareto_plot(
    trials: Sequence[TrialRow],
    loss: _Cost,
    loss_title: str,
    *,
    most_loss: float | None = None,
    most_size: int | None = None,
    most_latency_ms: float | None = None,
) -> Raw:
    """What each trial loses, over its size, and over its latency where that was measured.

    Args:
        trials: Those with a model.
        loss: What one loses, in the unit of the axis.
        loss_title: Name and unit of that axis.
        most_loss: The limit on it.
        most_size: The limit on bytes.
        most_latency_ms: The limit on latency.
    """
    views: list[tuple[str, _Cost, float | None]] = [
        ("size, KB", lambda trial: None if trial.size is None else trial.size / 1e3, _scaled(most_size))
    ]
    if any(trial.latency_ms is not None for trial in trials):
        views.append(("latency, ms", lambda trial: trial.latency_ms, most_latency_ms))
    figure = _figure(5.2 * len(views) if len(views) > 1 else 8, 4.2)
    for place, (title, cost, limit) in enumerate(views):
        axes = _axes(figure, len(views), place + 1)
        shown = [
            (x, y, trial)
            for trial in trials
            if (x := cost(trial)) is not None and (y := loss(trial)) is not None
        ]
        _scatter(axes, shown, joined=place == 0)
        xs = [x for x, _, _ in shown]
        if min(xs) > 0 and max(xs) > _WIDE * min(xs):
            _logarithmic(axes)
        _limit(axes, limit, most_loss)
        axes.set_xlabel(title)
        axes.set_ylabel(loss_title if place == 0 else "")
        axes.margins(0.14, 0.14)
    figure.tight_layout()
    for axes, (_, cost, _) in zip(figure.axes, views, strict=True):
        _label(
            axes,
            [
                (x, y, each)
                for each in trials
                if (x := cost(each)) is not None and (y := loss(each)) is not None
            ],
        )
    return _svg(figure, f"{loss_title} of each recipe over its {views[0][0]}")


def training_plot(epochs: Sequence[EpochRow]) -> Raw:
    """Loss, and quality and sparsity where they are known, over the epochs of all parts."""
    shares: list[tuple[str, str, Callable[[EpochRow], float | None]]] = [
        ("held back", "green", lambda each: each.accuracy),
        ("zeros", "orange", lambda each: each.sparsity),
    ]
    known = [each for each in shares if any(each[2](epoch) is not None for epoch in epochs)]
    figure = _figure(8.6, 3)
    every = [_axes(figure, 2 if known else 1, place) for place in range(1, 3 if known else 2)]
    every[0].plot([each.epoch for each in epochs], [each.loss for each in epochs], ".-", color=COLORS["blue"])
    every[0].set_ylabel("loss")
    for name, color, read in known:
        line = [(each.epoch, share * 100) for each in epochs if (share := read(each)) is not None]
        every[1].plot(*zip(*line, strict=True), ".-", color=COLORS[color], label=name)
    if known:
        every[1].set_ylabel("%")
        every[1].legend(frameon=False, fontsize=_TEXT_SIZE, labelcolor=COLORS["soft"])
    for axes in every:
        _name_parts(axes, epochs)
        axes.set_xlabel("epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
    figure.tight_layout()
    return _svg(figure, "loss and accuracy of each epoch of the fine-tuning")


def _name_parts(axes: Any, epochs: Sequence[EpochRow]) -> None:
    """A line where one part ends and the next begins, and the names of the parts."""
    for index, each in enumerate(epochs):
        if index and each.part == epochs[index - 1].part:
            continue
        if index:
            axes.axvline(each.epoch - 0.5, color=COLORS["grey"], linewidth=1)
        axes.text(
            each.epoch - (0.4 if index else 0),
            1.02,
            each.part,
            transform=axes.get_xaxis_transform(),
            color=COLORS["soft"],
            fontsize=_TEXT_SIZE,
        )


def _figure(width: float, height: float) -> Any:
    # The object interface: pyplot would look for a display and keep every figure.
    figure = load_library("matplotlib.figure").Figure(figsize=(width, height))
    load_library("matplotlib.backends.backend_agg").FigureCanvasAgg(figure)
    return figure


def _axes(figure: Any, columns: int, place: int) -> Any:
    axes = figure.add_subplot(1, columns, place)
    axes.set_facecolor("none")
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(COLORS["grey"])
    axes.tick_params(colors=COLORS["soft"], labelsize=_TEXT_SIZE)
    axes.xaxis.label.set_color(COLORS["soft"])
    axes.yaxis.label.set_color(COLORS["soft"])
    axes.grid(color=COLORS["line"], linewidth=0.6)
    axes.set_axisbelow(True)
    return axes


def _scatter(axes: Any, shown: Sequence[tuple[float, float, TrialRow]], *, joined: bool) -> None:
    # The front of these two alone; that of all three has points above it.
    least = accumulate((y for _, y, _ in sorted(shown, key=itemgetter(0, 1))), min)
    if joined and len(shown) > 1:
        xs = sorted(x for x, _, _ in shown)
        axes.step(xs, list(least), where="post", color=COLORS["blue"], linewidth=1, alpha=0.5)
    for x, y, trial in shown:
        color = COLORS["blue"] if trial.on_front else COLORS["grey"]
        axes.plot(x, y, "o", ms=6.5, mew=1.4, mec=color, mfc=color if trial.within_budget else "none")
        if trial.chosen:
            axes.plot(x, y, "o", ms=13, mew=2, mfc="none", mec=COLORS["green"])


def _logarithmic(axes: Any) -> None:
    ticker = load_library("matplotlib.ticker")
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(ticker.LogLocator(base=10, subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(ticker.NullLocator())


def _limit(axes: Any, most_x: float | None, most_y: float | None) -> None:
    style = {"color": COLORS["red"], "linewidth": 1, "linestyle": "--", "alpha": 0.8}
    # A limit far from every point is not worth squeezing the points for.
    for limit, line, ends in (
        (most_x, axes.axvline, axes.get_xlim()),
        (most_y, axes.axhline, axes.get_ylim()),
    ):
        if limit is not None and limit < ends[1] + 2 * (ends[1] - ends[0]):
            line(limit, **style)


def _label(axes: Any, shown: Sequence[tuple[float, float, TrialRow]]) -> None:
    """Names the points, those that matter first; one whose name finds no free place goes without."""
    renderer = axes.figure.canvas.get_renderer()
    spots = [tuple(axes.transData.transform((x, y))) for x, y, _ in shown]
    taken = [
        _around(spot, 6 if trial.chosen else 4) for spot, (_, _, trial) in zip(spots, shown, strict=True)
    ]
    order = sorted(
        zip(shown, spots, strict=True),
        key=lambda each: (not each[0][2].chosen, not each[0][2].on_front, each[0][1], each[0][0]),
    )
    for (x, y, trial), spot in order:
        matters = trial.on_front or trial.chosen
        for place in (*_BESIDE, *(_AWAY if matters else ())):
            text = _name(axes, trial, (x, y), place)
            text.update_positions(renderer)
            # Without the line that leads to it.
            box = load_library("matplotlib.text").Text.get_window_extent(text, renderer)
            # A name that is nearer to another point would be taken for that one's.
            clear = place in _AWAY or all(_distance(box, spot) <= _distance(box, other) for other in spots)
            if clear and _inside(axes.bbox, box) and not any(box.overlaps(other) for other in taken):
                taken.append(box)
                break
            text.remove()


def _name(axes: Any, trial: TrialRow, point: tuple[float, float], place: tuple[int, int, str, str]) -> Any:
    right, up, horizontal, vertical = place
    line = {"arrowstyle": "-", "color": COLORS["grey"], "linewidth": 0.7, "shrinkA": 0, "shrinkB": 4}
    return axes.annotate(
        trial.name,
        point,
        # Clear of the ring.
        (right * 1.5, up * 1.5) if trial.chosen else (right, up),
        textcoords="offset points",
        ha=horizontal,
        va=vertical,
        fontsize=_TEXT_SIZE,
        color=COLORS["ink" if trial.on_front or trial.chosen else "soft"],
        weight="bold" if trial.chosen else "normal",
        arrowprops=line if place in _AWAY else None,
    )


def _inside(frame: Any, box: Any) -> bool:
    # To the right of the axes nothing is drawn, and a few letters may stand out.
    return bool(frame.x0 <= box.x0 and box.x1 <= frame.x1 + 8 and frame.y0 <= box.y0 and box.y1 <= frame.y1)


def _distance(box: Any, point: Sequence[float]) -> float:
    x, y = point
    return hypot(max(box.x0 - x, x - box.x1, 0.0), max(box.y0 - y, y - box.y1, 0.0))


def _around(point: Sequence[float], radius: float) -> Any:
    box = load_library("matplotlib.transforms").Bbox
    return box.from_extents(point[0] - radius, point[1] - radius, point[0] + radius, point[1] + radius)


def _scaled(size: int | None) -> float | None:
    return None if size is None else size / 1e3


def _svg(figure: Any, description: str) -> Raw:
    buffer = io.StringIO()
    # Identifiers that are the same every time, and text as text: small, and in the page's own font.
    settings = {"svg.hashsalt": "hybridge", "svg.fonttype": "none"}
    with load_library("matplotlib").rc_context(settings):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    drawn = buffer.getvalue()
    drawn = drawn[drawn.index("<svg") :]
    drawn = re.sub(r"<metadata>.*?</metadata>", "", drawn, flags=re.DOTALL)
    # Several plots share a page, and these identifiers name nothing that is referred to.
    drawn = re.sub(r' id="[A-Za-z]+[A-Za-z0-9]*_\d+"', "", drawn)
    for name, color in COLORS.items():
        drawn = drawn.replace(color, f"var(--{name})")
    label = Raw(drawn.replace("<svg ", f'<svg role="img" aria-label="{description}" ', 1))
    return Raw(f'<div class="plot">{label}</div>')
