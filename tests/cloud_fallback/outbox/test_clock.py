from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from cloud_fallback.outbox import Dropped, Outbox, Request
from cloud_fallback.outbox.clock import Clock, Readings, read_clocks

HOUR_S = 3600.0


class Device:
    """A device's clocks, which a test sets."""

    def __init__(self) -> None:
        self.now = Readings("first boot", 100.0, None)

    def __call__(self) -> Readings:
        return self.now

    def passes(self, seconds: float) -> None:
        utc_s = None if self.now.utc_s is None else self.now.utc_s + seconds
        self.now = replace(self.now, boot_s=self.now.boot_s + seconds, utc_s=utc_s)

    def is_told_the_time(self, utc_s: float) -> None:
        self.now = replace(self.now, utc_s=utc_s)

    def boots(self, boot_id: str) -> None:
        self.now = Readings(boot_id, 10.0, None)


@pytest.fixture
def device() -> Device:
    return Device()


@pytest.fixture
def restart(path: Path, device: Device, open_outbox: Callable[..., Outbox]) -> Callable[[], Outbox]:
    return lambda: open_outbox(max_age_s=HOUR_S, read_clocks=device)


def test_a_request_is_dropped_when_it_is_too_old_and_not_before(
    open_outbox: Callable[..., Outbox], device: Device
) -> None:
    dropped: list[Dropped] = []
    outbox = open_outbox(max_age_s=HOUR_S, on_drop=dropped.append, read_clocks=device)
    outbox.put(Request(b"x", "d", id="usual"))
    outbox.put(Request(b"x", "d", id="short", max_age_s=10))
    outbox.put(Request(b"x", "d", id="long", max_age_s=2 * HOUR_S, metadata={"frame": 1}))
    device.passes(9.9)
    assert outbox.expire() == pytest.approx(0.1)
    device.passes(0.2)
    assert outbox.expire() == pytest.approx(HOUR_S - 10.1)
    assert [each.id for each in dropped] == ["short"]
    assert dropped[0].age_s == pytest.approx(10.1)
    device.passes(HOUR_S)
    # A put looks too, so that what is old does not take the place of what is new.
    outbox.put(Request(b"x", "d", id="new"))
    assert [(each.id, each.why) for each in dropped[1:]] == [("usual", "expired")]
    assert outbox.figures().dropped == {"expired": 2}
    assert outbox.figures().oldest_age_s == pytest.approx(HOUR_S + 10.1)


def test_what_is_being_sent_is_too_old_only_once_it_was_put_back(
    restart: Callable[[], Outbox], device: Device
) -> None:
    outbox = restart()
    outbox.put(Request(b"x", "d"))
    taken = outbox.take()
    assert taken is not None
    device.passes(2 * HOUR_S)
    assert outbox.expire() == float("inf")
    assert outbox.depth == 1
    outbox.put_back(taken)
    outbox.expire()
    assert outbox.depth == 0


@pytest.mark.parametrize("jump_s", [6 * HOUR_S, 50 * 365 * 24 * HOUR_S, -6 * HOUR_S])
def test_a_jump_of_the_wall_clock_expires_nothing_and_keeps_nothing(
    restart: Callable[[], Outbox], device: Device, jump_s: float
) -> None:
    device.is_told_the_time(1e9)
    outbox = restart()
    outbox.put(Request(b"x", "d"))
    device.passes(HOUR_S / 2)
    device.is_told_the_time(1e9 + jump_s)
    assert outbox.expire() == pytest.approx(HOUR_S / 2)
    device.passes(HOUR_S / 4)
    outbox = restart()
    assert outbox.expire() == pytest.approx(HOUR_S / 4)
    device.passes(HOUR_S / 4 + 1)
    outbox.expire()
    assert outbox.depth == 0


def test_a_device_without_a_clock_that_restarts_and_then_hears_the_time_loses_nothing(
    restart: Callable[[], Outbox], device: Device
) -> None:
    outbox = restart()
    outbox.put(Request(b"x", "d"))
    device.passes(600)
    outbox.close()
    device.boots("second boot")
    outbox = restart()
    device.passes(600)
    # It cannot be known for how long it was off; the ten seconds before the outbox was opened are.
    device.is_told_the_time(1.8e9)
    assert outbox.figures().oldest_age_s == pytest.approx(1210)
    assert outbox.depth == 1
    device.passes(HOUR_S)
    outbox.expire()
    assert outbox.depth == 0


def test_the_time_a_device_was_off_counts_when_the_network_told_it_the_time_in_both_boots(
    restart: Callable[[], Outbox], device: Device
) -> None:
    device.is_told_the_time(1e9)
    outbox = restart()
    outbox.put(Request(b"x", "d"))
    device.passes(300)
    # Long offline the kernel no longer vouches for the clock; what was known still serves.
    device.now = replace(device.now, utc_s=None)
    restart().close()
    device.boots("second boot")
    outbox = restart()
    device.passes(10)
    assert outbox.figures().oldest_age_s == pytest.approx(320)
    device.is_told_the_time(1e9 + 300 + HOUR_S / 2 + 20)
    assert outbox.figures().oldest_age_s == pytest.approx(320 + HOUR_S / 2)
    device.passes(HOUR_S / 2)
    outbox.expire()
    assert outbox.depth == 0


def test_where_boots_cannot_be_told_apart_restarts_add_nothing(
    restart: Callable[[], Outbox], device: Device
) -> None:
    device.now = Readings("", 1000.0, None)
    restart().put(Request(b"x", "d"))
    for _ in range(5):
        assert restart().figures().oldest_age_s == pytest.approx(0)


def test_a_process_that_was_killed_reckons_from_the_newest_request(device: Device) -> None:
    clock = Clock(None, read=device)
    saved = clock.state()
    device.passes(50)
    put_s = clock.now_s()
    device.boots("second boot")
    assert Clock(saved, reached_s=put_s, read=device).now_s() == pytest.approx(put_s + 10)


def test_the_machines_own_clocks_tell_the_boot_and_only_move_forward() -> None:
    first = read_clocks()
    time.sleep(0.01)
    second = read_clocks()
    assert first.boot_id == second.boot_id == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert second.boot_s - first.boot_s >= 0.01
    assert first.utc_s is None or abs(first.utc_s - time.time()) < 10


def test_real_seconds_expire_a_request_too(open_outbox: Callable[..., Outbox]) -> None:
    outbox = open_outbox(max_age_s=0.05)
    outbox.put(Request(b"x", "d"))
    time.sleep(0.06)
    outbox.expire()
    assert outbox.depth == 0
