"""What an endpoint counts of each request, over whatever transport it came."""

from __future__ import annotations

import itertools
import secrets
import threading
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from types import TracebackType
from typing import TYPE_CHECKING, Self

from edge_runtime.errors import ErrorCode, HybridgeError

if TYPE_CHECKING:
    from cloud_fallback.endpoint.data_plane import InferenceRequest
    from cloud_fallback.endpoint.request_log import RequestLog

__all__ = ["Histogram", "RequestRecord", "SeriesFigures", "Telemetry", "TelemetryFigures", "Transport"]

# Upper bounds: of times in seconds, from a trivial model to one that a caller gives up on, and of rows.
SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
ROWS = (1, 2, 4, 8, 16, 32, 64, 128)
OK = "ok"


class Transport(StrEnum):
    """How a request came."""

    GRPC = "grpc"
    REST = "rest"


class Histogram:
    """How many values were within each of some bounds, and their sum."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]):
        self.bounds = bounds
        # One more: what is above all of them.
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def add(self, value: float) -> None:
        """Counts one."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def copy(self) -> Histogram:
        """One that stays as this is now."""
        copy = Histogram(self.bounds)
        copy.counts, copy.total = list(self.counts), self.total
        return copy


class _Series:
    """Requests of one model, version and transport."""

    __slots__ = ("bytes_in", "bytes_out", "codes", "queued", "rows", "run", "seconds")

    def __init__(self) -> None:
        self.codes: Counter[str] = Counter()
        self.seconds, self.queued, self.run = (Histogram(SECONDS) for _ in range(3))
        self.rows = Histogram(ROWS)
        self.bytes_in = self.bytes_out = 0


@dataclass(frozen=True, slots=True)
class SeriesFigures:
    """Requests of one model, version and transport.

    Attributes:
        model: The model's name; empty for requests that no model was found for, or that were refused before.
        version: The version that answered.
        transport: How they came.
        codes: How many there were by outcome: ``ok``, or an `ErrorCode`.
        seconds: Seconds from the last byte of the request to the answer.
        queued: Seconds in the model's queue, of those that it ran.
        run: Seconds of the run that answered each.
        rows: Rows of the run that answered each, its own and others'.
        bytes_in: Size of all requests as they were received.
        bytes_out: Size of all answers as they were sent.
    """

    model: str
    version: str
    transport: Transport
    codes: Counter[str]
    seconds: Histogram
    queued: Histogram
    run: Histogram
    rows: Histogram
    bytes_in: int
    bytes_out: int


@dataclass(frozen=True, slots=True)
class TelemetryFigures:
    """Everything that was counted, at one moment."""

    in_flight: dict[Transport, int]
    series: list[SeriesFigures]


class RequestRecord:
    """One request, from its arrival to its answer; `with` counts it when it ends, and as which error it does.

    Where it ends on another thread, `begin` and `end` do.

    Attributes:
        client: Who asks, as the endpoint knows them.
        model: Name and version of what is asked for, as far as they are known before `request` is.
        request: What was asked, once it is known.
        request_id: What the caller or a proxy calls it; one is made where nobody does.
        bytes_in: Size of the request as it was received.
        bytes_out: Size of the answer as it was sent.
        status: The transport's own word for how it ended; for gRPC it follows from the code.
    """

    __slots__ = (
        "_id",
        "_peer",
        "_start",
        "_telemetry",
        "bytes_in",
        "bytes_out",
        "client",
        "model",
        "request",
        "seconds",
        "status",
        "transport",
    )

    def __init__(self, telemetry: Telemetry, transport: Transport, peer: Callable[[], str]):
        self._telemetry = telemetry
        self._peer = peer
        self._id = ""
        self.transport = transport
        self.client = ""
        self.model = ("", "")
        self.request: InferenceRequest | None = None
        self.bytes_in = self.bytes_out = 0
        self.status: int | str = ""
        self.seconds = 0.0
        self._start = time.perf_counter()

    @property
    def request_id(self) -> str:
        """What the request is called."""
        if not self._id:
            self._id = (self.request.id if self.request is not None else "") or self._telemetry.new_id()
        return self._id

    @request_id.setter
    def request_id(self, given: str) -> None:
        self._id = given

    @property
    def peer(self) -> str:
        """Where it came from."""
        return self._peer()

    def received(self, size: int) -> None:
        """Notes that all of the request is there: how long a slow network took is not the endpoint's time."""
        self.bytes_in = size
        self._start = time.perf_counter()

    def __enter__(self) -> Self:
        self.begin()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end(error)

    def begin(self) -> None:
        """Counts it as under way."""
        self._telemetry.began(self.transport)

    def end(self, error: BaseException | None = None) -> None:
        """Counts it as answered, or as this error."""
        self.seconds = time.perf_counter() - self._start
        code: str = OK
        if error is not None:
            code = error.code.value if isinstance(error, HybridgeError) else ErrorCode.INTERNAL.value
        self._telemetry.ended(self, code)


class Telemetry:
    """Counts requests; `figures` reads it at any time, from any thread.

    Names that a caller makes up are counted under none: who asks for ten thousand models that there are not must not
    leave ten thousand counters behind.

    Args:
        log: Writes a line for each request, too.
    """

    def __init__(self, log: RequestLog | None = None) -> None:
        self._log = log
        self._lock = threading.Lock()
        self._in_flight = dict.fromkeys(Transport, 0)
        self._series: dict[tuple[str, str, Transport], _Series] = {}
        self._ids = itertools.count(1)
        self._id_prefix = secrets.token_hex(4)

    def record(self, transport: Transport, peer: Callable[[], str] = str) -> RequestRecord:
        """The record of a request that arrives now, to be used with `with`.

        Args:
            transport: How it came.
            peer: Tells from where, when that is asked for.
        """
        return RequestRecord(self, transport, peer)

    def new_id(self) -> str:
        """A name for a request that has none."""
        return f"{self._id_prefix}-{next(self._ids):x}"

    def began(self, transport: Transport) -> None:
        """Counts a request as under way."""
        with self._lock:
            self._in_flight[transport] += 1

    def ended(self, record: RequestRecord, code: str) -> None:
        """Counts a request that has been answered, and logs it.

        Args:
            record: The request.
            code: ``ok``, or the `ErrorCode` that it was refused with.
        """
        request = record.request
        model, version = ("", "") if request is None else request.resolved
        turn = None if request is None else request.turn
        with self._lock:
            self._in_flight[record.transport] -= 1
            series = self._series.get((model, version, record.transport))
            if series is None:
                series = self._series[model, version, record.transport] = _Series()
            series.codes[code] += 1
            series.seconds.add(record.seconds)
            series.bytes_in += record.bytes_in
            series.bytes_out += record.bytes_out
            if turn is not None:
                series.queued.add(turn.queued_s)
                series.run.add(turn.run_s)
                series.rows.add(turn.rows)
        if self._log is not None:
            self._log.write(record, code)

    def figures(self) -> TelemetryFigures:
        """Everything at this moment."""
        with self._lock:
            return TelemetryFigures(
                dict(self._in_flight),
                [
                    SeriesFigures(
                        *labels,
                        Counter(each.codes),
                        each.seconds.copy(),
                        each.queued.copy(),
                        each.run.copy(),
                        each.rows.copy(),
                        each.bytes_in,
                        each.bytes_out,
                    )
                    for labels, each in self._series.items()
                ],
            )
