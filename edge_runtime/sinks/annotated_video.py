"""A video of a stream, with what was found drawn on it."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from edge_runtime.errors import ErrorCode, HybridgeError
from edge_runtime.files import check_writable
from edge_runtime.frame import StreamResult
from edge_runtime.operators import find_operator
from edge_runtime.operators.opencv import opencv
from edge_runtime.sinks.annotation import Annotation
from edge_runtime.sinks.sink import Sink, unwritable
from edge_runtime.sinks.timeline import Timeline, frame_rate
from edge_runtime.tensor_spec import Array

__all__ = ["VIDEO_CODECS", "AnnotatedVideo"]

VIDEO_CODECS = {".mp4": "mp4v", ".avi": "MJPG"}

# Frames that are looked at for the rate, and the rate where they have no times.
_PROBED = 5
_DEFAULT_FPS = 10.0

_log = logging.getLogger(__name__)


class AnnotatedVideo(Sink):
    """Writes results as a video, MPEG-4 in `.mp4` or Motion JPEG in `.avi`.

    It plays as fast as the stream ran: a frame stays until the next one's `time_s`. The first frame decides the size;
    one of another size is fitted into it with black around, and an odd side loses a line. A frame whose chain failed is
    shown as it came. The video is written beside its name and renamed when the sink is closed, also by a failure.

    Args:
        path: Of the video.
        fps: Frames a second; without it, those of the first frames' times, or 10 where times do not move.
        hold_s: The longest that one frame is shown, in seconds.
        image: Name of the tensor that holds the image, such as a chain's drawn result; without it, the frame's image.
        boxes: Name of the tensor of boxes to draw, float32 of shape (n, 4): top, left, bottom, right.
        quads: Of quadrilaterals, float32 of shape (n, 4, 2).
        points: Of points, float32 of shape (..., 2 or more).
        labels: Of the texts or numbers at each of these; several names are joined. Without one and without regions,
            the prediction's own label is written in the corner.
        overwrite: Writes over a file that exists.

    Raises:
        HybridgeError: `input-invalid` for another ending or a rate that cannot be, `extra-missing` without OpenCV,
            `file-exists`, `file-unwritable`.

    Example:
        >>> with AnnotatedVideo("door.mp4", boxes="faces") as sink:
        ...     for result in chain.stream(source):
        ...         sink.write(result)
    """

    def __init__(
        self,
        path: str | PathLike[str],
        *,
        fps: float | None = None,
        hold_s: float = 2.0,
        image: str | None = None,
        boxes: str | None = None,
        quads: str | None = None,
        points: str | None = None,
        labels: str | Sequence[str] | None = None,
        overwrite: bool = False,
    ):
        super().__init__()
        self._cv2 = opencv()
        self._annotation = Annotation(image=image, boxes=boxes, quads=quads, points=points, labels=labels)
        self._path = Path(path)
        self._overwrite = overwrite
        self._fps, self._hold_s = fps, hold_s
        if self._path.suffix.lower() not in VIDEO_CODECS:
            raise HybridgeError(
                ErrorCode.INPUT_INVALID,
                f"output '{path}'",
                received=f"a name that ends in '{self._path.suffix}'",
                expected=" or ".join(VIDEO_CODECS),
            )
        if (fps is not None and not 1 <= fps <= 120) or not hold_s > 0:
            raise HybridgeError(
                ErrorCode.INPUT_INVALID,
                f"output '{path}'",
                received=f"fps {fps}, hold_s {hold_s}",
                expected="1 to 120 frames a second, and seconds above 0",
            )
        check_writable(path, overwrite=overwrite)
        # OpenCV chooses the container by the ending.
        self._temporary = self._path.with_name(f".{self._path.stem}.{os.urandom(6).hex()}{self._path.suffix}")
        self._first: list[tuple[float, Array]] = []
        self._writer: Any = None
        self._timeline: Timeline | None = None
        self._last: Array | None = None
        self._written = 0

    def _write(self, result: StreamResult) -> None:
        image = self._annotation.draw(result)
        if image is None:
            return
        if self._timeline is not None:
            self._show(result.frame.time_s, image)
            return
        self._first.append((result.frame.time_s, image))
        if self._fps is not None or len(self._first) == _PROBED:
            self._start()

    def _start(self) -> None:
        first, self._first = self._first, []
        fps = self._fps or frame_rate([time_s for time_s, _ in first], default=_DEFAULT_FPS)
        height, width = first[0][1].shape[:2]
        codec = self._cv2.VideoWriter.fourcc(*VIDEO_CODECS[self._path.suffix.lower()])
        self._writer = self._cv2.VideoWriter(os.path.abspath(self._temporary), codec, fps, (width, height))
        if not self._writer.isOpened():
            self._writer = None
            # The folder was looked at before: what is left is the codec, which has its own limits.
            raise HybridgeError(
                ErrorCode.FILE_UNWRITABLE,
                f"output '{self._path}'",
                received=f"frames of {width}x{height}",
                expected="a size that its codec takes, 2x2 or more",
                fix="resize the image, or write an .avi",
            )
        self._size = (height, width)
        self._timeline = Timeline(fps, self._hold_s)
        for time_s, image in first:
            self._show(time_s, image)

    def _show(self, time_s: float, image: Array) -> None:
        if image.shape[:2] != self._size:
            box = {"height": self._size[0], "width": self._size[1], "fill": 0}
            image = np.asarray(find_operator("letterbox").run({"image": image}, box)["image"])
        assert self._timeline is not None  # noqa: S101 - `_start` made it
        repeats, shown = self._timeline.advance(time_s)
        for _ in range(repeats):
            self._writer.write(self._last)
        self._last = self._cv2.cvtColor(image, self._cv2.COLOR_RGB2BGR)
        if shown:
            self._writer.write(self._last)
        self._written += repeats + shown

    def _finish(self) -> None:
        try:
            if self._first:
                self._start()
            if self._writer is None:
                if not self._failed:
                    _log.warning("no image came for '%s', and nothing is written", self._path)
                return
            self._writer.release()
            self._check_whole()
            check_writable(self._path, overwrite=self._overwrite)
            os.replace(self._temporary, self._path)
        except OSError as error:
            raise unwritable(f"output '{self._path}'", error.strerror or str(error)) from error
        finally:
            self._temporary.unlink(missing_ok=True)

    def _check_whole(self) -> None:
        # OpenCV's writer says nothing of a disk that is full.
        reader = self._cv2.VideoCapture(os.path.abspath(self._temporary))
        count = int(reader.get(self._cv2.CAP_PROP_FRAME_COUNT)) if reader.isOpened() else 0
        reader.release()
        if count < self._written:
            raise unwritable(f"output '{self._path}'", f"{max(count, 0)} of {self._written} frames written")
