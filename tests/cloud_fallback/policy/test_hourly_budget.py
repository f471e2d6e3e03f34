"""A budget holds for every hour, whatever happens to the process and its clock."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from cloud_fallback import HourlyBudget
from cloud_fallback.policy import hourly_budget
from edge_runtime import ErrorCode, HybridgeError, Reason

Clock = Callable[[float], None]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Moves the budget's time forward by so many seconds."""
    now = [1e6]
    monkeypatch.setattr(hourly_budget, "_boot_time", lambda: now[0])

    def forward(seconds: float) -> None:
        now[0] += seconds

    return forward


def _spent(budget: HourlyBudget, size: int = 100) -> int:
    """How many requests it allows."""
    count = 0
    while budget.spend(size) is None:
        count += 1
    return count


def test_no_window_of_an_hour_has_more_than_the_limit(clock: Clock) -> None:
    budget = HourlyBudget(requests=60)
    asked: list[int] = []
    for second in range(0, 3 * 3600, 20):
        if budget.spend(1) is None:
            asked.append(second)
        clock(20)
    for start in asked:
        assert sum(start <= second <= start + 3600 for second in asked) <= 60
    assert len(asked) > 150


def test_bytes_are_counted_apart(clock: Clock) -> None:
    budget = HourlyBudget(requests=100, megabytes=0.001)
    assert _spent(budget, 100) == 10
    assert budget.spend(100) is Reason.BYTE_BUDGET
    assert budget.left() == (90, 0)
    clock(3700)
    assert budget.left() == (100, 1000)


def test_threads_share_it_exactly() -> None:
    budget = HourlyBudget(requests=500)
    with ThreadPoolExecutor(8) as pool:
        allowed = sum(pool.map(lambda _: budget.spend(1) is None, range(2000)))
    assert allowed == 500


def test_a_restart_remembers_what_was_spent(tmp_path: Path) -> None:
    path = tmp_path / "budget.json"
    before = HourlyBudget(requests=1000, path=path)
    for _ in range(400):
        assert before.spend(100) is None
    after = HourlyBudget(requests=1000, path=path)
    # At most a hundredth is taken for spent that was not.
    assert 590 <= _spent(after) <= 600


def test_a_killed_process_cannot_spend_more_than_the_budget(tmp_path: Path) -> None:
    path = tmp_path / "budget.json"
    script = (
        "import os, signal, sys\n"
        "from cloud_fallback import HourlyBudget\n"
        "budget = HourlyBudget(requests=40, path=sys.argv[1])\n"
        "for count in range(7):\n"
        "    if budget.spend(10) is not None: break\n"
        "    print('spent', flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    spent = 0
    for _ in range(8):
        run = subprocess.run(
            [sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=False
        )
        assert not run.stderr
        spent += run.stdout.count("spent")
    assert spent == 40


def test_a_reboot_counts_by_the_clock_and_a_clock_set_back_takes_nothing_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    path = tmp_path / "budget.json"
    wall = [1e9]
    monkeypatch.setattr(time, "time", lambda: wall[0])
    assert _spent(HourlyBudget(requests=10, path=path)) == 10

    def after_reboot(passed: float) -> int:
        with monkeypatch.context() as patched:
            patched.setattr(hourly_budget, "_boot_id", lambda: "another")
            patched.setattr(hourly_budget, "_boot_time", lambda: 30.0)
            wall[0] = 1e9 + passed
            return int(HourlyBudget(requests=10, path=path).left()[0])

    assert after_reboot(-86400) == 0
    assert after_reboot(600) == 0
    assert after_reboot(3700) == 10


@pytest.mark.parametrize("content", ["", "[]", "{}", json.dumps({"boot": 1, "boot_time": "x"})])
def test_a_file_of_something_else_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "budget.json"
    path.write_text(content)
    with pytest.raises(HybridgeError) as caught:
        HourlyBudget(requests=1, path=path)
    assert caught.value.code is ErrorCode.DATA_INVALID


@pytest.mark.parametrize("limits", [{"requests": 0}, {"megabytes": -1}, {"requests": float("nan")}])
def test_limits_that_are_none_are_refused(limits: dict[str, Any]) -> None:
    with pytest.raises(HybridgeError) as caught:
        HourlyBudget(**limits)
    assert caught.value.code is ErrorCode.USAGE
