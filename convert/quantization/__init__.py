"""From a float `.tflite` to a smaller one: quantised by litert-quantizer, sparse weights stored sparse."""

from convert.quantization.calibration import Ranges, calibrate
from convert.quantization.coverage import Coverage, coverage
from convert.quantization.equalization import equalized
from convert.quantization.flatbuffer import operations
from convert.quantization.quantize import quantize
from convert.quantization.sensitivity import LayerSensitivity, mixed, rank_layers
from convert.quantization.sparsity import SparseWeight, SparsityReport, encode_sparse
from convert.quantization.value_ranges import ValueRange, activation_ranges, weight_ranges

__all__ = [
    "Coverage",
    "LayerSensitivity",
    "Ranges",
    "SparseWeight",
    "SparsityReport",
    "ValueRange",
    "activation_ranges",
    "calibrate",
    "coverage",
    "encode_sparse",
    "equalized",
    "mixed",
    "operations",
    "quantize",
    "rank_layers",
    "weight_ranges",
]
