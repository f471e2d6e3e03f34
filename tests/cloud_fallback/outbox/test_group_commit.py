from __future__ import annotations

import os
import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

import pytest

from cloud_fallback.outbox import Outbox, Request
from cloud_fallback.outbox.content import Content, load
from cloud_fallback.outbox.database import DatabaseFile, Durability
from cloud_fallback.outbox.group_commit import GroupCommit
from edge_runtime import ErrorCode, HybridgeError


@pytest.fixture
def file(path: Path) -> DatabaseFile:
    return DatabaseFile(path, durability=Durability.POWER_LOSS, set_aside=False)


@pytest.fixture
def commits(file: DatabaseFile) -> Iterator[GroupCommit[Content]]:
    commits = GroupCommit(file, load(file.connection)[0])
    yield commits
    commits.close()


def remember(number: float) -> Callable[[sqlite3.Connection, Content], float]:
    def change(connection: sqlite3.Connection, content: Content) -> float:
        connection.execute("INSERT INTO clock VALUES (?, '', 0, 0)", (number,))
        content.bytes += 1
        return number

    return change


def count(commits: GroupCommit[Content]) -> int:
    rows: int = commits.read(
        lambda connection, _: connection.execute("SELECT count(*) FROM clock").fetchone()[0]
    )
    return rows


def together(*works: Callable[[], object]) -> list[BaseException | None]:
    """Runs each in a thread of its own, and returns what they raised."""
    raised: list[BaseException | None] = [None] * len(works)

    def run(number: int) -> None:
        try:
            works[number]()
        except BaseException as error:
            raised[number] = error

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(works))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    return raised


def test_each_gets_the_result_of_its_own_change_and_all_are_stored(commits: GroupCommit[Content]) -> None:
    results: list[float] = []

    def work(thread: int) -> None:
        results.extend(commits.write(remember(thread * 100 + number)) for number in range(30))

    assert together(*(lambda n=n: work(n) for n in range(8))) == [None] * 8
    assert sorted(results) == sorted(float(t * 100 + n) for t in range(8) for n in range(30))
    assert count(commits) == commits.content.bytes == 240


def test_those_who_come_during_a_commit_share_the_next(
    commits: GroupCommit[Content], file: DatabaseFile
) -> None:
    transactions: list[str] = []
    file.connection.set_trace_callback(lambda text: transactions.append(text) if text == "COMMIT" else None)
    entered, go_on = threading.Event(), threading.Event()

    def slow(_connection: sqlite3.Connection, _content: Content) -> None:
        entered.set()
        go_on.wait(10)

    def late() -> None:
        entered.wait(10)
        commits.write(remember(1))

    def release() -> None:
        entered.wait(10)
        while commits._queue.qsize() < 5:
            time.sleep(0.001)
        go_on.set()

    assert together(lambda: commits.write(slow), *[late] * 5, release) == [None] * 7
    assert len(transactions) == 2


def test_one_that_refuses_or_fails_leaves_nothing_and_does_not_fail_the_others(
    commits: GroupCommit[Content],
) -> None:
    barrier = threading.Barrier(9)

    def refuse(connection: sqlite3.Connection, content: Content) -> None:
        remember(-1)(connection, content)
        raise HybridgeError(ErrorCode.OUTBOX_FULL, "no")

    def breaks(connection: sqlite3.Connection, content: Content) -> None:
        remember(-2)(connection, content)
        raise ZeroDivisionError

    def violates(connection: sqlite3.Connection, content: Content) -> None:
        remember(-3)(connection, content)
        connection.execute("INSERT INTO clock VALUES (NULL, NULL, NULL, NULL)")

    for _ in range(10):
        raised = together(
            *(
                lambda change=change: (barrier.wait(10), commits.write(change))
                for change in (refuse, breaks, violates, *[remember(1)] * 6)
            )
        )
        assert [type(error) for error in raised[:3]] == [HybridgeError, ZeroDivisionError, HybridgeError]
        assert raised[3:] == [None] * 6
    assert count(commits) == commits.content.bytes == 60


def test_ctrl_c_at_any_moment_leaves_the_others_going_and_the_numbers_right(
    open_outbox: Callable[..., Outbox],
) -> None:
    outbox = open_outbox()
    over = threading.Event()
    put = [0] * 4

    def work(thread: int) -> None:
        while not over.is_set():
            outbox.put(Request(b"x", "d"))
            put[thread] += 1

    def interrupt(_signal: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    others = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        for thread in others:
            thread.start()
        interrupted = 0
        while interrupted < 150:
            signal.setitimer(signal.ITIMER_REAL, 0.0005 + interrupted % 40 * 0.0002)
            # Python itself ignores one that comes while it runs the callback of a weak reference.
            until = time.monotonic() + 1
            try:
                while time.monotonic() < until:
                    outbox.put(Request(b"x", "d"))
            except KeyboardInterrupt:
                interrupted += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        over.set()
        for thread in others:
            thread.join(20)
    assert not any(thread.is_alive() for thread in others)
    outbox.put(Request(b"x", "d"))  # behind those whose thread was interrupted
    depth = outbox.depth
    assert depth >= sum(put)
    assert open_outbox().depth == depth


def test_a_forked_child_is_refused_and_leaves_the_parents_file_alone(commits: GroupCommit[Content]) -> None:
    commits.write(remember(1))
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            commits.write(remember(2))
        except HybridgeError as error:
            code = 0 if error.code is ErrorCode.FILE_UNWRITABLE else 2
        commits.close()
        os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert count(commits) == 1
