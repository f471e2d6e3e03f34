"""What all sources share: one pass over frames, and a device that is let go of when the pass ends."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator
from types import TracebackType
from typing import Self

from edge_runtime.errors import ErrorCode, HybridgeError
from edge_runtime.frame import Frame

__all__ = ["Source", "lost_device"]


class Source(ABC):
    """Frames, one after the other, once.

    A subclass makes them in the generator `_frames`, which waits with ``self._closed.wait(seconds)`` and never for long
    in anything that cannot be interrupted; what its constructor opened it closes in `_release`.

    A frame that cannot be made comes as a `HybridgeError` in its place; a source that cannot go on raises one.

    Attributes:
        live: Whether frames are made at the device's own pace (a camera, a microphone), so that a chain that is slower
            must drop some or fall behind; otherwise a frame is made when it is asked for.
        length: How many frames there will be, where that is known.

    Example:
        >>> class Countdown(Source):
        ...     def _frames(self):
        ...         for number in (3, 2, 1):
        ...             yield Frame({"number": np.float32([number])}, name=str(number))
        >>> with Countdown() as source:
        ...     names = [frame.name for frame in source]
    """

    live: bool = False
    length: int | None = None

    def __init__(self) -> None:
        self._closed = threading.Event()
        # Held while a frame is made and while the device is released: a device is never closed under a read.
        self._device = threading.Lock()
        self._pass: Generator[Frame | HybridgeError] | None = None

    @abstractmethod
    def _frames(self) -> Generator[Frame | HybridgeError]:
        """Makes the frames; its ``finally`` blocks run when the source is closed."""

    def _release(self) -> None:  # noqa: B027 - most sources hold nothing between frames
        """Lets go of what the constructor opened; called once or more, never while a frame is made."""

    def __iter__(self) -> Iterator[Frame | HybridgeError]:
        if self._pass is not None:
            raise HybridgeError(
                ErrorCode.INPUT_INVALID,
                type(self).__name__,
                received="a second pass over a source",
                expected="one",
                fix="open it again",
            )
        self._pass = self._frames()
        return self._guarded(self._pass)

    def _guarded(self, frames: Iterator[Frame | HybridgeError]) -> Iterator[Frame | HybridgeError]:
        try:
            while True:
                with self._device:
                    if self._closed.is_set():
                        return
                    try:
                        frame = next(frames)
                    except StopIteration:
                        return
                # A `close` that came while the frame was made left the device to this thread.
                if self._closed.is_set():
                    return
                yield frame
        finally:
            self.close()

    def close(self) -> None:
        """Ends the pass and lets go of the device; from any thread, any number of times.

        A pass that is waiting for a frame in another thread ends as soon as the device lets it, and releases the
        device itself; a frame that it was making is not given out.
        """
        self._closed.set()
        if not self._device.acquire(blocking=False):
            return
        try:
            if self._pass is not None:
                self._pass.close()
            self._release()
        finally:
            self._device.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def lost_device(what: str, *, received: str, fix: str) -> HybridgeError:
    """The error for a camera or microphone that is not there or has gone.

    Args:
        what: The device, such as ``"camera '/dev/video0'"``.
        received: What happened.
        fix: What to do.
    """
    return HybridgeError(
        ErrorCode.DEVICE_UNAVAILABLE, what, received=received, expected="a device that gives frames", fix=fix
    )
