"""Answers to questions that were deferred: asked for while a chain runs, and written as they come."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import msgspec
import numpy as np

from edge_runtime.chain import Chain
from edge_runtime.chain.chain_step import ChainStep
from edge_runtime.chain.foreach import Foreach
from edge_runtime.console import emit_line
from edge_runtime.fallback import Deferring, LateAnswer
from edge_runtime.tensor_spec import Array

__all__ = ["deferring", "draining", "wait_until_empty", "write_late"]

_POLL_S = 0.02
_MOST_SHOWN = 16

# Questions that are not done with, by where they go.
Left = Callable[[], Counter[str]]


def deferring(chain: Chain) -> list[Deferring]:
    """The fallbacks of a chain, and of chains within, that defer to an outbox."""
    found: list[Deferring] = []
    for stage in chain.stages:
        step = stage.step.step if isinstance(stage.step, Foreach) else stage.step
        if isinstance(step, ChainStep):
            found += deferring(step.chain)
        if isinstance(stage.fallback, Deferring) and stage.fallback.outbox is not None:
            found.append(stage.fallback)
    return found


@contextmanager
def draining(fallbacks: Iterable[Deferring], on_answer: Callable[[LateAnswer], object]) -> Iterator[Left]:
    """Asks what waits in the outboxes of fallbacks, each outbox once, from entering to leaving.

    Yields:
        A function that says how many questions are left in all of them.
    """
    by_outbox: dict[int, list[Deferring]] = {}
    for fallback in fallbacks:
        by_outbox.setdefault(id(fallback.outbox), []).append(fallback)
    with ExitStack() as stack:
        lefts = [
            stack.enter_context(first.drain(on_answer, sharing=others))
            for first, *others in by_outbox.values()
        ]

        def left() -> Counter[str]:
            total: Counter[str] = Counter()
            for each in lefts:
                total.update(each())
            return total

        yield left


def wait_until_empty(left: Left, seconds: float) -> None:
    """Waits until nothing is left, for so many seconds at most."""
    limit_s = time.monotonic() + seconds
    while left() and time.monotonic() < limit_s:
        time.sleep(_POLL_S)


def write_late(late: LateAnswer, *, as_json: bool) -> None:
    """Writes an answer as a line; whole in JSON, as it comes but once."""
    if as_json:
        record: dict[str, Any] = {
            "request_id": late.request_id,
            "stage": late.stage,
            "number": late.number,
        }
        if late.error is not None:
            record["error"] = {"code": late.error.code, "message": late.error.message}
        else:
            record["outputs"] = {name: _values(array) for name, array in (late.outputs or {}).items()}
        emit_line(msgspec.json.encode(record).decode())
        return
    facts = [f"{late.request_id} of stage '{late.stage}'"]
    if late.error is not None:
        facts.append(f"{late.error.message} [{late.error.code}]")
    for name, array in (late.outputs or {}).items():
        facts.append(f"{name}: {_shown(array)}")
    emit_line(f"late: {', '.join(facts)}")


def _shown(array: Array) -> str:
    """What a person reads of an array: all of it, where that fits into a line."""
    if array.dtype.kind in "OUS":
        return str(_values(array))
    if array.size > _MOST_SHOWN:
        return f"{array.dtype}{array.shape}"
    return np.array2string(array, precision=4, separator=", ", max_line_width=10_000).replace("\n", "")


def _values(array: Array) -> Any:
    """Numbers or text as lists; strings come as bytes, and what is no text has its bytes shown."""
    if array.dtype.kind != "O":
        return array.tolist()

    def text(value: Any) -> Any:
        if isinstance(value, list):
            return [text(each) for each in value]
        return value.decode(errors="backslashreplace") if isinstance(value, bytes) else value

    return text(array.tolist())
