"""How long a request has waited, on a device whose clock may be hours off and then jump.

A device without a clock chip starts at some time of the past and jumps when the network tells it better. Ages taken
from that clock would expire everything at the jump, or nothing for as long as the clock was ahead. So time is counted
only where it is known to have passed: while the machine is up, by the clock of the boot, which no setting moves and
which goes on in suspension (`CLOCK_BOOTTIME`, clock_gettime(2)). The time for which it was off counts when the network
had set the wall clock in both boots (adjtimex(2)), and otherwise not: a request may then be kept for longer than its
limit, but is not thrown away while it may still be wanted.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

__all__ = ["Clock", "ClockState", "Readings", "read_clocks"]

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
# adjtimex's answer while nothing has set the clock; and a structure that is zero only asks.
_TIME_ERROR = 5
_TIMEX_BYTES = 512


@dataclass(frozen=True, slots=True)
class Readings:
    """The machine's clocks at one moment.

    Attributes:
        boot_id: Tells one boot from another; empty where that is not known.
        boot_s: Seconds since this boot began, those in suspension too.
        utc_s: Seconds since 1970, or None while the network has not set the clock.
    """

    boot_id: str
    boot_s: float
    utc_s: float | None


@dataclass(frozen=True, slots=True)
class ClockState:
    """What is remembered for the next process: the outbox's own time, and what the machine's clocks then showed."""

    elapsed_s: float
    boot_id: str
    boot_s: float
    utc_s: float | None


class Clock:
    """Seconds that have surely passed since an outbox was made; not safe from several threads at once.

    Args:
        state: What an earlier process remembered, or None for a new outbox.
        reached_s: A moment that this clock is known to have reached, such as that of the newest request.
        read: Reads the machine's clocks.
    """

    def __init__(
        self, state: ClockState | None, *, reached_s: float = 0.0, read: Callable[[], Readings] | None = None
    ):
        self._read = read_clocks if read is None else read
        now = self._read()
        self._boot_id = now.boot_id
        # What `utc - boot` is, once it is known; it serves the rest of the boot, also when the network is gone again.
        self._utc_offset_s: float | None = None
        # Where the wall clock was when the earlier boot was last seen, as long as the time since is not yet counted.
        self._gap_since_s: float | None = None
        elapsed = reached_s if state is None else max(state.elapsed_s, reached_s)
        if state is not None and now.boot_id:
            if now.boot_id == state.boot_id:
                elapsed = max(state.elapsed_s + max(now.boot_s - state.boot_s, 0.0), reached_s)
                if state.utc_s is not None:
                    self._utc_offset_s = state.utc_s - state.boot_s
            else:
                elapsed += now.boot_s
                self._gap_since_s = state.utc_s
        self._ahead_s = elapsed - now.boot_s
        self._count_gap(now)

    def now_s(self) -> float:
        """Seconds since the outbox was made, as far as they are known to have passed."""
        now = self._read()
        if self._gap_since_s is not None:
            self._count_gap(now)
        return self._ahead_s + now.boot_s

    def state(self) -> ClockState:
        """What the next process needs to go on."""
        now = self._read()
        self._count_gap(now)
        utc = None if self._utc_offset_s is None else self._utc_offset_s + now.boot_s
        return ClockState(self._ahead_s + now.boot_s, self._boot_id, now.boot_s, utc)

    def _count_gap(self, now: Readings) -> None:
        if now.utc_s is None:
            return
        self._utc_offset_s = now.utc_s - now.boot_s
        if self._gap_since_s is not None:
            # The offset is when this boot began.
            self._ahead_s += max(self._utc_offset_s - self._gap_since_s, 0.0)
            self._gap_since_s = None


def read_clocks() -> Readings:
    """The clocks of this machine (Linux)."""
    boot_s = time.clock_gettime(time.CLOCK_BOOTTIME)
    return Readings(_boot_id(), boot_s, time.time() if _is_synchronised() else None)


@cache
def _boot_id() -> str:
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return ""


def _is_synchronised() -> bool:
    adjtimex = getattr(_libc, "adjtimex", None)
    if adjtimex is None:
        return False
    state: int = adjtimex(ctypes.create_string_buffer(_TIMEX_BYTES))
    return 0 <= state < _TIME_ERROR


_libc = ctypes.CDLL(None)
