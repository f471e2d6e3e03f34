"""A chain over a stream: several frames under way at once, each in another stage, answered in their order."""

from __future__ import annotations

import logging
import os
import threading
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from queue import SimpleQueue
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from edge_runtime.errors import ErrorCode, HybridgeError
from edge_runtime.frame import Frame, StreamResult
from edge_runtime.metrics import Backlog

if TYPE_CHECKING:
    from edge_runtime.chain.chain import Chain
    from edge_runtime.chain.run import Run
    from edge_runtime.prediction import Prediction

__all__ = ["Overflow", "Stream"]

_log = logging.getLogger(__name__)

Overflow: TypeAlias = Literal["block", "drop-oldest", "drop-newest"]
_OVERFLOWS = ("block", "drop-oldest", "drop-newest")


class Stream:
    """Runs a chain over the frames of a source and gives the answers in the frames' order.

    The stages are a pipeline. Workers take whichever stage of whichever frame can run, the oldest frame first: a model
    runs as many frames at once as it has instances, one that carries a state takes them in order, operators run on
    the worker that has the frame. So no thread is tied to a stage, and a slow stage has all workers that it can use.
    Every line is bounded: `queue_size` frames wait at the entrance, one frame more than there are workers is under way
    or waits for the reader. A reader that is slow therefore holds up the stages, these the entrance, and that the
    source; or frames are dropped there.

    A frame that fails is answered with its error, and the stream goes on. A frame that is late in a chain that drops
    what is late, and one that found the entrance full, is not answered; its number is missing. The chain's metrics
    count both.

    Use it as a context manager, or iterate to its end: either stops its threads, and closes a source that still waits.

    Raises:
        HybridgeError: `usage` for a setting that cannot be; while iterating, what the source itself raises, once all
            frames before it are answered.
    """

    def __init__(
        self,
        chain: Chain,
        source: Iterable[Any],
        *,
        queue_size: int,
        overflow: Overflow,
        workers: int | None,
    ):
        count = workers or os.cpu_count() or 1
        if overflow not in _OVERFLOWS or queue_size < 1 or count < 1:
            raise HybridgeError(
                ErrorCode.USAGE,
                "stream",
                received=f"overflow='{overflow}', queue_size={queue_size}, workers={count}",
                expected=f"overflow one of {', '.join(_OVERFLOWS)}, and at least one of the others",
            )
        self._chain, self._source = chain, source
        self._queue_size, self._overflow = queue_size, overflow
        self._limit = count + 1
        # The source's thread is woken when so few wait: each waking costs the workers some of their time.
        self._refill_at = queue_size // 2
        self._lock = threading.Lock()
        self._has_work = threading.Condition(self._lock)
        self._has_room = threading.Condition(self._lock)
        self._entrance: deque[tuple[int, Frame | HybridgeError]] = deque()
        self._flights: deque[_Flight] = deque()
        # Frames that are over, in their order, and how many of them nobody has read yet; None is the end.
        self._results: SimpleQueue[_Flight | None] = SimpleQueue()
        self._unread = 0
        self._parts = _parts(chain)
        self._running = [0] * len(self._parts)
        self._idle = 0
        self._source_ended = False
        self._source_error: BaseException | None = None
        self._stopped = False
        self._threads = [
            threading.Thread(target=self._feed, name="hybridge-source", daemon=True),
            *(
                threading.Thread(target=self._work, name=f"hybridge-stream-{number}", daemon=True)
                for number in range(count)
            ),
        ]
        chain.reset()
        chain.metrics.stream_began(self)
        for thread in self._threads:
            thread.start()

    def __iter__(self) -> Iterator[StreamResult]:
        try:
            while (result := self.next_result()) is not None:
                yield result
        finally:
            self.close()

    def next_result(self) -> StreamResult | None:
        """Waits for the next frame's answer; None when there are no more.

        Raises:
            HybridgeError: What the source raised.
        """
        while True:
            flight = self._results.get()
            if flight is None or self._stopped:
                # For whoever asks again.
                self._results.put(None)
                if self._source_error is not None and not self._stopped:
                    error, self._source_error = self._source_error, None
                    raise error
                return None
            with self._lock:
                self._unread -= 1
                self._wake_worker()
            result = self._result(flight)
            if result is not None:
                return result

    def close(self) -> None:
        """Stops after the stages that are running; frames under way are given up, a source that waits is closed."""
        with self._lock:
            first = not self._stopped
            self._stopped = True
            self._has_work.notify_all()
            self._has_room.notify_all()
            self._results.put(None)
        if not first:
            return
        stop_source = getattr(self._source, "close", None)
        try:
            if (
                callable(stop_source)
                and self._threads[0].is_alive()
                and not isinstance(self._source, Iterator)
            ):
                # A source that waits for a device cannot see that nobody listens any more.
                stop_source()
        finally:
            self._join()

    def backlog(self) -> Backlog:
        """What the stream holds at this moment."""
        with self._lock:
            waiting = Counter(self._parts[index].name for flight in self._flights for index in flight.ready)
            return Backlog(len(self._entrance), len(self._flights) + self._unread, waiting)

    def _join(self) -> None:
        for thread in self._threads[1:]:
            thread.join()
        # Only a source without `close` can still be waiting; its thread ends with its next frame, or the process.
        self._threads[0].join(timeout=1.0)
        self._chain.metrics.stream_ended(self)
        with self._lock:
            self._entrance.clear()
            self._flights.clear()
            self._unread = 0

    def __enter__(self) -> Stream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _feed(self) -> None:
        """The source's thread."""
        try:
            for index, given in enumerate(self._source):
                if not self._enter(index, self._as_frame(given, index)):
                    break
        except BaseException as error:  # raised again where the stream is read
            self._source_error = error
        with self._lock:
            self._source_ended = True
            self._deliver()

    def _enter(self, index: int, frame: Frame | HybridgeError) -> bool:
        with self._lock:
            while len(self._entrance) >= self._queue_size and not self._stopped:
                if self._overflow == "block":
                    self._has_room.wait()
                    continue
                self._chain.metrics.frame_dropped(self._overflow)
                if self._overflow == "drop-newest":
                    return True
                self._entrance.popleft()
            if self._stopped:
                return False
            self._entrance.append((index, frame))
            self._wake_worker()
            return True

    def _as_frame(self, given: Any, index: int) -> Frame | HybridgeError:
        if isinstance(given, Frame | HybridgeError):
            return given
        if isinstance(given, Mapping | np.ndarray):
            named = given if isinstance(given, Mapping) else {self._chain.inputs[0]: given}
            return Frame(named, f"frame {index}")
        return HybridgeError(
            ErrorCode.INPUT_INVALID,
            f"frame {index} of the stream",
            received=type(given).__name__,
            expected="a Frame, a mapping of arrays or an array",
        )

    def _work(self) -> None:
        """A worker's thread: keeps to its frame as long as that is the oldest that can go on."""
        task: tuple[_Flight, int | None] | None = None
        while True:
            with self._lock:
                if task is not None:
                    self._done(*task)
                task = self._take()
            if task is None:
                return
            flight, index = task
            if index is None:
                flight.begin(self._chain)
                continue
            scarce, *free = self._parts[index].stages
            flight.step([scarce])
            with self._lock:
                # The next frame may be in the model while this one's free stages run.
                self._running[index] -= 1
                flight.taken.add(index)
                self._wake_worker()
            flight.step(free)

    def _take(self) -> tuple[_Flight, int | None] | None:
        """Waits for a part that can run, or a new frame; None when the stream stops. The lock is held."""
        while not self._stopped:
            found = self._find()
            if found is not None:
                self._begin_task(*found)
                # Whatever made this one possible may have made another so.
                self._wake_worker()
                return found
            self._idle += 1
            self._has_work.wait()
            self._idle -= 1
        return None

    def _wake_worker(self) -> None:
        """Wakes a worker that has nothing to do, if there is something; the lock is held."""
        if self._idle and self._find() is not None:
            self._has_work.notify()

    def _find(self) -> tuple[_Flight, int | None] | None:
        """A part that can run, of the oldest frame that has one; else a new frame. The lock is held."""
        for place, flight in enumerate(self._flights):
            for index in flight.ready if flight.error is None else ():
                if self._may_run(place, index):
                    return flight, index
        if self._entrance and len(self._flights) + self._unread < self._limit:
            return _Flight(*self._entrance[0]), None
        return None

    def _begin_task(self, flight: _Flight, index: int | None) -> None:
        if index is not None:
            flight.ready.remove(index)
            flight.under_way += 1
            self._running[index] += 1
            return
        self._entrance.popleft()
        self._flights.append(flight)
        if len(self._entrance) <= self._refill_at:
            self._has_room.notify()

    def _may_run(self, place: int, index: int) -> bool:
        capacity = self._parts[index].capacity
        if capacity is not None and self._running[index] >= capacity:
            return False
        if not self._parts[index].in_order:
            return True
        return all(before.is_over or index in before.taken for before in list(self._flights)[:place])

    def _done(self, flight: _Flight, index: int | None) -> None:
        """Makes ready what follows a part, or a frame's beginning, and ends a frame; the lock is held."""
        flight.advance(self._parts, index)
        if flight.is_over:
            if flight.error is None:
                flight.finish()
            self._deliver()

    def _deliver(self) -> None:
        """Hands the oldest frames that are over to the reader, and the end behind the last; the lock is held."""
        while self._flights and self._flights[0].is_over:
            self._results.put(self._flights.popleft())
            self._unread += 1
        if self._source_ended and not self._entrance and not self._flights:
            self._results.put(None)

    def _result(self, flight: _Flight) -> StreamResult | None:
        frame = flight.frame if isinstance(flight.frame, Frame) else Frame({}, flight.frame.what)
        if flight.error is not None:
            self._chain.metrics.chain_failed(flight.error)
            if flight.error.code is ErrorCode.CHAIN_LATE:
                self._chain.metrics.frame_dropped(flight.error.code)
                return None
            return StreamResult(flight.number, frame, None, flight.error)
        return StreamResult(flight.number, frame, flight.prediction)


@dataclass(frozen=True, slots=True)
class _Part:
    """Stages that a worker takes in one go: one that only so many frames can be in, and the free ones behind it.

    Handing a frame over costs more than most operators take. Frames run side by side, so nothing is lost when the free
    stages of one frame do not.

    Attributes:
        name: The first stage's.
        stages: Indices, in an order that they can run in.
        needs: The parts that it waits for.
        capacity: Frames that may be in it at once; None for any number.
        in_order: Whether frames must come in their order.
    """

    name: str
    stages: tuple[int, ...]
    needs: frozenset[int]
    capacity: int | None
    in_order: bool


def _parts(chain: Chain) -> list[_Part]:
    groups: list[list[int]] = []
    for index, stage in enumerate(chain.stages):
        if not groups or stage.step.instances is not None or stage.step.stateful:
            groups.append([])
        groups[-1].append(index)
    place = {index: number for number, group in enumerate(groups) for index in group}
    return [
        _Part(
            chain.stages[group[0]].name,
            tuple(group),
            frozenset({place[need] for index in group for need in chain.graph.needs[index]} - {number}),
            chain.stages[group[0]].step.instances,
            chain.stages[group[0]].step.stateful,
        )
        for number, group in enumerate(groups)
    ]


class _Flight:
    """One frame under way."""

    def __init__(self, number: int, frame: Frame | HybridgeError):
        self.number, self.frame = number, frame
        self.run: Run | None = None
        self.prediction: Prediction | None = None
        self.error: HybridgeError | None = frame if isinstance(frame, HybridgeError) else None
        self.ready: list[int] = []
        self.taken: set[int] = set()
        self._waits: list[set[int]] = []
        self.under_way = 1  # its beginning
        self._left = -1

    @property
    def is_over(self) -> bool:
        """Whether nothing of it runs or is to run."""
        return not self.under_way and (self.error is not None or not self._left)

    def begin(self, chain: Chain) -> None:
        """Checks its inputs; its stages are then ready as `advance` finds them."""
        if isinstance(self.frame, Frame):
            try:
                self.run = chain.begin(self.frame.inputs)
            except Exception as error:
                self.error = _as_error(error, f"frame {self.number} of the stream")

    def step(self, stages: Sequence[int]) -> None:
        """Runs the stages of one part; after an error the others are given up."""
        assert self.run is not None  # noqa: S101 - only frames that have begun have parts that are ready
        try:
            for index in stages if self.error is None else ():
                self.run.step(index)
        except Exception as error:
            self.error = self.error or _as_error(error, f"frame {self.number} of the stream")

    def finish(self) -> None:
        """Sums its stages up."""
        assert self.run is not None  # noqa: S101 - all its stages have run
        try:
            self.prediction = self.run.finish()
        except Exception as error:
            self.error = _as_error(error, f"frame {self.number} of the stream")

    def advance(self, parts: Sequence[_Part], index: int | None) -> None:
        """After its beginning, or after a part: makes those ready that can run now."""
        self.under_way -= 1
        if self.error is not None:
            self.ready.clear()
            return
        if index is None:
            self._waits = [set(part.needs) for part in parts]
            self._left = len(parts)
            self.ready += [each for each, needs in enumerate(self._waits) if not needs]
            return
        self._left -= 1
        for each, needs in enumerate(self._waits):
            if index in needs:
                needs.remove(index)
                if not needs:
                    self.ready.append(each)


def _as_error(error: Exception, what: str) -> HybridgeError:
    """The error of one frame; one that nobody foresaw must not end the worker that met it either."""
    if isinstance(error, HybridgeError):
        return error
    _log.error("%s failed", what, exc_info=error)
    return HybridgeError(ErrorCode.INTERNAL, what, received=f"{type(error).__name__}: {error}")
