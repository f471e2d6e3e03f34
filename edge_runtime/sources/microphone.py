"""A microphone through `sounddevice` (PortAudio)."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Generator
from typing import Any

from edge_runtime.errors import ErrorCode, HybridgeError, missing_extra
from edge_runtime.frame import Frame
from edge_runtime.sources.audio_files import check_windows, one_channel
from edge_runtime.sources.sample_ring import SampleRing
from edge_runtime.sources.source import Source, lost_device
from edge_runtime.tensor_spec import Array

__all__ = ["Microphone"]

# How often a wait for samples looks whether the source was closed.
_POLL_S = 0.2

_log = logging.getLogger(__name__)


class Microphone(Source):
    """Windows of what a microphone hears, float32 of shape (samples,), full scale at -1 and 1.

    Recording starts with the iteration. Samples wait in a ring of `buffer_s` seconds; when windows are taken too
    slowly, the oldest are lost, `lost_samples` counts them, and `time_s` of the next window shows the gap.

    Args:
        device: Number or part of the name of a PortAudio device; without it, the system's own choice.
        name: The chain's input that the samples are for.
        sample_rate: Samples a second; the device must have it.
        window_s: Length of a frame in seconds.
        hop_s: From the start of a frame to the start of the next, in seconds; without it, `window_s`.
        channel: Which channel to take, from 0; without it, the device is opened with one.
        buffer_s: Length of the ring in seconds; without it, four windows.
        timeout_s: How long the device may give nothing.

    Raises:
        HybridgeError: `extra-missing` without `sounddevice` or PortAudio; `input-invalid` for settings that cannot be;
            `device-unavailable`
            when there is no such device, it cannot be opened so, or it gives nothing for `timeout_s`.

    Example:
        >>> with Microphone(window_s=1.0, hop_s=0.5) as source:
        ...     for result in chain.stream(source):
        ...         print(result.prediction)
    """

    live = True

    def __init__(
        self,
        device: int | str | None = None,
        *,
        name: str = "audio",
        sample_rate: int = 16000,
        window_s: float = 1.0,
        hop_s: float | None = None,
        channel: int | None = None,
        buffer_s: float | None = None,
        timeout_s: float = 5.0,
    ):
        super().__init__()
        check_windows(window_s, hop_s)
        self._hop_s = window_s if hop_s is None else hop_s
        buffer_s = 4 * max(window_s, self._hop_s) if buffer_s is None else buffer_s
        if sample_rate <= 0 or (channel is not None and channel < 0) or buffer_s < window_s:
            raise HybridgeError(
                ErrorCode.INPUT_INVALID,
                "microphone",
                received=f"sample_rate {sample_rate}, channel {channel}, buffer_s {buffer_s:g}",
                expected=f"a rate above 0, a channel from 0, and a buffer of {window_s:g} s or more",
            )
        self._device_name = device
        self._name = name
        self._rate = sample_rate
        self._window = max(1, round(window_s * sample_rate))
        self._hop = max(1, round(self._hop_s * sample_rate))
        self._channel = channel
        self._timeout_s = timeout_s
        self._overflows = 0
        self._ring = SampleRing(max(self._window, math.ceil(buffer_s * sample_rate)))
        self._stream: Any = self._open()

    @property
    def lost_samples(self) -> int:
        """Samples that were heard but overwritten before a frame had them."""
        return self._ring.lost

    @property
    def overflows(self) -> int:
        """How often the device itself lost samples, because the machine was too busy to fetch them."""
        return self._overflows

    def _open(self) -> Any:
        try:
            import sounddevice
        except ModuleNotFoundError as error:
            raise missing_extra("audio", "sounddevice") from error
        except OSError as error:
            raise HybridgeError(
                ErrorCode.EXTRA_MISSING,
                "a microphone needs the library PortAudio",
                received=str(error),
                fix="install it, such as with: apt install libportaudio2",
            ) from error
        try:
            return sounddevice.InputStream(
                device=self._device_name,
                samplerate=self._rate,
                channels=1 if self._channel is None else self._channel + 1,
                dtype="float32",
                callback=self._hear,
            )
        except (sounddevice.PortAudioError, ValueError) as error:
            raise self._lost(str(error)) from error

    def _hear(self, samples: Array, _count: int, _time: Any, status: Any) -> None:
        # Runs in PortAudio's thread, which must not wait.
        if status.input_overflow:
            self._overflows += 1
        self._ring.write(one_channel(samples, self._channel))

    def _frames(self) -> Generator[Frame | HybridgeError]:
        try:
            self._stream.start()
        except Exception as error:
            # PortAudioError, which is only known once the module is there.
            raise self._lost(str(error)) from error
        warned = False
        heard = time.monotonic()
        # A device in order makes a window within the longer of these.
        patience = self._timeout_s + max(self._window, self._hop) / self._rate
        while not self._closed.is_set():
            window = self._ring.read(self._window, self._hop, timeout_s=_POLL_S)
            if window is None:
                if time.monotonic() - heard >= patience:
                    raise self._lost(f"nothing for {self._timeout_s:g} s")
                continue
            if self._ring.lost and not warned:
                warned = True
                _log.warning("%s: samples are lost, because frames are taken too slowly", self._shown)
            start, samples = window
            time_s = start / self._rate
            yield Frame({self._name: samples}, name=f"{time_s:.2f} s", time_s=time_s)
            heard = time.monotonic()

    def _release(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.close()

    @property
    def _shown(self) -> str:
        return "microphone" if self._device_name is None else f"microphone '{self._device_name}'"

    def _lost(self, received: str) -> HybridgeError:
        return lost_device(
            self._shown,
            received=received,
            fix="choose among the devices that this lists: python -m sounddevice",
        )
