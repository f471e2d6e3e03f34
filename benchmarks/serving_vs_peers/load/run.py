"""Runs one job: a loop over connections that begins calls, ends them, and checks a sample of the answers."""

from __future__ import annotations

import random
import selectors
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import grpc
import numpy as np

from benchmarks.serving_vs_peers.load.http2 import RESET, UNKNOWN, Call, Connection
from benchmarks.serving_vs_peers.load.job import Job, Outcome
from benchmarks.serving_vs_peers.process_time import session_seconds
from cloud_fallback.open_inference.open_inference_pb2 import ModelInferResponse

__all__ = ["run_job"]

_METHOD = "/inference.GRPCInferenceService/ModelInfer"
_CHECK_EVERY = 64
# A compressed-flag and a length before each message.
_PREFIX_BYTES = 5
# How long calls may take to end when no more begin.
_PATIENCE_S = 10.0
_STATUS_NAMES = {code.value[0]: code.name for code in grpc.StatusCode} | {
    RESET: "RST_STREAM",
    UNKNOWN: "no status",
}


def run_job(job: Job) -> Outcome:
    """Loads a server as a job says.

    Raises:
        HybridgeError: `cloud-unavailable` when the server is not there, or hangs up.
    """
    run = _Run(job)
    try:
        run.begin()
        run.until(time.perf_counter() + job.warmup_s)
        server, own, start = session_seconds(job.session), time.process_time(), time.perf_counter()
        run.until(start + job.seconds)
        seconds = time.perf_counter() - start
        server, own = session_seconds(job.session) - server, time.process_time() - own
        run.finish()
    finally:
        run.close()
    return run.outcome(start, seconds, server_s=server, generator_s=own)


class _Run:
    def __init__(self, job: Job):
        self._job = job
        self._expected = Path(job.expected).read_bytes()
        self._ended: list[Call] = []
        self._is_over = False
        self._number = 0
        self._random = random.Random(job.seed)  # noqa: S311 - intervals, not secrets
        self._due = float("inf")
        self._selector = selectors.DefaultSelector()
        request = Path(job.request).read_bytes()
        self._connections: list[Connection] = []
        for _ in range(job.connections):
            connection = Connection(
                job.address, _METHOD, request, on_end=self._on_end, timeout_s=job.deadline_s
            )
            self._connections.append(connection)
            self._selector.register(connection, selectors.EVENT_READ | selectors.EVENT_WRITE, connection)

    def begin(self) -> None:
        if self._job.rate is None:
            for number in range(self._job.in_flight):
                self._call(self._connections[number % len(self._connections)])
        else:
            self._due = time.perf_counter()

    def until(self, end: float) -> None:
        self._loop(lambda: end - time.perf_counter())

    def finish(self) -> None:
        """Begins no more calls, and waits for those in flight."""
        self._is_over, self._due = True, float("inf")
        end = time.perf_counter() + _PATIENCE_S
        self._loop(lambda: end - time.perf_counter() if self._in_flight() else 0.0)

    def close(self) -> None:
        self._selector.close()
        for connection in self._connections:
            connection.close()

    def outcome(self, start: float, seconds: float, *, server_s: float, generator_s: float) -> Outcome:
        # What is counted is what came back meanwhile; with a rate, what was due meanwhile, however it ended.
        by_start = self._job.rate is not None
        counted = [
            call
            for call in self._ended
            if start <= (call.started if by_start else call.ended) < start + seconds
        ]
        answered = [call for call in counted if call.status == grpc.StatusCode.OK.value[0]]
        failed = Counter(_STATUS_NAMES.get(call.status, str(call.status)) for call in counted)
        failed.pop(grpc.StatusCode.OK.name, None)
        latency = np.asarray([call.ended - call.started for call in answered] or [0.0])
        checked = [call for call in self._ended if call.content is not None and call.status == 0]
        deadline = self._job.deadline_s
        return Outcome(
            seconds=seconds,
            answered=len(answered),
            failed=dict(failed),
            unanswered=self._in_flight(),
            checked=len(checked),
            wrong=sum(not self._is_right(call) for call in checked),
            in_time=sum(deadline is None or call.ended - call.started <= deadline for call in answered),
            per_second=len(answered) / seconds,
            p50_ms=float(np.percentile(latency, 50)) * 1e3,
            p99_ms=float(np.percentile(latency, 99)) * 1e3,
            server_us=server_s / max(len(answered), 1) * 1e6,
            generator_us=generator_s / max(len(answered), 1) * 1e6,
        )

    def _loop(self, left: Callable[[], float]) -> None:
        while (seconds := left()) > 0:
            now = time.perf_counter()
            while self._due <= now:
                connection = self._connections[self._number % len(self._connections)]
                self._call(connection, started=self._due)
                self._write(connection)
                assert self._job.rate is not None  # noqa: S101 - nothing is due without one
                self._due += self._random.expovariate(self._job.rate)
            for key, events in self._selector.select(min(seconds, max(self._due - now, 0.0))):
                connection = key.data
                if events & selectors.EVENT_READ:
                    connection.receive()
                self._write(connection)

    def _write(self, connection: Connection) -> None:
        events = selectors.EVENT_READ
        if not connection.flush():
            events |= selectors.EVENT_WRITE
        if self._selector.get_key(connection).events != events:
            self._selector.modify(connection, events, connection)

    def _call(self, connection: Connection, started: float | None = None) -> None:
        connection.call(started=started, keep=self._number % _CHECK_EVERY == 0)
        self._number += 1

    def _on_end(self, connection: Connection, call: Call) -> None:
        self._ended.append(call)
        if self._job.rate is None and not self._is_over:
            self._call(connection)

    def _in_flight(self) -> int:
        return sum(connection.in_flight for connection in self._connections)

    def _is_right(self, call: Call) -> bool:
        assert call.content is not None  # noqa: S101 - only such calls are checked
        response = ModelInferResponse.FromString(bytes(call.content[_PREFIX_BYTES:]))
        return list(response.raw_output_contents) == [self._expected]
