"""What all sinks share: results one by one, and a file that is whole when it is closed, also by a failure."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self

from edge_runtime.errors import ErrorCode, HybridgeError
from edge_runtime.frame import StreamResult

__all__ = ["Sink", "unwritable"]

_log = logging.getLogger(__name__)


class Sink(ABC):
    """Takes the results of a stream; a subclass writes each in `_write` and ends its file in `_finish`.

    A sink that fails raises once: it ends its file with what is whole, and passes over the results that still come.

    Example:
        >>> class Counter(Sink):
        ...     found = 0
        ...     def _write(self, result):
        ...         self.found += result.error is None
        >>> with Counter() as sink:
        ...     for result in chain.stream(source):
        ...         sink.write(result)
    """

    def __init__(self) -> None:
        self._failed = False
        self._closed = False

    @abstractmethod
    def _write(self, result: StreamResult) -> None:
        """Writes one result."""

    def _finish(self) -> None:  # noqa: B027 - not every sink holds something
        """Ends what is written and lets go of it; called once."""

    def write(self, result: StreamResult) -> None:
        """Writes what became of a frame, or notes that there is nothing to write of it.

        Raises:
            HybridgeError: `file-unwritable`, `file-exists` or what the sink says, once; `input-invalid` when the sink
                was closed before.
        """
        if self._failed:
            return
        if self._closed:
            raise HybridgeError(
                ErrorCode.INPUT_INVALID,
                type(self).__name__,
                received="a result after it was closed",
                expected="results before",
                fix="open another",
            )
        try:
            self._write(result)
        except BaseException as error:
            self._failed = True
            self._close_after(error)
            raise

    def close(self) -> None:
        """Ends the file; any number of times.

        Raises:
            HybridgeError: `file-unwritable` when what was written cannot be ended.
        """
        if not self._closed:
            self._closed = True
            self._finish()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None:
            self.close()
        else:
            self._close_after(error)

    def _close_after(self, error: BaseException) -> None:
        # The first error is the one to tell; that of ending the file often only follows from it.
        try:
            self.close()
        except HybridgeError as second:
            _log.warning("after '%s': %s", error, second)


def unwritable(what: str, received: str) -> HybridgeError:
    """The error for an output that cannot be written.

    Args:
        what: The output, such as ``"output 'out.jsonl'"``.
        received: What happened.
    """
    return HybridgeError(
        ErrorCode.FILE_UNWRITABLE,
        what,
        received=received,
        expected="room to write",
        fix="check the folder, its permissions and the space left",
    )
