"""Which source a text names."""

from __future__ import annotations

import glob
import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

from edge_runtime.errors import ErrorCode, HybridgeError
from edge_runtime.sources.array_files import ArrayFiles
from edge_runtime.sources.audio_files import AUDIO_EXTENSIONS, AudioFiles
from edge_runtime.sources.camera import CAMERA_SCHEMES, Camera
from edge_runtime.sources.file_list import list_files
from edge_runtime.sources.file_value import ARRAY_EXTENSIONS, IMAGE_EXTENSIONS
from edge_runtime.sources.image_files import ImageFiles
from edge_runtime.sources.json_lines import JsonLines
from edge_runtime.sources.microphone import Microphone
from edge_runtime.sources.picamera import Picamera
from edge_runtime.sources.settings import make
from edge_runtime.sources.source import Source
from edge_runtime.sources.video_file import VIDEO_EXTENSIONS, VideoFile
from edge_runtime.tensor_spec import TensorSpec

__all__ = ["open_source", "settings_of"]

_Kind: TypeAlias = type[Source]

_JSON_EXTENSIONS = (".jsonl", ".ndjson")
# In the order in which a folder is asked what it holds.
_FILES: tuple[tuple[_Kind, tuple[str, ...]], ...] = (
    (ImageFiles, IMAGE_EXTENSIONS),
    (AudioFiles, AUDIO_EXTENSIONS),
    (ArrayFiles, ARRAY_EXTENSIONS),
    (VideoFile, VIDEO_EXTENSIONS),
    (JsonLines, _JSON_EXTENSIONS),
)
_SEVERAL: tuple[_Kind, ...] = (ImageFiles, AudioFiles, ArrayFiles)
_DEVICES: dict[str, _Kind] = {"camera": Camera, "picamera": Picamera, "mic": Microphone}


def open_source(
    spec: str, *, name: str | None = None, specs: Sequence[TensorSpec] = (), **settings: Any
) -> Source:
    """The source that a text names.

    Args:
        spec: ``camera``, ``camera:1``, ``/dev/video1`` or a camera's URL; ``picamera`` or ``picamera:1``; ``mic`` or
            ``mic:NAME``; ``-`` for JSON lines on standard input; a file of images, audio, arrays, video or JSON
            lines, by its ending; a folder or a pattern such as ``photos/*.jpg`` of images, audio or arrays.
        name: The chain's input that frames are for; without it, ``image``, ``audio`` or ``array``. JSON lines name
            their inputs themselves.
        specs: Types of the chain's inputs, for JSON lines.
        **settings: Those of the source, such as ``watch=True``; None stands for the source's own default.

    Raises:
        HybridgeError: `input-invalid` for a text that names none, with what there is, or a setting that the source does
            not have; those of the source.

    Example:
        >>> with open_source("camera:0", width=640, height=480) as source:
        ...     frame = next(iter(source))
    """
    kind, arguments = _chosen(spec, watch=bool(settings.get("watch")))
    given = {"specs": specs} if kind is JsonLines else {"name": name}
    return make(f"source '{spec}'", kind, *arguments, settings={**given, **settings})


def settings_of(spec: str, *, watch: bool = False) -> frozenset[str]:
    """Names of the settings that the source a text names has.

    Args:
        spec: As for `open_source`.
        watch: Whether it would be asked to watch, as only a folder can.

    Raises:
        HybridgeError: `input-invalid` for a text that names none.
    """
    kind, _ = _chosen(spec, watch=watch)
    return frozenset(inspect.signature(kind.__init__).parameters)


def _chosen(spec: str, *, watch: bool) -> tuple[_Kind, tuple[Any, ...]]:
    if spec == "-":
        return JsonLines, ("-",)
    if not spec:  # which is the current folder to the file system
        raise _unknown(spec)
    device, colon, rest = spec.partition(":")
    if rest.startswith("//"):
        if device in CAMERA_SCHEMES:
            return Camera, (spec,)
        raise _unknown(spec)
    if spec.startswith("/dev/video"):
        return Camera, (spec,)
    if device in _DEVICES and (rest or not colon) and not Path(spec).exists():
        if device == "picamera" and rest and not rest.isdecimal():
            raise _unknown(spec)
        return _DEVICES[device], ((int(rest) if rest.isdecimal() else rest,) if rest else ())
    path = Path(spec)
    if path.is_dir():
        return (ImageFiles if watch else _kind_of_folder(path)), (spec,)
    if not path.exists() and glob.has_magic(spec):
        return _pattern(spec)
    kind = _kind_of(path)
    if kind is None:
        raise _unknown(spec)
    return kind, (spec,)


def _kind_of(path: Path) -> _Kind | None:
    suffix = path.suffix.lower()
    return next((kind for kind, extensions in _FILES if suffix in extensions), None)


def _kind_of_folder(folder: Path) -> _Kind:
    for kind, extensions in _FILES:
        if kind in _SEVERAL:
            try:
                list_files(folder, extensions=extensions)
            except HybridgeError:
                continue
            return kind
    return ImageFiles  # whose error says what was looked for


def _pattern(spec: str) -> tuple[_Kind, tuple[Any, ...]]:
    found = sorted(path for path in glob.glob(spec, recursive=True) if Path(path).is_file())
    kinds = {_kind_of(Path(path)) for path in found}
    if len(kinds) == 1 and (kind := kinds.pop()) in _SEVERAL and kind is not None:
        return kind, (found,)
    raise HybridgeError(
        ErrorCode.INPUT_INVALID if found else ErrorCode.FILE_NOT_FOUND,
        f"source '{spec}'",
        received="files of several kinds, or of one that is read one at a time" if found else "no such file",
        expected="files that are all images, all audio or all arrays",
        fix="quote the pattern and check it",
    )


def _unknown(spec: str) -> HybridgeError:
    endings = ", ".join(ending for _, extensions in _FILES for ending in extensions)
    return HybridgeError(
        ErrorCode.INPUT_INVALID,
        f"source '{spec}'",
        received="a name that says nothing of what it is",
        expected="camera[:N], /dev/videoN, picamera[:N], mic[:NAME], -, a folder, a pattern, "
        f"{'://, '.join(CAMERA_SCHEMES)}://, or a file that ends in {endings}",
    )
