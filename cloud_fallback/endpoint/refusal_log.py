"""A log of refusals that those who are refused cannot fill."""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable

__all__ = ["RefusalLog"]

# Who is remembered at once; whoever is not counts as new.
_MAX_PEERS = 1024


class RefusalLog:
    """Writes the first refusal of each peer in a period, and with its next one how many there were in between.

    Safe from many threads.

    Args:
        log: Where to write.
        period_s: Seconds for which a peer's further refusals are only counted.
        max_lines: Lines in one period, whoever they are about.
        clock: Seconds that only go forward.
    """

    def __init__(
        self,
        log: logging.Logger,
        *,
        period_s: float = 60.0,
        max_lines: int = 20,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._log, self._period_s, self._max_lines, self._clock = log, period_s, max_lines, clock
        # For each peer, since when it is counted, and how many.
        self._peers: OrderedDict[str, tuple[float, int]] = OrderedDict()
        self._began, self._lines, self._left_out = clock(), 0, 0
        self._lock = threading.Lock()

    def refused(self, peer: str, reason: str) -> None:
        """One refusal.

        Args:
            peer: Whom.
            reason: Why, with nothing secret in it.
        """
        now = self._clock()
        with self._lock:
            since, count = self._peers.get(peer, (-self._period_s, 0))
            if now - since < self._period_s:
                self._peers[peer] = since, count + 1
                return
            self._peers[peer] = now, 0
            self._peers.move_to_end(peer)
            if len(self._peers) > _MAX_PEERS:
                self._peers.popitem(last=False)
            if now - self._began >= self._period_s:
                if self._left_out:
                    self._log.warning("refused calls of %d more peers", self._left_out)
                self._began, self._lines, self._left_out = now, 0, 0
            if self._lines >= self._max_lines:
                self._left_out += 1
                return
            self._lines += 1
        more = f", and {count} more in the {now - since:.0f} s before" if count else ""
        self._log.warning("refused %s: %s%s", peer, reason, more)
