"""What the C library does with memory that was freed."""

from __future__ import annotations

import ctypes

__all__ = ["keep_freed_memory"]

# glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -2, -3, -8
_KEPT_BYTES = 32 * 2**20
# Each keeps what it has; one for each thread, as there are without a limit, would keep far too much.
_ARENAS = 2


def keep_freed_memory() -> bool:
    """Has this process keep some 64 MiB that it freed, for the next message; returns whether the C library can.

    By default glibc maps memory anew for each large message and gives it back, and the kernel clears every page of it:
    of the time of a call with an image of 600 KB, that is nearly a half.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        # Another C library, such as musl.
        return False
    # mallopt(3): 1 for done. The threshold of mmap has a most of 32 MiB.
    return bool(
        mallopt(_M_ARENA_MAX, _ARENAS)
        and mallopt(_M_MMAP_THRESHOLD, _KEPT_BYTES)
        and mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
        and mallopt(_M_TOP_PAD, _KEPT_BYTES // 8)
    )
