"""A chain's metrics in a terminal, painted again and again in the same place."""

from __future__ import annotations

import shutil
import sys
import threading
import time
from types import TracebackType
from typing import TextIO

from edge_runtime.console import table
from edge_runtime.metrics import ChainFigures, Metrics

__all__ = ["LiveView", "metrics_text"]


def metrics_text(figures: ChainFigures, *, per_second: float | None = None) -> str:
    """The figures as a person reads them: one line for the chain, a row for each stage."""
    head = [f"{figures.chain}: {figures.runs:,} answers"]
    if per_second is not None:
        head.append(f"{per_second:.1f} a second")
    head.append(f"p50 {figures.p50_ms:.1f}, p95 {figures.p95_ms:.1f}, p99 {figures.p99_ms:.1f} ms")
    head.append(f"waiting {figures.queue_depth}, under way {figures.in_flight}")
    head.append(f"{figures.memory_bytes / 1e6:.0f} MB")
    lines = [", ".join(head)]
    for what, counts in (("from", figures.sources), ("dropped", figures.dropped), ("failed", figures.errors)):
        if counts:
            lines.append(f"{what} " + ", ".join(f"{name} {count:,}" for name, count in counts.items()))
    busiest = max((stage.total_ms for stage in figures.stages), default=0.0) or 1.0
    rows = [
        (
            stage.stage,
            f"{stage.runs:,}",
            f"{stage.items:,}" if stage.items else "",
            f"{stage.p50_ms:.2f}",
            f"{stage.p95_ms:.2f}",
            f"{stage.p99_ms:.2f}",
            str(stage.waiting or ""),
            str(stage.errors or ""),
            "#" * round(10 * stage.total_ms / busiest),
        )
        for stage in figures.stages
    ]
    header = ("stage", "runs", "items", "p50 ms", "p95", "p99", "wait", "fail", "time spent")
    return "\n".join([*lines, "", table(rows, header=header)])


class LiveView:
    """Paints a chain's metrics on a terminal twice a second, and a last time when it is left.

    Args:
        metrics: What to show.
        stream: The terminal; standard error, so that standard output stays for results.
        interval_s: Seconds between paintings.
    """

    def __init__(self, metrics: Metrics, *, stream: TextIO | None = None, interval_s: float = 0.5):
        self._metrics, self._stream, self._interval_s = metrics, stream or sys.stderr, interval_s
        self._painted = 0
        self._last = (time.monotonic(), metrics.figures().runs)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._paint_until_stopped, name="hybridge-view", daemon=True)

    def __enter__(self) -> LiveView:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        self._paint()

    def _paint_until_stopped(self) -> None:
        while not self._stop.wait(self._interval_s):
            self._paint()

    def _paint(self) -> None:
        figures = self._metrics.figures()
        (before, runs), now = self._last, time.monotonic()
        self._last = (now, figures.runs)
        columns = shutil.get_terminal_size().columns
        text = metrics_text(figures, per_second=(figures.runs - runs) / max(now - before, 1e-9))
        # A line that wraps would make the count of lines to go back wrong.
        lines = [line[: columns - 1] for line in text.splitlines()]
        back = f"\x1b[{self._painted}F" if self._painted else ""
        self._stream.write(back + "".join(f"\x1b[2K{line}\n" for line in lines) + "\x1b[J")
        self._stream.flush()
        self._painted = len(lines)
