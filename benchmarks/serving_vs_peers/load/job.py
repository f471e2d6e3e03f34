"""What a load generator is asked to do, and what came of it."""

from __future__ import annotations

import msgspec

__all__ = ["Job", "Outcome"]


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """Load on one server, with one request again and again.

    Attributes:
        address: The server, as ``host:port``.
        request: File with the encoded `ModelInferRequest`.
        expected: File with the raw contents of the answer's only output.
        session: The server's session, whose processes' time is counted.
        connections: Connections that the calls are spread over.
        in_flight: Calls at once, each followed by the next; not used with `rate`.
        rate: Calls a second that begin whether or not others have ended, at random intervals (a Poisson process).
        deadline_s: What the server is told that a call may take.
        seconds: How long calls are counted, after `warmup_s` during which they are not.
        seed: Of the intervals.
    """

    address: str
    request: str
    expected: str
    session: int
    connections: int
    in_flight: int = 0
    rate: float | None = None
    deadline_s: float | None = None
    warmup_s: float = 1.0
    seconds: float = 3.0
    seed: int = 0


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What calls that began while they were counted came to.

    Attributes:
        seconds: How long they were counted.
        answered: Calls that ended with status OK.
        failed: Calls that ended otherwise, by status.
        unanswered: Calls that did not end at all.
        checked: Answers that were compared with what is expected.
        wrong: Those among them that differ.
        in_time: Answers within the deadline; all of them without one.
        per_second: Answers in a second.
        p50_ms: Median latency of answers, from when the call was due; 0 when there are none.
        p99_ms: 99th percentile, likewise.
        server_us: Processor time of the server's processes for an answer, in microseconds.
        generator_us: The generator's own.
    """

    seconds: float
    answered: int
    failed: dict[str, int]
    unanswered: int
    checked: int
    wrong: int
    in_time: int
    per_second: float
    p50_ms: float
    p99_ms: float
    server_us: float
    generator_us: float
