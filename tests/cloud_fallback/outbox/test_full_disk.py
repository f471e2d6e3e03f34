"""The outbox on a disk that is full, a real one: a tmpfs of a few megabytes."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloud_fallback.outbox import Delivery, Drain, Outbox, Request
from edge_runtime import ErrorCode, HybridgeError
from tests.cloud_fallback.outbox.conftest import drain_all, wait_for

MEGABYTES = 12


class Disk:
    def __init__(self, folder: Path):
        self.folder = folder
        self.path = folder / "outbox.db"
        self._filler = folder / "filler"

    def free(self) -> int:
        status = os.statvfs(self.folder)
        return status.f_bavail * status.f_frsize

    def fill(self, all_but: int = 0) -> None:
        """Somebody else takes what is left."""
        with self._filler.open("ab", buffering=0) as file:
            while self.free() > all_but:
                file.write(bytes(4096))

    def make_room(self) -> None:
        self._filler.unlink()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={MEGABYTES}m", "tmpfs", str(folder)],
        capture_output=True,
        text=True,
    )
    if mounted.returncode:
        pytest.skip(f"no disk can be mounted here: {mounted.stderr.strip()}")
    try:
        yield Disk(folder)
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def put_until_full(outbox: Outbox, size: int) -> int:
    """Puts 0, 1, 2 ... until the disk is full; returns how many were stored."""

    def put() -> None:
        while True:
            outbox.put(Request(os.urandom(size), "d", id=str(outbox.figures().puts)))

    with pytest.raises(HybridgeError, match="no space left on the disk") as caught:
        put()
    assert caught.value.code is ErrorCode.OUTBOX_FULL
    return outbox.figures().puts


@pytest.mark.parametrize("size", [3_000, 20_000, 700_000])
def test_a_full_disk_refuses_what_is_put_keeps_what_is_stored_and_goes_on_when_there_is_space(
    disk: Disk, size: int
) -> None:
    with Outbox(disk.path, max_bytes=10**9) as outbox:
        disk.fill(all_but=3_000_000)
        count = put_until_full(outbox, size)
        figures = outbox.figures()
        assert (figures.depth, figures.refused) == (count, 1)
        disk.make_room()
        outbox.put(Request(os.urandom(size), "d", id="later"))
    with Outbox(disk.path) as outbox:
        delivered = drain_all(outbox, lambda request: request.body[:4])
        assert {each.id for each in delivered} == {*map(str, range(count)), "later"}
        assert all(each.answer is not None for each in delivered)


def test_without_a_single_free_block_all_is_sent_answered_and_acknowledged(disk: Disk) -> None:
    with Outbox(disk.path, max_bytes=10**9) as outbox:
        count = put_until_full(outbox, 20_000)
        assert count > 200
        disk.fill()

        def send(request: Request) -> bytes:
            if disk.free():  # what is given back is taken at once
                disk.fill()
            return request.body[:100]

        delivered = drain_all(outbox, send, max_in_flight=2)
        assert [each.id for each in delivered if each.answer is None] == []
        assert len(delivered) == count


def test_an_answer_that_finds_no_place_is_held_and_not_asked_for_again(disk: Disk) -> None:
    sent: list[str] = []
    with Outbox(disk.path, max_bytes=10**9) as outbox:
        outbox.put(Request(b"x", "d", id="one"))
        disk.fill()

        def send(request: Request) -> bytes:
            sent.append(request.id)
            return os.urandom(5_000_000)

        delivered: list[Delivery] = []
        drain = Drain(outbox, send, on_answer=delivered.append, first_backoff_s=0.01, max_backoff_s=0.02)
        with drain:
            wait_for(lambda: len(sent) == 1)
            time.sleep(0.2)
            assert delivered == []
            assert outbox.depth == 1
            disk.make_room()
            wait_for(lambda: len(delivered) == 1)
        assert sent == ["one"]


def test_an_outbox_is_opened_on_a_full_disk_and_waits_for_space(disk: Disk) -> None:
    with Outbox(disk.path) as outbox:
        outbox.put(Request(b"x", "d", id="one"))
    disk.fill()
    with Outbox(disk.path) as outbox:
        assert outbox.depth == 1
        with pytest.raises(HybridgeError) as caught:
            outbox.put(Request(os.urandom(100_000), "d"))
        assert caught.value.code is ErrorCode.OUTBOX_FULL
        disk.make_room()
        assert len(drain_all(outbox, lambda _request: b"yes")) == 1


def test_a_new_outbox_on_a_full_disk_is_a_clear_error_and_works_later(disk: Disk) -> None:
    disk.fill()
    with pytest.raises(HybridgeError) as caught:
        Outbox(disk.path)
    assert caught.value.code is ErrorCode.OUTBOX_FULL
    disk.make_room()
    with Outbox(disk.path) as outbox:
        outbox.put(Request(b"x", "d"))
