"""Text files that operators' settings name: characters, labels, vocabularies, phrases."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from edge_runtime.errors import ErrorCode, HybridgeError
from edge_runtime.files import read_file

__all__ = ["line_numbers", "text_lines"]


def text_lines(path: str) -> tuple[str, ...]:
    """The lines of a UTF-8 file, as they are but for their ends; read again only when the file changes.

    Only a line feed, with or without a carriage return, ends a line: lists of characters hold the other separators of
    Unicode as characters.

    Raises:
        HybridgeError: `file-not-found`, or `input-invalid` for a file that is not UTF-8.
    """
    return _lines(path, *_state(path))


def line_numbers(path: str) -> Mapping[str, int]:
    """The number of each line of a file, from 0; of lines that are alike, the first's.

    Raises:
        HybridgeError: As `text_lines`.
    """
    return _numbers(path, *_state(path))


def _state(path: str) -> tuple[int, int]:
    try:
        facts = Path(path).stat()
    except OSError:
        # The reader says what is wrong.
        return (0, 0)
    return (facts.st_mtime_ns, facts.st_size)


@lru_cache(maxsize=16)
def _numbers(path: str, changed: int, size: int) -> Mapping[str, int]:
    lines = _lines(path, changed, size)
    return {line: number for number, line in reversed(list(enumerate(lines)))}


@lru_cache(maxsize=16)
def _lines(path: str, changed: int, size: int) -> tuple[str, ...]:
    del changed, size  # only tell one state of the file from another
    try:
        text = read_file(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise HybridgeError(
            ErrorCode.INPUT_INVALID, f"file '{path}'", received=str(error), expected="UTF-8 text"
        ) from error
    lines = text.replace("\r\n", "\n").split("\n")
    return tuple(lines[:-1] if lines[-1] == "" else lines)
