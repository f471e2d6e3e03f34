"""The load generator as its user sees it: jobs go in, outcomes come out."""

from __future__ import annotations

import subprocess
import sys
from types import TracebackType
from typing import Self

import msgspec

from benchmarks.serving_vs_peers.load.job import Job, Outcome
from edge_runtime.errors import ErrorCode, HybridgeError

__all__ = ["LoadGenerator"]


class LoadGenerator:
    """A process that loads servers, one job at a time, and ends with this one."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.serving_vs_peers.load"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # As the servers have: Linux shares processors among sessions first (autogroups, sched(7)).
            start_new_session=True,
        )

    def run(self, job: Job) -> Outcome:
        """Runs a job to its end.

        Raises:
            HybridgeError: `cloud-unavailable` when the server is not there or hangs up.
        """
        assert self._process.stdin is not None and self._process.stdout is not None  # noqa: S101, PT018 - as opened
        self._process.stdin.write(msgspec.json.encode(job) + b"\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise HybridgeError(
                ErrorCode.INTERNAL, "load generator", received=f"its end, with {self._process.wait()}"
            )
        reply = msgspec.json.decode(line)
        if error := reply.get("error"):
            raise HybridgeError(ErrorCode(error["code"]), error["message"])
        return msgspec.convert(reply, Outcome)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None  # noqa: S101 - as opened
        self._process.stdin.close()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
