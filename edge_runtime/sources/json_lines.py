"""Inputs as lines of JSON, from a file or standard input."""

from __future__ import annotations

import select
import sys
from collections.abc import Generator, Iterator, Sequence
from os import PathLike, read
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from edge_runtime.errors import ErrorCode, HybridgeError
from edge_runtime.frame import Frame
from edge_runtime.sources.file_value import open_file
from edge_runtime.sources.json_value import read_value
from edge_runtime.sources.source import Source
from edge_runtime.tensor_spec import Array, TensorSpec

__all__ = ["JsonLines"]

_CHUNK = 1 << 16
# How often a wait for standard input looks whether the source was closed.
_POLL_S = 0.2


class JsonLines(Source):
    r"""A frame for each line of JSON Lines (https://jsonlines.org): an object with a value for each input.

    A value is a number, text, nested lists of one of these, or ``{"path": FILE}`` for an image or an `.npy` file,
    relative to the folder of `path`. Empty lines are passed over; a line that is wrong is an error with its number in
    the place of its frame, and the rest go on.

    Args:
        path: Of the file, or ``"-"`` for standard input.
        specs: Types of the chain's inputs; numbers are cast to them when nothing is lost. Without one, numbers with
            a fraction are float32 and whole ones int64.
        decode: False gives the bytes of image files, for a chain that decodes them itself.
        max_line_bytes: A longer line is an error, and is not held in memory.

    Raises:
        HybridgeError: `file-not-found`.

    Example:
        >>> with JsonLines("signals.jsonl", specs=chain.input_specs) as source:
        ...     frames = list(source)
    """

    def __init__(
        self,
        path: str | PathLike[str] = "-",
        *,
        specs: Sequence[TensorSpec] = (),
        decode: bool = True,
        max_line_bytes: int = 64 << 20,
    ):
        super().__init__()
        self._specs = {spec.name: spec for spec in specs}
        self._decode = decode
        self._limit = max_line_bytes
        self._file: BinaryIO | None = None
        if str(path) == "-":
            self._shown, self._folder = "standard input", Path()
            return
        self._shown, self._folder = f"file '{path}'", Path(path).parent
        self._file = open_file(path)

    def _frames(self) -> Generator[Frame | HybridgeError]:
        for number, line in enumerate(self._lines(), start=1):
            if line is not None and not line.strip():
                continue
            try:
                yield Frame(self._inputs(line), name=f"line {number}")
            except HybridgeError as error:
                if error.code is ErrorCode.EXTRA_MISSING:
                    raise
                what = f"line {number} of {self._shown}"
                received = error.received if error.what in ("line", "value") else error.message
                yield HybridgeError(
                    error.code, what, received=received, expected=error.expected, fix=error.fix
                )

    def _inputs(self, line: bytes | None) -> dict[str, Array]:
        if line is None:
            raise _invalid(
                f"more than {self._limit} bytes", fix="put large arrays in files, and name their paths"
            )
        try:
            # Some editors put a mark of byte order at a file's start.
            values: Any = msgspec.json.decode(line.removeprefix(b"\xef\xbb\xbf"))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise _invalid(str(error)) from error
        if not isinstance(values, dict):
            raise _invalid(f"a {type(values).__name__}")
        inputs = {}
        for name, value in values.items():
            try:
                inputs[name] = read_value(
                    value, spec=self._specs.get(name), folder=self._folder, decode=self._decode
                )
            except HybridgeError as error:
                if error.what != "value":
                    raise
                raise HybridgeError(
                    error.code,
                    "value",
                    received=f"for input '{name}' {error.received}",
                    expected=error.expected,
                ) from error
        return inputs

    def _lines(self) -> Iterator[bytes | None]:
        """The lines without their ends; None for one that is too long."""
        parts = bytearray()
        too_long = False
        for chunk in self._chunks():
            *ends, rest = chunk.split(b"\n")
            for end in ends:
                parts += end
                yield None if too_long or len(parts) > self._limit else bytes(parts)
                parts.clear()
                too_long = False
            parts += rest
            if len(parts) > self._limit:
                parts.clear()
                too_long = True
        if parts or too_long:
            yield None if too_long else bytes(parts)

    def _chunks(self) -> Iterator[bytes]:
        file = self._file if self._file is not None else sys.stdin.buffer
        try:
            number = file.fileno()
        except OSError:  # a stand-in for standard input that is no file
            number = None
        while not self._closed.is_set():
            if number is None:
                chunk = file.read(_CHUNK)
            elif not select.select([number], [], [], _POLL_S)[0]:
                continue
            else:
                chunk = read(number, _CHUNK)
            if not chunk:
                return
            yield chunk

    def _release(self) -> None:
        if self._file is not None:
            self._file.close()


def _invalid(received: str, *, fix: str = "") -> HybridgeError:
    return HybridgeError(
        ErrorCode.INPUT_INVALID,
        "line",
        received=received,
        expected="a JSON object with a value for each input, on one line",
        fix=fix,
    )
