"""Sends what is in an outbox when there is a connection, at a bounded rate, and delivers what comes back."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from cloud_fallback.outbox.outbox import Outbox, Taken
from cloud_fallback.outbox.pacing import Backoff, Pace
from cloud_fallback.outbox.request import Delivery, Request
from edge_runtime.errors import ErrorCode, HybridgeError, Kind

__all__ = ["Drain"]

_log = logging.getLogger(__name__)

# How often it is asked whether there is a connection, while there is none.
_POLL_S = 1.0
_MOMENT_S = 0.01
# Acknowledgements are committed together: when so many have come, or after so long, or when nothing else is to be done.
_ACKNOWLEDGE_AT = 64
_ACKNOWLEDGE_AFTER_S = 0.1
_CALLBACK = "callback"
_STORAGE = "storage"
# Waiting for what is on the device itself is never long: to look costs little.
_MAX_OWN_BACKOFF_S = 5.0


class Drain:
    """Sends the requests of an outbox and delivers their answers, by threads of its own.

    Requests go in order of priority, then age, at most `max_in_flight` at once. An answer is on the disk before it is
    delivered, and stays there until `on_answer` has returned: returning is the acknowledgement. When it raises, or the
    process ends before the acknowledgement is on the disk, the same answer is delivered again, with the same id and a
    higher number. So each request is sent, and each answer delivered, at least once.

    What the sender raises says what becomes of a request. An error about the request itself (every code of the kind
    `invalid` but `credentials-invalid`, and `model-unknown` and `message-too-large`) is delivered in the place of an
    answer. All others pass: the request is kept, its destination is left alone for a while, at least for as long as it
    asked for (`HybridgeError.retry_after_s`), then probed by one request at a time. The request itself rests too, so
    that one that always fails does not hold up those behind it.

    Args:
        outbox: Where requests come from; it has one running drain at a time.
        send: Sends a request and returns the answer's bytes, or raises; called from several threads, each call for as
            long as it takes, so it should have a deadline. It passes `Request.id` on, so that an endpoint that gets
            a request twice runs it once.
        on_answer: Takes an answer or a refusal; called from one thread.
        is_connected: Whether anything should be sent now, in microseconds; asked before each request, and every second
            while it says no. When it says yes again, what was left alone is tried at once.
        max_in_flight: Requests under way at once.
        requests_per_s: Requests sent in a second, at most; `math.inf` for no limit.
        bytes_per_s: Bytes of their bodies, at most.
        first_backoff_s: The longest wait after one failure; it doubles with each further one.
        max_backoff_s: The longest wait of all.

    Raises:
        HybridgeError: `usage` for settings that cannot be.

    Example:
        >>> with Drain(outbox, send, on_answer=take, is_connected=link.is_up, requests_per_s=5):
        ...     run()
    """

    def __init__(
        self,
        outbox: Outbox,
        send: Callable[[Request], bytes],
        *,
        on_answer: Callable[[Delivery], object],
        is_connected: Callable[[], bool] = lambda: True,
        max_in_flight: int = 4,
        requests_per_s: float = 50.0,
        bytes_per_s: float = math.inf,
        first_backoff_s: float = 1.0,
        max_backoff_s: float = 300.0,
    ):
        if max_in_flight < 1 or not (requests_per_s > 0 and bytes_per_s > 0):
            raise _usage(
                f"max_in_flight={max_in_flight}, requests_per_s={requests_per_s}, bytes_per_s={bytes_per_s}",
                "at least one request in flight, and rates above 0",
            )
        if not 0 < first_backoff_s <= max_backoff_s < math.inf:
            raise _usage(
                f"first_backoff_s={first_backoff_s}, max_backoff_s={max_backoff_s}",
                "more than 0 seconds, and the first no longer than the longest",
            )
        self._outbox, self._send, self._on_answer = outbox, send, on_answer
        self._is_connected = is_connected
        self._max_in_flight = max_in_flight
        self._pace = Pace(requests_per_s, bytes_per_s)
        # Only who has the turn takes a request, so that order and rate hold, and passes the turn on before sending.
        self._turn = threading.Lock()
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._destinations = Backoff(first_backoff_s, max_backoff_s)
        self._requests = Backoff(first_backoff_s, max_backoff_s)
        self._deliveries = Backoff(first_backoff_s, max_backoff_s)
        self._own = Backoff(min(first_backoff_s, _MAX_OWN_BACKOFF_S), min(max_backoff_s, _MAX_OWN_BACKOFF_S))
        # The one request, by its id, with which a destination in trouble is tried.
        self._probes: dict[str, str] = {}
        self._was_connected = True
        self._accepted: list[str] = []

    def start(self) -> None:
        """Begins to send and to deliver.

        Raises:
            HybridgeError: `usage` when the outbox has a running drain, this one or another.
        """
        if not self._outbox.drain_lock.acquire(blocking=False):
            raise _usage("an outbox that another drain empties", "one drain at a time")
        self._stop.clear()
        self._threads = [
            threading.Thread(target=self._deliver, name="hybridge-outbox-deliver", daemon=True),
            *(
                threading.Thread(target=self._work, name=f"hybridge-outbox-send-{number}", daemon=True)
                for number in range(self._max_in_flight)
            ),
        ]
        for thread in self._threads:
            thread.start()

    def stop(self, timeout_s: float | None = None) -> bool:
        """Takes no further request, and waits for those under way and for a callback to return.

        Args:
            timeout_s: Seconds to wait, or None for as long as it takes. What is not done then ends by itself; until it
                has, the drain cannot be started again.

        Returns:
            Whether all has ended.
        """
        self._stop.set()
        self._wake()
        limit = math.inf if timeout_s is None else time.monotonic() + timeout_s
        for thread in self._threads:
            if thread is not threading.current_thread():  # as in a callback
                thread.join(None if timeout_s is None else max(limit - time.monotonic(), 0.0))
        with self._lock:
            if any(thread.is_alive() for thread in self._threads):
                return False
            if self._threads:
                self._threads = []
                self._outbox.drain_lock.release()
        return True

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _wake(self) -> None:
        self._outbox.request_came.ring()
        self._outbox.answer_came.ring()

    def _work(self) -> None:
        while (taken := self._next()) is not None:
            self._attempt(taken)

    def _next(self) -> Taken | None:
        """Waits until a request is to be sent; None when there is no more to be done."""
        with self._turn:
            while True:
                # Before anything is looked at, so that what comes from now on is heard below.
                self._outbox.request_came.hush()
                if self._is_over():
                    return None
                try:
                    taken, wait_s = self._take()
                except HybridgeError as error:
                    self._wait_for_storage(error)
                    continue
                if taken is not None:
                    return taken
                self._outbox.request_came.wait(wait_s)

    def _take(self) -> tuple[Taken | None, float]:
        """The next request; or None, and after how many seconds to look again if nothing is put before."""
        expires_in_s = self._outbox.expire()
        if not self._outbox.depth:
            return None, math.inf
        if (pause_s := self._pace.wait_s(time.monotonic())) > 0:
            self._stop.wait(min(pause_s, max(expires_in_s, _MOMENT_S)))
            return None, 0.0
        if not self._ask_connected():
            self._stop.wait(_POLL_S)
            return None, 0.0
        now_s = time.monotonic()
        with self._lock:
            blocked = self._destinations.resting(now_s) | self._probes.keys()
            wait_s = min(self._destinations.next_s(now_s), self._requests.next_s(now_s), expires_in_s)
            resting = self._requests.resting(now_s)
        taken = self._outbox.take(blocked=blocked, passed_over=resting.__contains__)
        if taken is None:
            return None, wait_s
        self._own.succeeded(_STORAGE)
        self._pace.spend(time.monotonic(), len(taken.request.body))
        request = taken.request
        with self._lock:
            if self._destinations.is_in_trouble(request.destination):
                self._probes[request.destination] = request.id
        return taken, 0.0

    def _ask_connected(self) -> bool:
        try:
            is_connected = self._is_connected()
        except Exception:
            _log.exception("outbox: is_connected failed, which is taken for no")
            is_connected = False
        if is_connected and not self._was_connected:
            with self._lock:
                self._destinations.clear()
                self._requests.clear()
        self._was_connected = is_connected
        return is_connected

    def _attempt(self, taken: Taken) -> None:
        began_s = time.monotonic()
        try:
            answer = self._send(taken.request)
            if not isinstance(answer, bytes):
                raise TypeError(f"the sender returned {type(answer).__name__} in the place of bytes")
        except HybridgeError as error:
            if _is_final(error):
                self._settle(taken, error=error)
            else:
                self._failed(taken, error.message, began_s, error.retry_after_s or 0.0)
        except BaseException as error:
            # A fault of the sender, which says nothing about the request and is not to end the thread.
            _log.exception("outbox: sending request '%s' failed", taken.request.id)
            self._failed(taken, repr(error), began_s)
        else:
            self._settle(taken, answer)

    def _failed(self, taken: Taken, why: str, began_s: float, at_least_s: float = 0.0) -> None:
        request, now_s = taken.request, time.monotonic()
        with self._lock:
            level = (
                logging.DEBUG if self._destinations.is_in_trouble(request.destination) else logging.WARNING
            )
            wait_s = self._destinations.failed(
                request.destination, now_s, began_s=began_s, at_least_s=at_least_s
            )
            self._requests.failed(request.id, now_s)
            self._end_probe(request)
        _log.log(level, "outbox: '%s' is tried again in %.1f s: %s", request.destination, wait_s, why)
        self._put_back(taken)

    def _end_probe(self, request: Request) -> None:
        if self._probes.get(request.destination) == request.id:
            del self._probes[request.destination]

    def _put_back(self, taken: Taken) -> None:
        try:
            self._outbox.put_back(taken)
        except HybridgeError as error:
            _log.debug("outbox: %s", error.message)  # it was closed, and keeps the request

    def _settle(self, taken: Taken, answer: bytes = b"", error: HybridgeError | None = None) -> None:
        request = taken.request
        with self._lock:
            self._destinations.succeeded(request.destination)
            self._requests.succeeded(request.id)
            self._end_probe(request)
        self._outbox.request_came.ring()  # for those that waited for the probe
        while True:
            try:
                self._outbox.settle(taken, answer, error=error)
            except HybridgeError as problem:
                # The answer is here, and cost something: it is held until there is a place for it.
                self._wait_for_storage(problem)
                if self._is_over():
                    self._put_back(taken)
                    return
            else:
                return

    def _deliver(self) -> None:
        while True:
            self._outbox.answer_came.hush()
            if self._is_over():
                break
            try:
                wait_s = self._deliver_some()
            except HybridgeError as error:
                self._wait_for_storage(error)
                continue
            self._outbox.answer_came.wait(wait_s)
        self._try_to_acknowledge()

    def _deliver_some(self) -> float:
        """Delivers what there is and acknowledges it; returns the seconds after which to look again."""
        limit = time.monotonic() + _ACKNOWLEDGE_AFTER_S
        while len(self._accepted) < _ACKNOWLEDGE_AT and (now_s := time.monotonic()) < limit:
            passed_over = {*self._accepted, *self._deliveries.resting(now_s)}
            delivery = None if self._stop.is_set() else self._outbox.next_delivery(passed_over=passed_over)
            if delivery is None:
                self._acknowledge()
                return 0.0 if self._give_back() else self._deliveries.next_s(now_s)
            if self._is_accepted(delivery):
                self._accepted.append(delivery.id)
            else:
                self._acknowledge()
                # What is wrong may be so for all answers.
                self._stop.wait(self._own.failed(_CALLBACK, time.monotonic()))
                return 0.0
        self._acknowledge()
        return 0.0

    def _is_accepted(self, delivery: Delivery) -> bool:
        try:
            self._on_answer(delivery)
        except BaseException:  # which is not to end the thread
            _log.exception("on_answer failed for request '%s', which is delivered again", delivery.id)
            self._deliveries.failed(delivery.id, time.monotonic())
            return False
        self._deliveries.succeeded(delivery.id)
        self._own.succeeded(_CALLBACK)
        return True

    def _acknowledge(self) -> None:
        if self._accepted:
            self._outbox.acknowledge(self._accepted)
            self._accepted = []
        self._own.succeeded(_STORAGE)

    def _try_to_acknowledge(self) -> None:
        try:
            self._acknowledge()
        except HybridgeError as error:
            _log.warning("outbox: answers that were taken will be delivered again: %s", error.message)

    def _give_back(self) -> bool:
        try:
            return self._outbox.give_back()
        except HybridgeError as error:
            _log.debug("outbox: %s", error.message)
            return False

    def _wait_for_storage(self, error: HybridgeError) -> None:
        if self._is_over():
            return
        with self._lock:
            wait_s = self._own.failed(_STORAGE, time.monotonic())
        _log.error("outbox: tried again in %.1f s: %s", wait_s, error.message)
        self._stop.wait(wait_s)

    def _is_over(self) -> bool:
        return self._stop.is_set() or self._outbox.is_closed


def _is_final(error: HybridgeError) -> bool:
    """Whether an error is about the request itself, and sending it again would bring it again."""
    if error.code in (ErrorCode.MODEL_UNKNOWN, ErrorCode.MESSAGE_TOO_LARGE):
        return True
    return error.code.kind is Kind.INVALID and error.code is not ErrorCode.CREDENTIALS_INVALID


def _usage(received: str, expected: str) -> HybridgeError:
    return HybridgeError(ErrorCode.USAGE, "drain of an outbox", received=received, expected=expected)
