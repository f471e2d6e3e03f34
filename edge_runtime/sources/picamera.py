"""A Raspberry Pi's own camera through `picamera2`."""

from __future__ import annotations

import time
from collections.abc import Generator
from typing import Any

import numpy as np

from edge_runtime.errors import ErrorCode, HybridgeError
from edge_runtime.frame import Frame
from edge_runtime.sources.source import Source, lost_device
from edge_runtime.tensor_spec import Array

__all__ = ["Picamera"]

# How often a wait for a frame looks whether the source was closed.
_POLL_S = 0.2


class Picamera(Source):
    """Frames of a camera at the ribbon cable, uint8 RGB of shape (height, width, 3).

    Needs `picamera2`, which comes with Raspberry Pi OS (``apt install python3-picamera2``; a virtual environment sees
    it when it was made with ``--system-site-packages``). See "The Picamera2 Library" (Raspberry Pi Ltd).

    Args:
        number: Which camera, from 0.
        name: The chain's input that the image is for.
        width: In pixels.
        height: In pixels.
        fps: Frames a second; without it, the camera chooses, by the light.
        controls: More of libcamera's controls, such as ``{"ExposureTime": 10000}``.
        timeout_s: How long one frame may take.

    Raises:
        HybridgeError: `extra-missing` without `picamera2`; `device-unavailable`
            when the camera is not there, is in use, or
            gives no frame for `timeout_s`.
    """

    live = True

    def __init__(
        self,
        number: int = 0,
        *,
        name: str = "image",
        width: int = 640,
        height: int = 480,
        fps: float | None = None,
        controls: dict[str, Any] | None = None,
        timeout_s: float = 5.0,
    ):
        super().__init__()
        if width <= 0 or height <= 0 or (fps is not None and fps <= 0):
            raise HybridgeError(
                ErrorCode.INPUT_INVALID,
                f"camera {number}",
                received=f"width {width}, height {height}, fps {fps}",
                expected="numbers above 0",
            )
        self._number = number
        self._name = name
        self._timeout_s = timeout_s
        rate = {} if fps is None else {"FrameRate": float(fps)}
        self._camera = self._open({"size": (width, height), "format": "BGR888"}, {**rate, **(controls or {})})

    def _open(self, main: dict[str, Any], controls: dict[str, Any]) -> Any:
        try:
            from picamera2 import Picamera2
        except Exception as error:
            # It comes with the system, not with an extra, and beside another NumPy its modules raise ValueError.
            raise HybridgeError(
                ErrorCode.EXTRA_MISSING,
                "a Raspberry Pi's camera needs 'picamera2', which cannot be imported",
                received=f"{type(error).__name__}: {error}",
                fix="run: apt install python3-picamera2, and make the environment with --system-site-packages",
            ) from error
        camera = None
        try:
            camera = Picamera2(self._number)
            # libcamera names formats by their order in a word: its BGR888 has red first in memory.
            camera.configure(camera.create_video_configuration(main=main, controls=controls))
            camera.start()
        except Exception as error:
            # libcamera raises RuntimeError, IndexError or its own, by release and by what is wrong.
            if camera is not None:
                camera.close()
            raise self._lost(f"{type(error).__name__}: {error}") from error
        return camera

    def _frames(self) -> Generator[Frame | HybridgeError]:
        start = time.monotonic()
        index = 0
        while (image := self._capture()) is not None:
            yield Frame({self._name: image}, name=f"frame {index}", time_s=time.monotonic() - start)
            index += 1

    def _capture(self) -> Array | None:
        job = self._camera.capture_array("main", wait=False)
        deadline = time.monotonic() + self._timeout_s
        while not self._closed.is_set():
            try:
                # Rows may be padded to the sensor's alignment.
                return np.ascontiguousarray(self._camera.wait(job, timeout=_POLL_S))
            except TimeoutError:
                if time.monotonic() >= deadline:
                    raise self._lost(f"no frame for {self._timeout_s:g} s") from None
            except Exception as error:
                # Whatever ended the camera's own thread.
                raise self._lost(f"{type(error).__name__}: {error}") from error
        return None

    def _release(self) -> None:
        camera, self._camera = self._camera, None
        if camera is None:
            return
        # A job that waits for a frame which never comes would keep the camera from closing.
        camera.cancel_all_and_flush()
        camera.close()

    def _lost(self, received: str) -> HybridgeError:
        return lost_device(
            f"camera {self._number}",
            received=received,
            fix="check the cable, and list cameras with: rpicam-hello --list-cameras",
        )
