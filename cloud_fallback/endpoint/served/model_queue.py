"""The queue in front of a model: turns at its instances, requests run together, and too many of them refused.

The thread that brings a request to a free instance runs it, with others' requests that can be run with it. While more
wait, a thread of the instance runs one after the other: to wake the next request's own thread for each, and to let it
wait for Python's lock, leaves the processor idle for a twentieth of the time. A caller who does not wait leaves the
rest to that thread. What waits is in the order it came.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Annotated, Generic, TypeVar

import numpy as np
from msgspec import Meta, Struct

from cloud_fallback.endpoint.served.served_model import Then, TimeLeft
from cloud_fallback.endpoint.served.turn import Turn, note_turn
from edge_runtime.alike import alike
from edge_runtime.errors import ErrorCode, HybridgeError
from edge_runtime.tensor_spec import Array, TensorSpec

__all__ = ["Batching", "ModelQueue", "QueueFigures", "can_batch"]

_log = logging.getLogger(__name__)

_Runner = TypeVar("_Runner")
_Count = Annotated[int, Meta(ge=1)]

# What is assumed before the first run was timed.
_FIRST_GUESS_S = 0.01
# How much of the expected time of a run each new one replaces; the first ones take longer than those that follow.
_NEW, _NEW_AND_LESS = 0.1, 0.3
# How much of the time that a request has left may be spent here; its answer has a way to go, on busy processors.
_SPENT = 0.85
# Requests that hold a thread while they wait.
_MAX_HOLDING = 48


class Batching(Struct, frozen=True, forbid_unknown_fields=True):
    """How requests are run together, for a model whose first axis is free in every input and output.

    Attributes:
        max_batch_size: Rows that one run may have; 1 runs each request alone.
        preferred_batch_sizes: Rows that the model is quick at: a run begins as soon as one is there, and takes
            the largest that is. Without any, a run takes what waits.
        queue_delay_ms: How long a run that is below the smallest of them, or below `max_batch_size` where there are
            none, waits for more.
        max_waiting: Requests that may wait; more are refused. Of those that hold a thread of a transport meanwhile, as
            over REST, there may be no more than 48, which leaves some to other models.
    """

    max_batch_size: _Count = 1
    preferred_batch_sizes: tuple[_Count, ...] = ()
    queue_delay_ms: Annotated[float, Meta(ge=0)] = 0.0
    max_waiting: _Count = 512


@dataclass(frozen=True, slots=True)
class QueueFigures:
    """A queue at one moment: requests that wait, under way, run, and refused as too many or too late, and runs."""

    waiting: int
    running: int
    answered: int
    shed: int
    expired: int
    runs: int
    busy_s: float


def can_batch(inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> bool:
    """Whether requests for a model can be run together: the first axis of every tensor is free."""
    return all(spec.shape and not isinstance(spec.shape[0], int) for spec in (*inputs, *outputs))


@dataclass(slots=True, eq=False)
class _Request(Generic[_Runner]):
    """One request, and what becomes of it: the outcome of another thread's run, or an instance for its own."""

    inputs: Mapping[str, Array]
    time_left: TimeLeft
    # What becomes of one whose caller does not wait.
    then: Then | None = None
    # What requests that can be run together have in common; None for one that goes alone.
    key: object = None
    # Whether its own thread runs it.
    takes: bool = False
    rows: int = 1
    signal: threading.Lock = field(default_factory=threading.Lock)
    runner: _Runner | None = None
    outputs: dict[str, Array] = field(default_factory=dict)
    error: BaseException | None = None
    entered: float = field(default_factory=time.perf_counter)
    turn: Turn | None = None

    def is_awaited(self) -> bool:
        left = self.time_left()
        return left is None or left > 0

    def settle(self) -> None:
        """Has its caller know what has become of it, without the queue's lock."""
        if self.then is None:
            self.signal.release()
            return
        try:
            self.then(self.outputs if self.error is None else self.error, self.turn)
        except Exception:
            _log.exception("an answer was lost")


class ModelQueue(Generic[_Runner]):
    """Runs requests on a fixed number of instances of a model.

    Args:
        name: What to call the model in an error.
        runners: What runs it, one for each run that may be under way.
        run: Runs inputs on one of them; without it there is only `take`.
        batching: How requests are run together.
        batchable: Whether the model can run several at once; see `can_batch`.
    """

    def __init__(
        self,
        name: str,
        runners: Sequence[_Runner],
        run: Callable[[_Runner, Mapping[str, Array]], dict[str, Array]] | None = None,
        *,
        batching: Batching = Batching(),  # noqa: B008 - it is frozen
        batchable: bool = False,
    ):
        self._name = name
        self._run = run or _unused
        self._batching = batching
        self._batches = batchable and batching.max_batch_size > 1
        self._is_tried = False
        self._targets = sorted(
            size for size in batching.preferred_batch_sizes if size <= batching.max_batch_size
        ) or [batching.max_batch_size]
        self._instances = len(runners)
        self._threads = ThreadPoolExecutor(len(runners), f"model-{name}")
        if run is not None:
            _start(self._threads, len(runners))
        # The one used last has its memory in the cache.
        self._free = list(runners)
        self._waiting: deque[_Request[_Runner]] = deque()
        self._lock = threading.Lock()
        self._arrived = threading.Condition(self._lock)
        # What a leader waits for more of, before it runs.
        self._wanted: object = None
        # Of a run, and of a request's part in one.
        self._expected_run_s = self._expected_s = _FIRST_GUESS_S
        self._answered = self._shed = self._expired = self._runs = 0
        self._busy_s = 0.0

    def infer(self, inputs: Mapping[str, Array], time_left: TimeLeft) -> dict[str, Array]:
        """Runs one request, alone or with others, in the calling thread or in that of another.

        Raises:
            HybridgeError: `cloud-overloaded`, with the time to try again after, when too many wait, or so many that its
                turn would come too late; `cloud-deadline` when nobody waits for the answer any more; what the model
                raises.
        """
        request = self._request(inputs, time_left)
        runner = self._enter(request)
        if runner is None:
            self._wait(request)
        else:
            self._run_turn(runner, request)
            self._pass_on(runner)
        if request.turn is not None:
            note_turn(request.turn)
        if request.error is not None:
            raise request.error
        return request.outputs

    def begin(self, inputs: Mapping[str, Array], time_left: TimeLeft, then: Then) -> None:
        """`infer` for a caller who does not wait.

        Args:
            inputs: Of the request.
            time_left: Asked when its turn has come.
            then: Called once with what has become of it, on a thread that runs the model.

        Raises:
            HybridgeError: `cloud-overloaded`, as `infer`; then it is not called.
        """
        request = self._request(inputs, time_left, then)
        runner = self._enter(request)
        if runner is not None:
            self._threads.submit(self._run_begun, runner, request)

    @contextmanager
    def take(self, time_left: TimeLeft) -> Iterator[_Runner]:
        """Waits for a turn at an instance, for a model made in Python that needs more for its run than inputs.

        Raises:
            HybridgeError: As `infer`.
        """
        request: _Request[_Runner] = _Request({}, time_left, takes=True)
        runner = self._enter(request)
        if runner is None:
            self._wait(request)
            runner = request.runner
        assert runner is not None  # noqa: S101 - it has waited for that
        start = time.perf_counter()
        try:
            if not request.is_awaited():
                with self._lock:
                    self._expired += 1
                raise self._too_late()
            yield runner
            with self._lock:
                self._ran(time.perf_counter() - start, 1)
        finally:
            self._pass_on(runner)

    def figures(self) -> QueueFigures:
        """Everything at this moment."""
        with self._lock:
            return QueueFigures(
                len(self._waiting),
                self._instances - len(self._free),
                self._answered,
                self._shed,
                self._expired,
                self._runs,
                self._busy_s,
            )

    def is_idle(self) -> bool:
        """Whether nothing waits or runs."""
        with self._lock:
            return not self._waiting and len(self._free) == self._instances

    def _request(
        self, inputs: Mapping[str, Array], time_left: TimeLeft, then: Then | None = None
    ) -> _Request[_Runner]:
        request: _Request[_Runner] = _Request(inputs, time_left, then)
        if self._batches:
            request.key, request.rows = _batch_key(inputs)
        return request

    def _enter(self, request: _Request[_Runner]) -> _Runner | None:
        """A free instance, or none for a request that now waits."""
        if len(self._waiting) >= self._batching.max_waiting:
            self._drop_late()
        with self._lock:
            joins = self._wanted is not None and self._wanted == request.key
            if self._free and not joins:
                return self._free.pop()
            if len(self._waiting) >= self._batching.max_waiting:
                self._shed += 1
                raise self._overloaded(f"at most {self._batching.max_waiting} that wait")
            if request.then is None and self._num_holding() >= _MAX_HOLDING:
                self._shed += 1
                raise self._overloaded(f"at most {_MAX_HOLDING} that hold a thread")
            left = request.time_left()
            if left is not None and left * _SPENT < self._expected_wait_s() + self._expected_run_s:
                # It would be late, and what it waited for would be of use to nobody.
                self._shed += 1
                raise self._overloaded(f"a turn within {max(left, 0.0) * 1e3:.0f} ms")
            if request.then is None:
                request.signal.acquire()
            self._waiting.append(request)
            if joins:
                self._arrived.notify()
            return None

    def _num_holding(self) -> int:
        if len(self._waiting) < _MAX_HOLDING:
            return 0
        return sum(each.then is None for each in self._waiting)

    def _drop_late(self) -> None:
        """Takes out what nobody waits for any more, and no thread of its own would."""
        with self._lock:
            late = [each for each in self._waiting if each.then is not None and not each.is_awaited()]
            for request in late:
                self._waiting.remove(request)
                request.error = self._too_late()
            self._expired += len(late)
        for request in late:
            request.settle()

    def _wait(self, request: _Request[_Runner]) -> None:
        """Waits until the request was run by another thread, or has an instance."""
        left = request.time_left()
        # gRPC's idea of no deadline is more seconds than a lock can wait.
        timeout = -1.0 if left is None else min(max(left, 0.0), threading.TIMEOUT_MAX)
        if request.signal.acquire(timeout=timeout):
            return
        with self._lock:
            if request in self._waiting:
                self._waiting.remove(request)
                self._expired += 1
        if request.runner is not None:
            self._pass_on(request.runner)
        # Else it is being run, and nobody waits for what comes of it here.
        raise self._too_late()

    def _run_turn(self, runner: _Runner, request: _Request[_Runner]) -> None:
        """Runs a request, and others with it."""
        batch, start = [request], 0.0
        try:
            if not request.is_awaited():
                with self._lock:
                    self._expired += 1
                raise self._too_late()
            if self._batches and request.key is not None:
                batch += self._gather(request)
            start = time.perf_counter()
            self._run_batch(runner, batch)
            seconds = time.perf_counter() - start
            with self._lock:
                self._ran(seconds, len(batch))
        except BaseException as error:
            for each in batch:
                each.error = error
        finally:
            if start:
                seconds, rows = time.perf_counter() - start, sum(each.rows for each in batch)
                for each in batch:
                    each.turn = Turn(start - each.entered, seconds, rows)
            for follower in batch[1:]:
                follower.settle()

    def _run_begun(self, runner: _Runner, request: _Request[_Runner]) -> None:
        """Runs a request whose caller does not wait, and whatever waits after it."""
        self._run_turn(runner, request)
        request.settle()
        self._run_waiting(runner)

    def _pass_on(self, runner: _Runner) -> None:
        """Leaves an instance free, or to a thread of its own while requests wait."""
        with self._lock:
            if not self._waiting:
                self._free.append(runner)
                return
        self._threads.submit(self._run_waiting, runner)

    def _run_waiting(self, runner: _Runner) -> None:
        """Runs what waits until nothing does."""
        while True:
            with self._lock:
                if not self._waiting:
                    self._free.append(runner)
                    return
                request = self._waiting.popleft()
                if request.takes:
                    request.runner = runner
            if request.takes:
                request.signal.release()
                return
            self._run_turn(runner, request)
            request.settle()

    def _ran(self, seconds: float, requests: int) -> None:
        """Counts a run; called with the lock."""
        self._runs += 1
        self._busy_s += seconds
        self._answered += requests
        self._expected_s = _moved(self._expected_s, seconds / requests)
        self._expected_run_s = _moved(self._expected_run_s, seconds)

    def _gather(self, leader: _Request[_Runner]) -> list[_Request[_Runner]]:
        """Others' requests that the leader runs with its own, after it has waited for them as long as it may."""
        until = time.monotonic() + self._batching.queue_delay_ms / 1e3
        with self._lock:
            while True:
                rows = self._rows_at_hand(leader)
                left = until - time.monotonic()
                if rows >= self._targets[0] or left <= 0:
                    break
                self._wanted = leader.key
                self._arrived.wait(left)
            self._wanted = None
            size = max((target for target in self._targets if target <= rows), default=rows)
            taken, late = self._take(leader, size)
            # Those that came to go with it, and were too many, passed by an instance.
            free = self._free.pop() if self._waiting and self._free else None
        if free is not None:
            self._threads.submit(self._run_waiting, free)
        for request in late:
            request.settle()
        return taken

    def _rows_at_hand(self, leader: _Request[_Runner]) -> int:
        rows = leader.rows
        for request in self._waiting:
            if request.key == leader.key and rows + request.rows <= self._batching.max_batch_size:
                rows += request.rows
        return rows

    def _take(
        self, leader: _Request[_Runner], size: int
    ) -> tuple[list[_Request[_Runner]], list[_Request[_Runner]]]:
        """Takes out those that go with a leader, and those that nobody waits for any more; called with the lock."""
        taken, late, rows = [], [], leader.rows
        for request in list(self._waiting):
            if rows >= size:
                break
            if request.key != leader.key or rows + request.rows > size:
                continue
            self._waiting.remove(request)
            if request.is_awaited():
                taken.append(request)
                rows += request.rows
            else:
                self._expired += 1
                request.error = self._too_late()
                late.append(request)
        return taken, late

    def _run_batch(self, runner: _Runner, batch: Sequence[_Request[_Runner]]) -> None:
        if len(batch) == 1:
            batch[0].outputs = self._run(runner, batch[0].inputs)
            return
        try:
            together = self._run(
                runner,
                {
                    name: np.concatenate([request.inputs[name] for request in batch])
                    for name in batch[0].inputs
                },
            )
            if not self._are_apart(runner, batch[0], together, sum(request.rows for request in batch)):
                self._batches = False
                raise _MixedError
            first = 0
            for request in batch:
                last = first + request.rows
                request.outputs = {name: array[first:last] for name, array in together.items()}
                first = last
        except Exception:
            # One of them may be to blame, and only that one should hear of it.
            for request in batch:
                try:
                    request.outputs = self._run(runner, request.inputs)
                except Exception as error:
                    request.error = error

    def _are_apart(
        self, runner: _Runner, request: _Request[_Runner], together: Mapping[str, Array], rows: int
    ) -> bool:
        """Whether rows that ran together are rows of what came out; the first time, what one request alone comes to."""
        if any(array.shape[:1] != (rows,) for array in together.values()):
            _log.warning("model '%s' gives other rows than it takes: it runs each request alone", self._name)
            return False
        if self._is_tried:
            return True
        # A free first axis need not be one of independent rows.
        its_own = {name: array[: request.rows] for name, array in together.items()}
        self._is_tried = alike(self._run(runner, request.inputs), its_own, others_equal=True)
        if not self._is_tried:
            _log.warning("model '%s' mixes the rows that it takes: it runs each request alone", self._name)
        return self._is_tried

    def _expected_wait_s(self) -> float:
        # Those that wait, and the rest of what runs.
        return (len(self._waiting) * self._expected_s + self._expected_run_s) / self._instances

    def _overloaded(self, expected: str) -> HybridgeError:
        waiting = len(self._waiting)
        return HybridgeError(
            ErrorCode.CLOUD_OVERLOADED,
            f"model '{self._name}'",
            received=f"a request while {waiting} wait",
            expected=expected,
            fix="ask again later, or give the endpoint more instances",
            retry_after_s=self._expected_wait_s(),
        )

    def _too_late(self) -> HybridgeError:
        return HybridgeError(
            ErrorCode.CLOUD_DEADLINE,
            f"model '{self._name}'",
            received="a request whose deadline passed, or whose caller left, before its turn came",
            fix="give it a longer deadline, or the endpoint more instances",
        )


def _start(threads: ThreadPoolExecutor, count: int) -> None:
    """Starts all threads now: one that cannot be started later would take its instance with it."""
    started = threading.Barrier(count + 1)
    try:
        for _ in range(count):
            threads.submit(started.wait)
        started.wait()
    except BaseException:
        started.abort()
        raise


class _MixedError(Exception):
    """What ran together does not come apart."""


def _moved(expected_s: float, seconds: float) -> float:
    """What is expected after one more run took so long."""
    change = seconds - expected_s
    return expected_s + change * (_NEW if change > 0 else _NEW_AND_LESS)


def _unused(_runner: object, _inputs: Mapping[str, Array]) -> dict[str, Array]:
    raise TypeError("a queue without a run is for take")


def _batch_key(inputs: Mapping[str, Array]) -> tuple[object, int]:
    """What must be the same for requests to be run together, and the rows of this one."""
    arrays = list(inputs.values())
    if not arrays or any(array.ndim == 0 for array in arrays):
        return None, 1
    rows = arrays[0].shape[0]
    if rows == 0 or any(array.shape[0] != rows for array in arrays):
        return None, 1
    return tuple((name, array.dtype.str, array.shape[1:]) for name, array in sorted(inputs.items())), rows
