"""Image files as frames: named ones, a folder's, or a folder's as they come."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Sequence
from os import PathLike
from pathlib import Path

from edge_runtime.errors import ErrorCode, HybridgeError
from edge_runtime.frame import Frame
from edge_runtime.sources.file_list import Paths, list_files, watch_folder
from edge_runtime.sources.file_value import IMAGE_EXTENSIONS, read_image
from edge_runtime.sources.source import Source

__all__ = ["ImageFiles"]


class ImageFiles(Source):
    """A frame for each image file, named like the file: uint8 of shape (height, width, `channels`).

    A file that is missing, cut off or no image is an error in the place of its frame, and the rest go on.

    Args:
        paths: A file, a sequence of files, or a folder (its images, by name).
        name: The chain's input that the image is for.
        decode: False gives the file's bytes, uint8 of shape (size,), for a chain that decodes them itself.
        channels: 3 for RGB, 1 for grey.
        extensions: Which files of a folder are images.
        watch: Goes on with files that come into the folder, or are written anew there, until the source is closed.
            Those that are there come first. `time_s` is then when a file was seen; else it is 0.
        interval_s: How often a watched folder is looked at; a file must be unchanged from one look to the next.

    Raises:
        HybridgeError: `file-not-found` for a path with nothing there, or a folder without images that is not watched;
            `input-invalid` for a setting that cannot be; when iterated, `extra-missing` without OpenCV and
            `file-not-found` when the watched folder goes away.

    Example:
        >>> with ImageFiles("inbox", watch=True) as source:
        ...     for result in chain.stream(source):
        ...         print(result.frame.name, result.prediction or result.error)
    """

    def __init__(
        self,
        paths: Paths,
        *,
        name: str = "image",
        decode: bool = True,
        channels: int = 3,
        extensions: Sequence[str] = IMAGE_EXTENSIONS,
        watch: bool = False,
        interval_s: float = 0.5,
    ):
        super().__init__()
        if channels not in (1, 3):
            raise HybridgeError(
                ErrorCode.INPUT_INVALID, "channels", received=str(channels), expected="1 or 3"
            )
        self._name = name
        self._decode = decode
        self._channels = channels
        self._paths: list[Path] | None = None
        if watch:
            self._folder = _folder(paths, interval_s)
            self._extensions, self._interval_s = extensions, interval_s
        else:
            self._paths = list_files(paths, extensions=extensions)
            self.length = len(self._paths)

    def _frames(self) -> Generator[Frame | HybridgeError]:
        start = time.monotonic()
        files: Iterator[Path] = iter(self._paths or ())
        if self._paths is None:
            files = watch_folder(
                self._folder, extensions=self._extensions, interval_s=self._interval_s, closed=self._closed
            )
        for path in files:
            time_s = time.monotonic() - start if self._paths is None else 0.0
            try:
                image = read_image(path, decode=self._decode, channels=self._channels)
            except HybridgeError as error:
                if error.code is ErrorCode.EXTRA_MISSING:
                    raise
                yield error
            else:
                yield Frame({self._name: image}, name=path.name, time_s=time_s)


def _folder(paths: Paths, interval_s: float) -> Path:
    if interval_s <= 0:
        raise HybridgeError(
            ErrorCode.INPUT_INVALID, "interval_s", received=str(interval_s), expected="seconds above 0"
        )
    if not isinstance(paths, str | PathLike) or not Path(paths).is_dir():
        raise HybridgeError(
            ErrorCode.FILE_NOT_FOUND,
            "watch",
            received=f"'{paths}'",
            expected="a folder that exists",
            fix="make the folder first",
        )
    return Path(paths)
