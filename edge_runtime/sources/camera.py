"""A camera through OpenCV: one at this machine, or one in the network."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from edge_runtime.errors import ErrorCode, HybridgeError
from edge_runtime.frame import Frame
from edge_runtime.operators.opencv import opencv
from edge_runtime.sources.capture import rgb
from edge_runtime.sources.source import Source, lost_device
from edge_runtime.tensor_spec import Array

__all__ = ["CAMERA_SCHEMES", "Camera"]

CAMERA_SCHEMES = ("http", "https", "rtmp", "rtp", "rtsp", "rtsps", "tcp", "udp")

# Between attempts at a camera that has gone.
_PAUSE_S = 0.5

_log = logging.getLogger(__name__)


class Camera(Source):
    """Frames of a camera as they come, uint8 RGB of shape (height, width, 3); `time_s` counts from the first read.

    A camera that stops giving frames is opened again and again for `retry_s` seconds; frames go on when it is back. So
    is a stream that ends.

    Args:
        device: A camera's number, its path such as ``"/dev/video0"``, or a URL (`rtsp`, `http` and others that
            OpenCV's build has).
        name: The chain's input that the image is for.
        width: In pixels; a camera without that size takes its nearest, and the log says which. Only for a camera at
            this machine, as `height`, `fps` and `fourcc` are.
        height: In pixels.
        fps: Frames a second.
        fourcc: The pixel format, such as ``"MJPG"``, which most USB cameras need for large frames at full rate.
        retry_s: How long to try to have a camera back that has gone; 0 does not try.
        timeout_s: How long opening and each read of a URL may take; a read that another thread closes takes as long.

    Raises:
        HybridgeError: `extra-missing` without OpenCV; `input-invalid` for a setting that cannot be;
            `device-unavailable`
            when there is no such camera now, and, when iterated, when it has gone for longer than `retry_s`.

    Example:
        >>> with Camera(0, width=640, height=480) as source:
        ...     for result in chain.stream(source):
        ...         print(result.prediction)
    """

    live = True

    def __init__(
        self,
        device: int | str = 0,
        *,
        name: str = "image",
        width: int | None = None,
        height: int | None = None,
        fps: float | None = None,
        fourcc: str | None = None,
        retry_s: float = 10.0,
        timeout_s: float = 5.0,
    ):
        super().__init__()
        self._cv2 = opencv()
        self._device_name = int(device) if isinstance(device, str) and device.isdecimal() else device
        self._url = isinstance(self._device_name, str) and "://" in self._device_name
        self._name = name
        self._retry_s = retry_s
        self._timeout_s = timeout_s
        self._wanted = self._settings(width, height, fps, fourcc)
        self._capture: Any = self._open()
        if self._capture is None:
            raise self._lost("no camera that opens")
        self._warn_of_others()

    def _frames(self) -> Generator[Frame | HybridgeError]:
        start = time.monotonic()
        lost_at: float | None = None
        index = 0
        while not self._closed.is_set():
            image = self._read()
            now = time.monotonic()
            if image is not None:
                if lost_at is not None:
                    _log.warning("%s is back after %.1f s", self._shown, now - lost_at)
                    lost_at = None
                yield Frame({self._name: image}, name=f"frame {index}", time_s=now - start)
                index += 1
                continue
            self._release()
            if lost_at is None:
                lost_at = now
                _log.warning("%s gives no frames; trying again for %g s", self._shown, self._retry_s)
            # Counted from the last frame, so that a camera that opens but gives nothing is given up too.
            if now - lost_at >= self._retry_s:
                raise self._lost(f"no frame for {now - lost_at:.1f} s")
            if not self._closed.wait(min(_PAUSE_S, self._retry_s)):
                self._capture = self._open()

    def _read(self) -> Array | None:
        if self._capture is None:
            return None
        try:
            whole, image = self._capture.read()
        except self._cv2.error:
            return None
        return rgb(image) if whole else None

    def _release(self) -> None:
        if self._capture is not None:
            self._capture.release()
            self._capture = None

    def _open(self) -> Any:
        cv2 = self._cv2
        if self._url:
            limit = max(1, int(self._timeout_s * 1e3))
            limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, limit, cv2.CAP_PROP_READ_TIMEOUT_MSEC, limit]
            if cv2.videoio_registry.hasBackend(cv2.CAP_FFMPEG):
                capture = cv2.VideoCapture(self._device_name, cv2.CAP_FFMPEG, limits)
            else:  # other backends refuse limits, and have their own
                capture = cv2.VideoCapture(self._device_name)
        else:
            if not self._is_there():
                return None
            here = cv2.CAP_V4L2 if sys.platform == "linux" else cv2.CAP_ANY
            capture = cv2.VideoCapture(self._device_name, here)
        if not capture.isOpened():
            capture.release()
            return None
        for setting, value in self._wanted.items():
            capture.set(setting, value)
        return capture

    def _is_there(self) -> bool:
        # OpenCV writes to standard error for each attempt at a device that is not there.
        path = f"/dev/video{self._device_name}" if isinstance(self._device_name, int) else self._device_name
        return sys.platform != "linux" or Path(path).exists()

    def _settings(
        self, width: int | None, height: int | None, fps: float | None, fourcc: str | None
    ) -> dict[int, float]:
        cv2 = self._cv2
        if fourcc is not None and len(fourcc) != 4:
            raise HybridgeError(
                ErrorCode.INPUT_INVALID, "fourcc", received=f"'{fourcc}'", expected="four letters"
            )
        # The format first: it decides which sizes and rates there are.
        given = {
            cv2.CAP_PROP_FOURCC: None if fourcc is None else cv2.VideoWriter.fourcc(*fourcc),
            cv2.CAP_PROP_FRAME_WIDTH: width,
            cv2.CAP_PROP_FRAME_HEIGHT: height,
            cv2.CAP_PROP_FPS: fps,
        }
        wanted = {setting: float(value) for setting, value in given.items() if value is not None}
        if wanted and self._url:
            raise HybridgeError(
                ErrorCode.INPUT_INVALID,
                self._shown,
                received="a size, rate or pixel format to set",
                expected="none for a URL",
                fix="set it at the camera, or resize in the chain",
            )
        if min(wanted.values(), default=1) <= 0:
            raise HybridgeError(
                ErrorCode.INPUT_INVALID,
                self._shown,
                received="a size or rate of 0 or less",
                expected="numbers above 0",
            )
        return wanted

    def _warn_of_others(self) -> None:
        sizes = {self._cv2.CAP_PROP_FRAME_WIDTH: "width", self._cv2.CAP_PROP_FRAME_HEIGHT: "height"}
        names = {**sizes, self._cv2.CAP_PROP_FPS: "fps", self._cv2.CAP_PROP_FOURCC: "fourcc"}
        for setting, wanted in self._wanted.items():
            got = self._capture.get(setting)
            if got != wanted:
                _log.warning("%s has %s %g where %g was asked for", self._shown, names[setting], got, wanted)

    @property
    def _shown(self) -> str:
        if not self._url:
            return f"camera '{self._device_name}'"
        # Without user and password, which cameras have in their URLs.
        parts = urlsplit(str(self._device_name))
        return f"camera '{parts._replace(netloc=parts.netloc.rpartition('@')[2], query='').geturl()}'"

    def _lost(self, received: str) -> HybridgeError:
        fix = (
            "check the address and the network" if self._url else "check the cable, and who else has it open"
        )
        return lost_device(self._shown, received=received, fix=fix)
