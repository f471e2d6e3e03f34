"""Samples of a WAV file: RIFF WAVE with linear PCM of 8, 16, 24 and 32 bits, and floats of 32 and 64.

The standard library's `wave` knows neither floats nor, before Python 3.12, the extensible header that files with 24
bits or several channels have. Format: "Multimedia Programming Interface and Data Specifications 1.0" (IBM and
Microsoft, 1991) and its extension by `WAVEFORMATEXTENSIBLE`.
"""

from __future__ import annotations

import struct
from os import PathLike
from pathlib import Path
from typing import Self

import numpy as np

from edge_runtime.errors import ErrorCode, HybridgeError
from edge_runtime.sources.file_value import open_file
from edge_runtime.tensor_spec import Array

__all__ = ["WaveReader"]

_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE
# What a writer that cannot seek, such as a pipe, puts for a size that it does not know.
_UNKNOWN = 0xFFFFFFFF
_FORMATS = {(_PCM, 8), (_PCM, 16), (_PCM, 24), (_PCM, 32), (_FLOAT, 32), (_FLOAT, 64)}


class WaveReader:
    """Reads a WAV file from its start to its end, without holding it in memory.

    Args:
        path: Of the file.

    Attributes:
        sample_rate: Samples a second, of each channel.
        channels: How many channels there are.
        length: How many samples each channel has.

    Raises:
        HybridgeError: `file-not-found`; `input-invalid` for a file that is no WAV, has a format that is not read here,
            has no samples or is cut off.
    """

    def __init__(self, path: str | PathLike[str]):
        self._path = path
        self._file = open_file(path)
        try:
            self._read_header()
        except BaseException:
            self._file.close()
            raise

    def read(self, count: int) -> Array:
        """The next samples, float32 of shape (at most `count`, channels), full scale at -1 and 1."""
        count = min(count, self._left)
        self._left -= count
        content = self._file.read(count * self._block)
        if len(content) < count * self._block:
            raise self._invalid("a file that became shorter while it was read", "a whole WAV file")
        return _decode(content, self._format, self._bits).reshape(-1, self.channels)

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read_header(self) -> None:
        head = self._file.read(12)
        if len(head) < 12 or head[:4] != b"RIFF" or head[8:] != b"WAVE":
            raise self._invalid(f"a file that starts with {head[:12]!r}", "a RIFF WAVE file")
        known = False
        while True:
            chunk = self._file.read(8)
            if len(chunk) < 8:
                raise self._invalid(
                    "no samples" if known else "a file that ends in its header", "a whole WAV file"
                )
            kind, size = chunk[:4], int.from_bytes(chunk[4:], "little")
            if kind == b"data":
                break
            # Chunks start at even places.
            after = self._file.tell() + size + size % 2
            if kind == b"fmt ":
                self._read_format(self._file.read(min(size, 40)))
                known = True
            self._file.seek(after)
        if not known:
            raise self._invalid("samples before their format", "a WAV file that has its format first")
        left = Path(self._path).stat().st_size - self._file.tell()
        if size == _UNKNOWN:
            size = left
        if size > left:
            raise self._invalid(
                f"{left} of {size} bytes of samples", "a whole WAV file", fix="copy or record it again"
            )
        self.length = size // self._block
        if self.length == 0:
            raise self._invalid("no samples", "a WAV file with samples")
        self._left = self.length

    def _read_format(self, content: bytes) -> None:
        if len(content) < 16:
            raise self._invalid("a header that is cut off", "a whole WAV file")
        self._format, self.channels, self.sample_rate, _, self._block, self._bits = struct.unpack_from(
            "<HHIIHH", content
        )
        if self._format == _EXTENSIBLE and len(content) >= 26:
            self._format = int.from_bytes(content[24:26], "little")
        if (self._format, self._bits) not in _FORMATS:
            raise self._invalid(
                f"format {self._format} of {self._bits} bits",
                "linear PCM of 8, 16, 24 or 32 bits, or floats of 32 or 64",
                fix="convert it, such as with: ffmpeg -i FILE -c:a pcm_s16le OUT.wav",
            )
        # A window in seconds takes memory by the sample rate; ultrasound is recorded at a few hundred thousand.
        sound = 0 < self.sample_rate <= 10_000_000 and self.channels > 0
        if not sound or self._block != self.channels * self._bits // 8:
            raise self._invalid(
                f"{self.channels} channels, {self.sample_rate} samples a second, {self._block} bytes a sample",
                "a header that fits together",
            )

    def _invalid(self, received: str, expected: str, *, fix: str = "") -> HybridgeError:
        return HybridgeError(
            ErrorCode.INPUT_INVALID, f"file '{self._path}'", received=received, expected=expected, fix=fix
        )


def _decode(content: bytes, kind: int, bits: int) -> Array:
    if kind == _FLOAT:
        return np.frombuffer(content, f"<f{bits // 8}").astype(np.float32)
    if bits == 8:  # the one width without a sign
        return (np.frombuffer(content, np.uint8).astype(np.float32) - 128) / np.float32(128)
    if bits == 24:
        # Three bytes become the upper three of four.
        wide = np.zeros((len(content) // 3, 4), np.uint8)
        wide[:, 1:] = np.frombuffer(content, np.uint8).reshape(-1, 3)
        return _scaled(wide.view("<i4").ravel(), 32)
    return _scaled(np.frombuffer(content, f"<i{bits // 8}"), bits)


def _scaled(integers: Array, bits: int) -> Array:
    return integers.astype(np.float32) * np.float32(2.0 ** (1 - bits))
