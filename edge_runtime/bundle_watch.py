"""Watches the files that a chain's models came from, and swaps in what is put in their place."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from edge_runtime.chain import Chain
from edge_runtime.errors import HybridgeError

__all__ = ["BundleWatch", "SwapEvent"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SwapEvent:
    """A file that changed: what was swapped in, or the error that kept it out."""

    stage: str
    path: Path
    error: HybridgeError | None = None


class BundleWatch:
    """Looks at a chain's model files every `interval_s` seconds, from a thread of its own.

    A file that has changed is swapped in once it has the same size and time at two looks in turn, so that one that is
    being copied is not read half; a refused one is not tried again until it changes again.

    Args:
        chain: The chain; its models that were loaded from a path are watched.
        interval_s: Seconds between looks.
        trial_calls: Calls for which the old model stays loaded; see `Chain.swap`.

    Example:
        >>> with BundleWatch(chain):
        ...     for result in chain.stream(camera): ...
    """

    def __init__(self, chain: Chain, *, interval_s: float = 1.0, trial_calls: int = 100):
        self._chain, self._interval_s, self._trial_calls = chain, interval_s, trial_calls
        self.events: list[SwapEvent] = []
        self._paths = {
            stage: slot.tier.model.path
            for stage, slot in chain.model_slots().items()
            if slot.tier.model.path is not None
        }
        self._loaded = {path: _state(path) for path in self._paths.values()}
        self._seen = dict(self._loaded)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="hybridge-bundles", daemon=True)

    def __enter__(self) -> BundleWatch:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(self._interval_s):
            for path in dict.fromkeys(self._paths.values()):
                state = _state(path)
                if state is None or state == self._loaded[path]:
                    continue
                if state != self._seen[path]:
                    self._seen[path] = state
                    continue
                self._loaded[path] = state
                for stage, own in self._paths.items():
                    if own == path:
                        self._swap(stage, path)

    def _swap(self, stage: str, path: Path) -> None:
        try:
            self._chain.swap(stage, path, trial_calls=self._trial_calls)
        except HybridgeError as error:
            _log.warning("%s of stage '%s' was not swapped in: %s", path, stage, error.message)
            self.events.append(SwapEvent(stage, path, error))
        else:
            _log.info("%s swapped in for stage '%s'", path, stage)
            self.events.append(SwapEvent(stage, path))


def _state(path: Path) -> tuple[int, int, int] | None:
    """What tells one version of a file from another; None while there is no file."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_ino, stat.st_size, stat.st_mtime_ns
