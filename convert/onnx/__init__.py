"""ONNX models as TensorFlow functions, from which a device's own format is made."""

from convert.onnx.function import OnnxFunction
from convert.onnx.model_file import OnnxModel, prepared, read_model

__all__ = ["OnnxFunction", "OnnxModel", "prepared", "read_model"]
