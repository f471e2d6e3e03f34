"""Threads for calls: as few as keep up, so that they do not pass Python's lock among each other more than they work."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

__all__ = ["CallThreads"]

_log = logging.getLogger(__name__)

# Threads that work at once while all of them keep up.
_FEW = 4
# They do not when none of them was done with anything for so long, while work waits: a model, or a client whose message
# is slow, holds them.
_HELD_S = 0.005
# Nor when work has waited for so long: that of a quick model behind that of a slow one.
_TOO_LONG_S = 0.025


class CallThreads:
    """A thread pool that begins with a few threads, and takes one more whenever they do not keep up.

    A pool of `concurrent.futures` gives each call that comes a thread, if it has one left. With calls of microseconds,
    all of these threads then wait for Python's lock, and a third of the processor's time goes into passing it around. A
    thread that finds nothing to do is put aside, and the one that was put aside last is taken first.

    Args:
        max_workers: The most threads.
        thread_name_prefix: Of their names.
    """

    def __init__(self, max_workers: int, thread_name_prefix: str = "calls"):
        self._max_workers = max_workers
        self._few = min(_FEW, max_workers)
        self._prefix = thread_name_prefix
        self._lock = threading.Lock()
        self._work: deque[tuple[float, Callable[..., object], tuple[Any, ...]]] = deque()
        # Threads that were put aside; each waits for its own lock.
        self._aside: list[threading.Lock] = []
        self._threads = 0
        self._done_at = 0.0
        self._shut = False
        # Whoever waits when nothing more comes is seen to by this thread.
        self._look = threading.Event()
        self._watch: threading.Thread | None = None

    def start(self, fn: Callable[..., object], /, *args: Any) -> None:
        """Has a thread call a function, whose result nobody waits for; it must not raise.

        Raises:
            RuntimeError: After `shutdown`.
        """
        now = time.monotonic()
        with self._lock:
            if self._shut:
                raise RuntimeError("threads that were shut down take no more work")
            self._work.append((now, fn, args))
            working = self._threads - len(self._aside)
            if working < self._few or self._is_behind(now):
                self._take_one_more()
                return
            if self._watch is None:
                self._watch = threading.Thread(
                    target=self._watch_work, name=f"{self._prefix}-watch", daemon=True
                )
                self._watch.start()
        self._look.set()

    def shutdown(self) -> None:
        """Takes no more work; what waits is done all the same, and the threads are not waited for."""
        with self._lock:
            self._shut = True
            for aside in self._aside:
                aside.release()
            self._aside.clear()
        self._look.set()

    def _is_behind(self, now: float) -> bool:
        """Whether the threads do not keep up; called with the lock, while work waits."""
        since = self._work[0][0]
        return now - since > _TOO_LONG_S or now - max(since, self._done_at) > _HELD_S

    def _take_one_more(self) -> None:
        """Wakes a thread, or makes one if there may be more; called with the lock."""
        if self._aside:
            self._aside.pop().release()
        elif self._threads < self._max_workers:
            self._threads += 1
            threading.Thread(target=self._run, name=f"{self._prefix}-{self._threads}", daemon=True).start()

    def _run(self) -> None:
        turn = threading.Lock()
        turn.acquire()
        while True:
            with self._lock:
                if self._work:
                    _, fn, args = self._work.popleft()
                elif self._shut:
                    return
                else:
                    self._aside.append(turn)
                    fn = None
            if fn is None:
                turn.acquire()
                continue
            try:
                fn(*args)
            except Exception:
                _log.exception("a call failed")
            self._done_at = time.monotonic()
            # Held on to, a call's message would stay until the next one comes.
            del fn, args

    def _watch_work(self) -> None:
        """Takes one more thread while work waits too long and no more comes to show it."""
        while not self._shut:
            self._look.wait()
            self._look.clear()
            while self._work and not self._shut:
                time.sleep(_HELD_S)
                with self._lock:
                    if self._work and self._is_behind(time.monotonic()):
                        self._take_one_more()
