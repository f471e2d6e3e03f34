"""Many threads, one commit: whoever comes while a transaction is being committed shares the next one.

A commit costs what the disk takes to write, and hardly more with eight changes in it than with one (group commit:
DeWitt et al., "Implementation techniques for main memory database systems", SIGMOD 1984). A thread of its own commits,
so that Ctrl-C, which Python raises wherever the main thread is, never comes between a commit and what is known of it.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any, Generic, Protocol, Self, TypeAlias, TypeVar

from cloud_fallback.outbox.database import DatabaseFile
from edge_runtime.errors import ErrorCode, HybridgeError

__all__ = ["GroupCommit"]

# Those who shared the last commit come again at about the same time. The next one waits for them, but not for longer
# than this part of what a commit takes.
_PATIENCE = 0.25


class _Copied(Protocol):
    def copy(self) -> Self: ...


Content = TypeVar("Content", bound=_Copied)
Result = TypeVar("Result")
Change: TypeAlias = Callable[[sqlite3.Connection, Content], Result]


class GroupCommit(Generic[Content]):
    """Runs changes of a database in shared transactions, and queries between them; safe from many threads.

    Args:
        file: The database.
        content: What its owner knows by heart of what is stored. A change gets a copy to alter, which takes the place
            of the other when it is committed.

    Attributes:
        content: As it was last committed; to look at.
        is_closed: Whether `close` was called.
    """

    def __init__(self, file: DatabaseFile, content: Content):
        self._file = file
        self.content = content
        self._connection_lock = threading.Lock()
        self._queue: SimpleQueue[_Turn | None] = SimpleQueue()
        self._queue_lock = threading.Lock()
        self.is_closed = False
        self._thread = threading.Thread(target=self._run, name="hybridge-outbox-commit", daemon=True)
        self._thread.start()

    def write(self, change: Change[Content, Result]) -> Result:
        """Runs a change in the committing thread, and returns what it returned when that is committed.

        Args:
            change: Alters the database and the content. It may run more than once; only the last time stays, and not
                even that if it raises.

        Raises:
            HybridgeError: What the change raised; `outbox-full` for a full disk, `outbox-damaged`, `file-unwritable`;
                `usage` when it is closed. Nothing is changed then; only when the disk failed while it wrote, the
                change may still be found after a restart.
        """
        turn = _Turn(change)
        with self._queue_lock:
            self._check_open()
            self._queue.put(turn)
        turn.gate.acquire()
        result: Result = turn.result()
        return result

    def read(self, query: Change[Content, Result]) -> Result:
        """Runs a query, when no commit is under way, and returns what it returned.

        Raises:
            HybridgeError: What the query raised; `outbox-damaged`, `file-unwritable`; `usage` when it is closed.
        """
        with self._connection_lock:
            self._check_open()
            try:
                return query(self._file.connection, self.content)
            except sqlite3.Error as error:
                raise self._file.translate(error) from error

    def close(self) -> None:
        """Commits what has come, and closes the file; who comes later is refused. In a forked child, does nothing."""
        if not self._file.is_ours:
            return
        with self._queue_lock:
            if self.is_closed:
                return
            self.is_closed = True
            self._queue.put(None)
        self._thread.join()
        with self._connection_lock:
            self._file.close()

    def _run(self) -> None:
        expected, commit_s = 1, 0.0
        is_last = False
        while not is_last and (first := self._queue.get()) is not None:
            batch = [first]
            limit = time.monotonic() + commit_s * _PATIENCE
            try:
                while True:
                    wait_s = limit - time.monotonic() if len(batch) < expected else 0.0
                    turn = self._queue.get(wait_s > 0, max(wait_s, 0.0))
                    if turn is None:
                        is_last = True
                        break
                    batch.append(turn)
            except Empty:
                pass
            start = time.monotonic()
            with self._connection_lock:
                self._commit(batch)
            commit_s = time.monotonic() - start
            # Those of the batch, and those who came while it was written.
            expected = len(batch) + self._queue.qsize()
            for turn in batch:
                turn.gate.release()

    def _commit(self, batch: list[_Turn]) -> None:
        """Commits a batch, and says to each turn what kept it out; never raises."""
        error = self._attempt(batch)
        if isinstance(error, HybridgeError) and error.code is ErrorCode.OUTBOX_FULL:
            self._file.empty_wal()
            error = self._attempt(batch)
        if error is None:
            return
        for turn in batch:
            # One that does not fit, or that fails, is not to fail the others.
            alone = self._attempt([turn]) if len(batch) > 1 else error
            turn.error = alone or turn.error

    def _attempt(self, batch: list[_Turn]) -> BaseException | None:
        """Commits all of a batch; or nothing of it, and returns why."""
        connection = self._file.connection
        content = self.content
        try:
            connection.execute("BEGIN IMMEDIATE")
            for turn in batch:
                content = turn.run(connection, content)
            self._file.hold_space()
            connection.execute("COMMIT")
        except BaseException as error:
            with contextlib.suppress(sqlite3.Error):
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
            self._file.release_space()
            return self._file.translate(error) if isinstance(error, sqlite3.Error | OSError) else error
        self.content = content
        return None

    def _check_open(self) -> None:
        self._file.check_process()
        if self.is_closed:
            raise HybridgeError(
                ErrorCode.USAGE,
                f"outbox '{self._file.path}'",
                received="an outbox that was closed",
                expected="one that is open",
            )


class _Turn:
    """One change on its way; the thread that brought it waits at the gate."""

    __slots__ = ("_change", "_value", "error", "gate")

    def __init__(self, change: Callable[..., Any]):
        self._change = change
        self._value: Any = None
        self.error: BaseException | None = None
        self.gate = threading.Lock()
        self.gate.acquire()

    def run(self, connection: sqlite3.Connection, content: Any) -> Any:
        """Makes the change, or none of it; returns the content after it."""
        self.error = None
        altered = content.copy()
        connection.execute("SAVEPOINT turn")
        try:
            self._value = self._change(connection, altered)
        except (sqlite3.Error, OSError):
            raise
        except Exception as error:
            self.error = error
            connection.execute("ROLLBACK TO turn")
            altered = content
        connection.execute("RELEASE turn")
        return altered

    def result(self) -> Any:
        if self.error is not None:
            raise self.error
        return self._value
