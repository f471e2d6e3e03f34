"""Cases run in processes of their own: one that dies or hangs takes only its case with it."""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from queue import Empty, SimpleQueue
from typing import Any

from benchmarks.onnx_conformance.case import Result, load_cases, run_case

__all__ = ["run_all"]

# Starting takes seconds; a case takes a fraction of one.
_SECONDS_TO_START = 120
_SECONDS_A_CASE = 120


def run_all(names: Sequence[str], workers: int, report: Callable[[Result], None]) -> None:
    """Runs cases in several processes.

    Args:
        names: Of the cases.
        workers: How many processes.
        report: Called with each result, from one thread at a time.
    """
    waiting: SimpleQueue[str] = SimpleQueue()
    for name in names:
        waiting.put(name)
    lock = threading.Lock()

    def locked(result: Result) -> None:
        with lock:
            report(result)

    threads = [threading.Thread(target=_attend, args=(waiting, locked)) for _ in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _attend(waiting: SimpleQueue[str], report: Callable[[Result], None]) -> None:
    """Keeps one process busy until nothing waits, and starts another when it dies."""
    worker: _Worker | None = None
    try:
        while True:
            try:
                name = waiting.get_nowait()
            except Empty:
                return
            worker = worker or _Worker()
            result = worker.run(name)
            report(result)
            if not worker.is_alive:
                worker = None
    finally:
        if worker is not None:
            worker.stop()


class _Worker:
    """One process that runs the cases it is told."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, other = context.Pipe()
        self._process: Any = context.Process(target=_serve, args=(other,), daemon=True)
        self._process.start()
        other.close()
        self._patience = _SECONDS_TO_START

    @property
    def is_alive(self) -> bool:
        return bool(self._process.is_alive())

    def run(self, name: str) -> Result:
        try:
            self._connection.send(name)
            if self._connection.poll(self._patience + _SECONDS_A_CASE):
                self._patience = 0
                result: Result = self._connection.recv()
                return result
            reason = f"no end after {_SECONDS_A_CASE} s"
        except (EOFError, OSError):
            self._process.join(5)
            reason = f"the process died (exit code {self._process.exitcode})"
        self.stop()
        return Result(name, "crashed", reason, (), 0.0)

    def stop(self) -> None:
        self._connection.close()
        self._process.kill()
        self._process.join()


def _serve(connection: Connection) -> None:
    from convert.native_logs import hide_native_logs

    with hide_native_logs():
        cases = load_cases()
        while True:
            try:
                name = connection.recv()
            except EOFError:
                return
            connection.send(run_case(cases[name]))
