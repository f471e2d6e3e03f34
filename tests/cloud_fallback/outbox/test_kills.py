from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.outbox_kills import KillReport, run_kills


def check(report: KillReport, kills: int) -> None:
    assert report.kills == kills
    assert report.puts > kills
    assert report.redelivered > 0
    assert report.is_clean, report


def test_25_kills_at_random_moments_lose_nothing_and_deliver_nothing_that_was_acknowledged(
    tmp_path: Path,
) -> None:
    check(run_kills(tmp_path, 25), 25)


@pytest.mark.heavy
def test_500_kills_at_random_moments_lose_nothing_and_deliver_nothing_that_was_acknowledged(
    tmp_path: Path,
) -> None:
    check(run_kills(tmp_path, 500, seed=1), 500)
