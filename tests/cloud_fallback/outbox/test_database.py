from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from cloud_fallback.outbox import Drain, Outbox, Request
from edge_runtime import ErrorCode, HybridgeError
from tests.cloud_fallback.outbox.conftest import drain_all, echo, wait_for

OpenOutbox = Callable[..., Outbox]
ROOT = Path(__file__).parents[3]


def run_python(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", script, *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=60,
        check=False,
    )


def refusal(path: Path, **options: bool) -> HybridgeError:
    with pytest.raises(HybridgeError) as caught:
        Outbox(path, **options)  # type: ignore[arg-type]
    return caught.value


def test_only_the_owner_can_read_what_waits(open_outbox: OpenOutbox, path: Path) -> None:
    open_outbox()
    for each in path.parent.iterdir():
        assert stat.S_IMODE(each.stat().st_mode) == 0o600, each


def test_a_second_process_is_refused_until_the_first_has_gone_however_it_went(path: Path) -> None:
    script = (
        "import sys, time; from cloud_fallback.outbox import Outbox\n"
        "outbox = Outbox(sys.argv[1]); print('open', flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as other:
        assert other.stdout is not None
        try:
            assert other.stdout.readline() == "open\n"
            error = refusal(path)
            assert error.code is ErrorCode.FILE_UNWRITABLE
            assert "open elsewhere" in error.message
        finally:
            other.kill()
    Outbox(path).close()


def test_opening_it_twice_in_one_process_is_refused_and_keeps_the_lock(
    open_outbox: OpenOutbox, path: Path, tmp_path: Path
) -> None:
    open_outbox()
    link = tmp_path / "link.db"
    link.symlink_to(path)
    for name in (path, link):
        assert refusal(name).code is ErrorCode.FILE_UNWRITABLE
    script = "import sys; from cloud_fallback.outbox import Outbox; Outbox(sys.argv[1])"
    other = run_python(script, str(path))
    assert other.returncode != 0
    assert "open elsewhere" in other.stderr


def test_a_child_that_was_forked_and_ends_takes_nothing_with_it(path: Path) -> None:
    script = (
        "import os, sys; from cloud_fallback.outbox import Outbox, Request\n"
        "outbox = Outbox(sys.argv[1]); outbox.put(Request(b'1', 'd'))\n"
        "pid = os.fork()\n"
        "if pid == 0: sys.exit(0)\n"
        "os.waitpid(pid, 0)\n"
        "outbox.put(Request(b'2', 'd')); os.kill(os.getpid(), 9)"
    )
    assert run_python(script, str(path)).returncode == -9
    with Outbox(path) as outbox:
        assert outbox.depth == 2


@pytest.mark.parametrize(("durability", "synchronous"), [("power-loss", 2), ("crash", 1)])
def test_commits_wait_for_the_disk_unless_told_not_to(
    open_outbox: OpenOutbox, durability: str, synchronous: int
) -> None:
    outbox = open_outbox(durability=durability)
    connection = outbox._file.connection
    assert connection.execute("PRAGMA synchronous").fetchone()[0] == synchronous
    assert connection.execute("PRAGMA journal_mode").fetchone()[0] == "wal"


def test_a_later_version_and_a_database_of_another_program_are_refused_and_left_alone(
    open_outbox: OpenOutbox, path: Path, tmp_path: Path
) -> None:
    open_outbox().close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 7")
    error = refusal(path, set_aside=True)
    assert error.code is ErrorCode.USAGE
    assert "version 7" in error.message
    assert "update hybridge" in error.message
    other = tmp_path / "other.db"
    with closing(sqlite3.connect(other)) as connection:
        connection.execute("CREATE TABLE theirs (x)")
    content = other.read_bytes()
    assert refusal(other, set_aside=True).code is ErrorCode.USAGE
    assert other.read_bytes() == content


def _rubbish(path: Path) -> None:
    path.write_bytes(b"no database at all" * 1000)


def _torn(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)


def _overwritten(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(8192)
        file.write(os.urandom(path.stat().st_size - 8192))


def use_all(path: Path) -> None:
    """Comes across damage that opening the file does not."""
    with Outbox(path) as outbox:
        while (taken := outbox.take()) is not None:
            outbox.settle(taken, b"")


@pytest.mark.parametrize("damage", [_rubbish, _torn, _overwritten])
def test_a_damaged_file_is_a_clear_error_and_set_aside_only_when_asked(
    open_outbox: OpenOutbox, path: Path, damage: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    outbox = open_outbox()
    outbox.put_many(Request(os.urandom(3000), "d") for _ in range(200))
    outbox.close()
    damage(path)
    damaged = path.read_bytes()
    with pytest.raises(HybridgeError) as caught:
        use_all(path)
    assert caught.value.code is ErrorCode.OUTBOX_DAMAGED
    outbox = open_outbox(set_aside=True)
    assert outbox.depth == 0
    outbox.put(Request(b"x", "d"))
    aside = path.with_name("outbox.db.damaged-1")
    assert aside.stat().st_size > 4096
    assert damage is not _rubbish or aside.read_bytes() == damaged
    assert str(aside) in caplog.text


def test_a_whole_file_is_not_set_aside(open_outbox: OpenOutbox, path: Path) -> None:
    open_outbox().put(Request(b"x", "d"))
    assert open_outbox(set_aside=True).depth == 1
    assert {each.name for each in path.parent.iterdir()} == {"outbox.db", "outbox.db-wal"}


def test_bytes_that_the_disk_changed_are_delivered_as_damage_and_never_sent(
    open_outbox: OpenOutbox, path: Path
) -> None:
    outbox = open_outbox()
    outbox.put_many(Request(name.encode() * 100, "d", id=name, metadata={"name": name}) for name in "abc")
    outbox.close()
    content = path.read_bytes()
    assert content.count(b"b" * 100) == 1
    path.write_bytes(
        content.replace(b"b" * 100, b"b" * 99 + b"c").replace(b'{"name":"c"}', b'{"name":\xff\xff\xff}')
    )
    sent: list[str] = []

    def send(request: Request) -> bytes:
        sent.append(request.id)
        return b"yes"

    delivered = {each.id: each for each in drain_all(open_outbox(), send)}
    assert sent == ["a"]
    assert delivered["a"].answer == b"yes"
    for name in "bc":
        error = delivered[name].error
        assert error is not None
        assert error.code is ErrorCode.OUTBOX_DAMAGED
    assert delivered["c"].metadata == {}


def test_a_file_that_is_deleted_under_it_is_noticed_by_the_next_put(
    open_outbox: OpenOutbox, path: Path
) -> None:
    outbox = open_outbox()
    path.unlink()
    with pytest.raises(HybridgeError, match="deleted") as caught:
        outbox.put(Request(b"x", "d"))
    assert caught.value.code is ErrorCode.OUTBOX_DAMAGED


def test_paths_that_cannot_be_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path, tmp_path / "nowhere" / "outbox.db", tmp_path / "file" / "outbox.db"):
        assert refusal(path).code is ErrorCode.FILE_UNWRITABLE


def test_an_outbox_that_is_emptied_gives_its_space_back_while_it_is_open(
    open_outbox: OpenOutbox, path: Path
) -> None:
    outbox = open_outbox()
    for _ in range(20):
        outbox.put_many(Request(os.urandom(50_000), "d") for _ in range(10))
    assert path.stat().st_size > 9_000_000
    drain_all(outbox, lambda _request: b"")
    assert outbox.figures().depth == 0
    while outbox.give_back():
        pass
    assert path.stat().st_size < 2_000_000
    # The WAL keeps its own.
    assert outbox.figures().disk_bytes < 7_000_000
    outbox.put(Request(b"x", "d"))
    outbox.close()
    assert [each.name for each in path.parent.iterdir()] == ["outbox.db"]


def test_a_drain_gives_the_space_back_by_itself(open_outbox: OpenOutbox, path: Path) -> None:
    outbox = open_outbox()
    outbox.put_many(Request(os.urandom(50_000), "d") for _ in range(100))
    assert outbox.figures().disk_bytes > 5_000_000
    with Drain(outbox, echo, on_answer=lambda _delivery: None, requests_per_s=1e6):
        wait_for(lambda: path.stat().st_size < 2_000_000)


def test_the_package_is_light() -> None:
    # What the package above it loads is not the outbox's; it must add none of these itself.
    script = (
        "import sys, cloud_fallback; before = set(sys.modules); import cloud_fallback.outbox\n"
        "print(*sorted({name.partition('.')[0] for name in set(sys.modules) - before}))"
    )
    run = run_python(script)
    assert run.returncode == 0, run.stderr
    assert not {"grpc", "google", "numpy", "msgspec", "click"} & set(run.stdout.split())
    assert "sqlite3" in run.stdout
