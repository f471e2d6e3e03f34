"""When frames of an uneven stream are shown in a video of an even rate."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from statistics import median

__all__ = ["Timeline", "frame_rate"]


class Timeline:
    """Counts a video's frames so that it plays as fast as the stream ran.

    Args:
        fps: Frames a second of the video.
        hold_s: The longest that one frame is shown; a longer pause of the stream is cut to it.
    """

    def __init__(self, fps: float, hold_s: float):
        self._fps = fps
        self._hold_s = hold_s
        self._before: float | None = None
        self._now = 0.0
        self._shown = 0

    def advance(self, time_s: float) -> tuple[int, bool]:
        """How often the frame before is shown once more, and whether this one is shown after it.

        A stream's time that does not move, as that of separate pictures, moves by one frame of the video.
        """
        if self._before is not None:
            gap = time_s - self._before
            self._now += min(gap if gap > 0 else 1 / self._fps, max(self._hold_s, 1 / self._fps))
        self._before = time_s
        place = int(self._now * self._fps + 0.5)
        repeats = max(0, place - self._shown)
        shown = place >= self._shown
        self._shown += repeats + shown
        return repeats, shown


def frame_rate(times_s: Sequence[float], *, default: float) -> float:
    """Frames a second of a stream whose first frames have these times, or `default` when the times do not move.

    The median of the gaps, because a camera's first frames are late and a slow chain's stream has holes.
    """
    gaps = [later - earlier for earlier, later in pairwise(times_s) if later > earlier]
    if not gaps:
        return default
    # MPEG-4 has no room for finer rates.
    return round(min(max(1 / median(gaps), 1.0), 120.0), 2)
