"""The SQLite file of an outbox: opened by one process, never without the space for what was committed.

The file is in WAL mode and locked exclusively for as long as it is open (`locking_mode=EXCLUSIVE`), so a second process
is refused, and the lock goes when the process does, however it ends.

A full disk stops SQLite's deletions too, for these are written to the WAL first, and a WAL whose pages find no place
in the file is never emptied again. Here the WAL keeps its space once it has it, and before a transaction is committed
the file is extended by what the transaction added. Therefore whatever was committed can be moved into the file, the WAL
can be used again from its start, and on a disk without a single free block answers are taken and requests deleted.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import logging
import os
import sqlite3
import threading
import time
import weakref
from enum import StrEnum
from os import PathLike
from pathlib import Path

from edge_runtime.errors import ErrorCode, HybridgeError

__all__ = ["DatabaseFile", "Durability"]

_log = logging.getLogger(__name__)

# "HyOB": tells an outbox from any other database.
_APPLICATION_ID = 0x48794F42
_SCHEMA_VERSION = 1
_SCHEMA = """
CREATE TABLE requests (
    seq INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    destination TEXT NOT NULL,
    priority INTEGER NOT NULL,
    put_s REAL NOT NULL,
    put_at REAL NOT NULL,
    expires_s REAL,
    crc INTEGER NOT NULL,
    size INTEGER NOT NULL,
    metadata TEXT NOT NULL,
    body BLOB NOT NULL
);
CREATE INDEX due ON requests (destination, priority DESC, seq, size);
CREATE INDEX expiry ON requests (expires_s) WHERE expires_s IS NOT NULL;
CREATE TABLE answers (
    seq INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    destination TEXT NOT NULL,
    put_at REAL NOT NULL,
    deliveries INTEGER NOT NULL,
    crc INTEGER NOT NULL,
    size INTEGER NOT NULL,
    metadata TEXT NOT NULL,
    error TEXT,
    answer BLOB
);
CREATE TABLE clock (
    elapsed_s REAL NOT NULL,
    boot_id TEXT NOT NULL,
    boot_s REAL NOT NULL,
    utc_s REAL
);
"""
_PAGE_BYTES = 4096
# The WAL is emptied into the file when it has so many pages, and what it keeps is twice that: one transaction more, as
# large as all of them, still fits into it.
_CHECKPOINT_PAGES = 512
_WAL_BYTES = 2 * _CHECKPOINT_PAGES * (_PAGE_BYTES + 24)
# The file grows by so much at a time: each growth costs the file system a transaction.
_GROWTH_BYTES = 64 * _PAGE_BYTES
# Free pages stay in the file until they are many, and more than what is in use; then so many go at a time.
_FEW_FREE_PAGES = 256
_VACUUM_PAGES = 256
_BUSY_S = 1.0
# Closing gives back what it can in so long.
_CLOSING_S = 0.5
_READING = "SELECT 1 FROM requests, answers, clock LIMIT 0"


class Durability(StrEnum):
    """What a request survives once it is put.

    `power-loss`: each commit waits for the disk (`synchronous=FULL`). `crash`: the end of the process, but what was
    put in the seconds before power fails may be gone (`synchronous=NORMAL`); the file stays whole. For flash that takes
    long to write, or wears.
    """

    POWER_LOSS = "power-loss"
    CRASH = "crash"


class DatabaseFile:
    """An outbox's file, open in this process and no other.

    Args:
        path: The file; it is made, readable by its owner only, where there is none.
        durability: What a commit waits for.
        set_aside: Whether a damaged file is renamed to ``<path>.damaged-<n>`` and a new one made.

    Raises:
        HybridgeError: `outbox-damaged`; `file-unwritable` for a path that cannot be opened or that is open already;
            `outbox-full` when there is no space for a new file; `usage` for a database of something else or of a
            later version of hybridge.

    Attributes:
        connection: For one thread at a time.
    """

    def __init__(self, path: str | PathLike[str], *, durability: Durability, set_aside: bool):
        self.path = Path(path)
        self.connection: sqlite3.Connection
        self._durability = durability
        self._process = os.getpid()
        self._file = -1
        self._key: tuple[int, int] | None = None
        try:
            self._open(check=set_aside)
        except HybridgeError as error:
            if error.code is not ErrorCode.OUTBOX_DAMAGED or not set_aside:
                raise
            _log.error("%s; it is set aside as %s", error.message, self._set_aside())
            self._open(check=False)

    @property
    def is_ours(self) -> bool:
        """Whether this is the process that opened the file, and not one that was forked from it."""
        return self._process == os.getpid()

    def check_process(self) -> None:
        """Refuses a process that was forked from the one that opened the file: the lock is not its own.

        Raises:
            HybridgeError: `file-unwritable`.
        """
        if not self.is_ours:
            raise self._unwritable(
                "an outbox that the process it was forked from has open", "open it after the fork"
            )

    def hold_space(self) -> None:
        """Makes sure, before a commit, that the file has the space for all of its pages, and that it still is there.

        Raises:
            OSError: No space left.
            HybridgeError: `outbox-damaged` when the file was deleted.
        """
        status = os.fstat(self._file)
        if not status.st_nlink:
            raise HybridgeError(
                ErrorCode.OUTBOX_DAMAGED,
                f"outbox '{self.path}'",
                received="a file that was deleted while it was open",
                expected="a file that is left alone",
                fix="close the outbox and open it again; what was in it is gone",
            )
        needed = self._pragma("page_count") * _PAGE_BYTES
        if status.st_size < needed:
            needed = -(-needed // _GROWTH_BYTES) * _GROWTH_BYTES
            _allocate(self._file, status.st_size, needed - status.st_size)

    def release_space(self) -> None:
        """Returns, after a commit that failed, what was held for it."""
        with contextlib.suppress(sqlite3.Error, OSError):
            needed = self._pragma("page_count") * _PAGE_BYTES
            if os.fstat(self._file).st_size > needed:
                os.ftruncate(self._file, needed)

    def empty_wal(self) -> None:
        """Moves what is in the WAL into the file, so that the next commit begins at the WAL's start."""
        with contextlib.suppress(sqlite3.Error):
            self.connection.execute("PRAGMA wal_checkpoint(RESTART)").fetchall()

    def give_back(self) -> bool:
        """Returns some of the space that is free within the file to the disk, if it is much; whether there is more."""
        free, pages = self._pragma("freelist_count"), self._pragma("page_count")
        if free <= max(_FEW_FREE_PAGES, pages // 2):
            return False
        # `execute` would stop after the first page: each is a row, and one without columns.
        self.connection.executescript(f"PRAGMA incremental_vacuum({_VACUUM_PAGES})")
        free, pages = self._pragma("freelist_count"), self._pragma("page_count")
        if free > max(_FEW_FREE_PAGES, pages // 2):
            return True
        self.empty_wal()
        return False

    def bytes_on_disk(self) -> int:
        """What the file and its WAL take."""
        total = 0
        for path in (self.path, self._wal):
            with contextlib.suppress(OSError):
                total += path.stat().st_blocks * 512
        return total

    def translate(self, error: sqlite3.Error | OSError) -> HybridgeError:
        """What an error of SQLite or of the disk means to a caller."""
        if isinstance(error, OSError):
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                return self._disk_full()
            return self._unwritable(error.strerror or str(error))
        primary = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if primary == sqlite3.SQLITE_FULL:
            return self._disk_full()
        if primary in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            return self._damaged(str(error))
        if primary in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return self._in_use()
        return self._unwritable(str(error) or type(error).__name__)

    def close(self) -> None:
        """Closes the file, after giving back what space it can in a moment."""
        with contextlib.suppress(sqlite3.Error):
            limit = time.monotonic() + _CLOSING_S
            while self.give_back() and time.monotonic() < limit:
                pass
        with contextlib.suppress(sqlite3.Error):
            self.connection.close()
        self._forget()

    @property
    def _wal(self) -> Path:
        return self.path.with_name(f"{self.path.name}-wal")

    def _open(self, *, check: bool) -> None:
        self._claim()
        try:
            # Kept open until SQLite has closed the file: closing any descriptor of it would drop the lock.
            is_new = not self.path.exists()
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            self._claim()
            if is_new:
                _sync_folder(self.path)
            self.connection = sqlite3.connect(
                self.path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False
            )
            try:
                self._prepare(check=check)
            except BaseException:
                self.connection.close()
                raise
        except BaseException as error:
            self._forget()
            if isinstance(error, sqlite3.Error | OSError):
                raise self.translate(error) from error
            raise
        _OPEN.add(self)

    def _prepare(self, *, check: bool) -> None:
        # Text that the disk has changed is to be found by its check sum, not to stop the query that comes across it.
        self.connection.text_factory = _text
        execute = self.connection.execute
        execute("PRAGMA locking_mode=EXCLUSIVE").fetchall()
        execute("PRAGMA temp_store=MEMORY")
        # What is deleted is not overwritten with zeros: that would take as much of the WAL as it took to store it.
        execute("PRAGMA secure_delete=OFF").fetchall()
        is_empty = not execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        application, version = self._pragma("application_id"), self._pragma("user_version")
        if not is_empty and application != _APPLICATION_ID:
            raise self._other("a database of another program", "an outbox, or a new file")
        if version > _SCHEMA_VERSION:
            raise self._other(
                f"an outbox of version {version}", f"at most {_SCHEMA_VERSION}", "update hybridge"
            )
        if is_empty:
            execute(f"PRAGMA page_size={_PAGE_BYTES}")
            execute("PRAGMA auto_vacuum=INCREMENTAL")
        execute("PRAGMA journal_mode=WAL").fetchall()
        execute(f"PRAGMA synchronous={'FULL' if self._durability is Durability.POWER_LOSS else 'NORMAL'}")
        execute(f"PRAGMA wal_autocheckpoint={_CHECKPOINT_PAGES}").fetchall()
        execute(f"PRAGMA journal_size_limit={_WAL_BYTES}").fetchall()
        if is_empty:
            self.connection.executescript(
                f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA application_id={_APPLICATION_ID};"
                f"PRAGMA user_version={_SCHEMA_VERSION}; COMMIT"
            )
        execute(_READING)
        if check and (found := execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
            raise self._damaged(found)
        self._hold_wal()

    def _hold_wal(self) -> None:
        """Gives the WAL its space; SQLite takes what is behind its last whole transaction for the end."""
        try:
            wal = os.open(self._wal, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        try:
            size = os.fstat(wal).st_size
            if size < _WAL_BYTES:
                _allocate(wal, size, _WAL_BYTES - size)
        except OSError as error:
            _log.warning("outbox '%s': no space for its WAL (%s)", self.path, error.strerror)
        finally:
            os.close(wal)

    def _claim(self) -> None:
        """Refuses a file that this process has open: opening and closing it again would drop the lock on it."""
        try:
            status = self.path.stat()
        except OSError:
            return
        key = (status.st_dev, status.st_ino)
        with _OPEN_LOCK:
            if key == self._key:
                return
            if key in _OPEN_FILES:
                raise self._in_use()
            _OPEN_FILES.add(key)
            self._key = key

    def _forget(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
        with _OPEN_LOCK:
            _OPEN_FILES.discard(self._key)
            self._key = None

    def _set_aside(self) -> Path:
        number = 1
        while (aside := self.path.with_name(f"{self.path.name}.damaged-{number}")).exists():
            number += 1
        self.path.rename(aside)
        with contextlib.suppress(FileNotFoundError):
            self._wal.rename(aside.with_name(f"{aside.name}-wal"))
        return aside

    def _pragma(self, name: str) -> int:
        value: int = self.connection.execute(f"PRAGMA {name}").fetchone()[0]
        return value

    def _disk_full(self) -> HybridgeError:
        return HybridgeError(
            ErrorCode.OUTBOX_FULL,
            f"outbox '{self.path}'",
            received="no space left on the disk",
            expected="space for what is put",
            fix="free some; what is stored stays stored",
        )

    def _damaged(self, received: str) -> HybridgeError:
        return HybridgeError(
            ErrorCode.OUTBOX_DAMAGED,
            f"outbox '{self.path}'",
            received=received,
            expected="the file as it was written",
            fix="close it and open it with set_aside=True, which renames the file and begins a new one",
        )

    def _in_use(self) -> HybridgeError:
        return self._unwritable("a file that is open elsewhere", "let one process open it, once")

    def _unwritable(self, received: str, fix: str = "") -> HybridgeError:
        return HybridgeError(
            ErrorCode.FILE_UNWRITABLE,
            f"outbox '{self.path}'",
            received=received,
            expected="a file of its own that can be written",
            fix=fix or "check its folder, permissions and disk",
        )

    def _other(self, received: str, expected: str, fix: str = "give another path") -> HybridgeError:
        return HybridgeError(
            ErrorCode.USAGE, f"outbox '{self.path}'", received=received, expected=expected, fix=fix
        )


def _text(stored: bytes) -> str:
    return stored.decode(errors="replace")


def _allocate(file: int, offset: int, length: int) -> None:
    try:
        os.posix_fallocate(file, offset, length)
    except OSError as error:
        # A file system that cannot promise space still works, without the promise.
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
            raise


def _sync_folder(path: Path) -> None:
    folder = os.open(path.absolute().parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


_OPEN_LOCK = threading.Lock()
_OPEN_FILES: set[tuple[int, int] | None] = set()
_OPEN: weakref.WeakSet[DatabaseFile] = weakref.WeakSet()


def _forget_connections() -> None:
    global _OPEN_LOCK
    _OPEN_LOCK = threading.Lock()  # another thread may have held it
    # A forked child that ends in the ordinary way would close its copy of the connection, and SQLite, taking the lock
    # for its own, would delete the WAL under the parent. One reference too many keeps it from being closed there.
    for each in _OPEN:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(each.connection))


os.register_at_fork(after_in_child=_forget_connections)
