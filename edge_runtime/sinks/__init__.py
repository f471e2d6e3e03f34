"""Where a stream's results go: lines of JSON, pictures and videos with what was found drawn on them.

Example:
    >>> from edge_runtime.sinks import open_sink
    >>> with open_sink("found.jsonl") as sink:
    ...     for result in chain.stream(source):
    ...         sink.write(result)
"""

from edge_runtime.sinks.annotated_images import AnnotatedImages
from edge_runtime.sinks.annotated_video import AnnotatedVideo
from edge_runtime.sinks.json_lines_file import JsonLinesFile
from edge_runtime.sinks.opening import open_sink
from edge_runtime.sinks.sink import Sink

__all__ = ["AnnotatedImages", "AnnotatedVideo", "JsonLinesFile", "Sink", "open_sink"]
