"""What can be converted: one module for each kind of source, all behind the `Source` protocol."""

from convert.sources.export import pinned
from convert.sources.keras_source import KerasSource
from convert.sources.source import Architecture, Source, open_source

__all__ = ["Architecture", "KerasSource", "Source", "open_source", "pinned"]
