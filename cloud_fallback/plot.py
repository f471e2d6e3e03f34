"""The look of the plots: colours, sizes, axes and legend, and how a figure becomes a file."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from edge_runtime.errors import ErrorCode, HybridgeError, missing_extra

__all__ = [
    "BLUE",
    "GREEN",
    "GREY",
    "INK",
    "LINE",
    "ORANGE",
    "SOFT",
    "TEXT",
    "mark",
    "new_figure",
    "percent",
    "render",
    "require_plots",
]

# The colours of the conversion's reports.
INK, SOFT, LINE = "#0f172a", "#475569", "#dbe2ea"
BLUE, ORANGE, GREEN, GREY = "#2563eb", "#ea580c", "#15803d", "#94a3b8"
TEXT = 9
"""Size of all text, in points."""

_TYPES = (".png", ".svg", ".pdf")
_HEIGHT, _WIDTH_ALONE, _WIDTH_BESIDE = 4.6, 7.2, 4.8


def require_plots(path: str) -> None:
    """Says at once, rather than after the work, that there will be no picture.

    Raises:
        HybridgeError: `usage` for a name of another type, `extra-missing` without matplotlib.
    """
    if Path(path).suffix.lower() not in _TYPES:
        raise HybridgeError(
            ErrorCode.USAGE,
            f"plot '{path}'",
            received=f"'{Path(path).suffix}'",
            expected=f"a name that ends in {', '.join(_TYPES)}",
        )
    try:
        import matplotlib  # noqa: F401
    except ModuleNotFoundError as error:
        raise missing_extra("plot", "matplotlib") from error


def new_figure(panels: int = 1) -> tuple[Any, list[Any]]:
    """A figure, and the axes of so many panels beside each other."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # The object interface: pyplot would look for a display and keep every figure.
    width = _WIDTH_ALONE if panels == 1 else _WIDTH_BESIDE * panels
    figure = Figure(figsize=(width, _HEIGHT), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    every = [figure.add_subplot(1, panels, place) for place in range(1, panels + 1)]
    for axes in every:
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(GREY)
        axes.tick_params(which="both", colors=SOFT, labelsize=TEXT)
        axes.grid(color=LINE, linewidth=0.6)
        axes.set_axisbelow(True)
        for axis in (axes.xaxis, axes.yaxis):
            axis.label.set(color=SOFT, size=TEXT)
    return figure, every


def percent(axis: Any) -> None:
    """Has the shares along an axis written as percentages."""
    from matplotlib.ticker import FuncFormatter

    axis.set_major_formatter(FuncFormatter(lambda share, _: f"{share * 100:.6g}%"))


def mark(axes: Any, x: float, y: float, *, color: str = BLUE, label: str = "") -> None:
    """The point that was chosen."""
    style = {"ms": 8, "mfc": color, "mec": "white", "mew": 1.5, "linestyle": "none"}
    axes.plot(x, y, "o", zorder=5, clip_on=False, label=label, **style)


def render(figure: Any, suffix: str) -> bytes:
    """The figure's file, with the legend of all its axes above them.

    Args:
        figure: One from `new_figure`.
        suffix: Type of the file, ``.png``, ``.svg`` or ``.pdf``; the same figure gives the same bytes.
    """
    from matplotlib import rc_context

    figure.legend(loc="outside upper left", ncols=4, frameon=False, fontsize=TEXT, labelcolor=SOFT)
    buffer = io.BytesIO()
    kind = suffix.lower().removeprefix(".")
    dateless = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}
    # Identifiers that are the same every time.
    with rc_context({"svg.hashsalt": "hybridge"}):
        figure.savefig(buffer, format=kind, dpi=130, metadata=dateless.get(kind))
    return buffer.getvalue()
