"""A picture for each result, with what was found drawn on it."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path, PurePath

from edge_runtime.errors import ErrorCode, HybridgeError
from edge_runtime.files import write_file
from edge_runtime.frame import StreamResult
from edge_runtime.operators import find_operator
from edge_runtime.sinks.annotation import Annotation
from edge_runtime.sinks.sink import Sink, unwritable

__all__ = ["AnnotatedImages"]


class AnnotatedImages(Sink):
    """Writes each result's image into a folder, under its frame's name; a result without an answer writes none.

    Args:
        folder: Where to; it is made when it is missing.
        image: Name of the tensor that holds the image, such as a chain's drawn result; without it, the frame's image.
        boxes: Name of the tensor of boxes to draw, float32 of shape (n, 4): top, left, bottom, right.
        quads: Of quadrilaterals, float32 of shape (n, 4, 2).
        points: Of points, float32 of shape (..., 2 or more).
        labels: Of the texts or numbers at each of these; several names are joined. Without one and without regions,
            the prediction's own label is written in the corner.
        format: ``jpeg`` or ``png``.
        quality: Of a JPEG, 1 to 100.
        overwrite: Writes over pictures that exist. Two frames of one name get their numbers in any case.

    Raises:
        HybridgeError: `input-invalid` for another format, `extra-missing` without OpenCV, `file-unwritable` for a
            folder that cannot be made.

    Example:
        >>> with AnnotatedImages("found/", boxes="faces", points="landmarks") as sink:
        ...     for result in chain.stream(source):
        ...         sink.write(result)
    """

    def __init__(
        self,
        folder: str | PathLike[str],
        *,
        image: str | None = None,
        boxes: str | None = None,
        quads: str | None = None,
        points: str | None = None,
        labels: str | Sequence[str] | None = None,
        format: str = "jpeg",  # noqa: A002 - the field's word
        quality: int = 90,
        overwrite: bool = False,
    ):
        super().__init__()
        self._annotation = Annotation(image=image, boxes=boxes, quads=quads, points=points, labels=labels)
        self._folder = Path(folder)
        self._params = {"format": format, "quality": quality}
        self._suffix = ".png" if format == "png" else ".jpg"
        self._overwrite = overwrite
        self._names: set[str] = set()
        if format not in ("jpeg", "png"):
            raise HybridgeError(ErrorCode.INPUT_INVALID, "format", received=format, expected="jpeg or png")
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise unwritable(f"folder '{folder}'", error.strerror or str(error)) from error

    def _write(self, result: StreamResult) -> None:
        if result.prediction is None:
            return
        image = self._annotation.draw(result)
        if image is None:
            return
        content = find_operator("encode").run({"image": image}, self._params)["content"]
        name = _file_name(result)
        if name in self._names:
            name = f"{name}-{result.index}"
        self._names.add(name)
        write_file(self._folder / f"{name}{self._suffix}", bytes(content), overwrite=self._overwrite)


def _file_name(result: StreamResult) -> str:
    # A frame's name may come from anywhere, and must not lead out of the folder.
    stem = PurePath(result.frame.name.replace("\\", "/")).stem
    safe = "".join(letter if letter.isalnum() or letter in "-_." else "-" for letter in stem).strip(".")
    return safe[:100] or f"frame-{result.index}"
