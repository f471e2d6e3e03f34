"""From a float `.tflite` to a smaller one: quantised by litert-quantizer, sparse weights stored sparse."""

from convert.quantization.quantize import Coverage, coverage, quantize

__all__ = ["Coverage", "coverage", "quantize"]
