"""Where a stream's frames come from: files, folders, videos, cameras, microphones, lines of JSON.

Each source is an iterable of `Frame` and a context manager; anything that iterates over frames may stand in for one.

Example:
    >>> from edge_runtime.sources import open_source
    >>> with open_source("photos/") as source:
    ...     for frame in source:
    ...         print(frame if isinstance(frame, HybridgeError) else frame.name)
"""

from edge_runtime.sources.array_files import ArrayFiles
from edge_runtime.sources.audio_files import AudioFiles
from edge_runtime.sources.camera import Camera
from edge_runtime.sources.image_files import ImageFiles
from edge_runtime.sources.json_lines import JsonLines
from edge_runtime.sources.microphone import Microphone
from edge_runtime.sources.opening import open_source, settings_of
from edge_runtime.sources.picamera import Picamera
from edge_runtime.sources.source import Source
from edge_runtime.sources.video_file import VideoFile

__all__ = [
    "ArrayFiles",
    "AudioFiles",
    "Camera",
    "ImageFiles",
    "JsonLines",
    "Microphone",
    "Picamera",
    "Source",
    "VideoFile",
    "open_source",
    "settings_of",
]
