"""The outbox: what is put is on the disk, what is full makes room as told, what was answered waits to be taken."""

from __future__ import annotations

import logging
import math
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import takewhile
from os import PathLike
from types import TracebackType
from typing import Self, TypeVar

from cloud_fallback.outbox import content as contents
from cloud_fallback.outbox.bell import Bell
from cloud_fallback.outbox.clock import Clock, Readings, read_clocks
from cloud_fallback.outbox.content import Content, Encoded
from cloud_fallback.outbox.database import DatabaseFile, Durability
from cloud_fallback.outbox.figures import OutboxFigures
from cloud_fallback.outbox.group_commit import GroupCommit
from cloud_fallback.outbox.request import Delivery, Dropped, DropReason, Request, WhenFull
from edge_runtime.errors import ErrorCode, HybridgeError

__all__ = ["Outbox", "Taken"]

_log = logging.getLogger(__name__)

# SQLite's own limit for a row is 10^9 bytes.
_MAX_BODY_BYTES = 900_000_000
# So much of the outbox's own time may be lost when power fails; requests then are younger than they were.
_CLOCK_SAVED_EVERY_S = 10.0

Setting = TypeVar("Setting", bound=StrEnum)


@dataclass(frozen=True, slots=True)
class Taken:
    """A request that was taken to be sent, until `Outbox.settle` or `Outbox.put_back`."""

    seq: int
    request: Request
    expires_s: float


class Outbox:
    """Requests on disk until they are sent, and their answers until they were taken.

    `put` returns when the request is on the disk; threads that put at once share a commit. What then becomes of it is
    one of two: an answer or a refusal is delivered, or it is dropped for its age or for room, which is counted, logged
    and told to `on_drop`. A `Drain` sends and delivers. Safe from many threads, in one process at a time; a process
    that forks does so before it opens one.

    Args:
        path: The file. It is made where there is none, and only its owner can read it.
        max_bytes: Of bodies, answers and metadata that are kept. The file takes somewhat more.
        max_requests: Requests that wait and answers that were not taken.
        max_age_s: Seconds after which a request is dropped, where it has no limit of its own. Only time that is known
            to have passed counts; see `cloud_fallback.outbox.clock`.
        when_full: What makes room. `drop-oldest`; `drop-lowest`: the oldest of the lowest priority, but nothing that is
            more important than what is put; or `refuse`. What is being sent, and answers, are never dropped.
        on_drop: Called with each request that was dropped, once it is gone, by the thread that made it go.
        durability: What a request survives: `power-loss`, or only the process's `crash`.
        set_aside: Whether a damaged file is renamed to ``<path>.damaged-<n>`` and a new one begun. The whole file is
            read for that.
        read_clocks: In place of the machine's own clocks.

    Raises:
        HybridgeError: `usage` for settings that cannot be, a file of something else or of a later version;
            `outbox-damaged`; `outbox-full` for a full disk; `file-unwritable`, also for a file that is open elsewhere.

    Attributes:
        request_came: Rung when a request was put or put back.
        answer_came: The same for answers and refusals.
        drain_lock: Held by the one `Drain` that runs.

    Example:
        >>> with Outbox("/var/lib/reader/outbox.db", max_bytes=50_000_000, when_full="drop-oldest") as outbox:
        ...     outbox.put(Request(message, "digits-large"))
    """

    def __init__(
        self,
        path: str | PathLike[str],
        *,
        max_bytes: int = 256 * 2**20,
        max_requests: int = 100_000,
        max_age_s: float | None = None,
        when_full: WhenFull | str = WhenFull.REFUSE,
        on_drop: Callable[[Dropped], object] | None = None,
        durability: Durability | str = Durability.POWER_LOSS,
        set_aside: bool = False,
        read_clocks: Callable[[], Readings] = read_clocks,
    ):
        if max_bytes < 1 or max_requests < 1 or not (max_age_s is None or max_age_s > 0):
            raise HybridgeError(
                ErrorCode.USAGE,
                f"limits of outbox '{path}'",
                received=f"max_bytes={max_bytes}, max_requests={max_requests}, max_age_s={max_age_s}",
                expected="each more than 0",
            )
        self.max_bytes, self.max_requests = max_bytes, max_requests
        self.max_age_s = math.inf if max_age_s is None else max_age_s
        self.when_full = _setting(WhenFull, when_full, "when_full")
        self._on_drop = on_drop
        self._count_lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._dropped: Counter[str] = Counter()
        self._in_flight: set[int] = set()
        self._delivered: set[str] = set()
        self.request_came = Bell()
        self.answer_came = Bell()
        self.drain_lock = threading.Lock()
        self._file = DatabaseFile(
            path, durability=_setting(Durability, durability, "durability"), set_aside=set_aside
        )
        self.path = self._file.path
        try:
            content, saved, reached_s = contents.load(self._file.connection)
        except sqlite3.Error as error:
            self._file.close()
            raise self._file.translate(error) from error
        self._clock = Clock(saved, reached_s=reached_s, read=read_clocks)
        self._clock_saved_s = -math.inf
        self._commits = GroupCommit(self._file, content)
        # What was stored but not acknowledged may have been delivered, before this process.
        self._uncounted_deliveries = True
        try:
            self._begin()
        except HybridgeError as error:
            if error.code is not ErrorCode.OUTBOX_FULL:
                self._commits.close()
                raise
            _log.warning("%s; nothing is delivered until then", error.message)

    def put(self, request: Request) -> None:
        """Stores a request; it is on the disk when this returns. The same id put again is the same request.

        Raises:
            HybridgeError: `outbox-full` when it does not fit, or the disk is full; `message-too-large` when it never
                will; `input-invalid` for metadata that cannot be kept; `outbox-damaged`, `file-unwritable`; `usage`
                when the outbox is closed.
        """
        self.put_many((request,))

    def put_many(self, requests: Iterable[Request]) -> None:
        """Stores requests in one commit: all of them; or none, and raises what `put` raises."""
        encoded = [self._encoded(request) for request in requests]
        if not encoded:
            return
        try:
            stored, dropped = self._commits.write(
                lambda connection, content: self._store(connection, content, encoded)
            )
        except HybridgeError as error:
            if error.code is ErrorCode.OUTBOX_FULL:
                self._count(refused=len(encoded))
            raise
        self._count(puts=stored, repeats=len(encoded) - stored)
        self.request_came.ring()
        self._tell(dropped)

    def expire(self) -> float:
        """Drops what is too old, as every put does too; returns the seconds until there will be more."""

        def change(connection: sqlite3.Connection, content: Content) -> list[Dropped]:
            return self._expire(connection, content, self._now_s(connection))

        if self._expires_in_s() <= 0:
            self._tell(self._commits.write(change))
        return self._expires_in_s()

    def take(
        self, *, blocked: Collection[str] = (), passed_over: Callable[[str], bool] = lambda _id: False
    ) -> Taken | None:
        """The next request to send: of the highest priority, and of those the oldest; None when there is none.

        It stays stored, but is not taken again, nor dropped, until `settle` or `put_back`. One whose bytes the disk has
        changed is not returned but settled, as `outbox-damaged`.

        Args:
            blocked: Destinations that nothing is to be sent to.
            passed_over: Whether a request, by its id, is not to be sent now.
        """

        def query(
            connection: sqlite3.Connection, content: Content
        ) -> tuple[int, Taken | HybridgeError] | None:
            seq = contents.next_due(
                connection,
                content,
                blocked,
                lambda seq, request_id: seq in self._in_flight or passed_over(request_id),
            )
            if seq is None:
                return None
            try:
                taken = Taken(seq, *contents.request_at(connection, seq))
            except HybridgeError as error:
                return seq, error
            self._in_flight.add(seq)
            return seq, taken

        while (found := self._commits.read(query)) is not None:
            seq, taken = found
            if isinstance(taken, Taken):
                return taken
            self._store_answer(seq, None, taken)
        return None

    def put_back(self, taken: Taken) -> None:
        """Lets a request be taken again, after sending it failed in passing."""

        def query(_connection: sqlite3.Connection, content: Content) -> None:
            self._in_flight.discard(taken.seq)
            # While it was taken it was not looked at for its age.
            content.next_expiry_s = min(content.next_expiry_s, taken.expires_s)

        self._commits.read(query)
        self._count(sent=1, retries=1)
        self.request_came.ring()

    def settle(self, taken: Taken, answer: bytes = b"", *, error: HybridgeError | None = None) -> None:
        """Stores what became of a request, an answer or an error, in its place; it is on the disk when this returns.

        Raises:
            HybridgeError: As `put`; the request then is there as before, and still taken.
        """
        self._store_answer(taken.seq, answer if error is None else None, error)
        self._in_flight.discard(taken.seq)
        self._count(sent=1)

    def next_delivery(self, *, passed_over: Collection[str] = ()) -> Delivery | None:
        """The first answer or refusal that was not acknowledged, other than those of some ids.

        Raises:
            HybridgeError: As `put`, when it was delivered before, and that cannot be counted on the disk.
        """
        self._begin()
        delivery = self._commits.read(lambda connection, _: contents.first_answer(connection, passed_over))
        if delivery is None:
            return None
        request_id = delivery.id
        if request_id in self._delivered:
            self._commits.write(lambda connection, _: contents.deliver_again(connection, request_id))
            delivery = replace(delivery, number=delivery.number + 1)
        self._delivered.add(request_id)
        self._count(deliveries=1)
        return delivery

    def acknowledge(self, request_ids: Iterable[str]) -> None:
        """Forgets answers that were taken, for good when this returns; ids without an answer are passed over."""
        ids = tuple(request_ids)
        count = self._commits.write(
            lambda connection, content: sum(contents.acknowledge(connection, content, each) for each in ids)
        )
        self._delivered.difference_update(ids)
        self._count(acknowledged=count)

    def give_back(self) -> bool:
        """Returns some of the file's space to the disk, if much of it is free; whether there is more to return."""
        return self._commits.read(lambda _connection, _content: self._file.give_back())

    @property
    def depth(self) -> int:
        """Requests that wait or are being sent."""
        return self._commits.content.depth

    @property
    def is_closed(self) -> bool:
        """Whether it was closed."""
        return self._commits.is_closed

    def figures(self) -> OutboxFigures:
        """Everything at this moment."""

        def query(connection: sqlite3.Connection, content: Content) -> tuple[Content, float]:
            oldest_s = contents.oldest_put_s(connection)
            return content, 0.0 if oldest_s is None else max(self._clock.now_s() - oldest_s, 0.0)

        content, oldest_age_s = self._commits.read(query)
        with self._count_lock:
            counts, dropped = self._counts.copy(), dict(self._dropped)
        return OutboxFigures(
            depth=content.depth,
            depth_by_destination=dict(content.waiting),
            in_flight=len(self._in_flight),
            unacknowledged=content.answers,
            bytes=content.bytes,
            disk_bytes=self._file.bytes_on_disk(),
            oldest_age_s=oldest_age_s,
            puts=counts["puts"],
            repeats=counts["repeats"],
            refused=counts["refused"],
            sent=counts["sent"],
            retries=counts["retries"],
            answered=counts["answered"],
            failed=counts["failed"],
            dropped=dropped,
            deliveries=counts["deliveries"],
            acknowledged=counts["acknowledged"],
        )

    def close(self) -> None:
        """Closes the file; what is in it stays, and what comes later is refused."""
        try:
            self._commits.write(lambda connection, _: contents.save_clock(connection, self._clock.state()))
        except HybridgeError as error:
            _log.debug("outbox '%s': %s", self.path, error.message)
        self._commits.close()
        self.request_came.ring()
        self.answer_came.ring()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _begin(self) -> None:
        """Does what is to be done once after a start, as soon as the disk allows it."""
        if not self._uncounted_deliveries:
            return

        def change(connection: sqlite3.Connection, content: Content) -> list[Dropped]:
            contents.deliver_again(connection)
            return self._expire(connection, content, self._now_s(connection))

        dropped = self._commits.write(change)
        self._uncounted_deliveries = False
        self._tell(dropped)

    def _encoded(self, request: Request) -> Encoded:
        encoded = contents.encode(request)
        limit = min(self.max_bytes, _MAX_BODY_BYTES)
        if encoded.size > limit:
            raise HybridgeError(
                ErrorCode.MESSAGE_TOO_LARGE,
                f"request '{request.id}' for outbox '{self.path}'",
                received=f"{encoded.size} bytes with its metadata",
                expected=f"at most {limit}",
                fix="send less, or raise max_bytes",
            )
        return encoded

    def _store(
        self, connection: sqlite3.Connection, content: Content, requests: Sequence[Encoded]
    ) -> tuple[int, list[Dropped]]:
        now_s, put_at = self._now_s(connection), time.time()
        stored, dropped = 0, self._expire(connection, content, now_s)
        for encoded in requests:
            request = encoded.request
            known = contents.stored_crc(connection, request.id)
            if known is not None:
                if known not in (encoded.crc, -1):
                    _log.warning("request '%s' is there already, with other bytes, which stay", request.id)
                continue
            victims = self._victims(connection, content, encoded)
            dropped += contents.drop(connection, content, victims, DropReason.FULL, now_s)
            max_age_s = self.max_age_s if request.max_age_s is None else request.max_age_s
            contents.insert(
                connection, content, encoded, put_s=now_s, put_at=put_at, expires_s=now_s + max_age_s
            )
            stored += 1
        return stored, dropped

    def _store_answer(self, seq: int, answer: bytes | None, error: HybridgeError | None) -> None:
        def change(connection: sqlite3.Connection, content: Content) -> None:
            contents.answer(connection, content, seq, answer, error)
            self._now_s(connection)

        self._commits.write(change)
        self._count(answered=error is None, failed=error is not None)
        self.answer_came.ring()

    def _victims(self, connection: sqlite3.Connection, content: Content, encoded: Encoded) -> list[int]:
        """The requests that have to go for a new one."""
        too_many = content.depth + content.answers + 1 - self.max_requests
        too_much = content.bytes + encoded.size - self.max_bytes
        victims: list[int] = []
        if too_many <= 0 and too_much <= 0:
            return victims
        match self.when_full:
            case WhenFull.DROP_OLDEST:
                candidates = contents.in_order_of_age(connection)
            case WhenFull.DROP_LOWEST:
                candidates = takewhile(
                    lambda entry: entry.priority <= encoded.request.priority,
                    contents.in_order_of_importance(connection, content),
                )
            case WhenFull.REFUSE:
                candidates = iter(())
        for entry in candidates:
            if entry.seq in self._in_flight:
                continue
            victims.append(entry.seq)
            too_many, too_much = too_many - 1, too_much - entry.size
            if too_many <= 0 and too_much <= 0:
                return victims
        raise HybridgeError(
            ErrorCode.OUTBOX_FULL,
            f"outbox '{self.path}'",
            received=f"a request of {encoded.size} bytes on top of {content.depth} requests and {content.answers}"
            f" answers with {content.bytes} bytes",
            expected=f"at most {self.max_requests} with {self.max_bytes} bytes",
            fix="put it again when some were sent and their answers taken, or let when_full drop others",
        )

    def _expire(self, connection: sqlite3.Connection, content: Content, now_s: float) -> list[Dropped]:
        if content.next_expiry_s > now_s:
            return []
        old = contents.expired(connection, content, now_s, self._in_flight)
        return contents.drop(connection, content, old, DropReason.EXPIRED, now_s)

    def _expires_in_s(self) -> float:
        return self._commits.read(lambda _, content: content.next_expiry_s - self._clock.now_s())

    def _now_s(self, connection: sqlite3.Connection) -> float:
        """The outbox's own time, which is saved from time to time with what is written anyway."""
        now_s = self._clock.now_s()
        if now_s - self._clock_saved_s >= _CLOCK_SAVED_EVERY_S:
            contents.save_clock(connection, self._clock.state())
            self._clock_saved_s = now_s
        return now_s

    def _tell(self, dropped: Sequence[Dropped]) -> None:
        if not dropped:
            return
        why = Counter(str(each.why) for each in dropped)
        with self._count_lock:
            self._dropped.update(why)
        _log.warning(
            "outbox '%s' dropped %s, the first of them '%s'",
            self.path,
            ", ".join(f"{count} ({reason})" for reason, count in why.items()),
            dropped[0].id,
        )
        for each in dropped if self._on_drop is not None else ():
            try:
                self._on_drop(each)  # type: ignore[misc]
            except Exception:
                _log.exception("on_drop failed for request '%s'", each.id)

    def _count(self, **counts: int) -> None:
        with self._count_lock:
            self._counts.update(counts)


def _setting(kind: type[Setting], value: str, name: str) -> Setting:
    try:
        return kind(value)
    except ValueError as error:
        raise HybridgeError(
            ErrorCode.USAGE,
            f"{name} of an outbox",
            received=repr(value),
            expected=f"one of {', '.join(kind)}",
        ) from error
