"""Messages on their way: so many at once as memory holds, others in turn, and none that stalls in the way of others."""

from __future__ import annotations

import time
from collections import Counter, OrderedDict, deque
from collections.abc import Iterator
from typing import Any

from cloud_fallback.endpoint.access import host_of
from cloud_fallback.endpoint.rpc.ended_calls import EndedCalls, Stall
from cloud_fallback.endpoint.rpc.unary_calls import UnaryCall

__all__ = ["ComingMessages"]

# How long a message may be on its way while one of another host waits for its turn: of a host that has more than its
# share of them, and of one that has not.
_IN_THE_WAY_S, _WITHIN_ITS_SHARE_S = 0.25, 20.0


class ComingMessages:
    """Receives the messages of calls; all on the thread that polls.

    gRPC takes a small part of a message before anybody asks for it. So a call whose turn has not come takes no memory
    to speak of, and one that stalls takes what it has sent.

    Args:
        most: Messages that may be received at once.
        ended: Ends calls.
        hurry_s: How long a message may be on its way while only others of its host wait for their turn.
    """

    def __init__(self, most: int, ended: EndedCalls, *, hurry_s: float = 5.0):
        self._most, self._hurry_s, self._ended = most, hurry_s, ended
        # Since when, the oldest first.
        self._coming: dict[UnaryCall, float] = {}
        # Calls whose turn is to come: hosts take turns, and so do the connections of each.
        self._waiting: OrderedDict[str, OrderedDict[str, deque[UnaryCall]]] = OrderedDict()
        self._num_waiting = 0

    def __len__(self) -> int:
        return len(self._coming) + self._num_waiting

    @property
    def received_now(self) -> int:
        """Messages that are being received."""
        return len(self._coming)

    def receive(self, call: UnaryCall) -> None:
        """Receives a call's message, now or in its turn, and `has_come` follows; or it is ended before."""
        if len(self._coming) < self._most:
            self._coming[call] = time.monotonic()
            call.receive()
        else:
            connections = self._waiting.setdefault(_host(call), OrderedDict())
            connections.setdefault(call.peer(), deque()).append(call)
            self._num_waiting += 1
            call.wait()

    def has_come(self, call: UnaryCall) -> None:
        """A message is there, or will not come."""
        self._coming.pop(call, None)
        while self._num_waiting and len(self._coming) < self._most:
            waiting = self._next()
            # Else its client has left meanwhile.
            if waiting.is_active():
                self.receive(waiting)

    def end_stalled(self, patience_s: float) -> None:
        """Ends calls whose messages have been on their way for too long.

        Args:
            patience_s: Seconds that are too long where no other waits.
        """
        now = time.monotonic()
        if self._coming and now - next(iter(self._coming.values())) > (
            _IN_THE_WAY_S if self._num_waiting else patience_s
        ):
            for call in self._stalled(now, patience_s):
                del self._coming[call]
                self._ended.end(call, Stall.ROOM if self._num_waiting else Stall.MESSAGE)

    def end_one_for(self, call: UnaryCall) -> bool:
        """Ends a call for another; returns whether it did.

        It is one of the host that has most of them, or of the same host's connection that has most; or else one that
        has been on its way for long.
        """
        now = time.monotonic()
        every = [*self._coming, *self._all_waiting()]
        for whose in (_host, _peer):
            counts = Counter(map(whose, every))
            ((heaviest, count),) = counts.most_common(1)
            if count > counts[whose(call)] + 1:
                victim = next((each for each in every if whose(each) == heaviest), None)
                if victim is not None and now - self._coming.get(victim, 0.0) >= _IN_THE_WAY_S:
                    return self._end(victim)
        oldest = next(iter(self._coming), None)
        if oldest is None or now - self._coming[oldest] < self._hurry_s:
            return False
        return self._end(oldest)

    def _end(self, call: UnaryCall) -> bool:
        # One that waits for its turn is passed over when that comes.
        self._coming.pop(call, None)
        self._ended.end(call, Stall.ROOM)
        return True

    def _all_waiting(self) -> Iterator[UnaryCall]:
        for connections in self._waiting.values():
            for calls in connections.values():
                yield from (each for each in calls if each.is_active())

    def _next(self) -> UnaryCall:
        """The call whose turn it is."""
        host, connections = next(iter(self._waiting.items()))
        connection, calls = next(iter(connections.items()))
        call = calls.popleft()
        self._num_waiting -= 1
        _turn(connections, connection, is_over=not calls)
        _turn(self._waiting, host, is_over=not connections)
        return call

    def _stalled(self, now: float, patience_s: float) -> list[UnaryCall]:
        if not self._num_waiting:
            return [call for call, since in self._coming.items() if now - since > patience_s]
        hosts, stalled = Counter(map(_host, self._coming)), []
        share = max(1, self._most // len(hosts | Counter(self._waiting.keys())))
        for call, since in self._coming.items():
            host = _host(call)
            if not self._waiting.keys() - {host}:
                patience_s = self._hurry_s
            else:
                patience_s = _IN_THE_WAY_S if hosts[host] > share else _WITHIN_ITS_SHARE_S
            if now - since > patience_s:
                stalled.append(call)
                hosts[host] -= 1
        return stalled


def _host(call: UnaryCall) -> str:
    return host_of(call.peer())


def _peer(call: UnaryCall) -> str:
    return call.peer()


def _turn(those: OrderedDict[str, Any], one: str, *, is_over: bool) -> None:
    """One of those has had its turn."""
    if is_over:
        del those[one]
    else:
        those.move_to_end(one)
