"""Finished trials on disk, so that a search that was interrupted goes on where it was and a repeated one is quick.

A folder of pairs named by the trial's key: ``KEY.edge``, the bundle, which verifies itself, and ``KEY.json``, written
last, which says how the trial ended. Each appears by a rename, so that what is there is whole; what is damaged all the
same counts as absent. Several searches may share a folder.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import time
from os import PathLike
from pathlib import Path

import msgspec
from msgspec import Struct

from convert.recipes import Recipe
from convert.search.trial import Attempt, Failure, Trial
from edge_runtime.bundle import Bundle
from edge_runtime.errors import ErrorCode, HybridgeError
from edge_runtime.files import write_file
from edge_runtime.latency import with_latency
from edge_runtime.latency_probe import Probe

__all__ = ["TrialStore", "default_folder", "trial_key"]

_FORMAT = 1
_MAX_BYTES = 2_000_000_000
# Failures that the same recipe on the same data meets again; others may have been the machine's.
_LASTING = (ErrorCode.CONVERSION_FAILED, ErrorCode.PARITY_FAILED)
_ABANDONED_SECONDS = 24 * 3600.0
# The folder is named by a user, who may have other bundles in it.
_OURS = re.compile(r"\.?[0-9a-f]{64}\.(edge|json)(\.[0-9a-f]+)?")


class _Record(Struct, frozen=True, kw_only=True):
    """How a trial ended; everything measured is in the bundle's own manifest."""

    format: int = _FORMAT
    recipe: Recipe
    seconds: float
    failure: Failure | None = None
    compared: bool = False


def default_folder() -> Path:
    """Where trials are kept: ``HYBRIDGE_CACHE``, else ``hybridge/search`` in the user's cache folder."""
    if named := os.environ.get("HYBRIDGE_CACHE"):
        return Path(named)
    # The XDG base directory specification: a relative path is to be ignored.
    cache = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (cache if cache.is_absolute() else Path.home() / ".cache") / "hybridge" / "search"


def trial_key(context: str, recipe: Recipe, *, max_drop: float | None) -> str:
    """The name of a trial: 64 hexadecimal digits.

    Args:
        context: Digest of the source, the data and everything else that shapes a bundle; see `context_digest`.
        recipe: What is tried.
        max_drop: On which training stops early.
    """
    parts = [_FORMAT, context, recipe, max_drop if recipe.training is not None else None]
    return hashlib.sha256(msgspec.json.encode(parts, order="deterministic")).hexdigest()


class TrialStore:
    """A folder of finished trials.

    Args:
        folder: The folder, made when it is missing; `default_folder` without it.
        max_bytes: What it may hold; beyond that the trials that were longest unused go, but none of this search.

    Raises:
        HybridgeError: `file-unwritable`.
    """

    def __init__(self, folder: str | PathLike[str] | None = None, *, max_bytes: int = _MAX_BYTES):
        self.folder = default_folder() if folder is None else Path(folder)
        self._max_bytes = max_bytes
        self._opened = time.time()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise HybridgeError(
                ErrorCode.FILE_UNWRITABLE,
                f"folder of trials '{self.folder}'",
                received=error.strerror or str(error),
                expected="a folder that can be written",
                fix="name another (--cache, or HYBRIDGE_CACHE)",
            ) from error

    def path(self, key: str) -> Path:
        """Where the bundle of a trial is."""
        return self.folder / f"{key}.edge"

    def get(self, key: str, recipe: Recipe) -> Trial | None:
        """The trial of that key, if it is there and whole."""
        record = self._record(key)
        if record is None or record.recipe != recipe:
            return None
        if record.failure is not None:
            return Trial(recipe=recipe, key=key, seconds=record.seconds, cached=True, failure=record.failure)
        try:
            bundle = Bundle.open(self.path(key))
        except HybridgeError:
            return None  # damaged, or swept away: it is made again
        for path in (self._note(key), self.path(key)):
            with contextlib.suppress(OSError):
                os.utime(path)  # used just now
        return Trial.of_bundle(recipe, bundle, key=key, seconds=record.seconds, cached=True)

    def holds(self, key: str) -> bool:
        """Whether there is a record of that key, not looking at its bundle."""
        return self._record(key) is not None

    def bundle(self, trial: Trial) -> Bundle:
        """The bundle of a trial that has one, verified.

        Raises:
            HybridgeError: `file-not-found`, `bundle-damaged`.
        """
        return Bundle.open(self.path(trial.key))

    def put(self, key: str, attempt: Attempt) -> Trial:
        """Keeps what came of an attempt; where another search was faster, what came of that one.

        Raises:
            HybridgeError: `file-unwritable`, such as for a full disk.
        """
        if (theirs := self.get(key, attempt.recipe)) is not None:
            return theirs
        if attempt.bundle is not None:
            write_file(self.path(key), attempt.bundle, overwrite=True)
        if attempt.failure is None or attempt.failure.code in _LASTING:
            self._write(key, _Record(recipe=attempt.recipe, seconds=attempt.seconds, failure=attempt.failure))
        self._sweep()
        if attempt.bundle is None:
            return Trial(recipe=attempt.recipe, key=key, seconds=attempt.seconds, failure=attempt.failure)
        bundle = Bundle.from_bytes(attempt.bundle)
        return Trial.of_bundle(attempt.recipe, bundle, key=key, seconds=attempt.seconds, cached=False)

    def put_latency(self, trial: Trial, probes: list[Probe], *, compared: bool) -> Trial:
        """Writes latencies measured on this machine into a trial's bundle.

        Args:
            trial: One with a bundle.
            probes: What was measured of it.
            compared: Whether that was done in turn with its rivals.

        Raises:
            HybridgeError: `file-unwritable`, `file-not-found`, `bundle-damaged`.
        """
        bundle = with_latency(self.bundle(trial), probes)
        write_file(self.path(trial.key), bundle.to_bytes(), overwrite=True)
        self._write(trial.key, _Record(recipe=trial.recipe, seconds=trial.seconds, compared=compared))
        return Trial.of_bundle(
            trial.recipe, bundle, key=trial.key, seconds=trial.seconds, cached=trial.cached
        )

    def compared(self, trial: Trial) -> bool:
        """Whether the trial's latency was measured in turn with its rivals."""
        record = self._record(trial.key)
        return record is not None and record.compared

    def _note(self, key: str) -> Path:
        return self.folder / f"{key}.json"

    def _write(self, key: str, record: _Record) -> None:
        write_file(self._note(key), msgspec.json.encode(record), overwrite=True)

    def _record(self, key: str) -> _Record | None:
        try:
            record = msgspec.json.decode(self._note(key).read_bytes(), type=_Record)
        except (OSError, msgspec.DecodeError, UnicodeDecodeError):
            return None
        return record if record.format == _FORMAT else None

    def _sweep(self) -> None:
        """Removes the longest unused trials beyond the limit, and what interrupted writes left behind."""
        found: list[tuple[float, int, Path]] = []
        for path in self.folder.iterdir():
            if _OURS.fullmatch(path.name) is None:
                continue
            with contextlib.suppress(OSError):  # another search may have swept it
                status = path.stat()
                if path.name.startswith("."):
                    if status.st_mtime < self._opened - _ABANDONED_SECONDS:
                        path.unlink()
                else:
                    found.append((status.st_mtime, status.st_size, path))
        total = sum(size for _, size, _ in found)
        for used, size, path in sorted(found):
            if total <= self._max_bytes or used >= self._opened:
                return
            with contextlib.suppress(OSError):
                path.unlink()
            total -= size
