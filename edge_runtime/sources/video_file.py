"""Frames of a video file."""

from __future__ import annotations

import logging
import os
from collections.abc import Generator
from os import PathLike
from pathlib import Path

from edge_runtime.errors import ErrorCode, HybridgeError
from edge_runtime.frame import Frame
from edge_runtime.operators.opencv import opencv
from edge_runtime.sources.capture import rgb
from edge_runtime.sources.file_value import open_file
from edge_runtime.sources.source import Source

__all__ = ["VIDEO_EXTENSIONS", "VideoFile"]

VIDEO_EXTENSIONS = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".webm")

_log = logging.getLogger(__name__)


class VideoFile(Source):
    """Frames of a video, uint8 RGB of shape (height, width, 3), turned as the file says; `time_s` as the file says.

    A video that is cut off ends where it can no longer be read, with a warning in the log.

    Args:
        path: Of a file that OpenCV can read: `.mp4`, `.mkv`, `.avi`, `.mov` and what else its build has.
        name: The chain's input that the image is for.
        every: Takes only every n-th frame, and does not convert the others.

    Attributes:
        fps: Frames a second in the file, or 0 where it does not say.

    Raises:
        HybridgeError: `extra-missing` without OpenCV, `file-not-found`, `input-invalid` for a file that is no video;
            when iterated, `input-invalid` when not one frame can be read.

    Example:
        >>> with VideoFile("door.mp4", every=5) as source:
        ...     for result in chain.stream(source):
        ...         print(result.frame.time_s, result.prediction)
    """

    def __init__(self, path: str | PathLike[str], *, name: str = "image", every: int = 1):
        super().__init__()
        if every < 1:
            raise HybridgeError(ErrorCode.INPUT_INVALID, "every", received=str(every), expected="1 or more")
        self._cv2 = opencv()
        self._path = Path(path)
        self._name = name
        self._every = every
        open_file(path).close()  # says what OpenCV does not: that there is no file
        # FFmpeg takes what is before a colon for a protocol, unless the path is absolute.
        self._capture = self._cv2.VideoCapture(os.path.abspath(path))
        if not self._capture.isOpened():
            raise self._invalid("a file that cannot be opened, or is cut off")
        self.fps = max(0.0, float(self._capture.get(self._cv2.CAP_PROP_FPS)))
        # Some containers have no count, and OpenCV then makes up a number without sense.
        count = self._capture.get(self._cv2.CAP_PROP_FRAME_COUNT)
        self._count = int(count) if 0 < count < 1e9 else None
        self.length = None if self._count is None else -(-self._count // every)

    def _frames(self) -> Generator[Frame | HybridgeError]:
        index = 0
        while self._capture.grab():
            if index % self._every == 0:
                yield self._frame(index)
            index += 1
        if index == 0:
            raise self._invalid("no frame that can be read")
        # Counts are estimates in some containers; what was cut off is more than one in a hundred.
        if self._count is not None and index < self._count - max(1, self._count // 100):
            _log.warning(
                "video '%s' ends after %d of %d frames; it may be cut off", self._path, index, self._count
            )

    def _frame(self, index: int) -> Frame | HybridgeError:
        whole, image = self._capture.retrieve()
        if not whole:
            return self._invalid(f"frame {index}, which cannot be decoded")
        time_s = self._capture.get(self._cv2.CAP_PROP_POS_MSEC) / 1e3
        if time_s <= 0 and index and self.fps:
            time_s = index / self.fps
        return Frame({self._name: rgb(image)}, name=f"frame {index}", time_s=time_s)

    def _release(self) -> None:
        self._capture.release()

    def _invalid(self, received: str) -> HybridgeError:
        return HybridgeError(
            ErrorCode.INPUT_INVALID,
            f"video '{self._path}'",
            received=received,
            expected="a whole video in a format that OpenCV reads",
            fix="play it, or convert it, such as with: ffmpeg -i FILE OUT.mp4",
        )
