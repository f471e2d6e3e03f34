"""Requests kept on disk until connectivity allows, and their answers until they were taken.

An `Outbox` holds what could not be asked; a `Drain` sends it and delivers what comes back. A request is bytes and the
name of where it goes, so this package knows no transport and loads none.

Example:
    >>> outbox = Outbox("/var/lib/reader/outbox.db", when_full="drop-oldest")
    >>> outbox.put(Request(message, "digits-large", priority=1, metadata={"frame": 17}))
    >>> with Drain(outbox, send, on_answer=take, is_connected=link.is_up):
    ...     run()
"""

from cloud_fallback.outbox.database import Durability
from cloud_fallback.outbox.drain import Drain
from cloud_fallback.outbox.figures import OutboxFigures
from cloud_fallback.outbox.outbox import Outbox
from cloud_fallback.outbox.request import Delivery, Dropped, DropReason, Request, WhenFull

__all__ = [
    "Delivery",
    "Drain",
    "DropReason",
    "Dropped",
    "Durability",
    "Outbox",
    "OutboxFigures",
    "Request",
    "WhenFull",
]
