"""A budget of requests and bytes an hour that holds for every hour, across restarts too."""

from __future__ import annotations

import json
import math
import threading
import time
from os import PathLike
from pathlib import Path
from typing import Any

from edge_runtime.errors import ErrorCode, HybridgeError
from edge_runtime.files import read_file, write_file
from edge_runtime.prediction import Reason

__all__ = ["HourlyBudget"]

_SLOT_S = 60.0
# An hour is sixty whole slots; with the one that has begun, no window of an hour has more than was counted.
_SLOTS = 61
# What a restart may take for spent though it was not: a hundredth of the budget.
_CLAIMS_AN_HOUR = 100
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class HourlyBudget:
    """Counts what was spent in any 60 minutes, and refuses what would be more; safe from many threads.

    With a file, what was spent survives a crash: a share of the budget is claimed in the file before it is spent, so
    that what a killed process had spent is never forgotten, and at most a hundredth too much is remembered. Time is
    that of the boot, which no setting of the clock moves; after a reboot it is the clock's, and a clock that went
    backwards takes nothing back.

    Args:
        requests: Requests an hour, or None for any number.
        megabytes: Million bytes an hour, or None for any number.
        path: A file to remember in, written beside its place and renamed.

    Raises:
        HybridgeError: `usage` for limits that are not positive; `file-unwritable`; `data-invalid` for a file that is
            something else.
    """

    def __init__(
        self,
        *,
        requests: float | None = None,
        megabytes: float | None = None,
        path: str | PathLike[str] | None = None,
    ):
        for what, limit in (("requests", requests), ("megabytes", megabytes)):
            if limit is not None and not 0 < limit < math.inf:
                raise HybridgeError(
                    ErrorCode.USAGE,
                    f"budget of {what} an hour",
                    received=str(limit),
                    expected="a number above 0",
                )
        self._limits = (
            math.inf if requests is None else requests,
            math.inf if megabytes is None else megabytes * 1e6,
        )
        self._path = None if path is None else Path(path)
        self._lock = threading.Lock()
        # By slot: requests and bytes.
        self._spent: dict[int, list[float]] = {}
        self._claimed = [0.0, 0.0]
        self._claimed_in = -1
        if self._path is not None and self._path.exists():
            self._spent = self._read(self._path)

    def spend(self, request_bytes: int) -> Reason | None:
        """Takes a request of so many bytes off the budget, or says which of the two does not allow it."""
        with self._lock:
            now = _boot_time()
            slot = int(now // _SLOT_S)
            requests, sent = self._total(slot)
            if requests + 1 > self._limits[0]:
                return Reason.REQUEST_BUDGET
            if sent + request_bytes > self._limits[1]:
                return Reason.BYTE_BUDGET
            spent = self._spent.setdefault(slot, [0.0, 0.0])
            spent[0] += 1
            spent[1] += request_bytes
            if self._path is not None:
                self._claim(request_bytes, now, slot)
            return None

    def left(self) -> tuple[float, float]:
        """Requests and bytes that this hour still has; infinite where there is no limit."""
        with self._lock:
            requests, sent = self._total(int(_boot_time() // _SLOT_S))
        return max(self._limits[0] - requests, 0.0), max(self._limits[1] - sent, 0.0)

    def _total(self, slot: int) -> tuple[float, float]:
        for old in [each for each in self._spent if each <= slot - _SLOTS]:
            del self._spent[old]
        return sum(each[0] for each in self._spent.values()), sum(each[1] for each in self._spent.values())

    def _claim(self, request_bytes: int, now: float, slot: int) -> None:
        self._claimed[0] -= 1
        self._claimed[1] -= request_bytes
        # What is spent in a later slot is not to be remembered in an earlier one, which ends sooner.
        if slot == self._claimed_in and min(self._claimed) >= 0:
            return
        # Where nothing is refused, nothing needs to be remembered.
        self._claimed = [
            math.inf if math.isinf(limit) else limit // _CLAIMS_AN_HOUR for limit in self._limits
        ]
        self._claimed_in = slot
        self._write(now)

    def _write(self, now: float) -> None:
        assert self._path is not None  # noqa: S101 - only called with one
        slot = int(now // _SLOT_S)
        spent = {str(each): list(amounts) for each, amounts in self._spent.items()}
        for index, claimed in enumerate(self._claimed):
            if not math.isinf(claimed):
                spent[str(slot)][index] += claimed
        content = {"boot": _boot_id(), "boot_time": now, "time": time.time(), "spent": spent}
        write_file(self._path, json.dumps(content).encode(), overwrite=True)

    def _read(self, path: Path) -> dict[int, list[float]]:
        try:
            content: dict[str, Any] = json.loads(read_file(path))
            then, wall = float(content["boot_time"]), float(content["time"])
            spent = {int(slot): [float(a), float(b)] for slot, (a, b) in content["spent"].items()}
            is_same_boot = content["boot"] == _boot_id()
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise HybridgeError(
                ErrorCode.DATA_INVALID,
                f"budget in '{path}'",
                received=f"{type(error).__name__}: {error}",
                expected="what an earlier run wrote",
                fix="delete it, which forgets what was spent in the last hour",
            ) from error
        if is_same_boot:
            return spent
        # Slots of another boot, by their age now.
        passed = max(time.time() - wall, 0.0)
        shift = int((_boot_time() - then - passed) // _SLOT_S)
        return {slot + shift: amounts for slot, amounts in spent.items()}


def _boot_time() -> float:
    """Seconds since the machine started, also those in which it slept."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _boot_id() -> str:
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return ""
