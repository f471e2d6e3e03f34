"""Questions that wait in an outbox: the file that fallbacks share, and the answers when they come."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

from google.protobuf.message import DecodeError

from cloud_fallback.client.answer import refused
from cloud_fallback.client.client import CloudFallback
from cloud_fallback.open_inference.open_inference_pb2 import ModelInferResponse
from cloud_fallback.open_inference.tensors import decode_response
from cloud_fallback.outbox import Delivery, Drain, Outbox, Request
from edge_runtime.errors import ErrorCode, HybridgeError
from edge_runtime.fallback import LateAnswer
from edge_runtime.tensor_spec import Array

__all__ = ["LateAnswer", "SharedOutbox", "drain_deferred", "draining"]

# What is under way when a drain ends is asked again by the next one, so nobody needs to wait for it.
_STOP_TIMEOUT_S = 2.0


def drain_deferred(
    fallbacks: Iterable[CloudFallback], on_answer: Callable[[LateAnswer], object], **pace: Any
) -> Drain:
    """A `Drain` for the outbox of one or more fallbacks, such as those of a chain; start it, and stop it at the end.

    Args:
        fallbacks: All that put questions into the outbox; one there is for another waits.
        on_answer: Takes what became of each question, from one thread; what it does not return from comes again.
        **pace: Settings of `Drain`, such as ``requests_per_s``.

    Raises:
        HybridgeError: `usage` for fallbacks without an outbox or with different ones.

    Example:
        >>> with load_chain("reader.toml") as chain:
        ...     asked = [stage.fallback for stage in chain.stages if stage.fallback]
        ...     with drain_deferred(asked, lambda late: correct(late.request_id, late.outputs)):
        ...         run(chain)
    """
    askers = tuple(fallbacks)
    senders = {each.destination: each for each in askers}
    outboxes = {id(each.outbox): each.outbox for each in senders.values()}
    outbox = outboxes.popitem()[1] if len(outboxes) == 1 else None
    if outbox is None:
        raise HybridgeError(
            ErrorCode.USAGE,
            "drain of deferred questions",
            received=f"{len(senders)} fallbacks with different outboxes, or none",
            expected="fallbacks that share one outbox",
        )

    def send(request: Request) -> bytes:
        sender = senders.get(request.destination)
        if sender is None:
            raise HybridgeError(
                ErrorCode.CLOUD_UNAVAILABLE,
                f"question for {request.destination}",
                received="no fallback that asks there",
                expected=f"one of {', '.join(senders)}",
            )
        return sender.send(request)

    def deliver(delivery: Delivery) -> None:
        outputs, error = None, delivery.error
        if delivery.answer is not None:
            try:
                outputs = _outputs(delivery.answer, delivery.metadata.get("outputs", {}))
            except (HybridgeError, DecodeError) as malformed:
                error = refused(f"answer from {delivery.destination}", str(malformed))
            else:
                for asker in askers:
                    asker.hear_late(delivery.id, outputs)
        on_answer(
            LateAnswer(delivery.id, str(delivery.metadata.get("stage", "")), outputs, error, delivery.number)
        )

    def is_connected() -> bool:
        # All are asked: to ask is what makes one that is away be looked for.
        return max(map(CloudFallback.is_up, senders.values()))

    return Drain(outbox, send, on_answer=deliver, is_connected=is_connected, **pace)


@contextmanager
def draining(
    fallbacks: Iterable[CloudFallback], on_answer: Callable[[LateAnswer], object], **pace: Any
) -> Iterator[Callable[[], dict[str, int]]]:
    """Drains while it is entered, and leaves without waiting long for what is under way; see `drain_deferred`.

    Yields:
        A function that says how many questions are not done with, by destination; those that were answered, but whose
        answer was not taken, are under "".
    """
    senders = tuple(fallbacks)
    drain = drain_deferred(senders, on_answer, **pace)
    outbox = senders[0].outbox
    assert outbox is not None  # noqa: S101 - the drain has it

    def left() -> dict[str, int]:
        figures = outbox.figures()
        waiting = {name: count for name, count in figures.depth_by_destination.items() if count}
        return waiting | ({"": figures.unacknowledged} if figures.unacknowledged else {})

    drain.start()
    try:
        yield left
    finally:
        drain.stop(_STOP_TIMEOUT_S)


def _outputs(answer: bytes, names: Mapping[str, str]) -> dict[str, Array]:
    """The outputs that were asked for, by the stage's names."""
    arrays = decode_response(ModelInferResponse.FromString(answer))
    if missing := names.keys() - arrays.keys():
        raise refused("answer", f"no output {', '.join(sorted(missing))}")
    return {stage: arrays[cloud].copy() for cloud, stage in names.items()}


class SharedOutbox:
    """The outbox in a file, for all fallbacks of this process that name it; only one process may have it open.

    Args:
        path: The file.
        **settings: Those of `Outbox`.

    Raises:
        HybridgeError: What `Outbox` raises; `usage` when it is open here with other settings.
    """

    _lock = threading.Lock()
    _open: ClassVar[dict[Path, tuple[Outbox, Mapping[str, Any], set[int]]]] = {}

    def __init__(self, path: Path, **settings: Any):
        self._path = path.resolve()
        with self._lock:
            if self._path not in self._open:
                self._open[self._path] = (Outbox(self._path, **settings), settings, set())
            self.outbox, others, holders = self._open[self._path]
            if others != settings:
                raise HybridgeError(
                    ErrorCode.USAGE,
                    f"outbox '{path}'",
                    received=f"{settings} and {dict(others)}",
                    expected="the same settings wherever it is named",
                )
            holders.add(id(self))

    def release(self) -> None:
        """Closes it, when nobody else has it."""
        with self._lock:
            outbox, _, holders = self._open.get(self._path, (None, {}, set()))
            if id(self) not in holders or outbox is None:
                return
            holders.discard(id(self))
            if not holders:
                del self._open[self._path]
                outbox.close()
