"""Which sink a text names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edge_runtime.errors import ErrorCode, HybridgeError
from edge_runtime.sinks.annotated_images import AnnotatedImages
from edge_runtime.sinks.annotated_video import VIDEO_CODECS, AnnotatedVideo
from edge_runtime.sinks.json_lines_file import JsonLinesFile
from edge_runtime.sinks.sink import Sink
from edge_runtime.sources.settings import make

__all__ = ["open_sink"]

_JSON_EXTENSIONS = (".jsonl", ".ndjson")


def open_sink(spec: str, **settings: Any) -> Sink:
    """The sink that a text names.

    Args:
        spec: ``-`` for JSON lines on standard output; a file that ends in `.jsonl` or `.ndjson`, `.mp4` or `.avi`; a
            folder for pictures, which exists or ends in a slash or has no ending.
        **settings: Those of the sink, such as ``boxes="faces"``; None stands for the sink's own default.

    Raises:
        HybridgeError: `input-invalid` for a text that names none, with what there is, or a setting that the sink does
            not have; those of the sink.

    Example:
        >>> with open_sink("door.mp4", boxes="faces") as sink:
        ...     for result in chain.stream(source):
        ...         sink.write(result)
    """
    path = Path(spec)
    suffix = path.suffix.lower()
    kind: type[Sink]
    if spec == "-" or suffix in _JSON_EXTENSIONS:
        kind = JsonLinesFile
    elif suffix in VIDEO_CODECS:
        kind = AnnotatedVideo
    elif spec and (spec.endswith("/") or path.is_dir() or not suffix):
        kind = AnnotatedImages
    else:
        endings = ", ".join([*_JSON_EXTENSIONS, *VIDEO_CODECS])
        raise HybridgeError(
            ErrorCode.INPUT_INVALID,
            f"output '{spec}'",
            received="a name that says nothing of what it is",
            expected=f"-, a folder with a slash at its end, or a file that ends in {endings}",
        )
    return make(f"output '{spec}'", kind, spec, settings=settings)
