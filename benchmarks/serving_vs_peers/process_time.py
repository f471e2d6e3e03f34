"""Processor time that a server's processes have taken, as Linux counts it."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["session_seconds"]

_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
# Fields of /proc/<pid>/stat after the name, which may itself hold spaces and brackets (proc_pid_stat(5)).
_SESSION, _USER, _SYSTEM = 3, 11, 12


def session_seconds(session: int) -> float:
    """User and system time of all processes that live in a session, in seconds.

    A server that was started as the leader of a session of its own has all its processes in it.
    """
    ticks = 0
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        if int(fields[_SESSION]) == session:
            ticks += int(fields[_USER]) + int(fields[_SYSTEM])
    return ticks * _TICK_S
