"""WAV files as frames: each file whole, or in windows."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import numpy as np

from edge_runtime.errors import ErrorCode, HybridgeError
from edge_runtime.frame import Frame
from edge_runtime.sources.file_list import Paths, list_files
from edge_runtime.sources.source import Source
from edge_runtime.sources.wave_reader import WaveReader
from edge_runtime.tensor_spec import Array

__all__ = ["AUDIO_EXTENSIONS", "AudioFiles", "check_windows", "one_channel"]

AUDIO_EXTENSIONS = (".wav",)


class AudioFiles(Source):
    """Samples of WAV files, float32 of shape (samples,), full scale at -1 and 1.

    Linear PCM of 8, 16, 24 and 32 bits and floats of 32 and 64 are read. A file that is missing, cut off, without
    samples or of another sample rate is an error in the place of its frames, and the rest go on.

    Args:
        paths: A file, a sequence of files, or a folder (its `.wav` files, by name).
        name: The chain's input that the samples are for.
        window_s: Length of a frame in seconds; without it, a file is one frame.
        hop_s: From the start of a frame to the start of the next, in seconds; without it, `window_s`. Shorter, frames
            overlap; longer, samples are left out.
        pad: The last window is filled up with zeros; otherwise it is dropped unless it is full.
        channel: Which channel to take, from 0; without it, the mean of all.
        sample_rate: What the chain expects, in samples a second. Nothing is resampled: a file of another rate is an
            error that says how to convert it.

    Raises:
        HybridgeError: `file-not-found` for a path with nothing there, or a folder without WAV files; `input-invalid`
            for windows that cannot be.

    Example:
        >>> with AudioFiles("speech.wav", window_s=1.0, hop_s=0.25, sample_rate=16000) as source:
        ...     [(frame.time_s, frame.inputs["audio"].shape) for frame in source]
        [(0.0, (16000,)), (0.25, (16000,)), (0.5, (16000,))]
    """

    def __init__(
        self,
        paths: Paths,
        *,
        name: str = "audio",
        window_s: float | None = None,
        hop_s: float | None = None,
        pad: bool = True,
        channel: int | None = None,
        sample_rate: int | None = None,
    ):
        super().__init__()
        check_windows(window_s, hop_s)
        self._paths = list_files(paths, extensions=AUDIO_EXTENSIONS)
        self._name = name
        self._window_s, self._hop_s = window_s, hop_s
        self._pad = pad
        self._channel = channel
        self._sample_rate = sample_rate
        self.length = len(self._paths) if window_s is None else None

    def _frames(self) -> Generator[Frame | HybridgeError]:
        for path in self._paths:
            try:
                with WaveReader(path) as reader:
                    self._check(path, reader)
                    yield from self._windows(path, reader)
            except HybridgeError as error:
                yield error

    def _check(self, path: Path, reader: WaveReader) -> None:
        if self._sample_rate is not None and reader.sample_rate != self._sample_rate:
            raise HybridgeError(
                ErrorCode.INPUT_INVALID,
                f"file '{path}'",
                received=f"{reader.sample_rate} samples a second",
                expected=str(self._sample_rate),
                fix=f"convert it, such as with: ffmpeg -i '{path}' -ar {self._sample_rate} OUT.wav",
            )
        if self._channel is not None and not 0 <= self._channel < reader.channels:
            raise HybridgeError(
                ErrorCode.INPUT_INVALID,
                f"channel of file '{path}'",
                received=str(self._channel),
                expected=f"0 to {reader.channels - 1}",
            )

    def _windows(self, path: Path, reader: WaveReader) -> Generator[Frame]:
        if self._window_s is None:
            yield Frame({self._name: one_channel(reader.read(reader.length), self._channel)}, name=path.name)
            return
        rate = reader.sample_rate
        window = max(1, round(self._window_s * rate))
        hop = window if self._hop_s is None else max(1, round(self._hop_s * rate))
        start, kept = 0, np.empty(0, np.float32)
        while True:
            kept = np.concatenate([kept, one_channel(reader.read(window - len(kept)), self._channel)])
            full = len(kept) == window
            if full or self._pad:
                samples = kept.copy() if full else np.pad(kept, (0, window - len(kept)))
                yield Frame(
                    {self._name: samples}, name=f"{path.name} {start / rate:.2f} s", time_s=start / rate
                )
            # Stops once every sample was in a frame, not when the last frame starts.
            if start + window >= reader.length or start + hop >= reader.length:
                return
            start += hop
            kept = kept[hop:]
            reader.read(max(0, hop - window))


def one_channel(samples: Array, channel: int | None) -> Array:
    """One channel of samples of shape (samples, channels), or the mean of all when `channel` is None."""
    if channel is not None:
        return np.ascontiguousarray(samples[:, channel])
    if samples.shape[1] == 1:
        return samples[:, 0]
    return np.asarray(samples.mean(axis=1, dtype=np.float32))


def check_windows(window_s: float | None, hop_s: float | None) -> None:
    """Refuses windows that cannot be.

    Raises:
        HybridgeError: `input-invalid`.
    """
    for setting, value in (("window_s", window_s), ("hop_s", hop_s)):
        if value is not None and not value > 0:
            raise HybridgeError(
                ErrorCode.INPUT_INVALID, setting, received=str(value), expected="seconds above 0"
            )
    if hop_s is not None and window_s is None:
        raise HybridgeError(
            ErrorCode.INPUT_INVALID,
            "hop_s",
            received=str(hop_s),
            expected="window_s with it",
            fix="give window_s",
        )
