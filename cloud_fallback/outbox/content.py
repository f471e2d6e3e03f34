"""What is in an outbox: the statements that put requests in, choose among them, and take them out.

Each function runs within a transaction of `GroupCommit` and keeps `Content`, the numbers, in step with the tables.
"""

from __future__ import annotations

import heapq
import json
import math
import sqlite3
import zlib
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from cloud_fallback.outbox.clock import ClockState
from cloud_fallback.outbox.request import Delivery, Dropped, DropReason, Request, encode_metadata
from edge_runtime.errors import ErrorCode, HybridgeError

__all__ = [
    "Content",
    "Encoded",
    "Entry",
    "acknowledge",
    "answer",
    "deliver_again",
    "drop",
    "encode",
    "expired",
    "first_answer",
    "in_order_of_age",
    "in_order_of_importance",
    "insert",
    "load",
    "next_due",
    "oldest_put_s",
    "request_at",
    "save_clock",
    "stored_crc",
]


@dataclass
class Content:
    """What is stored, as numbers.

    Attributes:
        waiting: Requests by destination.
        depth: Requests in all.
        answers: Answers and refusals that were not acknowledged.
        bytes: Of bodies, answers and metadata.
        next_seq: The number of the next request; a later one has a higher one.
        next_expiry_s: A moment before which no request is too old.
    """

    waiting: dict[str, int] = field(default_factory=dict)
    depth: int = 0
    answers: int = 0
    bytes: int = 0
    next_seq: int = 1
    next_expiry_s: float = math.inf

    def copy(self) -> Content:
        """Another with the same numbers."""
        return Content(
            self.waiting.copy(), self.depth, self.answers, self.bytes, self.next_seq, self.next_expiry_s
        )

    def remember(self, destination: str, size: int, count: int = 1) -> None:
        """Counts requests more."""
        self.waiting[destination] = self.waiting.get(destination, 0) + count
        self.depth += count
        self.bytes += size

    def forget(self, destination: str, size: int) -> None:
        """Counts one request less."""
        self.waiting[destination] -= 1
        if not self.waiting[destination]:
            del self.waiting[destination]
        self.depth -= 1
        self.bytes -= size


@dataclass(frozen=True, slots=True)
class Encoded:
    """A request as it is stored.

    Attributes:
        request: The request.
        metadata: As JSON.
        crc: Of everything that must come out as it went in; SQLite itself does not notice what a disk has changed.
        size: Bytes of body and metadata.
    """

    request: Request
    metadata: str
    crc: int
    size: int


class Entry(NamedTuple):
    """A request in the index, without its body."""

    seq: int
    destination: str
    priority: int
    size: int


def encode(request: Request) -> Encoded:
    """A request, ready to be stored.

    Raises:
        HybridgeError: `input-invalid` for metadata that JSON does not have, and for more than 4 KB of it.
    """
    metadata = encode_metadata(request)
    crc = _crc(request.body, request.id, request.destination, metadata)
    return Encoded(request, metadata, crc, len(request.body) + len(metadata))


def load(connection: sqlite3.Connection) -> tuple[Content, ClockState | None, float]:
    """The numbers of what is stored, the clock as it was saved, and the moment of the last put."""
    content = Content()
    for destination, count, size in connection.execute(
        "SELECT destination, count(*), sum(size) FROM requests GROUP BY destination"
    ):
        content.remember(destination, size, count)
    count, size = connection.execute("SELECT count(*), coalesce(sum(size), 0) FROM answers").fetchone()
    content.answers += count
    content.bytes += size
    last = connection.execute("SELECT seq, put_s FROM requests ORDER BY seq DESC LIMIT 1").fetchone()
    if last is not None:
        content.next_seq = last[0] + 1
    expired(connection, content, -math.inf, ())
    saved = connection.execute("SELECT elapsed_s, boot_id, boot_s, utc_s FROM clock").fetchone()
    return content, None if saved is None else ClockState(*saved), 0.0 if last is None else last[1]


def save_clock(connection: sqlite3.Connection, state: ClockState) -> None:
    """Remembers the clock for the next process."""
    connection.execute(
        "INSERT OR REPLACE INTO clock (rowid, elapsed_s, boot_id, boot_s, utc_s) VALUES (1, ?, ?, ?, ?)",
        (state.elapsed_s, state.boot_id, state.boot_s, state.utc_s),
    )


def stored_crc(connection: sqlite3.Connection, request_id: str) -> int | None:
    """The check sum of the request with this id; -1 when only its answer is there, None when neither is."""
    row = connection.execute(
        "SELECT crc FROM requests WHERE id = ?1 UNION ALL SELECT -1 FROM answers WHERE id = ?1", (request_id,)
    ).fetchone()
    return None if row is None else row[0]


def insert(
    connection: sqlite3.Connection,
    content: Content,
    encoded: Encoded,
    *,
    put_s: float,
    put_at: float,
    expires_s: float,
) -> None:
    """Stores a request that was put at `put_s` of the outbox's own time, and at `put_at` of the wall clock's."""
    request = encoded.request
    connection.execute(
        "INSERT INTO requests (seq, id, destination, priority, put_s, put_at, expires_s, crc, size, metadata, body)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            content.next_seq,
            request.id,
            request.destination,
            request.priority,
            put_s,
            put_at,
            None if math.isinf(expires_s) else expires_s,
            encoded.crc,
            encoded.size,
            encoded.metadata,
            request.body,
        ),
    )
    content.next_seq += 1
    content.remember(request.destination, encoded.size)
    content.next_expiry_s = min(content.next_expiry_s, expires_s)


def in_order_of_age(connection: sqlite3.Connection) -> Iterator[Entry]:
    """The requests, oldest first."""
    rows = connection.execute("SELECT seq, destination, priority, size FROM requests ORDER BY seq")
    return map(Entry._make, rows)


def in_order_of_importance(connection: sqlite3.Connection, content: Content) -> Iterator[Entry]:
    """The requests, those of the lowest priority first, and of each priority the oldest."""
    lines = [_lowest_first(connection, destination) for destination in content.waiting]
    return heapq.merge(*lines, key=lambda entry: (entry.priority, entry.seq))


def next_due(
    connection: sqlite3.Connection,
    content: Content,
    blocked: Collection[str],
    passed_over: Callable[[int, str], bool],
) -> int | None:
    """The number of the next request to send: of the highest priority, and of those the oldest.

    Args:
        connection: The database.
        content: What is in it.
        blocked: Destinations that nothing is sent to.
        passed_over: Whether a request, by its number and id, is not to be sent now.
    """
    # One line for each destination, so that one that is blocked with all its requests costs nothing.
    lines = [
        connection.execute(
            "SELECT -priority, seq, id FROM requests WHERE destination = ? ORDER BY priority DESC, seq",
            (destination,),
        )
        for destination in content.waiting
        if destination not in blocked
    ]
    due = (seq for _, seq, request_id in heapq.merge(*lines) if not passed_over(seq, request_id))
    return next(due, None)


def request_at(connection: sqlite3.Connection, seq: int) -> tuple[Request, float]:
    """The request of a number, and when it is too old.

    Raises:
        HybridgeError: `outbox-damaged` when it is no longer as it was put.
    """
    body, destination, priority, metadata, request_id, crc, expires_s = connection.execute(
        "SELECT body, destination, priority, metadata, id, crc, expires_s FROM requests WHERE seq = ?", (seq,)
    ).fetchone()
    if _crc(body, request_id, destination, metadata) != crc:
        raise _damaged(f"request '{request_id}'")
    request = Request(body, destination, priority=priority, metadata=json.loads(metadata), id=request_id)
    return request, math.inf if expires_s is None else expires_s


def oldest_put_s(connection: sqlite3.Connection) -> float | None:
    """When the oldest request was put."""
    row = connection.execute("SELECT put_s FROM requests ORDER BY seq LIMIT 1").fetchone()
    return None if row is None else row[0]


def expired(
    connection: sqlite3.Connection, content: Content, now_s: float, passed_over: Collection[int]
) -> list[int]:
    """The numbers of requests that are too old; also finds when the next will be."""
    old = []
    content.next_expiry_s = math.inf
    rows = connection.execute(
        "SELECT seq, expires_s FROM requests WHERE expires_s IS NOT NULL ORDER BY expires_s"
    )
    for seq, expires_s in rows:
        if seq in passed_over:
            continue
        if expires_s > now_s:
            content.next_expiry_s = expires_s
            break
        old.append(seq)
    return old


def drop(
    connection: sqlite3.Connection, content: Content, seqs: Collection[int], why: DropReason, now_s: float
) -> list[Dropped]:
    """Deletes requests, and says which they were."""
    dropped = []
    for seq in seqs:
        request_id, destination, priority, metadata, put_at, put_s, size = connection.execute(
            "SELECT id, destination, priority, metadata, put_at, put_s, size FROM requests WHERE seq = ?",
            (seq,),
        ).fetchone()
        connection.execute("DELETE FROM requests WHERE seq = ?", (seq,))
        content.forget(destination, size)
        age_s = max(now_s - put_s, 0.0)
        dropped.append(
            Dropped(request_id, destination, priority, _decode_metadata(metadata), put_at, age_s, why)
        )
    return dropped


def answer(
    connection: sqlite3.Connection,
    content: Content,
    seq: int,
    body: bytes | None,
    error: HybridgeError | None,
) -> None:
    """Puts an answer or an error in the place of a request."""
    row = connection.execute(
        "SELECT id, destination, put_at, metadata, size FROM requests WHERE seq = ?", (seq,)
    ).fetchone()
    if row is None:
        return
    connection.execute("DELETE FROM requests WHERE seq = ?", (seq,))
    request_id, destination, put_at, metadata, request_size = row
    problem = None if error is None else _encode_error(error)
    size = len(body or b"") + len(metadata) + len(problem or "")
    connection.execute(
        "INSERT INTO answers (id, destination, put_at, deliveries, crc, size, metadata, error, answer)"
        " VALUES (?, ?, ?, 1, ?, ?, ?, ?, ?)",
        (
            request_id,
            destination,
            put_at,
            _crc(body or b"", request_id, destination, metadata, problem or ""),
            size,
            metadata,
            problem,
            body,
        ),
    )
    content.forget(destination, request_size)
    content.answers += 1
    content.bytes += size


def first_answer(connection: sqlite3.Connection, passed_over: Collection[str]) -> Delivery | None:
    """The first answer that came, other than those of some ids."""
    rows = connection.execute("SELECT seq, id FROM answers ORDER BY seq")
    seq = next((seq for seq, request_id in rows if request_id not in passed_over), None)
    if seq is None:
        return None
    request_id, destination, metadata, put_at, number, problem, crc, body = connection.execute(
        "SELECT id, destination, metadata, put_at, deliveries, error, crc, answer FROM answers WHERE seq = ?",
        (seq,),
    ).fetchone()
    error: HybridgeError | None
    if _crc(body or b"", request_id, destination, metadata, problem or "") != crc:
        body, error = None, _damaged(f"answer to request '{request_id}'")
    else:
        error = None if problem is None else _decode_error(problem)
    return Delivery(request_id, destination, _decode_metadata(metadata), put_at, body, error, number)


def deliver_again(connection: sqlite3.Connection, request_id: str | None = None) -> None:
    """Counts a delivery more, of one answer or of all."""
    connection.execute(
        "UPDATE answers SET deliveries = deliveries + 1 WHERE id = coalesce(?, id)", (request_id,)
    )


def acknowledge(connection: sqlite3.Connection, content: Content, request_id: str) -> bool:
    """Deletes an answer; whether there was one."""
    row = connection.execute("SELECT seq, size FROM answers WHERE id = ?", (request_id,)).fetchone()
    if row is None:
        return False
    seq, size = row
    connection.execute("DELETE FROM answers WHERE seq = ?", (seq,))
    content.answers -= 1
    content.bytes -= size
    return True


def _lowest_first(connection: sqlite3.Connection, destination: str) -> Iterator[Entry]:
    # One query for all would sort every request of a priority, to find the few that are wanted.
    (priority,) = connection.execute(
        "SELECT min(priority) FROM requests WHERE destination = ?", (destination,)
    ).fetchone()
    while priority is not None:
        for seq, size in connection.execute(
            "SELECT seq, size FROM requests WHERE destination = ? AND priority = ? ORDER BY seq",
            (destination, priority),
        ):
            yield Entry(seq, destination, priority, size)
        (priority,) = connection.execute(
            "SELECT min(priority) FROM requests WHERE destination = ? AND priority > ?",
            (destination, priority),
        ).fetchone()


def _crc(body: bytes, *texts: str) -> int:
    return zlib.crc32(body, zlib.crc32("\0".join(texts).encode()))


def _damaged(what: str) -> HybridgeError:
    return HybridgeError(
        ErrorCode.OUTBOX_DAMAGED,
        f"{what} in the outbox",
        received="bytes that changed on the disk",
        expected="the bytes that were stored",
    )


def _decode_metadata(text: str) -> dict[str, Any]:
    try:
        decoded: dict[str, Any] = json.loads(text)
    except ValueError:  # bytes that the disk has changed
        return {}
    return decoded


def _encode_error(error: HybridgeError) -> str:
    return json.dumps([error.code, error.what, error.received, error.expected, error.fix])


def _decode_error(text: str) -> HybridgeError:
    code, what, received, expected, fix = json.loads(text)
    # A code that a later version stored says at least that the endpoint refused.
    known = ErrorCode(code) if code in set(ErrorCode) else ErrorCode.CLOUD_REFUSED
    return HybridgeError(known, what, received=received, expected=expected, fix=fix)
