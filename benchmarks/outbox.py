"""How many requests a second the outbox makes durable, beside the disk and SQLite alone, and what kills cost it.

``python -m benchmarks.outbox --folder /var/lib/somewhere`` takes its cases in turn, several times, each with a new file
in that folder, because what counts is the disk: bytes written and synchronised without SQLite; a bare SQLite commit of
one row (WAL, `synchronous=FULL`); `put` from one thread and from eight, `put_many`; and a drain, in which every
request is sent to nowhere, its answer stored, delivered and acknowledged. Ratios are to the bare commits of the same
round. ``--kills 500`` kills a process that uses an outbox so many times instead, and counts what was lost.
"""

from __future__ import annotations

import math
import os
import sqlite3
import statistics
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

import click
import msgspec

from benchmarks.outbox_kills import KillReport, run_kills
from cloud_fallback.outbox import Drain, Durability, Outbox, Request
from edge_runtime import ErrorCode, HybridgeError
from edge_runtime.command import run_verb
from edge_runtime.console import emit, format_option, say, table

__all__ = ["outbox"]

_THREADS = 8
_MANY = 100
_DRAINED = 1000
_BARE = "bare SQLite commit"


@click.command()
@click.option(
    "--folder",
    default=".",
    show_default=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Where files are made, and removed in the end; on the disk in question.",
)
@click.option(
    "--rounds", default=5, show_default=True, type=click.IntRange(min=1), help="Rounds of all cases."
)
@click.option(
    "--seconds", default=1.0, show_default=True, type=click.FloatRange(min=0.05), help="Seconds of a case."
)
@click.option(
    "--body-bytes", default=2048, show_default=True, type=click.IntRange(min=1), help="Size of a request."
)
@click.option("--kills", default=0, type=click.IntRange(min=0), help="Kill a process so often instead.")
@click.option("--seed", default=0, show_default=True, help="For the moments of the kills.")
@format_option
def outbox(folder: Path, rounds: int, seconds: float, body_bytes: int, kills: int, seed: int) -> None:
    """Measures the outbox on a disk, or kills a process that uses one."""
    with TemporaryDirectory(dir=folder, prefix="outbox-") as made:
        if kills:
            _kill(Path(made), kills, seed)
        else:
            _measure(Path(made), rounds, seconds, os.urandom(body_bytes))


def _measure(folder: Path, rounds: int, seconds: float, body: bytes) -> None:
    cases: dict[str, Callable[[Path], float]] = {
        "4 KB written and synchronised": lambda path: _synchronised(path, seconds),
        _BARE: lambda path: _bare_commits(path, seconds, body),
        "put, 1 thread": lambda path: _puts(path, seconds, body, threads=1),
        f"put, {_THREADS} threads": lambda path: _puts(path, seconds, body, threads=_THREADS),
        f"put_many of {_MANY}": lambda path: _puts(path, seconds, body, threads=1, many=_MANY),
        "put, 1 thread, durability=crash": lambda path: _puts(
            path, seconds, body, threads=1, durability=Durability.CRASH
        ),
        "drain": lambda path: _drained(path, body),
    }
    rates: dict[str, list[float]] = {name: [] for name in cases}
    for number in range(rounds):
        say(f"round {number + 1} of {rounds}")
        for name, run in cases.items():
            with TemporaryDirectory(dir=folder) as fresh:
                rates[name].append(run(Path(fresh) / "outbox.db"))
    result = {
        name: {
            "per_second": statistics.median(own),
            "smallest": min(own),
            "largest": max(own),
            "to_bare_commits": statistics.median(
                mine / bare for mine, bare in zip(own, rates[_BARE], strict=True)
            ),
        }
        for name, own in rates.items()
    }
    emit(
        {"body_bytes": len(body), "rounds": rounds, "rates": result},
        lambda: table(
            [
                (
                    name,
                    f"{rate['per_second']:,.0f}",
                    f"{rate['smallest']:,.0f}",
                    f"{rate['largest']:,.0f}",
                    f"{rate['to_bare_commits']:.2f}",
                )
                for name, rate in result.items()
            ],
            header=(f"{len(body)} bytes", "a second", "smallest", "largest", "to bare commits"),
        ),
    )


def _synchronised(path: Path, seconds: float) -> float:
    block = bytes(4096)
    with path.open("wb", buffering=0) as file:

        def write() -> None:
            file.write(block)
            os.fdatasync(file.fileno())

        return _rate(write, seconds)


def _bare_commits(path: Path, seconds: float, body: bytes) -> float:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("CREATE TABLE requests (seq INTEGER PRIMARY KEY, body BLOB)")
        return _rate(lambda: connection.execute("INSERT INTO requests (body) VALUES (?)", (body,)), seconds)


def _puts(
    path: Path,
    seconds: float,
    body: bytes,
    *,
    threads: int,
    many: int = 1,
    durability: Durability = Durability.POWER_LOSS,
) -> float:
    rates: list[float] = []
    with Outbox(path, max_bytes=2**40, max_requests=10**9, durability=durability) as box:

        def put() -> None:
            box.put_many([Request(body, "nowhere") for _ in range(many)])

        def work() -> None:
            rates.append(_rate(put, seconds) * many)

        workers = [threading.Thread(target=work) for _ in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    return sum(rates)


def _drained(path: Path, body: bytes) -> float:
    with Outbox(path, max_bytes=2**40) as box:
        box.put_many(Request(body, "nowhere") for _ in range(_DRAINED))
        done = threading.Event()
        start = time.perf_counter()
        with Drain(box, lambda _: b"answer", on_answer=lambda _: None, requests_per_s=math.inf):
            while box.figures().acknowledged < _DRAINED:
                done.wait(0.01)
        return _DRAINED / (time.perf_counter() - start)


def _rate(function: Callable[[], object], seconds: float) -> float:
    count = 0
    start = time.perf_counter()
    while (spent := time.perf_counter() - start) < seconds:
        function()
        count += 1
    return count / spent


def _kill(folder: Path, kills: int, seed: int) -> None:
    said = 0

    def progress(report: KillReport) -> None:
        nonlocal said
        if report.kills >= said + 50:
            said = report.kills
            say(f"{said} kills")

    start = time.perf_counter()
    report = run_kills(folder, kills, seed=seed, progress=progress)
    figures = msgspec.to_builtins(report) | {"seconds": time.perf_counter() - start}
    emit(
        figures, lambda: table([(name, f"{count:,.0f}") for name, count in figures.items()], header=("", ""))
    )
    if not report.is_clean:
        raise HybridgeError(
            ErrorCode.INTERNAL,
            "outbox",
            received=str(report),
            expected="nothing lost, nothing delivered wrongly",
        )


if __name__ == "__main__":
    run_verb(outbox)
