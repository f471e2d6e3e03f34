"""Fixtures of the outbox's tests: outboxes in a folder of their own, closed in the end."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cloud_fallback.outbox import Delivery, Drain, Outbox, Request


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "outbox.db"


@pytest.fixture
def open_outbox(path: Path) -> Iterator[Callable[..., Outbox]]:
    """Opens the outbox at `path` with options; opening it again closes it first."""
    opened: list[Outbox] = []

    def open_one(**options: Any) -> Outbox:
        for each in opened:
            each.close()
        opened.append(Outbox(path, **options))
        return opened[-1]

    yield open_one
    for each in opened:
        each.close()


def wait_for(condition: Callable[[], bool], seconds: float = 20) -> None:
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, "it did not happen"
        time.sleep(0.002)


def drain_all(outbox: Outbox, send: Callable[[Request], bytes], **options: Any) -> list[Delivery]:
    """Drains an outbox until nothing is left; returns what was delivered."""
    delivered: list[Delivery] = []
    options = {"requests_per_s": 1e6, "first_backoff_s": 0.01, "max_backoff_s": 0.05} | options
    with Drain(outbox, send, on_answer=delivered.append, **options):
        wait_for(lambda: is_empty(outbox))
    return delivered


def is_empty(outbox: Outbox) -> bool:
    figures = outbox.figures()
    return not figures.depth and not figures.unacknowledged


def echo(request: Request) -> bytes:
    return request.body
