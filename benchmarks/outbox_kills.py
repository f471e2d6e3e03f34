"""Kills a process that puts, sends, delivers and acknowledges, again and again, and counts what that lost: nothing.

Each life of the process goes on with the same outbox: three threads put, a `Drain` sends over TCP to a server in this
process, which drops some connections and refuses some requests, and a callback takes the answers and sometimes fails.
It is killed (SIGKILL) at a random moment, also while it opens or closes the outbox. What it did until then it has said
through a pipe; what is on the disk is then read with SQLite alone from a copy, so that the next life finds the files
as the kill left them.
"""

from __future__ import annotations

import hashlib
import itertools
import logging
import os
import random
import shutil
import signal
import socket
import socketserver
import sqlite3
import subprocess
import sys
import threading
import time
import traceback
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from cloud_fallback.outbox import Delivery, Drain, Outbox, Request
from edge_runtime.errors import ErrorCode, HybridgeError

__all__ = ["KillReport", "run_kills"]

_LIFE_S = 0.2
_LAST_LIFE_S = 60.0
# A life that nobody kills, because who would have is gone, ends by itself.
_ORPHAN_S = 10.0
_PUTTERS = 3
# Puts wait while so many are there, so that the backlog stays what it is in one that keeps up.
_BACKLOG = 100
_DROPPED, _REFUSED, _CALLBACK_FAILS = 0.05, 0.03, 0.05
_PROCESS = "from benchmarks.outbox_kills import serve_lives; serve_lives()"


@dataclass
class KillReport:
    """What came of a run; all from `lost` on are to be zero.

    Attributes:
        kills: Times the process was killed.
        puts: Puts that returned.
        delivered: Requests of which an answer or a refusal was delivered.
        redelivered: Deliveries beyond the first of a request.
        resent: Requests that the server got more than once, and answered from memory.
        lost: Puts that returned, and were then neither on the disk nor delivered.
        left: Requests that the last, undisturbed life left behind.
        delivered_after_acknowledgement: Deliveries of what was acknowledged on the disk already.
        redelivered_unnumbered: Deliveries again whose number did not say so.
        wrong_answers: Deliveries of something else than the server's answer for that id.
        damaged: Times that SQLite found the file damaged.
        broken: Lives that ended with an error of their own.
    """

    kills: int = 0
    puts: int = 0
    delivered: int = 0
    redelivered: int = 0
    resent: int = 0
    lost: int = 0
    left: int = 0
    delivered_after_acknowledgement: int = 0
    redelivered_unnumbered: int = 0
    wrong_answers: int = 0
    damaged: int = 0
    broken: int = 0

    @property
    def is_clean(self) -> bool:
        """Whether nothing was lost, delivered wrongly, or damaged."""
        return not (
            self.lost
            or self.left
            or self.delivered_after_acknowledgement
            or self.redelivered_unnumbered
            or self.wrong_answers
            or self.damaged
            or self.broken
        )


def run_kills(
    folder: Path, kills: int, *, seed: int = 0, progress: Callable[[KillReport], None] | None = None
) -> KillReport:
    """Kills the process so many times and lets it finish in the end.

    Args:
        folder: Where the outbox is made, on the disk in question.
        kills: How many times.
        seed: For the moments of the kills and for what is put.
        progress: Called after each kill.
    """
    random_moment = random.Random(seed)  # noqa: S311 - a seed makes a run repeatable
    path = folder / "outbox.db"
    books = _Books()
    with _server() as server, _lives(path, server.server_address[1]) as lives:
        for number in itertools.count():
            if books.report.kills == kills:
                break
            # A third of the lives would end by themselves, so that kills also come while the outbox is closed.
            closes_after_s = random_moment.uniform(0, _LIFE_S) if random_moment.random() < 0.33 else -1
            _live(lives, books, f"{number} {closes_after_s}", random_moment.uniform(0, _LIFE_S))
            books.compare(*_stored(path, folder / "copy.db"))
            if progress is not None:
                progress(books.report)
        _live(lives, books, "last 0", None)
        books.compare(*_stored(path, folder / "copy.db"))
        books.report.resent = server.resent
    return books.close()


@dataclass
class _Books:
    """What the lives have said, and what follows from it."""

    report: KillReport = field(default_factory=KillReport)
    put: set[str] = field(default_factory=set)
    numbers: dict[str, int] = field(default_factory=dict)
    gone: set[str] = field(default_factory=set)
    stored: set[str] = field(default_factory=set)

    def hear(self, line: str) -> None:
        what, request_id, *rest = line.split()
        if what == "put":
            self.put.add(request_id)
            return
        number, is_right = int(rest[0]), rest[1] == "right"
        last = self.numbers.get(request_id, 0)
        self.report.redelivered += last > 0
        self.report.redelivered_unnumbered += number <= last
        self.report.delivered_after_acknowledgement += request_id in self.gone
        self.report.wrong_answers += not is_right
        self.numbers[request_id] = number

    def compare(self, stored: set[str], is_whole: bool) -> None:
        """Holds what was said against what is on the disk, between two lives."""
        self.report.damaged += not is_whole
        self.stored = stored
        # What is no longer there was acknowledged, or else lost.
        self.gone |= (self.put | self.numbers.keys()) - stored

    def close(self) -> KillReport:
        self.report.puts = len(self.put)
        self.report.delivered = len(self.numbers)
        self.report.lost = len(self.put - self.numbers.keys() - self.stored)
        self.report.left = len(self.stored)
        return self.report


def _stored(path: Path, copy: Path) -> tuple[set[str], bool]:
    """The ids on the disk, read by SQLite from a copy, and whether it finds the file whole."""
    if not path.exists():
        return set(), True
    wal, wal_copy = (each.with_name(f"{each.name}-wal") for each in (path, copy))
    shutil.copy(path, copy)
    wal_copy.unlink(missing_ok=True)
    if wal.exists():
        shutil.copy(wal, wal_copy)
    with closing(sqlite3.connect(copy)) as connection:
        if not connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
            return set(), True
        ids = {
            row[0] for row in connection.execute("SELECT id FROM requests UNION ALL SELECT id FROM answers")
        }
        return ids, connection.execute("PRAGMA integrity_check").fetchone()[0] == "ok"


@contextmanager
def _lives(path: Path, port: int) -> Iterator[subprocess.Popen[str]]:
    """A process that forks another for each line it is told: to start Python anew would take longer than a life."""
    with subprocess.Popen(
        [sys.executable, "-c", _PROCESS, str(path), str(port)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[1],
    ) as process:
        try:
            yield process
        finally:
            assert process.stdin is not None  # noqa: S101 - it was opened as a pipe
            process.stdin.close()


def _live(lives: subprocess.Popen[str], books: _Books, order: str, kill_after_s: float | None) -> None:
    """One life."""
    assert lives.stdin is not None  # noqa: S101 - they were opened as pipes
    assert lives.stdout is not None  # noqa: S101
    lives.stdin.write(f"{order}\n")
    lives.stdin.flush()
    killer: threading.Timer | None = None
    for line in lives.stdout:
        what, _, rest = line.strip().partition(" ")
        if what == "began" and kill_after_s is not None:
            killer = threading.Timer(kill_after_s, _kill, (int(rest),))
            killer.start()
        elif what == "ended":
            if killer is not None:
                killer.cancel()
            books.report.kills += int(rest) == -signal.SIGKILL
            books.report.broken += int(rest) not in (0, -signal.SIGKILL)
            return
        elif what in ("put", "delivered"):
            books.hear(line)
    raise RuntimeError("the process that is killed did not start")


def _kill(pid: int) -> None:
    # The parent reaps it only after it said so, but a timer that is late must not hit nobody.
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def serve_lives() -> None:
    """What the process does that `_lives` starts."""
    path, port = Path(sys.argv[1]), int(sys.argv[2])
    for order in sys.stdin:
        life, closes_after_s = order.split()
        pid = os.fork()
        if pid == 0:
            threading.excepthook = lambda error: _end(error.exc_value)
            try:
                _live_once(path, port, life, float(closes_after_s))
            except BaseException as error:
                _end(error)
            _end(None)
        _say(f"began {pid}")
        _say(f"ended {os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])}")


def _end(error: BaseException | None) -> None:
    """Ends a life without what Python does at its end, which is its parent's."""
    if error is not None:
        traceback.print_exception(error)
    os._exit(error is not None)


def _live_once(path: Path, port: int, life: str, closes_after_s: float) -> None:
    over = threading.Event()

    def take(delivery: Delivery) -> None:
        expected = _answer(delivery.id)
        is_right = delivery.error is not None if expected is None else delivery.answer == expected
        _say(f"delivered {delivery.id} {delivery.number} {'right' if is_right else 'wrong'}")
        if random.random() < _CALLBACK_FAILS:  # noqa: S311 - a test's own trouble
            raise RuntimeError("as callbacks do")

    def put(thread: int) -> None:
        number = 0
        while not over.is_set():
            if outbox.depth > _BACKLOG:
                over.wait(0.01)
                continue
            request_id = f"{life}.{thread}.{number}"
            outbox.put(Request(_body(request_id), f"place-{number % 2}", priority=number % 3, id=request_id))
            _say(f"put {request_id}")
            number += 1

    logging.disable()  # failures are part of it
    with Outbox(path) as outbox:
        drain = Drain(
            outbox,
            lambda request: _send(port, request),
            on_answer=take,
            requests_per_s=1e6,
            first_backoff_s=0.005,
            max_backoff_s=0.02,
        )
        with drain:
            if life == "last":
                limit = time.monotonic() + _LAST_LIFE_S
                while (figures := outbox.figures()).depth or figures.unacknowledged:
                    if time.monotonic() > limit:
                        raise TimeoutError(f"{figures} are left")
                    time.sleep(0.01)
                return
            putters = [threading.Thread(target=put, args=(thread,)) for thread in range(_PUTTERS)]
            for putter in putters:
                putter.start()
            over.wait(closes_after_s if closes_after_s >= 0 else _ORPHAN_S)
            over.set()
            for putter in putters:
                putter.join()


def _say(line: str) -> None:
    # Whole, however the process ends: a pipe takes up to 4 KB at once or not at all.
    os.write(1, f"{line}\n".encode())


def _send(port: int, request: Request) -> bytes:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            connection.sendall(f"{request.id}\n".encode() + request.body)
            connection.shutdown(socket.SHUT_WR)
            answer = b"".join(iter(lambda: connection.recv(65536), b""))
    except OSError as error:
        raise HybridgeError(ErrorCode.CLOUD_UNAVAILABLE, "server", received=str(error)) from error
    if not answer:
        raise HybridgeError(ErrorCode.CLOUD_UNAVAILABLE, "server", received="a connection that was cut")
    if answer == b"refused":
        raise HybridgeError(ErrorCode.CLOUD_REFUSED, "server", received="a refusal")
    return answer


def _body(request_id: str) -> bytes:
    digest = hashlib.sha256(request_id.encode()).digest()
    return digest * (1 + zlib.crc32(digest) % 300)


def _answer(request_id: str) -> bytes | None:
    """What the server answers; None for a refusal."""
    digest = hashlib.sha256(request_id.encode()).digest()
    return None if digest[0] < 256 * _REFUSED else hashlib.sha256(_body(request_id)).digest()


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    request_queue_size = 128
    resent = 0

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.seen: set[str] = set()


class _Handler(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        assert isinstance(self.server, _Server)  # noqa: S101 - whose handler this is
        request_id = self.rfile.readline().decode().strip()
        body = self.rfile.read()
        # What a killed process sent may be cut off, and a connection may be lost.
        if body != _body(request_id) or random.random() < _DROPPED:  # noqa: S311
            return
        self.server.resent += request_id in self.server.seen
        self.server.seen.add(request_id)
        with suppress(OSError):
            self.wfile.write(_answer(request_id) or b"refused")


@contextmanager
def _server() -> Iterator[_Server]:
    with _Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
