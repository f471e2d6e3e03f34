"""What goes into an outbox and what comes out of it: a request, and the one end that each comes to."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from edge_runtime.errors import ErrorCode, HybridgeError

__all__ = ["Delivery", "DropReason", "Dropped", "Request", "WhenFull", "encode_metadata"]

# An id travels as a gRPC header, which holds printable ASCII, and headers of more than 8 KB are refused by most peers.
_MAX_ID_LENGTH = 128
_MAX_METADATA_BYTES = 4096
_INT64 = 2**63


class WhenFull(StrEnum):
    """What makes room for a request that does not fit: the oldest, the least important, or nothing."""

    DROP_OLDEST = "drop-oldest"
    DROP_LOWEST = "drop-lowest"
    REFUSE = "refuse"


class DropReason(StrEnum):
    """Why a request was given up before it was answered: its age, or a newer one that needed its place."""

    EXPIRED = "expired"
    FULL = "full"


@dataclass(frozen=True, slots=True)
class Request:
    """One request to be sent when there is a connection.

    Attributes:
        body: What is sent, as it is: an encoded message.
        destination: Whom it is for, a key that the sender understands.
        priority: Requests of a higher one are sent first, and of equal ones the oldest.
        metadata: What the application wants back with the answer: JSON of at most 4 KB, and comes back as JSON has it
            (a tuple as a list).
        max_age_s: Seconds after which nobody wants the answer any more, in place of the outbox's own limit.
        id: Tells one request from another, for the outbox, the endpoint and the application: the same id put again is
            the same request. At most 128 printable ASCII characters.

    Raises:
        HybridgeError: `input-invalid` for what cannot be kept.
    """

    body: bytes = field(repr=False)
    destination: str
    priority: int = field(default=0, kw_only=True)
    metadata: Mapping[str, Any] = field(default_factory=dict, kw_only=True)
    max_age_s: float | None = field(default=None, kw_only=True)
    id: str = field(default_factory=lambda: uuid.uuid4().hex, kw_only=True)

    def __post_init__(self) -> None:
        if not isinstance(self.body, bytes):
            raise _invalid("body", type(self.body).__name__, "bytes")
        if not isinstance(self.destination, str) or not self.destination or not _is_text(self.destination):
            raise _invalid("destination", repr(self.destination), "text that is not empty")
        if not isinstance(self.priority, int) or not -_INT64 <= self.priority < _INT64:
            raise _invalid("priority", repr(self.priority), "an integer of 64 bits")
        age = self.max_age_s
        if age is not None and (isinstance(age, bool) or not isinstance(age, int | float) or not age > 0):
            raise _invalid("max_age_s", repr(age), "more than 0 seconds, or None")
        if not isinstance(self.id, str) or not 0 < len(self.id) <= _MAX_ID_LENGTH or not _is_header(self.id):
            raise _invalid("id", repr(self.id)[:200], f"1 to {_MAX_ID_LENGTH} printable ASCII characters")


@dataclass(frozen=True, slots=True)
class Delivery:
    """What became of a request that was sent: an answer or a refusal, exactly one of them.

    Attributes:
        id: The request's.
        destination: The request's.
        metadata: The request's, as JSON has it.
        put_at: When the request was put, in seconds since 1970 as the device's clock then had it.
        answer: What the endpoint answered.
        error: Why it never will, as the sender raised it.
        number: 1 when this surely is the first time that it is delivered. More when it may have been delivered before:
            a callback failed, or the process ended before the acknowledgement was on disk.
    """

    id: str
    destination: str
    metadata: Mapping[str, Any]
    put_at: float
    answer: bytes | None = field(repr=False)
    error: HybridgeError | None
    number: int


@dataclass(frozen=True, slots=True)
class Dropped:
    """A request that was given up.

    Attributes:
        id: The request's.
        destination: The request's.
        priority: The request's.
        metadata: The request's, as JSON has it.
        put_at: When it was put, in seconds since 1970 as the device's clock then had it.
        age_s: Seconds that it is known to have waited.
        why: Its age, or the place that it took.
    """

    id: str
    destination: str
    priority: int
    metadata: Mapping[str, Any]
    put_at: float
    age_s: float
    why: DropReason


def encode_metadata(request: Request) -> str:
    """The request's metadata as JSON.

    Raises:
        HybridgeError: `input-invalid` for what JSON does not have, and for more than 4 KB.
    """
    if not request.metadata:
        return "{}"
    try:
        text = json.dumps(dict(request.metadata), allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError) as error:
        raise _invalid("metadata", str(error), "what JSON can say") from error
    if len(text) > _MAX_METADATA_BYTES:
        raise _invalid("metadata", f"{len(text)} bytes of JSON", f"at most {_MAX_METADATA_BYTES}")
    return text


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair
        return False
    return "\0" not in text


def _is_header(text: str) -> bool:
    return text.isascii() and text.isprintable() and text == text.strip()


def _invalid(what: str, received: str, expected: str) -> HybridgeError:
    return HybridgeError(
        ErrorCode.INPUT_INVALID,
        f"{what} of a request for the outbox",
        received=received,
        expected=expected,
    )
