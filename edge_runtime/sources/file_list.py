"""Which files a source reads: one, several, or those of a folder; now, or as they come."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from os import PathLike
from pathlib import Path
from threading import Event
from typing import TypeAlias

from edge_runtime.errors import ErrorCode, HybridgeError

__all__ = ["Paths", "list_files", "watch_folder"]

Paths: TypeAlias = str | PathLike[str] | Sequence[str | PathLike[str]]


def list_files(paths: Paths, *, extensions: Sequence[str]) -> list[Path]:
    """The files that `paths` means, in order.

    Args:
        paths: A file, a folder (its files that end in one of `extensions`, by name; hidden ones are left out), or a
            sequence of files, in its own order.
        extensions: With their dot, in lower case.

    Raises:
        HybridgeError: `file-not-found` for a path with nothing there, or a folder with no such file. A file of a
            sequence is not looked for yet: one that is missing is the error of its own frame.
    """
    if not isinstance(paths, str | PathLike):
        return [Path(path) for path in paths]
    path = Path(paths)
    if path.is_dir():
        found = _files_of(path, extensions)
        if not found:
            raise _not_found(path, "a folder with none", f"files that end in {', '.join(extensions)}")
        return found
    if not path.exists():
        raise _not_found(path, "nothing there", "a file or a folder")
    return [path]


def watch_folder(
    folder: Path, *, extensions: Sequence[str], interval_s: float, closed: Event
) -> Generator[Path]:
    """The files of a folder, and then each new or rewritten one as it comes, until `closed` is set.

    A file counts as whole when its size and time of modification are the same at two looks, `interval_s` apart, so
    that one that is still being written is not read half. Needs no notification from the file system, which network
    shares and some flash cards do not give.

    Raises:
        HybridgeError: `file-not-found` when the folder is not there any more.
    """
    given: dict[Path, tuple[int, int]] = {}
    before: dict[Path, tuple[int, int]] = {}
    while not closed.is_set():
        now = _states(folder, extensions)
        # Files that went are forgotten: a folder that is emptied as it fills is watched in constant memory.
        given = {path: state for path, state in given.items() if path in now}
        for path, state in now.items():
            if before.get(path) == state and given.get(path) != state:
                given[path] = state
                yield path
        before = now
        closed.wait(interval_s)


def _files_of(folder: Path, extensions: Sequence[str]) -> list[Path]:
    try:
        found = [
            path for path in folder.iterdir() if path.suffix.lower() in extensions and path.name[0] != "."
        ]
    except OSError as error:
        raise _not_found(folder, error.strerror or str(error), "a folder that can be read") from error
    return sorted(path for path in found if not path.is_dir())


def _states(folder: Path, extensions: Sequence[str]) -> dict[Path, tuple[int, int]]:
    states = {}
    for path in _files_of(folder, extensions):
        try:
            status = path.stat()
        except OSError:  # gone since the folder was read
            continue
        # An empty file is one that its writer has only just opened.
        if status.st_size:
            states[path] = (status.st_size, status.st_mtime_ns)
    return states


def _not_found(path: Path, received: str, expected: str) -> HybridgeError:
    return HybridgeError(
        ErrorCode.FILE_NOT_FOUND,
        f"source '{path}'",
        received=received,
        expected=expected,
        fix="check the path",
    )
