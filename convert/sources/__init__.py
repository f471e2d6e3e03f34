"""What can be converted: one module for each kind of source, all behind the `Source` protocol."""

from convert.sources.input_shapes import Shape, freed, parse_input, pinned
from convert.sources.keras_source import KerasSource
from convert.sources.kinds import open_source
from convert.sources.onnx_source import OnnxSource
from convert.sources.saved_model_source import SavedModelSource
from convert.sources.source import Architecture, Source
from convert.sources.tflite_source import TFLiteSource

__all__ = [
    "Architecture",
    "KerasSource",
    "OnnxSource",
    "SavedModelSource",
    "Shape",
    "Source",
    "TFLiteSource",
    "freed",
    "open_source",
    "parse_input",
    "pinned",
]
