"""A threshold that follows the cloud's answers, and that a file remembers."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from cloud_fallback.threshold.online_threshold import OnlineThreshold
from edge_runtime.errors import ErrorCode, HybridgeError
from edge_runtime.files import check_writable, read_file, write_file

__all__ = ["KeptThreshold"]

_log = logging.getLogger(__name__)

# What a process that is killed forgets.
_SAVED_EVERY_S = 180.0


class KeptThreshold(OnlineThreshold):
    """Saves itself every few minutes in which it learns, beside its file and renamed, in a thread of its own.

    All fallbacks of this process that name a file learn one threshold. A file that cannot be written is logged, and
    tried again: what was learned so far goes on. Made by `open`.
    """

    _open_lock = threading.Lock()
    # By file: what is open, with which settings, and how often.
    _open: ClassVar[dict[Path, tuple[KeptThreshold, Mapping[str, float | None], int]]] = {}

    def __init__(self, cost: float, **settings: Any):
        super().__init__(cost, **settings)
        self._path = Path()
        self._due_s = time.monotonic() + _SAVED_EVERY_S
        self._learned = self._saved = 0
        self._saving = threading.Lock()

    @classmethod
    def open(
        cls, path: Path, *, cost: float, start: float | None, memory: float, explore: float
    ) -> KeptThreshold:
        """Goes on from a file, or begins anew where there is none; arguments as those of the class.

        Raises:
            HybridgeError: `data-invalid` for a file of something else; `file-not-found` for one that cannot be read;
                `file-unwritable` where its folder is missing; `usage` when it is open here with other settings.
        """
        settings = {"cost": cost, "start": start, "memory": memory, "explore": explore}
        place = path.resolve()
        with cls._open_lock:
            if place in cls._open:
                kept, others, holders = cls._open[place]
                if others != settings:
                    raise HybridgeError(
                        ErrorCode.USAGE,
                        f"online threshold in '{path}'",
                        received=f"{settings} and {dict(others)}",
                        expected="the same settings wherever it is named",
                    )
            else:
                kept, holders = cls._load(place, cost, start, memory, explore), 0
            cls._open[place] = (kept, settings, holders + 1)
        return kept

    def release(self) -> None:
        """Saves it; whoever opened it last lets go of the file. Called once for each `open`."""
        self.save()
        with self._open_lock:
            kept, settings, holders = self._open[self._path]
            if holders > 1:
                self._open[self._path] = (kept, settings, holders - 1)
            else:
                del self._open[self._path]

    @classmethod
    def _load(
        cls, path: Path, cost: float, start: float | None, memory: float, explore: float
    ) -> KeptThreshold:
        check_writable(path, overwrite=True)
        if path.exists():
            content = read_file(path)
            try:
                kept = cls.from_json(content, cost=cost, memory=memory, explore=explore)
            except HybridgeError as error:
                raise HybridgeError(
                    error.code,
                    f"{error.what} in '{path}'",
                    received=error.received,
                    expected=error.expected,
                    fix=error.fix,
                ) from error
        else:
            kept = cls(cost, start=start, memory=memory, explore=explore)
        kept._path = path
        return kept

    def learn(self, confidence: float | None, agreed: bool) -> None:
        """As `OnlineThreshold.learn`; never waits for the file."""
        super().learn(confidence, agreed)
        now_s = time.monotonic()
        with self._lock:
            self._learned += 1
            is_due = now_s >= self._due_s
            if is_due:
                self._due_s = now_s + _SAVED_EVERY_S
        if is_due:
            threading.Thread(target=self.save, name="hybridge-threshold", daemon=True).start()

    def save(self) -> None:
        """Writes the file, if something was learned since it was written last."""
        with self._saving:
            learned = self._learned
            if learned == self._saved:
                return
            try:
                write_file(self._path, self.to_json(), overwrite=True)
            except HybridgeError as error:
                _log.warning("what the threshold learned is not kept: %s", error.message)
            else:
                self._saved = learned
