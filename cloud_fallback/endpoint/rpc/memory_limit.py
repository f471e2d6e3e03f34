"""How much memory this process may take."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["memory_limit"]

# Of a container: version 2 of control groups, and version 1, in which no limit is a number that no machine has.
_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


def memory_limit() -> int:
    """Bytes: what the machine has, or less where the process is in a container with a limit."""
    found = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for path in _LIMITS:
        try:
            found.append(int(path.read_text()))
        except (OSError, ValueError):
            # There is no such file, or it says "max".
            continue
    return min(found)
