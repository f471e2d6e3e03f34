"""Progress of long work: a bar where a person watches, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any

from convert.libraries import load_library
from edge_runtime.console import say

__all__ = ["Progress"]

# A log wants to know that work goes on, not every step of it.
_SECONDS_BETWEEN_LINES = 10.0


class Progress:
    """Lines of text, and one bar for what is under way; both go to standard error.

    Call it with a line, as anything that takes ``progress``. Steps of unknown length are lines; steps that are counted
    move the bar, or become a line every ten seconds where nobody watches.

    Args:
        watched: Whether to draw a bar; without it, whether standard error is a terminal.

    Example:
        >>> with Progress() as progress:
        ...     progress("calibrating")
        ...     for batch in range(10):
        ...         progress.advance(batch + 1, 10, "batches")
    """

    def __init__(self, *, watched: bool | None = None):
        self._watched = sys.stderr.isatty() if watched is None else watched
        self._bar: Any = None
        self._task: Any = None
        self._last_line = -_SECONDS_BETWEEN_LINES
        self._last_text = ""

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def __call__(self, message: str) -> None:
        """Writes a line, above the bar if there is one."""
        if self._bar is None:
            say(message)
        else:
            self._bar.console.print(message, markup=False, highlight=False)

    def advance(self, done: int, total: int, text: str) -> None:
        """Shows how far counted work is.

        Args:
            done: Steps that are finished.
            total: All of them; may change from call to call.
            text: What the work is, a few words.
        """
        if self._watched:
            self._draw(done, total, text)
            return
        now = time.monotonic()
        if text != self._last_text or done == total or now - self._last_line >= _SECONDS_BETWEEN_LINES:
            say(f"{text}: {done} of {total}")
            self._last_line, self._last_text = now, text

    def _draw(self, done: int, total: int, text: str) -> None:
        if self._bar is None:
            progress = load_library("rich.progress")
            # Transient: what stays on the screen are the lines.
            self._bar = progress.Progress(
                progress.TextColumn("{task.description}"),
                progress.BarColumn(),
                progress.MofNCompleteColumn(),
                progress.TimeElapsedColumn(),
                console=load_library("rich.console").Console(stderr=True),
                transient=True,
            )
            self._bar.start()
            self._task = self._bar.add_task(text, total=total)
        self._bar.update(self._task, completed=done, total=total, description=text)
