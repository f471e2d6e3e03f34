"""Watches what a repository was loaded from, and has it load what changes there."""

from __future__ import annotations

import logging
import threading
from types import TracebackType
from typing import Self

from cloud_fallback.endpoint.repository import Repository
from edge_runtime.errors import HybridgeError

__all__ = ["RepositoryWatch"]

_log = logging.getLogger(__name__)


class RepositoryWatch:
    """Looks at a repository's files every `interval_s` seconds, from a thread of its own.

    A change is taken up once everything is the same at two looks in turn, so that a file that is being copied is not
    read half. What cannot be loaded is not tried again until it changes again.

    Args:
        repository: The models.
        interval_s: Seconds between looks.
    """

    def __init__(self, repository: Repository, *, interval_s: float = 1.0):
        self._repository, self._interval_s = repository, interval_s
        self._taken = self._seen = repository.file_states()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="endpoint-watch", daemon=True)

    def start(self) -> Self:
        """Begins to look."""
        self._thread.start()
        return self

    def stop(self) -> None:
        """Ends the thread."""
        self._stop.set()
        self._thread.join()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _watch(self) -> None:
        said = ""
        while not self._stop.wait(self._interval_s):
            try:
                self._look()
                said = ""
            except HybridgeError as error:
                # A folder that is being moved is not there for a moment; the models that are loaded go on.
                if said != error.message:
                    said = error.message
                    _log.warning("what changed was not loaded: %s", said)

    def _look(self) -> None:
        states = self._repository.file_states()
        if states != self._taken and states == self._seen:
            self._taken = states
            self._repository.refresh()
        self._seen = states
